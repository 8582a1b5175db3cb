"""A dedicated link between every two accelerators of a domain; no switch.

A rank reaches its full port only when it talks to all peers at once; two ranks alone see one link.

Parts that may break: ``rank/RANK/port``, and ``link/RANK/RANK``, the link of a pair.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.hardware.specs import FullMesh
from cmsim.topology.crossings import FabricState, Paths
from cmsim.topology.edges import Edges, edges
from cmsim.topology.faults import Form
from cmsim.topology.grid import Dim, Grid
from cmsim.topology.links import join
from cmsim.topology.places import places
from cmsim.topology.wirings.page import Levels, PoweredParts, Wiring, routed
from cmsim.units import GIGA, US


def wire(graph: Any, system: System, spec: FullMesh) -> None:
    """Join every two ranks of a domain. Raises InputError where ranks are dies: links end at packages."""
    if system.ranks_per_package > 1:
        raise InputError(
            Problem("a full mesh joins packages; got 'die'. Allowed: package.", system.spec.name, key="rank")
        )
    domain = places(system).domain
    for here in range(system.domains):
        for a, b in itertools.combinations((domain == here).nonzero()[0].tolist(), 2):
            join(
                graph,
                ("rank", a),
                ("rank", b),
                capacity_Bps=spec.links_per_pair * spec.link_GBps * GIGA,
                latency_s=spec.domain_us * US,
                tier="port",
                lanes=spec.links_per_pair,
            )


def levels(system: System, spec: FullMesh) -> Levels:
    """A port is all links to the peers, which are one dimension."""
    size = min(system.packages, system.spec.accelerators)
    # an accelerator alone keeps the port that its idle links would give
    links = spec.links_per_pair * (size - 1 or system.spec.accelerators - 1)
    dims = (Dim("mesh", "mesh", size, spec.links_per_pair * spec.link_GBps * GIGA, spec.domain_us * US),)
    return Levels(
        links * spec.link_GBps * GIGA / system.ranks_per_package,
        node_s=spec.domain_us * US,
        domain_s=spec.domain_us * US,
        grid=Grid(dims if size > 1 else (), system.spec.node.accelerators * system.ranks_per_package),
    )


def paths(system: System, spec: FullMesh, asked: FabricState) -> Paths:
    """A message crosses the link of its pair."""
    if system.ranks_per_package > 1:
        raise InputError("a full mesh joins packages; got rank 'die'. Allowed: package.")
    size = min(system.spec.accelerators, system.ranks)
    rank = np.arange(system.ranks)
    peer = rank[:, None] // size * size + np.arange(size)
    there = (peer < system.ranks) & (peer != rank[:, None])
    whole = edges(system, mesh=np.where(there, spec.links_per_pair * spec.link_GBps * GIGA, 0.0))
    return routed(system, whole, asked, levels(system, spec), faults)


def faults(system: System, left: Edges) -> dict[str, Form]:
    """All links of a rank, and the link of a pair."""
    mesh, size = left.mesh, left.mesh.shape[1]

    def port(numbers: list[int], factor: float) -> None:
        peers = numbers[0] // size * size + np.flatnonzero(mesh[numbers[0]])
        mesh[numbers[0]] *= factor
        mesh[peers, numbers[0] % size] *= factor

    def weaken(numbers: list[int], factor: float) -> None:
        for one, other in (numbers, numbers[::-1]):
            mesh[one, other % size] *= factor

    def missing(numbers: list[int]) -> str:
        one, other = numbers
        there = one // size == other // size and mesh[one, other % size] > 0
        return "" if there else "these ranks share no link, or it is down already"

    return {
        "rank/RANK/port": Form((system.ranks,), port),
        "link/RANK/RANK": Form((system.ranks, system.ranks), weaken, missing),
    }


def parts(_: System, __: FullMesh) -> PoweredParts:
    """Nothing but the accelerators."""
    return PoweredParts()


WIRING = Wiring("full_mesh", wire, levels, paths, parts)
