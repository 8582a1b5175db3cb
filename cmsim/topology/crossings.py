"""What is asked of a fabric and what it answers, whatever its wiring: which links messages cross, as arrays.

A fabric numbers its resources (one direction of a link, or of a bundle of links that nothing tells apart), and says of
any pairs of ranks which of them a message crosses. Bounds ask it for cuts. Fabrics of switch tiers and full meshes are
``Routes``; those in which ranks forward are ``Linked``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.topology.places import Places

#: resource numbers fit 32 bits; a million messages cross millions of resources
Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Crossings:
    """What messages cross, column by column. A column is one place along the path, such as the way up in a plane.

    resource   by column, the number of the resource each message crosses there, -1 for none, shape (messages,)
    pattern    row of ``share`` and ``latency_s`` that each message follows, shape (messages,)
    share      part of a message's bytes that crosses in a column, shape (patterns, columns) [1]
    latency_s  of the path, first byte in to first byte out, shape (patterns,) [s]
    """

    resource: tuple[Numbers, ...]
    pattern: Numbers
    share: NDArray[np.float64]
    latency_s: NDArray[np.float64]


@dataclass(frozen=True)
class FabricState:
    """How a run wants its fabric.

    faults               parts that are down, or what is left of them (``topology.faults``)
    scale_up, scale_out  payload share of what the wires carry, inside domains and between them [1]
    routing              sprayed, hashed (by ``seed``) or pinned
    """

    faults: Mapping[str, float] | Iterable[str] = ()
    scale_up: float = 1.0
    scale_out: float = 1.0
    routing: str = "sprayed"
    seed: int = 0


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

    def alike(self) -> Ints | None:
        """A number for each rank: ranks of one number have equal links, and messages between equal ranks equal paths.
        None where paths depend on where ranks are, so that only messages show who is alike.

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
