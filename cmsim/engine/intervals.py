"""What links did, as intervals: equal stretches of constant rate, one after the other at one distance, are one row.

Rounds of a collective on links are alike, with the latency of a step between them: a ring of p ranks has 2(p - 1) of
them. Segments that recur are found before they are spread over the links they cross, so that nothing has the size of
rounds times links. Only where segments meet on a link are they taken one by one and summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints, recurred
from cmsim.network import SHARE_ONE, Demand, Log

#: rates are summed in whole units of 2**-10 B/s, so that what goes up comes down to exactly zero
RATE_UNIT = 2.0**-10


class Intervals(NamedTuple):
    """Columns, by resource, then in time.

    resource, units   which, and its rate while bytes move, in units of ``RATE_UNIT``
    start_ps, end_ps  of the first stretch, and of the last [ps]
    times, each_ps    how many stretches there are, all at one distance, and how long each is [ps]
    """

    resource: Ints
    units: Ints
    start_ps: Ints
    end_ps: Ints
    times: Ints
    each_ps: Ints


def stretches(segments: Log) -> Intervals:
    """What every resource carried and when, each stretch of constant rate as a row of its own."""
    (which, rate, start, end), demands = _columns(segments)
    return _summed(_spread(Intervals(which, which, start, end, np.ones_like(which), end - start), rate, demands))


def intervals(segments: Log) -> Intervals:
    """The same with stretches that recur as one row. Those of one resource never overlap, but rows may interleave."""
    (which, rate, start, end), demands = _columns(segments)
    order, first, times = _recurring([which, rate, end - start], start)
    one, last = order[first], order[first + times - 1]
    runs = Intervals(which[one], which[one], start[one], end[last], times, (end - start)[one])
    rows = _spread(runs, rate[one], demands)
    rows = _taken(rows, np.lexsort((rows.start_ps, rows.resource)))
    met = _meeting(rows)
    summed = _summed(_expanded(_taken(rows, np.flatnonzero(met))))
    order, first, times = _recurring([summed.resource, summed.units, summed.each_ps], summed.start_ps)
    again = _taken(summed, order[first])._replace(end_ps=summed.end_ps[order[first + times - 1]], times=times)
    apart = _taken(rows, np.flatnonzero(~met & (rows.units > 0)))
    both = Intervals(*(np.concatenate(pair) for pair in zip(apart, again, strict=True)))
    return _taken(both, np.lexsort((both.start_ps, both.resource)))


def _columns(segments: Log) -> tuple[tuple[Ints, Floats, Ints, Ints], Sequence[Demand]]:
    """Number of the demand, rate [B/s], start and end [ps] of each segment; and the demands."""
    demands, which, start, end, rate = segments.columns()
    return (which, rate, start, end), demands


def _spread(rows: Intervals, rate_Bps: Floats, demands: Sequence[Demand]) -> Intervals:
    """Rows of demands over the resources that these cross, each at its rate there."""
    width = np.array([len(one.resources) for one in demands], np.int64)
    flat = np.fromiter(chain.from_iterable(one.resources for one in demands), np.int64, int(width.sum()))
    share = np.fromiter(chain.from_iterable(one.shares for one in demands), np.float64, len(flat))
    each = width[rows.resource]
    skipped = (np.cumsum(width) - width)[rows.resource] - (np.cumsum(each) - each)
    at = np.repeat(skipped, each) + np.arange(int(each.sum()))
    units = np.rint(np.repeat(rate_Bps, each) * share[at] / SHARE_ONE / RATE_UNIT).astype(np.int64)
    return Intervals(flat[at], units, *(np.repeat(column, each) for column in rows[2:]))


def _meeting(rows: Intervals) -> NDArray[np.bool_]:
    """Which rows are of resources on which two rows overlap, or follow each other without a pause."""
    near = (rows.resource[1:] == rows.resource[:-1]) & (rows.start_ps[1:] <= rows.end_ps[:-1])
    close = np.zeros(int(rows.resource.max(initial=-1)) + 1, bool)
    close[rows.resource[1:][near]] = True
    # stretches of one row that follow each other without a pause are one
    distance = (rows.end_ps - rows.start_ps - rows.each_ps) // np.maximum(rows.times - 1, 1)
    close[rows.resource[(rows.times > 1) & (distance <= rows.each_ps)]] = True
    return close[rows.resource]


def _summed(rows: Intervals) -> Intervals:
    """Stretches that overlap, added up."""
    resource, when, level = _levels(rows)
    busy = np.flatnonzero(level > 0)
    start, end = when[busy], when[busy + 1] if len(busy) else when[:0]
    return Intervals(resource[busy], level[busy], start, end, np.ones_like(busy), end - start)


def _levels(rows: Intervals) -> tuple[Ints, Ints, Ints]:
    """Where rates change: resource, time, and the rate from then on, in units."""
    where = np.concatenate([rows.resource, rows.resource])
    when = np.concatenate([rows.start_ps, rows.end_ps])
    order = np.lexsort((when, where))
    where, when = where[order], when[order]
    new = np.ones(len(where), bool)
    new[1:] = (where[1:] != where[:-1]) | (when[1:] != when[:-1])
    change = np.zeros(int(new.sum()), np.int64)
    np.add.at(change, np.cumsum(new) - 1, np.concatenate([rows.units, -rows.units])[order])
    # every resource comes down to zero before the next one begins, so one sum runs over all of them
    return where[new][change != 0], when[new][change != 0], np.cumsum(change[change != 0])


def _expanded(rows: Intervals) -> Intervals:
    """Every stretch as a row of its own."""
    of, start, end = recurred(rows.start_ps, rows.end_ps, rows.times, rows.each_ps)
    return Intervals(rows.resource[of], rows.units[of], start, end, np.ones_like(of), rows.each_ps[of])


def _recurring(alike: Sequence[NDArray[Any]], start_ps: Ints) -> tuple[Ints, Ints, Ints]:
    """Runs of rows that are alike and begin at one distance: an order of the rows in which those of a run follow each
    other, the position of the first of each run there, and how many there are."""
    order = np.lexsort((start_ps, *alike))
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in alike:
        same &= column[order][1:] == column[order][:-1]
    gap = np.diff(start_ps[order])
    goes_on = same.copy()
    # the second row of a kind sets the distance, the others keep it
    goes_on[1:] &= ~same[:-1] | (gap[1:] == gap[:-1])
    first = np.flatnonzero(np.append(True, ~goes_on)[: len(order)])
    return order, first, np.diff(np.append(first, len(order)))


def _taken(rows: Intervals, which: Ints) -> Intervals:
    return Intervals(*(column[which] for column in rows))
