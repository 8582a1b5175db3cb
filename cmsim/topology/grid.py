"""Ranks on a grid: what its dimensions carry, and which part of it is in use. Plain numbers, for paths and for pricing.

A part of a domain is a slab: the inner dimensions whole, the next one cut short, the others left out. A ring cut short
loses the link that closes it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.hardware.specs import Dimensions, FullMesh
from cmsim.units import GIGA, US


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


def dims(system: System) -> tuple[Dim, ...]:
    """The dimensions in use of a domain, innermost first. Raises InputError for a part that is no slab."""
    spec = system.spec.scale_up
    if isinstance(spec, FullMesh):
        size = min(system.packages, system.spec.accelerators)
        link_Bps = spec.links_per_pair * spec.link_GBps * GIGA
        return (Dim("mesh", "mesh", size, link_Bps, spec.domain_us * US),) if size > 1 else ()
    assert isinstance(spec, Dimensions), spec
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
