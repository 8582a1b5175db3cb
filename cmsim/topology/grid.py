"""Ranks on a grid: what its dimensions carry. Plain numbers, for paths and for pricing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dim:
    """One dimension in use.

    kind      ring, line, mesh or switch; never a ring of two, whose links join the same pair: that is a mesh
    link_Bps  all parallel links to one neighbour (ring, line), one peer (mesh) or the switch, one direction [B/s]
    hop_s     to the next rank, through the switch if there is one [s]
    """

    name: str
    kind: str
    size: int
    link_Bps: float
    hop_s: float

    @property
    def port_Bps(self) -> float:
        """All links of a rank that has most of them. [B/s]"""
        ways = {"ring": 2, "line": min(self.size - 1, 2), "mesh": self.size - 1, "switch": 1}[self.kind]
        return ways * self.link_Bps

    @property
    def links_across(self) -> int:
        """Links that leave one half of a row for the other, the smaller half of an odd one."""
        half = self.size // 2
        return {"ring": 2, "line": 1, "mesh": half * (self.size - half), "switch": half}[self.kind]

    @property
    def most_hops(self) -> int:
        """Between the two that are farthest apart."""
        return {"ring": self.size // 2, "line": self.size - 1}.get(self.kind, 1)


@dataclass(frozen=True)
class Grid:
    """What pricing needs of a fabric in which a rank's port is many links that lead different ways.

    dims            of one domain in use, innermost first
    ranks_per_node  neighbours of one host, by number
    pairs_s_per_B, next_s_per_B, farthest_s   without dimensions, measured on the graph: what the busiest link needs for
        each byte that every rank sends to all others together [s/B], that every rank sends to the next one
        [s/B], and the latency between the two that are farthest apart [s]
    """

    dims: tuple[Dim, ...]
    ranks_per_node: int
    pairs_s_per_B: float = 0.0
    next_s_per_B: float = 0.0
    farthest_s: float = 0.0
