"""Where exchanges of experts were measured, and what is said of calls that lie elsewhere.

As ``reach`` for collectives: a profile's ``rows`` are ranges of ranks and tokens on an accelerator.
"""

from __future__ import annotations

from itertools import compress

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.libraries.expert_data import ExpertProfile
from cmsim.libraries.reach import outside

#: what may lie outside, in the order in which a note says it; bits of ``expert_reach``
EXPERT_WAYS = ("other accelerator", "ranks", "tokens")


def expert_reach(profile: ExpertProfile, accelerator: str, *, ranks: Floats, tokens: Floats) -> NDArray[np.int8]:
    """For every call 0 where it lies inside what was measured, else a sum of 2^i over the ``EXPERT_WAYS``. [1]

    ranks, tokens: p, T of one rank [1]
    """
    best = np.full(len(ranks), 7, np.int8)
    for one in profile.rows:
        ways = outside(ranks, one.ranks) * np.int8(2)
        ways += outside(tokens, one.tokens) * np.int8(4)
        if accelerator != one.of:
            ways += np.int8(1)
        np.minimum(best, ways, out=best)
    return best


def expert_note(kernel: str, profile: ExpertProfile, ways: int) -> str:
    """What is said of a call, "" where it lies inside what was measured.

    kernel: what the profile is called    ways: of ``expert_reach``
    """
    if not ways:
        return ""
    said = ", ".join(compress(EXPERT_WAYS, [ways >> bit & 1 for bit in range(len(EXPERT_WAYS))]))
    ranges = (f"{_span(*one.ranks)} ranks, {_span(*one.tokens)} tokens of a rank on {one.of}" for one in profile.rows)
    return f"{kernel}: extrapolated ({said}); measured: {'; '.join(ranges) or 'nothing'}"


def _span(low: float, high: float) -> str:
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
