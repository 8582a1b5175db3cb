"""One path of several: a draw for each pair of ranks, the same every time.

Source: splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmsim.topology.crossings import Numbers


def draws(src: Numbers, dst: Numbers, seed: int) -> NDArray[np.uint64]:
    """A 64-bit draw for each (seed, source, destination)."""
    with np.errstate(over="ignore"):
        x = (src.astype(np.int64).astype(np.uint64) << np.uint64(32)) ^ dst.astype(np.int64).astype(np.uint64)
        x += np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return x ^ (x >> np.uint64(31))
