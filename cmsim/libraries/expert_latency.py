"""Kernels for small batches: every copy of a token is a message of its own, written into the receiver's memory.

    T = base + expert E/p + between + join(join(T/b (token + element H), near), far)
    near = T k (m - 1)/p M / (port eta)       far = T k (1 - m/p) M / (nic eta')        m = p/N
    between = far_base + doubling log2(N/2), 0 in one domain       b = ceil(E / ceil(E / cores))

A rank scans its own E/p experts for arrivals, each from every sender, whatever the batch. The kernel starts a block of
threads for one expert, or for two where there are more experts than cores, so that b blocks share the tokens: with
few experts most cores idle. join(x, y) = (x^s + y^s)^(1/s).

Leaves out: the work that a hook lets run while bytes are under way; padding to the largest batch (its own copies are
not sent); ranks of one node on several NICs.
Source: DeepEP csrc/kernels/internode_ll.cu (blocks, layout); constants fitted, ``topologies/libraries``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.libraries.expert import Exchange, join

#: constants, with unit and starting value. Rates are shares of the port and of the NIC.
LATENCY_DEFAULTS: dict[str, float] = {
    "base_us": 10.0,
    "expert_us": 0.1,  # for each expert of the rank
    "far_us": 10.0,  # where NICs take part
    "doubling_us": 3.0,  # for each doubling of the domains beyond two
    "token_us": 0.5,  # a block's time for one token
    "element_us": 0.1,  # and for a thousand elements of it
    "near_rate": 0.55,
    "far_rate": 0.95,
    "sharp": 3.0,  # s
}


def latency_kernel_us(c: Mapping[str, float], at: Exchange, *, by_port: bool = True) -> Floats:
    """Time of a dispatch or combine by such kernels. [us]

    c: constants (``LATENCY_DEFAULTS``)    by_port: False where a release sends by NIC even inside a domain
    """
    per_block = np.ceil(at.experts / np.ceil(at.experts / at.blocks))
    inside = at.ranks / at.domains if by_port else np.ones_like(at.ranks)
    crosses = (at.ranks > inside) & (at.nic_Bps > 0)
    start = c["base_us"] + c["expert_us"] * at.experts / at.ranks
    start = start + np.where(crosses, c["far_us"] + c["doubling_us"] * np.log2(np.maximum(at.domains / 2.0, 1.0)), 0.0)
    tokens = at.tokens * at.busy
    work = tokens / per_block * (c["token_us"] + c["element_us"] * at.hidden / 1000.0)
    sent_B = tokens * at.copies * at.message_B
    near = sent_B * (inside - 1.0) / at.ranks / (at.port_Bps * 1e-6 * c["near_rate"])
    far = np.where(crosses, sent_B * (1.0 - inside / at.ranks), 0.0) / np.maximum(
        at.nic_Bps * 1e-6 * c["far_rate"], 1.0
    )
    return start + join(join(work, near, c["sharp"]), far, c["sharp"])
