"""What a training framework does beside the kernels that a step needs, as the stack's file has it."""

from __future__ import annotations

from collections.abc import Sequence

from cmsim.compute import Work
from cmsim.hardware import ExpertCosts
from cmsim.units import US
from cmsim.workload.generate import gradients, layers
from cmsim.workload.generate.chain import Kernel
from cmsim.workload.model import ModelSpec
from cmsim.workload.ops import ProgramBuilder
from cmsim.workload.whole import busiest


def launched(
    block: ProgramBuilder, kernels: int, kernel_us: float, *, received: Sequence[int], ends: list[int]
) -> list[int]:
    """The ends of a turn's passes where its host may be the slower: none ends before all ``kernels`` are launched, from
    when the rows ``received`` are there. -1 where a pass has no rows."""
    if not kernel_us or not kernels:
        return ends
    launches = block.host("launches", stream="host", recorded_s=kernels * kernel_us * US, after=received)
    # on the stream of the kernels, so that the next pass starts after it
    rows = [launches, *(end for end in ends if end >= 0)]
    done = block.host("launched", stream="compute", recorded_s=0.0, after=rows)
    return [done if end >= 0 else end for end in ends]


def around_experts(
    model: ModelSpec, arriving: float, active: float, form: layers.Formats, costs: ExpertCosts, *, tp: int = 1
) -> list[Kernel]:
    """What a training framework does around the products of a layer's experts, forward (`ExpertCosts`)."""
    out = []
    if costs.layer_us:
        out.append(Kernel("token counts", "", "", 0.0, 0.0, host_s=costs.layer_us * US))
    if costs.moved:
        moved = Work(0.0, costs.moved * arriving * model.hidden * form.stream_B)
        out.append(_moves("expert permute", moved))
    if costs.expert_us and form.quantised:
        out.append(Kernel("expert casts", "", "", 0.0, 0.0, host_s=costs.expert_us * active * US))
    if costs.unfused_activation and model.bounded:
        width = busiest(model.expert_ffn, tp)
        steps = Work(0.0, costs.unfused_activation * arriving * width * form.stream_B)
        out.append(_moves("expert activation, in steps", steps))
    return out


def unfused(core: Kernel, model: ModelSpec, pairs: float, tp: int, moved: float) -> Kernel:
    """The attention core where scores go through memory ``moved`` times; ``pairs`` of queries and keys, all of them."""
    if not moved:
        return core
    scores_B = 2.0 * moved * pairs * busiest(model.heads, tp)
    return core._replace(bytes_B=core.bytes_B + scores_B, shape=None)


def accumulated(kernels: list[Kernel], gradient_B: float, *, fused: bool) -> list[Kernel]:
    """A backward pass that adds gradients of weights to those there are, of ``gradient_B`` bytes each.

    Products that do it read and write them where they would write 16 bits; a kernel of its own reads those too.
    """
    out = []
    for kernel in kernels:
        out.append(kernel)
        if kernel.shape is None or not gradients.of_weights(kernel):
            continue
        sizes = dict(kernel.shape.numbers)
        weights = sizes["m"] * sizes["n"] * sizes["groups"]
        if fused:
            out[-1] = kernel._replace(bytes_B=kernel.bytes_B + weights * (2 * gradient_B - 2.0))
        else:
            added = Work(weights, weights * (2.0 + 2 * gradient_B))
            out.append(_moves(f"{kernel.name} added", added))
    return out


def _moves(name: str, work: Work) -> Kernel:
    return Kernel(name, "generic", "", float(work.flops), float(work.bytes_B))
