"""Attention over a sequence that ranks share: context parallelism, by what they exchange.

    all_gather  keys and values of the whole sequence come to every rank before attention; backward gathers them
                again, and scatters the sums of their gradients
    p2p         a ring: c - 1 steps, each sends keys and values of s/c tokens while those at hand are worked on;
                backward sends them again, and their gradients with them. Priced as a gathering of as many bytes,
                beside (c - 1)/c of attention. Each step leaves a part of the results, which is scaled and added to
                those before: 4 B an element at first, 6 for each of c - 1 more, of half the queries where a step is
                above the diagonal
    a2a         every rank has the whole sequence of some heads: queries, keys and values are exchanged before
                attention, its results after it, and so are gradients (DeepSpeed-Ulysses). Keys and values of fewer
                heads than ranks are sent to all that need them
    a2a+p2p     in two ways: c = a r ranks, of which a neighbours exchange heads as in a2a, so that each has s/r tokens
                of some heads; those with the same heads, one of each neighbourhood, are a ring of r as in p2p

Bytes a rank sends: (c - 1)/c of 2 s b h_kv d elements, twice as many in backward; with a2a (c - 1)/c of those of its
own s/c tokens, (2 h_q + 2 h_kv) d, in each pass; in two ways (a - 1)/a of those, and in the ring (r - 1)/r of
2 s b (h_kv/a) d elements. Latent attention sends latents. Layers with a state hand on states.

Source: Liu et al., arXiv:2310.01889 (ring); Jacobs et al., arXiv:2309.14509 (a2a); Llama team, arXiv:2407.21783,
section 3.3.2, and NVIDIA/TransformerEngine, pytorch/attention context parallelism (all_gather, a2a+p2p; out_correction
of p2p); Fang and Zhao, arXiv:2405.07719, section 3 (in two ways). Words as Megatron-LM's cp_comm_type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cmsim.errors import InfeasibleError, Problem
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate.chain import Comm, Kernel, Piece
from cmsim.workload.generate.overlap import cut
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec
from cmsim.workload.moe import divisors
from cmsim.workload.whole import busiest

_CORES = ("attention_prefill", "mla_prefill")
#: of a message that backward makes as well as its mirror image: gathered keys and values are not kept
AGAIN = "gather keys, values"
RING = "ring keys, values"
#: of an element of results in 16 bits, read and written by the first step of a ring and by each that adds to it [B],
#: and the mean share of queries that such a step has: causal chunks are paired, so that half of the steps have half
_FIRST_B, _FURTHER_B, _WHOLE = 4.0, 6.0, 0.75


def shared(spec: TrainingSpec, model: ModelSpec, layout: Layout) -> Layout:
    """The layout with its groups that exchange heads. Raises InfeasibleError for a way to share the sequence that the
    model or the sizes do not have."""
    way = spec.parallel.cp_comm_type
    if layout.cp == 1 or way not in ("a2a", "a2a+p2p"):
        return layout
    if model.attention == "mla":
        said = f"got {way}; latent attention takes all_gather, p2p"
        raise InfeasibleError(Problem(said, key="parallel.cp_comm_type"))
    heads = model.heads // layout.tp
    if way == "a2a":
        if heads % layout.cp:
            said = f"got {layout.cp}; with cp_comm_type a2a it must divide the {heads} heads of a rank. "
            raise InfeasibleError(Problem(said + _nearest(heads, heads, layout.cp), key="parallel.cp"))
        return layout
    kv_heads = max(model.kv_heads // layout.tp, 1)
    size = spec.parallel.cp_a2a or math.gcd(layout.cp, kv_heads)
    if heads % size or layout.cp % size:
        said = f"got {size}; it must divide cp {layout.cp} and the {heads} heads of a rank. "
        raise InfeasibleError(Problem(said + _nearest(heads, layout.cp, size), key="parallel.cp_a2a"))
    return replace(layout, cp_a2a=size)


def _nearest(one: int, other: int, wanted: int) -> str:
    """The sizes nearest to the wanted one that divide both numbers."""
    sizes = divisors(math.gcd(one, other))
    return f"Nearest: {', '.join(map(str, sorted(sorted(sizes, key=lambda size: abs(size - wanted))[:2])))}."


def by_heads(spec: TrainingSpec, layout: Layout) -> int:
    """Ranks of a context group that exchange heads for tokens. [1]"""
    return layout.cp_a2a or (layout.cp if spec.parallel.cp_comm_type == "a2a" else 1)


def pieces(
    spec: TrainingSpec,
    model: ModelSpec,
    layout: Layout,
    mixer: str,
    kernels: list[Kernel],
    out: Comm | None,
    element_B: float,
) -> list[Piece]:
    """The half of a layer that mixes tokens, behind its norm, ending in ``out``."""
    if layout.cp == 1:
        return [Piece(kernels, out)]
    if mixer == "recurrence" and model.recurrence:
        state_B = spec.micro_batch * layout.cp * model.recurrence.state_B_on(layout.tp)
        return [Piece([], Comm("gather states", "all_gather", state_B, "cp")), Piece(kernels, out)]
    if layout.cp_a2a or spec.parallel.cp_comm_type == "a2a":
        return _by_heads(spec, model, layout, kernels, out, element_B)
    if model.attention == "mla":
        width = float(model.kv_lora_rank + model.rope_dim)
    else:
        width = busiest(model.kv_heads, layout.tp) * (model.head_dim + model.v_head_dim)
    size_B = spec.micro_batch * spec.sequence_length * width * element_B
    if spec.parallel.cp_comm_type == "all_gather":
        return [Piece([], Comm(AGAIN, "all_gather", size_B, "cp")), Piece(kernels, out)]
    before, core, behind = _around_core(kernels)
    results = spec.micro_batch * busiest(spec.sequence_length, layout.cp) * busiest(model.heads, layout.tp)
    ring = Comm(RING, "all_gather", size_B, "cp")
    first, last = _ring(before, core, ring, layout.cp, results * model.v_head_dim)
    return [first, replace(last, kernels=[*last.kernels, *behind], comm=out)]


def _ring(before: list[Kernel], core: Kernel, comm: Comm, ranks: int, results: float) -> list[Piece]:
    """Attention over ``ranks`` parts of keys and values, of which the last is worked on when all are there, and what
    sums up parts of ``results`` elements."""
    last = 1.0 / ranks
    summed = Kernel("ring sums", "generic", "", 0.0, results * (_FIRST_B + _FURTHER_B * _WHOLE * (ranks - 1)))
    return [Piece(before, comm, beside=[cut(core, 1.0 - last)]), Piece([cut(core, last), summed])]


def _by_heads(
    spec: TrainingSpec, model: ModelSpec, layout: Layout, kernels: list[Kernel], out: Comm | None, element_B: float
) -> list[Piece]:
    size, slot = by_heads(spec, layout), "cp_a2a" if layout.cp_a2a else "cp"
    rings = layout.cp // size
    tokens_B = spec.micro_batch * busiest(spec.sequence_length, layout.cp) * element_B
    heads = busiest(model.heads, layout.tp)
    # a head of keys and values goes to every rank that has queries of it
    kv_width = max(busiest(model.kv_heads, layout.tp), float(size)) * (model.head_dim + model.v_head_dim)
    before, core, behind = _around_core(kernels)
    asked = Comm("exchange queries, keys, values", "all_to_all", tokens_B * (heads * model.head_dim + kv_width), slot)
    results = Comm("exchange results", "all_to_all", tokens_B * heads * model.v_head_dim, slot)
    middle = [Piece([core])]
    if rings > 1:
        # a rank has keys and values of some heads, of as many tokens as its neighbours have together
        passed = Comm(RING, "all_gather", tokens_B * kv_width * rings, "cp_p2p")
        # of some heads as many results as of all, of more tokens
        middle = _ring([], core, passed, rings, tokens_B / element_B * heads * model.v_head_dim)
    if size == 1:
        return [
            replace(middle[0], kernels=before),
            replace(middle[-1], kernels=[*middle[-1].kernels, *behind], comm=out),
        ]
    middle[-1] = replace(middle[-1], comm=results)
    return [Piece(before, asked), *middle, Piece(behind, out)]


def _around_core(kernels: Sequence[Kernel]) -> tuple[list[Kernel], Kernel, list[Kernel]]:
    at = next(n for n, kernel in enumerate(kernels) if kernel.kernel in _CORES)
    return list(kernels[:at]), kernels[at], list(kernels[at + 1 :])


def mirrored(comm: Comm) -> Comm:
    """The message of the backward pass of a ring: keys and values once more, and their gradients beside them."""
    return comm._replace(name=f"{comm.name} backward", size_B=2.0 * comm.size_B)
