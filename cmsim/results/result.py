"""One run's result: metrics, bound, breakdown, and its frames, made when somebody looks at them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim import kinds, markup
from cmsim.arrays import Columns, held, length
from cmsim.errors import FailedError, InputError, Problem, did_you_mean
from cmsim.identity import Entry, Point
from cmsim.kinds import Facts, Kind, MachineFacts
from cmsim.numbers import shown
from cmsim.results import categories
from cmsim.units import PS_PER_S

if TYPE_CHECKING:
    import pandas as pd

#: the frames of a run that was played: what folders hold that do not name any
FRAMES = ("ops", "links", "power")
#: what a throughput can be divided by
PER = ("accelerator", "rack", "megawatt", "million_dollars")
#: how far sums may be from what they should add up to
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Result:
    """What one run gave.

    Attributes
    ----------
    run
        Its label: workload/system or workload/system/point.
    workload, system
        Names of the two.
    accelerators
        Packages in use.
    ranks
        What communicators counted.
    metrics
        By name, units in the names; numbers, and the name of a collective's algorithm.
    bound
        name of the physical bound, time_s [s], fraction of the makespan [1].
    limiter
        What most of the time went to.
    breakdown
        Time by limiter, which adds up to the makespan. [s]
    warnings
        What the run has to say of itself, in sentences.
    faults
        What faults in the fabric did: slowdown, ranks, saturated links; empty without.
    recorded
        Of a replayed trace: class of op -> recorded_s (where it was recorded), simulated_s; empty without. [s]
    facts
        What the workload said of itself, a class of each kind.
    machine
        Of the machine that is billed: racks, price_USD; None where its files do not say.
    columns
        Of each of ``FRAMES``, name -> array (rows,).
    kind
        Of the workload.
    chosen
        What `best` became, by key of the workload or system; empty without.
    entry
        Of the scenario's systems; None in folders from before it was kept.
    point
        Of the sweep: dotted key -> value; empty without.
    plan
        Resolved sizes: tp, cp, pp, dp, ep, micro_batches, sequences_per_rank (of the busiest; a tensor group has them
        in common) or samples_per_rank, and ``memory_B`` of the fullest rank by part [B]; of a collective
        ranks_in_group, groups; of a trace, whose plan was recorded, empty.
    record
        What is kept of the run: full; summary, without ``columns``; none, also without limiter, breakdown, plan,
        warnings and metrics that do not follow from its length.
    uncertainty
        What its figures stand on that nobody is sure of, as `cmsim.uncertainty.Ledger.data` gives it; empty where
        nobody asked.
    source
        Which of several sets it came from, where they stand together; empty alone, and not kept in folders.
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
    facts: Facts = field(default_factory=Facts)
    machine: MachineFacts = field(default_factory=MachineFacts)
    columns: Mapping[str, Columns] = field(default_factory=dict, repr=False)
    kind: str = ""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    entry: Entry | None = None
    point: Point = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    record: str = "full"
    uncertainty: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: str = ""

    def __repr__(self) -> str:
        name = next((name for name in self.declared.headline if name in self.metrics), None)
        said = [] if name is None else [f"{name} {shown(self.metrics[name])}"]
        said += [f"limited by {self.limiter}"] if self.limiter else []
        return f"<Result {' '.join(self.run.split())}: {', '.join(said)}>"

    @property
    def declared(self) -> Kind:
        """What its kind says of itself; in a folder from before kinds were kept, the kind that its metrics tell."""
        return kinds.get(self.kind) if self.kind else kinds.marked(self.metrics)

    @property
    def ops(self) -> pd.DataFrame:
        """One row per op of each rank class (rows, columns); times in ps, sizes in B, rates in FLOP/s."""
        return self.frame("ops")

    @property
    def links(self) -> pd.DataFrame:
        """One row per resource class and interval (rows, columns); times in ps, sizes in B, utilization in 1."""
        return self.frame("links")

    @property
    def power(self) -> pd.DataFrame:
        """One row per component and interval (rows, columns); times in ps, power in W."""
        return self.frame("power")

    def metric(self, name: str) -> float:
        """A metric that is a number.

        Parameters
        ----------
        name
            As in ``metrics``, with its unit.

        Returns
        -------
        float
            In the unit that the name says.

        Raises
        ------
        InputError
            With the names there are.
        """
        value = self.metrics.get(name)
        if value is None or isinstance(value, str):
            numbers = [key for key, value in self.metrics.items() if not isinstance(value, str)]
            raise InputError(f"{self.run} has no metric '{name}'. {did_you_mean(name, numbers, limit=40)}")
        return value

    def summary(self) -> dict[str, Any]:
        """The run's entry in ``summary.json``.

        Returns
        -------
        dict
            Everything but the frames, as plain data.
        """
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
            **({"frames": list(self.columns)} if set(self.columns) != set(FRAMES) else {}),
            **({"chosen": dict(self.chosen)} if self.chosen else {}),
            **({"plan": dict(self.plan)} if self.plan else {}),
            **({"faults": dict(self.faults)} if self.faults else {}),
            **({"recorded": {key: dict(row) for key, row in self.recorded.items()}} if self.recorded else {}),
            **({"record": self.record} if self.record != "full" else {}),
            **({"uncertainty": dict(self.uncertainty)} if self.uncertainty else {}),
        }

    def frame_columns(self, name: str) -> Columns:
        """Columns of a frame.

        Parameters
        ----------
        name
            Of the frame.

        Returns
        -------
        Mapping
            Name -> array (rows,); empty where the run left no row.

        Raises
        ------
        InputError
            Where runs of its kind have no such frame, with those they have, and where the run was recorded without.
        """
        has = [one.name for one in self.declared.frames]
        if name not in (*has, *self.columns):
            raise InputError(f"{self.run}, a {self.declared.name}, has no frame '{name}'. {did_you_mean(name, has)}")
        if self.record != "full":
            what = f"{self.run} was recorded as {self.record}, without the frame {name}"
            raise InputError(f"{what}: run it with `record: full`")
        return self.columns.get(name, {})

    def frame(self, name: str) -> pd.DataFrame:
        """A frame by its name.

        Parameters
        ----------
        name
            Of the frame.

        Returns
        -------
        DataFrame
            One row per row of the frame (rows, columns), units in the names of columns; text is categorical, its words
            in the order in which they come first.

        Raises
        ------
        InputError
            As `frame_columns`.
        """
        if name not in self._frames:
            import pandas as pd

            columns = self.frame_columns(name)
            rows = length(columns, next(iter(columns))) if columns else 0
            made = {column: categories.column(columns, column) for column in columns}
            self._frames[name] = pd.DataFrame({"run": categories.alone(self.run, rows), **made})
        return self._frames[name]

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        """Those that somebody looked at."""
        return {}

    def _of_bound(self) -> str:
        return f"{self.bound['fraction']:.0%} of the {self.bound['name']} bound" if self.bound else ""

    def _repr_html_(self) -> str:
        rows = {
            "machine": f"{self.system}, {self.accelerators} accelerators, {self.ranks} ranks",
            "limited by": "; ".join(filter(None, (self.limiter, self._of_bound()))),
            **{name: shown(value) for name, value in self.metrics.items()},
        }
        return markup.table(list(rows.items()), title=self.run, notes=self.warnings)


def frames_of(columns: Mapping[str, Columns]) -> tuple[str, ...]:
    """Names of frames, those that every run with programs has first."""
    return (*(name for name in FRAMES if name in columns), *(name for name in columns if name not in FRAMES))


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
    """The throughput a run is judged by: of its kind the first that it has, or runs of the whole workload."""
    return next((name for name in result.declared.rates if name in result.metrics), "steps_per_s")


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
    count = getattr(result.machine, key)
    if count is None:
        raise InputError(f"cannot report {result.run} per {what}: {result.system} has no {key}")
    return float(rate / (count / unit))


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
    yield from _undeclared(result)
    for frame in result.declared.frames if result.record == "full" else ():
        columns = result.columns.get(frame.name, {})
        lengths = {length(columns, name) for name in columns}
        if len(lengths) > 1:
            yield f"columns of {frame.name} differ in length: {sorted(lengths)}"
            return
        if not frame.may_be_empty and not sum(lengths):
            yield f"the {frame.name} frame is empty"
        for name in columns:
            # each value of a table once
            column = held(columns, name)
            if column.dtype.kind in "fi" and len(column) and not (np.isfinite(column).all() and column.min() >= 0):
                yield f"column {name} of {frame.name} holds a number that is not finite, or below 0"
    ops, power, links = (result.columns.get(kind, {}) for kind in ("ops", "power", "links"))
    # one byte, which stands for none, takes less than the clock of single links can tell; a sum sends it twice
    if "sent_B" in ops and (ops["sent_B"] > 2).any() and not len(links.get("bytes_B", ())):
        yield "bytes were sent, but the links frame is empty"
    if "energy_J" in numbers and "power_W" in power:
        integral_J = float(np.sum(power["power_W"] * (power["end_ps"] - power["start_ps"])) / PS_PER_S)
        if not math.isclose(integral_J, numbers["energy_J"], rel_tol=_ROUNDING):
            yield f"energy_J is {numbers['energy_J']!r}, the integral of power is {integral_J!r}"


def _undeclared(result: Result) -> Iterator[str]:
    """What a run has that its kind does not declare: tables, figures and the reference would not know of it."""
    if not result.kind:
        return
    kind = result.declared
    undeclared = result.metrics.keys() - kind.names
    yield from (f"the metric {name} is not declared by the kind {kind.name}" for name in undeclared)
    declared = {frame.name: frame for frame in kind.frames}
    for name, columns in result.columns.items():
        frame = declared.get(name)
        other = [name]
        if frame is not None:
            other = sorted({*(columns.keys() ^ frame.columns.keys())} - frame.some.keys())
        if other and columns:
            yield f"the frame {name} is not as the kind {kind.name} declares it: {', '.join(other)}"
