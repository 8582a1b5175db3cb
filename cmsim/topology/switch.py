"""One tier of switch chips: every rank reaches every chip of its domain, so any two ranks are one hop apart.

The links of an accelerator are spread evenly over the chips. Where they do not divide (18 links over 4 chips are
wired 5, 4, 4, 5), the even share keeps the sum right, and traffic that is sprayed sees no difference.
"""

from __future__ import annotations

from typing import Any

from cmsim.hardware import System
from cmsim.hardware.specs import Switched
from cmsim.topology.links import add_node, join
from cmsim.topology.places import places
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
