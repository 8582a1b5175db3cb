"""A recorded trace, replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import Field

from cmsim.kinds import common
from cmsim.kinds.kind import PER, Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import ASKED, WorkloadSpec
from cmsim.reading.quantities import PerAccelerator


class TraceSpec(WorkloadSpec):
    """A recorded trace, replayed."""

    kind: Literal["trace"]
    path: str = Field(description="a folder or file; built-in ones in workloads/traces by path below that folder")
    format: str | None = Field(
        default=None, description="of the file, where it should not be guessed: a name in `cmsim list formats`"
    )
    compute: Annotated[Literal["recorded", "scaled", "modelled"], ASKED] = Field(
        default="recorded",
        description="recorded: times as they are; scaled: by the roofline ratio of the accelerators for each kind of "
        "kernel; modelled: priced by FLOPs, bytes and sizes where the trace has them, the others scaled",
    )
    recorded_on: str | None = Field(
        default=None, description="scaled, modelled: the accelerator the trace was taken on"
    )
    collectives: Annotated[Literal["modelled", "recorded"], ASKED] = Field(
        default="modelled",
        description="modelled: on the fabric of the system; recorded: as long as they took, with the wait for others",
    )
    samples_per_rank: PerAccelerator | None = Field(
        default=None,
        description="samples (images, sequences) that the recording has one rank work on, in all its steps together, "
        "where known: throughput is then told in samples, else in recorded steps of a rank",
    )
    placement: str = Field(
        default="contiguous",
        description="of groups known by their size alone: contiguous or strided; or a JSON file, a list with the place "
        "of each rank of the trace, every rank of the job once",
    )
    host: Annotated[Literal["replayed", "left_out"], ASKED] = Field(
        default="replayed", description="work of the host between kernels and launches"
    )


@dataclass(frozen=True)
class TraceFacts(Facts):
    """What a file says, and what was recorded, to compare with.

    told                of the workload, by the file's own names (``steps``, ``tokens_per_run``, ...)
    recorded_s          length of what was recorded, all its steps [s]
    recorded_class_s    class of op -> time added up, mean of a rank [s]
    rank_steps_per_run  recorded steps of a rank that the ranks of the replay do together, over all steps
    samples_per_run     that they work on together, where the scenario says it
    """

    told: Mapping[str, float] = field(default_factory=dict)
    recorded_s: float | None = None
    recorded_class_s: Mapping[str, float] = field(default_factory=dict)
    rank_steps_per_run: float | None = None
    samples_per_run: float | None = None

    @property
    def steps(self) -> float:
        """Steps of the recording: 1 where the file marks none."""
        return max(self.told.get("steps", 1.0), 1.0)

    def named(self) -> dict[str, float]:
        recorded = {f"recorded_{name}_s": time_s for name, time_s in self.recorded_class_s.items()}
        own = {
            "recorded_s": self.recorded_s,
            **recorded,
            "rank_steps_per_run": self.rank_steps_per_run,
            "samples_per_run": self.samples_per_run,
        }
        return {**self.told, **{name: value for name, value in own.items() if value is not None}}

    @classmethod
    def of(cls, named: Mapping[str, float]) -> Self:
        rest = dict(named)
        own = {name: rest.pop(name, None) for name in ("recorded_s", "rank_steps_per_run", "samples_per_run")}
        of_class = {
            name.removeprefix("recorded_").removesuffix("_s"): rest.pop(name)
            for name in named
            if name.startswith("recorded_") and name in rest
        }
        return cls(told=rest, recorded_class_s=of_class, **own)

    def per_run(self, of: str) -> float | None:
        """Tokens or samples of a run, where they are known."""
        name = f"{of}s_per_run"
        return self.named().get(name)


def measure(run: Measured[TraceFacts]) -> Metrics:
    """Throughput in tokens or samples where these are known, else in recorded steps of a rank: a trace says what ran,
    not what it was for. The replay of one rank by many does as many steps at once."""
    for of in ("token", "sample"):
        count = run.facts.per_run(of)
        if count is not None:
            return common.throughput(count, run.makespan_s, run.accelerators, of)
    steps = run.facts.rank_steps_per_run
    return {} if steps is None else {"rank_steps_per_s": steps / run.makespan_s}


_METRICS = (
    *common.rates("token", "sample"),
    Metric("rank_steps_per_s", "recorded steps/s", "more", "recorded steps of a rank over time", of_time=True),
    *common.rest(memory=False),
    *common.power_of("token", "sample"),
)

KIND = Kind(
    name="trace",
    spec=TraceSpec,
    execution=PlayedKind("cmsim.workload.generate.replay:programs", measure, "cmsim.execution.replay:ReplayMeans"),
    facts=TraceFacts,
    metrics=_METRICS,
    frames=common.PLAYED,
    decisive=("tokens_per_s", "samples_per_s", "makespan_s"),
    table=("makespan_s", "tokens_per_s", "samples_per_s", "rank_steps_per_s", PER, "power_avg_W"),
    headline=common.headline(_METRICS),
    rates=("tokens_per_s", "samples_per_s", "rank_steps_per_s"),
    figure=("makespan_s", "power_avg_W"),
)
