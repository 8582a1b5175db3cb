"""Families with latent attention and shared experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmsim.workload.families.keys import Keys


def latent(keys: Keys, *, named: Mapping[str, str], norms: int = 2) -> dict[str, Any]:
    """Latent attention and shared experts. ``named``: the family's own word for a size."""
    hidden, layers, heads = (
        keys.whole("hidden_size"),
        keys.whole("num_hidden_layers"),
        keys.whole("num_attention_heads"),
    )
    q_rank, kv_rank = keys.whole(named["q_lora_rank"], 0, least=0), keys.whole(named["kv_lora_rank"])
    nope_dim, rope_dim = keys.whole(named["nope_dim"]), keys.whole(named["rope_dim"])
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
        "small_parameters": layers * (norms * hidden + q_rank + kv_rank) + hidden,
    }


def deepseek(keys: Keys) -> dict[str, Any]:
    keys.must_be("moe_layer_freq", 1, "every layer after the dense ones has experts")
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
    return latent(keys, named=named)


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
