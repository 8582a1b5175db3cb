"""What each level of a system carries, as plain numbers: what pricing and the fluid network use instead of the graph.

The graph is the reference: a test cuts it at every level and compares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cmsim.hardware import System
from cmsim.topology.fat_tree import leaf_uplink_Bps
from cmsim.topology.grid import Grid
from cmsim.topology.places import leaf_ports_down
from cmsim.topology.wirings import wiring
from cmsim.units import GIGA, US


@dataclass(frozen=True)
class Fabric:
    """Capacities of one direction [B/s] and small-message latencies [s] by level.

    ``port_Bps`` is one rank's port inside its domain, ``uplink_Bps`` one node's way out of the node inside the
    domain (infinite where all ranks hang on one tier), ``nic_Bps`` one rank's share of its package's NIC and
    ``leaf_Bps`` one leaf's way into the spines (infinite without oversubscription). A latency is that between two
    ranks whose nearest common level is the node, the domain or the cluster.
    """

    port_Bps: float
    uplink_Bps: float
    nic_Bps: float
    leaf_Bps: float
    node_s: float
    domain_s: float
    cluster_s: float
    ranks_per_node: int
    ranks_per_domain: int
    ranks_per_leaf: int
    in_network_reduction: bool
    #: where a rank's port is many links that lead different ways
    grid: Grid | None = None


def fabric(system: System) -> Fabric:
    """The levels of a system, from its file alone; no graph is built."""
    spec, out = system.spec, system.spec.scale_out
    per_package = system.ranks_per_package
    oversubscribed = out.oversubscription > 1 and system.packages > leaf_ports_down(out)
    inside = wiring(system).levels(system, spec.scale_up)
    return Fabric(
        port_Bps=inside.port_Bps,
        uplink_Bps=inside.uplink_Bps,
        nic_Bps=out.nic_GBps * GIGA / per_package,
        leaf_Bps=leaf_uplink_Bps(out) if oversubscribed else math.inf,
        node_s=inside.node_s,
        domain_s=inside.domain_s,
        cluster_s=out.cluster_us * US,
        ranks_per_node=spec.node.accelerators * per_package,
        ranks_per_domain=spec.accelerators * per_package,
        ranks_per_leaf=leaf_ports_down(out) * per_package,
        in_network_reduction=spec.scale_up.in_network_reduction,
        grid=inside.grid,
    )
