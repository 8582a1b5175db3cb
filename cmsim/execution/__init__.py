"""How a run comes about: programs that are planned and played, or the function of a kind that executes itself."""

from cmsim.execution.choice import candidates, result_of
from cmsim.execution.machines import Machines, system
from cmsim.execution.options import options_of
from cmsim.execution.played import check

__all__ = ["Machines", "candidates", "check", "options_of", "result_of", "system"]
