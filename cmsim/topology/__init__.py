"""How ranks are joined: the graph, where each rank sits, what each level carries, and derived totals."""

from cmsim.topology.crossings import Crossings
from cmsim.topology.graph import WIRINGS, between, build, check
from cmsim.topology.levels import Fabric, fabric
from cmsim.topology.paths import Paths, paths
from cmsim.topology.places import Places, places
from cmsim.topology.totals import Comparison, Total, comparison, totals

__all__ = [
    "WIRINGS",
    "Comparison",
    "Crossings",
    "Fabric",
    "Paths",
    "Places",
    "Total",
    "between",
    "build",
    "check",
    "comparison",
    "fabric",
    "paths",
    "places",
    "totals",
]
