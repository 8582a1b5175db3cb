"""Families with grouped queries, and experts in all layers or in some."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from cmsim.workload.families.grouped import grouped, optional_windows, windows
from cmsim.workload.families.keys import Keys


def placed(keys: Keys, layers: int, sparse: Collection[int], mixers: Sequence[str] | None = None) -> dict[str, Any]:
    """Which layers have experts, and what mixes tokens in each: attention, unless ``mixers`` says else."""
    dense = layers - len(sparse)
    if not sparse:
        keys.mismatch("num_hidden_layers", f"none of the {layers} layers has experts")
    if mixers is None and all(layer >= dense for layer in sparse):
        return {"dense_layers": dense}
    mixed = mixers or ["attention"] * layers
    kinds = tuple((mixed[n], "experts" if n in sparse else "dense") for n in range(layers))
    return {"dense_layers": dense, "kinds": kinds}


def shared_width(width: int, wide: int) -> dict[str, Any]:
    """Shared experts of ``width`` together: so many of the routed ones' width ``wide``, or as wide as they are."""
    whole = not width % wide
    return {"shared_experts": -(-width // wide), "shared_ffn": 0 if whole else width}


def stepped(keys: Keys, layers: int) -> list[int]:
    """Layers with experts: every so many-th, unless it is named as dense."""
    step, plain = keys.whole("decoder_sparse_step", 1), keys.numbers("mlp_only_layers", below=layers)
    return [n for n in range(layers) if (n + 1) % step == 0 and n not in plain]


def qwen2_moe(keys: Keys) -> dict[str, Any]:
    """A shared expert of its own width behind a gate."""
    sizes = grouped(keys, qkv_bias=keys.flag("qkv_bias", True))
    wide = keys.whole("moe_intermediate_size")
    width = keys.whole("shared_expert_intermediate_size", 0, least=0)
    sparse = stepped(keys, sizes["layers"])
    gates = len(sparse) * sizes["hidden"] if width else 0
    return (
        sizes
        | _stepped_experts(keys, sizes["layers"], sparse)
        | shared_width(width, wide)
        | {"small_parameters": sizes["small_parameters"] + gates}
    )


def qwen3_moe(keys: Keys) -> dict[str, Any]:
    sizes = grouped(keys, head_norms=True)
    return sizes | _stepped_experts(keys, sizes["layers"], stepped(keys, sizes["layers"]))


def _stepped_experts(keys: Keys, layers: int, sparse: list[int]) -> dict[str, Any]:
    return (
        placed(keys, layers, sparse)
        | optional_windows(keys, layers)
        | {
            "ffn": keys.whole("intermediate_size", 0, least=0),
            "experts": keys.whole("num_experts"),
            "top_k": keys.whole("num_experts_per_tok"),
            "expert_ffn": keys.whole("moe_intermediate_size"),
        }
    )


def mixtral(keys: Keys) -> dict[str, Any]:
    sizes = grouped(keys)
    return (
        sizes
        | windows(keys, sizes["layers"], sizes["layers"])
        | {
            "ffn": 0,
            "dense_layers": 0,
            "experts": keys.whole("num_local_experts"),
            "top_k": keys.whole("num_experts_per_tok"),
            "expert_ffn": keys.whole("intermediate_size"),
        }
    )


def gpt_oss(keys: Keys) -> dict[str, Any]:
    """Experts with biases and clamped gates, a learned sink per head, a sliding window in every other layer."""
    sizes = grouped(keys)
    layers, hidden, experts = sizes["layers"], sizes["hidden"], keys.whole("num_local_experts")
    ffn = keys.whole("intermediate_size")
    keys.spared("experts_per_token")
    # sinks; bias of the router; biases of every expert's gate, up and down
    small = sizes["heads"] + experts + experts * (2 * ffn + hidden)
    return (
        sizes
        | windows(keys, layers, layers // 2)
        | {
            "ffn": 0,
            "dense_layers": 0,
            "experts": experts,
            "top_k": keys.whole("num_experts_per_tok"),
            "expert_ffn": ffn,
            "bounded": True,
            "small_parameters": sizes["small_parameters"] + layers * small,
        }
    )


def glm4_moe(keys: Keys) -> dict[str, Any]:
    """The first layers dense; biases of queries, keys and values alone; routing corrected by a bias."""
    sizes = grouped(keys, head_norms=keys.flag("use_qk_norm", False), out_bias=False)
    layers, experts = sizes["layers"], keys.whole("n_routed_experts")
    first = keys.whole("first_k_dense_replace", 0, least=0)
    sparse = range(min(first, layers), layers)
    return (
        sizes
        | placed(keys, layers, sparse)
        | {
            "ffn": keys.whole("intermediate_size"),
            "experts": experts,
            "top_k": keys.whole("num_experts_per_tok"),
            "expert_ffn": keys.whole("moe_intermediate_size"),
            "shared_experts": keys.whole("n_shared_experts", 0, least=0),
            "expert_groups": keys.whole("n_group", 1),
            "topk_groups": keys.whole("topk_group", 1),
            "mtp_layers": keys.whole("num_nextn_predict_layers", 0, least=0),
            "small_parameters": sizes["small_parameters"] + len(sparse) * experts,
        }
    )


def minimax_m2(keys: Keys) -> dict[str, Any]:
    """Norms over all heads of queries and of keys together; routing corrected by a bias."""
    sizes = grouped(keys)
    layers, experts = sizes["layers"], keys.whole("num_local_experts")
    full = keys.get("attn_type_list", [1] * layers)
    if full != [1] * layers:
        keys.complain("attn_type_list", "every layer of this family has full attention: a 1 for each layer")
    keys.spared("mlp_intermediate_size", "qk_norm_type")
    width = keys.whole("shared_intermediate_size", 0, least=0)
    wide = keys.whole("intermediate_size")
    normed = (sizes["heads"] + sizes["kv_heads"]) * sizes["head_dim"] if keys.flag("use_qk_norm", True) else 0
    return (
        sizes
        | shared_width(width, wide)
        | {
            "ffn": 0,
            "dense_layers": 0,
            "experts": experts,
            "top_k": keys.whole("num_experts_per_tok"),
            "expert_ffn": wide,
            "small_parameters": sizes["small_parameters"] + layers * (normed + experts),
        }
    )


def llama4(keys: Keys) -> dict[str, Any]:
    """Experts in every so many-th layer, one of them shared; chunks of attention where positions are rotary."""
    sizes = grouped(keys)
    layers = sizes["layers"]
    step = keys.whole("interleave_moe_layer_step", 1)
    named = keys.numbers("moe_layers", below=layers)
    sparse = named or set(range(step - 1, layers, step))
    keys.spared("use_qk_norm")  # without weights
    wide = keys.whole("intermediate_size")
    return (
        sizes
        | placed(keys, layers, sparse)
        | _chunks(keys, layers)
        | {
            "ffn": keys.whole("intermediate_size_mlp"),
            "experts": keys.whole("num_local_experts"),
            "top_k": keys.whole("num_experts_per_tok", 1),
            "expert_ffn": wide,
            "shared_experts": 1,
        }
    )


def _chunks(keys: Keys, layers: int) -> dict[str, Any]:
    length = keys.whole("attention_chunk_size", 0, least=0)
    kinds = keys.words("layer_types", layers, ("full_attention", "chunked_attention"))
    rotary = keys.get("no_rope_layers")
    every = keys.whole("no_rope_layer_interval", 4)
    if kinds is not None:
        narrow = kinds.count("chunked_attention")
    elif isinstance(rotary, list) and len(rotary) == layers:
        narrow = sum(bool(one) for one in rotary)
    else:
        narrow = layers - layers // every
    return {"window": length, "window_layers": narrow, "chunked": True} if length and narrow else {}


def hunyuan_moe(keys: Keys) -> dict[str, Any]:
    """Sizes of experts stand in a list, one for each layer; a shared expert beside the routed ones."""
    named = "head_dim" if keys.data.get("head_dim") is not None else "attention_head_dim"
    sizes = grouped(keys, head_norms=keys.flag("use_qk_norm", True), head_key=named)
    layers, ffn = sizes["layers"], keys.whole("intermediate_size")
    first = keys.whole("moe_layer_num_skipped", 0, least=0)
    keys.must_be("mlp_bias", False, "experts without biases")
    wide = keys.alike("moe_intermediate_size", ffn)
    keys.spared("attention_head_dim", "use_mixed_mlp_moe")
    shared = keys.alike("num_shared_expert", 1, least=0) if keys.data.get("use_mixed_mlp_moe") is not False else 0
    return (
        sizes
        | placed(keys, layers, range(min(first, layers), layers))
        | shared_width(shared * ffn, wide)
        | {
            "ffn": ffn if first else 0,
            "experts": keys.alike("num_experts"),
            "top_k": keys.alike("moe_topk"),
            "expert_ffn": wide,
        }
    )


def ernie_moe(keys: Keys) -> dict[str, Any]:
    """Experts in every so many-th layer of a stretch; routing corrected by a bias."""
    keys.must_be("use_bias", False, "experts without biases")
    sizes = grouped(keys, bias="use_bias", tied=True)
    layers, experts = sizes["layers"], keys.whole("moe_num_experts")
    start, step = keys.whole("moe_layer_start_index", 1, least=0), keys.whole("moe_layer_interval", 1)
    end = keys.get("moe_layer_end_index", -1)
    last = layers - 1 if end == -1 else keys.whole("moe_layer_end_index", layers - 1, least=0)
    sparse = [n for n in range(layers) if (n + 1) % step == 0 and start <= n <= last]
    return (
        sizes
        | placed(keys, layers, sparse)
        | {
            "ffn": keys.whole("intermediate_size"),
            "experts": experts,
            "top_k": keys.whole("moe_k", 6),
            "expert_ffn": keys.whole("moe_intermediate_size"),
            "shared_experts": keys.whole("moe_num_shared_experts", 0, least=0),
            "small_parameters": sizes["small_parameters"] + len(sparse) * experts,
        }
    )


def pangu_pro_moe(keys: Keys) -> dict[str, Any]:
    """Experts in groups, and one shared expert as wide as several routed ones."""
    sizes = grouped(keys, qkv_bias=True)
    wide, shared = keys.whole("moe_intermediate_size"), keys.whole("shared_expert_intermediate_size", 0, least=0)
    keys.spared("intermediate_size")  # no layer is dense
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
