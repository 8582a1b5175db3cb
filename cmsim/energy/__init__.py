"""Power by component over time, energy as its integral, carbon."""

from cmsim.energy.parts import COMPONENTS, constant, full_W, scale_up_modules, switch_chips
from cmsim.energy.power import (
    BAND,
    Busy,
    band_metrics,
    busy,
    carbon_g,
    energy_by_component,
    power_columns,
    power_metrics,
)

__all__ = [
    "BAND",
    "COMPONENTS",
    "Busy",
    "band_metrics",
    "busy",
    "carbon_g",
    "constant",
    "energy_by_component",
    "full_W",
    "power_columns",
    "power_metrics",
    "scale_up_modules",
    "switch_chips",
]
