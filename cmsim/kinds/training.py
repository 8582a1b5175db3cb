"""One optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cmsim.kinds import common
from cmsim.kinds.kind import PER, Facts, Kind, Measured, Metric, Metrics, PlayedKind
from cmsim.kinds.parts import ModelWorkloadSpec, ParallelSpec, PrecisionSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import Factor, Places, Slots, Tokens, TokensOrNone
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


#: by recipe the format of elements, and that of weights as they are gathered where nothing is said (below 8 bits in 16:
#: NVIDIA/TransformerEngine keeps no primary weights in NVFP4; pytorch/ao casts to INT8 what it has gathered)
OF_RECIPES = {
    "current": ("fp8", "fp8"),
    "delayed": ("fp8", "fp8"),
    "block": ("fp8", "fp8"),
    "mxfp8": ("fp8", "fp8"),
    "nvfp4": ("fp4", "bf16"),
    "int8": ("int8", "bf16"),
    "mxint8": ("int8", "bf16"),
    "mxfp6": ("fp6", "bf16"),
    "mxfp4": ("fp4", "bf16"),
}


class TrainingPrecisionSpec(PrecisionSpec):
    """Number formats of a training step."""

    recipe: Literal["current", "delayed", "block", "mxfp8", "nvfp4", "int8", "mxint8", "mxfp6", "mxfp4"] | None = Field(
        default=None,
        description="how linear layers multiply in narrow formats, forward and both gradients. current, delayed: FP8, "
        "one scale a tensor, of this step or of earlier ones; block: FP8, scales of 1 x 128 and 128 x 128; mxfp8: "
        "scales of 32; nvfp4: FP4, scales of 16, Hadamard transform before gradients of weights; int8: a scale for "
        "each row; mxint8, mxfp6, mxfp4: scales of 32, mxfp4 with Hadamard transforms too. Casts are counted, of "
        "weights once per step. `weights` (as they are gathered) and `activations` are the recipe's where not given, "
        "weights of all but FP8's bf16. Tokens go to experts in 16 bits, with block in FP8. Default: products in "
        "`weights` and `activations`, gradients not cast",
    )

    layers_at_start_in_bf16: Slots = Field(
        default=0, description="first layers of the model whose products stay in 16 bits beside a recipe"
    )
    layers_at_end_in_bf16: Slots = Field(
        default=0,
        description="last ones; NVFP4 was published with first 2 and last 8 of 62 layers kept so (arXiv:2509.25149)",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_recipe(cls, data: Any) -> Any:
        """Formats that follow from a recipe, where they are not given."""
        if not isinstance(data, dict) or data.get("recipe") not in OF_RECIPES:
            return data
        own, gathered = OF_RECIPES[data["recipe"]]
        return {"weights": gathered, "activations": own, **data}

    @model_validator(mode="after")
    def _as_recipe(self) -> TrainingPrecisionSpec:
        for key in ("layers_at_start_in_bf16", "layers_at_end_in_bf16"):
            if getattr(self, key) and self.recipe is None:
                raise ValueError(f"{key}: goes with `recipe`, which is not given")
        if self.recipe is not None:
            own, _ = OF_RECIPES[self.recipe]
            for key, allowed in (("weights", (own, "bf16", "fp16")), ("activations", (own,))):
                got = getattr(self, key)
                if got not in allowed:
                    raise ValueError(f"{key}: got {got}; recipe {self.recipe} allows {', '.join(allowed)}")
        return self


def _named(value: Any) -> Any:
    """``fsdp`` as tools switch it on and off."""
    return {True: "full", False: "none"}[value] if isinstance(value, bool) else value


def _overlapped(value: Any) -> Any:
    """``tp_overlap`` as tools switch it on and off."""
    return {True: "pipelined", False: "none"}[value] if isinstance(value, bool) else value


LoraTarget = Literal["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]


class LoraSpec(Spec):
    """Low-rank adapters beside frozen weights."""

    rank: Places = Field(description="inner size of an adapter")
    targets: list[LoraTarget] = Field(
        default=["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"],
        min_length=1,
        description="products that have one, of attention (queries, keys and values; result) and of FFNs and experts "
        "(first, second)",
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
    cp_comm_type: Literal["all_gather", "p2p", "a2a", "a2a+p2p"] = Field(
        default="all_gather",
        description="context parallel: keys and values of the whole sequence gathered; p2p: passed on in a ring beside "
        "attention; a2a: heads exchanged for tokens (Ulysses); a2a+p2p: heads among neighbours, rings across them",
    )
    cp_a2a: Places | None = Field(
        default=None,
        description="a2a+p2p: neighbouring context ranks that exchange heads (Megatron-LM: the first of "
        "hierarchical-context-parallel-sizes); default: the most that divide cp and a rank's heads of keys and values",
    )
    order: Annotated[list[Literal["tp", "cp", "dp", "pp"]], Field(min_length=4, max_length=4)] = Field(
        default=["tp", "cp", "dp", "pp"],
        description="which ranks are neighbours in the machine: dimensions from the nearest to the farthest. Experts' "
        "groups are runs of tp, cp and dp wherever those are (Megatron-LM: --use-tp-pp-dp-mapping is tp, cp, pp, dp)",
    )
    expert_tp: Places = Field(
        default=1,
        description="ranks that share each expert's matrices; tokens are gathered among them and sums scattered. "
        "Expert groups are ep x expert_tp neighbours inside tp x cp x dp. Megatron-LM takes tp where nothing is said",
    )

    @model_validator(mode="after")
    def _in_two_ways(self) -> TrainingParallelSpec:
        if self.cp_a2a is not None and self.cp_comm_type != "a2a+p2p":
            raise ValueError(f"cp_a2a: goes with `cp_comm_type: a2a+p2p`; got {self.cp_comm_type}")
        return self

    @field_validator("order")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError(f"order: got {', '.join(value)}. Allowed: each of tp, cp, dp, pp once.")
        return value


class TrainingSpec(ModelWorkloadSpec):
    """One optimizer step."""

    kind: Literal["training"]
    sequence_length: TokensOrNone = Field(
        default=0, description="tokens; required for models of text, of images and graph files there are none"
    )
    global_batch: Tokens = Field(description="sequences (or images) per step, over all data-parallel ranks")
    micro_batch: Tokens = Field(default=1, description="sequences per micro-batch and data-parallel rank")
    images_per_sample: Slots = Field(
        default=0,
        description="of a multimodal model, images (or tiles) of each sequence, which go through its vision tower, and "
        "whose tokens are among those of `sequence_length`; 0: text alone",
    )
    image_size: Slots = Field(
        default=0, description="pixels of an image's side; 0: the tower's own, where it has one size"
    )
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
        default=1,
        description="what is sharded over data-parallel ranks (dp x cp): 0 nothing, 1 optimizer states, 2 gradients "
        "too, 3 weights too, which is `fsdp: full`",
    )
    fsdp: Annotated[Literal["none", "full", "hybrid"], BeforeValidator(_named)] = Field(
        default="none",
        description="weights, gradients and states sharded (`zero_stage: 3`). full: over all data-parallel ranks; "
        "hybrid: inside groups of `fsdp_shards`, and alike on all groups, which add up gradients after the last "
        "micro-batch. Weights are gathered, layer by layer, for each pass of each micro-batch, gradients scattered "
        "after each. true is full. Default: as `zero_stage` says",
    )
    fsdp_shards: Places | None = Field(
        default=None,
        description="hybrid: data-parallel ranks that share weights; default: as many as a scale-up domain holds",
    )
    reshard_after_forward: bool = Field(
        default=True, description="fsdp: weights are let go after forward, and gathered again for backward"
    )
    tp_overlap: Annotated[Literal["none", "bulk", "pipelined"], BeforeValidator(_overlapped)] = Field(
        default="none",
        description="messages of tensor parallelism beside products, with `parallel.sequence_parallel`. none: each "
        "exposed, but for the second gathering of inputs in backward; bulk: gradients of inputs are scattered beside "
        "gradients of weights (Megatron-LM's own order); pipelined: and products are cut in as many parts as the stack "
        "has (`overlap.tp_chunks`), so that one part of each message is left (TransformerEngine's userbuffers, MC2). "
        "true is pipelined",
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
    precision: TrainingPrecisionSpec = Field(default=TrainingPrecisionSpec(), description="number formats")
    capacity_factor: Factor | None = Field(
        default=None,
        description="each expert takes this many times its mean share of every rank's tokens: what is over is dropped, "
        "what is missing filled up (Megatron-LM: moe-expert-capacity-factor with moe-pad-expert-input-to-capacity); "
        "default: no token is dropped",
    )
    lora: LoraSpec | None = Field(
        default=None,
        description="weights are frozen but for low-rank adapters: no gradients of frozen weights, states of adapters "
        "alone; MFU counts 2 forwards of frozen products (default: all weights are trained, as in fine-tuning, too)",
    )
    dims: dict[str, Tokens] = Field(
        default={}, description="sizes of dimensions that a graph file or config leaves open, by name"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_fsdp(cls, data: Any) -> Any:
        """`fsdp` and `zero_stage` say one thing: each follows from the other where it is not given."""
        if not isinstance(data, dict):
            return data
        if _named(data.get("fsdp")) in ("full", "hybrid"):
            return {"zero_stage": 3, **data}
        return {"fsdp": "full", **data} if data.get("zero_stage") == 3 else data

    @model_validator(mode="after")
    def _agrees(self) -> TrainingSpec:
        if (self.fsdp != "none") != (self.zero_stage == 3):
            allowed = "3, or fsdp none" if self.fsdp != "none" else "0, 1, 2, or fsdp full or hybrid"
            raise ValueError(f"zero_stage: got {self.zero_stage} with fsdp {self.fsdp}. Allowed: {allowed}")
        if self.fsdp_shards is not None and self.fsdp != "hybrid":
            raise ValueError(f"fsdp_shards: goes with `fsdp: hybrid`; got fsdp {self.fsdp}")
        if not self.reshard_after_forward and self.fsdp == "none":
            raise ValueError("reshard_after_forward: goes with `fsdp: full` or `hybrid`; got fsdp none")
        if self.tp_overlap != "none" and self.parallel.tp > 1 and not self.parallel.sequence_parallel:
            raise ValueError(f"tp_overlap: got {self.tp_overlap}; without parallel.sequence_parallel none is allowed")
        return self


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
    Metric("cost_per_training_run_USD", "USD", "less", "bill of `cost.training_tokens` at this rate"),
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
