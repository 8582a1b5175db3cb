"""What the backward pass makes again: which kernels run twice, and so which tensors need not be kept.

Both go by the same names: the parts of a layer that Megatron-LM recomputes (``--recompute-modules``), and
``activation`` for what `selective` makes again beside them. A kernel runs again if one of its parts is asked for; a
tensor is dropped if one of the parts that make it again is (``generate.kept``).

    none        nothing
    selective   norms, activation functions, rotation, quantising, and the up-projections of latents: cheap to compute,
                large to keep. Scores of attention are never kept, as the fused kernel has none
    full        every layer, of which its input is kept; not the token table, nor the final norm, the head and the loss
    a list      core_attn: attention itself (of a fused kernel little is kept: a sum for each query); moe_act: the
                activation functions of experts; layernorm: norms before attention and FFN; mla_up_proj: what is made of
                latents, with their norms; mlp, moe, shared_experts: a dense FFN, an expert layer with its exchange, the
                shared experts, of each of which its input is kept

Source: Megatron-LM, arguments.py (--recompute-granularity, --recompute-modules), transformer_layer.py, moe/experts.py,
multi_latent_attention.py; Korthikanti et al., arXiv:2205.05198, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate import seeing
from cmsim.workload.generate.chain import Kernel, Piece
from cmsim.workload.model import ModelSpec

#: parts that `selective` makes again
SELECTIVE = frozenset({"layernorm", "activation", "mla_up_proj"})
#: classes and names of the kernels it runs again
_SELECTIVE_CLASSES = ("norm", "activation", "rope", "quantise")
_UP = ("q up", "k, v up")
#: parts that are run again as a whole, with what they send
_WHOLE = frozenset({"mlp", "moe"})
_OUTSIDE = frozenset({"embedding", "final norm", "head", "loss"})


def modules(recompute: str | Iterable[str]) -> frozenset[str]:
    """Names of parts that are made again; ``full`` has one of its own."""
    if isinstance(recompute, str):
        return {"none": frozenset[str](), "selective": SELECTIVE}.get(recompute, frozenset({recompute}))
    return frozenset(recompute)


def runs_again(spec: TrainingSpec, model: ModelSpec) -> Callable[[Kernel], bool]:
    """Which forward kernels run again in the backward pass."""
    if spec.recompute == "full":
        return lambda kernel: kernel.name not in _OUTSIDE
    if spec.recompute == "selective":
        return lambda kernel: kernel.kernel in _SELECTIVE_CLASSES or kernel.name in _UP
    wanted = modules(spec.recompute)
    latents = model.attention == "mla"
    return lambda kernel: not wanted.isdisjoint(_parts(kernel, latents=latents))


def sends_again(spec: TrainingSpec, model: ModelSpec) -> Callable[[Piece], bool]:
    """Whether what arrives before a piece of the chain is sent again too: where the piece is of a part that is run
    again as a whole. Norms and activation functions work on what is there."""
    wanted = modules(spec.recompute)
    latents = model.attention == "mla"
    again = runs_again(spec, model)

    def asked(piece: Piece) -> bool:
        first = next(iter(piece.kernels), None)
        if first is None or "full" in wanted:
            return first is not None and "full" in wanted and again(first)
        return not (wanted & _WHOLE).isdisjoint(_parts(first, latents=latents))

    return asked


def flops_again(spec: TrainingSpec, model: ModelSpec) -> float:
    """FLOPs of products and attention that are done twice, for a token. [FLOP]"""
    forward = model.forward_flops_per_token(spec.sequence_length, causal=True)
    attention = model.attention_flops_per_token(spec.sequence_length, causal=True)
    if spec.recompute == "full":
        return forward - 2.0 * model.hidden * model.vocab + seeing.flops_per_token(spec, model)
    wanted = modules(spec.recompute)
    shared, dense = model.shared_parameters * model.moe_layers, model.dense_ffn_parameters * _dense_layers(model)
    routed = model.moe_layers * (model.top_k * model.expert_parameters + model.router_parameters)
    up = 0.0
    if model.attention == "mla":
        queries = model.q_lora_rank * model.heads * model.head_dim
        up = model.attention_layers * (queries + model.kv_lora_rank * model.heads * (model.nope_dim + model.v_head_dim))
    return (
        attention * ("core_attn" in wanted)
        + 2.0 * dense * ("mlp" in wanted)
        + 2.0 * routed * ("moe" in wanted)
        + 2.0 * shared * bool(wanted & {"moe", "shared_experts"})
        + 2.0 * up * ("mla_up_proj" in wanted)
    )


def _dense_layers(model: ModelSpec) -> int:
    return sum(model.kind(layer).ffn == "dense" for layer in range(model.layers))


def _parts(kernel: Kernel, *, latents: bool) -> frozenset[str]:
    """The parts of a layer that a kernel belongs to, by its name."""
    name = kernel.name
    if name in ("attention norm", "ffn norm", "mixer norm"):
        return frozenset({"layernorm"})
    if name == "attention":
        return frozenset({"core_attn"})
    if latents and (name in _UP or name.startswith("latent ") or kernel.kernel == "rope"):
        return frozenset({"mla_up_proj"})
    if name.startswith("shared expert"):
        return frozenset({"shared_experts", "moe"})
    if name == "expert activation":
        return frozenset({"moe_act", "moe"})
    if name.startswith("expert ") or name in ("router", "top-k", "token counts"):
        return frozenset({"moe"})
    return frozenset({"mlp"} if name.startswith("ffn ") else ())
