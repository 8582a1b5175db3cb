"""Families with learned positions and plain FFNs."""

from __future__ import annotations

from typing import Any

from cmsim.workload.families.keys import Keys


def gpt2(keys: Keys) -> dict[str, Any]:
    hidden, layers, heads = keys.whole("n_embd"), keys.layers("n_layer"), keys.whole("n_head")
    if hidden % heads:
        keys.mismatch("n_head", f"{heads} heads do not divide n_embd {hidden}")
    ffn = keys.whole("n_inner", 4 * hidden)
    positions = keys.whole("n_positions")
    # weight and bias of two norms, biases of the four projections and of the FFN
    small = 4 * hidden + 4 * hidden + ffn + hidden
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": hidden // heads,
        "v_head_dim": hidden // heads,
        "attention": "mha",
        "vocab": keys.whole("vocab_size"),
        "max_positions": positions,
        "tied_embeddings": keys.flag("tie_word_embeddings", True),
        "ffn": ffn,
        "gated": False,
        "dense_layers": layers,
        "small_parameters": layers * small + 2 * hidden,
        "learned_positions": positions,
    }
