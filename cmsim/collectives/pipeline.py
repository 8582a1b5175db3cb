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


def chain_s(stages: Column, chunks: Column, *, size_B: Column, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of a vector through a chain in chunks. [s]

    T = (d + c - 1) (alpha + S/(c B))
    stages: d [1]    chunks: c [1]    size_B: S [B]    alpha_s: fixed cost of a chunk [s]    bandwidth_Bps: B [B/s]

    >>> chain_s(3, 4, size_B=400.0, alpha_s=1.0, bandwidth_Bps=100.0)
    12.0
    """
    return (stages + chunks - 1) * (alpha_s + size_B / (chunks * bandwidth_Bps))


def best_chunks(stages: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """The number of chunks, not rounded, that makes ``chain_s`` least. [1]

    c* = sqrt((d - 1) S / (B alpha))
    stages: d [1]    size_B: S [B]    alpha_s: fixed cost of a chunk [s]    bandwidth_Bps: B [B/s]

    >>> float(best_chunks(2, 400.0, alpha_s=1.0, bandwidth_Bps=100.0))
    2.0
    """
    return np.sqrt((stages - 1) * size_B / (bandwidth_Bps * alpha_s))


def best_chain_s(stages: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of a chain at its best number of chunks. [s]

    T* = (sqrt((d - 1) alpha) + sqrt(S/B))**2
    stages: d [1]    size_B: S [B]    alpha_s: fixed cost of a chunk [s]    bandwidth_Bps: B [B/s]

    >>> float(best_chain_s(2, 400.0, alpha_s=1.0, bandwidth_Bps=100.0))
    9.0
    """
    return (np.sqrt((stages - 1) * alpha_s) + np.sqrt(size_B / bandwidth_Bps)) ** 2


def two_network_all_gather_s(
    ranks: Column,
    nodes: Column,
    *,
    size_B: Column,
    alpha_outer_s: Column,
    alpha_inner_s: Column,
    outer_Bps: Column,
    inner_Bps: Column,
) -> Column:
    """Time of an all-gather (or reduce-scatter) that overlaps the networks between and inside nodes. [s]

    T = (p_x - 1) max(alpha_x + s/B_x, alpha_n + s/B_n) + alpha_n + s/B_n, s = S/p
    ranks: p [1]    nodes: p_x [1]    size_B: S, the gathered total [B]    alpha_outer_s, alpha_inner_s: fixed cost of
    a step between and inside nodes [s]    outer_Bps, inner_Bps: one direction of one rank's port on either [B/s]

    >>> float(two_network_all_gather_s(4, 2, size_B=400.0, alpha_outer_s=2.0, alpha_inner_s=1.0, outer_Bps=50.0,
    ...                                inner_Bps=100.0))
    6.0
    """
    outer = alpha_outer_s + size_B / ranks / outer_Bps
    inner = alpha_inner_s + size_B / ranks / inner_Bps
    return (nodes - 1) * np.maximum(outer, inner) + inner


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
