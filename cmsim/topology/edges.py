"""Capacity of every link as tables, tier by tier: what a page of a fabric with tiers fills in, and faults change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cmsim.arrays import Floats
from cmsim.hardware import System
from cmsim.topology import fat_tree
from cmsim.units import GIGA


@dataclass(frozen=True)
class Edges:
    """Capacity of every link by tier, one direction; the way back is alike. [B/s]

    port     rank to the first (or only) switch chip of each plane, shape (ranks, planes)
    uplink   first-tier chip of (node, plane) to each second-tier chip, shape (nodes, planes, chips); chips may be 0
    mesh     rank to each member of its domain, 0 to itself, shape (ranks, domain); empty where there are switches
    nic      rank to its package's NIC, shape (ranks,)
    leaf     NIC to its leaf, shape (packages,)
    spine    leaf to each spine, shape (leaves, spines); spines may be 0
    """

    port: Floats
    uplink: Floats
    mesh: Floats
    nic: Floats
    leaf: Floats
    spine: Floats

    def scaled(self, *, scale_up: float, scale_out: float) -> Edges:
        """The same with a payload share of what the wires carry, inside domains and between them. [1]"""
        inside = {name: getattr(self, name) * scale_up for name in ("port", "uplink", "mesh")}
        return replace(self, **inside, **{name: getattr(self, name) * scale_out for name in ("nic", "leaf", "spine")})


def edges(
    system: System, *, port: Floats | None = None, uplink: Floats | None = None, mesh: Floats | None = None
) -> Edges:
    """Links inside domains as given (default none), and those of the scale-out network, whole. [B/s]"""
    out, ranks = system.spec.scale_out, system.ranks
    leaves, spines = fat_tree.counts(out, nics=system.packages)
    nic_Bps = out.nic_GBps * GIGA
    return Edges(
        port=np.zeros((ranks, 0)) if port is None else port,
        uplink=np.zeros((system.nodes, 0, 0)) if uplink is None else uplink,
        mesh=np.zeros((ranks, 0)) if mesh is None else mesh,
        nic=np.full(ranks, nic_Bps / system.ranks_per_package),
        leaf=np.full(system.packages, nic_Bps),
        spine=np.full((leaves, spines), fat_tree.leaf_uplink_Bps(out) / spines if spines else 0.0),
    )
