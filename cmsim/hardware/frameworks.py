"""What a file says of a training framework: what it does around the kernels and messages of a step."""

from __future__ import annotations

from pydantic import Field

from cmsim.hardware.specs import ProductFormat
from cmsim.reading import Spec
from cmsim.reading.quantities import Coefficient, Microseconds, ShareOrNone


class ExpertCosts(Spec):
    """What a framework does around the products of a layer of experts, in a pass over one micro-batch.

    A training step pays it twice: the backward pass does as much again, and moves half as many bytes more.
    """

    moved: Coefficient = Field(
        default=0.0,
        description="tokens x top-k x hidden 16-bit elements are read or written so many times by what permutes them "
        "and weighs their sums, forward, beside the one gather and the one sum that are priced",
    )
    unfused_activation: Coefficient = Field(
        default=0.0,
        description="the same of tokens x top-k x expert width, by an activation with bounds that no kernel fuses",
    )
    layer_us: Microseconds = Field(
        default=0.0, description="device waits for the host, which reads how many tokens each expert has"
    )
    expert_us: Microseconds = Field(
        default=0.0,
        description="time of casting one expert's operands alone, where they are narrower than 16 bits",
    )


class TrainingTuning(Spec):
    """What a training framework makes of a step."""

    kernel_us: Microseconds = Field(
        default=0.0,
        description="host time of one kernel of a pass where Python launches each: dispatch, autograd, the several "
        "that a framework has for it; from when what it receives is there, a pass takes no less than all of its own",
    )
    experts: ExpertCosts = ExpertCosts()
    fused_experts: dict[ProductFormat, ExpertCosts] = Field(
        default={},
        description="the same, by format of products, where one kernel has an expert's products, activation and casts, "
        "and is told on the device how many tokens come",
    )
    fused_accumulation: bool = Field(
        default=True,
        description="products add gradients of weights to those of earlier micro-batches; else kernels of their own do",
    )
    early_gradients: ShareOrNone = Field(
        default=1.0,
        description="share of the layers whose gradients are reduced while the last backward pass still runs",
    )
    scores_moved: Coefficient = Field(
        default=0.0,
        description="attention keeps its scores in memory: its kernels read or write them so many times forward, of 16 "
        "bits each (heads x queries x keys), and twice that backward. 0: one fused kernel, none of it",
    )
    prefetch: bool = Field(
        default=True,
        description="weights sharded over data-parallel ranks are gathered ahead of the layer that uses them",
    )

    def experts_in(self, product: str) -> ExpertCosts:
        """What is done around experts whose products are in a format."""
        return next((costs for name, costs in self.fused_experts.items() if name == product), self.experts)
