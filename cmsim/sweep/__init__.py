"""Many points of a scenario, over processes or a Dask cluster, into a folder that a killed sweep goes on from."""

from cmsim.sweep.sweep import Standing, sweep

__all__ = ["Standing", "sweep"]
