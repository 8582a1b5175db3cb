"""Whole things on the busiest rank: a sequence, a sample, a token, a head or a column lies on one rank, never in part.

What sets time and memory is the rank with most of them. Where a scenario's numbers do not divide, the others of its
group wait for it, or are filled up to it: every rank is priced as the busiest.
"""

from __future__ import annotations

import math

#: a division that rounds by this share is no thing more
_ROUNDING = 1e-9


def busiest(things: float, holders: float) -> float:
    """How many of ``things`` the holder with most has, where they are spread as evenly as whole things can be. [1]

    >>> busiest(96, 768), busiest(768, 768), busiest(7, 2), busiest(0, 4)
    (1.0, 1.0, 4.0, 0.0)
    """
    return float(math.ceil(things / holders * (1 - _ROUNDING)))


def parts(things: float, count: int) -> tuple[float, ...]:
    """``things`` in at most ``count`` parts of whole things, the largest first; parts of nothing are left out. [1]

    >>> parts(8, 2), parts(7, 2), parts(1, 2)
    ((4.0, 4.0), (4.0, 3.0), (1.0,))
    """
    out: list[float] = []
    left = things
    for remaining in range(count, 0, -1):
        part = busiest(left, remaining)
        if part:
            out.append(part)
        left -= part
    return tuple(out)


def counted(per_accelerator: float, accelerators: float, what: str) -> tuple[float, tuple[str, ...]]:
    """Whole things of a run, given as so many per accelerator, and what to say where that is no whole number. [1]

    what: the things, in the plural, for the note

    >>> counted(0.25, 384, "sequences")
    (96.0, ())
    >>> counted(1.1, 8, "sequences")
    (9.0, ('batch_per_accelerator 1.1 on 8 accelerators is 8.8 sequences: run with 9 of them',))
    """
    given = per_accelerator * accelerators
    total = max(float(round(given)), 1.0)
    if abs(given - total) <= _ROUNDING * total:
        return total, ()
    on = f"batch_per_accelerator {per_accelerator:g} on {accelerators:g} accelerators"
    return total, (f"{on} is {given:g} {what}: run with {total:g} of them",)
