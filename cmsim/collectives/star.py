"""Star: everybody to the root, and the root to everybody.

    all-reduce      T = 2 alpha + 2 (p - 1) S/B + (p - 1) S gamma     root adds all vectors, hands out the sum
    all-gather      T = 2 alpha + ((p - 1)/p + p - 1) S/B             root collects all blocks, hands out the whole
    reduce-scatter  T = 2 alpha + (p - 1 + (p - 1)/p) S/B + (p - 1) S gamma

The root's port carries p - 1 messages, so that this is for a few ranks and small messages only; a library takes it for
rooted collectives, which are ``one_shot`` (broadcast, reduce) and ``direct`` (scatter, gather) here. The formula of its
documentation, alpha + S/B, gives every peer a wire of its own.

Leaves out: gaps between the root's messages.
Source: HCCL coll_algo_intro Star.md, the root's port shared by p - 1 peers.
"""

from __future__ import annotations

from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, any_peers, leaving, nothing, others

SOURCE = "HCCL coll_algo_intro Star.md, the root's port shared by p - 1 peers"


def _star(ranks: int, parts: int, *, to_root: bool, from_root: bool, adds: bool) -> Schedule:
    """Two rounds; a rank sends or receives its own block only, or the whole vector."""
    whole = range(parts)
    up = [Send(r, 0, (r,) if to_root else whole, adds) for r in range(1, ranks)]
    # a rank has its own block already, but the root's message is one for all
    down = [Send(0, r, (r,) if from_root else whole) for r in range(1, ranks)]
    return Schedule(parts, [up, down] if up else [])


def _outside(ranks: Column, block: Column, *, up: Column, down: Column) -> Column:
    """What ranks outside the root's block send to it and are sent, per rank of the block; the busier direction. [1]"""
    return leaving(ranks, block, (ranks - block) / block * max(up, down))


STAR = (
    Algorithm(
        name="star",
        collective="all_reduce",
        steps=lambda p: 2 * any_peers(p),
        sent=lambda p: 2 * (p - 1),
        reduced=lambda p: p - 1,
        outside=lambda p, b: _outside(p, b, up=1.0, down=1.0),
        schedule=lambda p: _star(p, 1, to_root=False, from_root=False, adds=True),
        source=SOURCE,
        rotates=False,
    ),
    Algorithm(
        name="star",
        collective="all_gather",
        steps=lambda p: 2 * any_peers(p),
        sent=lambda p: others(p) + p - 1,
        reduced=nothing,
        outside=lambda p, b: _outside(p, b, up=0.0, down=1.0),
        schedule=lambda p: _star(p, p, to_root=True, from_root=False, adds=False),
        source=SOURCE,
        rotates=False,
    ),
    Algorithm(
        name="star",
        collective="reduce_scatter",
        steps=lambda p: 2 * any_peers(p),
        sent=lambda p: p - 1 + others(p),
        reduced=lambda p: p - 1,
        outside=lambda p, b: _outside(p, b, up=1.0, down=0.0),
        schedule=lambda p: _star(p, p, to_root=False, from_root=True, adds=True),
        source=SOURCE,
        rotates=False,
    ),
)
