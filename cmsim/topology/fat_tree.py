"""The scale-out network: leaf switches that serve NICs, and spines that join the leaves.

A leaf of k ports at oversubscription o has ``k o / (1 + o)`` ports down and the rest up, so that down over up is
o; at o = 1 half of the ports serve NICs and nothing is lost above. NICs fill leaves in the order of their
packages. Real clusters often give every rail of a node its own leaf; for traffic spread over all NICs the
capacities are the same.

Two tiers reach ``k^2 / 2`` NICs at o = 1. Beyond that a spine of this graph stands for the tiers above the
leaves: capacities hold, but switches are undercounted.
"""

from __future__ import annotations

import math
from typing import Any

from cmsim.hardware import System
from cmsim.hardware.specs import ScaleOut
from cmsim.topology.links import add_node, join
from cmsim.topology.places import leaf_ports_down, places
from cmsim.units import GIGA, US


def leaf_uplink_Bps(spec: ScaleOut) -> float:
    """What one leaf sends into the spines, one direction: its NICs' rate over the oversubscription. [B/s]"""
    return leaf_ports_down(spec) * spec.nic_GBps * GIGA / spec.oversubscription


def counts(spec: ScaleOut, *, nics: int) -> tuple[int, int]:
    """(leaves, spines) that serve so many NICs; no spine where one leaf is enough. [1]

    >>> from types import SimpleNamespace
    >>> counts(SimpleNamespace(switch_ports=64, oversubscription=1.0), nics=384)
    (12, 6)
    """
    down = leaf_ports_down(spec)
    leaves = -(-nics // down)
    up = down / spec.oversubscription
    return leaves, 0 if leaves == 1 else math.ceil(leaves * up / spec.switch_ports - 1e-9)


def shares(spec: ScaleOut, *, nics: int) -> float:
    """Switches that so many NICs account for in a large cluster, whose leaves and spines others fill too. [1]

    >>> from types import SimpleNamespace
    >>> shares(SimpleNamespace(switch_ports=64, oversubscription=1.0), nics=8)
    0.375
    """
    return nics / leaf_ports_down(spec) + nics / spec.oversubscription / spec.switch_ports


def wire(graph: Any, system: System) -> None:
    """Add NICs, leaves and spines; the ranks are already nodes of the graph."""
    spec = system.spec.scale_out
    nic_Bps = spec.nic_GBps * GIGA
    down = leaf_ports_down(spec)
    leaves, spines = counts(spec, nics=system.packages)
    spine_s = _spine_s(spec)
    end_s = (spec.cluster_us * US - 2 * spine_s) / 4

    for leaf in range(leaves):
        add_node(graph, ("leaf", leaf))
    for spine in range(spines):
        add_node(graph, ("spine", spine))
        for leaf in range(leaves):
            join(
                graph,
                ("leaf", leaf),
                ("spine", spine),
                capacity_Bps=leaf_uplink_Bps(spec) / spines,
                latency_s=spine_s,
                tier="spine",
                lanes=down / spec.oversubscription / spines,
            )
    for package in range(system.packages):
        nic = ("nic", package)
        add_node(graph, nic)
        join(graph, nic, ("leaf", package // down), capacity_Bps=nic_Bps, latency_s=end_s, tier="leaf")
    share_Bps = nic_Bps / system.ranks_per_package
    for rank, package in enumerate(places(system).package.tolist()):
        join(graph, ("rank", rank), ("nic", package), capacity_Bps=share_Bps, latency_s=end_s, tier="nic")


def latencies_s(spec: ScaleOut) -> tuple[float, float]:
    """Between ranks under one leaf, and under two. [s]"""
    cluster_s = spec.cluster_us * US
    return cluster_s - 2 * _spine_s(spec), cluster_s


def _spine_s(spec: ScaleOut) -> float:
    """Up to a spine: the two switches above the leaves take their share; the rest is NIC and software, at both ends."""
    return min(spec.switch_us, spec.cluster_us / 4) * US
