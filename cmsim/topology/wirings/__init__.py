"""Wirings, one page each: what a system file may name as ``scale_up.wiring``. Nobody else asks which one it is.

A page has ``wire``, ``levels``, ``paths``, ``parts`` and, where its links are tables of tiers, ``faults``.
"""

from cmsim.hardware import System
from cmsim.topology.wirings import custom, dimensions, full_mesh, multi_plane_clos, switch
from cmsim.topology.wirings.page import Levels, PoweredParts, Wiring

#: by name; a network file (`astra_sim`) is read as dimensions before anybody asks
WIRINGS: dict[str, Wiring] = {
    page.WIRING.name: page.WIRING for page in (custom, dimensions, full_mesh, multi_plane_clos, switch)
}


def wiring(system: System) -> Wiring:
    """The page of a system's fabric."""
    return WIRINGS[system.spec.scale_up.wiring]


__all__ = ["WIRINGS", "Levels", "PoweredParts", "Wiring", "wiring"]
