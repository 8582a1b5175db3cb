"""Fused kernels on one fabric of dies: each die writes every copy straight to its peer while the vector cores pack.

    T = base + (p - 1)/p T (k + s) M / (port eta) (1 + crowd log2 p)

s: shared experts with places of their own, one more destination each. Packing costs more than the wire, and with every
doubling of the ranks a little more of the bytes' time is lost; a call of a few tokens costs little more than base.

Leaves out: what limits the bytes, cores or wire (no row tells them apart); batches above those measured.
Source: arXiv:2506.12708 section 4.2 (what is sent) and table 7, arXiv:2508.02520 (a batch of 4); constants fitted,
``topologies/libraries``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.libraries.expert import Exchange

#: constants, with unit and starting value; the rate is a share of the port
FUSED_EXCHANGE_DEFAULTS: dict[str, float] = {"base_us": 20.0, "rate": 0.5, "crowd": 0.05}


def fused_exchange_us(c: Mapping[str, float], at: Exchange) -> Floats:
    """Time of a fused dispatch or combine. [us]

    c: constants (``FUSED_EXCHANGE_DEFAULTS``)
    """
    sent_B = at.tokens * at.busy * at.copies * at.message_B * (1.0 - 1.0 / at.ranks)
    crowding = 1.0 + c["crowd"] * np.log2(at.ranks)
    out: Floats = c["base_us"] + sent_B / (at.port_Bps * 1e-6 * c["rate"]) * crowding
    return out
