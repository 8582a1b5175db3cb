"""What messages cross, as arrays: the answer that every fabric gives to pairs of ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: resource numbers fit 32 bits; a million messages cross millions of resources
Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Crossings:
    """What messages cross, column by column. A column is one place along the path, such as the way up in a plane.

    resource   by column, the number of the resource each message crosses there, -1 for none, shape (messages,)
    pattern    row of ``share`` and ``latency_s`` that each message follows, shape (messages,)
    share      part of a message's bytes that crosses in a column, shape (patterns, columns) [1]
    latency_s  of the path, first byte in to first byte out, shape (patterns,) [s]
    """

    resource: tuple[Numbers, ...]
    pattern: Numbers
    share: NDArray[np.float64]
    latency_s: NDArray[np.float64]
