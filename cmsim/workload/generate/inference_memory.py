"""Memory of one rank of each stage in a step of inference: weights, caches, and what is in flight."""

from __future__ import annotations

from collections.abc import Sequence

from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.workload import memory, whole
from cmsim.workload.generate import layers
from cmsim.workload.generate.batches import Batch, heads_tp
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec


def lines_B(
    spec: PrefillSpec | DecodeSpec,
    model: ModelSpec,
    form: layers.Formats,
    layout: Layout,
    mixture: Experts | None,
    batch: Batch,
    stages: Sequence[range],
    *,
    new: float,
    before: float,
    guesser: ModelSpec | None = None,
) -> dict[str, list[float]]:
    """Bytes by line, of a rank of each stage, in a step that adds ``new`` tokens to the ``before`` cached ones of each
    sequence; a model that drafts stands on the last stage. [B]"""
    tp = heads_tp(layout, spec)
    cached_B = [
        _share(model, which) * _cache_B(spec, model, form, layout, batch, new=new, before=before) for which in stages
    ]
    weights_B = [
        _weights_B(spec, model, form, layout, mixture, which, first=not number, last=number == len(stages) - 1)
        for number, which in enumerate(stages)
    ]
    if guesser is not None:
        # every rank of a tensor group has its share of it
        everything = range(guesser.layers)
        weights_B[-1] += _weights_B(spec, guesser, form, layout, None, everything, first=True, last=True)
        cached_B[-1] += _cache_B(spec, guesser, form, layout, batch, new=new, before=before)
    # of tokens that are brought together every rank has a part of the columns
    columns = layout.tp // tp * whole.busiest(model.ffn, layout.tp) * (2 if model.gated else 1)
    widest = max(columns, 4 * model.hidden, model.recurrence.columns_on(tp) if model.recurrence else 0.0)
    # the residual stream and the widest layer's temporaries, for the tokens in flight
    in_flight_B = batch.tokens(batch.parts[0], new) * (model.hidden * 4 + widest) * form.stream_B
    return {"weights": weights_B, "cache": cached_B, "activations": [in_flight_B] * len(stages)}


def _share(model: ModelSpec, which: range) -> float:
    """Of the cache of all layers, what some of them have. [1]"""
    if len(which) == model.layers:
        return 1.0
    mixers = [model.kind(layer).mixer for layer in which]
    return sum(map(bool, mixers)) / max(model.attention_layers + model.recurrent_layers, 1)


def _weights_B(
    spec: PrefillSpec | DecodeSpec,
    model: ModelSpec,
    form: layers.Formats,
    layout: Layout,
    mixture: Experts | None,
    which: range,
    *,
    first: bool,
    last: bool,
) -> float:
    """Of a stage's layers, and of the ends of the model that go with them. [B]"""
    tp, split = layout.tp, heads_tp(layout, spec)
    kinds = [model.kind(layer) for layer in which]
    attention, recurrent = (sum(mixer == name for mixer, _ in kinds) for name in ("attention", "recurrence"))
    dense, routed = (sum(ffn == name for _, ffn in kinds) for name in ("dense", "experts"))
    weights = attention * _attention_on(spec, model, layout, split)
    weights += recurrent * model.recurrent_parameters_on(split)
    weights += dense * model.dense_ffn_parameters_on(tp)
    weights_B = weights * form.weight_B
    if mixture:
        share = layout.tp if mixture.joined else 1
        local_shared = 0 if mixture.shared_in_slots else model.shared_parameters / share
        held = mixture.experts_per_rank * model.expert_parameters_on(mixture.tp) + local_shared
        weights_B += routed * model.router_parameters * form.weight_B
        weights_B += routed * held * layers.of_experts(spec.precision).weight_B
    ends = 0.0
    if first:
        ends += model.table_parameters_on(tp)
    if last:
        # a head that is the token table lies on the last stage too
        ends += model.head_parameters_on(tp) if first or not model.tied_embeddings else model.table_parameters_on(tp)
    return weights_B + ends * 2.0


def _attention_on(spec: PrefillSpec | DecodeSpec, model: ModelSpec, layout: Layout, split: int) -> float:
    """Products of one layer's attention on a rank; where heads are exchanged for tokens it makes only its own of
    latents. [1]"""
    whole_ = model.attention_parameters_on(split)
    if spec.parallel.cp_comm_type != "a2a" or layout.cp == 1 or model.attention != "mla":
        return whole_
    heads = whole.busiest(model.heads, split)
    up = model.q_lora_rank * model.query_dim + model.kv_lora_rank * (model.nope_dim + model.v_head_dim)
    return whole_ - (heads - whole.busiest(heads, layout.cp)) * up


def _cache_B(
    spec: PrefillSpec | DecodeSpec,
    model: ModelSpec,
    form: layers.Formats,
    layout: Layout,
    batch: Batch,
    *,
    new: float,
    before: float,
) -> float:
    """Of all layers of a model, for all of a holder's sequences and the prompts beside them. [B]"""
    tp = heads_tp(layout, spec)
    kv_heads = 1 if model.attention == "mla" else model.kv_heads
    token_B = model.kv_bytes_per_token(form.kv_B)
    # ranks that share prompts share their cache
    kept = model.cached_tokens(before / (layout.cp * layout.dcp) + new)
    each_B = memory.kv_cache_B(token_B, kept, tp=tp, kv_heads=kv_heads) + model.state_B_on(tp)
    chunk = spec.chunk if spec.kind == "decode" else None
    prompts_B = 0.0
    if chunk is not None:
        beside = model.cached_tokens(chunk.tokens + chunk.cached_tokens)
        prompts_B = len(batch.groups) * float(memory.kv_cache_B(token_B, beside, tp=tp, kv_heads=kv_heads))
    return float(batch.held * each_B + prompts_B)
