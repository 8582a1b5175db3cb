"""Recursive halving and doubling (Rabenseifner), and recursive doubling.

    all-reduce, p = 2**k       T = 2 k alpha + 2 (p - 1)/p S/B + (p - 1)/p S gamma
    all-reduce, other p        T = (2 floor(log2 p) + 2) alpha + (2 (q - 1)/q + 2) S/B + ((q - 1)/q + 1) S gamma
                               with q = 2**floor(log2 p)
    reduce-scatter, p = 2**k   T = k alpha + (p - 1)/p S/B + (p - 1)/p S gamma
    all-gather, p = 2**k       T = k alpha + (p - 1)/p S/B
    recursive doubling         T = k (alpha + S/B + S gamma)

Step k of the reduce-scatter exchanges half of what is left with the rank whose number differs in bit k: the big
pieces stay among neighbours, and only 1/block - 1/p of S leaves an aligned block of ranks. The all-gather runs
backwards. When p is not a power of two, p - q ranks first hand their whole vector to a neighbour and get the result
back at the end, which costs up to twice the bytes. Recursive doubling exchanges whole vectors, for small ones.

Leaves out: that the exchanged pieces are not contiguous in memory.
Source: Rabenseifner, ICCS 2004, LNCS 3036, doi:10.1007/978-3-540-24685-5_1; Thakur et al. 2005,
doi:10.1177/1094342005051521; HCCL coll_algo_intro RHD.md for the fold.
"""

from __future__ import annotations

import numpy as np

from cmsim.collectives.terms import (
    Algorithm,
    Column,
    Schedule,
    Send,
    ceil_log2,
    floor_log2,
    joined,
    leaving,
    nothing,
    others,
    power_of_two,
)

SOURCE = "Rabenseifner 2004, doi:10.1007/978-3-540-24685-5_1; HCCL RHD.md"


def _folded(ranks: Column) -> Column:
    """1 where p is not a power of two and some ranks must be folded away first, else 0."""
    return 1 - power_of_two(ranks)


def _core(ranks: Column) -> Column:
    """q: the largest power of two that is not above p."""
    return np.ldexp(1.0, floor_log2(ranks))


def _steps(ranks: Column) -> Column:
    return 2 * floor_log2(ranks) + 2 * _folded(ranks)


def _sent(ranks: Column) -> Column:
    return 2 * others(_core(ranks)) + 2 * _folded(ranks)


def _reduced(ranks: Column) -> Column:
    return others(_core(ranks)) + _folded(ranks)


def halving_outside(ranks: Column, block: Column) -> Column:
    """1/block - 1/p, the block rounded down to a power of two. [1]"""
    return leaving(ranks, block, 1 / _core(np.minimum(block, ranks)) - 1 / np.asarray(ranks))


def _all_reduce_outside(ranks: Column, block: Column) -> Column:
    # When ranks were folded, partners no longer line up with the blocks: count every byte as leaving.
    return np.where(power_of_two(ranks), 2 * halving_outside(ranks, block), leaving(ranks, block, _sent(ranks)))


def _doubling_outside(ranks: Column, block: Column) -> Column:
    return leaving(ranks, block, 1.0 * ceil_log2(ranks) - floor_log2(np.minimum(block, ranks)))


def halving_reduce_scatter(ranks: int) -> Schedule:
    """The sends among a power of two: in step k, blocks that agree with me below bit k and with my partner in it."""
    rounds = []
    for bit in (1 << k for k in range(int(floor_log2(ranks)))):
        rounds.append([Send(r, r ^ bit, range((r ^ bit) % (2 * bit), ranks, 2 * bit), True) for r in range(ranks)])
    return Schedule(ranks, rounds)


def doubling_all_gather(ranks: int) -> Schedule:
    """The sends among a power of two: the reduce-scatter backwards."""
    rounds = reversed(halving_reduce_scatter(ranks).rounds)
    return Schedule(ranks, [[Send(s.dst, s.src, s.blocks) for s in sends] for sends in rounds])


def halving_doubling_all_reduce(ranks: int) -> Schedule:
    """The sends, with 2 (p - q) ranks paired first: the even one of a pair steps aside until the end."""
    core = int(_core(ranks))
    extra = ranks - core
    inner = joined(halving_reduce_scatter(core), doubling_all_gather(core))
    if not extra:
        return inner
    place = [2 * i + 1 if i < extra else i + extra for i in range(core)]
    everything = range(core)
    fold = [Send(2 * i, 2 * i + 1, everything, True) for i in range(extra)]
    unfold = [Send(s.dst, s.src, everything) for s in fold]
    middle = [[s._replace(src=place[s.src], dst=place[s.dst]) for s in sends] for sends in inner.rounds]
    return Schedule(core, [fold, *middle, unfold])


def recursive_doubling_all_reduce(ranks: int) -> Schedule:
    """The sends: whole vectors between partners that differ in one bit."""
    bits = [1 << k for k in range(int(floor_log2(ranks)))]
    return Schedule(1, [[Send(r, r ^ bit, (0,), True) for r in range(ranks)] for bit in bits])


HALVING_DOUBLING = (
    Algorithm(
        name="halving_doubling",
        collective="all_reduce",
        steps=_steps,
        sent=_sent,
        reduced=_reduced,
        outside=_all_reduce_outside,
        schedule=halving_doubling_all_reduce,
        source=SOURCE,
    ),
    Algorithm(
        name="recursive_doubling",
        collective="all_reduce",
        steps=ceil_log2,
        sent=ceil_log2,
        reduced=ceil_log2,
        outside=_doubling_outside,
        schedule=recursive_doubling_all_reduce,
        source="Thakur, Rabenseifner and Gropp 2005, doi:10.1177/1094342005051521",
        applies=power_of_two,
    ),
    Algorithm(
        name="halving_doubling",
        collective="all_gather",
        steps=ceil_log2,
        sent=others,
        reduced=nothing,
        outside=halving_outside,
        schedule=doubling_all_gather,
        source=SOURCE,
        applies=power_of_two,
    ),
    Algorithm(
        name="halving_doubling",
        collective="reduce_scatter",
        steps=ceil_log2,
        sent=others,
        reduced=others,
        outside=halving_outside,
        schedule=halving_reduce_scatter,
        source=SOURCE,
        applies=power_of_two,
    ),
)
