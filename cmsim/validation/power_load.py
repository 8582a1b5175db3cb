"""Power under load: runs of a served model whose accelerators were metered, and nodes whose supply was.

A served run decodes its mean batch and works through one prompt for each answer; it is predicted as those two, each
from a run of its own, weighted by the time each takes for one token:

    decode: t_d = step / batch      prompts: t_p = pass / prompts / tokens of an answer
    P = (P_d t_d + P_p t_p) / (t_d + t_p)      energy of a token = P (t_d + t_p)

Times are those of the machine's engine for such work (``stack_of``); watts are fitted to kernels and messages alone.
With measured times t_d + t_p is one over the measured rate, t_p as predicted. The watts of an accelerator are fitted to
some families of models and judged on the others, and so are the times of the engine; what a package draws at work with
engines at rest comes from the logs of nodes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeFloat

from cmsim import energy
from cmsim.api import run
from cmsim.arrays import Floats
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware import ACCELERATORS, STACKS, SYSTEMS, BoardWatts, board_watts, load_system
from cmsim.reading import Spec
from cmsim.reading.bytes_in import head
from cmsim.reading.kept import while_unchanged
from cmsim.reading.tables import Record, header_names, read_records
from cmsim.units import to_ps
from cmsim.validation import pairs as of_pairs
from cmsim.validation import points, power_series, reference
from cmsim.validation.area import Progress
from cmsim.validation.pairs import Pairs
from cmsim.validation.points import PointsSpec
from cmsim.validation.power_series import SeriesLimits, SeriesSpec
from cmsim.validation.row import Role, Row

COLUMNS = (
    *("id", "system", "family", "model", "accelerators", "tp", "ep", "weights", "activations", "batch"),
    *("prompt_tokens", "output_tokens", "power_W", "energy_per_token_J", "tokens_per_s"),
)
#: tokens of prompts that a server works on at once
_CHUNK = 8192
#: more than any rank needs: measured runs did fit
_ROOMY_GB = 1e6
_FEWEST = 8
#: what a run of a built-in model on a built-in system reads, and the measured rows
_READ = (
    *(SYSTEMS, ACCELERATORS, STACKS, "topologies/kernels", "topologies/libraries", "workloads/models"),
    reference.FOLDER,
)


class StatisticSpec(Spec):
    """What errors of a quantity have to stay under."""

    what: str
    median_pct: NonNegativeFloat
    p90_pct: NonNegativeFloat
    left_out: str = Field(default="", description="the reason, where the errors are shown and not judged")
    fitted_families: tuple[str, ...] | None = Field(
        default=None, description="families that it was fitted to, where these are not those of the watts"
    )


class PowerLoadSpec(PointsSpec):
    """``power-under-load.yaml``: points of nodes, and statistics of metered runs."""

    fitted_families: tuple[str, ...] = Field(description="families of models that the watts were fitted to")
    statistics: dict[str, StatisticSpec] = Field(
        description="of runs not fitted: power, energy, energy_measured_times, latency"
    )
    source: str
    series: dict[str, SeriesSpec] = Field(default={}, description="logs over time, by id of ``AREA_series.csv``")
    series_limits: SeriesLimits | None = Field(default=None, description="of their medians; goes with `series`")


class _Step(NamedTuple):
    """One run: what it kept busy for how long a token takes, and on how many packages."""

    busy: energy.Busy
    token_s: float


@dataclass(frozen=True)
class ServedRun:
    """A measured run beside the two that stand for it."""

    row: Mapping[str, str]
    decode: _Step
    prompts: _Step

    @property
    def packages(self) -> int:
        return int(self.row["accelerators"])

    def power_W(self, board: BoardWatts) -> float:
        """Of all packages. [W]"""
        return self.energy_J(board) / (self.decode.token_s + self.prompts.token_s)

    def energy_J(self, board: BoardWatts, *, measured_times: bool = False) -> float:
        """Of a token of an answer, over all packages. [J]"""
        prompts_s, decode_s = self.prompts.token_s, self.decode.token_s
        if measured_times:
            decode_s = max(1 / float(self.row["tokens_per_s"]) - prompts_s, 0.0)
        return self.packages * (self.decode.busy.mean_W(board) * decode_s + self.prompts.busy.mean_W(board) * prompts_s)


def holds_runs(table: str | Path) -> bool:
    """Whether a file is a table of metered runs: a CSV whose head has a model and a power."""
    path = Path(table)
    return path.suffix == ".csv" and path.is_file() and {"model", "power_W"} <= set(header_names(head(path)))


def read_runs(table: str | Path, *, system: str | None = None) -> list[Record]:
    """Rows of a table of metered runs (CSV with the columns of ``power-under-load_runs.csv``), of one system's or all.

    Raises InputError for a column that is missing, or a number that is none or not above 0.
    """
    rows = read_records(Path(table), needed=COLUMNS)
    problems = [
        row.problem(column, f"got {row[column]!r}; must be a number above 0")
        for row in rows
        for column in COLUMNS[4:7] + COLUMNS[9:]
        if not 0 < row.number(column) < math.inf
    ]
    if problems:
        raise InputError(problems)
    return [row for row in rows if system is None or row["system"] == system]


def served(row: Mapping[str, str], *, stack: str | None = None) -> ServedRun:
    """A measured row with the two runs that stand for it; ``stack``: default as the machine has it for such work.

    Raises InputError where they cannot be run.
    """
    n, batch, prompt = int(row["accelerators"]), float(row["batch"]), int(row["prompt_tokens"])
    answer = float(row["output_tokens"])
    prompts = max(_CHUNK // prompt, 1)
    experts = int(row["ep"])
    common = {
        "model": row["model"],
        "parallel": {"tp": int(row["tp"]), "ep": experts, "attention": "tp"},
        "precision": {"weights": row["weights"], "activations": row["activations"]},
    }
    decode = {"kind": "decode", "batch_per_accelerator": batch / n, "context_tokens": round(prompt + answer / 2)}
    prefill = {"kind": "prefill", "batch_per_accelerator": prompts / n, "prompt_tokens": prompt}
    step, first = (_step(row["system"], n, {**kind, **common}, stack) for kind in (decode, prefill))
    return ServedRun(
        row,
        step._replace(token_s=step.token_s / batch),
        first._replace(token_s=first.token_s / prompts / answer),
    )


def _step(system: str, accelerators: int, workload: dict[str, Any], stack: str | None) -> _Step:
    entry = {"system": system, "accelerators": accelerators, "set": {"accelerator.memory_GB": _ROOMY_GB}}
    if stack is not None:
        entry["stack"] = stack
    result = run({"systems": [entry], "workload": workload})[0]
    makespan_s = result.metric("makespan_s")
    used = energy.busy(
        load_system(system, accelerators=accelerators),
        result.columns["ops"],
        result.columns["links"],
        makespan_ps=int(to_ps(makespan_s)),
    )
    return _Step(used, makespan_s)


@dataclass(frozen=True)
class PowerFit:
    """Watts fitted to metered runs.

    compute_W, memory_W   as an accelerator file has them    active_W, limit_W: taken, not fitted
    fitted_pct, held_out_pct   median and 90th percentile of the error of power; held out: each family in turn [%]
    span   least and most of compute_W and memory_W over the fits that each left a family out [W]
    """

    accelerator: str
    active_W: float
    compute_W: float
    memory_W: float
    limit_W: float
    rows: int
    configurations: int
    fitted_pct: tuple[float, float]
    held_out_pct: tuple[float, float]
    span: Mapping[str, tuple[float, float]]
    source: str

    def text(self) -> str:
        """As YAML: the keys of an accelerator file, and how they were found."""
        import yaml

        data = {
            "power": {"active_W": self.active_W, "compute_W": self.compute_W, "memory_W": self.memory_W},
            "fit": {
                "accelerator": self.accelerator,
                "source": self.source,
                "rows": self.rows,
                "families": self.configurations,
                "taken": {"active_W": self.active_W, "max_W": self.limit_W},
                "error_pct": dict(zip(("median", "p90"), (round(x, 1) for x in self.fitted_pct), strict=True)),
                "held_out_pct": dict(zip(("median", "p90"), (round(x, 1) for x in self.held_out_pct), strict=True)),
                "held_out": "each family of models in turn",
                "span_W": {key: [round(low), round(high)] for key, (low, high) in self.span.items()},
            },
        }
        return yaml.safe_dump(data, sort_keys=False, width=110)


def fit_power(table: str | Path, *, accelerator: str, families: Sequence[str] = ()) -> PowerFit:
    """Fit what busy arithmetic and busy memory add to a package, to metered runs of a served model.

    table         see `read_runs`    accelerator: a system's name; rows of others are left out
    families      of models to fit to; default: all

    The fit is the least median-like error (mean of the root of the squared logarithm plus a small constant). Raises
    InputError for a family that has no rows, and where fewer than eight rows or two families are of the accelerator.
    """
    rows = read_runs(table, system=load_system(accelerator).spec.name)
    there = sorted({row["family"] for row in rows})
    for family in families:
        if family not in there:
            raise InputError(Problem(f"no runs of a family '{family}'. {did_you_mean(family, there)}", str(table)))
    known = [family for family in there if not families or family in families]
    rows = [row for row in rows if row["family"] in known]
    if len(rows) < _FEWEST or len(known) < 2:
        message = f"{len(rows)} rows of {len(known)} families are of {accelerator}; at least {_FEWEST} of 2 are needed"
        raise InputError(Problem(message, str(table)))
    # kernels and messages alone: what an engine does beside is no reading of them
    found = [served(row, stack=load_system(accelerator).spec.stack) for row in rows]
    board = board_watts(load_system(accelerator).accelerator)
    whole = _fitted(found, board)
    held = np.empty(len(found))
    others = []
    for family in known:
        mine = np.array([one.row["family"] == family for one in found])
        others.append(_fitted([one for one, out in zip(found, mine, strict=True) if not out], board))
        held[mine] = errors([one for one, out in zip(found, mine, strict=True) if out], others[-1])["power"]
    return PowerFit(
        accelerator=accelerator,
        active_W=board.active,
        compute_W=round(whole.compute),
        memory_W=round(whole.memory),
        limit_W=board.limit,
        rows=len(found),
        configurations=len(known),
        fitted_pct=_statistics(errors(found, whole)["power"]),
        held_out_pct=_statistics(held),
        span={
            f"{key}_W": (min(getattr(one, key) for one in others), max(getattr(one, key) for one in others))
            for key in ("compute", "memory")
        },
        source=Path(table).name,
    )


def _fitted(found: Sequence[ServedRun], board: BoardWatts) -> BoardWatts:
    from scipy.optimize import minimize

    def watts(x: Floats) -> BoardWatts:
        return replace(board, compute=float(x[0]), memory=float(x[1]))

    def loss(x: Floats) -> float:
        if min(x) < 0:
            return 1e3
        error = np.log1p(errors(found, watts(x))["power"] / 100)
        return float(np.mean(np.sqrt(error**2 + 1e-3)))

    start = [board.compute, board.memory]
    best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 200, "xatol": 0.5, "fatol": 1e-6})
    return watts(best.x)


def errors(found: Sequence[ServedRun], board: BoardWatts) -> dict[str, Floats]:
    """Predicted over measured, minus one, by quantity: power, energy of a token, that with measured times, and the time
    between tokens of a sequence where the table has it (``itl_ms``). [%]"""
    power_W = np.array([float(one.row["power_W"]) for one in found])
    energy_J = np.array([float(one.row["energy_per_token_J"]) for one in found])
    latency = {}
    if all(one.row.get("itl_ms") for one in found):
        between_ms = np.array([float(one.row["itl_ms"]) for one in found])
        told_ms = np.array([1e3 * one.decode.token_s * float(one.row["batch"]) for one in found])
        latency["latency"] = 100 * (told_ms / between_ms - 1)
    return {
        **latency,
        "power": 100 * (np.array([one.power_W(board) for one in found]) / power_W - 1),
        "energy": 100 * (np.array([one.energy_J(board) for one in found]) / energy_J - 1),
        "energy_measured_times": 100
        * (np.array([one.energy_J(board, measured_times=True) for one in found]) / energy_J - 1),
    }


def _statistics(error_pct: Floats) -> tuple[float, float]:
    size = np.abs(error_pct)
    return float(np.median(size)), float(np.percentile(size, 90))


@while_unchanged(*_READ)
def _shipped(area: str) -> tuple[ServedRun, ...]:
    """The shipped runs, played."""
    return tuple(served(row) for row in read_runs(reference.folder() / f"{area}_runs.csv"))


def rows(area: str, progress: Progress) -> list[Row]:
    """Points of nodes, then two rows a quantity of metered runs: its median error and the 90th percentile."""
    found = points.rows(area, progress, spec_type=PowerLoadSpec)
    spec, document = reference.read_spec(area, PowerLoadSpec)
    if spec.series_limits is not None:
        logs = power_series.logs(area, spec.series, spec.scenarios, document)
        found += power_series.rows(area, logs, spec.series_limits)
    runs = _shipped(area)
    families = {one.row["family"] for one in runs}
    for family in spec.fitted_families:
        if family not in families:
            hint = did_you_mean(family, families)
            raise InputError(document.problem(("fitted_families",), f"no runs of a family '{family}'. {hint}"))
    for seen, name in itertools.product((False, True), spec.statistics):
        limit = spec.statistics[name]
        fitted = spec.fitted_families if limit.fitted_families is None else limit.fitted_families
        mine = [one for one in runs if (one.row["family"] in fitted) == seen]
        by_system: dict[str, list[ServedRun]] = {}
        for one in mine:
            by_system.setdefault(one.row["system"], []).append(one)
        for system, group in by_system.items():
            board = board_watts(load_system(system).accelerator)
            found += _of_group(area, spec, system, name, errors(group, board)[name], seen=seen)
    return found


def pairs(area: str, rows: Sequence[Row]) -> list[Pairs]:
    """Power of every metered run, and the points of nodes; not the statistics, which have no unit."""
    spec, _ = reference.read_spec(area, PowerLoadSpec)
    nodes = of_pairs.of_rows([row for row in rows if row.unit])
    found = [replace(one, group="nodes") for one in nodes]
    by_role: dict[Role, list[ServedRun]] = {"judged": [], "fitted": []}
    for one in _shipped(area):
        by_role["fitted" if one.row["family"] in spec.fitted_families else "judged"].append(one)
    for role, runs in by_role.items():
        measured = np.array([float(one.row["power_W"]) for one in runs])
        boards = {name: board_watts(load_system(name).accelerator) for name in {one.row["system"] for one in runs}}
        predicted = np.array([one.power_W(boards[one.row["system"]]) for one in runs])
        found.append(Pairs("accelerators of a served model", "W", role, measured, predicted))
    return found


def _of_group(area: str, spec: PowerLoadSpec, system: str, name: str, error: Floats, *, seen: bool) -> list[Row]:
    limit = spec.statistics[name]
    if seen and name not in ("power", "latency"):
        return []
    role: Role = "fitted" if seen else "left_out" if limit.left_out else "judged"
    whose = "families fitted to" if seen else "families not fitted to"
    note = f"signed median {float(np.median(error)):+.1f} %"
    return [
        Row(
            id=f"{system}/{name}/{'fitted/' if seen else ''}{statistic}",
            area=area,
            role=role,
            system=system,
            what=f"{limit.what}: {statistic} absolute error of {len(error)} runs of {whose}, added to 1",
            published=1.0,
            unit="",
            source=spec.source,
            note="; ".join(filter(None, [limit.left_out if not seen else "", note])),
            predicted=1.0 + value / 100,
            tolerance_pct=tolerance_pct,
        )
        for statistic, value, tolerance_pct in zip(
            ("median", "p90"), _statistics(error), (limit.median_pct, limit.p90_pct), strict=True
        )
    ]
