"""A training step's plan: sizes resolved, what each rank holds, and the order of its passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import System
from cmsim.kinds.training import TrainingParallelSpec, TrainingSpec
from cmsim.workload.generate import context, layers, seeing, stages
from cmsim.workload.generate.experts import Experts, plan_experts
from cmsim.workload.generate.footprint import footprint_B
from cmsim.workload.generate.parallel import Layout, resolve
from cmsim.workload.generate.sharding import sharded
from cmsim.workload.model import ModelSpec, load_model
from cmsim.workload.schedules import PipelineSchedule
from cmsim.workload.whole import busiest


@dataclass(frozen=True)
class Planned:
    """layout: with the ways of its schedule    mixture: None without experts    parts: of each stage"""

    model: ModelSpec
    layout: Layout
    mixture: Experts | None
    micro_batches: int
    schedule: PipelineSchedule
    parts: list[list[stages.ModelPart]]


def plan_of(spec: TrainingSpec, system: System, base: Path | None = None, *, model: ModelSpec | None = None) -> Planned:
    """Raises InfeasibleError where no plan is of these sizes, InputError for files that cannot be read.

    model: instead of the one that ``spec`` names
    """
    model = model or load_model(spec.model, base=base)
    layout, mixture = _layout(spec, model, system, base)
    layout = sharded(spec, layout, system)
    layout = context.shared(spec, model, layout)
    _check_sequence(spec, layout)
    _check_wide(spec, model)
    seeing.check(spec, model)
    micro_batches = _micro_batches(spec, layout)
    schedule = stages.pipeline(spec, layout, mixture, micro_batches)
    layout = replace(layout, wraps=schedule.wraps, turns_back=schedule.turns_back, mirrored=schedule.copies > 1)
    return Planned(model, layout, mixture, micro_batches, schedule, stages.parts_of(spec, model, schedule))


def memory_B(spec: TrainingSpec, system: System, base: Path | None = None) -> dict[str, list[float]]:
    """What a rank of each stage holds, by line, without laying anything out. [B]"""
    return memory_of(spec, system, plan_of(spec, system, base))


def memory_of(spec: TrainingSpec, system: System, plan: Planned) -> dict[str, list[float]]:
    """The same of a plan that is resolved. What launches whole graphs has its loss in one kernel. [B]"""
    fused = system.stack.host.launch == "graph"
    return footprint_B(spec, plan.model, plan.layout, plan.mixture, plan.parts, plan.schedule, fused=fused)


def _layout(spec: TrainingSpec, model: ModelSpec, system: System, base: Path | None) -> tuple[Layout, Experts | None]:
    expert_tp = spec.parallel.expert_tp
    if not model.experts:
        return _dense_layout(spec, model, system), None
    alone = spec.parallel.model_copy(update={"ep": 1})
    plain = resolve(alone, system, ranks=spec.ranks, experts=model.experts, heads=model.heads, expert_tp=expert_tp)
    tokens = busiest(spec.micro_batch * busiest(spec.sequence_length, plain.cp), plain.tp)
    mixture = plan_experts(
        model,
        _without_copies(spec.parallel),
        spec.balance,
        ranks=plain.stage_ranks,
        tokens_per_rank=tokens,
        system=system,
        message_B=layers.formats(spec.precision).dispatched_B,
        once_per_domain=True,
        base=base,
        expert_tp=expert_tp,
        capacity_factor=spec.capacity_factor,
        stands=plain.places[: plain.stage_ranks],
    )
    mixture = replace(mixture, costs=system.stack.training)
    sizes = {"experts": model.experts, "ep": mixture.ranks, "expert_tp": expert_tp}
    return resolve(spec.parallel, system, ranks=spec.ranks, **sizes), mixture


def _without_copies(parallel: TrainingParallelSpec) -> TrainingParallelSpec:
    """The plan without copies of experts but those that are asked for: frameworks train every expert in one place of
    an expert group (Megatron-LM, moe_layer.py: ep divides the experts), and nothing adds up gradients of copies."""
    slots = parallel.expert_slots
    none = {name: 0 for name in ("shared", "redundant") if getattr(slots, name) == "auto"}
    return parallel.model_copy(update={"expert_slots": slots.model_copy(update=none)})


def _dense_layout(spec: TrainingSpec, model: ModelSpec, system: System) -> Layout:
    if spec.capacity_factor is not None:
        raise InfeasibleError(
            Problem(
                f"got {spec.capacity_factor:g}, but the model has no experts. Allowed: none.", key="capacity_factor"
            )
        )
    expert_tp = spec.parallel.expert_tp
    return resolve(spec.parallel, system, ranks=spec.ranks, experts=0, heads=model.heads, expert_tp=expert_tp)


def _check_wide(spec: TrainingSpec, model: ModelSpec) -> None:
    precision = spec.precision
    kept = precision.layers_at_start_in_bf16 + precision.layers_at_end_in_bf16
    if kept > model.layers:
        said = f"with layers_at_start_in_bf16 {kept} layers; the model has {model.layers}"
        raise InfeasibleError(Problem(said, key="precision.layers_at_end_in_bf16"))


def _micro_batches(spec: TrainingSpec, layout: Layout) -> int:
    per_step = spec.micro_batch * layout.dp
    if spec.global_batch % per_step:
        raise InfeasibleError(
            Problem(
                f"got {spec.global_batch}, which is not a multiple of micro_batch {spec.micro_batch} x dp {layout.dp}. "
                f"{_nearest_multiples(spec.global_batch, per_step)}",
                key="global_batch",
            )
        )
    return spec.global_batch // per_step


def _check_sequence(spec: TrainingSpec, layout: Layout) -> None:
    """Ranks of a context group take parts of a sequence that are alike."""
    if spec.sequence_length % layout.cp:
        near = _nearest_multiples(spec.sequence_length, layout.cp)
        said = f"got {spec.sequence_length}, which does not divide by cp {layout.cp}. {near}"
        raise InfeasibleError(Problem(said, key="sequence_length"))


def _nearest_multiples(got: int, of: int) -> str:
    below = got // of * of
    return f"Nearest multiples: {', '.join(str(x) for x in (below, below + of) if x)}."
