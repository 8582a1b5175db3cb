"""Measured steps of training: rows of published tables, played as ``cmsim predict training`` plays them, by set.

A set is judged by the median and the 90th percentile of its absolute errors, each a row of the area, as the other areas
of many rows are. Rows whose plan had to be completed by a guess are sets of their own, shown and not judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from cmsim.published import Case, PlayedCase, TableForm, form_of, play_all
from cmsim.reading.kept import while_unchanged
from cmsim.reading.tables import Record, read_records
from cmsim.units import GIB
from cmsim.validation import reference
from cmsim.validation.area import Progress
from cmsim.validation.pairs import Pairs
from cmsim.validation.reference import AreaSpec
from cmsim.validation.row import Row
from cmsim.validation.sets import Compared, SetOfRows, pairs_of, statistics

#: what a run of a built-in model on a built-in system reads, and the rows
_READ = (
    *("topologies", "topologies/accelerators", "topologies/stacks", "topologies/kernels", "topologies/libraries"),
    *("workloads/models", "workloads/published", reference.FOLDER),
)
_UNITS = {"time": "s", "memory": "GiB"}


class SetSpec(SetOfRows):
    """Rows of training that belong together, and what their errors have to stay under."""

    plans: Literal["complete", "completed"] = Field(
        default="complete", description="completed: rows with a detail that nobody states of the run"
    )
    experts: bool | None = Field(default=None, description="only mixtures of experts, or only others")
    quantity: Literal["time", "memory"] = "time"


class TrainingAreaSpec(AreaSpec):
    """``training.yaml``."""

    sets: dict[str, SetSpec]
    slow: dict[str, str] = Field(default={}, description="patterns of ids of rows that are not played: the reason")


def rows(area: str, progress: Progress) -> list[Row]:
    """Two rows a set, its median error and the 90th percentile; then the rows that are left out."""
    spec, _ = reference.read_spec(area, TrainingAreaSpec)
    progress(f"{area}/steps", 0.0)
    found: list[Row] = []
    left: dict[str, Row] = {}
    for name, compared in _compared(area).items():
        of = spec.sets[name]
        found += statistics(area, name, of, [one for one in compared if one.predicted is not None])
        for one in compared:
            if one.predicted is None and one.measured is not None:
                left[one.id] = Row(
                    one.id,
                    area,
                    "left_out",
                    one.system,
                    of.what,
                    one.measured,
                    _UNITS[of.quantity],
                    of.source,
                    note=one.reason,
                )
    return [*found, *left.values()]


def pairs(area: str, _: Sequence[Row]) -> list[Pairs]:
    """Every measured number beside its prediction, by set."""
    spec, _document = reference.read_spec(area, TrainingAreaSpec)
    return [
        pairs_of(name, spec.sets[name], _UNITS[spec.sets[name].quantity], some)
        for name, some in _compared(area).items()
    ]


@while_unchanged(*_READ)
def _compared(area: str) -> dict[str, tuple[Compared, ...]]:
    """The rows of every set, played; a row that is in two sets is played once."""
    spec, _ = reference.read_spec(area, TrainingAreaSpec)
    chosen = {name: _chosen(of, spec.slow) for name, of in spec.sets.items()}
    played = iter(play_all([case for some in chosen.values() for *_, case in some]))
    return {
        name: tuple(_one(spec.sets[name], form, id_, row, case, next(played)) for form, id_, row, case in some)
        for name, some in chosen.items()
    }


def _chosen(of: SetSpec, slow: dict[str, str]) -> list[tuple[TableForm, str, Record, Case]]:
    """Rows of a set as cases, evenly sampled; then those that are left out, with their reasons."""
    runs, left = [], []
    table = read_records(reference.folder() / of.table)
    form = form_of(list(table[0]) if table else [], of.table)
    for number, row in enumerate(table):
        if not all(re.search(pattern, row[column], re.IGNORECASE) for column, pattern in of.of.items()):
            continue
        case, id_ = form.case(row), form.id(row, number)
        too_long = next((why for pattern, why in slow.items() if re.search(pattern, id_)), "")
        if too_long:
            case = Case(reason=too_long)
        if case.scenario is None:
            left.append((form, id_, row, case))
        elif _belongs(of, case):
            runs.append((form, id_, row, case))
    return [*runs[:: of.every], *(left if of.plans == "complete" else [])]


def _belongs(of: SetSpec, case: Case) -> bool:
    """Whether a run has as complete a plan, and experts or none, as the set asks for."""
    assert case.scenario is not None
    mixture = "ep" in case.scenario["workload"]["parallel"]
    return bool(case.taken) == (of.plans == "completed") and of.experts in (None, mixture)


def _one(of: SetSpec, form: TableForm, id_: str, row: Record, case: Case, played: PlayedCase) -> Compared:
    system = case.scenario["systems"][0]["system"] if case.scenario else ""
    if of.quantity == "memory":
        held = None if played.memory_B is None else played.memory_B / GIB
        return Compared(id_, system, form.memory_GiB(row), held, played.reason)
    step = played.step_time_s
    model_FLOP = (played.model_FLOPps or 0.0) * (step or 0.0) * _accelerators(row)
    measured = form.measured_step_s(row, model_FLOP)
    return Compared(id_, system, measured, step if measured else None, played.reason)


def _accelerators(row: Record) -> float:
    """Of rows that print a rate of FLOPs for each. [1]"""
    return row.number("n_accelerators") if "n_accelerators" in row else 0.0
