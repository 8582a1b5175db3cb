"""One optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cmsim.kinds import common
from cmsim.kinds.kind import PER, Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import ModelWorkloadSpec, ParallelSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import Places, Slots, Tokens, TokensOrNone
from cmsim.units import TERA

#: parts of a layer that are computed twice by name, as Megatron-LM calls them (--recompute-modules)
RecomputeModule = Literal["core_attn", "moe_act", "layernorm", "mla_up_proj", "mlp", "moe", "shared_experts"]


def _switched(value: Any) -> Any:
    return float(value) if isinstance(value, bool) else value


#: a share, or true for all and false for nothing
Moved = Annotated[float, BeforeValidator(_switched), Field(ge=0, le=1)]


class OffloadSpec(Spec):
    """What lies in the host's memory: shares, or true for all and false for nothing."""

    activations: Moved = Field(
        default=0.0, description="of what forward keeps: leaves while the pass runs, and comes back for backward"
    )
    optimizer: Moved = Field(
        default=0.0, description="of the optimizer's states: come in for the update, and leave again"
    )


class TrainingParallelSpec(ParallelSpec):
    """Parallel sizes of a training step."""

    virtual_stages: Places = Field(
        default=1, description="parts of the model that each pipeline rank holds; zb_v and dualpipe have 2 by nature"
    )
    stage_layers: list[Slots] = Field(
        default=[],
        description="layers of each (virtual) stage, in the order of the model; default: as equal as can be, fewer on "
        "the first and the last, which also hold the token table and the head",
    )


class TrainingSpec(ModelWorkloadSpec):
    """One optimizer step."""

    kind: Literal["training"]
    sequence_length: TokensOrNone = Field(
        default=0, description="tokens; required for models of text, of images and graph files there are none"
    )
    global_batch: Tokens = Field(description="sequences (or images) per step, over all data-parallel ranks")
    micro_batch: Tokens = Field(default=1, description="sequences per micro-batch and data-parallel rank")
    parallel: TrainingParallelSpec = Field(default=TrainingParallelSpec(), description="how work is split over ranks")
    schedule: Literal["auto", "gpipe", "1f1b", "interleaved", "zb_h1", "zb_v", "dualpipe"] = Field(
        default="auto",
        description="order of passes in the pipeline; auto: 1f1b, or interleaved where `parallel.virtual_stages` > 1",
    )
    recompute: Literal["none", "selective", "full"] | list[RecomputeModule] = Field(
        default="selective",
        description="activations computed twice. full: whole layers, of which only inputs are kept; selective: norms, "
        "activation functions, rotation, quantising and the up-projections of latents; or parts by name",
    )
    offload: OffloadSpec = Field(default=OffloadSpec(), description="what lies in the host's memory")
    zero_stage: Annotated[int, Field(ge=0, le=3)] = Field(
        default=1, description="what is sharded over data-parallel ranks"
    )
    overlap_data_parallel: bool = Field(default=True, description="gradients are reduced while backward still runs")
    overlap_experts: bool = Field(
        default=False,
        description="forward and backward interleaved, so that each hides the other's dispatch and combine; "
        "holds about twice the micro-batches",
    )
    mtp_layers: Annotated[int, Field(ge=0, le=2**10)] = Field(
        default=0,
        description="modules that predict further tokens, behind the last layer: each a layer like it, a projection "
        "of two inputs and the head; not counted in MFU",
    )
    dims: dict[str, Tokens] = Field(
        default={}, description="sizes of dimensions that a graph file or config leaves open, by name"
    )


@dataclass(frozen=True)
class TrainingFacts(Facts):
    """Of models of text in tokens, of images and graphs in samples.

    model_flops_...     causal, nothing computed twice [FLOP]
    hardware_flops_...  what is done, recomputed ones too [FLOP]
    peak_FLOPps         of one accelerator, in the format MFU is stated on [FLOP/s]
    """

    tokens_per_step: float | None = None
    model_flops_per_token: float | None = None
    hardware_flops_per_token: float | None = None
    samples_per_step: float | None = None
    model_flops_per_sample: float | None = None
    hardware_flops_per_sample: float | None = None
    peak_FLOPps: float | None = None
    micro_batches: float | None = None
    stages: float | None = None


def measure(run: Measured[TrainingFacts]) -> Metrics:
    """mfu = model FLOPs (causal, no recomputation) over peak; hfu = FLOPs done, recomputed ones too, over peak.

    Source: Chowdhery et al., PaLM, arXiv:2204.02311, appendix B; Korthikanti et al., arXiv:2205.05198, section 6.3.
    """
    facts = run.facts
    of, count, model_flops, hardware_flops = (
        ("token", facts.tokens_per_step, facts.model_flops_per_token, facts.hardware_flops_per_token)
        if facts.samples_per_step is None
        else ("sample", facts.samples_per_step, facts.model_flops_per_sample, facts.hardware_flops_per_sample)
    )
    assert count and model_flops is not None and hardware_flops is not None and facts.peak_FLOPps
    out = common.throughput(count, run.makespan_s, run.accelerators, of)
    each = float(out[f"{of}s_per_s_per_accelerator"])
    model_FLOPps = model_flops * each
    return {
        "step_time_s": run.makespan_s,
        **out,
        "model_TFLOPps_per_accelerator": model_FLOPps / TERA,
        "mfu": model_FLOPps / facts.peak_FLOPps,
        "hfu": hardware_flops * each / facts.peak_FLOPps,
        "bubble_fraction": run.bubble_s / run.makespan_s,
    }


_METRICS = (
    Metric("step_time_s", "s", "less", "of one optimizer step", of_time=True),
    *common.rates("token", "sample"),
    Metric(
        "model_TFLOPps_per_accelerator",
        "TFLOP/s",
        "more",
        "model FLOPs (causal, nothing computed twice) over time and accelerators",
        of_time=True,
    ),
    Metric("mfu", "1", "more", "model FLOPs over the 16-bit peak", of_time=True),
    Metric("hfu", "1", "more", "FLOPs done, recomputed ones too, over the 16-bit peak", of_time=True),
    Metric("bubble_fraction", "1", "less", "share of the step in which the busiest ranks wait for others' stages"),
    *common.rest(),
    *common.power_of("token", "sample"),
)

KIND = Kind(
    name="training",
    spec=TrainingSpec,
    # of decoders and of graphs: the model tells which
    execution=PlayedKind("cmsim.workload.generate.graph:training", measure),
    facts=TrainingFacts,
    metrics=_METRICS,
    frames=common.PLAYED,
    decisive=("tokens_per_s", "samples_per_s"),
    table=("step_time_s", "tokens_per_s", "samples_per_s", PER, "mfu", "energy_per_token_J", "energy_per_sample_J"),
    headline=common.headline(_METRICS, "step_time_s"),
    rates=("tokens_per_s", "samples_per_s"),
    figure=("step_time_s", "mfu"),
    host="bulk",
    mark="mfu",
)
