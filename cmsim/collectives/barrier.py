"""Dissemination barrier: after a logarithm of rounds everyone has heard of everyone.

    T = ceil(log2 p) alpha

In round k every rank notifies the rank 2**k further on.

Leaves out: the wait for the last rank to arrive.
Source: Hensgen, Finkel and Manber, Int. J. Parallel Program. 17(1), 1-17, 1988, doi:10.1007/BF01379320.
"""

from __future__ import annotations

from cmsim.collectives.terms import Algorithm, Schedule, Send, ceil_log2, nothing

SOURCE = "Hensgen, Finkel and Manber 1988, doi:10.1007/BF01379320"


def dissemination_barrier(ranks: int) -> Schedule:
    """The notifications, which carry no bytes."""
    p = ranks
    return Schedule(1, [[Send(r, (r + 2**k) % p, ()) for r in range(p)] for k in range(int(ceil_log2(p)))])


BARRIER = (
    Algorithm(
        name="dissemination",
        collective="barrier",
        steps=ceil_log2,
        sent=nothing,
        reduced=nothing,
        outside=lambda p, b: 0.0 * (p + b),
        schedule=dissemination_barrier,
        source=SOURCE,
    ),
)
