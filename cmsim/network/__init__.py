"""Networks behind one protocol: a demand goes in, an event comes out."""

from collections.abc import Callable, Sequence

import simpy

from cmsim.network.demand import SHARE_ONE, Demand, Network, Segment
from cmsim.network.fire import fire
from cmsim.network.fluid import Fluid
from cmsim.network.ideal import Ideal

#: by the name a scenario uses
NETWORKS: dict[str, Callable[[simpy.Environment, Sequence[float]], Network]] = {"ideal": Ideal, "fluid": Fluid}

__all__ = ["NETWORKS", "SHARE_ONE", "Demand", "Fluid", "Ideal", "Network", "Segment", "fire"]
