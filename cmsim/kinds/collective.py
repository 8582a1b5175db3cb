"""One collective, timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cmsim.kinds import common
from cmsim.kinds.kind import Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import ASKED, Balance, ExpertSlotsSpec, Precision, WorkloadSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import Bytes, Places, Times, Tokens
from cmsim.units import GB


class ExchangeSpec(Spec):
    """Tokens of a mixture of experts on their way to the experts, or back."""

    model: str = Field(description="name of a file in workloads/models, or a path to a Hugging Face config.json")
    tokens: Tokens = Field(description="tokens that every rank of the group sends")
    precision: Precision = Field(default="bf16", description="elements of a dispatched token; combined ones are bf16")
    balance: Balance = Field(default=Balance(), description="expert load; `draw` also seeds the routing of tokens")
    expert_slots: ExpertSlotsSpec = Field(
        default=ExpertSlotsSpec(), description="places for experts beside the routed ones"
    )
    once: Annotated[Literal["expert", "rank", "node"], ASKED] = Field(
        default="expert",
        description="a token goes out once for every expert, every rank, or every node (and fans out there)",
    )


class CollectiveSpec(WorkloadSpec):
    """One collective, timed."""

    kind: Literal["collective"]
    collective: Annotated[
        Literal[
            "all_reduce",
            "all_gather",
            "reduce_scatter",
            "all_to_all",
            "broadcast",
            "reduce",
            "send_recv",
            "barrier",
            "dispatch",
            "combine",
        ],
        ASKED,
    ]
    message_bytes: Bytes | None = Field(
        default=None, description="as nccl-tests counts it; a list makes one run per size"
    )
    matrix: str | None = Field(
        default=None,
        description="all_to_all, dispatch, combine: CSV without a head, bytes from row to column, instead of "
        "message_bytes; who sends how much to whom shows with `network: flow`, the busiest rank with all",
    )
    exchange: ExchangeSpec | None = Field(
        default=None, description="dispatch, combine: tokens, instead of message_bytes or a matrix"
    )
    group: Literal["all"] | Places = Field(
        default="all", description="all ranks in one group, or groups of this many consecutive ranks, all at once"
    )
    stride: Places = Field(default=1, description="distance between neighbours of a group")
    algorithm: str = Field(
        default="best",
        description="best: the cheapest; the system's own library (nccl, hccl, rccl): what that would choose, in the "
        "time measured of it; or the name of one algorithm",
    )
    repeat: Times = Field(default=1, description="calls, one after the other")

    @model_validator(mode="after")
    def _has_bytes(self) -> CollectiveSpec:
        given = [key for key in ("message_bytes", "matrix", "exchange") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: give {' or '.join(given)}, not both")
        if self.matrix is not None and self.collective not in ("all_to_all", "dispatch", "combine"):
            raise ValueError(f"matrix: a {self.collective} has none. Allowed: all_to_all, dispatch, combine.")
        if self.exchange is not None and self.collective not in ("dispatch", "combine"):
            raise ValueError(f"exchange: a {self.collective} moves no tokens. Allowed: dispatch, combine.")
        if not (given or self.collective == "barrier"):
            raise ValueError("message_bytes: the key is required")
        if self.message_bytes is not None and 0 < self.message_bytes < 1:
            raise ValueError(f"message_bytes: must be at least 1, got {self.message_bytes:g}")
        if self.message_bytes == 0 and self.collective != "barrier":
            raise ValueError(f"message_bytes: a {self.collective} moves more than 0 bytes")
        return self


@dataclass(frozen=True)
class CollectiveFacts(Facts):
    """size_B: as nccl-tests counts it [B]    ranks_in_group, calls: one after the other    busbw_factor: of the
    collective in such a group, as nccl-tests has it; known where the run is measured [1]"""

    size_B: float
    ranks_in_group: float
    calls: float = 1.0
    busbw_factor: float | None = None


def measure(run: Measured[CollectiveFacts]) -> Metrics:
    """time_s of one call, algbw_GBps = size / time, busbw_GBps = algbw x factor.

    Source: nccl-tests doc/PERFORMANCE.md.
    """
    facts = run.facts
    assert facts.busbw_factor is not None, "a collective is measured with its factor"
    time_s = run.makespan_s / facts.calls
    algbw_GBps = facts.size_B / time_s / GB
    return {"time_s": time_s, "algbw_GBps": algbw_GBps, "busbw_GBps": algbw_GBps * facts.busbw_factor}


_BOUNDS = {
    "egress": "what leaves the busiest rank",
    "ingress": "what reaches the busiest rank",
    "bisection": "what crosses the fabric's middle",
    "latency": "hops alone",
}
_METRICS = (
    Metric("time_s", "s", "less", "of one call", of_time=True),
    Metric("algbw_GBps", "GB/s", "more", "size over time", of_time=True),
    Metric("busbw_GBps", "GB/s", "more", "algbw times the factor of the collective", of_time=True),
    *common.rest(
        memory=False,
        words=(
            Metric("algorithm", "", "", "that was chosen"),
            *(Metric(f"bound_{name}_s", "s", "", f"bound at line rate: {text}") for name, text in _BOUNDS.items()),
            Metric("bound_ratio", "1", "", "time_s over the largest of the bounds"),
        ),
    ),
    *common.power_of(),
)

KIND = Kind(
    name="collective",
    spec=CollectiveSpec,
    execution=PlayedKind(
        "cmsim.workload.generate.collective:programs", measure, "cmsim.execution.collective:CollectiveMeans"
    ),
    facts=CollectiveFacts,
    metrics=_METRICS,
    frames=common.PLAYED,
    decisive=("time_s",),
    table=("time_s", "fault_slowdown", "algorithm", "algbw_GBps", "busbw_GBps", "energy_J"),
    headline=common.headline(_METRICS, "time_s", "algorithm", "algbw_GBps", "busbw_GBps"),
    speed="time_s",
    figure=("time_s", "busbw_GBps"),
    listed="message_bytes",
    mark="busbw_GBps",
)
