"""Ring: everybody talks to the next rank only.

    all-reduce      T = 2 (p - 1) alpha + 2 (p - 1)/p S / B + (p - 1)/p S gamma
    reduce-scatter  T =   (p - 1) alpha +   (p - 1)/p S / B + (p - 1)/p S gamma
    all-gather      T =   (p - 1) alpha +   (p - 1)/p S / B
    broadcast       T = (ceil(log2 p) + p - 1) alpha + 2 (p - 1)/p S / B     binomial scatter, then ring all-gather
    reduce          the same, plus (p - 1)/p S gamma                         ring reduce-scatter, then binomial gather

S is cut into p blocks. Each block travels once round the ring collecting contributions (reduce-scatter) and once more
handing out the result (all-gather). Optimal in bytes, linear in latency. A block of neighbouring ranks (a node) has
one edge out, however many ranks it holds, so 1/block of the traffic leaves it. The rooted forms in the table are those
of van de Geijn; the plain pipeline-free chain of HCCL is ``chain_broadcast_s``.

Leaves out: chunk pipelining (``pipeline``) and protocols.
Source: Patarasuk and Yuan, J. Parallel Distrib. Comput. 69(2), 117-124, 2009, doi:10.1016/j.jpdc.2008.09.002; Chan et
al. 2007, doi:10.1002/cpe.1206; HCCL coll_algo_intro Ring.md.
"""

from __future__ import annotations

from cmsim.collectives.binomial import binomial_gather, binomial_scatter, scatter_outside
from cmsim.collectives.terms import (
    Algorithm,
    Column,
    Schedule,
    Send,
    ceil_log2,
    joined,
    leaving,
    nothing,
    others,
)

SOURCE = "Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002"
ROOTED_SOURCE = "van de Geijn, in Chan et al. 2007, doi:10.1002/cpe.1206"


def ring_all_reduce_s(
    ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column, gamma_s_per_B: Column = 0.0
) -> Column:
    """Time of a ring all-reduce: reduce-scatter, then all-gather. [s]

    T = 2 (p - 1) alpha + 2 (p - 1)/p S/B + (p - 1)/p S gamma
    ranks: p [1]    size_B: S, held by each rank [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]    gamma_s_per_B: cost of adding a byte [s/B]

    >>> ring_all_reduce_s(4, 400.0, alpha_s=0.0, bandwidth_Bps=100.0)
    6.0
    """
    return 2 * (ranks - 1) * (alpha_s + size_B / ranks / bandwidth_Bps) + others(ranks) * size_B * gamma_s_per_B


def ring_reduce_scatter_s(
    ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column, gamma_s_per_B: Column = 0.0
) -> Column:
    """Time of a ring reduce-scatter. [s]

    T = (p - 1) alpha + (p - 1)/p S/B + (p - 1)/p S gamma
    ranks: p [1]    size_B: S, the whole array [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]    gamma_s_per_B: cost of adding a byte [s/B]

    >>> ring_reduce_scatter_s(4, 400.0, alpha_s=0.0, bandwidth_Bps=100.0)
    3.0
    """
    return (ranks - 1) * (alpha_s + size_B / ranks / bandwidth_Bps) + others(ranks) * size_B * gamma_s_per_B


def ring_all_gather_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of a ring all-gather. [s]

    T = (p - 1) alpha + (p - 1)/p S/B
    ranks: p [1]    size_B: S, the gathered total [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> ring_all_gather_s(4, 400.0, alpha_s=0.0, bandwidth_Bps=100.0)
    3.0
    """
    return (ranks - 1) * (alpha_s + size_B / ranks / bandwidth_Bps)


def bidirectional_ring_all_reduce_s(
    ranks: Column, size_B: Column, *, alpha_s: Column, link_bandwidth_Bps: Column
) -> Column:
    """Time of an all-reduce whose halves run opposite ways on two dedicated neighbour links. [s]

    T = 2 (p - 1) alpha + (p - 1)/p S/B_link.  Through one switch port there is no gain: both halves share it.
    ranks: p [1]    size_B: S [B]    alpha_s: fixed cost of a send [s]    link_bandwidth_Bps: one link, one way [B/s]

    >>> bidirectional_ring_all_reduce_s(4, 400.0, alpha_s=0.0, link_bandwidth_Bps=100.0)
    3.0
    """
    return ring_all_reduce_s(ranks, size_B / 2, alpha_s=alpha_s, bandwidth_Bps=link_bandwidth_Bps)


def ring_broadcast_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of a broadcast as binomial scatter and ring all-gather. [s]

    T = (ceil(log2 p) + p - 1) alpha + 2 (p - 1)/p S/B
    ranks: p [1]    size_B: S, the vector [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> float(ring_broadcast_s(4, 400.0, alpha_s=1.0, bandwidth_Bps=100.0))
    11.0
    """
    return (ceil_log2(ranks) + ranks - 1) * alpha_s + 2 * others(ranks) * size_B / bandwidth_Bps


def chain_broadcast_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of a broadcast that hands the whole vector from rank to rank. [s]

    T = (p - 1) (alpha + S/B), unpipelined (HCCL Ring.md)
    ranks: p [1]    size_B: S, the vector [B]    alpha_s: fixed cost of a send [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> chain_broadcast_s(4, 400.0, alpha_s=1.0, bandwidth_Bps=100.0)
    15.0
    """
    return (ranks - 1) * (alpha_s + size_B / bandwidth_Bps)


def ring_reduce_scatter(ranks: int) -> Schedule:
    """The sends: block b starts at rank b + 1 and arrives, complete, at rank b."""
    p = ranks
    return Schedule(p, [[Send(r, (r + 1) % p, ((r - t - 1) % p,), True) for r in range(p)] for t in range(p - 1)])


def ring_all_gather(ranks: int) -> Schedule:
    """The sends: block b starts at rank b and goes round."""
    p = ranks
    return Schedule(p, [[Send(r, (r + 1) % p, ((r - t) % p,)) for r in range(p)] for t in range(p - 1)])


def ring_outside(ranks: Column, block: Column) -> Column:
    """(p - 1)/p / block: one edge leaves each block of neighbours. [1]"""
    return leaving(ranks, block, others(ranks) / block)


RING = (
    Algorithm(
        name="ring",
        collective="all_reduce",
        steps=lambda p: 2 * (p - 1),
        sent=lambda p: 2 * others(p),
        reduced=others,
        outside=lambda p, b: 2 * ring_outside(p, b),
        schedule=lambda p: joined(ring_reduce_scatter(p), ring_all_gather(p)),
        source=SOURCE,
    ),
    Algorithm(
        name="ring",
        collective="all_gather",
        steps=lambda p: p - 1,
        sent=others,
        reduced=nothing,
        outside=ring_outside,
        schedule=ring_all_gather,
        source=SOURCE,
    ),
    Algorithm(
        name="ring",
        collective="reduce_scatter",
        steps=lambda p: p - 1,
        sent=others,
        reduced=others,
        outside=ring_outside,
        schedule=ring_reduce_scatter,
        source=SOURCE,
    ),
    Algorithm(
        name="ring",
        collective="broadcast",
        steps=lambda p: ceil_log2(p) + p - 1,
        sent=lambda p: 2 * others(p),
        reduced=nothing,
        outside=lambda p, b: scatter_outside(p, b) + ring_outside(p, b),
        schedule=lambda p: joined(binomial_scatter(p), ring_all_gather(p)),
        source=ROOTED_SOURCE,
    ),
    Algorithm(
        name="ring",
        collective="reduce",
        steps=lambda p: ceil_log2(p) + p - 1,
        sent=lambda p: 2 * others(p),
        reduced=others,
        outside=lambda p, b: scatter_outside(p, b) + ring_outside(p, b),
        schedule=lambda p: joined(ring_reduce_scatter(p), binomial_gather(p)),
        source=ROOTED_SOURCE,
    ),
)
