"""Dispatch and combine: the two fused exchanges of a mixture of experts.

    T = log2(p) alpha + (p - 1)/p S/B

Every rank sends to every rank at once, as in the direct all-to-all. S is what a rank sends to all experts, its own
share included; for unequal shares, S is the largest of any rank's sent and received bytes. Measured fused kernels
grow by about the same time with every doubling of the ranks, however small the blocks, so the coefficient of alpha is
log2(p): a fitted form, not a count of steps. Combine is dispatch with sender and receiver exchanged.

Leaves out: duplicates saved by sending a token once per rank or node, count exchange, and imbalance (they are in S).
Source: fitted to the tables of DeepEP (docs/legacy.md) and arXiv:2506.12708; the row and column bound of
Chan et al. 2007, doi:10.1002/cpe.1206.
"""

from __future__ import annotations

import numpy as np

from cmsim.collectives.direct import direct_all_to_all, direct_outside
from cmsim.collectives.terms import Algorithm, nothing, others

SOURCE = "fitted form: DeepEP docs/legacy.md; arXiv:2506.12708"


EXPERT = tuple(
    Algorithm(
        name="expert",
        collective=collective,
        steps=np.log2,
        sent=others,
        reduced=nothing,
        outside=direct_outside,
        schedule=direct_all_to_all,
        source=SOURCE,
    )
    for collective in ("dispatch", "combine")
)
