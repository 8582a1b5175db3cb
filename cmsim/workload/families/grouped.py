"""Families with rotary positions, grouped queries and gated FFNs, dense or with experts."""

from __future__ import annotations

from typing import Any

from cmsim.workload.families.keys import Keys


def grouped(
    keys: Keys, *, head_norms: bool = False, qkv_bias: bool = False, bias: str = "attention_bias"
) -> dict[str, Any]:
    """The sizes that decoders with rotary positions, grouped queries and gated FFNs share."""
    hidden, layers, heads = (
        keys.whole("hidden_size"),
        keys.whole("num_hidden_layers"),
        keys.whole("num_attention_heads"),
    )
    kv_heads = keys.whole("num_key_value_heads", heads)
    if keys.data.get("head_dim") is None and hidden % heads:
        keys.mismatch(
            "num_attention_heads", f"{heads} heads do not divide hidden_size {hidden}, and there is no head_dim"
        )
    head_dim = keys.whole("head_dim", hidden // heads)
    if heads % kv_heads:
        keys.mismatch("num_key_value_heads", f"{kv_heads} does not divide the {heads} attention heads")
    small = 2 * hidden
    if head_norms:
        small += 2 * head_dim
    biased = keys.flag(bias, False)
    if qkv_bias or biased:
        small += (heads + 2 * kv_heads) * head_dim
    if biased:
        # the key of the config, unlike the family's own habit, also means the output projection
        small += hidden
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "v_head_dim": head_dim,
        "attention": "mha" if kv_heads == heads else "gqa",
        "vocab": keys.whole("vocab_size"),
        "max_positions": keys.whole("max_position_embeddings"),
        "tied_embeddings": keys.flag("tie_word_embeddings", False),
        "small_parameters": layers * small + hidden,
    }


def dense(keys: Keys, *, head_norms: bool = False, qkv_bias: bool = False) -> dict[str, Any]:
    sizes = grouped(keys, head_norms=head_norms, qkv_bias=qkv_bias)
    return sizes | {"ffn": keys.whole("intermediate_size"), "dense_layers": sizes["layers"]}


def llama(keys: Keys) -> dict[str, Any]:
    sizes = dense(keys)
    if keys.flag("mlp_bias", False):
        sizes["small_parameters"] += sizes["layers"] * (2 * sizes["ffn"] + sizes["hidden"])
    return sizes


def qwen2(keys: Keys) -> dict[str, Any]:
    return dense(keys, qkv_bias=True)


def qwen3(keys: Keys) -> dict[str, Any]:
    return dense(keys, head_norms=True)


def qwen3_moe(keys: Keys) -> dict[str, Any]:
    keys.must_be("decoder_sparse_step", 1, "every layer has experts")
    keys.must_be("mlp_only_layers", [], "every layer has experts")
    return grouped(keys, head_norms=True) | {
        "ffn": keys.whole("intermediate_size", 0, least=0),
        "dense_layers": 0,
        "experts": keys.whole("num_experts"),
        "top_k": keys.whole("num_experts_per_tok"),
        "expert_ffn": keys.whole("moe_intermediate_size"),
    }


def mixtral(keys: Keys) -> dict[str, Any]:
    return grouped(keys) | {
        "ffn": 0,
        "dense_layers": 0,
        "experts": keys.whole("num_local_experts"),
        "top_k": keys.whole("num_experts_per_tok"),
        "expert_ffn": keys.whole("intermediate_size"),
    }


def gpt_oss(keys: Keys) -> dict[str, Any]:
    """Experts with biases, a learned sink per head, and a sliding window in every other layer."""
    sizes = grouped(keys)
    layers, hidden, experts = sizes["layers"], sizes["hidden"], keys.whole("num_local_experts")
    ffn = keys.whole("intermediate_size")
    # sinks; bias of the router; biases of every expert's gate, up and down
    small = sizes["heads"] + experts + experts * (2 * ffn + hidden)
    kinds = keys.data.get("layer_types")
    windows = layers // 2 if not isinstance(kinds, list) else kinds.count("sliding_attention")
    return sizes | {
        "ffn": 0,
        "dense_layers": 0,
        "experts": experts,
        "top_k": keys.whole("num_experts_per_tok"),
        "expert_ffn": ffn,
        "small_parameters": sizes["small_parameters"] + layers * small,
        "window": keys.whole("sliding_window", 0, least=0),
        "window_layers": windows,
    }


def pangu_embedded(keys: Keys) -> dict[str, Any]:
    """A dense decoder whose one key ``bias`` is about all four projections of attention."""
    sizes = grouped(keys, bias="bias")
    return sizes | {"ffn": keys.whole("intermediate_size"), "dense_layers": sizes["layers"]}


def pangu_pro_moe(keys: Keys) -> dict[str, Any]:
    """Experts in groups, and one shared expert as wide as several routed ones."""
    sizes = grouped(keys, qkv_bias=True)
    wide, shared = keys.whole("moe_intermediate_size"), keys.whole("shared_expert_intermediate_size", 0, least=0)
    if shared % wide:
        keys.mismatch("shared_expert_intermediate_size", f"{shared} is not a multiple of moe_intermediate_size {wide}")
    return sizes | {
        "ffn": 0,
        "dense_layers": 0,
        "experts": keys.whole("num_experts"),
        "top_k": keys.whole("num_experts_per_tok"),
        "expert_ffn": wide,
        "shared_experts": shared // wide,
    }
