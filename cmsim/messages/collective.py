"""One collective on the links of a system, message by message: its time, what is busiest, how near the bound it is.

``plan`` lays the rounds on the fabric; ``collective_time`` and ``all_to_all_v`` play them one after the other on a
fabric of their own. ``Plan.demands`` gives the same rounds to a network that others share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.collectives import ON_GRID, Algorithm, candidates
from cmsim.errors import InfeasibleError, InputError, did_you_mean
from cmsim.hardware import System, call_cost, small_sum
from cmsim.messages.bounds import Bound, bound, bound_of_matrix
from cmsim.messages.merge import Classes, merge
from cmsim.messages.messages import Messages, fitted, from_matrix, rounds
from cmsim.messages.rounds import Software, demands, solve
from cmsim.network import Demand
from cmsim.topology import Paths, fabric, paths, places
from cmsim.topology.faults import Faults

#: a group: how many of the first ranks, the ranks themselves, or all
Group = int | Sequence[int] | Ints | None

#: how many kinds of busy resources a result lists
_LISTED = 8


@dataclass(frozen=True)
class RoundTime:
    """A round of a result. ``times`` is how often it follows itself, ``time_s`` what one takes. [s]

    messages, bytes_B  of one such round    classes  of messages, after merging
    """

    times: int
    messages: int
    classes: int
    bytes_B: float
    time_s: float


@dataclass(frozen=True)
class BusyLinks:
    """Resources that carry the same: the name of one, how many there are, bytes through one, and its utilisation.

    Utilisation is bytes over what the resource could have carried in the whole time. [1]
    """

    name: str
    instances: int
    bytes_B: float
    utilisation: float


@dataclass(frozen=True)
class FlowResult:
    """A collective played message by message.

    time_s  from call to end [s]    busiest  most utilised first    bound_s  egress, ingress, bisection, latency [s]
    """

    collective: str
    algorithm: str
    ranks: int
    time_s: float
    rounds: tuple[RoundTime, ...]
    busiest: tuple[BusyLinks, ...]
    bound_s: Bound

    @property
    def ratio(self) -> float:
        """Time over bound, 1.0 at the physical limit. [1]"""
        return self.time_s / self.bound_s.time_s if self.bound_s.time_s else 1.0


@dataclass(frozen=True)
class Round:
    """A distinct round on the fabric: its messages, merged. ``most_per_rank`` messages leave the busiest rank."""

    messages: Messages
    classes: Classes
    most_per_rank: int


@dataclass(frozen=True)
class MessagePlan:
    """A collective laid on a fabric. ``sequence`` lists (position in ``distinct``, how often in a row)."""

    routes: Paths
    software: Software
    distinct: tuple[Round, ...]
    sequence: tuple[tuple[int, int], ...]

    def demands(self) -> Iterator[tuple[tuple[Demand, ...], int]]:
        """Round by round: demands that start together, and how often the round follows itself.

        Resources are numbered as in ``routes``: a network of capacity ``routes.capacity_Bps`` plays them.
        """
        ready = [demands(one.classes, self.software) for one in self.distinct]
        for which, times in self.sequence:
            yield ready[which], times


def software(system: System, collective: str, *, ranks: int, small: bool = False) -> Software:
    """What the system's stack adds to the wire, round by round. ``small``: an engine's own kernel does it."""
    cost = call_cost(system.stack, collective, ranks, small)
    return Software(
        base_s=float(cost.whole_s),
        step_s=cost.round_s,
        scale_up=float(cost.scale_up),
        scale_out=cost.scale_out,
        wire=cost.wire,
    )


def plan(
    messages: Sequence[Messages], routes: Paths, *, ranks: Ints, software: Software, together: bool = True
) -> MessagePlan:
    """Rounds of messages among a group, on the resources they cross; equal rounds are laid once.

    ranks: of the system, by position in the group    together: whether equal messages are merged
    """
    place = np.append(ranks, -1)  # position -1 is the switch
    distinct: list[Round] = []
    known: dict[bytes, int] = {}
    sequence: list[tuple[int, int]] = []
    for one in messages:
        key = one.key
        if key not in known:
            crossed = routes.crossings(place[one.src], place[one.dst])
            classes = merge(crossed, routes.capacity_Bps, routes.tier, one.size_B, together=together)
            senders = one.src[one.src >= 0]
            most = int(np.bincount(senders).max()) if len(senders) else 0
            known[key] = len(distinct)
            distinct.append(Round(one, classes, max(most, 1)))
        sequence.append((known[key], one.times))
    return MessagePlan(routes, software, tuple(distinct), tuple(sequence))


def collective_time(
    system: System,
    collective: str,
    *,
    algorithm: str,
    size_B: float,
    ranks: Group = None,
    faults: Faults = (),
    routing: str = "sprayed",
    seed: int = 0,
    library: Software | None = None,
    together: bool = True,
) -> FlowResult:
    """A collective by a flat algorithm, message by message on the links of a system.

    algorithm  a name of the table      size_B   S, as ``collectives.terms`` counts it [B]
    ranks      the group: how many of the first ranks, their numbers, or all; the first one is the root
    faults     parts that are down, or what is left of them (``topology.faults``)
    routing    sprayed, hashed (by ``seed``) or pinned      library  what software adds; default the system's stack
    together   whether equal messages are merged (the answer is the same)

    Raises InputError for names and ranks that do not exist, InfeasibleError where no path is left.
    """
    group = members(system, ranks)
    chosen = _algorithm(system, collective, algorithm, group)
    if not (np.isfinite(size_B) and size_B >= 0):
        raise InputError(f"size_B is a finite number of bytes, got {size_B}")
    if library is None:
        inside = len(np.unique(group // (system.spec.accelerators * system.ranks_per_package))) == 1
        small = bool(small_sum(system.stack, collective, size_B)) and inside
        library = software(system, collective, ranks=len(group), small=small)
    whole, routes = _fabric(system, faults, routing, seed, library)
    domains = len(np.unique(routes.where.domain[group]))
    if chosen.in_network and domains > 1:
        raise InfeasibleError(
            f"{collective} by {chosen.name} needs switches that add between all ranks; these are in {domains} domains"
        )
    laid = plan(rounds(chosen, len(group), size_B), routes, ranks=group, software=library, together=together)
    limit = bound(
        collective,
        size_B,
        paths=whole,
        ranks=group,
        software=library,
        in_network=chosen.in_network,
    )
    added_s = float(chosen.reduced(len(group))) * size_B * library.gamma_s_per_B
    return _play(laid, collective, chosen.name, len(group), limit, added_s=added_s)


def all_to_all_v(
    system: System,
    matrix_B: Any,
    *,
    ranks: Group = None,
    faults: Faults = (),
    routing: str = "sprayed",
    seed: int = 0,
    library: Software | None = None,
    collective: str = "all_to_all",
    together: bool = True,
) -> FlowResult:
    """An all-to-all of unequal blocks, all messages at once. See ``collective_time`` for the other parameters.

    matrix_B: bytes from row to column, positions in the group; the diagonal stays at home [B]
    collective: all_to_all, dispatch or combine, whose software it runs
    """
    matrix = np.asarray(matrix_B, np.float64)
    sends = from_matrix(matrix)
    group = members(system, len(matrix) if ranks is None else ranks)
    if len(group) != len(matrix):
        raise InputError(f"the matrix has {len(matrix)} rows, the group {len(group)} ranks")
    library = software(system, collective, ranks=len(group)) if library is None else library
    whole, routes = _fabric(system, faults, routing, seed, library)
    laid = plan(sends, routes, ranks=group, software=library, together=together)
    limit = bound_of_matrix(matrix, paths=whole, ranks=group, software=library)
    return _play(laid, collective, "direct", len(group), limit)


def members(system: System, ranks: Group) -> Ints:
    """The ranks of a group. Raises InputError where one stands twice or does not exist."""
    if ranks is None:
        ranks = system.ranks
    group = np.arange(ranks, dtype=np.int64) if isinstance(ranks, int) else np.asarray(ranks, np.int64)
    if not len(group) or group.ndim != 1:
        raise InputError("a group has at least one rank")
    if group.min() < 0 or group.max() >= system.ranks:
        foreign = group[(group < 0) | (group >= system.ranks)]
        raise InputError(f"{system.name} has ranks 0 to {system.ranks - 1}; got {int(foreign[0])}")
    if len(np.unique(group)) < len(group):
        twice = np.flatnonzero(np.bincount(group) > 1)
        raise InputError(f"rank {int(twice[0])} stands twice in the group")
    return group


def _in_node(system: System, group: Ints) -> int:
    """The fewest members in one node. [1]"""
    count = np.bincount(places(system).node[group])
    return int(count[count > 0].min())


def _algorithm(system: System, collective: str, name: str, group: Ints) -> Algorithm:
    ranks = len(group)
    found = {one.name: one for one in (*candidates(collective), *ON_GRID) if one.collective == collective}
    if name not in found:
        raise InputError(f"no flat algorithm '{name}' for {collective}. {did_you_mean(name, found)}")
    chosen = fitted(found[name], ranks, grid=fabric(system).grid, in_node=_in_node(system, group))
    if not bool(np.all(chosen.applies(ranks))):
        raise InfeasibleError(f"{collective} by {name} is not defined for {ranks} ranks")
    if chosen.in_network and not system.spec.scale_up.in_network_reduction:
        raise InfeasibleError(f"{collective} by {name} needs switches that add; those of {system.name} do not")
    return chosen


def _fabric(system: System, faults: Faults, routing: str, seed: int, library: Software) -> tuple[Paths, Paths]:
    """The links of a system at the rate of the wires, and at what a library makes of it."""
    whole = paths(system, faults=faults, routing=routing, seed=seed)
    if library.scale_up == library.scale_out == 1.0:
        return whole, whole
    scaled = paths(
        system,
        faults=faults,
        scale_up=library.scale_up,
        scale_out=library.scale_out,
        routing=routing,
        seed=seed,
    )
    return whole, scaled


def _play(
    laid: MessagePlan, collective: str, algorithm: str, ranks: int, limit: Bound, *, added_s: float = 0.0
) -> FlowResult:
    """The rounds one after the other, on a fabric of their own; ``added_s`` is arithmetic between them. [s]"""
    routes = laid.routes
    # a round without sends is a step whose bytes flowed earlier: it takes as long as the longest path of the others
    paths = [float(one.classes.latency_s.max()) for one in laid.distinct if len(one.classes.latency_s)]
    step_s = float(laid.software.latency_s(np.array([max(paths, default=0.0)]))[0])
    times = [
        solve(one.classes, laid.software, most_per_rank=one.most_per_rank).time_s if len(one.messages.src) else step_s
        for one in laid.distinct
    ]
    load = np.zeros(len(routes.capacity_Bps))
    listed = []
    total = (laid.software.base_s if laid.sequence else 0.0) + added_s
    for which, repeats in laid.sequence:
        one = laid.distinct[which]
        total += repeats * times[which]
        crossed = one.classes.resource_class >= 0
        load[crossed] += repeats * one.classes.load_B()[one.classes.resource_class[crossed]]
        listed.append(
            RoundTime(repeats, len(one.messages.src), len(one.classes.count), one.messages.total_B, times[which])
        )
    return FlowResult(collective, algorithm, ranks, total, tuple(listed), _busiest(routes, load, total), limit)


def _busiest(routes: Paths, load_B: Floats, time_s: float) -> tuple[BusyLinks, ...]:
    used = np.flatnonzero(load_B > 0)
    if not len(used) or not time_s:
        return ()
    share = load_B[used] / (routes.capacity_Bps[used] * time_s)
    kinds, first, count = np.unique(
        # bundles of other widths may be as busy and carry other bytes
        np.stack([routes.tier[used], np.round(share, 9), np.round(load_B[used] / load_B.max(), 9)]),
        axis=1,
        return_index=True,
        return_counts=True,
    )
    order = np.argsort(-kinds[1], kind="stable")[:_LISTED]
    return tuple(
        BusyLinks(
            name=routes.name(int(used[first[i]])),
            instances=int(count[i]),
            bytes_B=float(load_B[used[first[i]]]),
            utilisation=float(share[first[i]]),
        )
        for i in order.tolist()
    )
