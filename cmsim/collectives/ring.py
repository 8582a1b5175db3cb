"""Ring: everybody talks to the next rank only.

    all-reduce      T = 2 (p - 1) alpha + 2 (p - 1)/p S / B + (p - 1)/p S gamma
    reduce-scatter  T =   (p - 1) alpha +   (p - 1)/p S / B + (p - 1)/p S gamma
    all-gather      T =   (p - 1) alpha +   (p - 1)/p S / B
    broadcast       T = (ceil(log2 p) + p - 1) alpha + 2 (p - 1)/p S / B     binomial scatter, then ring all-gather
    reduce          the same, plus (p - 1)/p S gamma                         ring reduce-scatter, then binomial gather

S is cut into p blocks. Each block travels once round the ring collecting contributions (reduce-scatter) and once more
handing out the result (all-gather). Optimal in bytes, linear in latency. A block of neighbouring ranks (a node) has
one edge out, however many ranks it holds, so 1/block of the traffic leaves it. The rooted forms in the table are those
of van de Geijn.

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
