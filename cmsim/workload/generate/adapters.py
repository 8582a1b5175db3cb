"""Low-rank adapters (LoRA): two small products beside a frozen one, y = W x + B (A x), with A (r, k) and B (n, r).

Frozen weights get no gradient of their own: of a product the gradient of the input is left, of an adapter all is made.
Gradients, states and what ZeRO 1 and 2 gather are of adapters alone; weights lie there in 16 bits, or as they are
gathered with ZeRO 3. Adapters multiply in 16 bits. With tensor parallelism a rank has its part of the side of each that
its product has; the sum of r numbers a token that this takes is left out.

FLOPs of the model: 2 forwards of frozen products and 3 of attention and of adapters, where all of training has 3.

Source: Hu et al., arXiv:2106.09685; names of targets as NVIDIA-NeMo/Megatron-Bridge, peft/lora.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cmsim.errors import InfeasibleError, Problem
from cmsim.kinds.training import LoraSpec
from cmsim.workload.generate.chain import Kernel, Piece
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.gradients import of_weights
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import ModelSpec
from cmsim.workload.whole import busiest

#: by target the ends of names of products; those of the second kind stand behind their adapters, so that messages
#: that follow them lie beside the larger product
_AFTER = {"linear_qkv": ("q, k, v", "q, kv down", "q up"), "linear_fc1": ("ffn up", "expert up")}
_BEFORE = {"linear_proj": ("attention out",), "linear_fc2": ("ffn down", "expert down")}
_MARK = " adapter "


def added(lora: LoraSpec | None, pieces: Sequence[Piece]) -> list[Piece]:
    """A forward chain with adapters beside their products."""
    if lora is None:
        return list(pieces)
    return [replace(piece, kernels=_with(lora, piece.kernels), beside=_with(lora, piece.beside)) for piece in pieces]


def trained(lora: LoraSpec | None, kernels: list[Kernel]) -> list[Kernel]:
    """Kernels of a backward pass without gradients of weights that are frozen."""
    if lora is None:
        return kernels
    return [
        kernel
        for kernel in kernels
        if not (of_weights(kernel) and _MARK not in kernel.name) and kernel.kernel != "embedding"
    ]


def parameters(
    lora: LoraSpec, model: ModelSpec, layout: Layout, layer: int, mixture: Experts | None
) -> tuple[float, float]:
    """Parameters of adapters of one rank in one layer of the model: those beside what all data-parallel ranks hold
    alike, and those beside its routed experts. [1]"""
    mixer, ffn = model.kind(layer)
    sides = _mixer_sides(lora, model, layout.tp) if mixer == "attention" else 0.0
    if mixture is None or ffn != "experts":
        return lora.rank * (sides + (_ffn_sides(lora, model, busiest(model.ffn, layout.tp)) if ffn else 0.0)), 0.0
    routed = mixture.experts_per_rank * _ffn_sides(lora, model, busiest(model.expert_ffn, mixture.tp))
    if model.shared_experts and not mixture.shared_in_slots:
        sides += _ffn_sides(lora, model, model.shared_width)
    return lora.rank * sides, lora.rank * routed


def flops_per_token(lora: LoraSpec, model: ModelSpec, sequence: float) -> float:
    """FLOPs of the model for one token of a step: see the page. [FLOP]"""
    sides = model.attention_layers * _mixer_sides(lora, model, 1)
    sides += model.dense_layers * _ffn_sides(lora, model, model.ffn)
    of_experts = model.top_k * _ffn_sides(lora, model, model.expert_ffn)
    if model.shared_experts:
        of_experts += _ffn_sides(lora, model, model.shared_width)
    sides += model.moe_layers * of_experts
    cores = model.attention_flops_per_token(sequence)
    return 4.0 * model.matmul_parameters + 3.0 * cores + 6.0 * lora.rank * sides


def _mixer_sides(lora: LoraSpec, model: ModelSpec, tp: int) -> float:
    """Rows and columns of attention's products that have adapters, together. [1]"""
    heads, sides = busiest(model.heads, tp), 0.0
    if "linear_qkv" in lora.targets:
        if model.attention == "mla":
            latent, queries = model.kv_lora_rank + model.rope_dim, heads * model.head_dim
            down = (model.q_lora_rank or queries) + latent
            sides += model.hidden + down + (model.q_lora_rank + queries if model.q_lora_rank else 0.0)
        else:
            kv_heads = busiest(model.kv_heads, tp)
            sides += model.hidden + heads * model.query_dim + kv_heads * (model.head_dim + model.v_head_dim)
    if "linear_proj" in lora.targets:
        sides += heads * model.v_head_dim + model.hidden
    return sides


def _ffn_sides(lora: LoraSpec, model: ModelSpec, width: float) -> float:
    fold = 2 if model.gated else 1
    first = (model.hidden + fold * width) * ("linear_fc1" in lora.targets)
    return first + (width + model.hidden) * ("linear_fc2" in lora.targets)


def _with(lora: LoraSpec, kernels: Sequence[Kernel]) -> list[Kernel]:
    out = []
    for kernel in kernels:
        before = _target(kernel, _BEFORE) in lora.targets
        beside = _adapter(lora, kernel) if before or _target(kernel, _AFTER) in lora.targets else []
        out += [*beside, kernel] if before else [kernel, *beside]
    return out


def _target(kernel: Kernel, ends: dict[str, tuple[str, ...]]) -> str:
    return next((name for name, of in ends.items() if kernel.name.endswith(of)), "")


def _adapter(lora: LoraSpec, kernel: Kernel) -> list[Kernel]:
    """A (r, k), then B (n, r) added to the product of m rows, of each group of weights that it has."""
    if kernel.shape is None:
        said = "products of two formats have no adapters here. Allowed: precision.weights as precision.activations."
        raise InfeasibleError(Problem(said, key="lora"))
    sizes, rank = dict(kernel.shape.numbers), lora.rank
    m, n, k, groups = (sizes[name] for name in ("m", "n", "k", "groups"))
    formats = tuple((name, "bf16") for name, _ in kernel.shape.formats)

    def made(which: str, columns: float, inner: float, more_B: float) -> Kernel:
        shape = kernel.shape and kernel.shape._replace(
            numbers=(("m", m), ("n", columns), ("k", inner), ("groups", groups)), formats=formats
        )
        bytes_B = 2.0 * (m * inner + groups * inner * columns + m * columns) + more_B
        name = f"{kernel.name}{_MARK}{which}"
        return Kernel(name, kernel.kernel, "bf16", 2.0 * m * columns * inner, bytes_B, shape)

    # the sum reads what the product wrote
    return [made("in", rank, k, 0.0), made("out", n, rank, 2.0 * m * n)]
