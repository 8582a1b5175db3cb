"""Latent attention (MLA) on one device: prefill with expanded heads, decode with absorbed projections.

One latent of ``rank`` elements and one rotated key of ``rope`` serve all heads. A prefill expands them to keys of
``nope + rope`` and values of ``value`` elements a head, then is `prefill_parts` of as many key-value heads as heads.
A decode step absorbs the expansion into queries and outputs: queries of ``rank + rope`` meet the cache itself, one
head of the cache for all query heads, and sums of ``rank`` come out: `decode_parts` with one wide group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cmsim.arrays import Floats
from cmsim.kernels.attention import DECODE_DEFAULTS, PREFILL_DEFAULTS, Parts, decode_parts, prefill_parts
from cmsim.kernels.machine import Machine


class Latent(NamedTuple):
    """Elements of a latent, of the rotated part of a key, of the rest of an expanded key, of an expanded value. [1]"""

    rank: float
    rope: float
    nope: float
    value: float


MLA_PREFILL_DEFAULTS = {**PREFILL_DEFAULTS, "compute": 0.75}
MLA_DECODE_DEFAULTS = {**DECODE_DEFAULTS, "compute": 0.65, "token_memory": 0.6}
#: no split of the cache: where each sequence has one worker, however few they are
MLA_UNSPLIT = {**MLA_DECODE_DEFAULTS, "splits": 1.0, "compute": 0.3, "block_us": 7.0}
#: fits try each: products of 64 rows, or of 128
MLA_DECODE_STARTS = tuple(
    {**one, "tile_rows": rows} for one in (MLA_DECODE_DEFAULTS, MLA_UNSPLIT) for rows in (64.0, 128.0)
)


def mla_prefill_parts(
    c: Mapping[str, float],
    machine: Machine,
    *,
    sequences: Floats,
    tokens: Floats,
    heads: Floats,
    prefix: Floats,
    latent: Latent,
    precision: str,
    in_B: float,
) -> Parts:
    """The expanded core of ``sequences`` prompts; constants are those of `prefill_parts`. The expansion is a GEMM."""
    same = np.ones(len(tokens))
    return prefill_parts(
        c,
        machine,
        sequences=sequences,
        tokens=tokens,
        heads=heads,
        kv_heads=heads,
        d_qk=(latent.nope + latent.rope) * same,
        d_v=latent.value * same,
        prefix=prefix,
        window=0.0 * same,
        precision=precision,
        in_B=in_B,
        kv_B=in_B,
        written=(latent.rank + latent.rope) * same,
    )


def mla_decode_parts(
    c: Mapping[str, float],
    machine: Machine,
    *,
    sequences: Floats,
    context: Floats,
    heads: Floats,
    latent: Latent,
    precision: str,
    in_B: float,
    kv_B: float,
    queries: Floats | float = 1.0,
) -> Parts:
    """One absorbed step of ``queries`` new tokens a sequence; constants are those of `decode_parts`.

    The absorbing products are GEMMs.
    """
    same = np.ones(len(context))
    return decode_parts(
        c,
        machine,
        sequences=sequences,
        context=context,
        heads=heads,
        kv_heads=same,
        d_qk=(latent.rank + latent.rope) * same,
        d_v=latent.rank * same,
        cached=(latent.rank + latent.rope) * same,
        window=0.0 * same,
        precision=precision,
        in_B=in_B,
        kv_B=kv_B,
        queries=queries,
    )
