"""Matrix multiplication on one device: C (m, n) = A (m, k) B (k, n), as libraries run it.

    T     = host or (fixed + body + quantise), smoothly the larger, + ragged where m is no multiple of 4
    body  = smooth maximum of the best tiling's time on the cores and of the bytes over memory
    tiling: tiles = groups ceil(m/tm) ceil(n/tn) split;  waves = ceil(tiles / cores)
            cores' time = waves (k/split + k0) max(2 tm tn / core rate, (tm in + tn weight) / core_GBps)
            at least bytes / (busy cores x draw_GBps); split > 1 adds split_us and 8 m n split bytes in the cache
    bytes = m k in + k n weight + m n out; of those that stay in the cache the rate is (1 + cache_gain) times memory's
    quantise = k max(m / cores, 1) / quantise_rate, of kernels that round A inside the timed region

Leaves out: clocks that fall under load, the order of tiles, which of several close tilings a library's heuristic takes.
Source: CUTLASS documentation, efficient_gemm (tiles, split-K); NVIDIA, Matrix Multiplication Background, sections
on tile and wave quantisation. Constants are fitted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.kernels.machine import Machine

#: share of peaks, time [us], rates of one core [GB/s], and what the module says
GEMM_DEFAULTS: dict[str, float] = {
    "compute": 0.85,
    "memory": 0.85,
    "fixed_us": 3.0,
    "k0": 150.0,
    "core_GBps": 100.0,
    "draw_GBps": 60.0,
    "cache_MB": 20.0,
    "cache_gain": 1.0,
    "split_us": 2.0,
    "sharp": 4.0,
}
#: shares of peaks
GEMM_SHARES = ("compute", "memory")
#: how far constants may go from where they start, in the logarithm; those not named here 1
GEMM_WIDTH: dict[str, float] = {
    "compute": 0.3,
    "memory": 0.3,
    "fixed_us": 1.5,
    "core_GBps": 0.7,
    "draw_GBps": 0.7,
    "cache_MB": 0.7,
    "sharp": 0.5,
    "ragged_us": 1.5,
    "splits": 1e-3,
    "by_rows": 1e-3,
    "tile_m": 1e-3,
    "tile_n": 1e-3,
}
#: rows and columns of C that one core makes at a time
TILES = ((64, 64), (64, 128), (64, 256), (128, 64), (128, 128), (128, 256), (256, 64), (256, 128))
SPLITS = (1, 2, 4, 8, 16)


def gemm_kernel_us(
    c: Mapping[str, float],
    machine: Machine,
    *,
    m: Floats,
    n: Floats,
    k: Floats,
    precision: str,
    in_B: float,
    weight_B: float,
    out_B: float,
    groups: Floats | float = 1.0,
) -> Floats:
    """Time of C = A B. [us]

    c: GEMM_DEFAULTS, and where the kernel has them host_us, ragged_us [us], quantise_rate (elements of one core in a
    ns), splits (at most so many, [1]), by_rows (the tile is 64 x 64 up to 64 rows times this, 64 x 128 up to twice
    that, else 128 x 128; without it the best), tile_m and tile_n (the only tile)
    in_B, weight_B, out_B: of an element of A, B, C [B]    groups: alike products with weights of their own, launched
    together [1]
    """
    total_B = groups * (m * k * in_B + k * n * weight_B + m * n * out_B)
    memory_Bps = machine.memory_Bps * c["memory"]
    stays = 1.0 / (1.0 + (total_B / (c["cache_MB"] * 1e6)) ** 2)
    memory = total_B * (1.0 - stays + stays / (1.0 + c["cache_gain"])) / memory_Bps
    cores = _cores_s(c, machine, m, n, k, groups, precision, in_B, weight_B, total_B)
    time = c["fixed_us"] + 1e6 * larger(cores, memory, min(c["sharp"], 50.0))
    if "quantise_rate" in c:
        time = time + 1e-3 * k * np.maximum(m / machine.cores, 1.0) / c["quantise_rate"]
    if "host_us" in c:
        time = larger(time, np.full(len(m), c["host_us"]), 8.0)
    if "ragged_us" in c:
        time = time + c["ragged_us"] * (m % 4 != 0)
    return time


def _cores_s(
    c: Mapping[str, float],
    machine: Machine,
    m: Floats,
    n: Floats,
    k: Floats,
    groups: Floats | float,
    precision: str,
    in_B: float,
    weight_B: float,
    total_B: Floats,
) -> Floats:
    """Time on the cores of the best tiling. [s]"""
    rate = machine.peak_FLOPps[precision] * c["compute"] / machine.cores
    cores = machine.cores
    draw = total_B / (c["draw_GBps"] * 1e9)

    def time(tiles: Floats, length: Floats, tm: Floats | float, tn: Floats | float) -> Floats:
        step = np.maximum(2.0 * tm * tn / rate, (tm * in_B + tn * weight_B) / (c["core_GBps"] * 1e9))
        found: Floats = np.maximum(np.ceil(tiles / cores) * length * step, draw / np.minimum(tiles, cores))
        return found

    if "by_rows" in c:
        few, some = m <= 64.0 * c["by_rows"], m <= 128.0 * c["by_rows"]
        tall, wide = np.where(some, 64.0, 128.0), np.where(few, 64.0, 128.0)
        return time(groups * np.ceil(m / tall) * np.ceil(n / wide), k + c["k0"], tall, wide)
    if "tile_m" in c:
        tm, tn = c["tile_m"], c["tile_n"]
        return time(groups * np.ceil(m / tm) * np.ceil(n / tn), k + c["k0"], tm, tn)
    merge = 8.0 * groups * m * n / (machine.memory_Bps * c["memory"] * (1.0 + c["cache_gain"]))
    down = {tm: groups * np.ceil(m / tm) for tm in {tm for tm, _ in TILES}}
    across = {tn: np.ceil(n / tn) for tn in {tn for _, tn in TILES}}
    best = np.full(len(m), np.inf)
    for split in SPLITS:
        if split > c.get("splits", SPLITS[-1]):
            break
        length = k / split + c["k0"]
        extra = c["split_us"] * 1e-6 + split * merge if split > 1 else 0.0
        for tm, tn in TILES:
            np.minimum(best, time(down[tm] * across[tn] * split, length, tm, tn) + extra, out=best)
    return best


def larger(one: Floats, other: Floats, sharp: float) -> Floats:
    """A maximum that is smooth where both are alike: (a^p + b^p)^(1/p)."""
    high, low = np.maximum(one, other), np.minimum(one, other)
    out: Floats = high * (1.0 + (low / high) ** sharp) ** (1.0 / sharp)
    return out
