"""The least work of a question: what any plan of it computes and moves, from the model and the scenario's question.

FLOPs are those of the products, once: no recomputation, no backward pass of attention that makes its scores again, no
rows that only fill up. Bytes are those that no kernel can keep from moving however it is fused: every weight that the
tokens meet, once over all ranks; the cache of every sequence, once; a row of the table for every token; of training the
weights, gradients and optimizer states of every parameter, once. Activations count as staying on chip.

Of experts, those that tokens reach on average under the routing the scenario names: however a plan cuts the batch, its
parts together reach as many or more. Windows count; training prices the whole context. Draft layers are left out:
drafts may come from anywhere, and only the tokens that are verified are asked for. A decoder's ranks need exchange next
to nothing (with as many stages as ranks one vector of each token goes on), so that nothing is counted; ranks that train
a graph must add up its gradients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim import compute
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.parts import Balance, PrecisionSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload.generate import layers
from cmsim.workload.generate.experts import popularity
from cmsim.workload.model import ModelSpec
from cmsim.workload.ops import Least

#: bytes of an element of the router, the output head and the token table, whatever the rest is kept in [B]
_PLAIN_B = 2.0
#: format of products with them
_PLAIN = "bf16"


def training(spec: TrainingSpec, model: ModelSpec, *, ranks: int, base: Path | None = None) -> Least:
    """One optimizer step on all of ``ranks``: three forward passes of FLOPs, and every state once."""
    form, its = layers.formats(spec.precision), layers.of_experts(spec.precision)
    tokens = float(spec.global_batch * spec.sequence_length)
    cores = tokens * model.attention_flops_per_token(spec.sequence_length)
    once = _sum(_products(model, form, its, tokens, absorbed=False), {form.attention: cores}, _head(model, tokens))
    if spec.capacity_factor is not None and spec.capacity_factor < 1.0:
        # tokens beyond the places that experts have are dropped
        routed = 2.0 * tokens * model.moe_layers * model.top_k * model.expert_parameters
        once[its.gemm] -= (1.0 - spec.capacity_factor) * routed
    update = compute.optimizer(
        _trained(model), weight_bytes=form.stream_B, gradient_bytes=BYTES_PER_ELEMENT[spec.precision.gradients]
    )
    read_B = _weights_B(model, form, its, tokens, spec.balance, base) + _table_B(model, tokens)
    if spec.lora is not None:
        # of frozen products a forward and the gradient of the input; of adapters nothing is counted
        return Least(ranks, {name: 2.0 * flops for name, flops in once.items()}, read_B)
    return Least(ranks, {name: 3.0 * flops for name, flops in once.items()}, float(update.bytes_B) + read_B)


def prefill(spec: PrefillSpec, model: ModelSpec, *, prompts: float, ranks: int, base: Path | None = None) -> Least:
    """The first tokens of ``prompts``: the cores over the causal half, keys and values expanded, the cache written.

    A token that sees some that are cached sees as many as the mean one of a prompt so much longer; that those are read
    is left out."""
    form, its = (make(spec.precision, model.stored) for make in (layers.formats, layers.of_experts))
    tokens = prompts * spec.prompt_tokens
    cores = tokens * model.attention_flops_per_token(spec.prompt_tokens + 2 * spec.cached_tokens)
    flops = _sum(_products(model, form, its, tokens, absorbed=False), {form.attention: cores}, _head(model, prompts))
    written_B = tokens * model.kv_bytes_per_token(min(form.kv_B, form.stream_B)) + prompts * model.state_B_on(1)
    read_B = _weights_B(model, form, its, tokens, spec.balance, base) + _table_B(model, tokens)
    return Least(ranks, flops, read_B + written_B)


def decode(spec: DecodeSpec, model: ModelSpec, *, sequences: float, ranks: int, base: Path | None = None) -> Least:
    """One step of ``sequences``: the tokens that are verified, over the cache of each, latents absorbed."""
    form, its = (make(spec.precision, model.stored) for make in (layers.formats, layers.of_experts))
    tokens = sequences * (1.0 + (spec.speculative.nodes if spec.speculative else 0))
    seen = _seen(model, float(spec.context_tokens))
    cores = 2.0 * tokens * seen * model.heads * _core_width(model)
    if model.index_top:
        cores += 2.0 * tokens * model.attention_layers * spec.context_tokens * model.index_heads * model.index_dim
    if model.recurrence:
        cores += tokens * model.recurrent_layers * model.recurrence.flops_per_token
    flops = _sum(_products(model, form, its, tokens, absorbed=True), {form.attention: cores}, _head(model, tokens))
    cache_B = sequences * seen * model.kv_bytes_per_token(form.kv_B) / max(model.attention_layers, 1)
    # states are read and written
    cache_B += 2.0 * sequences * model.state_B_on(1)
    read_B = _weights_B(model, form, its, tokens, spec.balance, base) + _table_B(model, tokens)
    return Least(ranks, flops, read_B + cache_B)


def held_B(model: ModelSpec, precision: PrecisionSpec) -> float:
    """Weights of one copy of a model, experts in their own format. [B]"""
    experts = model.moe_layers * (model.experts * model.expert_parameters + model.shared_parameters)
    rest = model.total_parameters - experts
    return rest * layers.formats(precision).weight_B + experts * layers.of_experts(precision).weight_B


def _sum(*parts: dict[str, float]) -> dict[str, float]:
    """FLOPs of several parts by format."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}


def _products(
    model: ModelSpec, form: layers.Formats, its: layers.Formats, tokens: float, *, absorbed: bool
) -> dict[str, float]:
    """FLOPs of the linear layers by format. Latents' up-projections that are absorbed run beside the core. [FLOP]"""
    up = _latent_up(model) if absorbed else 0.0
    linear = (
        model.attention_layers * (model.attention_parameters - up) + model.dense_layers * model.dense_ffn_parameters
    )
    linear += model.recurrent_layers * model.recurrent_parameters_on(1)
    experts = float(model.moe_layers) * (model.top_k * model.expert_parameters + model.shared_parameters)
    if its == form:
        linear, experts = linear + experts, 0.0
    routers = model.moe_layers * model.router_parameters
    twice = 2.0 * tokens
    return _sum(
        {form.gemm: twice * linear},
        {its.gemm: twice * experts},
        {form.attention: twice * model.attention_layers * up},
        {_PLAIN: twice * routers},
    )


def _head(model: ModelSpec, tokens: float) -> dict[str, float]:
    """FLOPs of the output head, for the tokens that need it. [FLOP]"""
    return {_PLAIN: 2.0 * tokens * model.vocab * model.hidden}


def _latent_up(model: ModelSpec) -> float:
    """Parameters of one layer that make keys and values of latents; 0 without latents. [1]"""
    return float(model.kv_lora_rank * model.heads * (model.nope_dim + model.v_head_dim))


def _core_width(model: ModelSpec) -> float:
    """Products of a query head with one cached token. [1]"""
    if model.attention == "mla":
        return 2.0 * model.kv_lora_rank + model.rope_dim
    return float(model.head_dim + model.v_head_dim)


def _seen(model: ModelSpec, context: float) -> float:
    """Cached tokens that a new one sees, summed over layers. [1]"""
    narrow = model.window_layers if model.window else 0
    # the first token of a chunk sees none but itself
    within = float(context % model.window if model.chunked else min(context, model.window)) if narrow else 0.0
    wide = min(context, float(model.index_top)) if model.index_top else context
    return (model.attention_layers - narrow) * wide + narrow * within


def _weights_B(
    model: ModelSpec, form: layers.Formats, its: layers.Formats, tokens: float, balance: Balance, base: Path | None
) -> float:
    """Weights that ``tokens`` tokens meet, the token table left out. [B]"""
    up = model.attention_layers * _latent_up(model)
    linear = model.attention_layers * model.attention_parameters + model.dense_layers * model.dense_ffn_parameters - up
    linear += model.recurrent_layers * model.recurrent_parameters_on(1)
    experts = 0.0
    if model.moe_layers:
        reached = _experts_reached(model, tokens, balance, base)
        experts = model.moe_layers * (model.shared_parameters + reached * model.expert_parameters)
    if its == form:
        linear, experts = linear + experts, 0.0
    plain = model.moe_layers * model.router_parameters + model.vocab * model.hidden
    # what makes keys and values of latents is absorbed in 16 bits, where it is not read as it lies
    return linear * form.weight_B + experts * its.weight_B + up * min(form.weight_B, _PLAIN_B) + plain * _PLAIN_B


def _experts_reached(model: ModelSpec, tokens: float, balance: Balance, base: Path | None) -> float:
    """Experts of a layer that a batch reaches on average: the sum of 1 - (1 - k p)^T over their popularities p. [1]

    It is concave in T and in p: parts of a batch reach as many together or more, equal experts more than unequal ones.
    """
    shares = popularity(model, balance, base)
    chance = np.full(model.experts, 1.0 / model.experts) if shares is None else shares
    missed = (1.0 - np.minimum(model.top_k * chance, 1.0)) ** tokens
    return float((1.0 - missed).sum())


def _table_B(model: ModelSpec, tokens: float) -> float:
    """Rows of the token table. [B]"""
    return tokens * model.hidden * _PLAIN_B


def _trained(model: ModelSpec) -> float:
    """Parameters that a step updates; norms and biases are left out, as in the plan. [1]"""
    parts = model.parameters
    small = parts["norms_and_biases"] + model.learned_positions * model.hidden
    return float(model.total_parameters - small)
