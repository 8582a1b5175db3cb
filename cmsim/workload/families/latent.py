"""Families with latent attention and shared experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmsim.workload.families.keys import Keys
from cmsim.workload.families.mixtures import placed


def latent(keys: Keys, *, named: Mapping[str, str], norms: int = 2) -> dict[str, Any]:
    """Latent attention and shared experts. ``named``: the family's own word for a size."""
    hidden, layers, heads = (
        keys.whole("hidden_size"),
        keys.layers(),
        keys.whole("num_attention_heads"),
    )
    q_rank, kv_rank = keys.whole(named["q_lora_rank"], 0, least=0), keys.whole(named["kv_lora_rank"])
    nope_dim, rope_dim = keys.whole(named["nope_dim"]), keys.whole(named["rope_dim"])
    keys.spared("num_key_value_heads", "head_dim", "qk_head_dim")
    small = norms * hidden + q_rank + kv_rank
    if keys.flag("attention_bias", False):
        # of what goes down to latents, and of the output
        small += q_rank + kv_rank + rope_dim + hidden
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": nope_dim + rope_dim,
        "v_head_dim": keys.whole(named["v_head_dim"]),
        "attention": "mla",
        "q_lora_rank": q_rank,
        "kv_lora_rank": kv_rank,
        "nope_dim": nope_dim,
        "rope_dim": rope_dim,
        "vocab": keys.whole("vocab_size"),
        "max_positions": keys.whole("max_position_embeddings"),
        "tied_embeddings": keys.flag("tie_word_embeddings", False),
        "ffn": keys.whole("intermediate_size"),
        "dense_layers": keys.whole(named["dense_layers"], least=0),
        "experts": keys.whole(named["experts"]),
        "top_k": keys.whole("num_experts_per_tok"),
        "shared_experts": keys.whole(named["shared_experts"], 0, least=0),
        "expert_ffn": keys.whole("moe_intermediate_size"),
        "expert_groups": keys.whole("n_group", 1),
        "topk_groups": keys.whole("topk_group", 1),
        "mtp_layers": keys.whole(named["mtp_layers"], 0, least=0),
        "small_parameters": layers * small + hidden,
    }


def deepseek(keys: Keys) -> dict[str, Any]:
    named = {
        "q_lora_rank": "q_lora_rank",
        "kv_lora_rank": "kv_lora_rank",
        "nope_dim": "qk_nope_head_dim",
        "rope_dim": "qk_rope_head_dim",
        "v_head_dim": "v_head_dim",
        "dense_layers": "first_k_dense_replace",
        "experts": "n_routed_experts",
        "shared_experts": "n_shared_experts",
        "mtp_layers": "num_nextn_predict_layers",
    }
    sizes = latent(keys, named=named)
    layers, first, step = sizes["layers"], sizes["dense_layers"], keys.whole("moe_layer_freq", 1)
    if first > layers:
        return sizes  # whoever checks the whole says so
    return sizes | placed(keys, layers, [n for n in range(first, layers) if n % step == 0])


def deepseek_indexed(keys: Keys) -> dict[str, Any]:
    """An indexer chooses the tokens that attention sees: queries of latents, one key of a token, a norm on it."""
    sizes = deepseek(keys)
    dim = keys.whole("index_head_dim")
    return sizes | {
        "index_heads": keys.whole("index_n_heads"),
        "index_dim": dim,
        "index_top": keys.whole("index_topk"),
        "small_parameters": sizes["small_parameters"] + sizes["layers"] * 2 * dim,
    }


def pangu_ultra_moe(keys: Keys) -> dict[str, Any]:
    named = {
        "q_lora_rank": "attention_q_lora_dim",
        "kv_lora_rank": "attention_kv_lora_dim",
        "nope_dim": "attention_qk_dim",
        "rope_dim": "attention_qk_rope_dim",
        "v_head_dim": "attention_v_dim",
        "dense_layers": "num_dense_layers",
        "experts": "num_routed_experts",
        "shared_experts": "num_shared_experts",
        "mtp_layers": "num_mtp_layers",
    }
    # sandwich norms: one before and one after both halves of a layer
    return latent(keys, named=named, norms=4)
