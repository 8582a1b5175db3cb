"""What no algorithm can beat on the wire: bytes that must move over the narrowest level a group spans."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmsim.collectives import Link, Rows, bandwidth_bound_B


def wire_bound_s(collective: str, rows: Rows, wire: Link) -> NDArray[np.float64]:
    """Bytes of the lower bound at line rate, no latency, no protocol. [s]

    Inside a domain they pass each member's port; between domains, the NICs of a domain's members together.
    """
    inside = np.minimum(rows.in_domain, rows.ranks)
    domains = -(-rows.ranks // inside)
    in_network = bool(np.all(wire.in_network))
    port_B = bandwidth_bound_B(collective, rows.ranks, rows.size_B, in_network=in_network)
    # Every member of an all-to-all has bytes of its own to send out; elsewhere members share the work.
    shared_by = np.ones_like(inside) if collective in ("all_to_all", "dispatch", "combine", "send_recv") else inside
    nic_B = bandwidth_bound_B(collective, domains, rows.size_B, in_network=False) / shared_by
    bound_s: NDArray[np.float64] = np.where(domains > 1, nic_B / wire.nic_Bps, port_B / wire.port_Bps)
    return bound_s
