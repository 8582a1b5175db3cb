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
from cmsim.collectives.terms import Algorithm, Column, nothing, others

SOURCE = "fitted form: DeepEP docs/legacy.md; arXiv:2506.12708"


def dispatch_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of a dispatch, or of a combine. [s]

    T = log2(p) alpha + (p - 1)/p S/B
    ranks: p [1]    size_B: S, what a rank sends, own share included [B]
    alpha_s: software cost of each doubling of the ranks [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> float(dispatch_s(4, 400.0, alpha_s=1.0, bandwidth_Bps=100.0))
    5.0
    """
    return np.log2(ranks) * alpha_s + others(ranks) * size_B / bandwidth_Bps


def exchange_v_s(matrix_B: Column, *, alpha_s: float, bandwidth_Bps: float) -> float:
    """Time of a dispatch given who sends how much to whom. [s]

    T = log2(p) alpha + max_i max(sent_i, received_i) / B.  For the combine, hand over the transpose.
    matrix_B: bytes from row to column; the diagonal stays home [B]
    alpha_s: software cost of each doubling of the ranks [s]    bandwidth_Bps: B [B/s]

    >>> exchange_v_s([[50, 100], [300, 0]], alpha_s=1.0, bandwidth_Bps=100.0)
    4.0
    """
    matrix = np.array(matrix_B, dtype=np.float64)
    np.fill_diagonal(matrix, 0.0)
    busiest = float(np.maximum(matrix.sum(axis=0), matrix.sum(axis=1)).max())
    return float(np.log2(len(matrix))) * alpha_s + busiest / bandwidth_Bps


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
