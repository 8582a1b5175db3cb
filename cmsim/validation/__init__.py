"""Published and measured numbers beside predictions."""

from cmsim.validation.area import Area
from cmsim.validation.engine_fit import fit_engine
from cmsim.validation.engine_report import EngineFit
from cmsim.validation.imbalance import fit_expert_imbalance
from cmsim.validation.power_load import PowerFit, fit_power, holds_runs
from cmsim.validation.registry import AREAS, validate
from cmsim.validation.report import Report
from cmsim.validation.row import Row

__all__ = [
    "AREAS",
    "Area",
    "EngineFit",
    "PowerFit",
    "Report",
    "Row",
    "fit_engine",
    "fit_expert_imbalance",
    "fit_power",
    "holds_runs",
    "validate",
]
