"""Jobs on a hall of machines: they are submitted, wait for all their accelerators at once, run, are stopped, end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cmsim.kinds import common
from cmsim.kinds.kind import Facts, Frame, Itself, Kind, Metric
from cmsim.kinds.parts import ASKED, WorkloadSpec
from cmsim.kinds.reliability import CauseSpec, FaultTraceSpec
from cmsim.kinds.submitting import (
    DaysOfJobs,
    JobArrivalsSpec,
    JobSpec,
    JobTraceSpec,
    Length,
    StandingSpec,
    TaskSpec,
    Time,
)
from cmsim.reading import Spec
from cmsim.reading.quantities import NUMBER, Factor, Places, Seconds, Share, ShareOrNone

Overestimate = Annotated[float, NUMBER, Field(ge=1, le=1e6)]
HallWatts = Annotated[float, NUMBER, Field(gt=0, le=1e12)]


class MachineSpec(Spec):
    """A machine beside that of the run: a system, and how much of it."""

    machine: str = Field(description="a system: a name in topologies/, an alias, or a path")
    accelerators: Places | None = Field(default=None, description="packages that there are, over all domains")
    domains: Places | None = Field(default=None, description="domains; default: as the system file says")
    stack: str | None = Field(default=None, description="a name in topologies/stacks; default: the system's")
    set: dict[str, Any] = Field(default={}, description="dotted keys of the system file")


class TeamSpec(Spec):
    """Who shares the machines."""

    quota: Places | None = Field(
        default=None,
        description="accelerators that its jobs may have at once; under `preemption: quota` others' jobs make room "
        "for it up to here, and what others leave it may borrow. Default: no limit, none to take back",
    )
    share: Factor = Field(default=1.0, description="under `queue: fair_share`: weight of the team against others")


class MaintenanceSpec(Spec):
    """Hosts that are taken out as planned. Their jobs save first, and wait again: no work is lost."""

    machine: str | None = Field(default=None, description="which; default: the first")
    domains: Places | None = Field(default=None, description="so many of its domains, the first; default: all")
    at_s: Time = Field(description="when it begins")
    lasts_s: Length = Field(description="how long it takes")
    every_s: Length | None = Field(default=None, description="it comes again so often; default: once")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.every_s is not None and self.every_s <= self.lasts_s:
            raise ValueError(f"every_s: must be longer than it lasts ({self.lasts_s:g} s), got {self.every_s:g}")
        return self


class JobsSpec(WorkloadSpec):
    """Jobs on one or several machines."""

    kind: Literal["jobs"]
    jobs: tuple[JobSpec, ...] = Field(default=(), description="jobs by hand, in any order")
    trace: JobTraceSpec | None = Field(default=None, description="jobs as recorded")
    arrivals: JobArrivalsSpec | None = Field(default=None, description="jobs that are drawn")
    services: dict[str, StandingSpec] = Field(
        default={}, description="by name: services that stand on the same machines; jobs make room for them"
    )
    beside: dict[str, MachineSpec] = Field(
        default={}, description="machines beside the system of the run, which is the first, by names of theirs"
    )
    reference: str | None = Field(
        default=None, description="the machine whose time `seconds` and traces count; default: the first"
    )
    tasks: dict[str, TaskSpec] = Field(default={}, description="by name: what jobs do, simulated")
    speeds: dict[str, Factor] = Field(
        default={},
        description="machine: speed of jobs without a task there, over that on the reference; required for each other "
        "machine where there are such jobs",
    )
    across: Share = Field(
        default=0.85,
        description="speed of a job without a task over several domains, over that within one (assumed 0.6 to 1)",
    )
    power_share: ShareOrNone | None = Field(
        default=None,
        description="what an accelerator under a job without a task draws: from waiting (0) to the most of its part "
        "of the facility (1). Default: 0.7, assumed between 0.5 and 0.9",
    )
    teams: dict[str, TeamSpec] = Field(default={}, description="by name: who shares the machines")
    queue: Annotated[Literal["fifo", "shortest", "priority", "fair_share"], ASKED] = Field(
        default="fifo",
        description="whose turn it is. fifo: as submitted; shortest: by expected length; priority: the higher ones, "
        "then as submitted; fair_share: of the team that has least for its share, then as submitted",
    )
    backfill: Annotated[Literal["none", "easy"], ASKED] = Field(
        default="easy",
        description="none: nobody overtakes; easy: whoever does not delay the first in the queue, as expected",
    )
    policy: str | None = Field(
        default=None,
        description="module:function of your own in place of queue and backfill; runs with --allow-policies only",
    )
    overestimate: Overestimate = Field(
        default=1.0, description="expected length of a job over its length, for who decides by it"
    )
    placement: Annotated[Literal["pack", "one_domain", "scatter"], ASKED] = Field(
        default="pack",
        description="where jobs go. pack: into the fullest domain with room, else over the fewest; one_domain: so too, "
        "but what fits into a domain waits for one; scatter: over the emptiest hosts, whatever domains these are in",
    )
    preemption: Annotated[Literal["none", "priority", "quota"], ASKED] = Field(
        default="none",
        description="who stops running jobs, the youngest first. priority: jobs of higher priority; quota: teams that "
        "have less than their quota, those of teams that have more",
    )
    checkpoint_s: Length = Field(
        default=1800.0, description="jobs save so often, at no cost; what is younger is lost (assumed 600 to 7200)"
    )
    restart_s: Seconds = Field(
        default=600.0, description="of a job that was stopped, until its next step (10 minutes, arXiv:2602.00277)"
    )
    failures: str | None = Field(
        default=None, description="rates of parts: a name in topologies/failures, or a path of such a file"
    )
    causes: dict[str, CauseSpec] = Field(
        default={}, description="by name: keys over those of `failures`, or causes beside them"
    )
    recorded_faults: dict[str, FaultTraceSpec] = Field(
        default={}, description="machine: faults of its hosts as recorded, in place of drawn ones"
    )
    maintenance: tuple[MaintenanceSpec, ...] = Field(default=(), description="hosts that are taken out as planned")
    power_budget_W: HallWatts | None = Field(
        default=None, description="of the hall, PUE included: jobs wait that would exceed it. Default: none"
    )
    days: DaysOfJobs | None = Field(
        default=None, description="of the clock that are looked at; default: until every job has ended"
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.ranks is not None:
            raise ValueError("ranks: jobs have the whole of their machines; set `accelerators` there")
        if not (self.jobs or self.trace or self.arrivals or (self.services and self.days)):
            raise ValueError("jobs: one of jobs, trace and arrivals is required; or services, with days")
        self._known_teams()
        self._known_tasks()
        if self.policy is not None:
            if said := self.model_fields_set & {"queue", "backfill"}:
                raise ValueError(f"{min(said)}: policy decides it")
            if self.preemption != "none":
                raise ValueError("preemption: goes without policy")
            module, _, function = self.policy.partition(":")
            if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
                raise ValueError(f"policy: got {self.policy!r}. Allowed: module:function")
        if self.preemption == "priority" and self.queue != "priority":
            raise ValueError(f"preemption: priority goes with `queue: priority`; got {self.queue}")
        if self.preemption == "quota" and not any(team.quota for team in self.teams.values()):
            raise ValueError("preemption: quota needs a team with a quota")
        return self

    def _mixes(self) -> list[tuple[str, Any]]:
        return [(key, mix) for key in ("trace", "arrivals") if (mix := getattr(self, key)) is not None]

    def _known_teams(self) -> None:
        said = [(f"jobs[{i}].team", job.team) for i, job in enumerate(self.jobs) if job.team is not None]
        said += [(f"{key}.teams", team) for key, mix in self._mixes() for team in mix.teams]
        _known(said, self.teams, "teams")

    def _known_tasks(self) -> None:
        said = [(f"jobs[{i}].task", job.task) for i, job in enumerate(self.jobs) if job.task is not None]
        said += [(f"{key}.tasks", task) for key, mix in self._mixes() for task in mix.tasks]
        said += [(f"services.{name}.task", one.task) for name, one in self.services.items() if one.task is not None]
        _known(said, self.tasks, "tasks")


def _known(said: list[tuple[str, str]], known: dict[str, Any], where: str) -> None:
    for key, name in said:
        if name not in known:
            raise ValueError(f"{key}: got {name!r}, which is not in `{where}`. Allowed: {', '.join(known) or 'none'}")


@dataclass(frozen=True)
class JobsFacts(Facts):
    """jobs: that were submitted    machines, domains, hosts, accelerators_all: of the hall    events: that the clock
    stopped at    simulated: steps of tasks that were played"""

    jobs: float = 0.0
    machines: float = 1.0
    domains: float = 1.0
    hosts: float = 1.0
    accelerators_all: float = 1.0
    events: float = 0.0
    simulated: float = 0.0


def _spread(name: str, unit: str, text: str) -> tuple[Metric, ...]:
    ends = (("mean", "mean"), ("p50", "half"), ("p90", "90 %"), ("p99", "99 %"))
    return tuple(
        Metric(f"{name}_{end}", unit, "less", f"{text}; " + ("mean" if end == "mean" else f"{words} have less"))
        for end, words in ends
    )


_METRICS = (
    Metric("jobs_done", "1", "", "jobs that ended"),
    Metric("jobs_refused", "1", "less", "jobs that these machines, quotas and budget can never run: left out"),
    Metric("jobs_left", "1", "less", "jobs that wait or run when the clock is stopped"),
    *_spread("jct_s", "s", "of jobs that ended: from submission to end"),
    *_spread("wait_s", "s", "of jobs that ended: in the queue, every time they were in it"),
    *_spread("slowdown", "1", "of jobs that ended: time to their end over that alone, of 10 s or more; at least 1"),
    Metric("utilization", "1", "more", "share of the accelerators' time that jobs and services have"),
    Metric("useful_fraction", "1", "more", "share of the accelerators' time in which work was done that was kept"),
    Metric("lost_fraction", "1", "less", "share for work that was not kept, and for starting again"),
    Metric("lost_failures_fraction", "1", "less", "of it, by failures"),
    Metric("lost_preemption_fraction", "1", "less", "of it, by jobs and services that took their place"),
    Metric("service_fraction", "1", "", "share that services have"),
    Metric("service_met_fraction", "1", "more", "accelerators that services had over those that they asked for"),
    Metric("down_fraction", "1", "less", "share of the accelerators' time in repair or maintenance"),
    Metric(
        "fragmentation_fraction",
        "1",
        "less",
        "of the free accelerators of a machine, the share outside its emptiest domain, mean over time",
    ),
    Metric("across_fraction", "1", "less", "share of jobs' time on accelerators that is over several domains"),
    Metric("slow_fraction", "1", "less", "share of jobs' time that they were slower for it"),
    Metric("preemptions", "1", "less", "times that a job was stopped for another or a service"),
    Metric("interruptions", "1", "less", "times that a job was stopped by a failure"),
    Metric("queued_mean", "1", "less", "jobs that wait, mean over time"),
    common.MAKESPAN,
    Metric("energy_J", "J", "less", "of the hall, PUE included", banded=True),
    Metric("power_avg_W", "W", "less", "of the hall, mean", banded=True),
    Metric("power_peak_W", "W", "less", "of the hall, highest"),
    Metric("carbon_g", "g", "", "CO2e of the energy, where every machine has a carbon intensity"),
    Metric("cost_per_hour_USD", "USD/h", "", "rent of all machines, where each has one"),
    Metric("cost_USD", "USD", "", "rent of all machines until the last job has ended"),
    Metric("cost_per_useful_hour_USD", "USD", "", "the same for an hour of an accelerator whose work was kept"),
)

_TIME = {"start_s": "[s]", "end_s": "[s]"}
_SUMS = {
    "busy_s": "seconds times accelerators that jobs had [s]",
    "useful_s": "of these, in which work was done that was kept [s]",
    "energy_J": "above machines that wait [J]",
}

KIND = Kind(
    name="jobs",
    spec=JobsSpec,
    execution=Itself("cmsim.scheduling.execute:execute"),
    facts=JobsFacts,
    metrics=_METRICS,
    frames=(
        Frame(
            "jobs",
            {
                "job": "number, in the order of submission",
                "team": 'whose it is; "" if nobody\'s',
                "task": 'what it does; "" if not simulated',
                "priority": "as given",
                "accelerators": "that it needs",
                "state": "done, left (waits or runs at the end of the clock), or why it can never run: too large, over "
                "its quota, over the power budget",
                "machine": 'where it ran last; ""',
                "domains": "that it lay over then",
                "submit_s": "[s]",
                "start_s": "first time; 0 if it never started, as `starts` says [s]",
                "end_s": "0 if it did not end, as `state` says [s]",
                "wait_s": "in the queue, all times together [s]",
                "ran_s": "on accelerators, all times together [s]",
                "lost_s": "of these, work that was not kept and starting again [s]",
                "alone_s": "that it takes alone on the reference machine [s]",
                "starts": "how often it was started",
                "preemptions": "how often it was stopped for others",
                "interruptions": "how often by failures",
                "energy_J": "above machines that wait [J]",
            },
            "one row per job",
            may_be_empty=True,
        ),
        Frame(
            "attempts",
            {
                "job": "number; of a replica of a service 0",
                "service": 'its name; "" for jobs',
                "machine": "where",
                "domains": "that it lay over",
                "accelerators": "that it had",
                **_TIME,
                "kept_s": "of this time, work that was kept [s]",
                "ended_by": "end, failure, preemption, maintenance, service (it gave back what it had), clock",
            },
            "one row per time that a job or a replica had accelerators",
            may_be_empty=True,
        ),
        Frame(
            "cluster",
            {
                "machine": "name; `all` for the hall",
                **_TIME,
                "busy": "accelerators that jobs and services have, mean",
                "down": "accelerators in repair or maintenance, mean",
                "queued": "jobs that wait, mean; 0 for one machine, for the queue is common",
                "power_W": "of the facility, mean [W]",
            },
            "one row per machine and stretch of time",
        ),
        Frame(
            "teams",
            {
                "team": 'name; "" for jobs of nobody',
                "jobs": "submitted",
                "done": "ended",
                "wait_s": "mean of those that ended, 0 if none did [s]",
                "jct_s": "mean of those that ended [s]",
                "slowdown": "mean of those that ended",
                **_SUMS,
                "preemptions": "of its jobs",
            },
            "one row per team",
            may_be_empty=True,
        ),
        Frame(
            "machines",
            {
                "machine": "name",
                "accelerators": "that it has",
                "jobs": "that ended there",
                "utilization": "share of its accelerators' time that jobs and services have",
                "fragmentation_fraction": "of its free accelerators, the share outside its emptiest domain",
                "down_fraction": "share of its accelerators' time in repair or maintenance",
                **_SUMS,
                "idle_J": "of the whole machine, as if it only waited [J]",
                "cost_USD": "rent until the last job has ended; 0 where the system has none [USD]",
            },
            "one row per machine",
        ),
    ),
    decisive=("jct_s_mean", "wait_s_mean"),
    table=(
        *("jobs_done", "wait_s_p50", "wait_s_p99", "jct_s_mean", "slowdown_mean", "utilization", "useful_fraction"),
        *("fragmentation_fraction", "energy_J", "cost_USD", "makespan_s"),
    ),
    headline=("jobs_done", "jct_s_mean", "wait_s_mean", "utilization", "makespan_s"),
    speed="jct_s_mean",
    figure=("utilization", "slowdown_mean"),
    mark="jobs_done",
)
