"""Where each rank sits. Ranks fill packages, nodes, racks, domains and leaves in order, without gaps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.hardware import System
from cmsim.hardware.specs import ScaleOut

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """One entry per rank; numbers run over the whole system, so equal numbers mean the same thing."""

    package: Index
    node: Index
    rack: Index
    domain: Index
    leaf: Index
    packages: int
    nodes: int
    racks: int
    domains: int
    leaves: int

    @property
    def ranks(self) -> int:
        return len(self.package)


def places(system: System) -> Places:
    """Contiguous placement of the ranks of a system.

    Racks that hold only switches are not counted; where a domain fills less than one rack, domains share it.
    """
    spec = system.spec
    package = np.arange(system.ranks, dtype=np.int64) // system.ranks_per_package
    node = package // spec.node.accelerators
    domain = package // spec.accelerators
    nodes_per_domain = spec.accelerators // spec.node.accelerators
    nodes_per_rack = nodes_per_domain / (spec.compute_racks or spec.racks)
    # 1e-9: a node that begins exactly at a rack's edge must not fall back into the rack before
    rack = np.floor(node / nodes_per_rack + 1e-9).astype(np.int64)
    leaf = package // leaf_ports_down(spec.scale_out)
    return Places(
        package=package,
        node=node,
        rack=rack,
        domain=domain,
        leaf=leaf,
        packages=system.packages,
        nodes=system.nodes,
        racks=int(rack[-1]) + 1,
        domains=system.domains,
        leaves=int(leaf[-1]) + 1,
    )


def leaf_ports_down(spec: ScaleOut) -> int:
    """NICs that one leaf serves. [1]

    >>> from types import SimpleNamespace
    >>> leaf_ports_down(SimpleNamespace(switch_ports=64, oversubscription=1.0))
    32
    >>> leaf_ports_down(SimpleNamespace(switch_ports=64, oversubscription=3.0))
    48
    """
    o = spec.oversubscription
    return max(1, min(spec.switch_ports - 1, math.floor(spec.switch_ports * o / (1 + o) + 1e-9)))
