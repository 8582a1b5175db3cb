"""The host of a serving engine, fitted to a benchmark of it on one system.

Constants are those of ``stack.serving``: a floor of a step and of each sequence in it, what an arrival takes, floors of
layers in steps with prompts, and how much longer than its kernels a step takes in the engine. With x their logarithms,

    minimise  sum rho(log(TPOT/t) / 0.08) + sum rho(log(TTFT/t) / 0.2) + sum rho(log(r/R) / 0.12)
              + sum ((x - start) / width)^2

over the rows, each served request by request with its own draw, R the output tokens a second of rows that have no
times; rho is the soft L1 loss, and start the stack that the system has. What rows cannot tell apart stays near where it
started, and is named: its logarithm has a standard deviation of ``width`` before the rows are seen, and of
the inverse of the normal matrix after.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmsim import api, published
from cmsim.arrays import Bools, Floats, Ints
from cmsim.calibration import tables
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import ServingTuning
from cmsim.published import Case
from cmsim.scenario import load_scenario
from cmsim.serving import measure
from cmsim.serving.execute import Prepared, prepared
from cmsim.units import PS_PER_S
from cmsim.validation.engine_report import EngineFit, FittedConstant


class _Prior(NamedTuple):
    """Where a constant starts in a stack that has none, and how far it may go, in the logarithm."""

    start: float
    width: float


#: constants that are fitted, by their keys in ``stack.serving``
CONSTANTS = {
    "step_us": _Prior(2000.0, 1.0),
    "sequence_us": _Prior(20.0, 1.0),
    "arrival_us": _Prior(10_000.0, 1.0),
    "layer_us": _Prior(100.0, 1.0),
    "expert_layer_us": _Prior(200.0, 1.0),
    "draft_us": _Prior(2000.0, 1.0),
    "meeting_us": _Prior(5.0, 1.0),
    "token_us": _Prior(1.0, 1.0),
    "decode_times": _Prior(1.0, 0.2),
    "prefill_times": _Prior(1.0, 0.3),
    "expert_prefill_times": _Prior(1.0, 0.3),
}
#: errors of rows that count as one, in the logarithm: of the time of a token, to the first one, and of throughput
_TPOT, _TTFT, _RATE = 0.08, 0.2, 0.12
#: of the finite differences, as long as what a request more or less in a batch does not count
_STEP = 0.1
#: times a constant at which a floor is looked for that does not bind where it starts
_AHEAD = (2.0, 4.0)
#: rounds of a fit at most; rows that are fitted, at most, and at least
_ROUNDS, _MOST, _FEWEST = 6, 48, 6
#: of a constant's width, what is left where rows tell it, and where they say nothing at all of it; correlation of two
#: that rows tell only together
_TOLD, _NOTHING, _TIED = 0.5, 0.95, 0.9
#: standard deviations of an interval that nine of ten lie in
_NINE_OF_TEN = 1.645

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class MeasuredService:
    """A row: the service that it describes, what was measured, and what it is told apart by.

    ttft_s, tpot_s   not a number where there is none, or where it is no evidence [s]
    each_s           one over the throughput, in output tokens; not a number where it is not fitted [s]
    model, plan      of which rows are held out together
    """

    service: Prepared
    ttft_s: float
    tpot_s: float
    model: str
    plan: str
    each_s: float = float("nan")

    @property
    def wanted(self) -> tuple[float, float, float]:
        """In the order of `HostFit.times`. [s]"""
        return self.tpot_s, self.ttft_s, self.each_s


def fit_engine(
    table: str | Path,
    *,
    accelerator: str = "",
    only: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> EngineFit:
    """Fit the host of one engine on one system to a table of served models.

    Parameters
    ----------
    table
        CSV or Parquet of a form that ``cmsim predict serving`` takes, with measured times.
    accelerator
        The system of the rows, where the table has several.
    only
        Engines, as the stacks of their rows are called; needed where the table has several.
    seed
        Of which rows are held out, and which are fitted where there are many.
    progress
        Called with what is done and its share, 0 to 1.

    Returns
    -------
    EngineFit
        Constants, what rows tell of them, and errors before and after, of rows fitted and of rows held out: a third of
        the models where there are three, else of the plans, else of the rows.

    Raises
    ------
    InputError
        For a table of no known form, rows of several engines or systems, and fewer than six rows.
    """
    # models that are not built in are files as long as their steps are asked for
    with tempfile.TemporaryDirectory(prefix="cmsim-") as folder:
        rows, left_out, stack, tuning, system = _rows(table, accelerator, only, seed, progress, Path(folder))
        return _fitted(table, rows, left_out, stack, tuning, system, seed, progress)


def _fitted(
    table: str | Path,
    rows: Sequence[MeasuredService],
    left_out: Mapping[str, int],
    stack: str,
    tuning: ServingTuning,
    system: str,
    seed: int,
    progress: Progress | None,
) -> EngineFit:
    names = _touched(rows, tuning)
    held, how = _held(rows, seed)
    seen = [one for one, out in zip(rows, held, strict=True) if not out]
    unseen = [one for one, out in zip(rows, held, strict=True) if out]
    of = HostFit(names, tuning, progress)
    part = of.found(_some(seen, seed), of.begin, "rows that are not held out")
    errors = {"held out": _errors(of, unseen, part)}
    some = _some(rows, seed)
    found = of.found(some, part, "all rows")
    errors["fitted"] = _errors(of, some, found)
    values, slopes = of.values(found), of.slopes(some, found)
    normal = slopes.T @ slopes
    width = np.array([CONSTANTS[name].width for name in names])
    spread = np.linalg.inv(normal + np.diag(width**-2.0))
    sd = np.sqrt(np.diag(spread))
    constants = tuple(
        _constant(name, float(getattr(tuning, name)), values[name], float(sd[at]), float(width[at]))
        for at, name in enumerate(names)
    )
    both = spread / np.outer(sd, sd)
    tied = tuple(
        (names[i], names[j], float(both[i, j])) for i in range(len(names)) for j in range(i) if abs(both[i, j]) > _TIED
    )
    return EngineFit(
        stack=stack,
        accelerator=system,
        chip=rows[0].service.machines[0].system.accelerator.name,
        source=Path(table).name,
        constants=constants,
        tied=tied,
        singular=tuple(np.linalg.svd(slopes * width, compute_uv=False).tolist()),
        rows=len(rows),
        fitted=len(some),
        left_out=left_out,
        held_out=how,
        errors_pct=errors,
    )


def _touched(rows: Sequence[MeasuredService], tuning: ServingTuning) -> list[str]:
    """Constants that services of these rows heed."""
    experts = any(one.service.model.moe_layers for one in rows)
    plain = any(not one.service.model.moe_layers for one in rows)
    apart = tuning.expert_prefill_times is not None
    heeded = {
        "expert_layer_us": experts,
        "layer_us": any(one.service.model.layers > one.service.model.moe_layers for one in rows),
        "draft_us": any(one.service.spec.speculative is not None for one in rows),
        "meeting_us": any(machine.ranks > 1 for one in rows for machine in one.service.machines),
        "prefill_times": plain or not apart,
        "expert_prefill_times": experts and apart,
    }
    return [name for name in CONSTANTS if heeded.get(name, True)]


def _constant(name: str, before: float, value: float, sd: float, width: float) -> FittedConstant:
    if sd > _NOTHING * width:
        return FittedConstant(name, before, before, 0.0, float("inf"), False)
    wide = float(np.exp(_NINE_OF_TEN * sd))
    return FittedConstant(name, before, value, value / wide, value * wide, bool(sd < _TOLD * width))


# rows


def _rows(
    table: str | Path, accelerator: str, only: Sequence[str], seed: int, progress: Progress | None, folder: Path
) -> tuple[list[MeasuredService], dict[str, int], str, ServingTuning, str]:
    """(services that were measured, why others are left out, their stack, its host, their system)."""
    frame = tables.read(table)
    form = published.service_form_of([str(name) for name in frame.columns], str(table))
    left_out: dict[str, int] = {}
    found: list[tuple[Case, float, float]] = []
    for cells in published.cells_of(frame):
        case, measured = form.case(cells), form.measured(cells)
        nan = float("nan")
        ttft_ms = nan if form.ttft_left_out(cells) else _or_nan(measured.ttft_ms)
        tpot_ms = _or_nan(measured.tpot_ms)
        reason = case.reason or form.left_out(cells)
        if not reason and not (ttft_ms > 0 or tpot_ms > 0):
            reason = "no measured time above 0"
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            found.append((case, ttft_ms / 1e3, tpot_ms / 1e3))
    found, stack, system, tuning = _of_one(found, str(table), accelerator, only, folder)
    if len(found) < _FEWEST:
        raise InputError(Problem(f"{len(found)} rows can be fitted to; at least {_FEWEST} are needed", str(table)))
    chance = np.random.default_rng(seed)
    # more rows than these only take longer; those held out are as many again
    few = sorted(chance.permutation(len(found))[: 2 * _MOST].tolist())
    rows: list[MeasuredService] = []
    for number, at in enumerate(few, 1):
        case, ttft_s, tpot_s = found[at]
        try:
            rows.append(prepared_row(case, ttft_s, tpot_s, folder))
        except (InfeasibleError, InputError) as error:
            reason = str(error).partition("\n")[0]
            left_out[reason] = left_out.get(reason, 0) + 1
        if progress is not None:
            progress("steps", number / len(few))
    return rows, left_out, stack, tuning, system


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _of_one(
    found: Sequence[tuple[Case, float, float]], table: str, accelerator: str, only: Sequence[str], folder: Path
) -> tuple[list[tuple[Case, float, float]], str, str, ServingTuning]:
    """Rows of one engine on one system. Raises InputError where there are several."""
    groups: dict[tuple[str, str], list[tuple[Case, float, float]]] = {}
    tunings: dict[tuple[str, str], ServingTuning] = {}
    for one in found:
        system = api.system(load_scenario(published.with_files(one[0], folder)).runs[0])
        key = system.stack.name, system.spec.name
        tunings[key] = system.stack.serving
        if (not only or key[0] in only) and accelerator in ("", system.spec.name, system.accelerator.name):
            groups.setdefault(key, []).append(one)
    if len(groups) != 1:
        there = ", ".join(f"{stack} on {system} ({len(found)} rows)" for (stack, system), found in groups.items())
        every = ", ".join(f"{stack} on {system}" for stack, system in tunings)
        message = (
            f"rows are of {there}. Choose with --only and --accelerator." if groups else f"no rows of these: {every}"
        )
        raise InputError(Problem(message, table))
    ((key, rows),) = groups.items()
    return rows, key[0], key[1], tunings[key]


def prepared_row(
    case: Case, ttft_s: float, tpot_s: float, folder: Path, each_s: float = float("nan")
) -> MeasuredService:
    scenario = published.with_files(case, folder)
    try:
        service = _service(scenario)
    except InfeasibleError:  # what was measured did fit
        service = _service(published.roomy(scenario))
    workload: Mapping[str, Any] = scenario["workload"]
    plan = {key: value for key, value in workload.items() if key not in ("arrivals", "lengths", "batching")}
    model = str(workload["model"])
    service.served_by(service.machines[0].system.stack.serving)
    for machine in service.machines:
        machine.costs.save()  # rows of the same plan ask for the same steps
    return MeasuredService(service, ttft_s, tpot_s, model, json.dumps(plan, sort_keys=True), each_s)


def _service(scenario: Mapping[str, Any]) -> Prepared:
    run = load_scenario(scenario).runs[0]
    return prepared(run, api.system(run), base=None)


def _held(rows: Sequence[MeasuredService], seed: int) -> tuple[Bools, str]:
    """Which rows are held out, and by what: a random third."""
    for what, key in (
        ("a third of the models", "model"),
        ("a third of the plans", "plan"),
        ("a third of the rows", ""),
    ):
        known = list(dict.fromkeys(getattr(one, key) if key else str(n) for n, one in enumerate(rows)))
        if len(known) >= 3:
            order = np.random.default_rng(seed).permutation(len(known))
            out = {known[at] for at in order[: max(len(known) // 3, 1)].tolist()}
            return np.array([(getattr(one, key) if key else str(n)) in out for n, one in enumerate(rows)]), what
    raise AssertionError("there are rows enough")


def _some(rows: Sequence[MeasuredService], seed: int) -> list[MeasuredService]:
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[at] for at in sorted(order[:_MOST].tolist())]


# the fit


class HostFit:
    """Constants as logarithms, from where a stack has them. some: those that rows of engines without them do without"""

    def __init__(
        self, names: Sequence[str], tuning: ServingTuning, progress: Progress | None, some: Sequence[str] = ()
    ):
        self.names, self.tuning, self._progress, self._some = list(names), tuning, progress, tuple(some)
        self.begin = np.log([getattr(tuning, name) or CONSTANTS[name].start for name in names])
        self._width = np.array([CONSTANTS[name].width for name in names])

    def values(self, x: Floats) -> dict[str, float]:
        return dict(zip(self.names, np.exp(x).tolist(), strict=True))

    def times(self, rows: Sequence[MeasuredService], x: Floats | None) -> Floats:
        """Mean times of a token and to the first one, and one over the throughput, shape (rows, 3); as the stack has it
        without ``x``. [s]"""
        update = {} if x is None else self.values(x)
        out = np.empty((len(rows), 3))
        for number, one in enumerate(rows):
            # the rest is of the row's own system
            own = one.service.machines[0].system.stack.serving
            served = one.service.served_by(own.model_copy(update=self._of_engine(own, update)))
            times, made = measure.Times.of(served.book), measure.counts(served.book)["output"]
            token = times.tpot[~np.isnan(times.tpot)]
            out[number, 0] = token.mean() if len(token) else np.nan
            out[number, 1] = times.ttft.mean() if len(times.ttft) else np.nan
            out[number, 2] = served.end_ps / PS_PER_S / made if made else np.nan
        return out

    def _of_engine(self, own: ServingTuning, update: Mapping[str, float]) -> dict[str, float]:
        """Constants for one row: of those that only some of the engines have it gets what it has."""
        return {name: value for name, value in update.items() if name not in self._some or getattr(own, name)}

    def residuals(self, rows: Sequence[MeasuredService], x: Floats) -> Floats:
        """Of rows that have a time, in units of the error that counts as one."""
        wanted = np.array([one.wanted for one in rows])
        off = np.log(self.times(rows, x) / wanted) / np.array([_TPOT, _TTFT, _RATE])
        out: Floats = off.T.ravel()
        out = out[np.isfinite(np.log(wanted)).T.ravel()]
        return np.nan_to_num(out, nan=0.0)

    def slopes(
        self, rows: Sequence[MeasuredService], x: Floats, here: Floats | None = None, without: Sequence[int] = ()
    ) -> Floats:
        """Of residuals over the logarithms, shape (residuals, constants); 0 of those that are left out."""
        here = self.residuals(rows, x) if here is None else here
        columns = []
        for at in range(len(x)):
            if at in without:
                columns.append(np.zeros(len(here)))
                continue
            moved = x.copy()
            moved[at] += _STEP
            columns.append((self.residuals(rows, moved) - here) / _STEP)
        return np.array(columns).T

    def found(self, rows: Sequence[MeasuredService], begin: Floats, what: str) -> Floats:
        """Where the sum of losses and pulls is least, from ``begin`` on: Gauss and Newton, steps that do not help
        halved. A floor that binds nowhere has no slope: it is looked for further up."""
        x, here = begin, self.residuals(rows, begin)
        loss = self._loss(here, x)
        flat = [at for at in range(len(self.names)) if not self.slopes(rows, x, here, self._others(at)).any()]
        for at in list(flat):
            for times in _AHEAD:
                moved = begin.copy()
                moved[at] += np.log(times)
                there = self.residuals(rows, moved)
                if (there != here).any() and at in flat:
                    flat.remove(at)
                if (better := self._loss(there, moved)) < loss:
                    x, here, loss, begin = moved, there, better, moved
        for number in range(_ROUNDS):
            if self._progress is not None:
                self._progress(f"fit to {what}", number / _ROUNDS)
            # the soft L1 loss as weights of squares
            weight = (1.0 + here**2) ** -0.25
            slopes = self.slopes(rows, x, here, flat) * weight[:, None]
            pull = np.diag(self._width**-2.0)
            down = slopes.T @ (here * weight) + pull @ (x - self.begin)
            step = -np.linalg.solve(slopes.T @ slopes + pull, down)
            step *= min(1.0, 1.0 / max(float(np.abs(step / self._width).max()), 1e-12))
            for _ in range(4):
                there = self.residuals(rows, x + step)
                if self._loss(there, x + step) < loss:
                    break
                step = step / 2
            else:
                break
            before, loss, x, here = loss, self._loss(there, x + step), x + step, there
            if before - loss < 1e-2 * max(loss, 1.0):
                break
        return x

    def _others(self, at: int) -> list[int]:
        return [other for other in range(len(self.names)) if other != at]

    def _loss(self, residuals: Floats, x: Floats) -> float:
        pulls = (x - self.begin) / self._width
        return float((2.0 * (np.sqrt(1.0 + residuals**2) - 1.0)).sum() + (pulls**2).sum())


def _errors(of: HostFit, rows: Sequence[MeasuredService], x: Floats) -> tuple[tuple[float, float], ...]:
    """(TPOT before, after, TTFT before, after), median and 90th percentile of absolute errors. [%]"""
    wanted = np.array([one.wanted for one in rows])
    both = [100 * np.abs(times / wanted - 1) for times in (of.times(rows, None), of.times(rows, x))]
    return tuple(_statistics(one[:, which]) for which in (0, 1) for one in both)


def _statistics(error: Floats | Ints) -> tuple[float, float]:
    error = error[np.isfinite(error)]
    if not len(error):
        return float("nan"), float("nan")
    return float(np.median(error)), float(np.percentile(error, 90))
