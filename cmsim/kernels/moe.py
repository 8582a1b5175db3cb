"""The experts of one layer on one rank: route, gather, two grouped multiplications with an activation between, scatter.

    T       = fixed + tokens route + first + second + move
    grouped = smooth maximum of the best tile's time on the cores and of the bytes over memory
    tile:   tiles = sum over experts of ceil(copies / tm) ceil(n / tn);  waves = ceil(tiles / cores), one launch
            cores' time = waves (k + k0) max(2 tm tn / core rate, (tm in + tn weight) / core_GBps)
            at least bytes / (busy cores x draw_GBps)
    bytes = copies k in + active experts k n weight + copies n out;  n = inner x (2 if gated) / tp and hidden
    move = bytes of gather, activation and scatter / (memory move)

Leaves out: a second copy of loads within a tile, shared experts, what routing itself computes (scores are given).
Source: derived from ``gemm`` and models of grouped multiplication (tiles of all experts in one wave calculation);
loads from ``routing``. Constants are fitted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.kernels.gemm import larger
from cmsim.kernels.machine import Machine
from cmsim.kernels.routing import TILE_ROWS, Loads

MOE_DEFAULTS: dict[str, float] = {
    "compute": 0.7,
    "memory": 0.75,
    "move": 0.4,
    "fixed_us": 25.0,
    "route_ns": 2.0,
    "expert_us": 0.05,
    "k0": 300.0,
    "core_GBps": 80.0,
    "draw_GBps": 60.0,
    "sharp": 3.0,
}
#: shares of peaks
MOE_SHARES = ("compute", "memory", "move")
MOE_WIDTH: dict[str, float] = {
    "compute": 0.4,
    "memory": 0.4,
    "core_GBps": 0.7,
    "draw_GBps": 0.7,
    "sharp": 0.5,
}
_TILE_COLUMNS = (64, 128, 256)


def moe_kernel_us(
    c: Mapping[str, float],
    machine: Machine,
    *,
    loads: Loads,
    tokens: Floats,
    hidden: Floats,
    inner: Floats,
    local_experts: Floats,
    gated: bool,
    precision: str,
    in_B: float,
    weight_B: float,
) -> Floats:
    """Time of the block. [us]

    c: MOE_DEFAULTS    tokens: that the rank sees    inner: columns of one expert on this rank
    in_B, weight_B: of an element of activations and weights [B]
    """
    first, second = (
        grouped_s(c, machine, loads, n=n, k=k, precision=precision, in_B=in_B, weight_B=weight_B)
        for n, k in ((inner * (2.0 if gated else 1.0), hidden), (hidden, inner))
    )
    wide = inner * (3.0 if gated else 2.0)
    moved_B = 2.0 * tokens * hidden * 2.0 + loads.copies * (hidden * (in_B + 2.0) + wide * 2.0)
    move = moved_B / (machine.memory_Bps * c["move"])
    out: Floats = (
        c["fixed_us"] + tokens * c["route_ns"] * 1e-3 + local_experts * c["expert_us"] + 1e6 * (first + second + move)
    )
    return out


def grouped_s(
    c: Mapping[str, float],
    machine: Machine,
    loads: Loads,
    *,
    n: Floats,
    k: Floats,
    precision: str,
    in_B: float,
    weight_B: float,
) -> Floats:
    """Time of one grouped multiplication. [s]"""
    rate = machine.peak_FLOPps[precision] * c["compute"] / machine.cores
    total_B = loads.copies * k * in_B + loads.active * k * n * weight_B + loads.copies * n * 2.0
    draw = total_B / (c["draw_GBps"] * 1e9)
    best = np.full(len(n), np.inf)
    for tm in TILE_ROWS:
        for tn in _TILE_COLUMNS:
            tiles = np.maximum(loads.tiles[tm] * np.ceil(n / tn), 1.0)
            step = max(2.0 * tm * tn / rate, (tm * in_B + tn * weight_B) / (c["core_GBps"] * 1e9))
            waves = np.ceil(tiles / machine.cores)
            np.minimum(
                best, np.maximum(waves * (k + c["k0"]) * step, draw / np.minimum(tiles, machine.cores)), out=best
            )
    return larger(best, total_B / (machine.memory_Bps * c["memory"]), min(c["sharp"], 50.0))
