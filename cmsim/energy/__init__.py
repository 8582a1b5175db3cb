"""Power by component over time, energy as its integral, carbon."""

from cmsim.energy.curve import Course, PowerCurve, curve, waiting_W
from cmsim.energy.limits import limited
from cmsim.energy.parts import COMPONENTS, constant, full_W, rated_W, scale_up_modules, switch_chips
from cmsim.energy.power import (
    BAND,
    LINKS,
    OPS,
    Busy,
    Power,
    band_metrics,
    busy,
    carbon_g,
    power_metrics,
    power_over_time,
)
from cmsim.energy.several import powers

__all__ = [
    "BAND",
    "COMPONENTS",
    "LINKS",
    "OPS",
    "Busy",
    "Course",
    "Power",
    "PowerCurve",
    "band_metrics",
    "busy",
    "carbon_g",
    "constant",
    "curve",
    "full_W",
    "limited",
    "power_metrics",
    "power_over_time",
    "powers",
    "rated_W",
    "scale_up_modules",
    "switch_chips",
    "waiting_W",
]
