"""The seam between fabrics and whoever sends messages over them: ``paths`` lays a system out, whatever its wiring.

A fabric numbers its resources (one direction of a link, or of a bundle of links that nothing tells apart), and says of
any pairs of ranks which of them a message crosses. Bounds ask it for cuts. Wirings of switch tiers and full meshes are
``Routes``; those in which ranks forward are ``Linked``, one line each in ``_LINKED``.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmsim.hardware import System
from cmsim.topology.crossings import Crossings
from cmsim.topology.custom import GraphPaths
from cmsim.topology.dimensions import GridPaths
from cmsim.topology.faults import Faults, apply
from cmsim.topology.linked import Linked
from cmsim.topology.places import Places
from cmsim.topology.routes import Routes, edges

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Paths(Protocol):
    """The links of a system, as messages cross them. Callers never ask which wiring they hold."""

    #: what each resource carries [B/s]
    capacity_Bps: Floats
    #: which tier and direction each resource belongs to, a position in ``tiers``
    tier: Ints
    #: the rank whose port each resource is (part of), -1 for all others; a link between two ranks is its source's
    owner: Ints
    #: where the ranks sit
    where: Places

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names of the tiers that ``tier`` counts."""
        ...

    def name(self, resource: int) -> str:
        """A resource in words."""
        ...

    def alike(self) -> Ints:
        """A number for each rank: ranks of one number have equal links, and messages between equal ranks equal paths.

        What folding starts from; every rank by itself is always right.
        """
        ...

    def crossings(self, src: NDArray[Any], dst: NDArray[Any]) -> Crossings:
        """The resources of each message from ``src`` to ``dst``, ranks of the system; -1 stands for the switch.

        Raises InputError where a message goes from a rank to itself, InfeasibleError where no path is left.
        """
        ...

    def longest_s(self, src: NDArray[Any], dst: NDArray[Any]) -> float:
        """Latency of the longest path between these pairs. [s]"""
        ...

    def farthest_s(self, ranks: Ints) -> float:
        """Latency between the two ranks of a group that are farthest apart. [s]"""
        ...

    def port_Bps(self, ranks: Ints) -> Floats:
        """What each rank of a group sends to the others at most, over all its links. [B/s]"""
        ...

    def cuts(self, ranks: Ints) -> list[tuple[Ints, Floats]]:
        """Ways to divide a group: (part of each rank, what each part sends to the others at most [B/s])."""
        ...


_LINKED: dict[str, type[Linked]] = {"custom": GraphPaths, "dimensions": GridPaths}


def paths(
    system: System,
    *,
    faults: Faults = (),
    scale_up: float = 1.0,
    scale_out: float = 1.0,
    routing: str = "sprayed",
    seed: int = 0,
) -> Paths:
    """The fabric of a system.

    faults               parts that are down, or what is left of them (``topology.faults``)
    scale_up, scale_out  payload share of what the wires carry, inside domains and between them [1]
    routing              sprayed, hashed (by ``seed``) or pinned

    Raises InputError for parts and routings that do not exist.
    """
    linked = _LINKED.get(system.spec.scale_up.wiring)
    if linked is not None:
        return linked(system, faults=faults, scale_up=scale_up, scale_out=scale_out, routing=routing, seed=seed)
    wires = edges(system)
    if faults:
        wires = apply(system, wires, faults)
    payload = wires.scaled(scale_up=scale_up, scale_out=scale_out)
    return Routes(system, wires=payload, routing=routing, seed=seed)
