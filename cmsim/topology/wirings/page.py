"""What a page of this room says of its fabric; what it holds in common with others stands in ``topology``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cmsim.hardware import System
from cmsim.topology import faults
from cmsim.topology.crossings import FabricState, Paths
from cmsim.topology.edges import Edges
from cmsim.topology.grid import Grid
from cmsim.topology.routes import Routes


@dataclass(frozen=True)
class Levels:
    """What pricing needs of a domain: capacities of one direction [B/s] and latencies of small messages [s].

    port_Bps    all links of a rank into its domain    uplink_Bps   of a node, out of it inside the domain
    node_s, domain_s   between the two ranks of a node, and of a domain, that are farthest apart
    grid        where a rank's port is many links that lead different ways
    """

    port_Bps: float
    node_s: float
    domain_s: float
    uplink_Bps: float = math.inf
    grid: Grid | None = None


@dataclass(frozen=True)
class PoweredParts:
    """Parts of the domains that serve the nodes in use: switch chips, and optical modules, all ends. [1]

    modules_per_lane   of each lane between tiers
    """

    switch_chips: float = 0.0
    modules: float = 0.0
    modules_per_lane: float = 0.0


@dataclass(frozen=True)
class Wiring:
    """A fabric, as its page has it. Functions take the system, and its ``scale_up`` as the page's own spec.

    wire     adds chips and links to a graph that holds the ranks
    levels   the same in plain numbers; a test cuts the graph at every level and compares
    paths    the links that messages cross, under what is asked of them, and under faults: which parts may break is the
             page's, or follows from a table of links (``Linked``)
    parts    what draws power
    """

    name: str
    wire: Callable[[Any, System, Any], None]
    levels: Callable[[System, Any], Levels]
    paths: Callable[[System, Any, FabricState], Paths]
    parts: Callable[[System, Any], PoweredParts]


def chips_in_use(system: System, per_domain: float) -> float:
    """Switch chips of domains, in proportion to the nodes in use. [1]"""
    nodes = system.spec.accelerators // system.spec.node.accelerators
    return system.nodes * per_domain / nodes


def routed(system: System, whole: Edges, asked: FabricState, level: Levels, forms: faults.Forms) -> Routes:
    """The paths of a fabric that is tables of tiers; ``forms`` are of what in its domains may break."""
    wires = faults.apply(system, whole, asked.faults, forms) if asked.faults else whole
    payload = wires.scaled(scale_up=asked.scale_up, scale_out=asked.scale_out)
    return Routes(
        system,
        payload,
        node_s=level.node_s,
        domain_s=level.domain_s,
        routing=asked.routing,
        seed=asked.seed,
    )
