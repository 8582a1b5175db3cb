"""Binomial tree: every step doubles (or halves) the ranks that hold the answer.

    broadcast  T = ceil(log2 p) (alpha + S/B)
    reduce     T = ceil(log2 p) (alpha + S/B + S gamma)
    scatter    T = ceil(log2 p) alpha + (p - 1)/p S/B
    gather     the same
    all-reduce T = 2 ceil(log2 p) (alpha + S/B)      reduce, then broadcast (formula only; never the best)

The root sends to the farthest rank first, so each node hears from afar once. Whole vectors leave the root again and
again: good for small ones. The same tree with halves instead of wholes is scatter, the first part of van de Geijn's
broadcast.

Leaves out: chunk pipelining, which turns the tree's log2 p S/B into about 2 S/B (``double_tree``).
Source: Thakur, Rabenseifner and Gropp, Int. J. High Perform. Comput. Appl. 19(1), 49-66, 2005,
doi:10.1177/1094342005051521; Chan et al. 2007, doi:10.1002/cpe.1206; double tree: Sanders, Speck and Träff, Parallel
Computing 35(12), 581-594, 2009, doi:10.1016/j.parco.2009.09.001.
"""

from __future__ import annotations

import numpy as np

from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, ceil_log2, leaving, nothing, others

SOURCE = "Thakur, Rabenseifner and Gropp 2005, doi:10.1177/1094342005051521"


def _distances(ranks: int) -> list[int]:
    """Distances of the rounds of a tree, farthest first."""
    return [2**k for k in reversed(range(int(ceil_log2(ranks))))]


def binomial_broadcast(ranks: int) -> Schedule:
    """The sends of a broadcast from rank 0."""
    return Schedule(
        1, [[Send(r, r + d, (0,)) for r in range(0, ranks, 2 * d) if r + d < ranks] for d in _distances(ranks)]
    )


def binomial_reduce(ranks: int) -> Schedule:
    """The sends of a reduce to rank 0: the broadcast backwards."""
    rounds = reversed(binomial_broadcast(ranks).rounds)
    return Schedule(1, [[Send(s.dst, s.src, s.blocks, True) for s in sends] for sends in rounds])


def binomial_scatter(ranks: int) -> Schedule:
    """The sends of a scatter from rank 0: with each message go the blocks of the receiver's subtree."""
    return Schedule(
        ranks,
        [
            [Send(r, r + d, range(r + d, min(r + 2 * d, ranks))) for r in range(0, ranks, 2 * d) if r + d < ranks]
            for d in _distances(ranks)
        ],
    )


def binomial_gather(ranks: int) -> Schedule:
    """The sends of a gather to rank 0: the scatter backwards."""
    rounds = reversed(binomial_scatter(ranks).rounds)
    return Schedule(ranks, [[Send(s.dst, s.src, s.blocks) for s in sends] for sends in rounds])


def scatter_outside(ranks: Column, block: Column) -> Column:
    """(p - block)/p / block: what the other blocks own leaves the root's block once. [1]"""
    return leaving(ranks, block, (ranks - block) / ranks / block)


def broadcast_outside(ranks: Column, block: Column) -> Column:
    """Edges of the tree that leave the root's block, per rank of the block. [1]"""
    edges = np.zeros(np.broadcast_shapes(np.shape(ranks), np.shape(block)))
    for k in range(int(np.max(ceil_log2(ranks), initial=0))):
        # senders of distance d are the multiples of 2d from block - d on, below block, whose peer exists
        d = 2**k
        first = np.maximum(block - d, 0)
        last = np.minimum(block, ranks - d)
        edges = edges + np.maximum(-(-last // (2 * d)) + (-first // (2 * d)), 0)
    return leaving(ranks, block, edges / block)


BINOMIAL = (
    Algorithm(
        name="binomial",
        collective="broadcast",
        steps=ceil_log2,
        sent=ceil_log2,
        reduced=nothing,
        outside=broadcast_outside,
        schedule=binomial_broadcast,
        source=SOURCE,
        rotates=False,
    ),
    Algorithm(
        name="binomial",
        collective="reduce",
        steps=ceil_log2,
        sent=ceil_log2,
        reduced=ceil_log2,
        outside=broadcast_outside,
        schedule=binomial_reduce,
        source=SOURCE,
        rotates=False,
    ),
    Algorithm(
        name="binomial",
        collective="scatter",
        steps=ceil_log2,
        sent=others,
        reduced=nothing,
        outside=scatter_outside,
        schedule=binomial_scatter,
        source=SOURCE,
        rotates=False,
    ),
    Algorithm(
        name="binomial",
        collective="gather",
        steps=ceil_log2,
        sent=others,
        reduced=nothing,
        outside=scatter_outside,
        schedule=binomial_gather,
        source=SOURCE,
        rotates=False,
    ),
)
