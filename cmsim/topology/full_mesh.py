"""A dedicated link between every two accelerators of a domain; no switch.

A rank reaches its full port only when it talks to all peers at once; two ranks alone see one link.
"""

from __future__ import annotations

import itertools
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.hardware.specs import FullMesh
from cmsim.topology.links import join
from cmsim.topology.places import places
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
