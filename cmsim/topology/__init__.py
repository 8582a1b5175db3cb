"""How ranks are joined: the graph, where each rank sits, what each level carries, and derived totals."""

from cmsim.topology.graph import WIRINGS, between, build, check
from cmsim.topology.levels import Fabric, fabric
from cmsim.topology.places import Places, places
from cmsim.topology.totals import Comparison, Total, comparison, totals

__all__ = [
    "WIRINGS",
    "Comparison",
    "Fabric",
    "Places",
    "Total",
    "between",
    "build",
    "check",
    "comparison",
    "fabric",
    "places",
    "totals",
]
