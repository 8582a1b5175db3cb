"""Collectives: one page per algorithm, the table, and the chooser. Needs nothing but numbers."""

from cmsim.collectives.bounds import bandwidth_bound_B, cut_bound_B
from cmsim.collectives.busbw import factor as busbw_factor
from cmsim.collectives.chooser import Choice, Phase, PricedCandidate, choose, explain
from cmsim.collectives.on_grid import GridLike
from cmsim.collectives.price import CANDIDATES
from cmsim.collectives.rows import Link, Rows, collective_code
from cmsim.collectives.table import ALGORITHMS, ON_GRID, candidates
from cmsim.collectives.terms import COLLECTIVES, Algorithm, Round, time_s
from cmsim.collectives.wire import wire_bound_s

__all__ = [
    "ALGORITHMS",
    "CANDIDATES",
    "COLLECTIVES",
    "ON_GRID",
    "Algorithm",
    "Choice",
    "GridLike",
    "Link",
    "Phase",
    "PricedCandidate",
    "Round",
    "Rows",
    "bandwidth_bound_B",
    "busbw_factor",
    "candidates",
    "choose",
    "collective_code",
    "cut_bound_B",
    "explain",
    "time_s",
    "wire_bound_s",
]
