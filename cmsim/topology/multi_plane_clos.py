"""Two switch tiers in independent planes.

A node has one first-tier chip per plane; every rank and host processor of the node reaches all of them. A
first-tier chip has one lane to every second-tier chip of its plane; planes never meet.

Uplinks of a node carry ``planes * l2_chips_per_plane * lane``. The chips of a node also serve its host
processors, so that ranks and processors at full rate together ask for more than the uplinks give.

Source: arXiv:2506.12708v2, sections 3.2 and 3.3, figure 5.
"""

from __future__ import annotations

from typing import Any

from cmsim.hardware import System
from cmsim.hardware.specs import MultiPlaneClos
from cmsim.topology.links import add_node, join
from cmsim.topology.places import places
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
