"""Shell scripts walked through without running them."""

from cmsim.launch.shell.run import Shell
from cmsim.launch.shell.values import Said, is_unknown, shown, unknowns
from cmsim.launch.shell.variables import Started

__all__ = ["Said", "Shell", "Started", "is_unknown", "shown", "unknowns"]
