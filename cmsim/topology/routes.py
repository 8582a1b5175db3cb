"""Which links a message crosses, and with what share of its bytes: the graph as arrays, for millions of messages.

``edges`` holds the capacity of every link, tier by tier, equal to the graph's (a test compares them edge for edge). A
``Routes`` turns pairs of ranks into the resources that their messages cross, whatever wiring filled in the tables. A
resource is one direction of a link, or of a bundle of parallel links that nothing tells apart:

    within a block      port out, port in             a block is a node under the two-tier planes, else the domain
    within a domain     port out, uplink out, uplink in, port in
    full mesh           the link of the pair
    between domains     NIC share, NIC, leaf uplink, and the same at the other end; one leaf needs no uplink

Sprayed messages are cut over all planes and second-tier chips (or switch chips, or spines) in proportion to what is
left of each path, so that a lost or slow link sheds its traffic to the others. Planes and chips that are whole are one
bundle. Hashed messages take one path each, drawn from (seed, source, destination) as static ECMP does, with its
collisions; a draw that falls on a dead path moves on to the next one. Pinned messages are hashed and do not move.

Latencies are those along the path's edges; switches forward before the whole message is in (cut-through).

Leaves out: host processors as sources, detours over other ranks, and reordering costs of sprayed packets.
Source: arXiv:2506.12708v2 section 3.3 for the planes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import InfeasibleError, InputError, did_you_mean
from cmsim.hardware import System
from cmsim.topology import bundles, fat_tree
from cmsim.topology.crossings import Crossings, Numbers
from cmsim.topology.draws import draws
from cmsim.topology.edges import Edges
from cmsim.topology.places import Places, places

#: what is left of the paths of some messages: (path, message) -> rate [B/s]
_Left = Callable[[Ints, Ints], Floats]

Routing = Literal["sprayed", "hashed", "pinned"]
ROUTINGS: tuple[str, ...] = get_args(Routing)

#: where the two ends of a message meet, and so which tiers it crosses
BLOCK, DOMAIN, LEAF, CLUSTER, SWITCH = range(5)


class Routes:
    """The paths between the ranks of a system under one way of routing.

    system    whose links                            wires   their capacities
    node_s, domain_s   latency between the two ranks of a node, and of a domain, that are farthest apart [s]
    routing   sprayed, hashed or pinned              seed    of the hash
    """

    def __init__(
        self,
        system: System,
        wires: Edges,
        *,
        node_s: float,
        domain_s: float,
        routing: Routing | str = "sprayed",
        seed: int = 0,
    ) -> None:
        if routing not in ROUTINGS:
            raise InputError(f"no routing named '{routing}'. {did_you_mean(routing, ROUTINGS)}")
        self.edges = wires
        self.where: Places = places(system)
        self.routing = routing
        self.seed = seed
        self._mesh = wires.mesh.shape[1] > 0
        #: the ranks that meet in their first switch
        self.block = self.where.node if wires.uplink.shape[2] else self.where.domain
        self._domain_size = wires.mesh.shape[1]
        outside_s = fat_tree.latencies_s(system.spec.scale_out)
        #: of a path, by where its ends meet [s]
        self.latency_s: Floats = np.array([node_s, domain_s, *outside_s, domain_s])
        self._bundles()
        self._number()

    # --- resources -------------------------------------------------------------------------------------------

    def _bundles(self) -> None:
        """Planes that are whole are one group, and so are the whole chips of a plane that is not."""
        wires = self.edges
        planes, chips, spines = wires.port.shape[1], wires.uplink.shape[2], wires.spine.shape[1]
        single = self.routing != "sprayed"
        chip_whole = np.ones((planes, chips), bool) if not chips else bundles.even(wires.uplink, axis=0)
        plane_whole = bundles.even(wires.port, axis=0) & chip_whole.all(axis=1)
        self._plane = bundles.groups(plane_whole, single=single)
        # (plane, chip) -> group; whole planes share theirs, a whole chip of a touched plane shares with its like
        path = np.zeros((planes, chips), np.int64)
        used = 0
        for g in range(self._plane.count):
            members = np.flatnonzero(self._plane.group == g)
            inner = bundles.groups(chip_whole[members[0]], single=single)
            path[members] = used + inner.group
            used += inner.count
        self._path = bundles.Bundle(path, used)
        self._plane_of_path = np.zeros(used, np.int64)
        if chips:
            self._plane_of_path[path] = self._plane.group[:, None]
        self._spine = bundles.groups(bundles.even(wires.spine, axis=0) if spines else np.zeros(0, bool), single=single)

    def _number(self) -> None:
        """Number the resources, tier by tier, outward and inward apart."""
        wires = self.edges
        tables: dict[str, Floats] = {
            "port": bundles.summed(wires.port, self._plane),
            "uplink": bundles.summed(wires.uplink.reshape(len(wires.uplink), -1), self._path),
            "nic": wires.nic[:, None],
            "leaf": wires.leaf[:, None],
            "spine": bundles.summed(wires.spine, self._spine),
        }
        if self._mesh:
            tables = {"mesh": wires.mesh, **{name: tables[name] for name in ("nic", "leaf", "spine")}}
        self._tables: list[tuple[str, int, int]] = []  # (name, first number, width), in order
        capacity = []
        owner = []
        first = 0
        self._first: dict[str, int] = {}
        for name, table in tables.items():
            for direction in ("out", "in") if name != "mesh" else ("",):
                key = f"{name}.{direction}" if direction else name
                self._first[key] = first
                self._tables.append((key, first, max(table.shape[1], 1)))
                capacity.append(table.ravel())
                own = np.arange(len(table)) if name in ("port", "mesh") else np.full(len(table), -1)
                owner.append(np.repeat(own, table.shape[1]))
                first += table.size
        #: what each resource carries [B/s]
        self.capacity_Bps: Floats = np.concatenate(capacity)
        #: the rank whose port it is (part of), -1 for all others; a link between two ranks is its source's
        self.owner: Ints = np.concatenate(owner).astype(np.int64)
        #: which tier and direction each resource belongs to, a small number
        self.tier: Ints = np.repeat(np.arange(len(capacity)), [len(part) for part in capacity])

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names of the tiers that ``tier`` counts."""
        return tuple(name for name, _, _ in self._tables)

    def name(self, resource: int) -> str:
        """A resource in words: tier, direction, whose it is, and which part of it where it is not the whole bundle.

        A part in brackets lists the plane (and chip) numbers that were told apart.
        """
        key, first, width = next(table for table in reversed(self._tables) if resource >= table[1])
        instance, part = divmod(resource - first, width)
        tier = key.partition(".")[0]
        if tier == "mesh":
            return f"mesh {instance} -> {instance // self._domain_size * self._domain_size + part}"
        owner = {"port": "rank", "uplink": "node", "nic": "rank", "leaf": "package", "spine": "leaf"}[tier]
        text = f"{key} {owner} {instance}"
        if width == 1:
            return text
        if tier == "uplink":
            which = [f"{plane}/{chip}" for plane, chip in np.argwhere(self._path.group == part).tolist()]
        else:
            bundle = self._plane if tier == "port" else self._spine
            which = [str(i) for i in np.flatnonzero(bundle.group == part).tolist()]
        listed = ", ".join(which[:4]) + (f", ... {len(which)} in all" if len(which) > 4 else "")
        return f"{text} [{listed}]"

    # --- messages --------------------------------------------------------------------------------------------

    def crossings(self, src: NDArray[Any], dst: NDArray[Any]) -> Crossings:
        """The resources of each message from ``src`` to ``dst``, ranks of the system; -1 stands for the switch.

        Raises InputError where a message goes from a rank to itself, InfeasibleError where no path is left.
        """
        src, dst = np.asarray(src, np.int32), np.asarray(dst, np.int32)
        if not len(src):
            return Crossings((), src, np.zeros((0, 0)), np.zeros(0))
        if (src == dst).any():
            raise InputError(f"a message from rank {int(src[int(np.argmax(src == dst))])} to itself crosses nothing")
        level = self.levels(src, dst)
        if self.routing == "sprayed":
            return self._sprayed(src, dst, level)
        return self._hashed(src, dst, level)

    def alike(self) -> Ints:
        """A number for each rank: ranks of one number have equal links, and messages between equal ranks equal paths.

        No two are alike where paths are drawn, or where the links of pairs differ.
        """
        wires, ranks = self.edges, len(self.where.node)
        peers = np.bincount(self.where.domain)[self.where.domain] - 1
        pairs_differ = self._mesh and ((wires.mesh == wires.mesh.max()).sum(axis=1) != peers).any()
        if self.routing != "sprayed" or pairs_differ:
            return np.arange(ranks, dtype=np.int64)
        parts = [
            wires.port,
            wires.uplink.reshape(len(wires.uplink), -1)[self.block],
            wires.spine[self.where.leaf],
            wires.nic[:, None],
            wires.leaf[self.where.package, None],
        ]
        rows = np.unique(np.concatenate(parts, axis=1), axis=0, return_inverse=True)[1]
        return np.asarray(rows.reshape(-1), np.int64)

    def levels(self, src: Numbers, dst: Numbers) -> NDArray[np.int8]:
        """Where the ends of each message meet."""
        switch = np.minimum(src, dst) < 0
        if switch.any() and (self._mesh or self.edges.uplink.shape[2]):
            raise InputError("messages that end in the switch need a fabric of one switch tier")
        where = self.where
        level = np.full(len(src), BLOCK, np.int8)
        if self.block is not where.domain:
            block = self.block.astype(np.int32)
            level[block[src] != block[dst]] = DOMAIN
        if where.domains > 1:
            domain, leaf = where.domain.astype(np.int32), where.leaf.astype(np.int32)
            apart = domain[src] != domain[dst]
            level[apart] = LEAF
            level[apart & (leaf[src] != leaf[dst])] = CLUSTER
        level[switch] = SWITCH
        return level

    def _sprayed(self, src: Numbers, dst: Numbers, level: NDArray[np.int8]) -> Crossings:
        ends, kinds = self._ends()
        here = len(kinds)
        used = np.unique(level)
        if here == 1:
            # the usual case: nothing is broken, and where the ends meet decides
            code = level.astype(np.int32)
            distinct = used.astype(np.int64)
            pattern = np.searchsorted(used, level).astype(np.int32) if len(used) > 1 else np.zeros(len(level), np.int32)
        else:
            # the switch has no ports of its own: the rank at the other end decides
            a, b = np.where(src < 0, dst, src), np.where(dst < 0, src, dst)
            code = (level.astype(np.int32) * here + ends[a]) * here + ends[b]
            table = np.zeros(int(code.max(initial=0)) + 1, np.int32)
            table[code] = 1
            distinct = np.flatnonzero(table)
            table[distinct] = np.arange(len(distinct))
            pattern = table[code]
        rows = [self._shares(*_unpack(int(number), here), kinds) for number in distinct.tolist()]
        lost = np.array([row is None for row in rows])
        if lost.any():
            first = int(np.argmax(lost[pattern]))
            raise InfeasibleError(
                f"no path is left from rank {src[first]} to rank {dst[first]}"
                f" (and {int(lost[pattern].sum()) - 1} other messages): every link between them is down"
            )
        share = np.array([row for row in rows if row is not None]).reshape(len(distinct), -1)
        latency = self.latency_s[[_unpack(int(number), here)[0] for number in distinct.tolist()]]
        columns: list[Numbers] = []
        keep: list[int] = []
        for column, (key, part) in enumerate(self._columns()):
            crossed = share[:, column] > 0
            if not crossed.any():
                continue
            number = self._instance(key, part, src, dst)
            if not crossed.all():
                number[~crossed[pattern]] = -1
            if (used == SWITCH).any():
                number[(dst if key.endswith("in") else src) < 0] = -1
            columns.append(number)
            keep.append(column)
        self._refuse_dead(columns, src, dst)
        return Crossings(tuple(columns), pattern, share[:, keep], latency)

    def _refuse_dead(self, columns: list[Numbers], src: Numbers, dst: Numbers) -> None:
        """A link without a way round it (a NIC, the link of a pair) must not be down where a message needs it."""
        dead = np.append(self.capacity_Bps <= 0, False)
        if not dead.any():
            return
        for number in columns:
            if (hit := dead[number]).any():
                first = int(np.argmax(hit))
                raise InfeasibleError(
                    f"{int(hit.sum())} messages cannot move from {self.name(int(number[first]))}, which is down,"
                    f" the first from rank {src[first]} to rank {dst[first]}"
                )

    def _columns(self) -> list[tuple[str, int]]:
        """(tier and direction, part) of each column, in the order in which ``_shares`` lists them."""
        out: list[tuple[str, int]] = []
        if self._mesh:
            out.append(("mesh", 0))
        else:
            for key, count in (("port.out", self._plane.count), ("uplink.out", self._path.count)):
                out += [(key, part) for part in range(count)]
            for key, count in (("uplink.in", self._path.count), ("port.in", self._plane.count)):
                out += [(key, part) for part in range(count)]
        out += [("nic.out", 0), ("leaf.out", 0)]
        out += [(key, part) for key in ("spine.out", "spine.in") for part in range(self._spine.count)]
        return [*out, ("leaf.in", 0), ("nic.in", 0)]

    def _instance(self, key: str, part: int | Numbers, src: Numbers, dst: Numbers) -> Numbers:
        """Numbers of one tier's resources at the source (out) or destination (in) of each message."""
        tier, _, direction = key.partition(".")
        first = self._first[key]
        if tier == "mesh":
            pair = src.astype(np.int64) * self._domain_size + dst % self._domain_size
            return np.asarray(pair + first, np.int32)
        width = {"port": self._plane.count, "uplink": self._path.count, "spine": self._spine.count}.get(tier, 1)
        owner = {"uplink": self.block, "leaf": self.where.package, "spine": self.where.leaf}.get(tier)
        if owner is None:  # ports and NIC shares are the rank's own
            owner = np.arange(len(self.where.node))
        number: Numbers = np.asarray(owner * width + first, np.int32)[dst if direction == "in" else src]
        number += np.asarray(part, np.int32)
        return number

    def _ends(self) -> tuple[Numbers, list[int]]:
        """Kinds of ranks whose links are alike, each rank's kind, and one rank of each."""
        wires = self.edges
        if self._mesh or all(
            bundles.even(table.reshape(len(table), -1), axis=0).all()
            for table in (wires.port, wires.uplink, wires.spine)
        ):
            return np.zeros(len(self.where.node), np.int32), [0]
        parts = [wires.port, wires.uplink.reshape(len(wires.uplink), -1)[self.block], wires.spine[self.where.leaf]]
        _, first, kind = np.unique(np.concatenate(parts, axis=1), axis=0, return_index=True, return_inverse=True)
        return kind.reshape(-1).astype(np.int32), first.tolist()

    def _shares(self, level: int, one: int, other: int, kinds: list[int]) -> list[float] | None:
        """The share of a message in each column, from one kind of rank to another; None where no path is left.

        A path weighs as much as is left of its narrowest link.
        """
        out = self._spray(level, kinds[one], kinds[other])
        if out is None:
            return None
        port, path, spine = out
        across = float(level in (LEAF, CLUSTER))
        near = [1.0 - across] if self._mesh else [*port, *path, *path, *port]
        return [*near, across, across, *spine, *spine, across, across]

    def _spray(self, level: int, a: int, b: int) -> tuple[Floats, Floats, Floats] | None:
        """Shares over plane groups, (plane, chip) groups and spine groups between two ranks."""
        wires = self.edges
        port, path, spine = (np.zeros(bundle.count) for bundle in (self._plane, self._path, self._spine))
        if level == CLUSTER:
            weight = np.minimum(wires.spine[self.where.leaf[a]], wires.spine[self.where.leaf[b]])
            if weight.sum() <= 0:
                return None
            np.add.at(spine, self._spine.group, weight)
            spine /= spine.sum()
        elif level == DOMAIN:
            end = np.minimum(wires.port[a], wires.port[b]) / (wires.port.max() or 1.0)
            up = np.minimum(wires.uplink[self.block[a]], wires.uplink[self.block[b]]) / (wires.uplink.max() or 1.0)
            weight = np.minimum(end[:, None], up)
            if weight.sum() <= 0:
                return None
            np.add.at(path, self._path.group, weight)
            np.add.at(port, self._plane.group, weight.sum(axis=1))
            path, port = path / path.sum(), port / port.sum()
        elif level in (BLOCK, SWITCH) and not self._mesh:
            weight = np.minimum(wires.port[a], wires.port[b])
            if weight.sum() <= 0:
                return None
            np.add.at(port, self._plane.group, weight)
            port /= port.sum()
        return port, path, spine

    def _hashed(self, src: Numbers, dst: Numbers, level: NDArray[np.int8]) -> Crossings:
        """One path for each message."""
        draw = draws(src, dst, self.seed)
        wires = self.edges
        planes, chips, spines = wires.port.shape[1], wires.uplink.shape[2], wires.spine.shape[1]
        plane = np.zeros(len(src), np.int32)
        chip = np.zeros(len(src), np.int32)
        spine = np.zeros(len(src), np.int32)
        near, inside, across = np.isin(level, (BLOCK, SWITCH)), level == DOMAIN, level == CLUSTER
        a, b = np.where(src < 0, dst, src), np.where(dst < 0, src, dst)
        if not self._mesh:
            near_a, near_b = a[near], b[near]
            plane[near] = self._draw(
                draw[near], planes, lambda k, i: np.minimum(wires.port[near_a[i], k], wires.port[near_b[i], k]), near_a
            )
            if inside.any():
                path = self._draw(draw[inside], planes * chips, self._left_inside(a[inside], b[inside]), a[inside])
                plane[inside], chip[inside] = path // chips, path % chips
        leaf = self.where.leaf
        if across.any():
            spine[across] = self._draw(
                draw[across],
                spines,
                lambda k, i: np.minimum(wires.spine[leaf[a[across][i]], k], wires.spine[leaf[b[across][i]], k]),
                a[across],
            )
        out = np.isin(level, (LEAF, CLUSTER))
        plan: list[tuple[str, NDArray[np.bool_], int | Numbers]] = []
        if self._mesh:
            plan.append(("mesh", ~out, 0))
        else:
            path_part = (plane * chips + chip).astype(np.int32)
            plan += [("port.out", ~out & (src >= 0), plane), ("uplink.out", inside, path_part)]
            plan += [("uplink.in", inside, path_part), ("port.in", ~out & (dst >= 0), plane)]
        plan += [("nic.out", out, 0), ("leaf.out", out, 0), ("spine.out", across, spine), ("spine.in", across, spine)]
        plan += [("leaf.in", out, 0), ("nic.in", out, 0)]
        columns = []
        for key, crossed, part in plan:
            if crossed.any():
                number = self._instance(key, part, src, dst)
                number[~crossed] = -1
                columns.append(number)
        self._refuse_dead(columns, src, dst)
        used = np.unique(level)
        pattern = np.searchsorted(used, level).astype(np.int32)
        return Crossings(tuple(columns), pattern, np.ones((len(used), len(columns))), self.latency_s[used])

    def _left_inside(self, a: Numbers, b: Numbers) -> _Left:
        """What is left of paths over two tiers; a path is ``plane * chips + chip``."""
        wires, block, chips = self.edges, self.block, self.edges.uplink.shape[2]

        def left(path: Ints, message: Ints) -> Floats:
            one, other, plane, chip = a[message], b[message], path // chips, path % chips
            port = np.minimum(wires.port[one, plane], wires.port[other, plane])
            up = np.minimum(wires.uplink[block[one], plane, chip], wires.uplink[block[other], plane, chip])
            return np.asarray(np.minimum(port, up), np.float64)

        return left

    def _draw(self, draw: NDArray[np.uint64], paths: int, left: _Left, src: Numbers) -> NDArray[np.int64]:
        """One of so many paths for each message; ``left(path, message)`` is what is left of it. [B/s]"""
        chosen = (draw % np.uint64(max(paths, 1))).astype(np.int64)
        dead = np.flatnonzero(left(chosen, np.arange(len(chosen))) <= 0)
        for _ in range(paths if self.routing == "hashed" else 0):
            if not len(dead):
                break
            chosen[dead] = (chosen[dead] + 1) % paths
            dead = dead[left(chosen[dead], dead) <= 0]
        if len(dead):
            raise InfeasibleError(
                f"{len(dead)} messages cannot move from the dead path they are {self.routing} to,"
                f" the first from rank {src[dead[0]]}"
            )
        return chosen

    # --- what bounds ask -------------------------------------------------------------------------------------

    def longest_s(self, src: NDArray[Any], dst: NDArray[Any]) -> float:
        """Latency of the longest path between these pairs. [s]"""
        level = int(self.levels(np.asarray(src, np.int32), np.asarray(dst, np.int32)).max())
        return float(self.latency_s[level])

    def farthest_s(self, ranks: Ints) -> float:
        """Latency between the two ranks of a group that are farthest apart. [s]"""
        where = self.where
        domain, leaf = np.unique(np.stack([where.domain[ranks], where.leaf[ranks]]), axis=1)
        apart = domain[:, None] != domain
        if apart.any():
            level = CLUSTER if (apart & (leaf[:, None] != leaf)).any() else LEAF
        else:
            level = DOMAIN if len(np.unique(self.block[ranks])) > 1 else BLOCK
        return float(self.latency_s[level])

    def port_Bps(self, ranks: Ints) -> Floats:
        """What each rank sends at most, over all its links to the others. [B/s]"""
        where, wires = self.where, self.edges
        port: Floats = wires.port[ranks].sum(axis=1)
        if wires.mesh.shape[1]:
            size = wires.mesh.shape[1]
            present = np.zeros(len(where.domain) + size, bool)
            present[ranks] = True
            peer = (ranks // size * size)[:, None] + np.arange(size)
            port = (wires.mesh[ranks] * present[peer]).sum(axis=1)
        if len(np.unique(where.domain[ranks])) > 1:
            # a rank alone in its domain has nobody behind its port
            alone = np.bincount(where.domain[ranks])[where.domain[ranks]] == 1
            port = np.where(alone, 0.0, port) + wires.nic[ranks]
        return port

    def cuts(self, ranks: Ints) -> list[tuple[Ints, Floats]]:
        """(part of each rank, what each part sends at most [B/s]) where nodes, domains and leaves divide the ranks."""
        where, wires = self.where, self.edges
        nic: Floats = np.bincount(where.domain[ranks], wires.nic[ranks], minlength=where.domains).astype(np.float64)
        out: list[tuple[Ints, Floats]] = []
        if wires.uplink.shape[2]:
            # what leaves a node may also leave through its ranks' NICs, where the group goes that far
            up = wires.uplink.sum(axis=(1, 2))
            if len(np.unique(where.domain[ranks])) > 1:
                up = up + np.bincount(where.node[ranks], wires.nic[ranks], minlength=where.nodes)
            out.append((where.node[ranks], up))
        if len(np.unique(where.domain[ranks])) > 1:
            out.append((where.domain[ranks], nic))
            if wires.spine.shape[1] and len(np.unique(where.leaf[ranks])) > 1 and self._leaves_hold_domains(ranks):
                out.append((where.leaf[ranks], wires.spine.sum(axis=1)))
        return out

    def _leaves_hold_domains(self, ranks: Ints) -> bool:
        """Whether all that crosses between leaves crosses the spines: no domain of the group has ranks under two."""
        pairs = np.unique(np.stack([self.where.domain[ranks], self.where.leaf[ranks]]), axis=1)
        return len(np.unique(pairs[0])) == int(pairs.shape[1])


def _unpack(code: int, kinds: int) -> tuple[int, int, int]:
    if kinds == 1:
        return code, 0, 0
    code, other = divmod(code, kinds)
    level, one = divmod(code, kinds)
    return level, one, other
