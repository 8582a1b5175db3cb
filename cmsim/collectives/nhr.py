"""NHR, the nonuniform hierarchical ring: a logarithm of steps for any number of ranks.

    reduce-scatter  T =   ceil(log2 p) alpha +   (p - 1)/p S/B + (p - 1)/p S gamma
    all-gather      T =   ceil(log2 p) alpha +   (p - 1)/p S/B
    all-reduce      T = 2 ceil(log2 p) alpha + 2 (p - 1)/p S/B + (p - 1)/p S gamma
    broadcast       T = 2 ceil(log2 p) alpha + 2 (p - 1)/p S/B      binomial scatter, then all-gather
    reduce          the same, plus (p - 1)/p S gamma                reduce-scatter, then binomial gather

Step k of the reduce-scatter sends to the rank 2**k before, and with it the floor((p - 1 + 2**k) / 2**(k + 1)) blocks
whose owner lies an odd multiple of 2**k away: many blocks to near ranks, few to far ones. Each block's contributions
meet along the bits of their distance to the owner, so nothing is sent twice and no p is special. The all-gather runs
backwards. NB (nonuniform Bruck) sends the same number of blocks in each step.

Leaves out: that the blocks of a step are not contiguous.
Source: HCCL coll_algo_intro NHR.md and NB.md; Bruck et al., IEEE Trans. Parallel Distrib. Syst. 8(11), 1143-1156,
1997, doi:10.1109/71.642949.
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
    nothing,
    others,
    shifted_outside,
)

SOURCE = "HCCL coll_algo_intro NHR.md"


def blocks_of_step(ranks: Column, step: Column) -> Column:
    """Blocks of S/p that one rank sends in a step, of NHR and of NB alike. [1]

    floor((p - 1 + 2**k) / 2**(k + 1)); over all steps p - 1.

    >>> [blocks_of_step(48, k) for k in range(6)]
    [24, 12, 6, 3, 1, 1]
    """
    return (ranks - 1 + 2**step) // (2 * 2**step)


def nhr_reduce_scatter(ranks: int) -> Schedule:
    """The sends: in step k, to r - 2**k, the blocks owned 1, 3, 5 ... times 2**k before r."""
    rounds = []
    for d in (2**k for k in range(int(ceil_log2(ranks)))):
        rounds.append(
            [
                Send(r, (r - d) % ranks, [(r - away) % ranks for away in range(d, ranks, 2 * d)], True)
                for r in range(ranks)
            ]
        )
    return Schedule(ranks, rounds)


def nhr_all_gather(ranks: int) -> Schedule:
    """The sends: the reduce-scatter backwards."""
    rounds = reversed(nhr_reduce_scatter(ranks).rounds)
    return Schedule(ranks, [[Send(s.dst, s.src, s.blocks) for s in sends] for sends in rounds])


def nhr_outside(ranks: Column, block: Column) -> Column:
    """Step k moves its blocks over the edge of a block of ranks from min(2**k, block) of its ranks. [1]"""
    return shifted_outside(ranks, block, blocks_of_step)


NHR = (
    Algorithm(
        name="nhr",
        collective="all_reduce",
        steps=lambda p: 2 * ceil_log2(p),
        sent=lambda p: 2 * others(p),
        reduced=others,
        outside=lambda p, b: 2 * nhr_outside(p, b),
        schedule=lambda p: joined(nhr_reduce_scatter(p), nhr_all_gather(p)),
        source=SOURCE,
    ),
    Algorithm(
        name="nhr",
        collective="all_gather",
        steps=ceil_log2,
        sent=others,
        reduced=nothing,
        outside=nhr_outside,
        schedule=nhr_all_gather,
        source=SOURCE,
    ),
    Algorithm(
        name="nhr",
        collective="reduce_scatter",
        steps=ceil_log2,
        sent=others,
        reduced=others,
        outside=nhr_outside,
        schedule=nhr_reduce_scatter,
        source=SOURCE,
    ),
    Algorithm(
        name="nhr",
        collective="broadcast",
        steps=lambda p: 2 * ceil_log2(p),
        sent=lambda p: 2 * others(p),
        reduced=nothing,
        outside=lambda p, b: scatter_outside(p, b) + nhr_outside(p, b),
        schedule=lambda p: joined(binomial_scatter(p), nhr_all_gather(p)),
        source=SOURCE,
    ),
    Algorithm(
        name="nhr",
        collective="reduce",
        steps=lambda p: 2 * ceil_log2(p),
        sent=lambda p: 2 * others(p),
        reduced=others,
        outside=lambda p, b: scatter_outside(p, b) + nhr_outside(p, b),
        schedule=lambda p: joined(nhr_reduce_scatter(p), binomial_gather(p)),
        source=SOURCE,
    ),
)
