"""Prompts in, first tokens out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cmsim.kinds import common
from cmsim.kinds.kind import PER, Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import InferenceParallelSpec, InferencePrecisionSpec, ModelWorkloadSpec
from cmsim.reading.quantities import PerAccelerator, Share, Tokens, TokensOrNone


class PrefillSpec(ModelWorkloadSpec):
    """Prompts in, first tokens out: one batch."""

    kind: Literal["prefill"]
    precision: InferencePrecisionSpec = Field(default=InferencePrecisionSpec(), description="number formats")
    parallel: InferenceParallelSpec = Field(default=InferenceParallelSpec(), description="how work is split over ranks")
    batch_per_accelerator: PerAccelerator = Field(description="prompts per accelerator package")
    prompt_tokens: Tokens = Field(description="tokens of one prompt")
    cached_tokens: TokensOrNone = Field(
        default=0, description="tokens before them that are in the cache already: of a chunk, or of a shared beginning"
    )
    microbatches: Annotated[int, Field(ge=1, le=2)] = Field(
        default=1, description="2: one computes while one communicates"
    )
    evenness: Share = Field(
        default=1.0,
        description="work of a holder in the mean over the busiest, which `batch_per_accelerator` tells: experts "
        "work on what all of them have. A holder is a rank with data-parallel attention, else a tensor group",
    )


@dataclass(frozen=True)
class PrefillFacts(Facts):
    """tokens_per_run: of all prompts, over all accelerators    steps: passes of a run    layers: of the model"""

    tokens_per_run: float
    steps: float
    layers: float


def measure(run: Measured[PrefillFacts]) -> Metrics:
    """ttft_s is the whole prompt's pass, without queueing."""
    return {
        **common.throughput(run.facts.tokens_per_run, run.makespan_s, run.accelerators),
        "ttft_s": run.makespan_s,
        "layer_time_s": run.makespan_s / run.facts.steps / run.facts.layers,
    }


_METRICS = (
    *common.rates("token"),
    Metric("ttft_s", "s", "less", "to the first token: the whole prompt's pass, without queueing", of_time=True),
    Metric("layer_time_s", "s", "less", "of one layer, the ends of the model shared out", of_time=True),
    *common.rest(),
    *common.power_of("token"),
)

KIND = Kind(
    name="prefill",
    spec=PrefillSpec,
    execution=PlayedKind("cmsim.workload.generate.inference:prefill", measure),
    facts=PrefillFacts,
    metrics=_METRICS,
    frames=common.PLAYED,
    decisive=("tokens_per_s",),
    table=("ttft_s", "tokens_per_s", PER, "energy_per_token_J"),
    headline=common.headline(_METRICS, "ttft_s"),
    rates=("tokens_per_s",),
    latency=("ttft_s", "the first token"),
    figure=("ttft_s", "tokens_per_s_per_accelerator"),
    host="bulk",
    mark="ttft_s",
)
