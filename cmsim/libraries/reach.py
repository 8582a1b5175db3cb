"""Where a library's times were measured, and what is said of calls that lie elsewhere.

The rows of a library are ranges of ranks and sizes, by collective (``rows`` and ``between_rows`` in
``topologies/libraries``). A call inside one of them is an interpolation. Any other is extrapolated, and its note says
in which way and what the ranges are: ranks, size, ranks of a domain, another collective, or the links of a relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.libraries.data import MeasuredRows
from cmsim.libraries.place import Place
from cmsim.units import BINARY

#: what may lie outside, in the order in which a note says it; bits of ``reach``
WAYS = ("other links", "no rows of this collective", "ranks", "ranks of a domain", "size")


def reach(at: Place, collective: str, *, ranks: Floats, size_B: Floats) -> NDArray[np.int8]:
    """For every call 0 where it lies inside what was measured, else a sum of 2^i over the ``WAYS`` in which not. [1]

    ranks: p [1]    size_B: S as nccl-tests prints it [B]
    """
    far = ranks > at.domain_ranks
    if not far.any():
        out = _ways(at, collective, at.rows, ranks, size_B)
    else:
        out = np.zeros(len(ranks), np.int8)
        for part, rows in ((~far, at.rows), (far, at.between_rows)):
            if part.any():
                out[part] = _ways(at, collective, rows, ranks[part], size_B[part])
    # one rank has nobody to talk to
    out[ranks == 1] = 0
    return out


def _ways(at: Place, collective: str, rows: Sequence[MeasuredRows], ranks: Floats, size_B: Floats) -> NDArray[np.int8]:
    own = [one for one in rows if not one.collectives or collective in one.collectives]
    if not own or collective not in MEASURED:
        return np.full(len(ranks), 2, np.int8)
    # as near as any range comes: the fewest ways, links of a relative last
    best = np.full(len(ranks), 127, np.int8)
    for one in own:
        ways = outside(ranks, one.ranks) * np.int8(4)
        ways += outside(size_B, one.size_B) * np.int8(16)
        if one.per_domain is not None:
            ways += outside(np.minimum(ranks, at.domain_ranks), one.per_domain) * np.int8(8)
        if at.accelerator != one.of:
            ways += np.int8(1)
        np.minimum(best, ways, out=best)
    return best


def outside(values: Floats, ends: tuple[float, float]) -> NDArray[np.int8]:
    """1 where a value lies outside a range, whose ends belong to it. [1]"""
    return ((values < ends[0]) | (values > ends[1])).view(np.int8)


#: collectives of which there are rows
MEASURED = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


def note(at: Place, collective: str, ways: int, *, far: bool) -> str:
    """What is said of a call, "" where it lies inside what was measured.

    ways: of ``reach``    far: whether it spans domains
    """
    if not ways:
        return ""
    said = ", ".join(compress(WAYS, [ways >> bit & 1 for bit in range(len(WAYS))]))
    rows = at.between_rows if far else at.rows
    own = [one for one in rows if not one.collectives or collective in one.collectives] or list(rows)
    where = "between domains" if far else "inside a domain"
    ranges = "; ".join(_range(one) for one in own) or "nothing"
    return f"{at.library} {collective} {where}: extrapolated ({said}); measured: {ranges}"


def _range(one: MeasuredRows) -> str:
    ranks = _span(*map(_whole, one.ranks))
    per_domain = f", {_span(*map(_whole, one.per_domain))} a domain" if one.per_domain is not None else ""
    return f"{ranks} ranks{per_domain}, {_span(*map(_size, one.size_B))} on {one.of}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _size(size_B: float) -> str:
    for unit, name in BINARY:
        if size_B >= unit:
            return f"{size_B / unit:.3g} {name}"
    return f"{size_B:.0f} B"
