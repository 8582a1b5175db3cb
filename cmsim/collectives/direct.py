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
there each pair of ranks has a wire of its own: ``mesh_all_reduce_s``.

Leaves out: the gap between messages of one sender, (p - 2) g, which hundreds of peers make felt (``loggp``), and
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


def direct_all_to_all_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of an all-to-all in one step; also of a direct all-gather or reduce-scatter without arithmetic. [s]

    T = alpha + (p - 1)/p S/B
    ranks: p [1]    size_B: S, what a rank sends, own block included [B]    alpha_s: fixed cost of the step [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> float(direct_all_to_all_s(4, 400.0, alpha_s=1.0, bandwidth_Bps=100.0))
    4.0
    """
    return any_peers(ranks) * alpha_s + others(ranks) * size_B / bandwidth_Bps


def one_shot_all_reduce_s(
    ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column, gamma_s_per_B: Column = 0.0
) -> Column:
    """Time of an all-reduce in which everyone sends everything to everyone. [s]

    T = alpha + (p - 1) S/B + (p - 1) S gamma
    ranks: p [1]    size_B: S, held by each rank [B]    alpha_s: fixed cost of the step [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]    gamma_s_per_B: cost of adding a byte [s/B]

    >>> float(one_shot_all_reduce_s(4, 400.0, alpha_s=1.0, bandwidth_Bps=100.0))
    13.0
    """
    return any_peers(ranks) * alpha_s + (ranks - 1) * size_B * (1 / bandwidth_Bps + gamma_s_per_B)


def two_shot_all_reduce_s(
    ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column, gamma_s_per_B: Column = 0.0
) -> Column:
    """Time of an all-reduce as direct reduce-scatter and direct all-gather. [s]

    T = 2 alpha + 2 (p - 1)/p S/B + (p - 1)/p S gamma
    ranks: p [1]    size_B: S, held by each rank [B]    alpha_s: fixed cost of a step [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]    gamma_s_per_B: cost of adding a byte [s/B]

    >>> float(two_shot_all_reduce_s(4, 400.0, alpha_s=1.0, bandwidth_Bps=100.0))
    8.0
    """
    return 2 * any_peers(ranks) * alpha_s + others(ranks) * size_B * (2 / bandwidth_Bps + gamma_s_per_B)


def one_shot_crossover_B(ranks: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Size below which one shot beats two, arithmetic left out. [B]

    S* = alpha B / ((p - 1) (1 - 2/p)), for p > 2
    ranks: p [1]    alpha_s: fixed cost of a step [s]    bandwidth_Bps: B [B/s]

    >>> one_shot_crossover_B(4, alpha_s=3.0, bandwidth_Bps=100.0)
    200.0
    """
    return alpha_s * bandwidth_Bps / ((ranks - 1) * (1 - 2 / ranks))


def mesh_all_reduce_s(
    ranks: Column, size_B: Column, *, alpha_s: Column, link_bandwidth_Bps: Column, gamma_s_per_B: Column = 0.0
) -> Column:
    """Time of a two-shot all-reduce where each pair of ranks has its own wire. [s]

    T = 2 alpha + 2/p S/B_link + (p - 1)/p S gamma; does not hold where ranks reach their peers through a switch
    ranks: p [1]    size_B: S, held by each rank [B]    alpha_s: fixed cost of a step [s]
    link_bandwidth_Bps: one direction of one of the p - 1 wires [B/s]    gamma_s_per_B: cost of adding a byte [s/B]

    >>> mesh_all_reduce_s(4, 400.0, alpha_s=1.0, link_bandwidth_Bps=100.0)
    4.0
    """
    return 2 * alpha_s + 2 / ranks * size_B / link_bandwidth_Bps + others(ranks) * size_B * gamma_s_per_B


def pair_rate_Bps(ranks: Column, *, bandwidth_Bps: Column) -> Column:
    """What each pair gets in a uniform all-to-all on a non-blocking fabric: B / (p - 1). [B/s]

    >>> pair_rate_Bps(5, bandwidth_Bps=100.0)
    25.0
    """
    return bandwidth_Bps / (ranks - 1)


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
