"""The tensors that one layer leaves on one rank for its backward pass, and what that pass needs beside them.

Which they are follows from what each gradient is computed from: a product needs what it multiplied, a norm and an
activation function what went in, fused attention queries, keys, values, its result and one sum for each query; an
addition needs nothing. A tensor that two of them need is kept once. Elements have 16 bits, but the inputs of products
those of the format they are computed in.

Source: autograd of Megatron-LM (core/tensor_parallel/layers.py, core/fusions, core/transformer/moe) and of Transformer
Engine (te_general_gemm, fused attention, permutation), as their modules save tensors for backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cmsim.workload.generate.experts import Experts
from cmsim.workload.model import ModelSpec
from cmsim.workload.whole import busiest

#: of an element outside of products, of a sum or a score
STREAM_B, SINGLE_B = 2.0, 4.0
#: of a (token, expert) pair in the router: two scores and a gradient's one in fp32, a flag, a place in 32 bits
_ROUTER_B = 3 * SINGLE_B + 1 + SINGLE_B
#: copies of the routed tokens that their exchange holds at once: as sent, as they arrived, in their experts' order
_EXCHANGED = 3

INPUT = "input"
NORMS, ATTENTION, STATES, FFN, EXPERTS = (
    f"activations of {part}" for part in ("norms", "attention", "recurrence", "ffn", "experts")
)
#: lines of a budget, in their order
PARTS = (NORMS, ATTENTION, STATES, FFN, EXPERTS)


class Tensor(NamedTuple):
    """part: line of the budget    size_B: of one micro-batch on one rank [B]    again: what makes it again"""

    part: str
    size_B: float
    again: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Needs:
    """One layer and one micro-batch on one rank. [B]

    tensors    what forward leaves, nothing recomputed; the first is the layer's input
    gradients  of the half whose backward holds most beside them: gradients between its kernels
    messages   the same for what is gathered, sent and received
    """

    tensors: tuple[Tensor, ...]
    gradients_B: float
    messages_B: float


@dataclass(frozen=True)
class Half:
    """Sizes that both halves of a layer are counted by.

    tokens     of a micro-batch and rank [1]
    tp, split  ranks that share matrices; ranks that share what lies between those
    element_B  of what enters products [B]
    arriving   tokens of other context ranks whose keys and values, and gradients of them, are there at once [1]
    exchanged  context parallel exchanges heads for tokens
    """

    model: ModelSpec
    mixture: Experts | None
    tokens: float
    tp: int
    split: int
    element_B: float
    arriving: float = 0.0
    exchanged: bool = False

    @property
    def narrow(self) -> bool:
        return self.element_B < STREAM_B

    @property
    def stream_B(self) -> float:
        """The residual stream."""
        return self.tokens * self.model.hidden * STREAM_B / self.split

    @property
    def gathered_B(self) -> float:
        """The stream where it is whole before a product that is split, beside what is kept."""
        return self.tokens * self.model.hidden * STREAM_B if self.split > 1 else 0.0


def of_layer(half: Half, layer: int) -> Needs:
    """All of one layer."""
    mixer, ffn = half.model.kind(layer)
    mixed = _mixer(half, mixer) if mixer else None
    fed = None
    if ffn:
        fed = _experts(half, half.mixture) if half.mixture is not None and ffn == "experts" else _dense(half)
    halves = [one for one in (mixed, fed) if one is not None]
    tensors = tuple(tensor for one in halves for tensor in one.tensors)
    worst = max(halves, key=lambda one: one.gradients_B + one.messages_B)
    return Needs(tensors, worst.gradients_B, worst.messages_B)


def kept_B(tensors: Iterable[Tensor], modules: frozenset[str]) -> dict[str, float]:
    """What stays from forward to backward, by part. [B]"""
    out = dict.fromkeys(PARTS, 0.0)
    for number, one in enumerate(tensors):
        if not (number if "full" in modules else one.again & modules):
            out[one.part] += one.size_B
    return out


def remade_B(tensors: Iterable[Tensor], modules: frozenset[str]) -> float:
    """The most that recomputation brings back at once: the whole of a layer, or of one of its parts. [B]"""
    dropped: dict[str, float] = {}
    for number, one in enumerate(tensors):
        if "full" in modules and number:
            dropped["full"] = dropped.get("full", 0.0) + one.size_B
        for by in sorted(one.again & modules)[:1]:
            dropped[by] = dropped.get(by, 0.0) + one.size_B
    return max(dropped.values(), default=0.0)


def _norm(half: Half, element_B: float) -> Iterator[Tensor]:
    """What goes into a norm, and what leaves it for the products behind it."""
    yield Tensor(NORMS, half.stream_B)
    yield Tensor(NORMS, half.stream_B * element_B / STREAM_B, frozenset({"layernorm"}))


def _mixer(half: Half, mixer: str) -> Needs:
    model, tokens = half.model, half.tokens
    if mixer == "recurrence" and model.recurrence:
        of = model.recurrence
        # states are made again, chunk by chunk
        inner_B = tokens * STREAM_B * (of.columns_on(half.tp) + of.width_on(half.tp))
        gated = Tensor(STATES, tokens * half.element_B * of.width_on(half.tp), frozenset({"activation"}))
        return Needs((*_norm(half, half.element_B), Tensor(STATES, inner_B), gated), inner_B, half.gathered_B)
    heads = busiest(model.heads, half.tp)
    result = heads * model.v_head_dim
    kept = [*_norm(half, half.element_B), *(_latents(half, heads) if model.attention == "mla" else _heads(half, heads))]
    kept.append(Tensor(ATTENTION, tokens * result * STREAM_B))
    kept.append(Tensor(ATTENTION, tokens * heads * SINGLE_B, frozenset({"core_attn"})))
    if half.exchanged:
        # the result of the own heads and all tokens is another tensor than what the product behind it takes
        kept.append(Tensor(ATTENTION, tokens * result * STREAM_B))
    if half.narrow or model.gated_queries:
        kept.append(Tensor(ATTENTION, tokens * result * half.element_B, frozenset({"activation"})))
    keys = _key_width(half, heads)
    gradients_B = tokens * STREAM_B * (heads * model.query_dim + keys + 2 * result)
    gathered = 2 * half.arriving * keys * STREAM_B
    return Needs(tuple(kept), gradients_B, half.gathered_B + gathered)


def _key_width(half: Half, heads: float) -> float:
    model = half.model
    if model.attention == "mla":
        return heads * (model.head_dim + model.v_head_dim)
    return busiest(model.kv_heads, half.tp) * (model.head_dim + model.v_head_dim)


def _heads(half: Half, heads: float) -> Iterator[Tensor]:
    """Queries, keys and values, as attention takes them."""
    width = heads * half.model.query_dim + _key_width(half, heads)
    yield Tensor(ATTENTION, half.tokens * width * STREAM_B)


def _latents(half: Half, heads: float) -> Iterator[Tensor]:
    """Latents as they come from their products and as they leave their norms; what is made of them for every head."""
    model, tokens = half.model, half.tokens
    again = frozenset({"mla_up_proj"})
    queries = tokens * heads * model.head_dim * STREAM_B
    if model.q_lora_rank:
        yield Tensor(ATTENTION, tokens * model.q_lora_rank * STREAM_B)
        yield Tensor(ATTENTION, tokens * model.q_lora_rank * half.element_B, again)
        yield Tensor(ATTENTION, queries, again)
    else:
        yield Tensor(ATTENTION, queries)
    yield Tensor(ATTENTION, tokens * (model.kv_lora_rank + model.rope_dim) * STREAM_B)
    yield Tensor(ATTENTION, tokens * model.kv_lora_rank * half.element_B, again)
    yield Tensor(ATTENTION, tokens * _key_width(half, heads) * STREAM_B, again)


def _inner(
    half: Half, part: str, rows: float, width: float, whole: frozenset[str], act: frozenset[str]
) -> list[Tensor]:
    """Between the two products of an FFN: what the first gave (twice the width with a gate), what the second takes."""
    fold = 2 if half.model.gated else 1
    return [
        Tensor(part, rows * fold * width * STREAM_B, whole),
        Tensor(part, rows * width * half.element_B, whole | act),
    ]


def _between_B(half: Half, rows: float, width: float) -> float:
    """Gradients of both of those, alive while the activation function's backward runs. [B]"""
    return rows * width * STREAM_B * (3 if half.model.gated else 2)


def _dense(half: Half) -> Needs:
    width = busiest(half.model.ffn, half.tp)
    inner = _inner(half, FFN, half.tokens, width, frozenset({"mlp"}), frozenset({"activation"}))
    tensors = (*_norm(half, half.element_B), *inner)
    return Needs(tensors, _between_B(half, half.tokens, width), half.gathered_B)


def _experts(half: Half, mixture: Experts) -> Needs:
    """The router reads 16 bits; routed tokens are kept as their experts got them."""
    model, tokens = half.model, mixture.tokens
    # ranks that share experts work on what arrives at all of them
    arriving, width = tokens * mixture.copies * mixture.imbalance * mixture.tp, busiest(model.expert_ffn, mixture.tp)
    moe, act = frozenset({"moe"}), frozenset({"activation"})
    tensors = [
        *_norm(half, STREAM_B),
        Tensor(EXPERTS, tokens * model.experts * _ROUTER_B, moe),
        Tensor(EXPERTS, arriving * model.hidden * half.element_B, moe),
        *_inner(half, EXPERTS, arriving, width, moe, act | {"moe_act"}),
    ]
    if model.shared_width and not mixture.shared_in_slots:
        shared = moe | {"shared_experts"}
        tensors += _inner(half, EXPERTS, tokens, model.shared_width, shared, act)
        if half.narrow:
            tensors.append(Tensor(EXPERTS, tokens * model.hidden * half.element_B, shared | act))
    routed_B = arriving * model.hidden * STREAM_B
    between_B = _between_B(half, arriving, width)
    exchanged_B = _EXCHANGED * routed_B
    if exchanged_B > between_B:
        return Needs(tuple(tensors), routed_B, exchanged_B - routed_B)
    return Needs(tuple(tensors), between_B, 0.0)
