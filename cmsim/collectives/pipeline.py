"""Chunk pipelining: the next chunk starts before the last has arrived.

    chain of d stages, c chunks   T(c) = (d + c - 1) (alpha + S/(c B))
    best number of chunks         c* = sqrt((d - 1) S / (B alpha))
    time at c*                    T* = (sqrt((d - 1) alpha) + sqrt(S / B))**2
    two networks overlapped       T = (p_x - 1) max(alpha_x + s/B_x, alpha_n + s/B_n) + alpha_n + s/B_n,  s = S/p

The last is HCCL's Pipeline all-gather: while blocks go round the ring between nodes (x), the ones that came before are
handed out inside the node (n). An all-reduce takes it twice. Where both networks are one port, as in the rounds here,

    all-gather      T =   m alpha +   (p - 1)/p S/B                         m = p/n nodes of n ranks
    reduce-scatter  T =   m alpha +   (p - 1)/p S/B + (p - 1)/p S gamma     the same backwards
    all-reduce      T = 2 m alpha + 2 (p - 1)/p S/B + (p - 1)/p S gamma

Leaves out: limits on c by buffers, and an alpha that grows with the number of chunks.
Source: derived here (dT/dc = 0), as in any text on pipelined trees; HCCL coll_algo_intro Pipeline.md.
"""

from __future__ import annotations

import numpy as np

from cmsim.collectives.direct import direct_outside
from cmsim.collectives.grouped import SERVER, Traffic, counted_outside, pairs_inside
from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, joined, nothing, others

SOURCE = "HCCL coll_algo_intro Pipeline.md, both networks through one port"


def pipeline_all_gather(inner: int, outer: int) -> Schedule:
    """The sends among ``outer`` nodes of ``inner`` ranks: what came last goes to the next node and to all of mine."""
    ranks = inner * outer
    if ranks < 2:
        return Schedule(ranks, [])
    rounds = []
    for step in range(outer):
        sends = []
        for node in range(outer):
            for place in range(inner):
                me = node * inner + place
                block = ((node - step) % outer * inner + place,)
                if step < outer - 1:
                    sends.append(Send(me, (me + inner) % ranks, block))
                sends += [Send(me, node * inner + peer, block) for peer in range(inner) if peer != place]
        rounds.append(sends)
    return Schedule(ranks, [sends for sends in rounds if sends])


def pipeline_reduce_scatter(inner: int, outer: int) -> Schedule:
    """The sends: the all-gather backwards."""
    parts, rounds = pipeline_all_gather(inner, outer)
    return Schedule(parts, [[Send(s.dst, s.src, s.blocks, True) for s in sends] for sends in reversed(rounds)])


def _inner(ranks: int) -> int:
    return SERVER if ranks % SERVER == 0 else ranks


def _traffic(ranks: int, block: int) -> Traffic:
    """Of an all-gather: m blocks to each rank of the node, m - 1 to the next node."""
    inner = _inner(ranks)
    outer = ranks // inner
    if block % inner == 0:
        # a node lies in one block: its first rank stands for all
        first = np.arange(outer) * inner
        return first, np.roll(first, -1), np.full(outer, inner * (outer - 1) / ranks)
    src, dst = pairs_inside(outer, inner)
    rank = np.arange(ranks)
    share = np.append(np.full(len(src), outer / ranks), np.full(ranks, (outer - 1) / ranks))
    return np.append(src, rank), np.append(dst, (rank + inner) % ranks), share


_counted = counted_outside(_traffic)


def _outside(ranks: Column, block: Column) -> Column:
    # what is no whole number of nodes is not counted pair by pair: nobody asks, and there are many pairs
    counted = _applies(ranks) | (np.asarray(ranks) <= SERVER)
    return np.where(counted, _counted(np.where(counted, ranks, 1), block), direct_outside(ranks, block))


def _nodes(ranks: Column) -> Column:
    return np.where(np.asarray(ranks) % SERVER == 0, ranks // SERVER, np.minimum(ranks - 1, 1))


def _applies(ranks: Column) -> Column:
    return (np.asarray(ranks) > SERVER) & (np.asarray(ranks) % SERVER == 0)


PIPELINE = (
    Algorithm(
        name="pipeline",
        collective="all_reduce",
        steps=lambda p: 2 * _nodes(p),
        sent=lambda p: 2 * others(p),
        reduced=others,
        outside=lambda p, b: 2 * _outside(p, b),
        schedule=lambda p: joined(
            pipeline_reduce_scatter(_inner(p), p // _inner(p)), pipeline_all_gather(_inner(p), p // _inner(p))
        ),
        source=SOURCE,
        applies=_applies,
    ),
    Algorithm(
        name="pipeline",
        collective="all_gather",
        steps=_nodes,
        sent=others,
        reduced=nothing,
        outside=_outside,
        schedule=lambda p: pipeline_all_gather(_inner(p), p // _inner(p)),
        source=SOURCE,
        applies=_applies,
    ),
    Algorithm(
        name="pipeline",
        collective="reduce_scatter",
        steps=_nodes,
        sent=others,
        reduced=others,
        outside=_outside,
        schedule=lambda p: pipeline_reduce_scatter(_inner(p), p // _inner(p)),
        source=SOURCE,
        applies=_applies,
    ),
)
