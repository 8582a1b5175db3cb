"""What a stack's file may say: the software between model and silicon, in ``topologies/stacks``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cmsim.hardware.frameworks import TrainingTuning
from cmsim.hardware.specs import ProductFormat, Sources
from cmsim.reading import Spec
from cmsim.reading.quantities import (
    Bytes,
    Coefficient,
    Factor,
    GBps,
    Microseconds,
    MicrosecondsAtLeast,
    Parts,
    Seconds,
    Share,
)


class KernelEfficiency(Spec):
    """What a class of kernels reaches of the roofline."""

    compute: Share = Field(description="share of the peak rate reached when compute binds")
    memory: Share = Field(description="share of the peak memory bandwidth reached when memory binds")
    overhead_us: Microseconds = Field(default=0.0, description="fixed device time of one kernel of the class")
    compute_by_precision: dict[ProductFormat, Share] = Field(
        default={},
        description="compute, by precision, where it differs from `compute`; fp8_block and mxfp8 are as fp8 where they "
        "are not given",
    )


class MeasuredKernels(Spec):
    """Which kernels of a run take the times of measured ones."""

    classes: dict[str, Share] = Field(
        default={}, description="kernel class: share of a kernel's speed alone that it keeps in whole models"
    )
    gemm_formats: dict[str, str] = Field(
        default={}, description="precision: format of the products in tables that the stack runs for it"
    )
    longest_us: MicrosecondsAtLeast | None = Field(
        default=None,
        description="kernels that take longer keep their share of peak: loops of long ones lower the clock",
    )


class SmallSums(Spec):
    """All-reduces by kernels of an engine's own, for small messages among ranks of one domain: they read and write each
    other's buffers. Larger ones are the library's."""

    upto_B: Bytes = Field(description="of one rank's buffer, the largest that goes so [B]")
    base_us: Microseconds | None = Field(default=None, description="fixed time of one call; default: as larger ones")
    scale_up_efficiency: Share | None = Field(
        default=None, description="payload share of the port; default: as larger ones"
    )
    with_norm: bool = Field(
        default=False,
        description="the norm behind the sum of a layer, and the cast of what it makes, are in the sum's kernel",
    )


class CollectiveTuning(Spec):
    """What a collective library adds to the wire."""

    base_us: Microseconds = Field(description="fixed time of one call: launch, synchronisation")
    step_us: Microseconds = Field(default=0.0, description="software time of one dependent step, beside the wire")
    scale_up_efficiency: Share = Field(description="payload share of the port inside a domain")
    scale_out_efficiency: Share = Field(description="payload share of the NIC between domains")
    in_network: bool = Field(default=True, description="whether the library reduces in switches that can")
    small: SmallSums | None = Field(
        default=None, description="all-reduces of small messages inside a domain; default: as larger ones"
    )


class ExpertTuning(Spec):
    """A fused expert-parallel kernel (dispatch or combine).

    base + doubling * log2(ranks) + bytes / bandwidth * (1 + crowd * log2(ranks))
    """

    base_us: Microseconds = Field(description="fixed time of one call")
    doubling_us: Microseconds = Field(default=0.0, description="added each time the group doubles")
    scale_up_efficiency: Share = Field(description="payload share of the port inside a domain")
    scale_out_efficiency: Share = Field(description="payload share of the NIC between domains")
    crowd: Coefficient = Field(
        default=0.0, description="share by which the bytes' time inside a domain grows each time the group doubles"
    )
    scale_bytes_per_token: Bytes = Field(
        default=0.0, description="quantisation scales sent with one token's message of 8-bit elements [B]"
    )


class HostTuning(Spec):
    """What the host costs. Eager: every op is launched; graph: one launch per graph, a gap between kernels."""

    launch: Literal["eager", "graph"] = Field(description="how kernels reach the device")
    op_us: Microseconds = Field(description="host time to issue one op of the framework")
    launches_per_op: Factor = Field(
        default=1.0,
        description="eager: framework ops that one op of a program stands for; graphs and compilers fuse them",
    )
    compile_s: Seconds = Field(
        default=0.0, description="capturing or compiling a step, once, before the first; no run counts it"
    )
    gap_us: Microseconds = Field(description="device time between two kernels of one graph or stream")
    graph_us: Microseconds = Field(description="host time to launch one captured graph, once per step")
    idle_decode: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="share of a decode step in which the device waits for the host"
    )
    idle_bulk: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the same of prefill and training, where shapes vary and less is captured"
    )


class ServingTuning(Spec):
    """What the host of a serving engine takes. It prepares a step while the last one runs: its time is a floor."""

    step_us: Microseconds = Field(default=0.0, description="host time to prepare a step of a service")
    sequence_us: Microseconds = Field(default=0.0, description="the same, for each sequence in it")
    arrival_us: Microseconds = Field(
        default=0.0, description="from a request's arrival until it waits to be batched: parsing, tokens, queues"
    )
    layer_us: Microseconds = Field(
        default=0.0,
        description="a step with prompts is no captured graph: host time to issue one layer of it, no less than which "
        "it takes",
    )
    expert_layer_us: Microseconds = Field(default=0.0, description="the same of a layer with experts")
    meeting_us: Microseconds = Field(
        default=0.0,
        description="of every sum over tensor-parallel ranks in a step, beside its messages: ranks wait for each other",
    )
    token_us: Microseconds = Field(
        default=0.0,
        description="of each token of a prompt, before it waits to be batched: read and split into tokens, one request "
        "after the other",
    )
    draft_us: Microseconds = Field(
        default=0.0,
        description="host time of each pass that drafts tokens, which is no captured graph: the device waits for it",
    )
    graphs: bool = Field(
        default=True, description="steps that only decode are captured graphs; no: they take what steps with prompts do"
    )
    prompts_alone: bool = Field(
        default=False, description="steps have prompts or sequences that decode, not both: prompts go first"
    )
    decode_times: Factor = Field(
        default=1.0, description="device time of a decode step in the engine, over that of its kernels and messages"
    )
    prefill_times: Factor = Field(default=1.0, description="the same of a step with prompts")
    expert_prefill_times: Factor | None = Field(
        default=None, description="the same of models with experts; default: as others"
    )
    pool_GBps: GBps | None = Field(
        default=None,
        description="of caches that one accelerator package gets of a pool of caches, or gives to it: what the client "
        "of the pool reaches, whatever the links carry. Default: what they carry",
    )
    pool_host_GBps: GBps | None = Field(default=None, description="the same over the network of the hosts")


class CastExperts(Spec):
    """What an engine does around experts' products whose activations are cast to 8 bits or less, where experts are
    spread over ranks whole: rows are put in the order of experts, each expert's filled up to whole tiles, cast,
    multiplied and weighed by kernels of their own."""

    padded_rows: Coefficient = Field(
        default=0.0, description="rows by which those of each expert of a rank are filled up"
    )
    moved: Coefficient = Field(
        default=0.0,
        description="rows x hidden 16-bit elements are read or written so many times beside the products' own traffic",
    )


class LateRanks(Spec):
    """How long ranks that decode wait for the slowest one where tokens travel to experts and back: no two have as much
    to do."""

    dispatch_us: Coefficient = Field(default=0.0, description="before a dispatch, for each token of a rank [us]")
    combine_us: Coefficient = Field(default=0.0, description="before a combine, for each token of a rank [us]")


class StepTuning(Spec):
    """What a serving engine adds to the kernels of one step of prefill or decode."""

    host_us: Microseconds = Field(
        default=0.0, description="host time of a step: batch chosen, inputs made, results taken over"
    )
    sequence_us: Microseconds = Field(default=0.0, description="the same, for each sequence of the busiest holder")
    overlapped: bool = Field(
        default=True,
        description="the host prepares a step while the device works on another, so that a step takes no less than "
        "the host; else the device waits for it",
    )
    sampling_MB: Coefficient = Field(
        default=0.0,
        description="what a sampler moves through memory to choose one token, beside two reads of its logits: sorts, "
        "sums and draws over the vocabulary [MB]",
    )
    sampling_FLOP_per_B: Coefficient = Field(
        default=0.0, description="what it compares, counts and adds for each byte that it moves so [FLOP/B]"
    )
    casts_fused: bool = Field(
        default=False,
        description="what products read in fewer bits is cast by the kernel that makes it: norm, activation, attention",
    )
    cast_experts: CastExperts = CastExperts()
    late: LateRanks = LateRanks()


class Sharing(Spec):
    """How two micro-batches share a rank when one computes while the other communicates."""

    mode: Literal["interleave", "split"] = Field(
        description="interleave: one compute stream takes turns; split: attention and experts own a share of the cores"
    )
    attention_cores: Share = Field(default=1.0, description="split: share of the cores of the attention stream")
    expert_cores: Share = Field(default=1.0, description="split: share of the cores of the expert stream")
    least_tokens: Coefficient = Field(
        default=0.0,
        description="tokens of a rank from which on a batch is cut in two: smaller ones would read their weights twice",
    )
    communication_cores: float = Field(
        default=0.0, ge=0, lt=1, description="interleave: share of the cores that overlapped communication takes"
    )
    attention_in_line: bool = Field(
        default=False,
        description="messages inside attention are on the stream of its kernels: the other micro-batch waits for them",
    )


class OverlapTuning(Spec):
    """Sharing by kind of work: decode sends small messages, prefill and training send bulk."""

    decode: Sharing
    bulk: Sharing
    tp_chunks: Parts = Field(
        default=4, description="training: parts of a product whose messages are overlapped (`tp_overlap: pipelined`)"
    )


class StackSpec(Spec):
    """The software between model and silicon: ``topologies/stacks/NAME.yaml``."""

    name: str
    extends: str | None = Field(default=None, description="another stack that this one is laid over")
    description: str
    aliases: tuple[str, ...] = ()
    host: HostTuning
    serving: ServingTuning = Field(default=ServingTuning(), description="what the host of a serving engine takes")
    steps: StepTuning = Field(default=StepTuning(), description="what an engine adds to one step of prefill or decode")
    kernels: dict[str, KernelEfficiency] = Field(description="by kernel class (cmsim.compute.KERNELS)")
    measured: MeasuredKernels = Field(
        default=MeasuredKernels(),
        description="kernels priced by their measured like (topologies/kernels) where their sizes are known and rows "
        "are of the accelerator or of a part with the same cores",
    )
    collectives: CollectiveTuning
    dispatch: ExpertTuning = Field(description="MoE dispatch")
    combine: ExpertTuning = Field(description="MoE combine")
    overlap: OverlapTuning
    training: TrainingTuning = Field(default=TrainingTuning(), description="of training steps")
    sustained: bool = Field(
        default=False,
        description="kernels go on for longer than the board averages its power: none is faster than its energy over "
        "the watts that the limit leaves (`pJ_per_FLOP` of accelerators)",
    )
    accelerators: dict[str, dict[str, object]] = Field(
        default={}, description="by accelerator name: any of the keys above, laid over them for that accelerator"
    )
    sources: Sources
