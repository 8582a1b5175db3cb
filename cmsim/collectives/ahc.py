"""AHC, the asymmetric hierarchical concatenation: an all-reduce over groups of unequal size.

    inside each group     direct reduce-scatter: member i of a group of n holds the sum of slice i of n
    between the groups    NHR all-reduce among the holders of aligned pieces, m groups
    inside each group     direct all-gather

    T = (2 + 2 ceil(log2 m)) alpha + (2 (n_max - 1)/n_max + 2 (m - 1)/(m n_min)) S/B + (1 - 1/(m n_max)) S gamma

A hierarchy needs equal groups (``hierarchical``); here slices of one group lie across slices of another. The vector is
cut wherever any group cuts it, at multiples of 1/lcm(n), so that each piece has one holder in every group: a holder in
a group of 4 stands for two of a group of 8 and carries twice their bytes. The smallest group sets the pace between
groups, the largest inside.

The library's documentation has the same bytes, times a factor of its own where the network between groups is
oversubscribed, and 2 (ceil(log2 n_max) + ceil(log2 m)) steps: it goes by halves inside groups as well. It adds the most
that is summed inside and the most that is summed between groups, which are not the same rank's.

Leaves out: overlap of the three phases, and oversubscription, which is the network's business.
Source: HCCL coll_algo_intro AHC.md; the alignment of pieces is derived here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from cmsim.collectives.grouped import SERVER, Traffic, counted_outside, pairs_inside
from cmsim.collectives.nhr import blocks_of_step, nhr_all_gather, nhr_reduce_scatter
from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, any_peers, ceil_log2, joined, others

SOURCE = "HCCL coll_algo_intro AHC.md, one step inside a group"


def groups_of(ranks: int) -> list[int]:
    """Full servers, and one of what is left.

    >>> groups_of(20)
    [8, 8, 4]
    """
    full, rest = divmod(ranks, SERVER)
    return [SERVER] * full + [rest] * (rest > 0)


def ahc_all_reduce(groups: Sequence[int]) -> Schedule:
    """The sends among groups of neighbouring ranks."""
    if sum(groups) < 2:
        return Schedule(1, [])
    m, pieces = len(groups), math.lcm(*groups)
    first = np.cumsum([0, *groups]).tolist()

    def blocks(piece: int) -> range:
        """A piece has m blocks, one for the holder in each group."""
        return range(piece * m, (piece + 1) * m)

    def slices(n: int, member: int) -> list[int]:
        cut = pieces // n
        return [block for piece in range(member * cut, (member + 1) * cut) for block in blocks(piece)]

    scatter, gather = [], []
    for start, n in zip(first, groups, strict=False):
        for r in range(n):
            scatter += [Send(start + r, start + d, slices(n, d), True) for d in range(n) if d != r]
            gather += [Send(start + r, start + d, slices(n, r)) for d in range(n) if d != r]
    between: list[list[Send]] = []
    for sends in joined(nhr_reduce_scatter(m), nhr_all_gather(m)).rounds:
        between.append([])
        for (j, to, sub_blocks, adds), piece in itertools.product(sends, range(pieces)):
            src, dst = (first[group] + piece * groups[group] // pieces for group in (j, to))
            between[-1].append(Send(src, dst, [piece * m + block for block in sub_blocks], adds))
    return Schedule(pieces * m, [sends for sends in (scatter, *between, gather) if sends])


def _traffic(ranks: int, block: int) -> Traffic:
    full, rest = divmod(ranks, SERVER)
    m, pieces = full + (rest > 0), math.lcm(SERVER if full else 1, max(rest, 1))
    if block % SERVER == 0:
        # a group lies in one block: its first rank stands for all
        pieces, holder = 1, np.arange(m)[:, None] * SERVER
        src, dst, share = [], [], []
    else:
        # the holder of each piece, group by group
        piece = np.arange(pieces)
        of_rest = (full * SERVER + piece * rest // pieces)[None, :][: rest > 0]
        holder = np.concatenate([np.arange(full)[:, None] * SERVER + piece * SERVER // pieces, of_rest])
        near, far = pairs_inside(full, SERVER), pairs_inside(1, rest)
        src, dst = [near[0], full * SERVER + far[0]], [near[1], full * SERVER + far[1]]
        share = [np.full(len(near[0]), 2 / SERVER), np.full(len(far[0]), 2 / max(rest, 1))]
    for k in range(int(ceil_log2(m))):
        one, other = holder.ravel(), np.roll(holder, 2**k, axis=0).ravel()
        # reduce-scatter one way, all-gather back
        src, dst = [*src, one, other], [*dst, other, one]
        share += [np.full(holder.size, blocks_of_step(m, k) / m / pieces)] * 2
    return np.concatenate(src), np.concatenate(dst), np.concatenate(share)


def _groups(ranks: Column) -> Column:
    return -(-ranks // SERVER)


def _most(ranks: Column) -> Column:
    return np.minimum(ranks, SERVER)


def _least(ranks: Column) -> Column:
    return np.where(np.asarray(ranks) % SERVER == 0, SERVER, np.asarray(ranks) % SERVER)


AHC = (
    Algorithm(
        name="ahc",
        collective="all_reduce",
        steps=lambda p: 2 * any_peers(p) + 2 * ceil_log2(_groups(p)),
        sent=lambda p: 2 * others(_most(p)) + 2 * others(_groups(p)) / _least(p),
        reduced=lambda p: 1 - 1 / (_groups(p) * _most(p)),
        outside=counted_outside(_traffic),
        schedule=lambda p: ahc_all_reduce(groups_of(p)),
        source=SOURCE,
        # equal groups have the hierarchical forms
        applies=lambda p: (np.asarray(p) > SERVER) & (np.asarray(p) % SERVER != 0),
    ),
)
