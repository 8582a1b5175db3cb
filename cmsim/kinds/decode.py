"""One decoding step of a full batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cmsim.kinds import common
from cmsim.kinds.kind import PER, Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import InferenceParallelSpec, InferencePrecisionSpec, ModelWorkloadSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import Drafts, PerAccelerator, Share, ShareOrNone, Tokens, TokensOrNone


class Speculative(Spec):
    """Speculative or multi-token-prediction decoding."""

    draft_tokens: Drafts = Field(default=1, description="tokens proposed per step")
    acceptance: ShareOrNone = Field(description="probability that one is accepted")


class ChunkSpec(Spec):
    """Prompts that are worked on in the same step (chunked prefill)."""

    tokens: Tokens = Field(description="tokens of prompts beside the sequences of one rank, or of one tensor group")
    cached_tokens: TokensOrNone = Field(default=0, description="tokens before them that are in the cache already")


class DecodeSpec(ModelWorkloadSpec):
    """One decoding step of a full batch."""

    kind: Literal["decode"]
    precision: InferencePrecisionSpec = Field(default=InferencePrecisionSpec(), description="number formats")
    parallel: InferenceParallelSpec = Field(default=InferenceParallelSpec(), description="how work is split over ranks")
    batch_per_accelerator: PerAccelerator = Field(description="sequences per accelerator package")
    context_tokens: Tokens = Field(description="tokens already in the cache, per sequence")
    microbatches: Annotated[int, Field(ge=1, le=2)] = Field(
        default=1, description="2: one computes while one communicates"
    )
    speculative: Speculative | None = Field(default=None, description="draft tokens verified beside the last one")
    chunk: ChunkSpec | None = Field(default=None, description="prompts worked on in the same step")
    evenness: Share = Field(
        default=1.0,
        description="work of a holder in the mean over the busiest, which `batch_per_accelerator` tells: experts "
        "work on what all of them have. A holder is a rank with data-parallel attention, else a tensor group",
    )


@dataclass(frozen=True)
class DecodeFacts(Facts):
    """tokens_per_run: of all sequences, over all accelerators    steps: of a run    layers: of the model
    tokens_per_step_per_sequence: expected, more than 1 with speculation"""

    tokens_per_run: float
    steps: float
    tokens_per_step_per_sequence: float
    layers: float


def measure(run: Measured[DecodeFacts]) -> Metrics:
    """tpot_s = makespan / steps / E[tokens of a sequence in one step], more than 1 with speculation."""
    step_s = run.makespan_s / run.facts.steps
    return {
        **common.throughput(run.facts.tokens_per_run, run.makespan_s, run.accelerators),
        "tpot_s": step_s / run.facts.tokens_per_step_per_sequence,
        "layer_time_s": step_s / run.facts.layers,
    }


_METRICS = (
    *common.rates("token"),
    Metric("tpot_s", "s", "less", "of an output token: the step over its tokens of a sequence", of_time=True),
    Metric("layer_time_s", "s", "less", "of one layer, the ends of the model shared out", of_time=True),
    *common.rest(),
    *common.power_of("token"),
)

KIND = Kind(
    name="decode",
    spec=DecodeSpec,
    execution=PlayedKind("cmsim.workload.generate.inference:decode", measure),
    facts=DecodeFacts,
    metrics=_METRICS,
    frames=common.PLAYED,
    decisive=("tokens_per_s",),
    table=("tpot_s", "tokens_per_s", PER, "energy_per_token_J"),
    headline=common.headline(_METRICS, "tpot_s"),
    rates=("tokens_per_s",),
    latency=("tpot_s", "a token"),
    figure=("tpot_s", "tokens_per_s_per_accelerator"),
    host="decode",
    mark="tpot_s",
)
