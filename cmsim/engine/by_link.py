"""Calls as demands on single links: their rounds of messages, laid on the fabric and merged.

All groups of a class call at once, so their messages are laid together. Messages that can never differ are one demand
(``cmsim.messages.merge``); resources that carry the same in every round of every call are one class, so that what is
recorded stays small. Nothing is assumed equal that the messages do not show to be.

Where links change during the run, the same messages are laid on every state of the fabric side by side, and a demand
knows what becomes of it after each change.

A round of more than ``MOST_DEMANDS`` kinds of messages (skewed bytes, drawn paths) advances as one: at the rate of its
most loaded link, which is when its last message is through.
Leaves out: messages of one round that wait for each other, and skew between members of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from cmsim import messages
from cmsim.arrays import Ints
from cmsim.engine.apart import Sides, sides_of, told_apart
from cmsim.engine.calls import CallTable, PlacedCall, PricedCall, Pricer, receiving
from cmsim.engine.fold import Folding, Members
from cmsim.engine.resources import Resources
from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import System
from cmsim.messages import Classes, Messages, Software
from cmsim.network import SHARE_ONE, Demand
from cmsim.network.maxmin import max_min_Bps
from cmsim.topology import Crossings, Fabric, Paths
from cmsim.units import PS_PER_S, to_ps
from cmsim.workload.ops import Programs

#: kinds of messages beyond which a round is one demand
MOST_DEMANDS = 128
#: messages of one round, over all groups of a class: 2,048 ranks, all to all. A million needs 100 MB or more
MOST_MESSAGES = 1 << 22

#: crossings that are spread over resources at a time
_AT_A_TIME = 1 << 18

#: tiers whose payload share is that of the scale-out network; all others are inside a domain
_SCALE_OUT = ("nic", "leaf", "spine")


@dataclass(frozen=True)
class PlacedRound:
    """A round at one byte of S, of all groups of a class at once.

    classes  over all states of the fabric    bytes_B  of one group    groups  ranks, shape (groups, members)
    sides    what tells groups of a class apart; None where nothing can
    """

    classes: Classes
    bytes_B: float
    groups: Ints
    sides: Sides | None


@dataclass(frozen=True)
class ByLink:
    """What laying messages needs.

    states    the fabric, from the start and after each change
    changes_ps  when it changes
    known     rounds laid before, by what is sent and by whom; may be shared with another folding's
    used      takes the rounds of the last call
    """

    programs: Programs
    system: System
    levels: Fabric
    folding: Folding
    who: Members
    states: Sequence[Paths]
    changes_ps: Sequence[int]
    known: dict[tuple[bytes, bytes], PlacedRound] = field(default_factory=dict)
    used: list[PlacedRound] = field(default_factory=list)

    def place(self, wanted: Sequence[PricedCall]) -> tuple[list[PlacedCall], Resources]:
        """See ``Carrier``."""
        rounds = self.used
        rounds.clear()
        plans: dict[tuple[int, str, str, int], list[tuple[int, int]]] = {}
        instances = self._instances({priced.group for priced in wanted})
        for priced in wanted:
            if _sends(priced) not in plans:
                plans[_sends(priced)] = self._rounds(priced, instances[priced.group], rounds)
        kinds = _Kinds(self.states, self.folding, self.levels.port_Bps, [one.classes for one in rounds])
        laid = [self._laid(priced, instances[priced.group], plans[_sends(priced)], rounds, kinds) for priced in wanted]
        return laid, kinds.resources(self.changes_ps)

    def _instances(self, wanted: set[int]) -> dict[int, Ints]:
        """The ranks of every group of a class, shape (groups, members); of a channel the sender stands first."""
        who, folding, programs = self.who, self.folding, self.programs
        of_class = folding.group_class[folding.rank_class[who.rank], who.slot]
        receives = receiving(programs)
        is_receiver = np.zeros((len(programs.program_ptr) - 1, len(programs.slots)), np.int64)
        for program, slot in receives:
            is_receiver[program, slot] = 1
        second = is_receiver[programs.program[who.rank], who.slot]
        order = np.lexsort((who.rank, second, who.group))
        out = {}
        for number in sorted(wanted):
            mine = order[of_class[order] == number]
            out[number] = who.rank[mine].reshape(-1, int(who.size[mine[0]]))
        return out

    def _rounds(self, priced: PricedCall, groups: Ints, rounds: list[PlacedRound]) -> list[tuple[int, int]]:
        """(number in ``rounds``, how often in a row) of a call of one byte; new rounds are added."""
        ranks = groups.shape[1]
        if ranks == 1:
            return []
        if priced.traffic >= 0:
            matrix = self.programs.traffic[priced.traffic]
            if len(matrix) != ranks:
                raise InputError(f"{priced.collective} among {ranks} ranks has the traffic of {len(matrix)}")
            sends = messages.from_matrix(matrix)
        else:
            sends = messages.candidate_rounds(
                priced.collective,
                priced.page,
                ranks,
                inner=priced.inner,
                domain=priced.in_domain,
                most=MOST_MESSAGES,
                grid=self.levels.grid,
            )
        known: dict[bytes, int] = {}
        out = []
        whose = groups.shape[1].to_bytes(8, "little") + groups.tobytes()
        for one in sends:
            key = one.key
            if key not in known:
                known[key] = len(rounds)
                if (key, whose) not in self.known:
                    self.known[key, whose] = self._round(priced, one, groups)
                rounds.append(self.known[key, whose])
            out.append((known[key], one.times))
        return out

    def _round(self, priced: PricedCall, sends: Messages, groups: Ints) -> PlacedRound:
        if len(groups) * len(sends.src) > MOST_MESSAGES:
            raise InfeasibleError(
                f"a round of {priced.collective} by {priced.algorithm} among {groups.size} ranks has "
                f"{len(groups) * len(sends.src):,} messages; network: flow lays at most {MOST_MESSAGES:,}. "
                "Use network: fluid, or a smaller group."
            )
        # position -1 is the switch
        place = np.concatenate([groups, np.full((len(groups), 1), -1)], axis=1).astype(np.int32)
        src, dst = place[:, sends.src].ravel(), place[:, sends.dst].ravel()
        size_B = sends.size_B if len(sends.size_B) == 1 else np.tile(sends.size_B, len(groups))
        crossed: list[Crossings | None] = []
        lost: InfeasibleError | None = None
        for paths in self.states:
            try:
                crossed.append(paths.crossings(src, dst))
            except InfeasibleError as error:
                crossed.append(None)
                lost = error
        if lost is not None and crossed[-1] is None:
            # the last state lasts for ever
            raise lost
        whole = _side_by_side(crossed, [len(paths.capacity_Bps) for paths in self.states])
        capacity_Bps = np.concatenate([paths.capacity_Bps for paths in self.states])
        tier = np.concatenate([paths.tier + i * len(paths.tiers) for i, paths in enumerate(self.states)])
        classes = messages.merge(whole, capacity_Bps, tier, size_B)
        apart = len(groups) > 1 and any(paths.alike() is None for paths in self.states)
        sides = sides_of(whole, classes, len(groups), capacity_Bps, tier, size_B) if apart else None
        return PlacedRound(classes, sends.total_B, groups, sides)

    def _laid(
        self, priced: PricedCall, groups: Ints, plan: list[tuple[int, int]], rounds: list[PlacedRound], kinds: _Kinds
    ) -> PlacedCall:
        software = messages.software(self.system, priced.collective, ranks=groups.shape[1], small=priced.small)
        if not plan:
            return PlacedCall(((Demand(0.0, 0),),), 0.0, 0.0, 0.0)
        phases: list[tuple[Demand, ...]] = [(Demand(0.0, int(to_ps(software.base_s))),)]
        latency_s = ideal_s = software.base_s
        sent_B = 0.0
        farthest_s = max((float(rounds[n].classes.latency_s.max(initial=0.0)) for n, _ in plan), default=0.0)
        made: dict[int, tuple[tuple[Demand, ...], float]] = {}
        for number, times in plan:
            if number not in made:
                demands = kinds.demands(number, priced.size_B, software, farthest_s)
                made[number] = demands, kinds.alone_s(demands)
            demands, took_s = made[number]
            phases += [demands] * times
            latency_s += times * max(one.latency_ps for one in demands) / PS_PER_S
            ideal_s += times * took_s
            sent_B += times * rounds[number].bytes_B * priced.size_B / groups.shape[1]
        return PlacedCall(tuple(phases), latency_s, ideal_s, sent_B)


class Counted:
    """Lays nothing: refuses calls of more messages than are laid, before there is a fabric to lay them on."""

    def place(self, wanted: Sequence[PricedCall]) -> tuple[list[PlacedCall], Resources]:
        for priced in wanted:
            if priced.traffic < 0 and priced.ranks > 1:
                messages.check_count(
                    priced.collective,
                    priced.page,
                    priced.ranks,
                    inner=priced.inner,
                    domain=priced.in_domain,
                    most=MOST_MESSAGES,
                )
        return [PlacedCall((), 0.0, 0.0, 0.0)] * len(wanted), Resources([], [], [], [], [])


def refolded(
    carrier: ByLink,
    start: Sequence[Ints],
    folded: Callable[[Sequence[Ints]], Folding],
    pricer: Callable[[Folding], Pricer],
) -> tuple[Folding, CallTable]:
    """The folding that laid messages leave standing, and its calls (see ``apart``).

    carrier  of the first folding, that of ``start``    folded, pricer  make foldings and what prices them
    """
    columns = list(start)
    owner = np.concatenate([paths.owner for paths in carrier.states])
    while True:
        folding = carrier.folding
        table = pricer(folding).price(carrier)
        if len(folding.first) == carrier.programs.ranks:
            return folding, table
        link = table.resources.located()["link"]
        columns.append(told_apart(carrier.used, link, owner, carrier.programs.ranks))
        finer = folded(columns)
        if len(finer.first) == len(folding.first):
            return folding, table
        carrier = replace(carrier, folding=finer)


def _sends(priced: PricedCall) -> tuple[int, str, str, int]:
    """Asks of one key send the same messages, in proportion to their size."""
    return priced.group, priced.collective, priced.algorithm, priced.traffic


def _side_by_side(crossed: Sequence[Crossings | None], resources: Sequence[int]) -> Crossings:
    """The same messages on several states of the fabric as one set of columns; resources count through."""
    if len(crossed) == 1 and crossed[0] is not None:
        return crossed[0]
    first = np.concatenate([[0], np.cumsum(resources)[:-1]])
    found = [(one, int(offset)) for one, offset in zip(crossed, first, strict=True) if one is not None]
    columns = tuple(
        np.where(number >= 0, number + offset, -1).astype(np.int32) for one, offset in found for number in one.resource
    )
    rows, pattern = np.unique(np.stack([one.pattern for one, _ in found]), axis=1, return_inverse=True)
    share = np.concatenate([one.share[row] for (one, _), row in zip(found, rows, strict=True)], axis=1)
    latency_s = np.max([one.latency_s[row] for (one, _), row in zip(found, rows, strict=True)], axis=0)
    return Crossings(columns, pattern.reshape(-1).astype(np.int32), share, latency_s)


class _Kinds:
    """Classes of resources that carry the same in every round, and rounds as demands on them."""

    def __init__(self, states: Sequence[Paths], folding: Folding, port_Bps: float, rounds: Sequence[Classes]):
        self._rounds = rounds
        self._capacity_Bps = np.concatenate([paths.capacity_Bps for paths in states])
        self._state = np.repeat(np.arange(len(states)), [len(paths.capacity_Bps) for paths in states])
        self._states = states
        self._port_Bps = port_Bps
        owner = np.concatenate([paths.owner for paths in states])
        known = owner < len(folding.rank_class)
        # ranks beyond the workload's have no class
        self._owner = np.where((owner >= 0) & known, folding.rank_class[np.where(known, owner, 0)], -1)
        tiers = [name for paths in states for name in paths.tiers]
        start = np.cumsum([0, *(len(paths.tiers) for paths in states)])[:-1]
        tier = np.concatenate([paths.tier + at for paths, at in zip(states, start, strict=True)])
        code = np.unique(np.stack([tier, self._owner]), axis=1, return_inverse=True)[1].reshape(-1)
        used = np.zeros(len(code), bool)
        for classes in rounds:
            used |= classes.resource_class >= 0
            wide = classes.resource_class + 1
            code = np.unique(code * (int(wide.max(initial=0)) + 1) + wide, return_inverse=True)[1].reshape(-1)
        kept, first = np.unique(code[used], return_index=True)
        #: one resource of each class
        self._one = np.flatnonzero(used)[first]
        number = np.full(int(code.max(initial=0)) + 1, -1, np.int64)
        number[kept] = np.arange(len(kept))
        self._count = np.bincount(number[code[used]], minlength=len(kept))
        #: class of every link of every state, -1 where nothing crosses it
        self._number = np.where(used, number[code], -1)
        self._tier = [tiers[i] for i in tier[self._one].tolist()]
        self._out = np.array([name.partition(".")[0] in _SCALE_OUT for name in self._tier], bool)
        # of each round: classes (ours) of each of its classes
        self._ours: list[tuple[Ints, Ints]] = []
        for classes in rounds:
            pairs = np.unique(np.stack([classes.resource_class[self._one], np.arange(len(self._one))]), axis=1)
            pairs = pairs[:, pairs[0] >= 0]
            ptr = np.searchsorted(pairs[0], np.arange(len(classes.capacity_Bps) + 1))
            self._ours.append((pairs[1], ptr))

    def resources(self, changes_ps: Sequence[int]) -> Resources:
        """What the demands number, with names like those of the levels: ``port.out[rank class]``."""
        names, owners, shares = [], [], []
        met: dict[tuple[int, str, int], int] = {}
        for i, (resource, tier) in enumerate(zip(self._one.tolist(), self._tier, strict=True)):
            state, owner = int(self._state[resource]), int(self._owner[resource])
            number = met[state, tier, owner] = met.get((state, tier, owner), -1) + 1
            names.append(f"{tier}[{number}]" if owner < 0 else f"{tier}[{owner}]" if not number else "")
            if owner >= 0 and number:
                names[i] = f"{tier}[{owner}.{number}]"
            owners.append(max(owner, 0))
            both = 0.5 if tier.endswith((".out", ".in")) else 1.0
            shares.append(both * float(self._capacity_Bps[resource]) / self._port_Bps if owner >= 0 else 0.0)
        return Resources(
            names,
            self._count.tolist(),
            self._capacity_Bps[self._one].tolist(),
            owners,
            shares,
            label=[self._words(resource) for resource in self._one.tolist()],
            changes_ps=tuple(changes_ps),
            located=partial(dict, link=self._number),
        )

    def _words(self, resource: int) -> str:
        state = int(self._state[resource])
        return self._states[state].name(resource - int(np.argmax(self._state == state)))

    def demands(self, number: int, size_B: float, software: Software, farthest_s: float) -> tuple[Demand, ...]:
        """A round as demands that start together, for a call of ``size_B``."""
        classes = self._rounds[number]
        if not len(classes.count):
            # a step whose bytes flowed earlier takes as long as the longest path of the others
            return (Demand(0.0, int(to_ps(software.latency_s(np.array([farthest_s]))[0]))),)
        latency_ps = to_ps(software.latency_s(classes.latency_s))
        size = float(np.rint(classes.size_B * size_B))
        if len(classes.count) > MOST_DEMANDS:
            resource, share = self._load(number, software)
            message, latency_ps = np.zeros(len(resource), np.int64), latency_ps.max(keepdims=True)
        else:
            message, resource, share = self._crossings(number, software, slice(None))
        order = np.argsort(message, kind="stable")
        message, resource, share = message[order], resource[order], share[order]
        state = self._state[self._one[resource]]
        states = len(self._states)
        ptr = np.searchsorted(message, np.arange(len(latency_ps) + 1)).tolist()
        out = []
        for i, latency in enumerate(latency_ps.tolist()):
            a, b = ptr[i], ptr[i + 1]
            here = [np.flatnonzero(state[a:b] == s) + a for s in range(states)]
            parts = [(tuple(resource[at].tolist()), tuple(share[at].tolist())) for at in here]
            later = tuple(Demand(size, 0, *part) for part in parts[1:])
            out.append(Demand(size, latency, *parts[0], later=later))
        return tuple(out)

    def _load(self, number: int, software: Software) -> tuple[Ints, Ints]:
        """(our resource class, whole share) of all messages of a round together, some crossings at a time."""
        load = np.zeros(len(self._one))
        for begin in range(0, len(self._rounds[number].resource), _AT_A_TIME):
            _, resource, share = self._crossings(number, software, slice(begin, begin + _AT_A_TIME))
            load += np.bincount(resource, share, minlength=len(load))
        used = np.flatnonzero(load)
        return used, load[used].astype(np.int64)

    def _crossings(self, number: int, software: Software, some: slice) -> tuple[Ints, Ints, Ints]:
        """(message class, our resource class, whole share) of some crossings of a round; wires carry more than
        payload."""
        classes, (ours, ptr) = self._rounds[number], self._ours[number]
        kind, alone, share = classes.resource[some], classes.one[some], classes.share[some]
        width = np.diff(ptr)[kind]
        entry = np.repeat(np.arange(len(width)), width)
        ends = np.cumsum(width)
        resource = ours[np.repeat(ptr[kind] - (ends - width), width) + np.arange(len(entry))]
        payload = np.where(self._out[resource], software.scale_out, software.scale_up)
        one = np.maximum(np.rint(alone[entry] * (SHARE_ONE / classes.unit) / payload), 1.0)
        # members that cross one instance are whole, so that sums do not depend on how messages were merged
        members = np.rint(share[entry] / alone[entry])
        return classes.message[some][entry], resource, (one * members).astype(np.int64)

    def alone_s(self, demands: tuple[Demand, ...]) -> float:
        """Time of a round with nobody else on the links, as they are at the start (or first pass again). [s]"""
        flying = [one for one in demands if one.size_B > 0]
        still = max(one.latency_ps for one in demands) / PS_PER_S
        if not flying:
            return still
        ways = [one if one.resources else next(part for part in one.later if part.resources) for one in flying]
        crossings = [len(one.resources) for one in ways]
        resource = np.concatenate([np.array(one.resources, np.int64) for one in ways])
        share = np.concatenate([np.array(one.shares, np.float64) for one in ways])
        used, local = np.unique(resource, return_inverse=True)
        capacity = self._capacity_Bps[self._one[used]]
        rate = max_min_Bps(capacity, local.reshape(-1), np.repeat(np.arange(len(ways)), crossings), share, len(ways))
        took = [one.size_B / r + one.latency_ps / PS_PER_S for one, r in zip(flying, rate.tolist(), strict=True)]
        return float(max(still, *took))
