"""In-network reduction and multicast: the switch adds, and the switch copies.

    all-reduce      T = 2 alpha + (1 + 1/p) S/B
    reduce-scatter  T =   alpha + (p - 1)/p S/B
    all-gather      T =   alpha + (p - 1)/p S/B
    broadcast       T =   alpha + S/B
    reduce          T =   alpha + S/B

All-reduce by shards of S/p: for each shard the switch pulls from all ranks and returns the sum to the shard's owner,
who sends it back for everyone. Out of a rank go S and then S/p, into it S/p and then S. Pull and multicast of
different shards overlap, so each direction carries S (1 + 1/p) once; two steps of latency remain, those of the last
shard. Reduce-scatter and all-gather gain steps but no bandwidth: one direction of the port still carries (p - 1)/p S.

Leaves out: what share of the port such traffic reaches (0.74 to 0.85 in NCCL's tuner; give it as the port's
efficiency), the fixed cost of some 25 us that the same tuner adds, data types the switch cannot add, and sharing of
its adders. The switch is taken to sit above every block of ranks smaller than the group.
Source: derived from the multimem load-reduce and store data flow of NCCL NVLS (src/graph/tuning.cc); Graham et al.,
COM-HPC 2016 (SHARP), doi:10.1109/COMHPC.2016.006.
"""

from __future__ import annotations

from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, any_peers, leaving, nothing, others

SOURCE = "data flow of NCCL NVLS, src/graph/tuning.cc; Graham et al. 2016, doi:10.1109/COMHPC.2016.006"


# Rank p is the switch. Sends of one round happen in the order written where one needs the other: data streams through.


def in_network_all_reduce(ranks: int) -> Schedule:
    """The sends, all in flight at once; the empty round is the latency of the last shard's way back."""
    if ranks == 1:
        return Schedule(1, [])
    everyone, switch = range(ranks), ranks
    pull = [Send(r, switch, everyone, True) for r in everyone]
    owners = [Send(switch, r, (r,)) for r in everyone] + [Send(r, switch, (r,)) for r in everyone]
    return Schedule(ranks, [[*pull, *owners, *(Send(switch, r, everyone) for r in everyone)], []])


def _all_but(ranks: int, rank: int) -> list[int]:
    return [block for block in range(ranks) if block != rank]


def in_network_reduce_scatter(ranks: int) -> Schedule:
    """The sends: the other blocks up to be added, my own block's sum down."""
    everyone, switch = range(ranks), ranks
    up = [Send(r, switch, _all_but(ranks, r), True) for r in everyone]
    return Schedule(ranks, [[*up, *(Send(switch, r, (r,), True) for r in everyone)]] if ranks > 1 else [])


def in_network_all_gather(ranks: int) -> Schedule:
    """The sends: my own block up, the other blocks down."""
    everyone, switch = range(ranks), ranks
    up = [Send(r, switch, (r,)) for r in everyone]
    return Schedule(ranks, [[*up, *(Send(switch, r, _all_but(ranks, r)) for r in everyone)]] if ranks > 1 else [])


def in_network_broadcast(ranks: int) -> Schedule:
    """The sends: once up, and down to all."""
    down = [Send(ranks, r, (0,)) for r in range(1, ranks)]
    return Schedule(1, [[Send(0, ranks, (0,)), *down]] if down else [])


def in_network_reduce(ranks: int) -> Schedule:
    """The sends: all up, the sum down to rank 0."""
    up = [Send(r, ranks, (0,), True) for r in range(1, ranks)]
    return Schedule(1, [[*up, Send(ranks, 0, (0,), True)]] if up else [])


def _all_reduce_sent(ranks: Column) -> Column:
    return any_peers(ranks) * (1 + 1 / ranks)


IN_NETWORK = (
    Algorithm(
        name="in_network",
        collective="all_reduce",
        steps=lambda p: 2 * any_peers(p),
        sent=_all_reduce_sent,
        reduced=nothing,
        outside=lambda p, b: leaving(p, b, _all_reduce_sent(p)),
        schedule=in_network_all_reduce,
        source=SOURCE,
        in_network=True,
    ),
    Algorithm(
        name="in_network",
        collective="all_gather",
        steps=any_peers,
        sent=others,
        reduced=nothing,
        outside=lambda p, b: leaving(p, b, others(p)),
        schedule=in_network_all_gather,
        source=SOURCE,
        in_network=True,
    ),
    Algorithm(
        name="in_network",
        collective="reduce_scatter",
        steps=any_peers,
        sent=others,
        reduced=nothing,
        outside=lambda p, b: leaving(p, b, others(p)),
        schedule=in_network_reduce_scatter,
        source=SOURCE,
        in_network=True,
    ),
    Algorithm(
        name="in_network",
        collective="broadcast",
        steps=any_peers,
        sent=any_peers,
        reduced=nothing,
        outside=lambda p, b: leaving(p, b, any_peers(p)),
        schedule=in_network_broadcast,
        source=SOURCE,
        in_network=True,
    ),
    Algorithm(
        name="in_network",
        collective="reduce",
        steps=any_peers,
        sent=any_peers,
        reduced=nothing,
        outside=lambda p, b: leaving(p, b, any_peers(p)),
        schedule=in_network_reduce,
        source=SOURCE,
        in_network=True,
    ),
)
