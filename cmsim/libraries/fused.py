"""Measured-time model of the all-reduce kernels of serving engines, which bypass the library for small messages.

    T = base + peer (p - 1) + min((p - 1) S / (B one), two + 2 (p - 1)/p S / (B eta))          S up to a limit
    T = library + extra                                                                       beyond it

The one-shot form reads all peers' buffers, the two-shot form a share of each. Launched eagerly, the kernel ends no
earlier than the host is done with it: T = max(host, T), smoothly.

Leaves out: topologies where not all peers read each other directly.
Source: one-shot and two-shot as on the page ``direct``; constants fitted, see ``topologies/libraries``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.libraries.inside import Domain, inside_us

#: constants of a kernel, with unit and starting value. Rates are shares of the port.
FUSED_DEFAULTS: dict[str, float] = {
    "base_us": 4.0,
    "peer_us": 0.15,
    "one_rate": 0.6,
    "two_us": 3.0,
    "two_rate": 0.6,
    "limit_B": 8e6,
    "extra_us": 2.0,
    "host_us": 40.0,
}
_SHARP = 8.0


def fused_us(
    k: Mapping[str, float], c: Mapping[str, float], at: Domain, *, ranks: Floats, size_B: Floats, eager: Floats
) -> Floats:
    """Time of one all-reduce through a serving engine. [us]

    k: constants of the kernel (``FUSED_DEFAULTS``)    c, at: constants and rates of the domain (``inside``)
    ranks: p [1]    size_B: one rank's buffer [B]    eager: 1 where the host launches every call, 0 from a graph
    """
    port = at.port_Bps * 1e-6
    one = (ranks - 1.0) * size_B / (port * k["one_rate"])
    two = k["two_us"] + 2.0 * (ranks - 1.0) / ranks * size_B / (port * k["two_rate"])
    low = np.minimum(one, two)
    own = k["base_us"] + k["peer_us"] * (ranks - 1.0) + low
    library = k["extra_us"] + inside_us(
        c, at, collective="all_reduce", ranks=ranks, size_B=size_B, narrow=np.zeros(np.shape(ranks))
    )
    share = 1.0 / (1.0 + (k["limit_B"] / size_B) ** _SHARP)
    device = np.exp((1.0 - share) * np.log(own) + share * np.log(library))
    host = eager * k["host_us"]
    out: Floats = (device**_SHARP + host**_SHARP) ** (1.0 / _SHARP)
    return out
