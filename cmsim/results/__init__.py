"""Results as values: metrics, frames, and the folder they are kept in."""

from cmsim.results.metrics import KINDS, metrics
from cmsim.results.result import FRAMES, PER, Result, check, per, rate_name, shown
from cmsim.results.results import Results

__all__ = ["FRAMES", "KINDS", "PER", "Result", "Results", "check", "metrics", "per", "rate_name", "shown"]
