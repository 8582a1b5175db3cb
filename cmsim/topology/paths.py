"""The seam between fabrics and whoever sends messages over them: ``paths`` lays a system out, whatever its wiring."""

from __future__ import annotations

from cmsim.hardware import System
from cmsim.topology.crossings import FabricState, Paths
from cmsim.topology.faults import Faults
from cmsim.topology.wirings import wiring


def paths(
    system: System,
    *,
    faults: Faults = (),
    scale_up: float = 1.0,
    scale_out: float = 1.0,
    routing: str = "sprayed",
    seed: int = 0,
) -> Paths:
    """The fabric of a system; what may be asked is that of ``FabricState``.

    Raises InputError for parts and routings that do not exist.
    """
    asked = FabricState(faults, scale_up, scale_out, routing, seed)
    return wiring(system).paths(system, system.spec.scale_up, asked)
