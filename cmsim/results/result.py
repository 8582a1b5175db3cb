"""One run's result: metrics, bound, breakdown, and its frames, made when somebody looks at them."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import FailedError, InputError, Problem, did_you_mean
from cmsim.identity import Entry, Point
from cmsim.units import PS_PER_S

if TYPE_CHECKING:
    import pandas as pd

Columns = Mapping[str, NDArray[Any]]
#: the frames of every run, and the file each is saved in
FRAMES = ("ops", "links", "power")
#: shown in tables where a run has them, in this order
HEADLINES = (
    "time_s",
    "algorithm",
    "algbw_GBps",
    "busbw_GBps",
    "step_time_s",
    "ttft_s",
    "tpot_s",
    "tokens_per_s",
    "tokens_per_s_per_accelerator",
    "samples_per_s",
    "samples_per_s_per_accelerator",
    "mfu",
    "energy_per_token_J",
    "energy_per_sample_J",
    "makespan_s",
    "power_avg_W",
)
#: what a throughput can be divided by
PER = ("accelerator", "rack", "megawatt", "million_dollars")
_RATES = ("tokens_per_s", "samples_per_s", "rank_steps_per_s")
#: how far sums may be from what they should add up to
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Result:
    """What one run gave.

    run           its label: workload/system or workload/system/point
    accelerators  packages in use    ranks: what communicators counted
    metrics       by name, units in the names; numbers, and the name of a collective's algorithm
    bound         name of the physical bound, time_s, fraction of the makespan
    limiter       what most of the time went to    breakdown: seconds by limiter, which add up to the makespan
    faults        what faults in the fabric did: slowdown, ranks, saturated links; empty without
    recorded      of a replayed trace: class of op -> recorded_s (where it was recorded), simulated_s; empty without
    facts         what the workload said of itself, and racks, price_USD of the machine
    columns       of each of ``FRAMES``, name -> array
    kind          of the workload    chosen: what `best` became, by key of the workload or system; empty without
    entry         of the scenario's systems; None in folders from before it was kept
    point         of the sweep: dotted key -> value; empty without
    plan          resolved sizes: tp, cp, pp, dp, ep, micro_batches, sequences_per_rank (of the busiest; a tensor group
                  has them in common) or samples_per_rank, and ``memory_B`` of the fullest rank by part; of a collective
                  ranks_in_group, groups; of a trace, whose plan was recorded, empty
    record        what is kept of the run: full; summary, without ``columns``; none, also without limiter, breakdown,
                  plan, warnings and metrics that do not follow from its length
    """

    run: str
    workload: str
    system: str
    accelerators: int
    ranks: int
    metrics: Mapping[str, float | str]
    bound: Mapping[str, Any]
    limiter: str
    breakdown: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    faults: Mapping[str, Any] = field(default_factory=dict)
    recorded: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, Columns] = field(default_factory=dict, repr=False)
    kind: str = ""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    entry: Entry | None = None
    point: Point = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    record: str = "full"

    def __repr__(self) -> str:
        name = next((name for name in HEADLINES if name in self.metrics), None)
        said = [] if name is None else [f"{name} {shown(self.metrics[name])}"]
        said += [f"limited by {self.limiter}"] if self.limiter else []
        return f"<Result {' '.join(self.run.split())}: {', '.join(said)}>"

    @cached_property
    def ops(self) -> pd.DataFrame:
        """One row per op of each rank class."""
        return self._frame("ops")

    @cached_property
    def links(self) -> pd.DataFrame:
        """One row per resource class and interval."""
        return self._frame("links")

    @cached_property
    def power(self) -> pd.DataFrame:
        """One row per component and interval."""
        return self._frame("power")

    def metric(self, name: str) -> float:
        """A metric that is a number. Raises InputError with the names there are."""
        value = self.metrics.get(name)
        if value is None or isinstance(value, str):
            numbers = [key for key, value in self.metrics.items() if not isinstance(value, str)]
            raise InputError(f"{self.run} has no metric '{name}'. {did_you_mean(name, numbers, limit=40)}")
        return value

    def summary(self) -> dict[str, Any]:
        """The run's entry in ``summary.json``."""
        return {
            "run": self.run,
            "workload": self.workload,
            "system": self.system,
            **identity_data(self.entry, self.point),
            "accelerators": self.accelerators,
            "ranks": self.ranks,
            "metrics": dict(self.metrics),
            "bound": dict(self.bound),
            "limiter": self.limiter,
            "breakdown": dict(self.breakdown),
            "warnings": list(self.warnings),
            **({"kind": self.kind} if self.kind else {}),
            **({"chosen": dict(self.chosen)} if self.chosen else {}),
            **({"plan": dict(self.plan)} if self.plan else {}),
            **({"faults": dict(self.faults)} if self.faults else {}),
            **({"recorded": {key: dict(row) for key, row in self.recorded.items()}} if self.recorded else {}),
            **({"record": self.record} if self.record != "full" else {}),
        }

    def frame_columns(self, kind: str) -> Columns:
        """Columns of one of ``FRAMES``. Raises InputError where the run was recorded without."""
        if self.record != "full":
            what = f"{self.run} was recorded as {self.record}, without the frame {kind}"
            raise InputError(f"{what}: run it with `record: full`")
        return self.columns.get(kind, {})

    def _frame(self, kind: str) -> pd.DataFrame:
        import pandas as pd

        columns = self.frame_columns(kind)
        rows = len(next(iter(columns.values()), ()))
        return pd.DataFrame({"run": np.repeat(np.array([self.run], dtype=object), rows), **columns})

    def _repr_html_(self) -> str:
        rows = {
            "machine": f"{self.system}, {self.accelerators} accelerators, {self.ranks} ranks",
            "limited by": "; ".join(
                filter(None, (self.limiter, f"{self.bound['fraction']:.0%} of the {self.bound['name']} bound"))
            ),
            **{name: shown(value) for name, value in self.metrics.items()},
        }
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.warnings)
        return f"<b>{html.escape(self.run)}</b>{html_table(list(rows.items()))}<ul>{notes}</ul>"


def identity_data(entry: Entry | None, point: Point) -> dict[str, Any]:
    """``entry`` and ``point`` of a run in ``summary.json``."""
    return {} if entry is None else {"entry": {"number": entry.number, "label": entry.label}, "point": dict(point)}


def identity_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """``entry`` and ``point`` read back; those of a run from before they were kept. Raises KeyError where damaged."""
    if "entry" not in data:
        return {"entry": None, "point": {}}
    return {"entry": Entry(int(data["entry"]["number"]), str(data["entry"]["label"])), "point": dict(data["point"])}


def flat_plan(result: Result) -> dict[str, float]:
    """A plan as columns: its sizes, and ``memory_<part>_B`` for each part."""
    sizes = {name: value for name, value in result.plan.items() if name != "memory_B"}
    parts_B = result.plan.get("memory_B", {})
    return {
        **sizes,
        **{f"memory_{'_'.join(part.replace(',', ' ').split())}_B": value for part, value in parts_B.items()},
    }


def rate_name(result: Result) -> str:
    """The throughput a run is judged by: tokens, samples, recorded steps of a rank, or runs of the whole workload."""
    return next((name for name in _RATES if name in result.metrics), "steps_per_s")


def per(result: Result, what: str) -> float:
    """Throughput over one of ``PER``: tokens/s (or steps/s) per accelerator, rack, average facility MW, or M$.

    A rack is a cabinet that the system fills; a megawatt counts IT power times PUE. Raises InputError for a name
    that is not one of them, or where the price or the racks are not known.
    """
    if what not in PER:
        raise InputError(f"cannot report per '{what}'. {did_you_mean(what, PER)}")
    name = rate_name(result)
    rate = 1 / result.metric("makespan_s") if name == "steps_per_s" else result.metric(name)
    if what == "accelerator":
        return rate / result.accelerators
    if what == "megawatt":
        return rate / (result.metric("power_avg_W") / 1e6)
    key, unit = {"rack": ("racks", 1.0), "million_dollars": ("price_USD", 1e6)}[what]
    if key not in result.facts:
        raise InputError(f"cannot report {result.run} per {what}: {result.system} has no {key}")
    return rate / (result.facts[key] / unit)


def power_band(result: Result) -> tuple[float, float] | None:
    """Average power at the ends of its band over that in the middle, (low, high); None where power is no band. [1]

    Energy goes with it, throughput per megawatt against it.
    """
    if "power_avg_W_low" not in result.metrics:
        return None
    middle_W = result.metric("power_avg_W")
    return result.metric("power_avg_W_low") / middle_W, result.metric("power_avg_W_high") / middle_W


def check(result: Result) -> Result:
    """The result itself. A result never lies: raises FailedError, naming what is wrong, where it would."""
    wrong = list(_wrong(result))
    if wrong:
        raise FailedError(Problem(f"{result.run}: {what}") for what in wrong)
    return result


def _wrong(result: Result) -> Any:
    numbers: dict[str, float] = {}
    for prefix, values in (("", result.metrics), ("bound.", result.bound), ("breakdown.", result.breakdown)):
        numbers.update({prefix + key: value for key, value in values.items() if not isinstance(value, str)})
    for name, value in numbers.items():
        if not math.isfinite(value) or value < 0:
            yield f"{name} is {value!r}; it must be a finite number, 0 or more"
    makespan_s = numbers.get("makespan_s", 0.0)
    if not makespan_s > 0:
        yield f"makespan_s is {makespan_s!r}; a run takes time"
    whole_s = sum(result.breakdown.values())
    if result.breakdown and not math.isclose(whole_s, makespan_s, rel_tol=_ROUNDING):
        yield f"the breakdown adds up to {whole_s!r} s, the makespan is {makespan_s!r} s"
    for kind in FRAMES if result.record == "full" else ():
        columns = result.columns.get(kind, {})
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            yield f"columns of {kind} differ in length: {sorted(lengths)}"
            return
        if kind != "links" and not sum(lengths):
            yield f"the {kind} frame is empty"
        for name, column in columns.items():
            if column.dtype.kind in "fi" and len(column) and not (np.isfinite(column).all() and column.min() >= 0):
                yield f"column {name} of {kind} holds a number that is not finite, or below 0"
    ops, power, links = (result.columns.get(kind, {}) for kind in ("ops", "power", "links"))
    if "sent_B" in ops and ops["sent_B"].sum() > 0 and not len(links.get("bytes_B", ())):
        yield "bytes were sent, but the links frame is empty"
    if "energy_J" in numbers and "power_W" in power:
        integral_J = float(np.sum(power["power_W"] * (power["end_ps"] - power["start_ps"])) / PS_PER_S)
        if not math.isclose(integral_J, numbers["energy_J"], rel_tol=_ROUNDING):
            yield f"energy_J is {numbers['energy_J']!r}, the integral of power is {integral_J!r}"


def shown(value: float | str) -> str:
    """A number as people read it: four digits, thousands set apart.

    >>> shown(1234567.0), shown(0.00012345), shown(12.3456), shown("ring")
    ('1,234,567', '0.0001234', '12.35', 'ring')
    """
    if isinstance(value, str):
        return value
    if value and abs(value) < 1e-4:
        return f"{value:.3e}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def html_table(rows: list[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    """Rows as an HTML table, the first column as its heads."""
    out = "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>" if head else ""
    for first, *rest in rows:
        cells = "".join(f"<td style='text-align:right'>{html.escape(cell)}</td>" for cell in rest)
        out += f"<tr><th style='text-align:left'>{html.escape(first)}</th>{cells}</tr>"
    return f"<table>{out}</table>"
