"""The attention core (scores, softmax, weighted sum) and the cache it reads. Projections are GEMMs, priced apart.

``heads`` are the query heads of one rank, ``kv_heads`` its key-value heads: equal for multi-head attention, fewer
for grouped queries, 1 for a single shared head. ``d_qk`` and ``d_v`` are the sizes of a query-key and of a value
head. Latent attention (MLA) caches one vector of ``kv_lora_rank + rope_dim`` per token for all heads.

The kernels are of the fused kind: scores never reach memory. Arguments broadcast; for sequences of unlike
lengths, sum the columns. Softmax arithmetic is left out, as it is in published FLOP counts.
"""

from __future__ import annotations

import numpy as np

from cmsim.compute.gemm import gemm
from cmsim.compute.work import Column, Work


def attention_prefill(
    queries: Column,
    context: Column,
    *,
    heads: Column,
    kv_heads: Column,
    d_qk: int,
    d_v: int,
    element_bytes: float,
    kv_bytes: float | None = None,
    causal: bool = True,
    sequences: Column = 1,
    window: Column | None = None,
) -> Work:
    """Attention of ``queries`` new tokens over ``context`` keys, the new ones included (so queries <= context).

    flops = 2 pairs heads (d_qk + d_v), pairs = s L, or s (L - s/2) if causal: half the square for s = L, as
    published counts have it (the diagonal's half token is left out). In a window w the first w - (L - s) queries see
    all that is before them, the others w.
    bytes = Q and O of the queries, K and V of the context, or of what windows reach of it, each once.

    element_bytes: of Q and O [B]    kv_bytes: of K and V, default ``element_bytes`` [B]
    sequences: alike sequences in the batch [1]    window: tokens that one sees at most, itself included; causal only
    """
    kv = element_bytes if kv_bytes is None else kv_bytes
    pairs = queries * (context - queries / 2) if causal else queries * context
    read = context
    if window is not None:
        growing = np.clip(window - (context - queries), 0.0, queries)
        pairs = growing * (context - queries + growing / 2) + (queries - growing) * window
        read = np.minimum(context, queries + window)
    width = d_qk + d_v
    flops = 2.0 * pairs * heads * width
    bytes_B = (queries * heads * element_bytes + read * kv_heads * kv) * width
    return Work(flops * sequences, bytes_B * sequences)


def attention_decode(
    q_tokens: Column,
    context: Column,
    *,
    heads: Column,
    kv_heads: Column,
    d_qk: int,
    d_v: int,
    element_bytes: float,
    kv_bytes: float | None = None,
    sequences: Column = 1,
) -> Work:
    """One decode step of ``sequences`` sequences with ``q_tokens`` new tokens each (more than 1: speculation).

    flops = 2 q L heads (d_qk + d_v);  bytes = K and V of L tokens, read once for all query tokens and all heads of
    a group, plus Q and O. Intensity tends to 2 q (heads / kv_heads) / kv_bytes.

    Leaves out: the gather loss of a paged cache, the second pass of split-KV kernels.
    """
    kv = element_bytes if kv_bytes is None else kv_bytes
    width = d_qk + d_v
    flops = 2.0 * q_tokens * context * heads * width
    bytes_B = (context * kv_heads * kv + q_tokens * heads * element_bytes) * width
    return Work(flops * sequences, bytes_B * sequences)


def mla_prefill(
    queries: Column,
    context: Column,
    *,
    heads: Column,
    d_qk: int,
    d_v: int,
    element_bytes: float,
    causal: bool = True,
    sequences: Column = 1,
) -> Work:
    """Latent attention over a prompt, not absorbed: keys and values are expanded to all heads first.

    The core is then multi-head attention with d_qk = nope + rope. Add `mla_expand` for the expansion.
    """
    return attention_prefill(
        queries,
        context,
        heads=heads,
        kv_heads=heads,
        d_qk=d_qk,
        d_v=d_v,
        element_bytes=element_bytes,
        causal=causal,
        sequences=sequences,
    )


def mla_expand(
    context: Column,
    *,
    heads: Column,
    kv_lora_rank: int,
    nope_dim: int,
    d_v: int,
    element_bytes: float,
    latent_bytes: float | None = None,
    weight_bytes: float | None = None,
) -> Work:
    """Keys and values of ``context`` tokens from their latents: a GEMM (kernel class gemm) of a prefill.

    latent_bytes: of one element of the cached latent, default ``element_bytes`` [B]
    """
    return gemm(
        context,
        heads * (nope_dim + d_v),
        kv_lora_rank,
        in_bytes=element_bytes if latent_bytes is None else latent_bytes,
        out_bytes=element_bytes,
        weight_bytes=element_bytes if weight_bytes is None else weight_bytes,
    )


def mla_decode(
    q_tokens: Column,
    context: Column,
    *,
    heads: Column,
    kv_lora_rank: int,
    rope_dim: int,
    element_bytes: float,
    kv_bytes: float | None = None,
    sequences: Column = 1,
) -> Work:
    """One decode step of latent attention, absorbed: queries meet the latents themselves.

    flops = 2 q L heads ((r + rope) + r), r = ``kv_lora_rank``;  bytes = L (r + rope) of a sequence, read once for
    all heads and all query tokens, plus Q and O. Splitting heads over ranks does not split the latents.
    The absorbing products with the up-projections are GEMMs of their own (heads times (nope, r) and (r, d_v)).
    """
    kv = element_bytes if kv_bytes is None else kv_bytes
    latent = kv_lora_rank + rope_dim
    width = latent + kv_lora_rank
    flops = 2.0 * q_tokens * context * heads * width
    bytes_B = context * latent * kv + q_tokens * heads * width * element_bytes
    return Work(flops * sequences, bytes_B * sequences)


def kv_bytes_per_token(kv_heads: Column, d_qk: int, d_v: int, *, element_bytes: float) -> Column:
    """Cache of one token in one layer, keys and values per head. [B]

    >>> kv_bytes_per_token(8, 128, 128, element_bytes=2)
    4096
    """
    return kv_heads * (d_qk + d_v) * element_bytes


def mla_kv_bytes_per_token(kv_lora_rank: int, rope_dim: int, *, element_bytes: float) -> float:
    """Cache of one token in one layer of latent attention. [B]

    >>> mla_kv_bytes_per_token(512, 64, element_bytes=2)
    1152
    """
    return (kv_lora_rank + rope_dim) * element_bytes
