"""What each level of a system carries, as plain numbers: what pricing and the fluid network use instead of the graph.

The graph is the reference: a test cuts it at every level and compares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cmsim.hardware import System
from cmsim.hardware.specs import FullMesh, MultiPlaneClos, Switched
from cmsim.topology.fat_tree import leaf_uplink_Bps
from cmsim.topology.places import leaf_ports_down
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


def fabric(system: System) -> Fabric:
    """The levels of a system, from its file alone; no graph is built."""
    spec, out = system.spec, system.spec.scale_out
    per_package = system.ranks_per_package
    oversubscribed = out.oversubscription > 1 and system.packages > leaf_ports_down(out)
    return Fabric(
        port_Bps=_package_GBps(system) * GIGA / per_package,
        uplink_Bps=_uplink_GBps(spec.scale_up) * GIGA,
        nic_Bps=out.nic_GBps * GIGA / per_package,
        leaf_Bps=leaf_uplink_Bps(out) if oversubscribed else math.inf,
        node_s=(spec.scale_up.node_us if isinstance(spec.scale_up, MultiPlaneClos) else spec.scale_up.domain_us) * US,
        domain_s=spec.scale_up.domain_us * US,
        cluster_s=out.cluster_us * US,
        ranks_per_node=spec.node.accelerators * per_package,
        ranks_per_domain=spec.accelerators * per_package,
        ranks_per_leaf=leaf_ports_down(out) * per_package,
        in_network_reduction=spec.scale_up.in_network_reduction,
    )


def _package_GBps(system: System) -> float:
    scale_up = system.spec.scale_up
    if isinstance(scale_up, MultiPlaneClos):
        return scale_up.planes * scale_up.lanes_per_accelerator * scale_up.lane_GBps
    if isinstance(scale_up, Switched):
        return scale_up.links_per_accelerator * scale_up.link_GBps
    peers = min(system.packages, system.spec.accelerators) - 1
    # an accelerator alone keeps the port that its idle links would give
    return scale_up.links_per_pair * scale_up.link_GBps * (peers or system.spec.accelerators - 1)


def _uplink_GBps(scale_up: MultiPlaneClos | Switched | FullMesh) -> float:
    if isinstance(scale_up, MultiPlaneClos):
        return scale_up.planes * scale_up.l2_chips_per_plane * scale_up.lane_GBps
    return math.inf
