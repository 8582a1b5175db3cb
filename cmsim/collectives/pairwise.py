"""Pairwise exchange: an all-to-all with one peer at a time.

    all-to-all    T = (p - 1) alpha + (p - 1)/p S/B
    all-to-all-v  T = (p - 1) alpha + sum_k max_i n[i, i + k] / B

In step k, rank i sends to i + k and receives from i - k, so no port is shared and there is no incast. With unequal
blocks each step waits for its largest, which can never be faster than the row and column sums.

Leaves out: that steps may drift apart when nobody waits for the slowest pair.
Source: HCCL coll_algo_intro Pairwise.md; Thakur et al. 2005, doi:10.1177/1094342005051521.
"""

from __future__ import annotations

from cmsim.collectives.direct import direct_outside
from cmsim.collectives.terms import Algorithm, Schedule, Send, nothing, others

SOURCE = "HCCL coll_algo_intro Pairwise.md"


def pairwise_all_to_all(ranks: int) -> Schedule:
    """The sends: in step k, my block for rank i + k."""
    p = ranks
    return Schedule(p, [[Send(r, (r + k) % p, (r * p + (r + k) % p,)) for r in range(p)] for k in range(1, p)])


PAIRWISE = (
    Algorithm(
        name="pairwise",
        collective="all_to_all",
        steps=lambda p: p - 1,
        sent=others,
        reduced=nothing,
        outside=direct_outside,
        schedule=pairwise_all_to_all,
        source=SOURCE,
    ),
)
