"""Kernels for large batches: a token goes once to each rank of a domain, or once to each domain, which fans it out.

    T = L + W                                                  L = base + hidden H                    one domain
    T = L + W + 2 q sqrt(L W/(1 + W/(3 L)))                    L = base + hidden H + doubling log2 N  several
    W = join(join(T w / n^a, near), far)
    w = token + element H + D (copy + copy_element H) + D_far far_copy          n: cores that the kernel was given
    near = T D (p - 1)/p M / (port eta)       far = T D_far M / (nic eta') crowding

A core takes w for each token: reads it once, writes D copies; half of the cores send, half receive. Cores bind where
there are few, links where there are many. Beyond four domains the NICs were seen to crowd,

    crowding = 1 + crowd log2(N/4) / (1 + (from / T)^3)

which is a property of the cluster as much as of the kernel.

Leaves out: the layout kernel and the exchange of counts before a first dispatch; tuning of chunks.
Source: DeepEP csrc/kernels/intranode.cu and internode.cu (what is sent how often); constants fitted,
``topologies/libraries``; near: DeepEP docs/legacy.md, 153 to 158 of 200 GB/s.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.libraries.expert import Exchange, join

#: constants, with unit and starting value; times of a core are those of one core alone
BULK_DEFAULTS: dict[str, float] = {
    "base_us": 30.0,
    "hidden_us": 0.5,  # for a thousand elements
    "token_us": 0.15,
    "element_us": 0.03,  # for a thousand elements
    "copy_us": 0.25,
    "copy_element_us": 0.015,
    "core_power": 0.95,  # a
    "near_rate": 0.8,
    "sharp": 5.0,
}
#: those of the kernels between domains beside
BULK_FAR_DEFAULTS: dict[str, float] = {
    "doubling_us": 5.0,  # for each doubling of the domains
    "far_copy_us": 0.6,
    "far_rate": 0.95,
    "crowd": 1.5,
    "crowd_tokens": 1000.0,
    "fill": 0.2,  # q
}
#: domains beyond which NICs were seen to crowd
CALM_DOMAINS = 4.0


def bulk_kernel_us(c: Mapping[str, float], at: Exchange) -> Floats:
    """Time of a dispatch or combine by such kernels. [us]

    c: constants (``BULK_DEFAULTS``, and ``BULK_FAR_DEFAULTS`` where calls span several domains)
    """
    thousands = at.hidden / 1000.0
    tokens = at.tokens * at.busy
    start = c["base_us"] + c["hidden_us"] * thousands
    work = c["token_us"] + c["element_us"] * thousands + at.copies * (c["copy_us"] + c["copy_element_us"] * thousands)
    if "far_rate" in c:
        start = start + c["doubling_us"] * np.log2(at.domains)
        work = work + c["far_copy_us"] * at.far_copies
    cores = tokens * work / at.sms ** c["core_power"]
    near = tokens * at.copies * (1.0 - 1.0 / at.ranks) * at.message_B / (at.port_Bps * 1e-6 * c["near_rate"])
    wire = join(cores, near, c["sharp"])
    if "far_rate" in c:
        many = c["crowd"] * np.maximum(np.log2(at.domains / CALM_DOMAINS), 0.0)
        crowding = 1.0 + many / (1.0 + (c["crowd_tokens"] / tokens) ** 3)
        far = tokens * at.far_copies * at.message_B / np.maximum(at.nic_Bps * 1e-6 * c["far_rate"], 1.0) * crowding
        wire = join(wire, far, c["sharp"])
        wire = wire + 2.0 * c["fill"] * np.sqrt(start * wire / (1.0 + wire / (3.0 * start)))
    out: Floats = start + wire
    return out
