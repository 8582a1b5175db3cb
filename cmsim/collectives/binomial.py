"""Binomial tree: every step doubles (or halves) the ranks that hold the answer.

    broadcast  T = ceil(log2 p) (alpha + S/B)
    reduce     T = ceil(log2 p) (alpha + S/B + S gamma)
    scatter    T = ceil(log2 p) alpha + (p - 1)/p S/B
    gather     the same
    all-reduce T = 2 ceil(log2 p) (alpha + S/B)      reduce, then broadcast (formula only; never the best)

The root sends to the farthest rank first, so each node hears from afar once. Whole vectors leave the root again and
again: good for small ones. The same tree with halves instead of wholes is scatter, the first part of van de Geijn's
broadcast.

Leaves out: chunk pipelining, which turns the tree's log2 p S/B into about 2 S/B (``double_tree_all_reduce_s``).
Source: Thakur, Rabenseifner and Gropp, Int. J. High Perform. Comput. Appl. 19(1), 49-66, 2005,
doi:10.1177/1094342005051521; Chan et al. 2007, doi:10.1002/cpe.1206; double tree: Sanders, Speck and Träff, Parallel
Computing 35(12), 581-594, 2009, doi:10.1016/j.parco.2009.09.001.
"""

from __future__ import annotations

import numpy as np

from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, ceil_log2, leaving, nothing, others

SOURCE = "Thakur, Rabenseifner and Gropp 2005, doi:10.1177/1094342005051521"


def binomial_broadcast_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of a broadcast down a binomial tree. [s]

    T = ceil(log2 p) (alpha + S/B)
    ranks: p [1]    size_B: S, the vector [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> float(binomial_broadcast_s(5, 100.0, alpha_s=1.0, bandwidth_Bps=100.0))
    6.0
    """
    return ceil_log2(ranks) * (alpha_s + size_B / bandwidth_Bps)


def binomial_reduce_s(
    ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column, gamma_s_per_B: Column = 0.0
) -> Column:
    """Time of a reduce up a binomial tree. [s]

    T = ceil(log2 p) (alpha + S/B + S gamma)
    ranks: p [1]    size_B: S, the vector [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]    gamma_s_per_B: cost of adding a byte [s/B]

    >>> float(binomial_reduce_s(5, 100.0, alpha_s=1.0, bandwidth_Bps=100.0, gamma_s_per_B=0.01))
    9.0
    """
    return ceil_log2(ranks) * (alpha_s + size_B / bandwidth_Bps + size_B * gamma_s_per_B)


def tree_all_reduce_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of an all-reduce as unpipelined reduce and broadcast. [s]

    T = 2 ceil(log2 p) (alpha + S/B)
    ranks: p [1]    size_B: S [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> float(tree_all_reduce_s(4, 100.0, alpha_s=1.0, bandwidth_Bps=100.0))
    8.0
    """
    return 2 * binomial_broadcast_s(ranks, size_B, alpha_s=alpha_s, bandwidth_Bps=bandwidth_Bps)


def double_tree_all_reduce_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of an all-reduce on two complementary trees with ideal chunk pipelining. [s]

    T = 2 log2(p) alpha + 2 S/B: each rank is an inner node of one tree and a leaf of the other, and so sends S up
    and S down in all.
    ranks: p [1]    size_B: S [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> float(double_tree_all_reduce_s(4, 100.0, alpha_s=1.0, bandwidth_Bps=100.0))
    6.0
    """
    return 2 * ceil_log2(ranks) * alpha_s + 2 * size_B / bandwidth_Bps


def ring_tree_crossover_B(ranks: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Size from which a ring all-reduce beats the double tree. [B]

    S* = (2 (p - 1) - 2 log2 p) alpha B / (2 - 2 (p - 1)/p).  Libraries switch far earlier: their tree steps cost more.
    ranks: p [1]    alpha_s: fixed cost of a send [s]    bandwidth_Bps: B [B/s]

    >>> float(ring_tree_crossover_B(4, alpha_s=1.0, bandwidth_Bps=100.0))
    400.0
    """
    return (2 * (ranks - 1) - 2 * ceil_log2(ranks)) * alpha_s * bandwidth_Bps / (2 - 2 * others(ranks))


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
