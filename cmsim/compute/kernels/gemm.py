"""Matrix multiplication on one device (first form: tiles and waves)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cmsim.compute.kernels.machine import Machine

Floats = NDArray[np.float64]
GEMM_DEFAULTS: dict[str, float] = {"compute": 0.8, "memory": 0.8, "fixed_us": 4.0}
TILES = ((64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))


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
) -> Floats:
    """Time of C = A B. [us]

    T = fixed + max(waves of the best tile / (peak compute), bytes / (bandwidth memory))
    """
    core = machine.peak_FLOPps[precision] * c["compute"] / machine.cores
    best = np.full(len(m), np.inf)
    for tm, tn in TILES:
        waves = np.ceil(np.ceil(m / tm) * np.ceil(n / tn) / machine.cores)
        best = np.minimum(best, waves * (2.0 * tm * tn) * k / core)
    memory = (m * k * in_B + k * n * weight_B + m * n * out_B) / (machine.memory_Bps * c["memory"])
    out: Floats = c["fixed_us"] + 1e6 * np.maximum(best, memory)
    return out
