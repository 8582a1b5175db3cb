"""A kind of workload from another package with programs: two ranks that send to each other, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat

from cmsim.hardware import System
from cmsim.kinds import Facts, Kind, Measured, Metric, Metrics, PlayedKind, common
from cmsim.kinds.parts import WorkloadSpec
from cmsim.workload.ops import ProgramBuilder, Programs, assemble


class PingSpec(WorkloadSpec):
    """A message there and back."""

    kind: Literal["ping"]
    size_bytes: PositiveFloat = Field(description="of the message; a list makes one run per size")


@dataclass(frozen=True)
class PingFacts(Facts):
    """size_B: of the message [B]"""

    size_B: float


def programs(spec: PingSpec, system: System, base: Path | None) -> Programs:
    one, other = ProgramBuilder(), ProgramBuilder()
    there = one.send("there", stream="comm", size_B=spec.size_bytes, slot="there")
    one.recv("back", stream="comm", size_B=spec.size_bytes, slot="back", after=[there])
    came = other.recv("there", stream="comm", size_B=spec.size_bytes, slot="came")
    other.send("back", stream="comm", size_B=spec.size_bytes, slot="gone", after=[came])
    first, second = np.array([0, -1]), np.array([-1, 0])
    return assemble(
        [one, other],
        program=np.arange(2),
        groups={"there": first, "came": second, "back": first + (first >= 0), "gone": second + (second >= 0)},
        facts=PingFacts(spec.size_bytes),
    )


def measure(run: Measured[PingFacts]) -> Metrics:
    return {"round_trip_s": run.makespan_s, "one_way_GBps": 2 * run.facts.size_B / run.makespan_s / 1e9}


METRICS = (
    Metric("round_trip_s", "s", "less", "there and back", of_time=True),
    Metric("one_way_GBps", "GB/s", "more", "size over half of it", of_time=True),
    *common.rest(memory=False),
    *common.power_of(),
)

KIND = Kind(
    name="ping",
    spec=PingSpec,
    execution=PlayedKind("cmsim_ping:programs", measure),
    facts=PingFacts,
    metrics=METRICS,
    frames=common.PLAYED,
    decisive=("round_trip_s",),
    table=("round_trip_s", "one_way_GBps"),
    headline=common.headline(METRICS, "round_trip_s", "one_way_GBps"),
    speed="round_trip_s",
    figure=("round_trip_s", "one_way_GBps"),
    listed="size_bytes",
)
