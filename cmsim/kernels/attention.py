"""Attention of the fused kind on one device: prefill and decode, from columns to microseconds.

Both are two kernels in a row. The first (``prepare``) reads the projections, rotates, and writes queries and cache;
it is all bytes. The second (``core``) walks over blocks of keys. ``*_parts`` return what the time is made of, as
columns; those of the core bind side by side (a smooth maximum), the others add up.

``heads`` are query heads of one rank, ``kv_heads`` heads of the cache, ``window`` the tokens a query sees (0: all).
Times in us, sizes in elements; ``*_B`` are bytes of one element.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.kernels.machine import Machine

Parts = dict[str, Floats]

#: rows of queries and of keys that a block of prefill takes
BLOCK = 128.0
#: keys of a block of decode
KEYS = 64.0
#: bytes of an element of the projections that the first kernel reads, and of the output
WIDE_B = 2.0

#: where fits start; a device without rows and relatives has these
PREFILL_DEFAULTS: dict[str, float] = {
    "fixed_us": 12.0,
    "memory": 0.6,
    "cache_memory": 0.6,
    "compute": 0.7,
    "softmax_Gpps": 30.0,
    "wide": 0.1,
    "edge": 0.1,
    "short": 0.2,
    "tail": 0.5,
    "tile_us": 2.0,
}
DECODE_DEFAULTS: dict[str, float] = {
    "fixed_us": 8.0,
    "memory": 0.85,
    "token_memory": 0.3,
    "compute": 0.3,
    "pad": 16.0,
    "block_us": 0.5,
    "depth": 1.5,
    "splits": 64.0,
    "split_us": 2.0,
    "long_us": 0.3,
    "skip": 0.05,
    "tile_rows": 64.0,
}
#: shares of peaks
PREFILL_SHARES = ("memory", "cache_memory", "compute", "short")
DECODE_SHARES = ("memory", "token_memory", "compute")
#: how far fits may take them, in the logarithm, where less than 1
PREFILL_WIDTH: dict[str, float] = {"compute": 0.15, "memory": 0.3, "tail": 0.5}
DECODE_WIDTH: dict[str, float] = {
    "memory": 0.05,
    "pad": 0.3,
    "depth": 0.1,
    "skip": 1.5,
    "splits": 1.5,
    "tile_rows": 1e-3,
}


def smooth_max(*times: Floats) -> Floats:
    """The largest, rounded where two come close: the fourth root of the sum of fourth powers."""
    most = np.maximum.reduce(list(times))
    safe = np.maximum(most, 1e-12)
    total = np.zeros(len(safe))
    for time in times:
        square = (time / safe) ** 2
        total += square * square
    out: Floats = safe * np.sqrt(np.sqrt(total))
    return out


def prefill_parts(
    c: Mapping[str, float],
    machine: Machine,
    *,
    sequences: Floats,
    tokens: Floats,
    heads: Floats,
    kv_heads: Floats,
    d_qk: Floats,
    d_v: Floats,
    prefix: Floats,
    window: Floats,
    precision: str,
    in_B: float,
    kv_B: float,
    written: Floats | None = None,
) -> Parts:
    """Causal attention of ``sequences`` prompts of ``tokens`` each, after ``prefix`` tokens of the cache.

    ``written``: elements that a token gets in the cache, default keys and values of its heads.

    A query block of a head visits the key blocks up to its own, within the window; a block takes

        block = 4 BLOCK^2 d / (peak compute / cores) + BLOCK^2 / softmax

    for its two products and its exponentials, which share one pipeline's time. Blocks go over the cores in
    waves; a core is never done before the longest row of blocks is. Prompts shorter than a block fill it in part.

    compute: share of peak in the products    softmax_Gpps: exponentials of one core [1e9/s]
    wide: products of heads beyond 128 take that much longer, added to 1    edge: blocks that a window cuts, likewise
    short: least share of a block that a short prompt takes    tail: share of the longest row that the last wave leaves
    tile_us: to start and to end a query block    memory, cache_memory: shares of bandwidth, of queries and of the cache
    """
    n = np.ceil(tokens / BLOCK)
    before = np.ceil(prefix / BLOCK)
    cut = (window > 0) & (window < tokens + prefix)
    most = np.where(cut, np.ceil(window / BLOCK) + 1.0, before + n)
    growing = np.clip(most - before, 0.0, n)
    longest = np.minimum(most, before + n)
    visits = growing * before + growing * (growing + 1.0) / 2.0 + (n - growing) * most
    rows = sequences * heads
    short = np.where(tokens < BLOCK, np.maximum(tokens / BLOCK, c["short"]), 1.0)
    core_FLOPps = machine.peak_FLOPps[precision] / machine.cores
    pairs = BLOCK * BLOCK
    # wide accumulators leave fewer registers to run ahead with
    slow = np.where(d_qk > BLOCK, 1.0 + c["wide"], 1.0)
    masked = np.where(cut, 1.0 + c["edge"], 1.0) * short
    product = 2.0 * pairs * (d_qk + d_v) * slow / (core_FLOPps * c["compute"]) * 1e6 * masked
    exponent = pairs / (c["softmax_Gpps"] * 1e3) * masked
    per_core = visits * rows / machine.cores
    waves = smooth_max(per_core + c["tail"] * np.minimum(longest, per_core), longest)
    tiles = n * rows
    starts = c["tile_us"] * np.maximum(tiles / machine.cores, 1.0)
    count = sequences * tokens
    query_B = count * heads * (d_qk * (WIDE_B + in_B))
    cache_B = count * (kv_heads * (d_qk + d_v) if written is None else written) * (WIDE_B + kv_B)
    rate = machine.memory_Bps * 1e-6
    prepare = query_B / (rate * c["memory"]) + cache_B / (rate * c["cache_memory"])
    read_B = count * heads * (d_qk * in_B + d_v * WIDE_B) + (
        (count + sequences * prefix) * kv_heads * (d_qk + d_v) * kv_B
    )
    memory = read_B / (rate * c["memory"])
    compute = waves * (product + exponent) + starts
    core = smooth_max(compute, memory)
    return {
        "flops": 2.0 * visits * rows * pairs * (d_qk + d_v),
        "bytes_B": query_B + cache_B + read_B,
        "tiles": tiles,
        "waves": tiles / machine.cores,
        "fixed_us": np.full(len(count), c["fixed_us"]),
        "prepare_us": prepare,
        "product_us": waves * product,
        "softmax_us": waves * exponent,
        "start_us": starts,
        "compute_us": compute,
        "memory_us": memory,
        "core_us": core,
        "physics_us": c["fixed_us"] + prepare + core,
    }


def decode_parts(
    c: Mapping[str, float],
    machine: Machine,
    *,
    sequences: Floats,
    context: Floats,
    heads: Floats,
    kv_heads: Floats,
    d_qk: Floats,
    d_v: Floats,
    cached: Floats,
    window: Floats,
    precision: str,
    in_B: float,
    kv_B: float,
    each: bool = False,
    queries: Floats | float = 1.0,
) -> Parts:
    """``queries`` new tokens of each of ``sequences`` sequences over ``context`` tokens, the new ones included.

    ``cached``: elements that a token has in the cache, for one of its heads. One worker reads the cache of one head of
    one sequence for the query heads of its group, block after block, in matrix products of at most ``tile_rows`` rows;
    for more there are more workers. With ``each`` there is a worker for every query head, which multiplies on vector
    units. Where workers are fewer than places, the cache is split among several, whose parts a second pass joins. New
    tokens of a sequence are more rows of its groups: they share what is read, and each has its own arithmetic. Time
    of the core is the smooth maximum of

        chain    blocks of a worker, one after the other: no worker is faster than its own loads
        memory   bytes of the cache, of queries and of outputs over bandwidth
        compute  both products, the rows of a group padded to ``pad``

    depth: workers on a core [1]    splits: at most [1]    split_us: of the second pass
    long_us: a doubling of the blocks beyond one, where kernels choose, schedule and drain
    skip: of a block's time what one before the window takes
    token_memory: share of bandwidth for what comes before: the new tokens' projections read, queries and cache written
    """
    seen = np.where(window > 0, np.minimum(window, context), context)
    blocks = np.ceil(seen / KEYS)
    # a worker's share is cut from the whole context, and its blocks before the window are stepped over
    steps = blocks + c["skip"] * (np.ceil(context / KEYS) - blocks)
    group = heads / kv_heads
    rows = group * queries
    padded = smooth_max(rows, np.full(len(group), c["pad"]))
    workers = sequences * (heads if each else kv_heads * np.ceil(rows / np.rint(c["tile_rows"])))
    places = machine.cores * c["depth"]
    splits = np.clip(places / workers, 1.0, np.maximum(np.minimum(steps, c["splits"]), 1.0))
    waves = smooth_max(workers * splits / places, np.ones(len(workers)))
    chain = waves * np.maximum(steps / splits, 1.0) * c["block_us"]
    rate = machine.memory_Bps * 1e-6
    ends_B = sequences * queries * heads * (d_qk * in_B + d_v * WIDE_B)
    # of new tokens in a row each window begins a token later
    read = np.minimum(seen + queries - 1.0, context)
    core_B = sequences * kv_heads * read * cached * kv_B + ends_B
    memory = core_B / (rate * c["memory"])
    flops = 2.0 * sequences * (heads * queries if each else kv_heads * padded) * seen * (d_qk + d_v)
    peak_FLOPps = machine.vector_FLOPps if each else machine.peak_FLOPps[precision]
    compute = flops / (peak_FLOPps * 1e-6 * c["compute"])
    token_B = sequences * queries * (heads * d_qk * (WIDE_B + in_B) + kv_heads * cached * (WIDE_B + kv_B))
    prepare = token_B / (rate * c["token_memory"])
    combine = c["split_us"] * (1.0 - 1.0 / splits) + c["long_us"] * np.log2(steps)
    core = smooth_max(chain, memory, compute)
    return {
        "flops": flops,
        "bytes_B": core_B + token_B,
        "tiles": workers * splits,
        "waves": workers * splits / places,
        "splits": splits,
        "fixed_us": np.full(len(workers), c["fixed_us"]),
        "prepare_us": prepare,
        "combine_us": combine,
        "chain_us": chain,
        "compute_us": compute,
        "memory_us": memory,
        "core_us": core,
        "physics_us": c["fixed_us"] + prepare + combine + core,
    }
