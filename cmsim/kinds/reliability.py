"""A long training job on a machine whose parts fail: how much of its time is progress, and what takes the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from cmsim.kinds import common
from cmsim.kinds.kind import Facts, Frame, Itself, Kind, Metric
from cmsim.kinds.parts import ASKED, WorkloadSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import NUMBER, GBps, GigaBytes, Places, Seconds, SecondsAtLeast, Share, ShareOrNone, Slots

Part = Literal[
    "accelerator",
    "host",
    "nic",
    "switch_chip",
    "scale_up_module",
    "scale_out_module",
    "scale_out_switch",
    "rack",
    "domain",
    "job",
]
Takes = Literal["nothing", "host", "rack", "domain"]
#: failures of one part in 1e9 hours: from one in the age of the earth to one every four seconds
Fit = Annotated[float, NUMBER, Field(ge=0, le=1e12)]
HoursAtLeast = Annotated[float, NUMBER, Field(ge=1e-3, le=1e12)]
Hours = Annotated[float, NUMBER, Field(ge=0, le=1e5)]
Days = Annotated[float, NUMBER, Field(ge=1e-3, le=3650)]
Shape = Annotated[float, NUMBER, Field(ge=0.1, le=20)]
Seeds = Annotated[int, NUMBER, Field(gt=0, le=10**5)]
Slowdown = Annotated[float, NUMBER, Field(ge=1, le=1e3)]
BytesEach = Annotated[float, NUMBER, Field(ge=1, le=64)]


class CauseSpec(Spec):
    """A part that fails, or a reason to stop: how often, and what then happens."""

    part: Part | None = Field(
        default=None,
        description="what is counted in the machine of the job; scale_out_switch: by ports that it fills; job: one. "
        "Required",
    )
    FIT: Fit | None = Field(
        default=None, description="failures of one part in 1e9 hours: of its mean life. This or mtbf_h is required"
    )
    mtbf_h: HoursAtLeast | None = Field(default=None, description="mean life of one part, in place of FIT")
    shape: Shape = Field(
        default=1.0, description="of the Weibull law of lives; 1: exponential; under 1 the young fail, over 1 the old"
    )
    age_days: Annotated[float, NUMBER, Field(ge=0, le=36500)] = Field(
        default=0.0, description="of parts when the job begins; of an exponential law it says nothing"
    )
    takes: Takes = Field(
        default="nothing",
        description="what leaves the job until it is repaired; nothing: the job starts again where it was",
    )
    repair_h: Hours = Field(default=0.0, description="until what was taken is there again, or what was slow is whole")
    detect_s: Seconds = Field(default=0.0, description="until it is noticed; the job stands, or its work is lost")
    breaks: ShareOrNone = Field(
        default=1.0, description="share of these failures that stop the job; it goes on under the others, slower"
    )
    slowdown: Slowdown | None = Field(
        default=None,
        description="time of a step under those others, over that of the whole machine; several at once are as one. "
        "Default: as simulated with `fault`",
    )
    fault: str | None = Field(
        default=None, description="a part of the fabric, as in `faults`: a step is simulated with it and without"
    )

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if self.FIT is not None and self.mtbf_h is not None:
            raise ValueError("mtbf_h: FIT says it already. Give one of them")
        return self


class FaultTraceSpec(Spec):
    """Faults of hosts as they were recorded."""

    path: str = Field(
        description="events with node_id, event_time in days, event_type fault_start or fault_end, fault_type.Class; "
        "JSON, as it is or packed by gzip. Built-in ones lie in topologies/failures"
    )
    hosts: Places | None = Field(
        default=None,
        description="of the fleet that was recorded, those without a fault, too; the job has some of them. Default: "
        "as many as the job has with its spares",
    )
    leave_out: tuple[str, ...] = Field(
        default=(), description="classes, or `Class: Desc`, that are no faults of a job that runs"
    )


class ElasticSpec(Spec):
    """The job goes on with less where no spare is left."""

    replica_accelerators: Places | None = Field(
        default=None, description="packages of one data-parallel replica, the least it gives up; default: of `training`"
    )
    least: Share = Field(default=0.5, description="share of its replicas under which it waits")


class CheckpointSpec(Spec):
    """What the job writes to come back to."""

    mode: Annotated[Literal["synchronous", "asynchronous", "in_memory"], ASKED] = Field(
        default="synchronous",
        description="synchronous: the job stands while it is written to storage; asynchronous: while it is copied to "
        "memory of its host, from where it is written; in_memory: while it is copied to another host over the NICs, "
        "where it does not outlive a failure that takes a rack or a domain",
    )
    interval_s: Literal["daly", "young"] | SecondsAtLeast = Field(
        default="daly", description="work between two; daly, young: the best by their formulas"
    )
    size_GB: GigaBytes | None = Field(
        default=None, description="of all ranks together; default: bytes_per_parameter of the model of `training`"
    )
    bytes_per_parameter: BytesEach = Field(
        default=14.0, description="weights of 16 bits; master weights and two moments of Adam of 32 (13.6 published)"
    )
    storage_GBps: GBps | None = Field(
        default=None, description="of the storage, for all hosts together; default: what the job's NICs carry"
    )
    write_s: SecondsAtLeast | None = Field(default=None, description="to storage; default: size over bandwidth")
    stall_s: Seconds | None = Field(default=None, description="the job stands for one; default: as `mode` says")
    stored_every: Annotated[int, NUMBER, Field(ge=1, le=10**6)] = Field(
        default=10, description="in_memory: so many for one that is also written to storage"
    )


def _of_training(value: Any) -> Any:
    return {"kind": "training", **value} if isinstance(value, dict) else value


class ReliabilitySpec(WorkloadSpec):
    """A training job under failures."""

    kind: Literal["reliability"]
    training: Annotated[TrainingSpec | None, BeforeValidator(_of_training)] = Field(
        default=None, description="keys of a training workload: its step is simulated. Default: shares of time alone"
    )
    failures: str | None = Field(
        default=None, description="rates of parts: a name in topologies/failures, or a path of such a file"
    )
    causes: dict[str, CauseSpec] = Field(
        default={}, description="by name: keys over those of `failures`, or causes beside them"
    )
    trace: FaultTraceSpec | None = Field(default=None, description="faults as recorded, in place of drawn ones")
    days: Days | None = Field(
        default=None, description="of the clock that are looked at; default: 90, or a whole trace, or the job's end"
    )
    work_days: Days | None = Field(
        default=None, description="what the job takes if nothing fails and nothing is saved: also ask when it is done"
    )
    runs: Seeds = Field(default=1000, description="how often it is drawn")
    spares: Slots = Field(default=0, description="hosts that stand by, beside those of the job")
    restart_s: Seconds = Field(
        default=600.0,
        description="from a noticed failure to the next step, without reading the checkpoint (10 minutes, "
        "arXiv:2602.00277)",
    )
    elastic: ElasticSpec | None = Field(
        default=None, description="the job shrinks where hosts are missing; default: it waits for them"
    )
    checkpoint: CheckpointSpec = Field(default=CheckpointSpec(), description="what the job writes to come back to")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.ranks is not None:
            raise ValueError("ranks: a job under failures has the whole of its system; set `accelerators` there")
        if self.trace is None and self.failures is None and not self.causes:
            raise ValueError("failures: one of failures, causes and trace is required")
        if self.trace is not None and (self.failures is not None or self.causes):
            raise ValueError("trace: goes without failures and causes")
        if self.trace is not None and self.work_days is not None:
            raise ValueError("work_days: a trace ends; goes with failures and causes")
        if self.days is not None and self.work_days is not None:
            raise ValueError("days: goes without work_days, which looks until the job is done")
        return self


@dataclass(frozen=True)
class ReliabilityFacts(Facts):
    """runs: how often it was drawn    hosts, spares: of the job, beside it    window_s: of the clock, of one run, the
    longest [s]    checkpoint_B: of all ranks together, None where only times are given"""

    runs: float = 1.0
    hosts: float = 1.0
    spares: float = 0.0
    window_s: float = 0.0
    checkpoint_B: float | None = None


def _spread(name: str, unit: str, better: Literal["more", "less", ""], text: str) -> tuple[Metric, ...]:
    return tuple(Metric(f"{name}_p{q}", unit, better, f"{text}; {q} % of runs have less") for q in (5, 50, 95))


_METRICS = (
    Metric("goodput_fraction", "1", "more", "progress over the clock: time in which steps ran that were kept"),
    *_spread("goodput_fraction", "1", "more", "the same of one run"),
    Metric("availability", "1", "more", "share of the clock in which the job ran, at whatever speed"),
    Metric("mtbf_s", "s", "more", "clock over failures that stop the job"),
    Metric("interruptions", "1", "less", "failures that stop the job, mean of a run"),
    Metric("checkpoint_interval_s", "s", "", "work between two checkpoints"),
    Metric("checkpoint_stall_s", "s", "less", "the job stands for one checkpoint"),
    Metric("checkpoint_write_s", "s", "less", "from its beginning until it is in storage"),
    Metric("checkpoint_fraction", "1", "less", "share of the clock in which the job stands for checkpoints"),
    Metric("lost_fraction", "1", "less", "share of the clock for work that was not kept"),
    Metric("down_fraction", "1", "less", "share of the clock from failures to the next step"),
    Metric("slow_fraction", "1", "less", "share of the clock lost by steps that were kept and took longer than whole"),
    Metric("run_time_s", "s", "less", "from start to end of the job, mean of the runs that end"),
    *_spread("run_time_s", "s", "less", "from start to end of the job, runs that do not end among the longest"),
    Metric("finished_fraction", "1", "more", "share of the runs whose job ended"),
    Metric("step_time_s", "s", "less", "of one step of the whole job while nothing more fails"),
    Metric("fault_slowdown", "1", "", "time of a step with the scenario's faults over that without"),
    Metric("tokens_per_s", "tokens/s", "more", "kept tokens over the clock: those of steps times goodput"),
    Metric("tokens_per_s_per_accelerator", "tokens/s", "more", "the same, over accelerators (packages) in use"),
    common.MAKESPAN,
)

KIND = Kind(
    name="reliability",
    spec=ReliabilitySpec,
    execution=Itself("cmsim.reliability.execute:execute", heeds=("faults",)),
    facts=ReliabilityFacts,
    metrics=_METRICS,
    frames=(
        Frame(
            "causes",
            {
                "cause": "what failed",
                "parts": "how many of it there are",
                "failures": "of a run, mean; those that stop the job and those that slow it",
                "interruptions": "of a run, mean",
                "share": "of all interruptions",
                "down_s": "of a run, mean: from these failures to the next step [s]",
                "lost_s": "of a run, mean: work that these failures undid [s]",
            },
            "one row per cause",
            may_be_empty=True,
        ),
        Frame(
            "runs",
            {
                "draw": "number of the run",
                "clock_s": "that was looked at [s]",
                "goodput_fraction": "progress over the clock",
                "availability": "share of the clock in which the job ran",
                "interruptions": "failures that stopped the job",
                "checkpoint_s": "the job stood for checkpoints [s]",
                "lost_s": "work that was not kept [s]",
                "down_s": "from failures to the next step [s]",
                "slow_s": "lost by steps that took longer than whole [s]",
                "run_time_s": "from start to end of the job; 0 where it has none, or did not end [s]",
            },
            "one row per draw",
        ),
    ),
    decisive=("run_time_s", "tokens_per_s", "goodput_fraction"),
    table=(
        *("goodput_fraction", "availability", "mtbf_s", "interruptions", "checkpoint_interval_s", "run_time_s"),
        *("step_time_s", "fault_slowdown", "tokens_per_s"),
    ),
    headline=("goodput_fraction", "mtbf_s", "checkpoint_interval_s", "step_time_s", "tokens_per_s", "makespan_s"),
    rates=("tokens_per_s",),
    figure=("mtbf_s", "goodput_fraction"),
    mark="goodput_fraction",
)
