"""Any graph of ranks and switches, from a table of links beside the system file; each domain is a copy of it.

Messages take the shortest paths by latency, then by hops, and ranks forward. Sprayed messages are cut over all that are
equally short, in proportion to what is left of the links at every fork; hashed ones take one, drawn from (seed, source,
destination). Where links are down, both find the shortest paths that are left; pinned messages stay on those that were.

Leaves out: longer paths beside the shortest, and switches that reduce.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.errors import InfeasibleError
from cmsim.hardware import System
from cmsim.hardware.specs import Custom
from cmsim.topology import shortest
from cmsim.topology.crossings import FabricState, Numbers, Paths
from cmsim.topology.draws import draws
from cmsim.topology.grid import Grid
from cmsim.topology.linked import Inside, Linked, Links
from cmsim.topology.links import add_node, join
from cmsim.topology.wirings.page import Levels, PoweredParts, Wiring


def wire(graph: Any, system: System, _: Custom) -> None:
    """Join ranks and switches as the table says; the ranks are already nodes of the graph."""
    one = _one(system)
    graph.graph["ranks_forward"] = True
    table = _table(system)
    for name in table.switches:
        add_node(graph, name, domain=int(name[1]))
    lanes = np.tile(one.lanes, system.domains)
    for number in np.flatnonzero(table.start < table.end).tolist():
        join(
            graph,
            table.node(int(table.start[number])),
            table.node(int(table.end[number])),
            capacity_Bps=float(table.capacity_Bps[number]),
            latency_s=float(table.latency_s[number]),
            tier="port",
            lanes=int(lanes[number]),
        )


def _one(system: System) -> shortest.Connections:
    return shortest.graph(system.links, system.spec.accelerators * system.ranks_per_package)


def _table(system: System) -> Links:
    """The links of all domains, domain after domain."""
    one, domains = _one(system), system.domains
    extra = len(one.switches)

    def number(local: Ints, domain: int) -> Ints:
        switch = domains * one.ranks + domain * extra + local - one.ranks
        return np.where(local < one.ranks, domain * one.ranks + local, switch)

    return Links(
        ranks=one.ranks * domains,
        switches=tuple(("switch", domain, name) for domain in range(domains) for name in one.switches),
        start=np.concatenate([number(one.start, domain) for domain in range(domains)]),
        end=np.concatenate([number(one.end, domain) for domain in range(domains)]),
        capacity_Bps=np.tile(one.capacity_Bps, domains),
        latency_s=np.tile(one.latency_s, domains),
        # links of ranks are counted by rank class, those between switches by themselves
        tier=np.tile(np.minimum(one.start, one.end) >= one.ranks, domains).astype(np.int64),
        tiers=("link", "trunk"),
    )


class GraphPaths(Linked):
    """Paths on such a graph; see the page."""

    def lay(self, system: System) -> Links:
        self._one = _one(system)
        self._whole = shortest.Ways(self._one, self._one.capacity_Bps)
        self._left: dict[int, shortest.Ways] = {}
        return _table(system)

    def _ways(self, domain: int) -> shortest.Ways:
        """The paths that are left in a domain."""
        if domain not in self._left:
            count = len(self._one.start)
            left_Bps = self.left_Bps[domain * count : (domain + 1) * count]
            same = np.array_equal(left_Bps, self._one.capacity_Bps) or self.routing == "pinned"
            self._left[domain] = self._whole if same else shortest.Ways(self._one, left_Bps)
        return self._left[domain]

    def inside(self, src: Numbers, dst: Numbers) -> Inside:
        size = self._one.ranks
        pair, which = np.unique(src.astype(np.int64) * self.links.ranks + dst, return_inverse=True)
        start, to = pair // self.links.ranks, pair % self.links.ranks
        crossed: list[tuple[Ints, Floats]] = [(np.zeros(0, np.int64), np.zeros(0))] * len(pair)
        path_s = np.zeros(len(pair))
        count = len(self._one.start)
        drawn = draws(start.astype(np.int32), to.astype(np.int32), self.seed) if self.routing != "sprayed" else None
        for end in np.unique(to).tolist():
            mine = np.flatnonzero(to == end)
            ways, first = self._ways(end // size), end // size * count
            distance = ways.distance[start[mine] % size, end % size]
            if not np.isfinite(distance).all():
                lost = int(start[mine[int(np.argmax(~np.isfinite(distance)))]])
                raise InfeasibleError(f"no path is left from rank {lost} to rank {end}: every way between them is down")
            path_s[mine] = shortest.latency_s(distance)
            if drawn is None:
                for i, row in zip(mine.tolist(), ways.shares(start[mine] % size, end % size), strict=True):
                    used = np.flatnonzero(row)
                    crossed[i] = used + first, row[used]
            else:
                for i in mine.tolist():
                    path = ways.drawn(int(start[i]) % size, end % size, int(drawn[i]))
                    crossed[i] = np.array(path, np.int64) + first, np.ones(len(path))
        width = max((len(number) for number, _ in crossed), default=0)
        number = np.full((len(pair), width), -1, np.int32)
        share = np.zeros((len(pair), width))
        for i, (links, part) in enumerate(crossed):
            number[i, : len(links)] = links
            share[i, : len(links)] = part
        rows, row = np.unique(np.column_stack([path_s, share]), axis=0, return_inverse=True)
        columns = tuple(np.ascontiguousarray(number[which.reshape(-1), column]) for column in range(width))
        return Inside(columns, row.reshape(-1)[which.reshape(-1)], rows[:, 1:], rows[:, 0])

    def inside_s(self, src: Ints, dst: Ints) -> Floats:
        return shortest.latency_s(self._whole.distance[src % self._one.ranks, dst % self._one.ranks])

    def sides(self) -> list[Ints]:
        """Hosts apart, where there are several; and each half of the ranks by number."""
        rank = np.arange(self.links.ranks, dtype=np.int64) % self._one.ranks
        node = self.where.node
        out = [rank * 2 // self._one.ranks]
        return [*out, node] if len(np.unique(node)) > 2 else out


def levels(system: System, _: Custom) -> Levels:
    """Of the rank that has least; a grid without dimensions, measured on the graph."""
    one, per_node = _one(system), system.spec.node.accelerators * system.ranks_per_package
    ranks = one.ranks
    path_s = shortest.latency_s(one.distance())[:ranks, :ranks]
    near = [path_s[i : i + per_node, i : i + per_node].max() for i in range(0, ranks, per_node)]
    domain_s = float(path_s.max())
    pairs, to_next = shortest.measured(system.links, ranks)
    return Levels(
        float(np.bincount(one.start, one.capacity_Bps)[:ranks].min()),
        # of nodes of one rank: the nearest neighbour
        node_s=float(max(near)) or float(path_s[path_s > 0].min(initial=domain_s)),
        domain_s=domain_s,
        grid=Grid((), per_node, pairs, to_next, domain_s),
    )


def paths(system: System, spec: Custom, asked: FabricState) -> Paths:
    """All shortest paths, or one of them."""
    level = levels(system, spec)
    return GraphPaths(system, asked, node_s=level.node_s, domain_s=level.domain_s)


def parts(system: System, _: Custom) -> PoweredParts:
    """Every name in the table that is no rank is a switch chip."""
    return PoweredParts(float(system.domains * len(_one(system).switches)))


WIRING = Wiring("custom", wire, levels, paths, parts)
