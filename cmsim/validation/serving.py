"""Measured services: rows of published tables, run as ``cmsim predict serving`` runs them, by set.

A set is of one quantity: the mean time to the first token, the mean time of a token after it, or output tokens a
second. Rows of models that constants of stacks were fitted on are sets of their own, shown and not judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from cmsim.published import Case, PlayedService, ServiceForm, serve_all, service_form_of
from cmsim.reading import Spec
from cmsim.reading.kept import while_unchanged
from cmsim.reading.tables import Record, read_records
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
_UNITS = {"ttft": "ms", "tpot": "ms", "rate": "tokens/s"}


class WithoutSystem(Spec):
    """Rows of one system and engine, and the constants that are found where none of them is fitted."""

    of: dict[str, str] = Field(min_length=1, description="pattern by column; all must be found")
    serving: dict[str, float] = Field(min_length=1, description="keys of the stack's `serving`, instead of its own")


class ServiceSetSpec(SetOfRows):
    """Rows of services that belong together, and what their errors have to stay under."""

    quantity: Literal["ttft", "tpot", "rate"]
    fitted: bool = Field(default=False, description="constants were fitted on rows of these models")
    without: tuple[WithoutSystem, ...] = Field(
        default=(), description="rows of these alone, with constants that a fit without their system found"
    )


class ServingAreaSpec(AreaSpec):
    """``serving.yaml``."""

    sets: dict[str, ServiceSetSpec]


def rows(area: str, progress: Progress) -> list[Row]:
    """Two rows a set, its median error and the 90th percentile; then the rows that are left out."""
    spec, _ = reference.read_spec(area, ServingAreaSpec)
    progress(f"{area}/services", 0.0)
    found: list[Row] = []
    left: dict[str, Row] = {}
    for name, compared in _compared(area).items():
        of = spec.sets[name]
        some = [one for one in compared if one.predicted is not None]
        found += statistics(area, name, of, some, "fitted" if of.fitted else None)
        for one in compared:
            if one.predicted is None and one.measured is not None:
                id_, unit = f"{one.id}/{of.quantity}", _UNITS[of.quantity]
                left[id_] = Row(
                    id_, area, "left_out", one.system, of.what, one.measured, unit, of.source, note=one.reason
                )
    return [*found, *left.values()]


def pairs(area: str, _: Sequence[Row]) -> list[Pairs]:
    """Every measured number beside its prediction, by set."""
    spec, _document = reference.read_spec(area, ServingAreaSpec)
    return [
        pairs_of(name, spec.sets[name], _UNITS[spec.sets[name].quantity], some)
        for name, some in _compared(area).items()
    ]


_Chosen = tuple[ServiceForm, str, Record, Case]


@while_unchanged(*_READ)
def _compared(area: str) -> dict[str, tuple[Compared, ...]]:
    """The rows of every set, run; a row that is in several sets is run once."""
    spec, _ = reference.read_spec(area, ServingAreaSpec)
    chosen = {name: _chosen(of) for name, of in spec.sets.items()}
    played = iter(serve_all([case for some in chosen.values() for *_, case in some], jobs=None))
    return {name: tuple(_one(spec.sets[name], *each, next(played)) for each in some) for name, some in chosen.items()}


def _chosen(of: ServiceSetSpec) -> list[_Chosen]:
    """Rows of a set as cases, evenly sampled; then those that are no evidence, with their reasons."""
    runs: list[_Chosen] = []
    left: list[_Chosen] = []
    table = read_records(reference.folder() / of.table)
    form = service_form_of(list(table[0]) if table else [], of.table)
    for number, row in enumerate(table):
        if not _found(of.of, row):
            continue
        refitted = next((one for one in of.without if _found(one.of, row)), None)
        if of.without and refitted is None:
            continue
        # by their place in the table: sets have the same rows of it
        if number % of.every:
            continue
        why = form.left_out(row) or (form.ttft_left_out(row) if of.quantity == "ttft" else "")
        case = Case(reason=why) if why else _with(form.case(row), refitted)
        (left if case.scenario is None else runs).append((form, form.id(row, number), row, case))
    return [*runs, *left]


def _found(patterns: Mapping[str, str], row: Record) -> bool:
    return all(re.search(pattern, row[column], re.IGNORECASE) for column, pattern in patterns.items())


def _with(case: Case, refitted: WithoutSystem | None) -> Case:
    """A case on its stack, with other constants of its host where there are some."""
    if refitted is None or case.scenario is None:
        return case
    (entry,) = case.scenario["systems"]
    keys = {f"stack.serving.{key}": value for key, value in refitted.serving.items()}
    changed = {**entry, "set": {**entry.get("set", {}), **keys}}
    return replace(case, scenario={**case.scenario, "systems": [changed]})


def _one(of: ServiceSetSpec, form: ServiceForm, id_: str, row: Record, case: Case, played: PlayedService) -> Compared:
    system = case.scenario["systems"][0]["system"] if case.scenario else ""
    measured = form.measured(row)
    there, found = {
        "ttft": (measured.ttft_ms, played.ttft_s and played.ttft_s * 1e3),
        "tpot": (measured.tpot_ms, played.tpot_s and played.tpot_s * 1e3),
        "rate": (measured.output_tokens_per_s, played.output_tokens_per_s),
    }[of.quantity]
    return Compared(id_, system, there, found if there else None, played.reason)
