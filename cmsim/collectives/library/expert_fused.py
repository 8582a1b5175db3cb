"""Fused kernels on one fabric of dies: each die writes every copy straight to its peer while the vector cores pack.

    T = base + doubling log2 p + (p - 1)/p T (k + s) M / (port eta)

s: shared experts with places of their own, one more destination each. The doubling stands for what grows with the
peers at a fixed batch (flags, partial waits); it is a fitted form, not a count of steps.

Leaves out: batches much smaller than those measured (128 tokens of a rank), whose share of the base is unknown.
Source: arXiv:2506.12708 section 4.2 (what is sent) and table 7; constants fitted, ``topologies/libraries``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.collectives.library.expert import Exchange, Floats

#: constants, with unit and starting value; the rate is a share of the port
FUSED_EXCHANGE_DEFAULTS: dict[str, float] = {"base_us": 30.0, "doubling_us": 6.0, "rate": 0.7}


def fused_exchange_us(c: Mapping[str, float], at: Exchange) -> Floats:
    """Time of a fused dispatch or combine. [us]

    c: constants (``FUSED_EXCHANGE_DEFAULTS``)
    """
    sent_B = at.tokens * at.busy * at.copies * at.message_B * (1.0 - 1.0 / at.ranks)
    out: Floats = c["base_us"] + c["doubling_us"] * np.log2(at.ranks) + sent_B / (at.port_Bps * 1e-6 * c["rate"])
    return out
