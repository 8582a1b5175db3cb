"""Python files as data: worked out on the syntax tree, nothing is imported or run."""

from cmsim.launch.python.things import Thing, Unsure
from cmsim.launch.python.values import Values

__all__ = ["Thing", "Unsure", "Values"]
