"""One decoding step of a full batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cmsim.kinds import common
from cmsim.kinds.kind import PER, Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import InferenceParallelSpec, InferencePrecisionSpec, ModelWorkloadSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import Drafts, PerAccelerator, Share, ShareOrNone, Tokens, TokensOrNone

#: tokens that a step verifies at most
_MOST_NODES = 4096


class Speculative(Spec):
    """Speculative or multi-token-prediction decoding."""

    draft_tokens: Drafts = Field(default=1, description="tokens proposed per step, one after the other")
    tree: list[Drafts] = Field(
        default=[],
        description="instead of `draft_tokens`: tokens proposed at each depth, all of which are verified in one step",
    )
    at_once: bool = Field(
        default=False,
        description="one pass proposes all of them (a model that drafts blocks); no: a pass for each depth",
    )
    acceptance: ShareOrNone | list[ShareOrNone] = Field(
        description="probability that one is accepted where those before it were; a list has one for each depth"
    )
    siblings: ShareOrNone | None = Field(
        default=None,
        description="of a tree: probability that the next one after the same token is right where those before it are "
        "not; required where a depth has more tokens than the one before it",
    )
    model: str | None = Field(
        default=None,
        description="a model that drafts, as `model` of the workload, in the same formats on the same ranks; default: "
        "one more layer and head of the model itself",
    )

    @model_validator(mode="after")
    def _go_together(self) -> Speculative:
        if self.tree and "draft_tokens" in self.model_fields_set:
            raise ValueError("tree: goes without `draft_tokens`, which is a chain of one at each depth")
        if self.tree and self.at_once:
            raise ValueError("at_once: goes without `tree`")
        if isinstance(self.acceptance, list) and len(self.acceptance) != len(self.widths):
            depths = len(self.widths)
            raise ValueError(f"acceptance: got {len(self.acceptance)} numbers for {depths} depths. Allowed: {depths}.")
        wider = any(width > before for width, before in zip(self.widths, (1, *self.widths), strict=False))
        if wider != (self.siblings is not None):
            raise ValueError(
                "siblings: goes with a `tree` that is wider at some depth than before it, and with no other"
            )
        if sum(self.widths) > _MOST_NODES:
            raise ValueError(f"tree: got {sum(self.widths)} tokens. Allowed: at most {_MOST_NODES}.")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Proposed tokens at each depth. [1]"""
        return tuple(self.tree) or (1,) * self.draft_tokens

    @property
    def nodes(self) -> int:
        """Proposed tokens, verified beside the last one. [1]"""
        return sum(self.widths)

    @property
    def passes(self) -> tuple[int, ...]:
        """Tokens that each pass of drafting works on: those of the depth before, or all that are proposed. [1]"""
        return (self.nodes,) if self.at_once else (1, *self.widths[:-1])

    @property
    def accepted(self) -> float:
        """Tokens of a sequence in one step, expected. [1]

        E = 1 + P1 + P1 P2 + ...: at depth i one of k = w_i / w_(i-1) tokens after the same one is right with
        P_i = 1 - (1 - a_i) (1 - s)^(k - 1); where there are fewer than before, k < 1 of them go on: P_i = k a_i.
        Sources: Leviathan, Kalman and Matias, arXiv:2211.17192, eq. 1 (a chain); Miao et al., SpecInfer,
        arXiv:2305.09781 (trees; table 1: a 0.52 to 0.7, and of further ones s about 0.2 where decoding is greedy);
        Chen et al., Sequoia, arXiv:2402.12374, sec 3.1 (acceptance by place among siblings)
        """
        chances = self.acceptance if isinstance(self.acceptance, list) else [self.acceptance] * len(self.widths)
        reached, total = 1.0, 1.0
        for chance, width, before in zip(chances, self.widths, (1, *self.widths[:-1]), strict=True):
            each = width / before
            right = 1.0 - (1.0 - chance) * (1.0 - (self.siblings or 0.0)) ** (each - 1.0) if each > 1 else each * chance
            reached *= right
            total += reached
        return total


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
