"""Who submits which jobs to a cluster, and when: keys of jobs that are listed, recorded, drawn, or stand."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from cmsim.kinds.training import TrainingSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import NUMBER, Places, Share

#: of the clock of jobs, which counts microseconds: up to ten years
Time = Annotated[float, NUMBER, Field(ge=0, le=3.2e8)]
Length = Annotated[float, NUMBER, Field(ge=1e-6, le=3.2e8)]
PerHour = Annotated[float, NUMBER, Field(ge=0, le=1e7)]
DaysOfJobs = Annotated[float, NUMBER, Field(ge=1e-3, le=3650)]
Steps = Annotated[int, NUMBER, Field(gt=0, le=10**10)]
Rank = Annotated[int, NUMBER, Field(ge=0, le=10**6)]
Spread = Annotated[float, NUMBER, Field(ge=0, le=5)]
HourOfDay = Annotated[float, NUMBER, Field(ge=0, lt=24)]
NoneOrMore = Annotated[int, NUMBER, Field(ge=0, le=2**22)]
Many = Annotated[int, NUMBER, Field(gt=0, le=10**7)]


def _of_training(value: Any) -> Any:
    return {"kind": "training", **value} if isinstance(value, dict) else value


class TaskSpec(Spec):
    """What jobs of one sort do, simulated."""

    training: Annotated[TrainingSpec, BeforeValidator(_of_training)] = Field(
        description="keys of a training workload. Its step is simulated once on each machine for each size, and over "
        "as many domains: how quick such jobs are there, and what they draw"
    )


class JobSpec(Spec):
    """A job that is given by hand."""

    at_s: Time = Field(default=0.0, description="when it is submitted")
    accelerators: Places = Field(description="that it has from its first second to its last, or it does not run")
    seconds: Length | None = Field(
        default=None, description="that it takes on the reference machine. This or steps is required"
    )
    steps: Steps | None = Field(default=None, description="of its task")
    task: str | None = Field(default=None, description="what it does, a name in `tasks`")
    team: str | None = Field(default=None, description="whose it is, a name in `teams`")
    priority: Rank = Field(default=0, description="higher ones come first, under `queue: priority`")
    machine: str | None = Field(default=None, description="the only one that it may run on; default: any")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.seconds is None) == (self.steps is None):
            raise ValueError("seconds, steps: one of them is required")
        if self.steps is not None and self.task is None:
            raise ValueError("steps: are those of a task, which is not given")
        return self


class _MixSpec(Spec):
    """What is drawn of jobs that do not say it themselves."""

    teams: dict[str, Share] = Field(default={}, description="team: share of the jobs, drawn; default: none has one")
    priorities: dict[int, Share] = Field(default={}, description="priority: share of the jobs, drawn; default: all 0")
    tasks: dict[str, Share] = Field(
        default={}, description="task: share of the jobs, drawn; the rest has none. Default: none has one"
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        for key in ("teams", "priorities", "tasks", "sizes"):
            shares = getattr(self, key, {})
            together = sum(shares.values())
            rest = key == "tasks" and together < 1
            if shares and abs(together - 1) > 1e-6 and not rest:
                raise ValueError(f"{key}: shares are {together:g} together. Allowed: 1")
        return self


class JobTraceSpec(_MixSpec):
    """Jobs as a cluster recorded them."""

    path: str = Field(description="a file of jobs that `cmsim trace info` reads")
    format: str | None = Field(default=None, description="of the file, where it should not be guessed")
    jobs: Many | None = Field(default=None, description="the first so many; default: all")
    faster: Annotated[float, NUMBER, Field(ge=1e-6, le=1e6)] = Field(
        default=1.0, description="time between two submissions is divided by this"
    )
    machines: dict[str, str] = Field(
        default={}, description="type of accelerator, in the file's words: the machine that such jobs run on"
    )


class LengthSpec(Spec):
    """How long jobs run on the reference machine."""

    law: Literal["lognormal", "exponential", "constant"] = Field(
        default="lognormal", description="that lengths are drawn by"
    )
    median_s: Length | None = Field(default=None, description="lognormal: half of the jobs are shorter")
    sigma: Spread = Field(default=1.5, description="lognormal: standard deviation of the logarithm (assumed 1 to 2.5)")
    mean_s: Length | None = Field(default=None, description="exponential: the mean; constant: all are so long")
    most_s: Length | None = Field(default=None, description="longer ones are cut to this; default: none is")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        needs, other = ("median_s", "mean_s") if self.law == "lognormal" else ("mean_s", "median_s")
        if getattr(self, needs) is None:
            raise ValueError(f"{needs}: required for `law: {self.law}`")
        if getattr(self, other) is not None:
            raise ValueError(f"{other}: does not go with `law: {self.law}`")
        return self


class JobArrivalsSpec(_MixSpec):
    """Jobs that are drawn: when they come, how large and how long they are."""

    per_hour: PerHour | Annotated[list[PerHour], Field(min_length=24, max_length=24)] = Field(
        description="jobs that come in an hour, at random; 24 numbers: of each hour of the day"
    )
    days: DaysOfJobs = Field(default=7.0, description="in which they come")
    length: LengthSpec = Field(description="how long they run")
    sizes: dict[int, Share] = Field(
        min_length=1, description="accelerators of a job: share of the jobs; together 1, as {1: 0.5, 8: 0.5}"
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        hours = self.per_hour if isinstance(self.per_hour, list) else [self.per_hour]
        if not any(hours):
            raise ValueError("per_hour: no job ever comes")
        if wrong := [size for size in self.sizes if not 0 < size <= 2**22]:
            raise ValueError(f"sizes: got {wrong[0]} accelerators. Allowed: 1 to {2**22}")
        return self


class StandingSpec(Spec):
    """A service that stands beside jobs: it takes accelerators when the day asks for them, and gives them back."""

    accelerators: tuple[tuple[HourOfDay, NoneOrMore], ...] = Field(
        min_length=1,
        description="[hour of the day, accelerators from then on] points, hours ascending; every day is alike",
    )
    replica: Places = Field(default=1, description="accelerators of one replica, which come and go together")
    machine: str | None = Field(default=None, description="where it stands; default: the first machine")
    task: str | None = Field(default=None, description="what its accelerators draw, as jobs of this task do")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        hours = [hour for hour, _ in self.accelerators]
        if any(a >= b for a, b in itertools.pairwise(hours)):
            raise ValueError("accelerators: hours must ascend")
        if all(many == 0 for _, many in self.accelerators):
            raise ValueError("accelerators: none, ever")
        return self
