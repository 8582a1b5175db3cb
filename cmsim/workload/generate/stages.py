"""What a pipeline stage holds: its layers and their parameters."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cmsim.errors import CmsimError, InfeasibleError, Problem
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate import adapters, seeing
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec
from cmsim.workload.schedules import SCHEDULES, PipelineSchedule
from cmsim.workload.schedules.interleaved import Interleaved
from cmsim.workload.schedules.one_forward_one_backward import OneForwardOneBackward

#: stands for a layer where a stage holds only the token table, or only the head
NO_LAYER = -1


@dataclass(frozen=True)
class ModelPart:
    """One part of a model, of one virtual stage.

    layers        in order; numbers from the model's count on are those of modules that predict further tokens
    first, last   of the model: holds the token table, the head
    """

    layers: range
    first: bool
    last: bool

    @property
    def buckets(self) -> Sequence[int]:
        """Layers whose weights travel together; table and head go with the layer beside them."""
        return self.layers or range(NO_LAYER, NO_LAYER + 1)


def pipeline(spec: TrainingSpec, layout: Layout, mixture: Experts | None, micro_batches: int) -> PipelineSchedule:
    """The order of passes. Raises InfeasibleError where the sizes are not the schedule's.

    With experts on several ranks, forward and backward may hide each other's exchange.
    """
    name, virtual = spec.schedule, spec.parallel.virtual_stages
    if name == "auto":
        name = "1f1b" if virtual == 1 else "interleaved"
    page = SCHEDULES[name]
    if page is Interleaved and layout.pp == 1:
        raise _refused("got 1; schedule 'interleaved' takes 2 or more", "parallel.pp")
    if virtual != 1 and page is not Interleaved and not (page.turns_back and virtual == 2):
        allowed = "1 or 2, for each rank holds 2" if page.turns_back else "1, or schedule 'interleaved'"
        raise _refused(f"got {virtual}; schedule '{name}' takes {allowed}", "parallel.virtual_stages")
    beside = spec.overlap_experts and mixture is not None and mixture.ranks > 1
    if beside and not page.turns_in_pairs:
        allowed = ", ".join(f"'{name}'" for name, one in SCHEDULES.items() if one.turns_in_pairs)
        raise _refused(
            f"schedule '{name}' has no forward beside a backward. Allowed: false, or one of {allowed}",
            "overlap_experts",
        )

    def made(count: int) -> PipelineSchedule:
        if page is Interleaved:
            return Interleaved(layout.pp, count, virtual_stages=virtual, side_by_side=beside)
        if page is OneForwardOneBackward:
            return OneForwardOneBackward(layout.pp, count, side_by_side=beside)
        return page(layout.pp, count)

    try:
        return made(micro_batches)
    except InfeasibleError as error:
        (problem,) = error.problems
    if problem.key != "micro_batches":
        key = {"stages": "parallel.pp"}.get(problem.key, f"parallel.{problem.key}")
        raise _refused(problem.message, key)
    each = spec.micro_batch * layout.dp
    near = [count * each for count in _nearest(micro_batches, 4 * layout.pp, made)]
    raise _refused(
        f"got {spec.global_batch}, which is {micro_batches} micro-batches (of micro_batch {spec.micro_batch} x dp "
        f"{layout.dp}): {problem.message}. Nearest that go: {', '.join(map(str, near))}.",
        "global_batch",
    )


def _nearest(count: int, within: int, made: Callable[[int], object]) -> list[int]:
    """The nearest counts below and above that a schedule takes."""
    found = []
    for step in (-1, 1):
        for other in range(count + step, max(count + step * within, 0) + step, step):
            with contextlib.suppress(CmsimError):
                made(other)
                found.append(other)
                break
    return found


def parts_of(spec: TrainingSpec, model: ModelSpec, schedule: PipelineSchedule) -> list[list[ModelPart]]:
    """What each stage holds, by virtual stage. Raises InfeasibleError where layers do not go into them."""
    counts = spec.parallel.stage_layers
    if counts:
        _check_stated(counts, model, schedule)
    else:
        counts = _counts(model.layers, spec.mtp_layers, schedule)
    counts = [*counts[:-1], counts[-1] + spec.mtp_layers]
    ends = [sum(counts[:number]) for number in range(len(counts) + 1)]
    last = len(counts) - 1
    return [
        [
            ModelPart(range(ends[number], ends[number + 1]), number == 0, number == last)
            for number in (schedule.part(stage, virtual) for virtual in range(schedule.held))
        ]
        for stage in range(schedule.stages)
    ]


def said(
    spec: TrainingSpec, model: ModelSpec, parts: Sequence[Sequence[ModelPart]], schedule: PipelineSchedule
) -> list[str]:
    """What to say of a cut that is not into equal parts."""
    of_parts = {schedule.part(i, j): len(part.layers) for i, held in enumerate(parts) for j, part in enumerate(held)}
    held = [
        count - (spec.mtp_layers if number == len(of_parts) - 1 else 0) for number, count in sorted(of_parts.items())
    ]
    if spec.parallel.stage_layers or len(set(held)) == 1:
        return []
    name = "stages" if len(held) == schedule.stages else "virtual stages"
    runs = [(count, len(list(same))) for count, same in itertools.groupby(held)]
    listed = ", ".join(str(count) if times == 1 else f"{times} x {count}" for count, times in runs)
    return [f"{model.layers} layers do not divide by {len(held)} {name}: they hold {listed}"]


def _counts(layers: int, modules: int, schedule: PipelineSchedule) -> list[int]:
    """Layers of each part, in order, where the last also holds ``modules`` that predict further tokens.

    Where they do not divide, the first and the last are the smaller ones: of virtual stages by one where table and head
    count as a layer each (Megatron-LM, account_for_embedding_in_pipeline_split), else the last alone as far as that
    goes, as recipes of models with such modules have it (Megatron-Bridge: 4 on each of 15 and 1 for DeepSeek-V3).
    """
    parts, stages = schedule.parts, schedule.stages
    if layers < parts == stages:
        raise _refused(f"{parts} stages for {layers} layers. Allowed: at most {layers}.", "parallel.pp")
    inner = _inner(layers, parts)
    if parts == stages and (inner is None or not modules):
        base, extra = divmod(layers, parts)
        order = sorted(range(parts), key=lambda s: (s in (0, parts - 1), s))
        more = set(order[:extra])
        return [base + (part in more) for part in range(parts)]
    if inner is None:
        raise _refused(_no_virtual_stages(layers, schedule), "parallel.virtual_stages")
    if parts == 1:
        return [layers]
    rest = layers - inner * (parts - 2)
    first = inner - 1 if not modules and layers + 2 == inner * parts else min(inner, rest)
    return [first, *[inner] * (parts - 2), rest - first]


def _inner(layers: int, parts: int) -> int | None:
    """Layers of every part but the first and the last, which hold as many or fewer; None where there is no such cut."""
    inner = -(-layers // parts)
    return inner if inner * (parts - 2) <= layers else None


def _no_virtual_stages(layers: int, schedule: PipelineSchedule) -> str:
    p = schedule.stages
    valid = [v for v in range(1, layers // p + 2) if _inner(layers, v * p) is not None]
    if isinstance(schedule, Interleaved):
        near = sorted(valid, key=lambda v: (abs(v - schedule.virtual_stages), v))[:2]
        allowed = f"Nearest that do: {', '.join(map(str, sorted(near)))}." if near else "None do."
    else:
        stages = [p for p in range(1, layers // 2 + 2) if _inner(layers, 2 * p) is not None]
        near = sorted(stages, key=lambda one: (abs(one - p), one))[:2]
        allowed = f"Nearest parallel.pp that do: {', '.join(map(str, sorted(near)))}."
    return (
        f"got {schedule.held} a rank on {p} ranks: {layers} layers do not go into {schedule.parts} virtual stages of "
        f"equally many, the first and the last with as many or fewer. {allowed} Any other cut: `parallel.stage_layers`"
    )


def _check_stated(counts: Sequence[int], model: ModelSpec, schedule: PipelineSchedule) -> None:
    key = "parallel.stage_layers"
    if len(counts) != schedule.parts:
        raise _refused(f"got {len(counts)} numbers for {schedule.parts} stages (virtual ones counted)", key)
    if sum(counts) != model.layers:
        raise _refused(f"got {sum(counts)} layers in all; the model has {model.layers}", key)
    if 0 in counts[1:-1]:
        raise _refused("got a stage without layers. Allowed: the first and the last, which hold table and head", key)


def _refused(message: str, key: str) -> InfeasibleError:
    return InfeasibleError(Problem(message, key=key))


def like(model: ModelSpec, layer: int) -> int:
    """The layer of the model that a layer, or a module that predicts further tokens, is like."""
    return layer if layer < model.layers else model.drafting_layer


def layer_parameters(model: ModelSpec, layout: Layout, layer: int, mixture: Experts | None) -> tuple[float, float]:
    """Parameters of one rank in one layer: those all data-parallel ranks hold alike, and its routed experts'."""
    if layer == NO_LAYER:
        return 0.0, 0.0
    # a module that predicts further tokens makes one input of two
    joined = 2.0 * model.hidden**2 / layout.tp if layer >= model.layers else 0.0
    layer = like(model, layer)
    shared, ffn = model.mixer_parameters_on(layer, layout.tp) + joined, model.kind(layer).ffn
    if mixture is None or ffn != "experts":
        return shared + (model.dense_ffn_parameters_on(layout.tp) if ffn else 0.0), 0.0
    shared += model.router_parameters + model.shared_parameters
    return shared, mixture.experts_per_rank * model.expert_parameters_on(mixture.tp)


def trained_parameters(
    spec: TrainingSpec, model: ModelSpec, layout: Layout, part: ModelPart, layer: int, mixture: Experts | None
) -> tuple[float, float]:
    """Of the same, and of the token table and the head beside the layer, those that a step changes."""
    if spec.lora is not None:
        if layer == NO_LAYER:
            return 0.0, 0.0
        return adapters.parameters(spec.lora, model, layout, like(model, layer), mixture)
    shared, routed = layer_parameters(model, layout, layer, mixture)
    seen = seeing.parameters(spec, model) if part.first and layer == part.buckets[0] else 0
    return shared + ends_beside(model, layout, part, layer) + seen, routed


def ends_beside(model: ModelSpec, layout: Layout, part: ModelPart, layer: int) -> float:
    """Parameters of one rank of the token table and of the head, which go with the layer beside them."""
    table = model.table_parameters_on(layout.tp) if part.first and layer == part.buckets[0] else 0.0
    head = model.head_parameters_on(layout.tp) if part.last and layer == part.buckets[-1] else 0.0
    return table + head


def part_parameters(model: ModelSpec, layout: Layout, part: ModelPart, mixture: Experts | None) -> float:
    """Parameters of one rank of a virtual stage."""
    total = sum(sum(layer_parameters(model, layout, layer, mixture)) for layer in part.layers)
    if part.first:
        total += model.table_parameters_on(layout.tp)
    if part.last:
        total += model.head_parameters_on(layout.tp)
    return total
