"""What machines draw that wait."""

from __future__ import annotations

import numpy as np

from cmsim import energy
from cmsim.hardware import System
from cmsim.serving.costs import Joules
from cmsim.units import PS_PER_S


def idle_W(system: System) -> Joules:
    """Facility power of a machine whose accelerators wait: the least, the middle, the most. [W]"""
    none = {name: np.zeros(0) for name in (*energy.OPS, *energy.LINKS)}
    found = energy.power_over_time(system, none, none, makespan_ps=PS_PER_S)
    low, middle, high = (float(one.sum(axis=0).mean()) for one in (found.low_W, found.middle_W, found.high_W))
    return low, middle, high


__all__ = ["idle_W"]
