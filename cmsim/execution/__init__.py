"""How a run comes about: programs that are planned and played, or the function of a kind that executes itself."""

from cmsim.execution.asked import check_asked, check_report
from cmsim.execution.choice import candidates, result_of
from cmsim.execution.machines import Machines, system
from cmsim.execution.money import check as check_money
from cmsim.execution.options import options_of
from cmsim.execution.played import Play, check

__all__ = [
    "Machines",
    "Play",
    "candidates",
    "check",
    "check_asked",
    "check_money",
    "check_report",
    "options_of",
    "result_of",
    "system",
]
