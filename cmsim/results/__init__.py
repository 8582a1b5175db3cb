"""Results as values: metrics, frames, and the folder they are kept in."""

from cmsim.results.metrics import KINDS, metrics
from cmsim.results.recorded import beside_recorded
from cmsim.results.result import FRAMES, PER, Result, check, per, power_band, rate_name, shown
from cmsim.results.results import Results
from cmsim.results.store import check_folder

__all__ = [
    "FRAMES",
    "KINDS",
    "PER",
    "Result",
    "Results",
    "beside_recorded",
    "check",
    "check_folder",
    "metrics",
    "per",
    "power_band",
    "rate_name",
    "shown",
]
