"""Families with rotary positions, grouped queries and dense gated FFNs."""

from __future__ import annotations

from typing import Any

from cmsim.workload.families.keys import Keys


def grouped(
    keys: Keys,
    *,
    head_norms: bool = False,
    qkv_bias: bool = False,
    bias: str = "attention_bias",
    out_bias: bool = True,
    norms: int = 2,
    tied: bool = False,
    head_key: str = "head_dim",
) -> dict[str, Any]:
    """The sizes that decoders with rotary positions, grouped queries and gated FFNs share.

    head_norms  norms over each head of queries and keys    norms  over the stream, in one layer
    bias        the family's key for biases of projections; out_bias: it means the output too
    tied        what the family's format takes for ``tie_word_embeddings`` where a file does not say it
    """
    hidden, layers, heads = (
        keys.whole("hidden_size"),
        keys.layers(),
        keys.whole("num_attention_heads"),
    )
    kv_heads = keys.whole("num_key_value_heads", heads)
    if keys.get(head_key) is None and hidden % heads:
        keys.mismatch(
            "num_attention_heads", f"{heads} heads do not divide hidden_size {hidden}, and there is no {head_key}"
        )
    head_dim = keys.whole(head_key, max(hidden // heads, 1))
    if heads % kv_heads:
        keys.mismatch("num_key_value_heads", f"{kv_heads} does not divide the {heads} attention heads")
    small = norms * hidden
    if head_norms:
        small += 2 * head_dim
    biased = keys.flag(bias, False)
    if qkv_bias or biased:
        small += (heads + 2 * kv_heads) * head_dim
    if biased and out_bias:
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
        "tied_embeddings": keys.flag("tie_word_embeddings", tied),
        "small_parameters": layers * small + hidden,
    }


def dense(keys: Keys, **habits: Any) -> dict[str, Any]:
    """A dense decoder; ``habits`` as in `grouped`."""
    sizes = grouped(keys, **habits)
    return sizes | {"ffn": keys.whole("intermediate_size"), "dense_layers": sizes["layers"]}


def windows(keys: Keys, layers: int, narrow: int) -> dict[str, Any]:
    """Layers whose tokens see a window: as ``layer_types`` has it, else ``narrow`` of them."""
    window = keys.whole("sliding_window", 0, least=0)
    kinds = keys.words("layer_types", layers, ("full_attention", "sliding_attention"))
    if kinds is not None:
        narrow = kinds.count("sliding_attention")
    return {"window": window, "window_layers": narrow} if window and narrow else {}


def optional_windows(keys: Keys, layers: int) -> dict[str, Any]:
    """Windows that a flag turns on, for the layers from ``max_window_layers`` on."""
    first = keys.whole("max_window_layers", layers, least=0)
    if not keys.flag("use_sliding_window", False):
        keys.spared("sliding_window", "layer_types")
        return {}
    return windows(keys, layers, max(layers - first, 0))


def _mlp_bias(keys: Keys, sizes: dict[str, Any], key: str = "mlp_bias") -> dict[str, Any]:
    if keys.flag(key, False):
        sizes["small_parameters"] += sizes["layers"] * (2 * sizes["ffn"] + sizes["hidden"])
    return sizes


def llama(keys: Keys) -> dict[str, Any]:
    return _mlp_bias(keys, dense(keys))


def mistral(keys: Keys) -> dict[str, Any]:
    """Windows in every layer, where there are any."""
    sizes = dense(keys)
    return sizes | windows(keys, sizes["layers"], sizes["layers"])


def phi3(keys: Keys) -> dict[str, Any]:
    """Its projections are fused in the file, which changes no count."""
    return mistral(keys)


def qwen2(keys: Keys) -> dict[str, Any]:
    sizes = dense(keys, qkv_bias=True)
    return sizes | optional_windows(keys, sizes["layers"])


def qwen3(keys: Keys) -> dict[str, Any]:
    sizes = dense(keys, head_norms=True)
    return sizes | optional_windows(keys, sizes["layers"])


def glm(keys: Keys) -> dict[str, Any]:
    """The output projection never has a bias."""
    return dense(keys, out_bias=False)


def glm4(keys: Keys) -> dict[str, Any]:
    """Norms before and after both halves of a layer."""
    return dense(keys, out_bias=False, norms=4)


def gemma(keys: Keys) -> dict[str, Any]:
    return dense(keys, tied=True)


def gemma2(keys: Keys) -> dict[str, Any]:
    """Norms before and after both halves; windows in every other layer, the first one included."""
    sizes = dense(keys, norms=4, tied=True)
    return sizes | windows(keys, sizes["layers"], -(-sizes["layers"] // 2))


def gemma3(keys: Keys) -> dict[str, Any]:
    """As before, with norms of heads, and windows in all layers but every sixth.

    Source of what published text towers leave out: transformers, Gemma3TextConfig.
    """
    keys.usual(_GEMMA3)
    sizes = dense(keys, norms=4, head_norms=True, tied=True)
    layers = sizes["layers"]
    every = keys.whole("_sliding_window_pattern", keys.whole("sliding_window_pattern", 6))
    return sizes | windows(keys, layers, layers - layers // every)


_GEMMA3 = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 2**8,
    "vocab_size": 262_208,
    "max_position_embeddings": 2**17,
}


def hunyuan_dense(keys: Keys) -> dict[str, Any]:
    keys.spared("attention_head_dim")  # a second name of head_dim
    return _mlp_bias(keys, dense(keys, head_norms=keys.flag("use_qk_norm", True)))


def ernie(keys: Keys) -> dict[str, Any]:
    return _mlp_bias(keys, dense(keys, bias="use_bias", tied=True), "use_bias")


def nemotron(keys: Keys) -> dict[str, Any]:
    """FFNs without a gate (squared ReLU), norms with a bias."""
    sizes = dense(keys)
    layers, hidden = sizes["layers"], sizes["hidden"]
    small = (2 * layers + 1) * hidden
    if keys.flag("mlp_bias", False):
        small += layers * (sizes["ffn"] + hidden)
    return sizes | {"gated": False, "small_parameters": sizes["small_parameters"] + small}


def pangu_embedded(keys: Keys) -> dict[str, Any]:
    """A dense decoder whose one key ``bias`` is about all four projections of attention."""
    return dense(keys, bias="bias")
