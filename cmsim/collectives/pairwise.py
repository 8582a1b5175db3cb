"""Pairwise exchange: an all-to-all with one peer at a time.

    all-to-all    T = (p - 1) alpha + (p - 1)/p S/B
    all-to-all-v  T = (p - 1) alpha + sum_k max_i n[i, i + k] / B

In step k, rank i sends to i + k and receives from i - k, so no port is shared and there is no incast. With unequal
blocks each step waits for its largest, which can never be faster than the row and column sums of
``all_to_all_v_bound_s``.

Leaves out: that steps may drift apart when nobody waits for the slowest pair.
Source: HCCL coll_algo_intro Pairwise.md; Thakur et al. 2005, doi:10.1177/1094342005051521.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmsim.collectives.direct import direct_outside
from cmsim.collectives.terms import Algorithm, Column, Schedule, Send, nothing, others

SOURCE = "HCCL coll_algo_intro Pairwise.md"


def pairwise_all_to_all_s(ranks: Column, size_B: Column, *, alpha_s: Column, bandwidth_Bps: Column) -> Column:
    """Time of a pairwise all-to-all of equal blocks. [s]

    T = (p - 1) alpha + (p - 1)/p S/B
    ranks: p [1]    size_B: S, what a rank sends, own block included [B]    alpha_s: fixed cost of a step [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> pairwise_all_to_all_s(4, 400.0, alpha_s=1.0, bandwidth_Bps=100.0)
    6.0
    """
    return (ranks - 1) * alpha_s + others(ranks) * size_B / bandwidth_Bps


def pairwise_all_to_all_v_s(matrix_B: Any, *, alpha_s: float, bandwidth_Bps: float) -> float:
    """Time of a pairwise all-to-all of unequal blocks. [s]

    T = (p - 1) alpha + sum_k max_i n[i, i + k] / B
    matrix_B: n, bytes from row to column; the diagonal stays home [B]    alpha_s: fixed cost of a step [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> pairwise_all_to_all_v_s([[0, 100], [300, 0]], alpha_s=1.0, bandwidth_Bps=100.0)
    4.0
    """
    matrix = np.asarray(matrix_B, dtype=np.float64)
    ranks = len(matrix)
    rank = np.arange(ranks)
    slowest = sum(float(matrix[rank, (rank + k) % ranks].max()) for k in range(1, ranks))
    return (ranks - 1) * alpha_s + slowest / bandwidth_Bps


def all_to_all_v_bound_s(matrix_B: Any, *, bandwidth_Bps: float) -> float:
    """The least time of an all-to-all of unequal blocks on a crossbar. [s]

    max_i max(sum_j n[i, j], sum_j n[j, i]) / B without the diagonal; one-step exchange reaches it
    matrix_B: n, bytes from row to column [B]    bandwidth_Bps: B, one direction of one rank's port [B/s]

    >>> all_to_all_v_bound_s([[0, 100], [300, 0]], bandwidth_Bps=100.0)
    3.0
    """
    matrix = np.array(matrix_B, dtype=np.float64)
    np.fill_diagonal(matrix, 0.0)
    return float(max(matrix.sum(axis=0).max(), matrix.sum(axis=1).max())) / bandwidth_Bps


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
