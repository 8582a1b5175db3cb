"""Results as values: metrics, frames, and the folder they are kept in."""

from cmsim.results.break_even import BreakEven, break_even
from cmsim.results.metrics import decisive, follows_time, metrics, of_time, per_token
from cmsim.results.naming import named, names, pairs, placed
from cmsim.results.outcome import Failed, Infeasible, Outcome, became
from cmsim.results.parts import Store
from cmsim.results.recorded import beside_recorded
from cmsim.results.result import FRAMES, PER, Result, check, flat_plan, per, power_band, rate_name
from cmsim.results.results import Results, is_folder
from cmsim.results.settled import settle
from cmsim.results.spread import over_seeds
from cmsim.results.store import check_folder
from cmsim.results.sure import Weight, filled, interval, weights
from cmsim.results.sure import chances as more_than
from cmsim.results.sure import rows as interval_rows

__all__ = [
    "FRAMES",
    "PER",
    "BreakEven",
    "Failed",
    "Infeasible",
    "Outcome",
    "Result",
    "Results",
    "Store",
    "Weight",
    "became",
    "beside_recorded",
    "break_even",
    "check",
    "check_folder",
    "decisive",
    "filled",
    "flat_plan",
    "follows_time",
    "interval",
    "interval_rows",
    "is_folder",
    "metrics",
    "more_than",
    "named",
    "names",
    "of_time",
    "over_seeds",
    "pairs",
    "per",
    "per_token",
    "placed",
    "power_band",
    "rate_name",
    "settle",
    "weights",
]
