"""Networks behind one protocol: a demand goes in, an event comes out."""

from collections.abc import Callable, Sequence

import simpy

from cmsim.network.core import Core
from cmsim.network.demand import SHARE_ONE, Demand, Network, Segment
from cmsim.network.fire import fire
from cmsim.network.flow import Flow
from cmsim.network.fluid import Fluid
from cmsim.network.ideal import Ideal
from cmsim.network.log import Log, Stretches
from cmsim.network.train import Ride, Train

#: by the name a scenario uses, made from the clock, capacities [B/s] and the times at which links change [ps]
NETWORKS: dict[str, Callable[[simpy.Environment, Sequence[float], Sequence[int]], Network]] = {
    "ideal": lambda env, capacity_Bps, _: Ideal(env, capacity_Bps),
    "fluid": lambda env, capacity_Bps, _: Fluid(env, capacity_Bps),
    "flow": Flow,
}

__all__ = [
    "NETWORKS",
    "SHARE_ONE",
    "Core",
    "Demand",
    "Flow",
    "Fluid",
    "Ideal",
    "Log",
    "Network",
    "Ride",
    "Segment",
    "Stretches",
    "Train",
    "fire",
]
