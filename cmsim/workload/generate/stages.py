"""What a pipeline stage holds: its layers and their parameters."""

from __future__ import annotations

from cmsim.errors import InfeasibleError, Problem
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec
from cmsim.workload.schedules import OneForwardOneBackward


def pipeline(spec: TrainingSpec, layout: Layout, mixture: Experts | None, micro_batches: int) -> OneForwardOneBackward:
    """The order of passes; with experts on several ranks, forward and backward may hide each other's exchange."""
    side_by_side = spec.overlap_experts and mixture is not None and mixture.ranks > 1
    return OneForwardOneBackward(layout.pp, micro_batches, side_by_side=side_by_side)


def layers_of(model: ModelSpec, layout: Layout) -> list[range]:
    """Layers of each stage, in order; where they do not divide, the first and last stages (which also hold the
    token table and the head) are the smaller ones."""
    if model.layers < layout.pp:
        raise InfeasibleError(Problem(f"{layout.pp} stages for {model.layers} layers", key="parallel.pp"))
    base, extra = divmod(model.layers, layout.pp)
    order = sorted(range(layout.pp), key=lambda s: (s in (0, layout.pp - 1), s))
    more = set(order[:extra])
    out, at = [], 0
    for stage in range(layout.pp):
        count = base + (stage in more)
        out.append(range(at, at + count))
        at += count
    return out


def layer_parameters(model: ModelSpec, layout: Layout, layer: int, mixture: Experts | None) -> tuple[float, float]:
    """Parameters of one rank in one layer: those all data-parallel ranks hold alike, and its routed experts'."""
    shared, ffn = model.mixer_parameters_on(layer, layout.tp), model.kind(layer).ffn
    if mixture is None or ffn != "experts":
        return shared + (model.dense_ffn_parameters_on(layout.tp) if ffn else 0.0), 0.0
    shared += model.router_parameters + model.shared_parameters
    return shared, mixture.experts_per_rank * model.expert_parameters


def stage_parameters(model: ModelSpec, layout: Layout, held: range, mixture: Experts | None, stage: int) -> float:
    """Parameters of one rank of a stage."""
    total = sum(sum(layer_parameters(model, layout, layer, mixture)) for layer in held)
    if stage == 0:
        total += model.table_parameters_on(layout.tp)
    if stage == layout.pp - 1:
        total += model.head_parameters_on(layout.tp)
    return total
