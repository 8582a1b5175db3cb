"""Power by component over time, energy as its integral, carbon."""

from cmsim.energy.parts import COMPONENTS, constant, scale_up_modules, switch_chips
from cmsim.energy.power import carbon_g, energy_by_component, facility_W, power_columns, power_metrics

__all__ = [
    "COMPONENTS",
    "carbon_g",
    "constant",
    "energy_by_component",
    "facility_W",
    "power_columns",
    "power_metrics",
    "scale_up_modules",
    "switch_chips",
]
