"""A stretch of time that comes again and again, exactly as it was: kept once, with how often it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints


@dataclass(frozen=True)
class Repeat:
    """The stretch from ``from_ps`` on, ``period_ps`` long, comes ``times`` times more than it is put down.

    Times are of two kinds: *kept*, in which it stands once, and *true*, in which all of it lies one after the other and
    what follows it comes ``times`` periods later.

    >>> twice_more = Repeat(from_ps=10, period_ps=5, times=2)
    >>> twice_more.kept_ps(np.array([9, 10, 14, 15, 24, 25, 26])).tolist()
    [9, 10, 14, 10, 14, 15, 16]
    """

    from_ps: int
    period_ps: int
    times: int

    @property
    def until_ps(self) -> int:
        return self.from_ps + self.period_ps

    @property
    def added_ps(self) -> int:
        """By how much the whole is longer than what is kept."""
        return self.times * self.period_ps

    def passed(self, true_ps: Ints) -> Ints:
        """How many times the stretch has passed for good at instants of true time."""
        return np.clip((true_ps - self.from_ps) // self.period_ps, 0, self.times)

    def kept_ps(self, true_ps: Ints) -> Ints:
        """The instant of kept time that is like one of true time."""
        out: Ints = true_ps - self.passed(true_ps) * self.period_ps
        return out

    def true_count(self, kept_ps: Ints) -> int:
        """How many instants of true time are like those of kept time, of which there are no two alike."""
        return len(kept_ps) + self.times * int(np.count_nonzero(self._inside(kept_ps)))

    def true_ps(self, kept_ps: Ints) -> Ints:
        """All instants of true time that are like those of kept time, in no order."""
        again = kept_ps[self._inside(kept_ps)]
        copies = again + np.arange(1, self.times + 1)[:, None] * self.period_ps
        moved = kept_ps + np.where(kept_ps >= self.until_ps, self.added_ps, 0)
        return np.concatenate([moved, copies.ravel()])

    def _inside(self, kept_ps: Ints) -> NDArray[np.bool_]:
        return (kept_ps >= self.from_ps) & (kept_ps < self.until_ps)

    def within(self, start_ps: Ints, end_ps: Ints) -> tuple[Ints, Ints]:
        """The parts of stretches of kept time that come again."""
        return np.clip(start_ps, self.from_ps, self.until_ps), np.clip(end_ps, self.from_ps, self.until_ps)

    def integrals(self, edges_ps: Ints, at_ps: Ints, until: Floats) -> Floats:
        """Over every interval between edges in true time, from running integrals ``until`` at instants of kept time,
        between which they are straight, shape (..., instants); none is negative where it never falls."""
        at = _between(self.kept_ps(edges_ps), at_ps, until)
        inside = np.diff(at, axis=-1)
        passed = np.diff(self.passed(edges_ps))
        if not passed.any():
            return inside
        ends = _between(np.array([self.from_ps, self.until_ps]), at_ps, until)
        first, last = ends[..., :1], ends[..., 1:]
        around = (last - at[..., :-1]) + (at[..., 1:] - first) + (passed - 1) * (last - first)
        return np.where(passed == 0, inside, around)

    def copies(self, kept_ps: Ints) -> tuple[NDArray[Any], Ints]:
        """What begins at instants of kept time, as often as it comes: the number of each, and by how much it is later.

        What begins with the stretch began before it: it is the end of it that comes again.
        """
        inside = (kept_ps > self.from_ps) & (kept_ps <= self.until_ps)
        number = np.repeat(np.arange(len(kept_ps)), np.where(inside, self.times + 1, 1))
        first = np.ones(len(number), bool)
        first[1:] = np.diff(number) != 0
        place = np.arange(len(number))
        turn = place - np.maximum.accumulate(np.where(first, place, 0))
        turn = np.where(kept_ps[number] > self.until_ps, self.times, turn)
        return number, turn * self.period_ps


def _between(x: Ints, at: Ints, values: Floats) -> Floats:
    """As `np.interp` of every row, whose places are looked up once for all of them.

    >>> _between(np.array([-1, 5, 10, 12]), np.array([0, 10]), np.array([[0.0, 1.0], [2.0, 4.0]])).tolist()
    [[0.0, 0.5, 1.0, 1.0], [2.0, 3.0, 4.0, 4.0]]
    """
    last = values.shape[-1] - 1
    if not last:
        return np.repeat(values, len(x), axis=-1)
    x = np.clip(x, at[0], at[-1])
    low = np.minimum(np.searchsorted(at, x, side="right") - 1, last - 1)
    begin, end = values[..., low], values[..., low + 1]
    slope = (end - begin) / (at[low + 1] - at[low])
    return np.where(x == at[-1], values[..., -1:], slope * (x - at[low]) + begin)


#: nothing comes again
ONCE = Repeat(0, 1, 0)
