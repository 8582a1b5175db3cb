"""What a kind of workload says of itself, on one page: what a scenario may ask, how it is executed, what comes out.

Everything else reads this declaration: scenario files, `best`, checks, tables, verdicts, figures, folders, the
reference. A page names code of rooms above by its dotted place, so that this room stands on none of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cmsim.kinds.parts import WorkloadSpec

#: stands in a table where throughput per accelerator, rack, ... goes
PER = "*"

Metrics = dict[str, float | str]


@dataclass(frozen=True)
class Facts:
    """What a workload says of itself, which metrics are made of; a kind adds its own, with units in their names.

    A field is a number, None where it is not known, or a mapping, whose names stand among the others.
    """

    def named(self) -> dict[str, float]:
        """As they are saved: by name, in the order of the fields, without what is not known."""
        out: dict[str, float] = {}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Mapping):
                out.update(value)
            elif value is not None:
                out[one.name] = value
        return out

    @classmethod
    def of(cls, named: Mapping[str, float]) -> Self:
        """Read back, whatever else stands there. Raises KeyError for one that is missing."""
        known = {one.name: named[one.name] for one in dataclasses.fields(cls) if one.name in named}
        for one in dataclasses.fields(cls):
            if one.default is dataclasses.MISSING and one.name not in known:
                raise KeyError(one.name)
        return cls(**known)


@dataclass(frozen=True)
class MachineFacts(Facts):
    """What a machine adds to the facts of a workload that runs on it.

    memory_Bps  of one rank [B/s]    racks: cabinets that the accelerators in use fill, a share of one too [1]
    price_USD   of the accelerators in use, None where it is not known [USD]
    utilisation share of hours that pay for all of them, where the machine is one's own [1]
    price_per_kWh_USD  of electricity for such a machine [USD/kWh]
    rated_W     of the facility with everything in use at its limit at once, PUE included [W]
    """

    memory_Bps: float | None = None
    racks: float | None = None
    price_USD: float | None = None
    rated_W: float | None = None
    utilisation: float | None = None
    price_per_kWh_USD: float | None = None


FactsT = TypeVar("FactsT", bound=Facts)


@dataclass(frozen=True)
class Measured(Generic[FactsT]):
    """What metrics of a kind with programs are made of: facts of the workload, length of the run [s], accelerators
    (packages) in use, and bubble time of the breakdown [s]."""

    facts: FactsT
    makespan_s: float
    accelerators: int
    bubble_s: float = 0.0


@dataclass(frozen=True)
class Metric:
    """One number that runs of a kind may have.

    name     with its unit    unit: in words of people, 1 of a ratio; "" of a name
    better   which way; "" where it says nothing of how good a run is. What is better one way may decide `best`
    of_time  whether it follows from the length of a run alone, without its power or its breakdown
    banded   whether it has ends ``NAME_low`` and ``NAME_high`` where power is a band
    """

    name: str
    unit: str
    better: Literal["more", "less", ""]
    text: str
    of_time: bool = False
    banded: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *(f"{self.name}_{end}" for end in ("low", "high") if self.banded))


@dataclass(frozen=True)
class Frame:
    """Rows that a run leaves, saved as ``NAME.parquet``.

    columns  name -> what it is, with its unit in brackets    may_be_empty: whether a run may have no row
    some     columns that only some runs have, as ``columns``
    """

    name: str
    columns: Mapping[str, str]
    text: str
    may_be_empty: bool = False
    some: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlayedKind:
    """A kind whose workload is ops on ranks: programs, which are planned, played and recorded as all others are.

    programs  place of ``programs(spec, system, base) -> cmsim.workload.Programs``
    means     place of a `cmsim.execution.Means`: what this kind changes of planning and measuring
    measure   metrics of its own, from facts and length
    """

    programs: str
    measure: Callable[[Measured[Any]], Metrics]
    means: str = "cmsim.execution.means:Means"


@dataclass(frozen=True)
class Itself:
    """A kind that is executed by its own function, and need have no ops: a service, a queue, a job that fails.

    execute  place of ``execute(run, system, *, base, progress) -> Executed``; it raises InfeasibleError where there
             is no result, InputError for what is wrong with the input
    heeds    which of ``faults``, ``perturb``, ``jitter`` and ``exclusive`` of a scenario it acts on; where another is
             given the run is refused, for its result would say nothing of it
    """

    execute: str
    heeds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Executed:
    """What the function of a kind that executes itself gives.

    metrics    all that the kind declares and the run has, ``makespan_s`` among them
    frames     by name as declared: name -> column, all of one length
    facts      of the kind    ranks, accelerators: in use; None: all of the system's
    limiter, bound, breakdown, plan, notes   as of a Result; empty where the kind has none
    """

    metrics: Mapping[str, float | str]
    frames: Mapping[str, Mapping[str, NDArray[Any]]]
    facts: Facts = field(default_factory=Facts)
    ranks: int | None = None
    accelerators: int | None = None
    limiter: str = ""
    bound: Mapping[str, Any] = field(default_factory=dict)
    breakdown: Mapping[str, float] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of workload.

    name       as ``kind:`` in scenarios
    spec       what a scenario may say; the string beside a field is its documentation
    execution  how a run of it comes about
    facts      what it says of itself
    metrics    every metric a run may have, in the order in which people read them
    frames     what a run leaves
    decisive   metrics of which the first that a run has decides `best` where nobody names one
    rates      throughputs of which the first that a run has is the one it is judged by; without, runs per second
    speed      a time that systems are compared by where there is no throughput; "" where there is none
    latency    the time its users wait, and for what, in words
    headline   metrics of a row among other kinds    table: those of its own table; `PER` for throughput per ...
    figure     what `cmsim plot trade-off` puts on its axes, x and y
    host       how its launches load the host: ``bulk`` (long passes, mostly kernels in a row), ``decode`` (a short
               step after the other), or "" (no launches but what the workload itself has)
    listed     a key of the spec that may be a list, with a run for each value
    mark       a metric that no other kind has, by which folders are read that do not name kinds
    """

    name: str
    spec: type[WorkloadSpec]
    execution: PlayedKind | Itself
    facts: type[Facts]
    metrics: tuple[Metric, ...]
    frames: tuple[Frame, ...]
    decisive: tuple[str, ...]
    table: tuple[str, ...]
    headline: tuple[str, ...]
    rates: tuple[str, ...] = ()
    speed: str = ""
    latency: tuple[str, str] | None = None
    figure: tuple[str, str] | None = None
    host: Literal["", "bulk", "decode"] = ""
    listed: str = ""
    mark: str = ""

    def __post_init__(self) -> None:
        known = [name for metric in self.metrics for name in metric.names]
        used = (*self.decisive, *(name for name in self.table if name != PER), *self.headline, *self.rates)
        used = (*used, *(self.figure or ()), *filter(None, (self.speed, self.mark, *(self.latency or ())[:1])))
        twice = [name for name in known if known.count(name) > 1]
        unknown = [name for name in used if name not in known]
        if twice or unknown or "makespan_s" not in known:
            what = f"twice: {twice}" if twice else f"used but not declared: {unknown}" if unknown else "no makespan_s"
            raise ValueError(f"metrics of the kind '{self.name}', {what}")
        if taken := {one.name for one in dataclasses.fields(self.facts)} & MachineFacts.__dataclass_fields__.keys():
            raise ValueError(f"facts of the kind '{self.name}' are called as those of machines: {sorted(taken)}")

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """Of all metrics and their ends."""
        return frozenset(name for metric in self.metrics for name in metric.names)

    def metric(self, name: str) -> Metric:
        """The metric of that name, or whose end it is. Raises KeyError."""
        for metric in self.metrics:
            if name in metric.names:
                return metric
        raise KeyError(name)

    def frame(self, name: str) -> Frame:
        """The frame of that name. Raises KeyError."""
        for one in self.frames:
            if one.name == name:
                return one
        raise KeyError(name)

    @property
    def deciding(self) -> tuple[str, ...]:
        """Metrics that may decide `best`, the usual ones first."""
        rest = (metric.name for metric in self.metrics if metric.better and metric.name not in self.decisive)
        return (*self.decisive, *rest)

    def more_is_better(self, name: str) -> bool:
        """Which way one of its metrics is better."""
        return self.metric(name).better == "more"
