"""One tier of switch chips: every rank reaches every chip of its domain, so any two ranks are one hop apart.

The links of an accelerator are spread evenly over the chips. Where they do not divide (18 links over 4 chips are
wired 5, 4, 4, 5), the even share keeps the sum right, and traffic that is sprayed sees no difference.

Parts that may break, beside ports: ``switch/DOMAIN/CHIP``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmsim.hardware import System
from cmsim.hardware.specs import Switched
from cmsim.topology.crossings import FabricState, Paths
from cmsim.topology.edges import Edges, edges
from cmsim.topology.faults import Form, ports, slow_ports
from cmsim.topology.links import add_node, join
from cmsim.topology.places import places
from cmsim.topology.wirings.page import Levels, PoweredParts, Wiring, chips_in_use, routed
from cmsim.units import GIGA, US


def wire(graph: Any, system: System, spec: Switched) -> None:
    """Add the switch chips of every domain; the ranks are already nodes of the graph."""
    links = spec.links_per_accelerator / system.ranks_per_package / spec.switches
    for domain in range(system.domains):
        for chip in range(spec.switches):
            add_node(graph, ("switch", domain, chip), domain=domain)
    for rank, domain in enumerate(places(system).domain.tolist()):
        for chip in range(spec.switches):
            join(
                graph,
                ("rank", rank),
                ("switch", domain, chip),
                capacity_Bps=links * spec.link_GBps * GIGA,
                latency_s=spec.domain_us * US / 2,
                tier="port",
                lanes=links,
            )


def levels(system: System, spec: Switched) -> Levels:
    """Any two ranks are one switch apart."""
    port_Bps = spec.links_per_accelerator * spec.link_GBps * GIGA / system.ranks_per_package
    return Levels(port_Bps, node_s=spec.domain_us * US, domain_s=spec.domain_us * US)


def paths(system: System, spec: Switched, asked: FabricState) -> Paths:
    """Messages are spread over the chips."""
    links = spec.links_per_accelerator / system.ranks_per_package / spec.switches
    port = np.full((system.ranks, spec.switches), links * spec.link_GBps * GIGA)
    whole = edges(system, port=port, uplink=np.zeros((system.domains, spec.switches, 0)))
    return routed(system, whole, asked, levels(system, spec), faults)


def faults(system: System, left: Edges) -> dict[str, Form]:
    """Ports and chips."""
    domain, chips = places(system).domain, left.port.shape[1]
    chip = Form((system.domains, chips), lambda n, f: slow_ports(left, domain == n[0], n[1], f))
    return ports(system, left) | {"switch/DOMAIN/CHIP": chip}


def parts(system: System, spec: Switched) -> PoweredParts:
    """The chips."""
    return PoweredParts(chips_in_use(system, spec.switches))


WIRING = Wiring("switch", wire, levels, paths, parts)
