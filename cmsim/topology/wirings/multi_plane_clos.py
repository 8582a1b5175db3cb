"""Two switch tiers in independent planes.

A node has one first-tier chip per plane; every rank and host processor of the node reaches all of them. A
first-tier chip has one lane to every second-tier chip of its plane; planes never meet.

Uplinks of a node carry ``planes * l2_chips_per_plane * lane``. The chips of a node also serve its host
processors, so that ranks and processors at full rate together ask for more than the uplinks give.

Parts that may break, beside ports:

    module/NODE/PLANE/CHIP   an optical module: the lane between chips of the first and second tier
    l1/NODE/PLANE            a first-tier chip, with all its ports and uplinks
    l2/DOMAIN/PLANE/CHIP     a second-tier chip

Source: arXiv:2506.12708v2, sections 3.2 and 3.3, figure 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmsim.hardware import System
from cmsim.hardware.specs import MultiPlaneClos
from cmsim.topology.crossings import FabricState, Paths
from cmsim.topology.edges import Edges, edges
from cmsim.topology.faults import Form, ports
from cmsim.topology.links import add_node, join
from cmsim.topology.places import places
from cmsim.topology.wirings.page import Levels, PoweredParts, Wiring, chips_in_use, routed
from cmsim.units import GIGA, US


def wire(graph: Any, system: System, spec: MultiPlaneClos) -> None:
    """Add both tiers and the host processors; the ranks are already nodes of the graph."""
    lane_Bps = spec.lane_GBps * GIGA
    lanes_per_rank = spec.lanes_per_accelerator / system.ranks_per_package
    # half a node path is paid on the way up and half on the way down, so that path sums equal the measured figures
    port_s = spec.node_us * US / 2
    uplink_s = (spec.domain_us - spec.node_us) * US / 2
    nodes_per_domain = system.spec.accelerators // system.spec.node.accelerators

    for domain in range(system.domains):
        for plane in range(spec.planes):
            for chip in range(spec.l2_chips_per_plane):
                add_node(graph, ("l2", domain, plane, chip), domain=domain, plane=plane)
    for node in range(system.nodes):
        domain = node // nodes_per_domain
        for plane in range(spec.planes):
            l1 = ("l1", node, plane)
            add_node(graph, l1, node=node, domain=domain, plane=plane)
            for chip in range(spec.l2_chips_per_plane):
                l2 = ("l2", domain, plane, chip)
                join(graph, l1, l2, capacity_Bps=lane_Bps, latency_s=uplink_s, tier="uplink")
        for socket in range(system.spec.node.cpus):
            cpu = ("cpu", node, socket)
            add_node(graph, cpu, node=node, domain=domain)
            cpu_Bps = spec.cpu_GBps * GIGA / spec.planes
            for plane in range(spec.planes):
                join(graph, cpu, ("l1", node, plane), capacity_Bps=cpu_Bps, latency_s=port_s, tier="host")
    for rank, node in enumerate(places(system).node.tolist()):
        for plane in range(spec.planes):
            join(
                graph,
                ("rank", rank),
                ("l1", node, plane),
                capacity_Bps=lanes_per_rank * lane_Bps,
                latency_s=port_s,
                tier="port",
                lanes=lanes_per_rank,
            )


def levels(system: System, spec: MultiPlaneClos) -> Levels:
    """Ranks of a node meet in its first-tier chips, those of a domain in the second tier."""
    return Levels(
        spec.planes * spec.lanes_per_accelerator * spec.lane_GBps * GIGA / system.ranks_per_package,
        node_s=spec.node_us * US,
        domain_s=spec.domain_us * US,
        uplink_Bps=spec.planes * spec.l2_chips_per_plane * spec.lane_GBps * GIGA,
    )


def paths(system: System, spec: MultiPlaneClos, asked: FabricState) -> Paths:
    """Messages are spread over planes and second-tier chips."""
    lane_Bps = spec.lane_GBps * GIGA
    whole = edges(
        system,
        port=np.full((system.ranks, spec.planes), spec.lanes_per_accelerator / system.ranks_per_package * lane_Bps),
        uplink=np.full((system.nodes, spec.planes, spec.l2_chips_per_plane), lane_Bps),
    )
    return routed(system, whole, asked, levels(system, spec), faults)


def faults(system: System, left: Edges) -> dict[str, Form]:
    """Ports, optical modules (the lane between two chips), and chips of both tiers."""
    where = places(system)
    nodes, planes, chips = left.uplink.shape
    node_domain = np.zeros(where.nodes, np.int64)
    node_domain[where.node] = where.domain

    def module(numbers: list[int], factor: float) -> None:
        left.uplink[tuple(numbers)] *= factor

    def l1(numbers: list[int], factor: float) -> None:
        left.port[where.node == numbers[0], numbers[1]] *= factor
        left.uplink[numbers[0], numbers[1]] *= factor

    def l2(numbers: list[int], factor: float) -> None:
        left.uplink[node_domain == numbers[0], numbers[1], numbers[2]] *= factor

    return ports(system, left) | {
        "module/NODE/PLANE/CHIP": Form((nodes, planes, chips), module),
        "l1/NODE/PLANE": Form((nodes, planes), l1),
        "l2/DOMAIN/PLANE/CHIP": Form((where.domains, planes, chips), l2),
    }


def parts(system: System, spec: MultiPlaneClos) -> PoweredParts:
    """Chips of both tiers, and modules on the lanes between them."""
    nodes = system.spec.accelerators // system.spec.node.accelerators
    return PoweredParts(
        chips_in_use(system, spec.planes * (nodes + spec.l2_chips_per_plane)),
        system.nodes * spec.planes * spec.l2_chips_per_plane * spec.modules_per_uplink,
        spec.modules_per_uplink,
    )


WIRING = Wiring("multi_plane_clos", wire, levels, paths, parts)
