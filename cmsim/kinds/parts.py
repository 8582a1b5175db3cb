"""Parts of what scenarios say of workloads that kinds have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cmsim.reading import Spec
from cmsim.reading.quantities import (
    NUMBER,
    Coefficient,
    Factor,
    Places,
    Seconds,
    SecondsAtLeast,
    Seed,
    Share,
    Slots,
    WattsAtLeast,
)

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp6", "fp4"]
AutoInt = Literal["auto"] | Slots


class Asked:
    """Marks a key of few values that says what is asked or assumed, not how it is done: the best is no answer there."""


ASKED = Asked()


class PrecisionSpec(Spec):
    """Number formats."""

    weights: Precision = Field(default="bf16", description="weights of linear layers, and the GEMMs that use them")
    activations: Precision = Field(default="bf16", description="activations that enter GEMMs and MoE dispatch")
    kv_cache: Precision = Field(default="bf16", description="the key-value (or latent) cache")
    attention: Precision = Field(default="bf16", description="the attention core")
    gradients: Precision = Field(default="fp32", description="training: gradients as they are reduced")


class InferencePrecisionSpec(PrecisionSpec):
    """Number formats of prefill and decode."""

    experts: Precision | None = Field(
        default=None, description="weights of experts, shared ones with them; default: as `weights`"
    )
    expert_activations: Precision | None = Field(
        default=None,
        description="activations that enter experts' products and travel to them; default: as `activations`",
    )


class ExpertSlotsSpec(Spec):
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

    tp: Places = Field(default=1, description="tensor parallel")
    cp: Places = Field(default=1, description="context parallel")
    pp: Places = Field(default=1, description="pipeline parallel")
    dp: Literal["auto"] | Places = Field(default="auto", description="data parallel; auto: the ranks that remain")
    ep: Literal["max"] | Places = Field(
        default=1, description="expert parallel; max: the largest size that ranks and expert slots allow"
    )
    sequence_parallel: bool = Field(default=True, description="training: norms and residuals split over tp")
    attention: Literal["tp", "dp"] = Field(
        default="tp", description="inference: dp gives every rank whole sequences; tp splits heads"
    )
    expert_slots: ExpertSlotsSpec = Field(
        default=ExpertSlotsSpec(), description="places for experts beside the routed ones"
    )


class InferenceParallelSpec(ParallelSpec):
    """Parallel sizes of prefill and decode."""

    cp_comm_type: Literal["all_gather", "a2a"] = Field(
        default="all_gather",
        description="context parallel in prefill: keys and values (or latents) of whole prompts gathered; a2a: heads "
        "exchanged for tokens and back, latents gathered (SP-TP-SP). Decode takes all_gather: of queries, as each rank "
        "has a part of the cache",
    )
    dcp: Places = Field(
        default=1,
        description="decode context parallel: ranks of a tensor group that have parts of what else were copies of "
        "one cache; in decode queries of their heads are gathered and results summed. At most tp over heads of keys "
        "and values, latents being one",
    )
    expert_tp: Places = Field(
        default=1,
        description="ranks that share each expert's matrices. Where the ranks of attention by tp are those of the "
        "experts (tp = ep x expert_tp), all of them have every token: each works with its own experts, or its part of "
        "them, and results are added up; no tokens are exchanged",
    )

    @property
    def ranks_of_holder(self) -> int:
        """Ranks that hold the same sequences: heads, parts of the cache or layers of them. [1]"""
        return (self.tp if self.attention == "tp" else 1) * self.cp * self.pp


class Balance(Spec):
    """How unevenly tokens reach experts. The busiest rank sets the pace."""

    model: Annotated[Literal["balanced", "multinomial", "zipf", "dirichlet", "file", "measured"], ASKED] = Field(
        default="multinomial",
        description="balanced: ideal; multinomial: random uniform routing; zipf, dirichlet: skewed popularity; file: "
        "popularity as counted; measured: as given",
    )
    imbalance: Annotated[float, Field(ge=1, le=1e6)] = Field(
        default=1.0, description="measured: busiest rank's load over the mean"
    )
    zipf_exponent: Coefficient = Field(default=0.0, description="zipf: p_i ~ i^-exponent")
    dirichlet_alpha: Factor = Field(
        default=1.0, description="dirichlet: concentration; the larger, the more equal the experts"
    )
    draw: Seed = Field(
        default=0, description="dirichlet: which draw of the popularity; a drift: of who changes places; as a seed"
    )
    file: str | None = Field(
        default=None, description="file: CSV with a column `load`, one row for each routed expert, in their order"
    )

    drift_steps: Factor | None = Field(
        default=None,
        description="zipf, dirichlet, file: steps after which all but 1/e of the experts have changed places in "
        "popularity with each other, while copies stay where they were placed; default: popularity stays",
    )
    rebalance_steps: Factor | None = Field(
        default=None,
        description="goes with drift_steps: copies of experts are placed anew once in so many steps, by what was "
        "counted over as many before; default: placed once, long ago. Moving weights is left out",
    )

    @model_validator(mode="after")
    def _has_file(self) -> Balance:
        if (self.model == "file") != (self.file is not None):
            raise ValueError("file: the loads of experts; goes with `model: file`, and with nothing else")
        if self.drift_steps is not None and self.model not in ("zipf", "dirichlet", "file"):
            raise ValueError("drift_steps: goes with `model: zipf`, `dirichlet` or `file`, where experts are not alike")
        if self.rebalance_steps is not None and self.drift_steps is None:
            raise ValueError("rebalance_steps: goes with `drift_steps`; what does not drift is placed once")
        return self


class CapSpec(Spec):
    """Watts that must not be passed, all of them at once."""

    accelerator: WattsAtLeast | None = Field(default=None, description="of each package")
    rack: WattsAtLeast | None = Field(default=None, description="of a cabinet at its wall, shared by its packages")
    supernode: WattsAtLeast | None = Field(
        default=None, description="of a scale-up domain at the wall, with its share of what joins domains"
    )
    hall: WattsAtLeast | None = Field(
        default=None,
        description="of all accelerators of the system's entry, PUE included; of a service of those it has",
    )


def _of_accelerator(value: Any) -> Any:
    """A number is of each package."""
    return {"accelerator": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class OverTimeSpec(Spec):
    """Power over time of machines that do the same, a run over and over."""

    resolution_s: SecondsAtLeast = Field(default=1.0, description="step of time, over which power is the mean")
    machines: Annotated[int, NUMBER, Field(gt=0, le=100_000)] = Field(default=1, description="how many")
    spread_s: Seconds = Field(
        default=0.0, description="over which their starts are spread evenly, drawn by `seed`; until then they wait"
    )
    seconds: SecondsAtLeast | None = Field(
        default=None, description="how long; default: 20 runs, or one service, behind the last start"
    )


class HeldSpec(Spec):
    """What work is held to: clocks fall until caps hold, and compute takes longer."""

    cap_W: Annotated[CapSpec, BeforeValidator(_of_accelerator)] = Field(
        default=CapSpec(), description="a number: of each package; or of rack, supernode or hall"
    )
    clock: Share = Field(default=1.0, description="the most that clocks may be, of the full one")

    @property
    def caps_W(self) -> dict[str, float]:
        """Those that are given, by what they are of. [W]"""
        return self.cap_W.model_dump(exclude_none=True)


class PowerSpec(HeldSpec):
    """What a workload is held to, and how its power is told."""

    over_time: OverTimeSpec | None = Field(default=None, description="ask for power over time; default: none")


class WorkloadSpec(Spec):
    """Base of what a scenario may say of a workload; a kind narrows ``kind`` to its name."""

    kind: str
    ranks: Places | None = Field(default=None, description="ranks to use; default: all of the system's, or the trace's")


class ModelWorkloadSpec(WorkloadSpec):
    model: str = Field(description="name of a file in workloads/models, or a path to a Hugging Face config.json")
    parallel: ParallelSpec = Field(default=ParallelSpec(), description="how work is split over ranks")
    precision: PrecisionSpec = Field(default=PrecisionSpec(), description="number formats")
    balance: Balance = Field(default=Balance(), description="expert load")
    power: PowerSpec | None = Field(default=None, description="caps and clock that it runs under; default: none")
