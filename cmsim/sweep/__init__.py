"""Many points of a scenario, over processes or a Dask cluster, into a folder that a killed sweep goes on from."""

from cmsim.sweep.standing import Standing
from cmsim.sweep.sweep import sweep
from cmsim.sweep.trials import study

__all__ = ["Standing", "study", "sweep"]
