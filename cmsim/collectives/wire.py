"""What no algorithm can beat on the wire: bytes that must cross the narrowest level of those a group spans."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.collectives.bounds import bandwidth_bound_B, cut_bound_B
from cmsim.collectives.rows import Link, Rows


class WireBound(NamedTuple):
    """Least times of calls at line rate, no latency, no protocol; each bounds the call alone. [s]

    port_s       through one member's own port, and its NIC where the group spans domains
    nic_s        between domains, through the NICs of those members that one domain holds
    bisection_s  out of a node inside its domain, and through a leaf of the scale-out network
    """

    port_s: Floats
    nic_s: Floats
    bisection_s: Floats


def wire_bound_s(collective: str, rows: Rows, wire: Link) -> WireBound:
    """Bytes of the lower bound over what each level carries; 0 where a group lies below the level. [s]"""
    ranks, size_B = rows.ranks, rows.size_B
    in_domain = np.minimum(rows.in_domain, ranks)
    apart = in_domain < ranks
    ways_Bps = wire.port_Bps + np.where(apart, wire.nic_Bps, 0.0)
    port_B = bandwidth_bound_B(collective, ranks, size_B, in_network=bool(np.any(wire.in_network)))
    in_node, in_leaf = np.minimum(rows.in_node, ranks), np.minimum(rows.in_leaf, ranks)
    # a node's ranks leave by its uplink, and by their NICs where others stand in another domain
    uplink_Bps = wire.uplink_Bps + np.where(apart, in_node * wire.nic_Bps, 0.0)
    bisection_s = np.maximum(
        cut_bound_B(collective, in_node, ranks, size_B) / uplink_Bps,
        cut_bound_B(collective, in_leaf, ranks, size_B) / wire.leaf_Bps,
    )
    nic_s = cut_bound_B(collective, in_domain, ranks, size_B) / (in_domain * wire.nic_Bps)
    return WireBound(_filled(port_B / ways_Bps, ranks), _filled(nic_s, ranks), _filled(bisection_s, ranks))


def _filled(values: Floats | float, ranks: NDArray[np.int64]) -> Floats:
    out: Floats = np.broadcast_to(np.asarray(values, np.float64), ranks.shape)
    return out
