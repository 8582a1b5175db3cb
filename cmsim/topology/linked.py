"""Fabrics in which ranks are joined link by link, and forward what is not theirs: what all of them have in common.

A fabric lays a table of links inside its domains and says which of them a message crosses. Everything else follows from
the table: names, faults, ports, cuts. Between domains messages take NICs, leaves and spines (``routes``).

Parts that a fault may name, beside those of the scale-out network (``faults``):

    link/A/B          the link between two neighbours, both ways; A and B are ranks or switches
    rank/RANK/port    all links of a rank inside its domain
    switch/...        a switch, with all its links, by its name
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import InfeasibleError, InputError, Problem, did_you_mean, nearest
from cmsim.hardware import System
from cmsim.reading import whole
from cmsim.topology.crossings import Crossings, FabricState, Numbers
from cmsim.topology.edges import Edges, edges
from cmsim.topology.faults import apply, factors
from cmsim.topology.links import Node
from cmsim.topology.places import Places, places
from cmsim.topology.routes import Routes

#: first words of faults that belong to the scale-out network
_OUTSIDE = ("nic", "leaf", "spine")
_FORMS = ("link/A/B", "rank/RANK/port", "rank/RANK/nic", "nic/PACKAGE", "leaf/LEAF", "spine/SPINE")


@dataclass(frozen=True)
class Links:
    """Links inside the domains, each direction by itself. Nodes are the ranks, then the switches.

    start, end  shape (links,)    capacity_Bps, latency_s  of each [B/s], [s]    tier  of each, a position in ``tiers``
    """

    ranks: int
    switches: tuple[Node, ...]
    start: Ints
    end: Ints
    capacity_Bps: Floats
    latency_s: Floats
    tier: Ints
    tiers: tuple[str, ...]

    def node(self, number: int) -> Node:
        """A node as the graph names it."""
        return ("rank", number) if number < self.ranks else self.switches[number - self.ranks]

    def word(self, number: int) -> str:
        """A node in words."""
        return "/".join(map(str, self.node(number)))


@dataclass(frozen=True)
class Inside:
    """What messages inside a domain cross; as ``Crossings``, with link numbers."""

    columns: tuple[Numbers, ...]
    pattern: Ints
    share: Floats
    latency_s: Floats


class Linked(ABC):
    """Paths of such a fabric; see ``Paths``.

    A fabric has ``lay``, ``inside``, ``inside_s`` and perhaps ``sides``.
    """

    def __init__(self, system: System, asked: FabricState, *, node_s: float, domain_s: float):
        self.where: Places = places(system)
        self.routing = asked.routing
        self.seed = asked.seed
        self.links = self.lay(system)
        left = factors(asked.faults)
        inner = {name: left[name] for name in left if not _is_outside(name)}
        rest = {name: left[name] for name in left if name not in inner}
        wires = edges(system)
        problems: list[Problem] = []
        try:
            wires = apply(system, wires, rest) if rest else wires
        except InputError as error:
            problems += error.problems
        #: what is left of each link [B/s]
        self.left_Bps = self._faulty(system.name, inner, problems) * self.links.capacity_Bps
        if problems:
            raise InputError(problems)
        #: links that are down, by number
        self.dead = self.left_Bps <= 0
        payload = wires.scaled(scale_up=1.0, scale_out=asked.scale_out)
        self._outer = Routes(system, payload, node_s=node_s, domain_s=domain_s, routing=asked.routing, seed=asked.seed)
        #: what each resource carries [B/s]
        self.capacity_Bps: Floats = np.concatenate([self.left_Bps * asked.scale_up, self._outer.capacity_Bps])
        #: which tier each resource belongs to
        self.tier: Ints = np.concatenate([self.links.tier, self._outer.tier + len(self.links.tiers)])
        ranks = self.links.ranks
        owner = np.where(self.links.start < ranks, self.links.start, self.links.end)
        #: the rank whose link it is, -1 for links between switches and the scale-out network
        self.owner: Ints = np.concatenate([np.where(owner < ranks, owner, -1), self._outer.owner]).astype(np.int64)

    # --- what a fabric says -----------------------------------------------------------------------------------

    @abstractmethod
    def lay(self, system: System) -> Links:
        """Its links."""

    @abstractmethod
    def inside(self, src: Numbers, dst: Numbers) -> Inside:
        """What messages between ranks of one domain cross. Links that are down have ``self.dead``."""

    @abstractmethod
    def inside_s(self, src: Ints, dst: Ints) -> Floats:
        """Latency between ranks of one domain, nothing broken. [s]"""

    def sides(self) -> list[Ints]:
        """Ways to cut a domain: small numbers for all ranks, equal for those on one side."""
        return []

    # --- Paths ------------------------------------------------------------------------------------------------

    @property
    def edges(self) -> Edges:
        """What is left of the scale-out network."""
        return self._outer.edges

    @property
    def tiers(self) -> tuple[str, ...]:
        return (*self.links.tiers, *self._outer.tiers)

    def name(self, resource: int) -> str:
        inside = len(self.links.start)
        if resource >= inside:
            return self._outer.name(resource - inside)
        ends = (self.links.word(int(end[resource])) for end in (self.links.start, self.links.end))
        return f"{self.links.tiers[int(self.links.tier[resource])]} {' -> '.join(ends)}"

    def alike(self) -> Ints | None:
        """Not known before messages are laid: those of others pass through a rank, which depends on where it is."""
        return None

    def crossings(self, src: NDArray[Any], dst: NDArray[Any]) -> Crossings:
        src, dst = np.asarray(src, np.int32), np.asarray(dst, np.int32)
        if not len(src):
            return Crossings((), src, np.zeros((0, 0)), np.zeros(0))
        if (src == dst).any():
            raise InputError(f"a message from rank {int(src[int(np.argmax(src == dst))])} to itself crosses nothing")
        if min(int(src.min()), int(dst.min())) < 0:
            raise InputError("messages that end in the switch need a fabric of one switch tier")
        near = self.where.domain[src] == self.where.domain[dst]
        if near.all():
            found = self.inside(src, dst)
            self._refuse_dead(found.columns, src, dst)
            columns, share = _used(found.columns, found.share)
            return Crossings(columns, found.pattern.astype(np.int32), share, found.latency_s)
        far = self._outer.crossings(src[~near], dst[~near])
        offset = len(self.links.start)
        outside = tuple(np.where(number >= 0, number + offset, -1).astype(np.int32) for number in far.resource)
        if not near.any():
            return Crossings(outside, far.pattern, far.share, far.latency_s)
        found = self.inside(src[near], dst[near])
        self._refuse_dead(found.columns, src[near], dst[near])
        columns, share = _used(found.columns, found.share)
        whole = []
        for mine, here in ((columns, near), (outside, ~near)):
            for number in mine:
                wide = np.full(len(src), -1, np.int32)
                wide[here] = number
                whole.append(wide)
        pattern = np.zeros(len(src), np.int32)
        pattern[near] = found.pattern
        pattern[~near] = far.pattern + len(found.latency_s)
        both = np.zeros((len(found.latency_s) + len(far.latency_s), len(whole)))
        both[: len(found.latency_s), : len(columns)] = share
        both[len(found.latency_s) :, len(columns) :] = far.share
        return Crossings(tuple(whole), pattern, both, np.concatenate([found.latency_s, far.latency_s]))

    def longest_s(self, src: NDArray[Any], dst: NDArray[Any]) -> float:
        src, dst = np.asarray(src, np.int64), np.asarray(dst, np.int64)
        near = self.where.domain[src] == self.where.domain[dst]
        inside = float(self.inside_s(src[near], dst[near]).max()) if near.any() else 0.0
        return max(inside, self._outer.longest_s(src[~near], dst[~near]) if not near.all() else 0.0)

    def farthest_s(self, ranks: Ints) -> float:
        """Between domains as ``Routes``; inside one the farthest found from two of the group, the second being the
        farthest from the first: the farthest of all on a torus, and never more than that elsewhere."""
        if len(np.unique(self.where.domain[ranks])) > 1:
            return self._outer.farthest_s(ranks)
        from_one = self.inside_s(np.full(len(ranks), ranks[0]), ranks)
        other = ranks[int(np.argmax(from_one))]
        return float(max(from_one.max(), self.inside_s(np.full(len(ranks), other), ranks).max()))

    def port_Bps(self, ranks: Ints) -> Floats:
        mine = self.links.start < self.links.ranks
        port = np.bincount(self.links.start[mine], self.left_Bps[mine], minlength=self.links.ranks)
        out = port[ranks].astype(np.float64)
        domain = self.where.domain[ranks]
        if len(np.unique(domain)) > 1:
            alone = np.bincount(domain)[domain] == 1
            out = np.where(alone, 0.0, out) + self._outer.edges.nic[ranks]
        return out

    def cuts(self, ranks: Ints) -> list[tuple[Ints, Floats]]:
        where, links = self.where, self.links
        several = len(np.unique(where.domain[ranks])) > 1
        out = self._outer.cuts(ranks) if several else []
        for side in self.sides():
            part = where.domain * (int(side.max()) + 1) + side
            count = int(part.max()) + 1
            # a switch is on the far side of every cut that its links cross
            home = np.append(part, np.full(len(links.switches), -1))
            lowest = np.full(len(home), count)
            highest = np.full(len(home), -1)
            leaving = links.start < links.ranks
            np.minimum.at(lowest, links.end[leaving], home[links.start[leaving]])
            np.maximum.at(highest, links.end[leaving], home[links.start[leaving]])
            switch = np.arange(len(home)) >= links.ranks
            home[switch & (lowest == highest)] = lowest[switch & (lowest == highest)]
            crosses = (home[links.start] >= 0) & (home[links.start] != home[links.end])
            carried = np.bincount(home[links.start[crosses]], self.left_Bps[crosses], minlength=count)
            if several:
                carried = carried + np.bincount(part[ranks], self._outer.edges.nic[ranks], minlength=count)
            out.append((part[ranks], carried.astype(np.float64)))
        return out

    # --- faults -----------------------------------------------------------------------------------------------

    def _faulty(self, system: str, left: dict[str, float], problems: list[Problem]) -> Floats:
        """What is left of each link, as a share; what is wrong with the names goes to ``problems``. [1]"""
        links, share = self.links, np.ones(len(self.links.start))
        names = {links.word(links.ranks + i): links.ranks + i for i in range(len(links.switches))} if left else {}
        for name, factor in left.items():
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= 1:
                message = f"'{name}': what is left is a number from 0 to 1, got {factor!r}"
                problems.append(Problem(message, key="faults"))
                continue
            found = self._part(name, names)
            if isinstance(found, str):
                problems.append(Problem(f"{system} has no part '{name}'. {found}", key="faults"))
            else:
                share[found] *= float(factor)
        return share

    def _part(self, name: str, switches: dict[str, int]) -> Ints | str:
        """The links of a part, by number; or, where there is no such part, what to say."""
        links = self.links
        words = name.split("/")
        if words[0] == "link" and len(words) > 2:
            for cut in range(2, len(words)):
                one, other = (self._node("/".join(part), switches) for part in (words[1:cut], words[cut:]))
                if one is not None and other is not None:
                    ends = ((links.start == one) & (links.end == other)) | ((links.start == other) & (links.end == one))
                    if not ends.any():
                        return f"No link joins them. {self._neighbours(one)}"
                    return np.flatnonzero(ends)
            known = f"rank/0 to rank/{links.ranks - 1}"
            return f"A link joins two of {known}" + (f" and {len(switches)} switches." if switches else ".")
        if words[0] == "rank" and len(words) == 3 and words[2] == "port":
            node = self._node("/".join(words[:2]), {})
            if node is None:
                return f"Ranks are 0 to {links.ranks - 1}."
            return np.flatnonzero((links.start == node) | (links.end == node))
        if name in switches:
            return np.flatnonzero((links.start == switches[name]) | (links.end == switches[name]))
        near = nearest(name, switches) if switches else None
        hint = f"Did you mean '{near}'? " if near else ""
        return f"{hint}Allowed: {', '.join((*_FORMS, *(['a switch by its name'] if switches else [])))}."

    def _node(self, word: str, switches: dict[str, int]) -> int | None:
        number = word.removeprefix("rank/")
        if whole(number):
            return int(number) if int(number) < self.links.ranks else None
        return switches.get(word)

    def _neighbours(self, node: int) -> str:
        around = self.links.end[self.links.start == node].tolist()
        return did_you_mean("", [self.links.word(number) for number in around]).replace(
            "Allowed:", f"{self.links.word(node)} is joined to"
        )

    def _refuse_dead(self, columns: Iterable[Numbers], src: Numbers, dst: Numbers) -> None:
        if not self.dead.any():
            return
        for number in columns:
            hit = (number >= 0) & self.dead[number]
            if hit.any():
                first = int(np.argmax(hit))
                raise InfeasibleError(
                    f"{int(hit.sum())} messages cannot move from {self.name(int(number[first]))}, which is down,"
                    f" the first from rank {src[first]} to rank {dst[first]}"
                )


def _is_outside(name: str) -> bool:
    words = name.split("/")
    return words[0] in _OUTSIDE or (words[0] == "rank" and words[-1] == "nic")


def _used(columns: tuple[Numbers, ...], share: Floats) -> tuple[tuple[Numbers, ...], Floats]:
    """The columns that anything crosses."""
    keep = [i for i, number in enumerate(columns) if (number >= 0).any()]
    return tuple(columns[i] for i in keep), share[:, keep]
