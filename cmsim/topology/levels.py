"""What each level of a system carries, as plain numbers: what pricing and the fluid network use instead of the graph.

The graph is the reference: a test cuts it at every level and compares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cmsim.hardware import System
from cmsim.hardware.specs import Custom, Dimensions, FullMesh, MultiPlaneClos, ScaleUp, Switched
from cmsim.topology import shortest
from cmsim.topology.fat_tree import leaf_uplink_Bps
from cmsim.topology.grid import Grid, dims
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
    #: where a rank's port is many links that lead different ways
    grid: Grid | None = None


def fabric(system: System) -> Fabric:
    """The levels of a system, from its file alone; no graph is built."""
    spec, out = system.spec, system.spec.scale_out
    per_package = system.ranks_per_package
    oversubscribed = out.oversubscription > 1 and system.packages > leaf_ports_down(out)
    node_s, domain_s = _latencies_s(system)
    return Fabric(
        port_Bps=_port_Bps(system),
        uplink_Bps=_uplink_GBps(spec.scale_up) * GIGA,
        nic_Bps=out.nic_GBps * GIGA / per_package,
        leaf_Bps=leaf_uplink_Bps(out) if oversubscribed else math.inf,
        node_s=node_s,
        domain_s=domain_s,
        cluster_s=out.cluster_us * US,
        ranks_per_node=spec.node.accelerators * per_package,
        ranks_per_domain=spec.accelerators * per_package,
        ranks_per_leaf=leaf_ports_down(out) * per_package,
        in_network_reduction=spec.scale_up.in_network_reduction,
        grid=_grid(system),
    )


def _port_Bps(system: System) -> float:
    """All links of a rank into its domain; of the rank that has least, where a table says. [B/s]"""
    scale_up, per_package = system.spec.scale_up, system.ranks_per_package
    if isinstance(scale_up, MultiPlaneClos):
        return scale_up.planes * scale_up.lanes_per_accelerator * scale_up.lane_GBps * GIGA / per_package
    if isinstance(scale_up, Switched):
        return scale_up.links_per_accelerator * scale_up.link_GBps * GIGA / per_package
    if isinstance(scale_up, FullMesh):
        peers = min(system.packages, system.spec.accelerators) - 1
        # an accelerator alone keeps the port that its idle links would give
        links = scale_up.links_per_pair * (peers or system.spec.accelerators - 1)
        return links * scale_up.link_GBps * GIGA / per_package
    if isinstance(scale_up, Dimensions):
        used = sum(dim.port_Bps for dim in dims(system))
        return used or max(one.links * one.link_GBps for one in scale_up.dimensions.values()) * GIGA
    ranks = system.spec.accelerators * per_package
    graph = shortest.graph(system.links, ranks)
    return float(np.bincount(graph.start, graph.capacity_Bps)[:ranks].min())


def _latencies_s(system: System) -> tuple[float, float]:
    """Between the two ranks of a node, and of a domain, that are farthest apart. [s]"""
    scale_up, per_node = system.spec.scale_up, system.spec.node.accelerators * system.ranks_per_package
    if isinstance(scale_up, MultiPlaneClos):
        return scale_up.node_us * US, scale_up.domain_us * US
    if isinstance(scale_up, Switched | FullMesh):
        return scale_up.domain_us * US, scale_up.domain_us * US
    if isinstance(scale_up, Dimensions):
        used = dims(system)
        domain_s = sum(dim.most_hops * dim.hop_s for dim in used)
        # a node is a run of neighbours along the inner dimensions
        node_s, left = 0.0, per_node
        for dim in used:
            along = min(dim.size, left)
            node_s += min(dim.most_hops, along - 1) * dim.hop_s
            left = max(left // dim.size, 1)
        # of nodes of one rank: the nearest neighbour
        return node_s or min((dim.hop_s for dim in used), default=0.0), domain_s
    ranks = system.spec.accelerators * system.ranks_per_package
    path_s = shortest.latency_s(shortest.graph(system.links, ranks).distance())[:ranks, :ranks]
    near = [path_s[i : i + per_node, i : i + per_node].max() for i in range(0, ranks, per_node)]
    return float(max(near)) or float(path_s[path_s > 0].min(initial=path_s.max())), float(path_s.max())


def _grid(system: System) -> Grid | None:
    scale_up, per_node = system.spec.scale_up, system.spec.node.accelerators * system.ranks_per_package
    if isinstance(scale_up, Dimensions | FullMesh):
        return Grid(dims(system), per_node)
    if isinstance(scale_up, Custom):
        pairs, to_next = shortest.measured(system.links, system.spec.accelerators * system.ranks_per_package)
        return Grid((), per_node, pairs, to_next, _latencies_s(system)[1])
    return None


def _uplink_GBps(scale_up: ScaleUp) -> float:
    if isinstance(scale_up, MultiPlaneClos):
        return scale_up.planes * scale_up.l2_chips_per_plane * scale_up.lane_GBps
    return math.inf
