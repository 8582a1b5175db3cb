"""Kernels of serving engines inside one domain, in which ranks read and write each other's memory by loads and stores.

    T = base + doubling log2 p + T token + join(wire, local) + reduce
    wire = T D (p - 1)/p M / (port eta) (1 + crowd log2(p/16))       local = T k M / (memory eta_l)
    reduce = T k 2 H / (memory eta_r)                                combine alone

D: one copy to each rank. The two-sided form copies through queues: every one of the k copies, own ones too, passes the
rank's memory; the one-sided form writes to its place at once. Combine then adds k vectors of 16-bit elements. Prepare
works on lists of experts, not on tokens: T token stands alone. A constant that an operation lacks takes no part.

Leaves out: domains larger than the ports reach; how ranks wait for each other.
Source: TensorRT-LLM moeCommKernels and moeAlltoAllKernels (what is copied); constants fitted, ``topologies/libraries``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.libraries.expert import Exchange, join

#: constants, with unit and starting value. Rates are shares of the port and of the rank's memory.
DOMAIN_DEFAULTS: dict[str, float] = {
    "base_us": 10.0,
    "doubling_us": 1.5,
    "token_ns": 5.0,
    "rate": 0.7,
    "crowd": 0.05,  # for each doubling of the ranks beyond 16
    "local_rate": 0.3,
    "reduce_rate": 1.0,
    "sharp": 3.0,
}
#: ranks up to which the wire kept its rate
CALM_RANKS = 16.0


def domain_kernel_us(c: Mapping[str, float], at: Exchange) -> Floats:
    """Time of a dispatch, a combine, or what prepares them. [us]

    c: constants (``DOMAIN_DEFAULTS``); without ``rate`` nothing is sent, without ``reduce_rate`` nothing is added
    """
    tokens = at.tokens * at.busy
    memory = at.memory_Bps * 1e-6
    out: Floats = c["base_us"] + c["doubling_us"] * np.log2(at.ranks) + tokens * c.get("token_ns", 0.0) * 1e-3
    if "rate" in c:
        crowding = 1.0 + c["crowd"] * np.maximum(np.log2(at.ranks / CALM_RANKS), 0.0)
        sent_B = tokens * at.copies * (1.0 - 1.0 / at.ranks) * at.message_B
        local = tokens * at.top_k * at.message_B / (memory * c["local_rate"])
        out = out + join(sent_B / (at.port_Bps * 1e-6 * c["rate"]) * crowding, local, c["sharp"])
    if "reduce_rate" in c:
        out = out + tokens * at.top_k * 2.0 * at.hidden / (memory * c["reduce_rate"])
    return out
