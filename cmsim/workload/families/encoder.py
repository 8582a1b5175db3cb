"""Encoders: every token sees every other, and nothing is cached."""

from __future__ import annotations

from typing import Any

from cmsim.workload.families.keys import Keys


def _encoder(keys: Keys, *, qkv_bias: bool = True) -> dict[str, Any]:
    """What vision and text encoders share: biased projections, two norms a layer, plain FFNs."""
    hidden, layers, heads = (
        keys.whole("hidden_size"),
        keys.layers(),
        keys.whole("num_attention_heads"),
    )
    if hidden % heads:
        keys.mismatch("num_attention_heads", f"{heads} heads do not divide hidden_size {hidden}")
    ffn = keys.whole("intermediate_size")
    # two norms with weight and bias; biases of q, k, v, of the output and of the FFN
    small = 4 * hidden + (3 * hidden if qkv_bias else 0) + hidden + ffn + hidden
    return {
        "encoder": True,
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": hidden // heads,
        "v_head_dim": hidden // heads,
        "attention": "mha",
        "ffn": ffn,
        "gated": False,
        "dense_layers": layers,
        "small_parameters": layers * small + 2 * hidden,
    }


def vit(keys: Keys) -> dict[str, Any]:
    """Square patches of an image, one token in front that is classified."""
    sizes = _encoder(keys, qkv_bias=keys.flag("qkv_bias", True))
    image, patch, channels = keys.whole("image_size"), keys.whole("patch_size"), keys.whole("num_channels", 3)
    if image % patch:
        keys.mismatch("patch_size", f"{patch} does not divide image_size {image}")
    labels = keys.get("id2label")
    classes = keys.whole("num_labels", len(labels) if isinstance(labels, dict) else 0, least=0)
    tokens = (image // patch) ** 2 + 1
    hidden = sizes["hidden"]
    return sizes | {
        "vocab": 0,
        "max_positions": tokens,
        "learned_positions": tokens,
        "patch_inputs": channels * patch**2,
        "classes": classes,
        # bias of the patches, the token in front, bias of the classifier
        "small_parameters": sizes["small_parameters"] + 2 * hidden + classes,
    }


def bert(keys: Keys) -> dict[str, Any]:
    """Words, their positions and the sentence they belong to; a pooler on the first token."""
    sizes = _encoder(keys)
    hidden, positions = sizes["hidden"], keys.whole("max_position_embeddings")
    return sizes | {
        "vocab": keys.whole("vocab_size"),
        "max_positions": positions,
        "learned_positions": positions + keys.whole("type_vocab_size", 2, least=0),
        "pooler": True,
        "small_parameters": sizes["small_parameters"] + hidden,
    }
