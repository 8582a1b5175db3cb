"""Memory of one rank of each pipeline stage of a training step."""

from __future__ import annotations

from cmsim.kinds.training import TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload import memory
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.generate.stages import ModelPart, layer_parameters, like, part_parameters, trained_parameters
from cmsim.workload.model import ModelSpec
from cmsim.workload.schedules import PipelineSchedule
from cmsim.workload.whole import busiest


def footprint_B(
    spec: TrainingSpec,
    model: ModelSpec,
    layout: Layout,
    mixture: Experts | None,
    parts: list[list[ModelPart]],
    schedule: PipelineSchedule,
) -> dict[str, list[float]]:
    states, activations = [], []
    # weights that stay gathered between the passes lie there whole
    held_as = spec.zero_stage if spec.reshard_after_forward else min(spec.zero_stage, 2)
    for stage, of_stage in enumerate(parts):
        held = [layer for part in of_stage for layer in part.layers]
        trained = [
            trained_parameters(spec, model, layout, part, layer, mixture) for part in of_stage for layer in part.buckets
        ]
        shared, routed = sum(one for one, _ in trained), sum(one for _, one in trained)
        gradient_B = BYTES_PER_ELEMENT[spec.precision.gradients]
        states.append(
            sum(
                float(memory.state_B_per_parameter(stage=held_as, shards=shards, gradient_bytes=gradient_B)) * count
                for count, shards in ((shared, layout.shards), (routed, layout.expert_shards))
            )
        )
        if spec.lora is not None:
            states[-1] += sum(_frozen_B(spec, model, layout, mixture, part) for part in of_stage)
        sequence = busiest(spec.sequence_length, layout.cp)
        kept = sum(_kept_B(spec, model, layout, mixture, like(model, layer), sequence) for layer in held)
        logits = (
            memory.logits_B(sequence, spec.micro_batch, busiest(model.vocab, layout.tp))
            if any(part.last for part in of_stage)
            else 0.0
        )
        # what only gradients of weights wait for counts as all of it; where two ranks hold the same, a micro-batch
        # passes half of what a rank holds
        in_flight = sum(schedule.in_flight(stage)) / schedule.copies
        activations.append(in_flight * kept + float(logits))
    return {"weights, gradients, optimizer": states, "activations": activations}


def _frozen_B(spec: TrainingSpec, model: ModelSpec, layout: Layout, mixture: Experts | None, part: ModelPart) -> float:
    """Weights that no step changes. [B]"""
    routed = sum(layer_parameters(model, layout, layer, mixture)[1] for layer in part.layers)
    shared = part_parameters(model, layout, part, mixture) - routed
    if spec.zero_stage == 3 and spec.reshard_after_forward:
        shared, routed = shared / layout.shards, routed / layout.expert_shards
    return (shared + routed) * BYTES_PER_ELEMENT[spec.precision.weights]


def _kept_B(
    spec: TrainingSpec, model: ModelSpec, layout: Layout, mixture: Experts | None, layer: int, sequence: float
) -> float:
    """Activations one layer keeps for its backward pass, as far as `_recomputed` does not make them again. [B]

    The residual stream at both halves; queries, keys, values (of latent attention the latents, and what is made of
    them unless recomputed) and the attention's result; what enters the experts and what their first product gives.
    Without recomputation also the results of norms and activations. Attention is fused: scores are never stored.
    """
    everything = spec.recompute == "none"
    stream_B, element_B = 2.0, BYTES_PER_ELEMENT[spec.precision.activations]
    split = layout.tp if spec.parallel.sequence_parallel else 1
    tokens = sequence * spec.micro_batch
    if spec.recompute == "full":
        return tokens * model.hidden * stream_B / split
    mixer, ffn = model.kind(layer)
    halves = bool(mixer) + bool(ffn)
    kept = halves * model.hidden * (stream_B + (element_B if everything else 0.0)) / split
    if mixer:
        kept += _mixer_kept_B(model, mixer, layout.tp, stream_B, everything)
    if not ffn:
        return tokens * kept
    if mixture is None or ffn == "dense":
        width, copies = busiest(model.ffn, layout.tp), 1.0
        first_B = stream_B
    else:
        shared = model.shared_width / model.expert_ffn
        width, copies = float(model.expert_ffn), model.top_k * mixture.imbalance + shared
        kept += copies * model.hidden * element_B
        first_B = element_B
    kept += copies * width * ((2 if model.gated else 1) * first_B + (element_B if everything else 0.0))
    return tokens * kept


def _mixer_kept_B(model: ModelSpec, mixer: str, tp: int, stream_B: float, everything: bool) -> float:
    """What a token leaves of the half of a layer that mixes tokens. States are made again, chunk by chunk. [B]"""
    if mixer == "recurrence" and model.recurrence:
        return (model.recurrence.columns_on(tp) + model.recurrence.width_on(tp)) * stream_B
    heads, kept = busiest(model.heads, tp), 0.0
    if model.attention == "mla":
        kept += (model.q_lora_rank + model.kv_lora_rank + model.rope_dim) * stream_B
        kept += heads * (2 * model.head_dim + model.v_head_dim) * stream_B if everything else 0.0
    else:
        kept += (heads * model.query_dim + busiest(model.kv_heads, tp) * 2 * model.head_dim) * stream_B
    return kept + heads * model.v_head_dim * stream_B
