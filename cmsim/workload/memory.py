"""What lies in memory: states of training, activations of a layer, the cache of serving.

Sizes are of one rank, in bytes. ``tp`` ranks split a layer, ``sequence_parallel`` splits the parts between the split
matrices as well. Arguments that are counts may be columns.
"""

from __future__ import annotations

from typing import Literal

from cmsim.compute import Column
from cmsim.errors import InputError
from cmsim.workload.whole import busiest

Recompute = Literal["none", "selective", "full"]


def state_parts_B(
    *,
    stage: int = 0,
    shards: Column = 1,
    weight_bytes: float = 2.0,
    gradient_bytes: float = 2.0,
    optimizer_bytes: float = 12.0,
) -> dict[str, Column]:
    """Weights, gradients and optimizer state of one parameter on one rank, by part. [B]

    stage   what is split over ``shards`` data-parallel ranks: 0 nothing, 1 the optimizer state (the distributed
            optimizer), 2 gradients too, 3 weights too
    optimizer_bytes   Adam in mixed precision: fp32 master weight and two moments

    Source: Rajbhandari et al., SC20, arXiv:1910.02054, fig. 1; Megatron-LM, theoretical_memory_usage.py.
    """
    if stage not in (0, 1, 2, 3):
        raise InputError(f"got ZeRO stage {stage!r}. Allowed: 0, 1, 2, 3.")
    return {
        "weights": weight_bytes / shards if stage > 2 else weight_bytes,
        "gradients": gradient_bytes / shards if stage > 1 else gradient_bytes,
        "optimizer": optimizer_bytes / shards if stage > 0 else optimizer_bytes,
    }


def state_B_per_parameter(
    *,
    stage: int = 0,
    shards: Column = 1,
    weight_bytes: float = 2.0,
    gradient_bytes: float = 2.0,
    optimizer_bytes: float = 12.0,
) -> Column:
    """All of `state_parts_B`: with 16-bit gradients ZeRO's 16 bytes, with fp32 ones Megatron-LM's 18, or 6 + 12/d. [B]

    >>> state_B_per_parameter(stage=1, shards=8, gradient_bytes=4)
    7.5
    """
    parts = state_parts_B(
        stage=stage,
        shards=shards,
        weight_bytes=weight_bytes,
        gradient_bytes=gradient_bytes,
        optimizer_bytes=optimizer_bytes,
    )
    return parts["weights"] + parts["gradients"] + parts["optimizer"]


def activation_B(
    sequence: Column,
    batch: Column,
    hidden: int,
    *,
    ffn: float,
    heads: int,
    gated: bool = False,
    tp: Column = 1,
    sequence_parallel: bool = False,
    recompute: Recompute = "none",
    scores_stored: bool = True,
    ffn_copies: Column = 1.0,
) -> Column:
    """Activations one layer keeps for its backward pass, 16-bit, one micro-batch. [B]

    s b h (8 + 2c + (8 + c g f/h + 5 a s/h) / t), and with sequence parallelism everything over t; c = ``ffn_copies``,
    g = 4, or 6 where gated. For c = 1, f = 4h this is the published s b h (10 + 24/t + 5 a s/(h t)).

    recompute   selective drops the attention scores (5 a s/h); full keeps only the layer's input, 2 s b h
    scores_stored   False: a fused attention kernel, which never stores scores
    ffn_copies  FFNs a token passes: 1; in an MoE layer top_k x imbalance + shared experts, with ``ffn`` one expert's

    Source: Korthikanti et al., MLSys 2023, arXiv:2205.05198, eqs. 1-6 (dropout masks included, which models without
    dropout do not keep); the gate's two stored products are our own count.
    """
    if recompute == "full":
        return 2.0 * sequence * batch * hidden / (tp if sequence_parallel else 1)
    scores = 5.0 * heads * sequence / hidden if scores_stored and recompute == "none" else 0.0
    apart = 8.0 + 2.0 * ffn_copies
    split = 8.0 + ffn_copies * (6.0 if gated else 4.0) * ffn / hidden + scores
    per_element = (apart + split) / tp if sequence_parallel else apart + split / tp
    return sequence * batch * hidden * per_element


def logits_B(sequence: Column, batch: Column, vocab: Column, *, tp: Column = 1, fused: bool = False) -> Column:
    """Logits of the last stage in 16 bits and their fp32 copy for the loss: often the true peak. [B]

    fused: a loss of one kernel, which reads the 16 bits and leaves their gradient in the same place
    """
    return sequence * batch * vocab / tp * (2.0 if fused else 2.0 + 4.0)


def kv_cache_B(
    bytes_per_token: float, tokens: Column, *, tp: int = 1, kv_heads: int = 1, block_tokens: int = 1
) -> Column:
    """Cache of one sequence of ``tokens`` tokens on one rank. [B]

    bytes_per_token   of the whole model (`ModelSpec.kv_bytes_per_token`), or of the layers of one stage
    tp, kv_heads      ranks that split the heads; each holds at least one head. Latent attention has one for all
                      heads, so give 1: its cache is repeated on every rank
    block_tokens      tokens of a page; the last page is held whole
    """
    held = -(-tokens // block_tokens) * block_tokens
    return held * bytes_per_token * busiest(kv_heads, tp) / kv_heads
