"""Memory of one rank of each pipeline stage of a training step, line by line, as its allocator peaks.

Weights, gradients and states lie there all the time; activations of every micro-batch in flight; and at the peak what
the backward pass needs beside them, which is most either at the loss (logits and their gradient) or in the widest
layer. Counted are bytes asked for: an allocator's holes, the driver and what communication libraries take come on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmsim.hardware import System
from cmsim.kinds.training import TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload import memory
from cmsim.workload.generate import kept, recompute, seeing
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.kept import STREAM_B, Half, Needs
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.generate.stages import ModelPart, layer_parameters, like, part_parameters, trained_parameters
from cmsim.workload.model import ModelSpec
from cmsim.workload.schedules import AtPeak, PipelineSchedule
from cmsim.workload.whole import busiest

#: what libraries of products take for themselves: two of them, and one of four streams for the products of experts.
#: Source: PyTorch (CUBLAS_WORKSPACE_CONFIG) and Transformer Engine (get_cublas_workspace_size_bytes) on recent parts
_PRODUCTS_B, _EXPERTS_B = 2 * 32 * 2**20, 4 * 32 * 2**20

#: share of a rank's memory beyond which what is not counted may decide
_CROWDED = 0.95


def footprint_B(
    spec: TrainingSpec,
    model: ModelSpec,
    layout: Layout,
    mixture: Experts | None,
    parts: list[list[ModelPart]],
    schedule: PipelineSchedule,
    *,
    fused: bool = True,
) -> dict[str, list[float]]:
    """Bytes by line, of a rank of each stage, which holds some parts of the model. [B]

    fused: whether the loss is one kernel; else an fp32 copy of the logits lies beside them
    """
    made = [
        _Stage(spec, model, layout, mixture, stage, of_stage, schedule, fused).lines_B()
        for stage, of_stage in enumerate(parts)
    ]
    return {line: [one.get(line, 0.0) for one in made] for line in dict.fromkeys(line for one in made for line in one)}


def crowded(lines_B: dict[str, list[float]], system: System) -> list[str]:
    """What to say of a plan that fits by less than what an allocator does not hand out."""
    share = max(sum(stage) for stage in zip(*lines_B.values(), strict=True)) / system.rank_memory_B
    if not _CROWDED < share <= 1:
        return []
    return [
        f"the fullest rank holds {100 * share:.0f} % of its memory, without what the driver, communication libraries "
        "and holes of the allocator take: it may not fit"
    ]


def of_layer(spec: TrainingSpec, model: ModelSpec, layout: Layout, mixture: Experts | None, layer: int) -> Needs:
    """What one micro-batch needs of one layer."""
    tokens = busiest(spec.sequence_length, layout.cp) * spec.micro_batch
    layer, way = like(model, layer), spec.parallel.cp_comm_type if layout.cp > 1 else ""
    half = Half(
        model,
        mixture,
        tokens,
        layout.tp,
        layout.tp if spec.parallel.sequence_parallel else 1,
        BYTES_PER_ELEMENT[spec.precision.activations],
        # gathered all, or in a ring those that are worked on and those that come
        {"all_gather": spec.sequence_length * spec.micro_batch, "p2p": 2 * tokens, "a2a+p2p": 2 * tokens}.get(way, 0.0),
        way.startswith("a2a"),
    )
    return kept.of_layer(half, layer)


def moved_B(spec: TrainingSpec, model: ModelSpec, layout: Layout, mixture: Experts | None, part: ModelPart) -> float:
    """Activations of one micro-batch that leave for the host's memory, and come back. [B]"""
    modules = recompute.modules(spec.recompute)
    needs = (of_layer(spec, model, layout, mixture, layer) for layer in part.layers)
    return spec.offload.activations * sum(sum(kept.kept_B(one.tensors, modules).values()) for one in needs)


def states_B(
    spec: TrainingSpec, model: ModelSpec, layout: Layout, mixture: Experts | None, parts: Sequence[ModelPart]
) -> dict[str, float]:
    """Weights, gradients and optimizer states of a rank that holds some parts, wherever they lie. [B]"""
    trained = [
        trained_parameters(spec, model, layout, part, layer, mixture) for part in parts for layer in part.buckets
    ]
    # weights that stay gathered between the passes lie there whole
    held_as = spec.zero_stage if spec.reshard_after_forward else min(spec.zero_stage, 2)
    out = dict.fromkeys(("weights", "gradients", "optimizer"), 0.0)
    for count, shards in (
        (sum(one for one, _ in trained), layout.shards),
        (sum(one for _, one in trained), layout.expert_shards),
    ):
        per = memory.state_parts_B(
            stage=held_as, shards=shards, gradient_bytes=BYTES_PER_ELEMENT[spec.precision.gradients]
        )
        for line, per_parameter in per.items():
            out[line] += float(per_parameter) * count
    if spec.lora is not None:
        out["weights"] += sum(_frozen_B(spec, model, layout, mixture, part) for part in parts)
    return out


def _frozen_B(spec: TrainingSpec, model: ModelSpec, layout: Layout, mixture: Experts | None, part: ModelPart) -> float:
    """Weights that no step changes. [B]"""
    routed = sum(layer_parameters(model, layout, layer, mixture)[1] for layer in part.layers)
    shared = part_parameters(model, layout, part, mixture) - routed
    if spec.zero_stage == 3 and spec.reshard_after_forward:
        shared, routed = shared / layout.shards, routed / layout.expert_shards
    return (shared + routed) * BYTES_PER_ELEMENT[spec.precision.weights]


@dataclass(frozen=True)
class _Stage:
    spec: TrainingSpec
    model: ModelSpec
    layout: Layout
    mixture: Experts | None
    stage: int
    parts: Sequence[ModelPart]
    schedule: PipelineSchedule
    fused: bool

    @property
    def last(self) -> bool:
        return any(part.last for part in self.parts)

    @property
    def held(self) -> list[int]:
        return [layer for part in self.parts for layer in part.layers]

    @property
    def tokens(self) -> float:
        return busiest(self.spec.sequence_length, self.layout.cp) * self.spec.micro_batch

    def lines_B(self) -> dict[str, float]:
        # layers of one kind need the same
        kinds = {layer: self.model.kind(like(self.model, layer)) for layer in self.held}
        needs = {
            kind: of_layer(self.spec, self.model, self.layout, self.mixture, layer)
            for kind, layer in {kind: layer for layer, kind in kinds.items()}.items()
        }
        layers = [needs[kind] for kind in kinds.values()]
        return {**self._states_B(), **self._activations_B(layers), **self._peak_B(layers)}

    def _states_B(self) -> dict[str, float]:
        """What one step leaves to the next, as far as it stays here."""
        out = states_B(self.spec, self.model, self.layout, self.mixture, self.parts)
        out["optimizer"] *= 1.0 - self.spec.offload.optimizer
        return out | self._unshared_B()

    def _unshared_B(self) -> dict[str, float]:
        """Weights that lie there as a whole while they are used, or what stands for gradients that are added up
        elsewhere: an engine asks for one, of any content, and one of each shape serves all."""
        if self.spec.zero_stage == 3:
            # of the layer at work and the next one, and the gradients of the first before they are shared
            sizes = [sum(layer_parameters(self.model, self.layout, one, self.mixture)) for one in self.held]
            if self.layout.shards == 1 or not sizes:
                return {}
            gradient_B = BYTES_PER_ELEMENT[self.spec.precision.gradients]
            left = sorted(sizes)[-2:] if self.spec.reshard_after_forward else []
            gradients = max(sizes) if self.spec.lora is None else 0.0
            return {"gathered weights": sum(left) * STREAM_B + gradients * gradient_B}
        if self.spec.lora is not None:
            return {}
        return {"dummy gradients": STREAM_B * sum(rows * columns for rows, columns in self._shapes())}

    def _shapes(self) -> set[tuple[float, float]]:
        """Distinct shapes of matrices, rows out and columns in; a head has its own."""
        model, tp = self.model, self.layout.tp
        heads, kv_heads = busiest(model.heads, tp), busiest(model.kv_heads, tp)
        fold, out = (2 if model.gated else 1), set[tuple[float, float]]()
        for layer in self.held:
            mixer, ffn = model.kind(like(model, layer))
            if mixer == "recurrence" and model.recurrence:
                of = model.recurrence
                out |= {(of.columns_on(tp), model.hidden), (model.hidden, of.width_on(tp))}
            elif mixer and model.attention == "mla":
                ranks, up = model.q_lora_rank, model.nope_dim + model.v_head_dim
                out |= {(ranks, model.hidden), (heads * model.query_dim, ranks or model.hidden)}
                out |= {(model.kv_lora_rank + model.rope_dim, model.hidden), (heads * up, model.kv_lora_rank)}
            elif mixer:
                keys = kv_heads * (model.head_dim + model.v_head_dim)
                out.add((heads * model.query_dim + keys, model.hidden))
            if mixer == "attention":
                out.add((model.hidden, heads * model.v_head_dim))
            widths = []
            if self.mixture is not None and ffn == "experts":
                widths = [busiest(model.expert_ffn, self.mixture.tp), model.shared_width / tp]
            elif ffn:
                widths = [busiest(model.ffn, tp)]
            for width in filter(None, widths):
                out |= {(fold * width, model.hidden), (model.hidden, width)}
        if self.last:
            out.add((busiest(model.vocab, tp), model.hidden))
        return out

    def _activations_B(self, layers: list[Needs]) -> dict[str, float]:
        """Of every micro-batch in flight; of those whose weights' gradients wait, what these are made of."""
        modules = recompute.modules(self.spec.recompute)
        # where two ranks hold the same parts, a micro-batch passes half of what a rank holds
        at_peak = AtPeak(*(count / self.schedule.copies for count in self.schedule.in_flight(self.stage)))
        sums = dict.fromkeys(kept.PARTS, 0.0)
        for one in layers:
            for part, size_B in kept.kept_B(one.tensors, modules).items():
                sums[part] += size_B
        here = 1.0 - self.spec.offload.activations
        # what moves needs room on its way: of the layer at work and of the one that is awaited
        each = [sum(kept.kept_B(one.tensors, modules).values()) for one in layers] or [0.0]
        rooms = (1.0 - here) * min(2 * max(each), at_peak.activations * sum(each))
        out = {part: at_peak.activations * here * size_B for part, size_B in sums.items()}
        if any(part.first for part in self.parts) and self.spec.images_per_sample:
            out["activations of the vision tower"] = at_peak.activations * seeing.kept_B(
                self.spec, self.model, self.layout
            )
        out["offload buffers"] = rooms
        out["inputs of waiting gradients"] = at_peak.weight_inputs * sum(self._waiting_B(one) for one in layers)
        return out

    def _waiting_B(self, layer: Needs) -> float:
        """What gradients of weights are made of: inputs of products, and gradients of their results, about as many."""
        return sum(one.size_B for one in layer.tensors)

    def _peak_B(self, layers: list[Needs]) -> dict[str, float]:
        """What the backward pass needs for a moment, where it needs most."""
        modules = recompute.modules(self.spec.recompute)
        stream_B = self.tokens * self.model.hidden * STREAM_B
        split = self.layout.tp if self.spec.parallel.sequence_parallel else 1
        in_layers = max(
            (
                {
                    "recomputed": kept.remade_B(one.tensors, modules),
                    "gradients of activations": one.gradients_B + stream_B / split,
                    "communication buffers": one.messages_B,
                }
                for one in layers
            ),
            key=lambda one: sum(one.values()),
            default={},
        )
        at_loss: dict[str, float] = {}
        if self.last:
            logits = memory.logits_B(self.tokens, 1.0, busiest(self.model.vocab, self.layout.tp), fused=self.fused)
            at_loss = {
                "logits": float(logits) * self._losses,
                # what goes into the final norm and leaves it; then the gradient of that, whole before it is split
                "gradients of activations": stream_B * (1.0 + (2.0 * self._losses) / split),
                "communication buffers": stream_B if split > 1 else 0.0,
            }
        peak = max(in_layers, at_loss, key=lambda one: sum(one.values()))
        experts = self.mixture is not None and any(
            self.model.kind(like(self.model, layer)).ffn == "experts" for layer in self.held
        )
        return {**peak, "workspaces": _PRODUCTS_B + (_EXPERTS_B if experts else 0)}

    @property
    def _losses(self) -> float:
        """Losses between forward and backward: of one micro-batch, but where all forwards come first; of each further
        token that is predicted another."""
        waiting = self.schedule.micro_batches if self.schedule.name == "gpipe" else 1
        return float(waiting * (1 + self.spec.mtp_layers))
