"""A grid of ranks joined dimension by dimension: tori, nD full meshes, rows behind switches, and what they compose to.

Rank r of a domain has the coordinates of r written with the sizes as digits, the first dimension being the fastest.
Along a ring a rank is joined to its two neighbours, along a line the ends have one, along a mesh to everybody in its
row, and a switch joins a row. Dimensions may differ in bandwidth and latency.

Messages correct one coordinate after the other, the innermost first (dimension order, which cannot deadlock on a mesh),
and take the shorter way round a ring. Where both ways are equally long, sprayed messages go half each way; hashed and
pinned ones draw one. Where a link of a ring is down, sprayed and hashed messages that would cross it go round the
other way. A message through an accelerator takes only its hop's latency, and no bandwidth but that of the links.

A part of a domain is a slab: the inner dimensions whole, the next one cut short, the others left out. A ring cut short
loses the link that closes it.

Leaves out: detours over other dimensions, and adaptive routing.
Source: Dally and Towles, Principles and Practices of Interconnection Networks, 2004, sections 5 and 8.4 (tori,
dimension-order routing).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.hardware.specs import Dimensions
from cmsim.topology.crossings import FabricState, Numbers, Paths
from cmsim.topology.draws import draws
from cmsim.topology.grid import Dim, Grid
from cmsim.topology.linked import Inside, Linked, Links
from cmsim.topology.links import Node, add_node, join
from cmsim.topology.wirings.page import Levels, PoweredParts, Wiring, chips_in_use
from cmsim.units import GIGA, US


def wire(graph: Any, system: System, spec: Dimensions) -> None:
    """Join the ranks, and add a switch for each row that has one; the ranks are already nodes of the graph."""
    table = _Tables(dims(system, spec), system.ranks).links
    graph.graph["ranks_forward"] = True
    for name in table.switches:
        add_node(graph, name, domain=int(name[1]))
    for a, b, Bps, latency_s in zip(
        table.start.tolist(), table.end.tolist(), table.capacity_Bps.tolist(), table.latency_s.tolist(), strict=True
    ):
        if a < b:
            join(graph, table.node(a), table.node(b), capacity_Bps=Bps, latency_s=latency_s, tier="port")


def _layout(sizes: list[int], ranks: int) -> tuple[list[int], list[Ints]]:
    """Stride of each dimension, and the coordinates of every rank of the system."""
    strides = [math.prod(sizes[:i]) for i in range(len(sizes))]
    rank = np.arange(ranks, dtype=np.int64)
    return strides, [rank // stride % size for stride, size in zip(strides, sizes, strict=True)]


class GridPaths(Linked):
    """Paths on a grid; see the page."""

    def __init__(self, system: System, spec: Dimensions, asked: FabricState):
        self._dims = dims(system, spec)
        level = levels(system, spec)
        super().__init__(system, asked, node_s=level.node_s, domain_s=level.domain_s)

    def lay(self, system: System) -> Links:
        self._of = _Tables(self._dims, system.ranks)
        return self._of.links

    def inside(self, src: Numbers, dst: Numbers) -> Inside:
        columns: list[Numbers] = []
        shares: list[Floats] = []
        code = np.zeros(len(src), np.int64)
        latency = np.zeros(len(src))
        here = src.astype(np.int64)
        # half of what has two ways of one length goes each way, or a draw decides
        one_way = draws(src, dst, self.seed) % 2 == 0 if self.routing != "sprayed" else None
        width = 0
        for d, dim in enumerate(self._dims):
            stride, at, to = self._of.strides[d], self._of.coord[d][src], self._of.coord[d][dst]
            base = here - at * stride
            if dim.kind in ("ring", "line"):
                hops, forward, both = self._ways(d, dim, base, at, to, one_way)
                columns += self._walk(d, dim, base, at, np.where(forward, 1, -1), hops)
                first = len(columns)
                if both.any():
                    columns += self._walk(d, dim, base, at, np.full(len(at), -1), np.where(both, hops, 0))
                flag = both.astype(np.int64)
                shares += [np.where(flag, 0.5, 1.0)] * (first - width)
                shares += [np.where(flag, 0.5, 0.0)] * (len(columns) - first)
            else:
                hops = (at != to).astype(np.int64)
                moved = base + to * stride
                if dim.kind == "mesh":
                    columns.append(np.where(hops, self._of.peer[d][here, to], -1).astype(np.int32))
                else:
                    columns.append(np.where(hops, self._of.up[d][here], -1).astype(np.int32))
                    columns.append(np.where(hops, self._of.down[d][moved], -1).astype(np.int32))
                flag = np.zeros(len(at), np.int64)
                shares += [np.ones(len(at))] * (len(columns) - width)
            width = len(columns)
            latency += hops * dim.hop_s
            code = (code * (dim.size + 1) + hops) * 2 + flag
            here = base + to * stride
        _, first_of, pattern = np.unique(code, return_index=True, return_inverse=True)
        share = np.array([column[first_of] for column in shares]).reshape(len(shares), -1).T
        return Inside(tuple(columns), pattern.reshape(-1), share, latency[first_of])

    def _ways(
        self, d: int, dim: Dim, base: Ints, at: Ints, to: Ints, one_way: NDArray[np.bool_] | None
    ) -> tuple[Ints, NDArray[np.bool_], NDArray[np.bool_]]:
        """Of each message: hops, whether it goes up the coordinates, whether half of it goes down instead."""
        if dim.kind == "line":
            return np.abs(to - at), to > at, np.zeros(len(at), bool)
        up, down = (to - at) % dim.size, (at - to) % dim.size
        tie = (up == down) & (up > 0)
        forward = (up < down) | (tie if one_way is None else tie & one_way)
        if self.dead.any() and self.routing != "pinned":
            open_up = self._open(d, dim, base, at, up, 1)
            open_down = self._open(d, dim, base, at, down, -1)
            forward = np.where(open_up == open_down, forward, open_up)
            tie &= open_up == open_down
        # of a message that goes both ways the first set of columns holds the way up
        return np.where(forward, up, down), forward, tie & (one_way is None)

    def _open(self, d: int, dim: Dim, base: Ints, at: Ints, hops: Ints, step: int) -> NDArray[np.bool_]:
        """Whether every link of a way round is there."""
        good = np.ones(len(at), bool)
        for number in self._walk(d, dim, base, at, np.full(len(at), step), hops):
            good &= ~np.where(number >= 0, self.dead[number], False)
        return good

    def _walk(self, d: int, dim: Dim, base: Ints, at: Ints, step: Ints, hops: Ints) -> list[Numbers]:
        """The links that each message crosses, hop by hop, going up (1) or down (-1) the coordinates."""
        stride, out = self._of.strides[d], []
        for hop in range(int(hops.max(initial=0))):
            node = base + (at + step * hop) % dim.size * stride
            number = np.where(step > 0, self._of.plus[d][node], self._of.minus[d][node])
            out.append(np.where(hop < hops, number, -1).astype(np.int32))
        return out

    def inside_s(self, src: Ints, dst: Ints) -> Floats:
        out = np.zeros(len(src))
        for d, dim in enumerate(self._dims):
            apart = np.abs(self._of.coord[d][src] - self._of.coord[d][dst])
            if dim.kind == "ring":
                apart = np.minimum(apart, dim.size - apart)
            out += (apart if dim.kind in ("ring", "line") else apart > 0) * dim.hop_s
        return out

    def sides(self) -> list[Ints]:
        """Every dimension cut in half, and into its single coordinates."""
        out = []
        for d, dim in enumerate(self._dims):
            out.append(self._of.coord[d] * 2 // dim.size)
            if dim.size > 3:
                out.append(self._of.coord[d])
        return out


class _Tables:
    """Link numbers by dimension and rank: ``plus`` and ``minus`` of rings and lines, ``peer`` of meshes, shape
    (ranks, size), ``up`` and ``down`` of switches; -1 where there is none."""

    def __init__(self, found: tuple[Dim, ...], ranks: int):
        sizes = [dim.size for dim in found]
        size = math.prod(sizes)
        self.strides, self.coord = _layout(sizes, ranks)
        self.plus: dict[int, Ints] = {}
        self.minus: dict[int, Ints] = {}
        self.peer: dict[int, Ints] = {}
        self.up: dict[int, Ints] = {}
        self.down: dict[int, Ints] = {}
        rank = np.arange(ranks, dtype=np.int64)
        start: list[Ints] = []
        end: list[Ints] = []
        tier: list[Ints] = []
        rate: list[Floats] = []
        late: list[Floats] = []
        tiers: list[str] = []
        switches: list[Node] = []
        count = 0

        def add(name: str, a: Ints, b: Ints, Bps: float, latency_s: float) -> Ints:
            nonlocal count
            start.append(a)
            end.append(b)
            if name not in tiers:
                tiers.append(name)
            tier.append(np.full(len(a), tiers.index(name)))
            rate.append(np.full(len(a), Bps))
            late.append(np.full(len(a), latency_s))
            count += len(a)
            return np.arange(count - len(a), count, dtype=np.int64)

        for d, dim in enumerate(found):
            at, stride = self.coord[d], self.strides[d]
            base = rank - at * stride
            if dim.kind in ("ring", "line"):
                for step, table in ((1, self.plus), (-1, self.minus)):
                    to = at + step
                    there = np.ones(ranks, bool) if dim.kind == "ring" else (to >= 0) & (to < dim.size)
                    table[d] = np.full(ranks, -1, np.int64)
                    ends = (base + to % dim.size * stride)[there]
                    table[d][there] = add(dim.name, rank[there], ends, dim.link_Bps, dim.hop_s)
            elif dim.kind == "mesh":
                self.peer[d] = np.full((ranks, dim.size), -1, np.int64)
                a = np.repeat(rank, dim.size)
                to = np.tile(np.arange(dim.size), ranks)
                there = to != at[a]
                ends = (base[a] + to * stride)[there]
                self.peer[d][a[there], to[there]] = add(dim.name, a[there], ends, dim.link_Bps, dim.hop_s)
            else:
                # rows are numbered over the system, by the rank that stands first in them
                row = np.unique(base, return_inverse=True)[1].reshape(-1)
                chip = ranks + len(switches) + row
                firsts = np.unique(base).tolist()
                switches += [("switch", first // size, dim.name, i) for i, first in enumerate(firsts)]
                self.up[d] = add(f"{dim.name}.out", rank, chip, dim.link_Bps, dim.hop_s / 2)
                self.down[d] = add(f"{dim.name}.in", chip, rank, dim.link_Bps, dim.hop_s / 2)
        nothing = [np.zeros(0, np.int64)]
        self.links = Links(
            ranks=ranks,
            switches=tuple(switches),
            start=np.concatenate(start or nothing),
            end=np.concatenate(end or nothing),
            capacity_Bps=np.concatenate(rate or [np.zeros(0)]),
            latency_s=np.concatenate(late or [np.zeros(0)]),
            tier=np.concatenate(tier or nothing).astype(np.int64),
            tiers=tuple(tiers),
        )


def levels(system: System, spec: Dimensions) -> Levels:
    """A port is the links along all dimensions; latencies add up over the hops."""
    used, per_node = dims(system, spec), system.spec.node.accelerators * system.ranks_per_package
    # a node is a run of neighbours along the inner dimensions
    node_s, left = 0.0, per_node
    for dim in used:
        along = min(dim.size, left)
        node_s += min(dim.most_hops, along - 1) * dim.hop_s
        left = max(left // dim.size, 1)
    port_Bps = sum(dim.port_Bps for dim in used)
    return Levels(
        # an accelerator alone keeps the port of its widest dimension
        port_Bps or max(one.links * one.link_GBps for one in spec.dimensions.values()) * GIGA,
        # of nodes of one rank: the nearest neighbour
        node_s=node_s or min((dim.hop_s for dim in used), default=0.0),
        domain_s=sum(dim.most_hops * dim.hop_s for dim in used),
        grid=Grid(used, per_node),
    )


def paths(system: System, spec: Dimensions, asked: FabricState) -> Paths:
    """Dimension after dimension."""
    return GridPaths(system, spec, asked)


def parts(system: System, spec: Dimensions) -> PoweredParts:
    """Chips of the rows behind switches."""
    return PoweredParts(chips_in_use(system, spec.switches))


def dims(system: System, spec: Dimensions) -> tuple[Dim, ...]:
    """The dimensions in use of a domain, innermost first. Raises InputError for a part that is no slab."""
    if system.ranks_per_package > 1:
        raise InputError(
            Problem("dimensions join packages; got 'die'. Allowed: package.", system.spec.name, key="rank")
        )
    whole = [
        Dim(name, one.kind, one.size, one.links * one.link_GBps * GIGA, one.hop_us * US)
        for name, one in spec.dimensions.items()
    ]
    if system.packages % system.spec.accelerators:
        whole = _slab(system, whole)
    return tuple(_plain(one) for one in whole if one.size > 1)


def _slab(system: System, whole: list[Dim]) -> list[Dim]:
    left = system.packages
    out = []
    for one in whole if system.domains == 1 else []:
        if left >= one.size and left % one.size == 0:
            out.append(one)
            left //= one.size
        elif left < one.size:
            out.append(replace(one, size=left, kind="line" if one.kind == "ring" else one.kind))
            left = 1
        else:
            break
        if left == 1:
            return out
    sizes = [math.prod(one.size for one in whole[: i + 1]) for i in range(len(whole))]
    raise InputError(
        Problem(
            f"got {system.packages}; a part of {system.spec.name} is a slab of one domain: up to {sizes[0]}, or "
            + ", or ".join(f"a multiple of {inner} up to {outer}" for inner, outer in itertools.pairwise(sizes))
            + "; several domains are used whole",
            key="accelerators",
        )
    )


def _plain(one: Dim) -> Dim:
    """Two along a line are a mesh of two, and so are two along a ring, with both links of the ring between them."""
    if one.size == 2 and one.kind in ("ring", "line"):
        return replace(one, kind="mesh", link_Bps=one.link_Bps * (2 if one.kind == "ring" else 1))
    return one


WIRING = Wiring("dimensions", wire, levels, paths, parts)
