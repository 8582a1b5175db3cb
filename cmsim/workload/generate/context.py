"""Attention over a sequence that ranks share: context parallelism, by what they exchange.

    all_gather  keys and values of the whole sequence come to every rank before attention; backward gathers them
                again, and scatters the sums of their gradients
    p2p         a ring: c - 1 steps, each sends keys and values of s/c tokens while those at hand are worked on;
                backward sends them again, and their gradients with them. Priced as a gathering of as many bytes,
                beside (c - 1)/c of attention
    a2a         every rank has the whole sequence of some heads: queries, keys and values are exchanged before
                attention, its results after it, and so are gradients (DeepSpeed-Ulysses). Keys and values of fewer
                heads than ranks are sent to all that need them

Bytes a rank sends: (c - 1)/c of 2 s b h_kv d elements, twice as many in backward; with a2a (c - 1)/c of those of its
own s/c tokens, (2 h_q + 2 h_kv) d, in each pass. Latent attention sends latents. Layers with a state hand on states.

Source: Liu et al., arXiv:2310.01889 (ring); Jacobs et al., arXiv:2309.14509 (a2a); Llama team, arXiv:2407.21783,
section 3.3.2, and NVIDIA/TransformerEngine, pytorch/attention context parallelism (all_gather). Words as Megatron-LM's
cp_comm_type.
"""

from __future__ import annotations

from collections.abc import Sequence

from cmsim.errors import InfeasibleError, Problem
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate.chain import Comm, Kernel, Piece
from cmsim.workload.generate.overlap import cut
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec
from cmsim.workload.whole import busiest

_CORES = ("attention_prefill", "mla_prefill")
#: of a message that backward makes as well as its mirror image: gathered keys and values are not kept
AGAIN = "gather keys, values"
RING = "ring keys, values"


def check(spec: TrainingSpec, model: ModelSpec, layout: Layout) -> None:
    """Raises InfeasibleError for a way to share the sequence that the model or the sizes do not have."""
    if layout.cp == 1 or spec.parallel.cp_comm_type != "a2a":
        return
    if model.attention == "mla":
        raise InfeasibleError(Problem("got a2a; latent attention takes all_gather, p2p", key="parallel.cp_comm_type"))
    heads = model.heads // layout.tp
    if heads % layout.cp:
        sizes = [size for size in range(1, heads + 1) if heads % size == 0]
        near = ", ".join(map(str, sorted(sorted(sizes, key=lambda size: abs(size - layout.cp))[:2])))
        said = f"got {layout.cp}; with cp_comm_type a2a it must divide the {heads} heads of a rank. Nearest: {near}."
        raise InfeasibleError(Problem(said, key="parallel.cp"))


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
    if spec.parallel.cp_comm_type == "a2a":
        return _by_heads(spec, model, layout, kernels, out, element_B)
    if model.attention == "mla":
        width = float(model.kv_lora_rank + model.rope_dim)
    else:
        width = busiest(model.kv_heads, layout.tp) * (model.head_dim + model.v_head_dim)
    size_B = spec.micro_batch * spec.sequence_length * width * element_B
    if spec.parallel.cp_comm_type == "all_gather":
        return [Piece([], Comm(AGAIN, "all_gather", size_B, "cp")), Piece(kernels, out)]
    before, core, behind = _around_core(kernels)
    last = 1.0 / layout.cp
    ring = Comm(RING, "all_gather", size_B, "cp")
    return [
        Piece(before, ring, beside=[cut(core, 1.0 - last)]),
        Piece([cut(core, last), *behind], out),
    ]


def _by_heads(
    spec: TrainingSpec, model: ModelSpec, layout: Layout, kernels: list[Kernel], out: Comm | None, element_B: float
) -> list[Piece]:
    tokens_B = spec.micro_batch * busiest(spec.sequence_length, layout.cp) * element_B
    heads = busiest(model.heads, layout.tp)
    # a head of keys and values goes to every rank that has queries of it
    kv_heads = max(busiest(model.kv_heads, layout.tp), float(layout.cp))
    before, core, behind = _around_core(kernels)
    asked_B = tokens_B * (heads * model.head_dim + kv_heads * (model.head_dim + model.v_head_dim))
    return [
        Piece(before, Comm("exchange queries, keys, values", "all_to_all", asked_B, "cp")),
        Piece([core], Comm("exchange results", "all_to_all", tokens_B * heads * model.v_head_dim, "cp")),
        Piece(behind, out),
    ]


def _around_core(kernels: Sequence[Kernel]) -> tuple[list[Kernel], Kernel, list[Kernel]]:
    at = next(n for n, kernel in enumerate(kernels) if kernel.kernel in _CORES)
    return list(kernels[:at]), kernels[at], list(kernels[at + 1 :])


def mirrored(comm: Comm) -> Comm:
    """The message of the backward pass of a ring: keys and values once more, and their gradients beside them."""
    return comm._replace(name=f"{comm.name} backward", size_B=2.0 * comm.size_B)
