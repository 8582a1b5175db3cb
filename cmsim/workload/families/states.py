"""Families where most layers keep a state of fixed size: linear attention, state spaces, attention between them."""

from __future__ import annotations

from typing import Any

from cmsim.workload.families.grouped import grouped
from cmsim.workload.families.keys import Keys
from cmsim.workload.families.mixtures import placed, shared_width, stepped
from cmsim.workload.recurrence import Recurrence

_FULL, _LINEAR = "full_attention", "linear_attention"


def _delta(keys: Keys) -> tuple[dict[str, Any], list[str]]:
    """Linear attention by the delta rule, gated attention in every so many-th layer: sizes, and each layer's mixer.

    Source of the chunk: flash-linear-attention, chunk_gated_delta_rule (64 tokens).
    """
    sizes = grouped(keys)
    layers, every = sizes["layers"], keys.whole("full_attention_interval", 4)
    kinds = keys.words("layer_types", layers, (_FULL, _LINEAR))
    kinds = kinds or [_FULL if (n + 1) % every == 0 else _LINEAR for n in range(layers)]
    of = Recurrence(
        heads=keys.whole("linear_num_value_heads"),
        groups=keys.whole("linear_num_key_heads"),
        key_dim=keys.whole("linear_key_head_dim"),
        value_dim=keys.whole("linear_value_head_dim"),
        scalars=2,
        taps=keys.whole("linear_conv_kernel_dim"),
        products=3,
        chunk=64,
    )
    if of.heads % of.groups:
        keys.mismatch("linear_num_key_heads", f"{of.groups} does not divide the {of.heads} value heads")
    # norms of heads; convolution, decay and step of every head, the norm of a head
    small = kinds.count(_FULL) * 2 * sizes["head_dim"]
    small += kinds.count(_LINEAR) * (int(of.channels_on(1)) * of.taps + 2 * of.heads + of.value_dim)
    sizes |= {
        "gated_queries": keys.flag("attn_output_gate", True),
        "recurrence": of,
        "small_parameters": sizes["small_parameters"] + small,
    }
    return sizes, ["attention" if kind == _FULL else "recurrence" for kind in kinds]


def qwen3_next(keys: Keys) -> dict[str, Any]:
    """With experts, and a shared one behind a gate."""
    sizes, mixers = _delta(keys)
    layers = sizes["layers"]
    sparse, wide = stepped(keys, layers), keys.whole("moe_intermediate_size")
    width = keys.whole("shared_expert_intermediate_size", 0, least=0)
    gates = len(sparse) * sizes["hidden"] if width else 0
    return (
        sizes
        | placed(keys, layers, sparse, mixers)
        | shared_width(width, wide)
        | {
            "ffn": keys.whole("intermediate_size", 0, least=0),
            "experts": keys.whole("num_experts"),
            "top_k": keys.whole("num_experts_per_tok"),
            "expert_ffn": wide,
            "small_parameters": sizes["small_parameters"] + gates,
        }
    )


def qwen3_5(keys: Keys) -> dict[str, Any]:
    """The same mixers with dense FFNs."""
    sizes, mixers = _delta(keys)
    kinds = tuple((mixer, "dense") for mixer in mixers)
    return sizes | {"ffn": keys.whole("intermediate_size"), "dense_layers": sizes["layers"], "kinds": kinds}


def minimax(keys: Keys) -> dict[str, Any]:
    """Linear attention with a fixed decay for each head, softmax attention between; experts in every layer.

    Source of the chunk: MiniMax-01, arXiv:2501.08313, section 2.2 (blocks of 256 tokens).
    """
    sizes = grouped(keys)
    layers, heads, head_dim = sizes["layers"], sizes["heads"], sizes["head_dim"]
    kinds = _listed(keys, layers)
    if kinds is None:
        if not keys.problems:
            keys.complain(
                "attn_type_list",
                f"the key 'attn_type_list' is required for model_type '{keys.family}': 0 (linear) or 1 (softmax "
                "attention) for each layer",
            )
        kinds = [_FULL] * layers
    of = Recurrence(
        heads=heads,
        groups=heads,
        key_dim=head_dim,
        value_dim=head_dim,
        scalars=0,
        taps=0,
        products=2,
        chunk=keys.whole("block_size", 256),
    )
    width, wide = keys.alike("shared_intermediate_size", 0, least=0), keys.whole("intermediate_size")
    return (
        sizes
        | placed(keys, layers, range(layers), ["attention" if kind == _FULL else "recurrence" for kind in kinds])
        | shared_width(width, wide)
        | {
            "ffn": 0,
            "experts": keys.whole("num_local_experts"),
            "top_k": keys.whole("num_experts_per_tok"),
            "expert_ffn": wide,
            "recurrence": of,
            "small_parameters": sizes["small_parameters"] + kinds.count(_LINEAR) * heads * head_dim,
        }
    )


def _listed(keys: Keys, layers: int) -> list[str] | None:
    numbers = keys.get("attn_type_list")
    words = keys.words("layer_types", layers, (_FULL, _LINEAR))
    if words is not None or numbers is None:
        return words
    if not isinstance(numbers, list) or len(numbers) != layers or any(one not in (0, 1) for one in numbers):
        keys.complain("attn_type_list", f"expected 0 or 1 for each of {layers} layers")
        return None
    return [_FULL if one else _LINEAR for one in numbers]


#: letters of a pattern, words of a list, and what such a layer does
_BLOCKS = {
    "M": ("recurrence", ""),
    "*": ("attention", ""),
    "-": ("", "dense"),
    "E": ("", "experts"),
    "mamba": ("recurrence", ""),
    "attention": ("attention", ""),
    "mlp": ("", "dense"),
    "moe": ("", "experts"),
}


def nemotron_h(keys: Keys) -> dict[str, Any]:
    """Every layer is one half: a state space, attention, a plain FFN or experts, as a pattern says.

    Source: NVIDIA, arXiv:2504.03624; layers as in the modelling page beside the published weights.
    """
    keys.data = {"num_key_value_heads": keys.data.get("num_attention_heads"), **keys.data}
    pattern = _pattern(keys)
    keys.data = {"num_hidden_layers": len(pattern), **keys.data}
    named = "head_dim" if keys.data.get("head_dim") is not None else "attention_head_dim"
    sizes = grouped(keys, norms=1, head_key=named)
    layers, hidden = sizes["layers"], sizes["hidden"]
    if len(pattern) != layers:
        keys.mismatch("hybrid_override_pattern", f"{len(pattern)} blocks for {layers} layers")
    biases = sizes["small_parameters"] - (layers + 1) * hidden
    has = {kind: sum(kind in block for block in pattern) for kind in ("recurrence", "attention", "dense", "experts")}
    ffn = keys.alike("intermediate_size") if has["dense"] else keys.alike("intermediate_size", 0, least=0)
    of = _state_space(keys, has["recurrence"])
    small = biases // layers * has["attention"] + (layers + 1) * hidden
    if of is not None:
        small += has["recurrence"] * _state_space_small(keys, of, hidden)
    if keys.flag("mlp_bias", False):
        small += has["dense"] * (ffn + hidden)
    keys.spared("attention_head_dim", "num_query_groups")  # second names
    keys.spared("mamba_head_dim", "mamba_num_heads", "use_conv_bias", "use_bias", "mamba_proj_bias")
    return (
        sizes
        | _blocks_of_experts(keys, has["experts"])
        | {
            "ffn": ffn,
            "gated": False,
            "dense_layers": has["dense"],
            "kinds": tuple(pattern),
            "recurrence": of,
            "small_parameters": small + has["experts"] * keys.whole("n_routed_experts", 0, least=0),
        }
    )


def _pattern(keys: Keys) -> list[tuple[str, str]]:
    given = keys.get("hybrid_override_pattern") or keys.get("layers_block_type")
    keys.spared("hybrid_override_pattern", "layers_block_type")
    if given is None:
        keys.complain(
            "hybrid_override_pattern",
            f"the key 'hybrid_override_pattern' is required for model_type '{keys.family}'",
        )
        return [("attention", "")]
    # published patterns of a pipeline's stages have bars between them
    given = given.replace("|", "") if isinstance(given, str) else given
    wrong = (
        [one for one in given if not isinstance(one, str) or one not in _BLOCKS]
        if isinstance(given, str | list) and given
        else [given]
    )
    if wrong:
        keys.complain("hybrid_override_pattern", f"got {wrong[0]!r}. Allowed: {', '.join(_BLOCKS)}.")
        return [("attention", "")]
    return [_BLOCKS[one] for one in given]


def _state_space(keys: Keys, layers: int) -> Recurrence | None:
    if not layers:
        return None
    of = Recurrence(
        heads=keys.whole("mamba_num_heads"),
        groups=keys.whole("n_groups"),
        key_dim=keys.whole("ssm_state_size"),
        value_dim=keys.whole("mamba_head_dim"),
        scalars=1,
        taps=keys.whole("conv_kernel", 4),
        products=2,
        chunk=keys.whole("chunk_size", 256),
    )
    if of.heads % of.groups:
        keys.mismatch("n_groups", f"{of.groups} does not divide the {of.heads} heads")
    return of


def _state_space_small(keys: Keys, of: Recurrence, hidden: int) -> int:
    """Convolution, scales and norm of one layer."""
    channels = int(of.channels_on(1))
    small = channels * of.taps + 3 * of.heads + of.heads * of.value_dim
    if keys.flag("use_conv_bias", True):
        small += channels
    if keys.flag("use_bias", False) or keys.flag("mamba_proj_bias", False):
        small += int(of.columns_on(1)) + hidden
    return small


def _blocks_of_experts(keys: Keys, layers: int) -> dict[str, Any]:
    names = ("num_experts_per_tok", "moe_intermediate_size", "moe_shared_expert_intermediate_size", "n_shared_experts")
    if not layers:
        keys.spared(*names, "n_routed_experts", "n_group", "topk_group")
        return {}
    wide = keys.whole("moe_intermediate_size")
    shared = keys.whole("n_shared_experts", 1, least=0)
    width = keys.whole("moe_shared_expert_intermediate_size", wide * shared, least=0) if shared else 0
    return shared_width(width, wide) | {
        "experts": keys.whole("n_routed_experts"),
        "top_k": keys.whole("num_experts_per_tok"),
        "expert_ffn": wide,
        "expert_groups": keys.whole("n_group", 1),
        "topk_groups": keys.whole("topk_group", 1),
    }
