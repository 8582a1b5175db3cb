"""What a scenario file may say. The string beside a field is its documentation (``cmsim schema`` prints it)."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from cmsim.reading import Spec

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4"]
#: what is kept of a run, from least to most
Record = Literal["none", "summary", "full"]
AutoInt = Literal["auto"] | NonNegativeInt


class PrecisionSpec(Spec):
    """Number formats."""

    weights: Precision = Field(default="bf16", description="weights of linear layers, and the GEMMs that use them")
    activations: Precision = Field(default="bf16", description="activations that enter GEMMs and MoE dispatch")
    kv_cache: Precision = Field(default="bf16", description="the key-value (or latent) cache")
    attention: Precision = Field(default="bf16", description="the attention core")
    gradients: Precision = Field(default="fp32", description="training: gradients as they are reduced")


class ExpertSlots(Spec):
    """Places for experts beside the routed ones."""

    shared: AutoInt = Field(
        default="auto",
        description="slots that hold copies of the shared expert; 0: every rank computes it itself; "
        "auto: 0, or its share of the traffic where ranks outnumber routed experts",
    )
    redundant: AutoInt = Field(
        default="auto", description="slots for copies of busy experts; auto: what fills the last rank"
    )


class ParallelSpec(Spec):
    """Parallel sizes; all count ranks. World size is tp x cp x pp x dp; EP groups lie inside tp x cp x dp."""

    tp: PositiveInt = Field(default=1, description="tensor parallel")
    cp: PositiveInt = Field(default=1, description="context parallel")
    pp: PositiveInt = Field(default=1, description="pipeline parallel (1F1B)")
    dp: Literal["auto"] | PositiveInt = Field(default="auto", description="data parallel; auto: the ranks that remain")
    ep: Literal["max"] | PositiveInt = Field(
        default=1, description="expert parallel; max: the largest size that ranks and expert slots allow"
    )
    sequence_parallel: bool = Field(default=True, description="training: norms and residuals split over tp")
    attention: Literal["tp", "dp"] = Field(
        default="tp", description="inference: dp gives every rank whole sequences; tp splits heads"
    )
    expert_slots: ExpertSlots = Field(default=ExpertSlots(), description="places for experts beside the routed ones")


class Balance(Spec):
    """How unevenly tokens reach experts. The busiest rank sets the pace."""

    model: Literal["balanced", "multinomial", "zipf", "dirichlet", "file", "measured"] = Field(
        default="multinomial",
        description="balanced: ideal; multinomial: random uniform routing; zipf, dirichlet: skewed popularity; file: "
        "popularity as counted; measured: as given",
    )
    imbalance: Annotated[float, Field(ge=1)] = Field(
        default=1.0, description="measured: busiest rank's load over the mean"
    )
    zipf_exponent: NonNegativeFloat = Field(default=0.0, description="zipf: p_i ~ i^-exponent")
    dirichlet_alpha: PositiveFloat = Field(
        default=1.0, description="dirichlet: concentration; the larger, the more equal the experts"
    )
    draw: NonNegativeInt = Field(default=0, description="dirichlet: which draw of the popularity, as a seed")
    file: str | None = Field(
        default=None, description="file: CSV with a column `load`, one row for each routed expert, in their order"
    )

    @model_validator(mode="after")
    def _has_file(self) -> Balance:
        if (self.model == "file") != (self.file is not None):
            raise ValueError("file: the loads of experts; goes with `model: file`, and with nothing else")
        return self


class Speculative(Spec):
    """Speculative or multi-token-prediction decoding."""

    draft_tokens: PositiveInt = Field(default=1, description="tokens proposed per step")
    acceptance: Annotated[float, Field(ge=0, le=1)] = Field(description="probability that one is accepted")


class _Workload(Spec):
    ranks: PositiveInt | None = Field(
        default=None, description="ranks to use; default: all of the system's, or the trace's"
    )


class _ModelWorkload(_Workload):
    model: str = Field(description="name of a file in workloads/models, or a path to a Hugging Face config.json")
    parallel: ParallelSpec = Field(default=ParallelSpec(), description="how work is split over ranks")
    precision: PrecisionSpec = Field(default=PrecisionSpec(), description="number formats")
    balance: Balance = Field(default=Balance(), description="expert load")


class ExchangeSpec(Spec):
    """Tokens of a mixture of experts on their way to the experts, or back."""

    model: str = Field(description="name of a file in workloads/models, or a path to a Hugging Face config.json")
    tokens: PositiveInt = Field(description="tokens that every rank of the group sends")
    precision: Precision = Field(default="bf16", description="elements of a dispatched token; combined ones are bf16")
    balance: Balance = Field(default=Balance(), description="expert load; `draw` also seeds the routing of tokens")
    expert_slots: ExpertSlots = Field(default=ExpertSlots(), description="places for experts beside the routed ones")
    once: Literal["expert", "rank", "node"] = Field(
        default="expert",
        description="a token goes out once for every expert, every rank, or every node (and fans out there)",
    )


class CollectiveSpec(_Workload):
    """One collective, timed."""

    kind: Literal["collective"]
    collective: Literal[
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
    ]
    message_bytes: NonNegativeFloat | None = Field(
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
    group: Literal["all"] | PositiveInt = Field(
        default="all", description="all ranks in one group, or groups of this many consecutive ranks, all at once"
    )
    stride: PositiveInt = Field(default=1, description="distance between neighbours of a group")
    algorithm: str = Field(
        default="best",
        description="best: the cheapest; the system's own library (nccl, hccl, rccl): what that would choose, in the "
        "time measured of it; or the name of one algorithm",
    )
    repeat: PositiveInt = Field(default=1, description="calls, one after the other")

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
        if self.message_bytes == 0 and self.collective != "barrier":
            raise ValueError(f"message_bytes: a {self.collective} moves more than 0 bytes")
        return self


class TraceSpec(_Workload):
    """A recorded trace, replayed."""

    kind: Literal["trace"]
    path: str = Field(description="a folder or file; built-in ones in workloads/traces by path below that folder")
    format: str | None = Field(
        default=None, description="of the file, where it should not be guessed: a name in `cmsim list formats`"
    )
    compute: Literal["recorded", "scaled", "modelled"] = Field(
        default="recorded",
        description="recorded: times as they are; scaled: by the roofline ratio of the accelerators for each kind of "
        "kernel; modelled: priced by FLOPs, bytes and sizes where the trace has them, the others scaled",
    )
    recorded_on: str | None = Field(
        default=None, description="scaled, modelled: the accelerator the trace was taken on"
    )
    collectives: Literal["modelled", "recorded"] = Field(
        default="modelled",
        description="modelled: on the fabric of the system; recorded: as long as they took, with the wait for others",
    )
    samples_per_rank: PositiveFloat | None = Field(
        default=None,
        description="samples (images, sequences) that the recording has one rank work on, where known: throughput is "
        "then told in samples, else in recorded steps of a rank",
    )
    placement: str = Field(
        default="contiguous",
        description="of groups known by their size alone: contiguous or strided; or a JSON file, a list with the place "
        "of each rank of the trace, every rank of the job once",
    )
    host: Literal["replayed", "left_out"] = Field(
        default="replayed", description="work of the host between kernels and launches"
    )


class TrainingSpec(_ModelWorkload):
    """One optimizer step."""

    kind: Literal["training"]
    sequence_length: NonNegativeInt = Field(
        default=0, description="tokens; required for models of text, of images and graph files there are none"
    )
    global_batch: PositiveInt = Field(description="sequences (or images) per step, over all data-parallel ranks")
    micro_batch: PositiveInt = Field(default=1, description="sequences per micro-batch and data-parallel rank")
    recompute: Literal["none", "selective", "full"] = Field(
        default="selective", description="activations computed twice"
    )
    zero_stage: Annotated[int, Field(ge=0, le=3)] = Field(
        default=1, description="what is sharded over data-parallel ranks"
    )
    overlap_data_parallel: bool = Field(default=True, description="gradients are reduced while backward still runs")
    overlap_experts: bool = Field(
        default=False,
        description="forward and backward interleaved, so that each hides the other's dispatch and combine; "
        "holds about twice the micro-batches",
    )
    dims: dict[str, PositiveInt] = Field(
        default={}, description="sizes of dimensions that a graph file or config leaves open, by name"
    )


class EncoderSpec(_Workload):
    """One forward pass of a batch through a model that reads its input whole: images, texts, or a graph file."""

    kind: Literal["encoder"]
    model: str = Field(
        description="name of a file in workloads/models or workloads/graphs, or a path: ONNX, MindIR, or the "
        "config.json of an encoder"
    )
    batch_per_accelerator: PositiveFloat = Field(description="samples per accelerator package")
    sequence_length: NonNegativeInt = Field(default=0, description="tokens of a text; required for models of text")
    dims: dict[str, PositiveInt] = Field(
        default={}, description="sizes of dimensions that a graph file or config leaves open, by name"
    )
    parallel: ParallelSpec = Field(default=ParallelSpec(), description="data parallel only: every rank holds the model")
    precision: PrecisionSpec = Field(default=PrecisionSpec(), description="number formats")


class PrefillSpec(_ModelWorkload):
    """Prompts in, first tokens out: one batch."""

    kind: Literal["prefill"]
    batch_per_accelerator: PositiveFloat = Field(description="prompts per accelerator package")
    prompt_tokens: PositiveInt = Field(description="tokens of one prompt")
    microbatches: Annotated[int, Field(ge=1, le=2)] = Field(
        default=1, description="2: one computes while one communicates"
    )


class DecodeSpec(_ModelWorkload):
    """One decoding step of a full batch."""

    kind: Literal["decode"]
    batch_per_accelerator: PositiveFloat = Field(description="sequences per accelerator package")
    context_tokens: PositiveInt = Field(description="tokens already in the cache, per sequence")
    microbatches: Annotated[int, Field(ge=1, le=2)] = Field(
        default=1, description="2: one computes while one communicates"
    )
    speculative: Speculative | None = Field(default=None, description="draft tokens verified beside the last one")


WorkloadSpec = CollectiveSpec | TraceSpec | TrainingSpec | PrefillSpec | DecodeSpec | EncoderSpec
WORKLOAD_KINDS: dict[str, type[WorkloadSpec]] = {
    "collective": CollectiveSpec,
    "trace": TraceSpec,
    "training": TrainingSpec,
    "prefill": PrefillSpec,
    "decode": DecodeSpec,
    "encoder": EncoderSpec,
}


class FaultSpec(Spec):
    """A part of the fabric that is down or slow."""

    part: str = Field(
        description="rank/R/plane/P, accelerator/A/plane/P, module/NODE/PLANE/CHIP, l1/NODE/PLANE, "
        "l2/DOMAIN/PLANE/CHIP, switch/DOMAIN/CHIP, link/A/B, rank/R/port, rank/R/nic, nic/A, leaf/L, spine/S; "
        "numbers count from 0"
    )
    left: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="share of its rate that is left; 0: down"
    )
    from_s: NonNegativeFloat = Field(default=0.0, description="when it begins, from the start of the run")
    until_s: PositiveFloat | None = Field(default=None, description="when it ends; default: it lasts")

    @model_validator(mode="after")
    def _in_order(self) -> FaultSpec:
        if self.until_s is not None and self.until_s <= self.from_s:
            raise ValueError(f"until_s: must be after from_s ({self.from_s:g}), got {self.until_s:g}")
        return self


class SystemEntry(Spec):
    """A system and what to change on it."""

    system: str = Field(description="a name in topologies/, an alias, or a path")
    name: str | None = Field(
        default=None,
        description="what results call it; default: its own name. One of two entries of a system has it",
    )
    accelerators: PositiveInt | None = Field(
        default=None, description="packages in use, over all domains; default: all"
    )
    domains: PositiveInt | None = Field(default=None, description="domains joined by the scale-out network")
    rank: Literal["die", "package"] | None = Field(default=None, description="what a communicator counts")
    stack: str | None = Field(default=None, description="a name in topologies/stacks; default: the system's")
    faults: tuple[str | FaultSpec, ...] = Field(default=(), description="of this system, beside the scenario's own")
    set: dict[str, Any] = Field(
        default={}, description="dotted keys of the system file (accelerator.* and stack.* reach those files)"
    )

    @property
    def label(self) -> str:
        """What results call it."""
        return self.name or PurePath(self.system).stem


class PerturbSpec(Spec):
    """What makes one rank differ."""

    compute: PositiveFloat = Field(default=1.0, description="factor on its compute times")
    port: PositiveFloat = Field(default=1.0, description="factor on its fabric port's capacity")
    nic: PositiveFloat = Field(default=1.0, description="factor on its NIC's capacity")


class JitterSpec(Spec):
    """Times that scatter: factors of mean 1, drawn by `seed`; every rank is then simulated by itself."""

    distribution: Literal["lognormal", "normal", "gamma", "exponential"] = Field(
        default="lognormal", description="of the factors; exponential: 1 - cv, and an exponential of mean cv on top"
    )
    cv: Annotated[float, Field(gt=0, le=1)] = Field(default=0.05, description="standard deviation over mean")
    per: Literal["op", "rank"] = Field(default="op", description="drawn for every op, or once for a rank")
    of: Literal["compute", "host", "all"] = Field(default="compute", description="which ops scatter")


class ReportSpec(Spec):
    """What the printed table relates throughput to."""

    per: tuple[Literal["accelerator", "rack", "megawatt", "million_dollars"], ...] = Field(
        default=("accelerator", "rack", "megawatt"),
        description="throughput is printed per each of these; million_dollars needs the price of every system",
    )


class ScenarioSpec(Spec):
    """A question: workloads, systems, and what to vary."""

    name: str = Field(default="", description="title of the result")
    schema_version: Literal[1] = Field(default=1, description="version of this form")
    extends: str | None = Field(default=None, description="another scenario this one is laid over")
    systems: tuple[str | SystemEntry, ...] = Field(min_length=1, description="names, or entries with changes")
    workloads: dict[str, dict[str, Any]] = Field(
        min_length=1, description="by name; `workload:` is the short form for one"
    )
    network: Literal["ideal", "fluid", "flow"] = Field(
        default="fluid",
        description="ideal: nothing is shared; fluid: one demand per collective, ports and uplinks shared; "
        "flow: every message on the links it crosses (also what `faults` are run with)",
    )
    routing: Literal["sprayed", "hashed", "pinned"] = Field(
        default="sprayed",
        description="flow: messages spread over all paths, or on one path each, drawn by `seed` as ECMP does; "
        "pinned ones do not move away from a dead path",
    )
    faults: tuple[str | FaultSpec, ...] = Field(
        default=(), description="parts of the fabric that are down or slow: names, or entries with times"
    )
    exclusive: bool = Field(
        default=False,
        description="the job has the machine to itself: accelerators that it leaves idle count in power, energy, cost "
        "and per accelerator; else only the packages that hold its ranks do",
    )
    fold: bool = Field(default=True, description="simulate equal ranks once")
    perturb: str | dict[NonNegativeInt, PerturbSpec] = Field(
        default={}, description="by rank; or a CSV file with columns rank and any of compute, port, nic"
    )
    jitter: JitterSpec | None = Field(default=None, description="scatter of times")
    sweep: dict[str, Any] = Field(
        default={}, description="dotted key: list, or {from, to, steps, scale: linear|log}; all combinations are run"
    )
    report: ReportSpec = Field(default=ReportSpec(), description="what is printed")
    record: Record = Field(
        default="full",
        description="what is kept of a run. full: all; summary: all but the frames ops, links and power; none: what "
        "`best` chooses by, which leaves out power, breakdown and notes",
    )
    seed: NonNegativeInt = Field(default=0, description="of everything drawn at random")

    @field_validator("workloads")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if "/" in name or not name:
                raise ValueError(f"a workload's name is part of the run key and cannot be '{name}'")
        return value
