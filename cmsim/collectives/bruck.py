"""Bruck: an all-to-all of small blocks in a logarithm of steps.

    T = ceil(log2 p) alpha + sum_k b_k S/p / B        b_k = how many of 0 .. p - 1 have bit k set

Step k forwards to the rank 2**k further on every block that has an odd multiple of 2**k still to go. A block travels
once for each set bit of its distance, so about (S/2) log2 p bytes are sent instead of (p - 1)/p S.

Leaves out: the local shuffles before and after.
Source: Bruck, Ho, Kipnis, Upfal and Weathersby, IEEE Trans. Parallel Distrib. Syst. 8(11), 1143-1156, 1997,
doi:10.1109/71.642949.
"""

from __future__ import annotations

import numpy as np

from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, ceil_log2, nothing, shifted_outside

SOURCE = "Bruck et al. 1997, doi:10.1109/71.642949"


def blocks_of_step(ranks: Column, step: int) -> Column:
    """How many of 0 .. p - 1 have the bit of this step set. [1]

    >>> [int(blocks_of_step(5, k)) for k in range(3)]
    [2, 2, 1]
    """
    half = 2**step
    return ranks // (2 * half) * half + np.maximum(ranks % (2 * half) - half, 0)


def bruck_blocks(ranks: Column) -> Column:
    """Blocks of S/p that each rank sends in all. [1]

    >>> bruck_blocks(np.array([8, 5, 384])).tolist()
    [12, 5, 1600]
    """
    steps = range(int(np.max(ceil_log2(ranks), initial=0)))
    return sum((blocks_of_step(ranks, k) for k in steps), start=np.zeros(np.shape(ranks), dtype=np.int64))


def bruck_all_to_all(ranks: int) -> Schedule:
    """The sends: in step k, block (origin, destination) moves if bit k of the distance between them is set."""
    rounds = []
    for d in (2**k for k in range(int(ceil_log2(ranks)))):
        sends = []
        for r in range(ranks):
            # a block now at r has covered the lower bits of its distance
            origins = [((r - away % d) % ranks, away) for away in range(ranks) if away & d]
            blocks = [origin * ranks + (origin + away) % ranks for origin, away in origins]
            sends.append(Send(r, (r + d) % ranks, blocks))
        rounds.append(sends)
    return Schedule(ranks, rounds)


BRUCK = (
    Algorithm(
        name="bruck",
        collective="all_to_all",
        steps=ceil_log2,
        sent=lambda p: bruck_blocks(p) / p,
        reduced=nothing,
        outside=lambda p, b: shifted_outside(p, b, blocks_of_step),
        schedule=bruck_all_to_all,
        source=SOURCE,
    ),
)
