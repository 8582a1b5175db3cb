"""Power by component over time, energy as its integral, carbon."""

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

__all__ = [
    "BAND",
    "COMPONENTS",
    "LINKS",
    "OPS",
    "Busy",
    "Power",
    "band_metrics",
    "busy",
    "carbon_g",
    "constant",
    "full_W",
    "power_metrics",
    "power_over_time",
    "rated_W",
    "scale_up_modules",
    "switch_chips",
]
