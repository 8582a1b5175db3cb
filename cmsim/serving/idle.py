"""What machines draw that wait."""

from __future__ import annotations

from cmsim import energy
from cmsim.hardware import System
from cmsim.serving.costs import Joules


def idle_W(system: System) -> Joules:
    """Facility power of a machine whose accelerators wait: the least, the middle, the most. [W]"""
    return energy.waiting_W(system)


__all__ = ["idle_W"]
