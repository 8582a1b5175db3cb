"""Direct: everybody talks to everybody at once, through one port.

    all-to-all             T =   alpha + (p - 1)/p S/B
    reduce-scatter         T =   alpha + (p - 1)/p S/B + (p - 1)/p S gamma
    all-gather             T =   alpha + (p - 1)/p S/B
    one-shot all-reduce    T =   alpha + (p - 1) S/B + (p - 1) S gamma         everyone sends everything to everyone
    two-shot all-reduce    T = 2 alpha + 2 (p - 1)/p S/B + (p - 1)/p S gamma   direct reduce-scatter and all-gather
    one-shot broadcast     T =   alpha + (p - 1) S/B                           the root's port carries p - 1 copies
    two-shot broadcast     T = 2 alpha + 2 (p - 1)/p S/B                       direct scatter and all-gather
    scatter, gather        T =   alpha + (p - 1)/p S/B

The p - 1 flows of a rank share its port, as on any switched fabric. HCCL's Mesh formula divides by p instead because
there each pair of ranks has a wire of its own: T = 2 alpha + 2/p S/B_link + (p - 1)/p S gamma.

Leaves out: the gap between messages of one sender, (p - 2) g, which hundreds of peers make felt, and
incast losses.
Source: HCCL coll_algo_intro Mesh.md and Star.md; one-shot and two-shot as in custom all-reduce kernels; all-to-all
bound by row and column sums, Chan et al. 2007, doi:10.1002/cpe.1206.
"""

from __future__ import annotations

from cmsim.collectives.binomial import scatter_outside
from cmsim.collectives.terms import (
    Algorithm,
    Column,
    Schedule,
    Send,
    any_peers,
    joined,
    leaving,
    nothing,
    others,
)

SOURCE = "HCCL coll_algo_intro Mesh.md, with the p - 1 flows sharing one port"


def direct_all_to_all(ranks: int) -> Schedule:
    """The sends: one round of all ordered pairs."""
    sends = [Send(r, d, (r * ranks + d,)) for r in range(ranks) for d in range(ranks) if d != r]
    return Schedule(ranks, [sends] if sends else [])


def direct_reduce_scatter(ranks: int) -> Schedule:
    """The sends: block d of everybody goes to d."""
    sends = [Send(r, d, (d,), True) for r in range(ranks) for d in range(ranks) if d != r]
    return Schedule(ranks, [sends] if sends else [])


def direct_all_gather(ranks: int) -> Schedule:
    """The sends: everybody's block goes to all others."""
    sends = [Send(r, d, (r,)) for r in range(ranks) for d in range(ranks) if d != r]
    return Schedule(ranks, [sends] if sends else [])


def _one_shot_all_reduce(ranks: int) -> Schedule:
    sends = [Send(r, d, (0,), True) for r in range(ranks) for d in range(ranks) if d != r]
    return Schedule(1, [sends] if sends else [])


def _root_sends(ranks: int, parts: int) -> Schedule:
    sends = [Send(0, d, (d if parts > 1 else 0,)) for d in range(1, ranks)]
    return Schedule(parts, [sends] if sends else [])


def _root_receives(ranks: int, parts: int, *, adds: bool) -> Schedule:
    rounds = [[Send(s.dst, s.src, s.blocks, adds) for s in sends] for sends in _root_sends(ranks, parts).rounds]
    return Schedule(parts, rounds)


def direct_outside(ranks: Column, block: Column) -> Column:
    """(p - block)/p: the peers that are not in my block. [1]"""
    return leaving(ranks, block, (ranks - block) / ranks)


def _one_shot_outside(ranks: Column, block: Column) -> Column:
    return leaving(ranks, block, 1.0 * (ranks - block))


def _rooted_one_shot_outside(ranks: Column, block: Column) -> Column:
    return leaving(ranks, block, (ranks - block) / block)


def _rooted_two_shot_outside(ranks: Column, block: Column) -> Column:
    return direct_outside(ranks, block) + scatter_outside(ranks, block)


DIRECT = (
    Algorithm(
        name="one_shot",
        collective="all_reduce",
        steps=any_peers,
        sent=lambda p: p - 1,
        reduced=lambda p: p - 1,
        outside=_one_shot_outside,
        schedule=_one_shot_all_reduce,
        source=SOURCE,
    ),
    Algorithm(
        name="two_shot",
        collective="all_reduce",
        steps=lambda p: 2 * any_peers(p),
        sent=lambda p: 2 * others(p),
        reduced=others,
        outside=lambda p, b: 2 * direct_outside(p, b),
        schedule=lambda p: joined(direct_reduce_scatter(p), direct_all_gather(p)),
        source=SOURCE,
    ),
    Algorithm(
        name="direct",
        collective="all_gather",
        steps=any_peers,
        sent=others,
        reduced=nothing,
        outside=direct_outside,
        schedule=direct_all_gather,
        source=SOURCE,
    ),
    Algorithm(
        name="direct",
        collective="reduce_scatter",
        steps=any_peers,
        sent=others,
        reduced=others,
        outside=direct_outside,
        schedule=direct_reduce_scatter,
        source=SOURCE,
    ),
    Algorithm(
        name="direct",
        collective="all_to_all",
        steps=any_peers,
        sent=others,
        reduced=nothing,
        outside=direct_outside,
        schedule=direct_all_to_all,
        source="Chan et al. 2007, doi:10.1002/cpe.1206",
    ),
    Algorithm(
        name="one_shot",
        collective="broadcast",
        steps=any_peers,
        sent=lambda p: p - 1,
        reduced=nothing,
        outside=_rooted_one_shot_outside,
        schedule=lambda p: _root_sends(p, 1),
        source="HCCL coll_algo_intro Star.md, the root's port shared by p - 1 peers",
        rotates=False,
    ),
    Algorithm(
        name="two_shot",
        collective="broadcast",
        steps=lambda p: 2 * any_peers(p),
        sent=lambda p: 2 * others(p),
        reduced=nothing,
        outside=_rooted_two_shot_outside,
        schedule=lambda p: joined(_root_sends(p, p), direct_all_gather(p)),
        source=SOURCE,
        rotates=False,
    ),
    Algorithm(
        name="one_shot",
        collective="reduce",
        steps=any_peers,
        sent=lambda p: p - 1,
        reduced=lambda p: p - 1,
        outside=_rooted_one_shot_outside,
        schedule=lambda p: _root_receives(p, 1, adds=True),
        source="HCCL coll_algo_intro Star.md, the root's port shared by p - 1 peers",
        rotates=False,
    ),
    Algorithm(
        name="two_shot",
        collective="reduce",
        steps=lambda p: 2 * any_peers(p),
        sent=lambda p: 2 * others(p),
        reduced=others,
        outside=_rooted_two_shot_outside,
        schedule=lambda p: joined(direct_reduce_scatter(p), _root_receives(p, p, adds=False)),
        source=SOURCE,
        rotates=False,
    ),
    Algorithm(
        name="direct",
        collective="scatter",
        steps=any_peers,
        sent=others,
        reduced=nothing,
        outside=scatter_outside,
        schedule=lambda p: _root_sends(p, p),
        source="HCCL coll_algo_intro Star.md, the root's port shared by p - 1 peers",
        rotates=False,
    ),
    Algorithm(
        name="direct",
        collective="gather",
        steps=any_peers,
        sent=others,
        reduced=nothing,
        outside=scatter_outside,
        schedule=lambda p: _root_receives(p, p, adds=False),
        source="HCCL coll_algo_intro Star.md, the root's port shared by p - 1 peers",
        rotates=False,
    ),
)
