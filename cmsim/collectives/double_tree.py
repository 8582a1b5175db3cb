"""Double binary tree: an all-reduce up and down two trees at once, each for half of the vector.

    all-reduce   T = 2 ceil(log2 p) alpha + 2 S/B + S gamma        p > 2; for two ranks half of the bytes

Every rank is an inner node of one tree and a leaf of the other, so that it takes in and sends S on the way up, and
again on the way down. Chunks follow each other through the trees: the bytes of a pass flow at once, and its depth is
paid in latency, as rounds without sends. Between nodes of several ranks a library runs the trees over nodes, and a
chain or the switches inside them.

Leaves out: the time of a chunk (``pipeline``), and that chunks on the way down meet later ones on the way
up.
Source: Sanders, Speck and Träff, Parallel Computing 35(12), 581-594, 2009, doi:10.1016/j.parco.2009.09.001; numbered as
in NVIDIA/nccl src/graph/trees.cc (ncclGetBtree, ncclGetDtree).
"""

from __future__ import annotations

import functools

import numpy as np

from cmsim.collectives.grouped import Traffic, counted_outside
from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, any_peers, ceil_log2

SOURCE = "Sanders, Speck and Träff 2009, doi:10.1016/j.parco.2009.09.001; NVIDIA/nccl src/graph/trees.cc"


@functools.lru_cache(maxsize=4096)
def parents(ranks: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The parent of every rank in either tree, -1 for its root.

    >>> parents(4)
    ((-1, 2, 0, 2), (1, 3, 1, -1))
    """
    rank = np.arange(ranks)
    bit = rank & -rank
    up = (rank ^ bit) | (bit << 1)
    one = np.where(rank == 0, -1, np.where(up < ranks, up, rank ^ bit))
    # the other tree: mirrored for an even count, moved on by one for an odd one
    place = (ranks - 1 - rank) if ranks % 2 == 0 else (rank - 1) % ranks
    moved = one[place]
    other = np.where(moved < 0, -1, (ranks - 1 - moved) if ranks % 2 == 0 else (moved + 1) % ranks)
    return tuple(one.tolist()), tuple(other.tolist())


def double_tree_all_reduce(ranks: int) -> Schedule:
    """The sends: everything up, from the leaves on, then everything down, from the roots on."""
    if ranks < 2:
        return Schedule(2, [])
    up = []
    for half, tree in enumerate(parents(ranks)):
        depth = [_depth(tree, rank) for rank in range(ranks)]
        order = sorted(range(ranks), key=lambda rank: -depth[rank])
        up += [Send(rank, tree[rank], (half,), True) for rank in order if tree[rank] >= 0]
    down = [Send(send.dst, send.src, send.blocks) for send in reversed(up)]
    wait: list[list[Send]] = [[]] * (int(ceil_log2(ranks)) - 1)
    return Schedule(2, [up, *wait, down, *wait])


def _depth(tree: tuple[int, ...], rank: int) -> int:
    return 0 if tree[rank] < 0 else 1 + _depth(tree, tree[rank])


def _traffic(ranks: int, block: int) -> Traffic:  # noqa: ARG001
    trees = [np.array(tree) for tree in parents(ranks)]
    child = np.concatenate([np.flatnonzero(tree >= 0) for tree in trees])
    parent = np.concatenate([tree[tree >= 0] for tree in trees])
    return np.append(child, parent), np.append(parent, child), np.full(2 * len(child), 0.5)


def _halves(ranks: Column) -> Column:
    """Half vectors through the busiest port in a pass: one for two ranks, two for more. [1]"""
    return np.minimum(ranks - 1, 2)


DOUBLE_TREE = (
    Algorithm(
        name="double_tree",
        collective="all_reduce",
        steps=lambda p: 2 * ceil_log2(p) * any_peers(p),
        sent=lambda p: 1.0 * _halves(p),
        reduced=lambda p: 0.5 * _halves(p),
        outside=counted_outside(_traffic),
        schedule=double_tree_all_reduce,
        source=SOURCE,
        pipelined=True,
    ),
)
