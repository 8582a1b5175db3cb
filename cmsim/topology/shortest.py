"""Shortest paths on any graph of links: by latency, then by hops; all that are equally good.

Latencies count in whole picoseconds, so that equal is equal. A node hands what is for one destination to all of its
next links on shortest paths, in proportion to what is left of them (equal-cost multi-path).

Cost: one Dijkstra for each node, and one pass over the nodes for each destination asked for.
Source: Dijkstra, Numerische Mathematik 1, 1959; RFC 2992 (equal-cost multi-path).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.hardware import Cable

#: a hop counts as this part of a picosecond: fewer hops win only where latencies are equal
_HOPS = 1 << 12
#: starts of which each is followed by itself
_FEW = 8


@dataclass(frozen=True)
class Connections:
    """Links of one domain, each direction by itself; nodes are the ranks, then the switches."""

    ranks: int
    switches: tuple[str, ...]
    start: Ints
    end: Ints
    capacity_Bps: Floats
    latency_s: Floats
    lanes: Ints

    @property
    def nodes(self) -> int:
        return self.ranks + len(self.switches)

    def weight(self) -> Floats:
        """Of every link, a whole number."""
        return np.asarray(np.rint(self.latency_s * 1e12) * _HOPS + 1)

    def distance(self, alive: NDArray[np.bool_] | None = None) -> Floats:
        """From every node to every node, in units of ``weight``; infinite where no path is left."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import dijkstra

        use = np.ones(len(self.start), bool) if alive is None else alive
        table = csr_array((self.weight()[use], (self.start[use], self.end[use])), shape=(self.nodes, self.nodes))
        return np.asarray(dijkstra(table))


@functools.lru_cache(maxsize=16)
def graph(cables: tuple[Cable, ...], ranks: int) -> Connections:
    """The graph of a table of links, each line both ways."""
    number = {f"rank/{rank}": rank for rank in range(ranks)}
    for cable in cables:
        for end in (cable.a, cable.b):
            number.setdefault(end, len(number))
    a = np.array([number[cable.a] for cable in cables], np.int64)
    b = np.array([number[cable.b] for cable in cables], np.int64)
    twice = np.tile(np.arange(len(cables)), 2)
    return Connections(
        ranks=ranks,
        switches=tuple(number)[ranks:],
        start=np.concatenate([a, b]),
        end=np.concatenate([b, a]),
        capacity_Bps=np.array([cable.capacity_Bps for cable in cables])[twice],
        latency_s=np.array([cable.latency_s for cable in cables])[twice],
        lanes=np.array([cable.links for cable in cables], np.int64)[twice],
    )


def latency_s(distance: Floats) -> Floats:
    """Latency of paths from their distance. [s]"""
    return np.asarray(np.floor_divide(distance, _HOPS) / 1e12)


class Ways:
    """Shares of the links of a graph in messages to a destination; computed when first asked for.

    left_Bps: what is left of each link; those with nothing left are not used [B/s]
    """

    def __init__(self, links: Connections, left_Bps: Floats):
        self._links = links
        self._left_Bps = left_Bps
        self._alive = left_Bps > 0
        self.distance = links.distance(None if self._alive.all() else self._alive)
        self._weight = links.weight()

    def next_links(self, to: int) -> Ints:
        """Links on any shortest path to a node, those farthest away first."""
        distance, links = self.distance[:, to], self._links
        good = self._alive & np.isfinite(distance[links.end])
        on = np.flatnonzero(good & (distance[links.start] == self._weight + np.where(good, distance[links.end], 0)))
        return np.asarray(on[np.argsort(-distance[links.start[on]], kind="stable")], np.int64)

    def shares(self, start: Ints, to: int) -> Floats:
        """Part of a message from each of ``start`` that crosses each link, shape (len(start), links). [1]"""
        links = self._links
        if len(start) < _FEW:
            return np.stack([self.load(start[[i]], to) for i in range(len(start))])
        at = np.zeros((len(start), links.nodes))
        at[np.arange(len(start)), start] = 1.0
        out = np.zeros((len(start), len(links.start)))
        on = self.next_links(to)
        total = np.bincount(links.start[on], self._left_Bps[on], minlength=links.nodes)
        for number in on.tolist():
            one, other = int(links.start[number]), int(links.end[number])
            out[:, number] = at[:, one] * (self._left_Bps[number] / total[one])
            at[:, other] += out[:, number]
        return out

    def load(self, start: Ints, to: int) -> Floats:
        """Messages of one byte from each of ``start``, together, on each link. [1]"""
        links, on = self._links, self.next_links(to)
        on = on[self.distance[links.start[on], to] <= self.distance[start, to].max(initial=0.0)]
        total = np.bincount(links.start[on], self._left_Bps[on], minlength=links.nodes)
        begins, ends = links.start[on].tolist(), links.end[on].tolist()
        parts = (self._left_Bps[on] / total[begins]).tolist()
        at = np.bincount(start, minlength=links.nodes).astype(float).tolist()
        carried = [0.0] * len(begins)
        # in Python's own numbers: a link at a time is all that may be done at once
        for number, (one, other, part) in enumerate(zip(begins, ends, parts, strict=True)):
            if moved := at[one] * part:
                carried[number] = moved
                at[other] += moved
        out = np.zeros(len(links.start))
        out[on] = carried
        return out

    def drawn(self, start: int, to: int, draw: int) -> list[int]:
        """One path, hop by hop, each hop drawn from ``draw`` (Knuth's MMIX generator); none where there is no path."""
        links, out, here = self._links, list[int](), start
        if not np.isfinite(self.distance[start, to]):
            return []
        on = self.next_links(to)
        while here != to:
            choices = on[links.start[on] == here]
            out.append(int(choices[(draw >> 33) % len(choices)]))
            draw = (draw * 6364136223846793005 + 1442695040888963407) % 2**64
            here = int(links.end[out[-1]])
        return out


@functools.lru_cache(maxsize=16)
def measured(cables: tuple[Cable, ...], ranks: int) -> tuple[float, float]:
    """Seconds that the busiest link needs for each byte that every rank sends: cut evenly over all ranks, its own part
    staying at home; and all to the next rank, the last to the first. [s/B]"""
    links = graph(cables, ranks)
    ways = Ways(links, links.capacity_Bps)
    pairs, to_next = np.zeros(len(links.start)), np.zeros(len(links.start))
    everybody = np.arange(ranks, dtype=np.int64)
    for to in range(ranks):
        pairs += ways.load(everybody, to) / ranks
        if ranks > 1:
            to_next += ways.load(everybody[[to - 1]], to)
    return float((pairs / links.capacity_Bps).max()), float((to_next / links.capacity_Bps).max())
