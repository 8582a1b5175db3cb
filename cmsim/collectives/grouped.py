"""What algorithms that know groups of neighbouring ranks (servers) share: how a group of ranks is cut, what leaves it.

The table's entries know only how many ranks there are, so they take servers of ``SERVER`` ranks; the pages make others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.collectives.terms import Column

#: ranks of a full group of the table's entries: the servers that libraries with such algorithms were made for
SERVER = 8

#: bytes between ranks over a whole collective: source, destination, share of S
Traffic = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]


def counted_outside(traffic: Callable[[int, int], Traffic]) -> Callable[[Column, Column], Column]:
    """``Algorithm.outside`` by counting: bytes that cross the edge of the busiest block, per rank of a block. [1]

    traffic(ranks, block): every pair that talks, once for all its rounds; where blocks are whole groups, one rank may
        stand for its group
    """

    @functools.lru_cache(maxsize=65_536)
    def one(ranks: int, block: int) -> float:
        if ranks <= block:
            return 0.0
        src, dst, share = traffic(ranks, block)
        crosses = src // block != dst // block
        blocks = -(-ranks // block)
        out, into = (np.bincount(side[crosses] // block, share[crosses], minlength=blocks) for side in (src, dst))
        # the last block may be smaller, and its NICs fewer
        size = np.minimum(block, ranks - block * np.arange(blocks))
        return float((np.maximum(out, into) / size).max())

    def outside(ranks: Column, block: Column) -> Column:
        ranks, block = np.broadcast_arrays(ranks, block)
        flat = [one(int(p), int(b)) for p, b in zip(ranks.ravel().tolist(), block.ravel().tolist(), strict=True)]
        return np.array(flat).reshape(ranks.shape)[()]

    return outside


def pairs_inside(groups: int, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """All ordered pairs inside each of ``groups`` neighbouring groups of ``count`` ranks: sources and destinations."""
    src, dst = np.divmod(np.arange(count * count), count)
    apart = src != dst
    first = np.arange(groups)[:, None] * count
    return (first + src[apart]).ravel(), (first + dst[apart]).ravel()
