"""How ranks are joined: the graph, where each rank sits, what each level carries, and derived totals."""

from cmsim.topology.crossings import Crossings, Paths
from cmsim.topology.faults import drawn
from cmsim.topology.graph import between, build, check
from cmsim.topology.levels import Fabric, fabric
from cmsim.topology.paths import paths
from cmsim.topology.places import Places, places
from cmsim.topology.powered import Powered, powered
from cmsim.topology.sketch import Sketch, sketch
from cmsim.topology.totals import Comparison, Total, comparison, totals
from cmsim.topology.wirings import WIRINGS, wiring

__all__ = [
    "WIRINGS",
    "Comparison",
    "Crossings",
    "Fabric",
    "Paths",
    "Places",
    "Powered",
    "Sketch",
    "Total",
    "between",
    "build",
    "check",
    "comparison",
    "drawn",
    "fabric",
    "paths",
    "places",
    "powered",
    "sketch",
    "totals",
    "wiring",
]
