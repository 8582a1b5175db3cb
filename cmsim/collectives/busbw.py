"""Bus bandwidth: algorithm bandwidth S/T made comparable with the port's one-way rate.

    busbw = factor S/T

    all-reduce                                                               factor 2 (p - 1)/p
    all-gather, reduce-scatter, all-to-all, scatter, gather, dispatch, combine      (p - 1)/p
    broadcast, reduce, send and receive                                             1
    barrier                                                                         0

Leaves out: in-network all-reduce, which can show more than the port's rate under this factor (``in_network``).
Source: nccl-tests doc/PERFORMANCE.md; dispatch and combine are counted as all-to-alls.
"""

from __future__ import annotations

import numpy as np

from cmsim.collectives.terms import COLLECTIVES, Column, others
from cmsim.errors import InputError, did_you_mean


def factor(collective: str, ranks: Column) -> Column:
    """What algorithm bandwidth is multiplied by. [1]

    collective: one of COLLECTIVES    ranks: p [1]

    >>> factor("all_reduce", 8)
    1.75
    """
    if collective not in COLLECTIVES:
        raise InputError(f"unknown collective {collective!r}. {did_you_mean(collective, COLLECTIVES)}")
    if collective == "all_reduce":
        return 2 * others(ranks)
    if collective in ("broadcast", "reduce", "send_recv"):
        return np.ones(np.shape(ranks))[()]
    if collective == "barrier":
        return np.zeros(np.shape(ranks))[()]
    return others(ranks)
