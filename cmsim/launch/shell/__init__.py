"""Shell scripts walked through without running them."""

from cmsim.launch.shell.run import Shell, Started
from cmsim.launch.shell.values import Said, is_unknown, shown, unknowns

__all__ = ["Said", "Shell", "Started", "is_unknown", "shown", "unknowns"]
