"""Rows of a loop as they ran, turn by turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Ints
from cmsim.engine.plan import Plan
from cmsim.engine.timeline import Timeline
from cmsim.repeats import Repeat


@dataclass(frozen=True)
class Turns:
    """Rows of one rank class: the loop as tables, a line a turn, and what is around it.

    all_start, all_end   of all rows    first  the first row of the loop
    start, end, wait     shape (turns, rows of a turn)
    """

    all_start: Ints
    all_end: Ints
    first: int
    start: Ints
    end: Ints
    wait: Ints

    @property
    def before_ps(self) -> int:
        """When the last row before the loop ends."""
        return int(self.all_end[: self.first].max(initial=0))

    @property
    def after_ps(self) -> int:
        """When the first row after the loop starts."""
        after = self.all_start[self.first + self.start.size :]
        return int(after.min()) if len(after) else int(self.all_end.max()) + 1

    def begun(self, at_ps: int) -> Ints:
        """Of each row of a turn, in how many turns it has started."""
        count: Ints = np.count_nonzero(self.start <= at_ps, axis=0)
        return count

    def alike(self, at_ps: int, then_ps: int, turns: int) -> tuple[bool, int]:
        """Whether this class is at the second instant as at the first, ``turns`` turns on; and since when what is in
        progress at the first is."""
        now, then = self.begun(at_ps), self.begun(then_ps)
        if (then - now != turns).any():
            return False, at_ps
        column = np.arange(len(now))
        one, other = np.maximum(now - 1, 0), then - 1
        running = (now > 0) & (self.end[one, column] > at_ps)
        still = self.end[other, column] > then_ps
        if (running != still).any():
            return False, at_ps
        one, other, column = one[running], other[running], column[running]
        by_ps = then_ps - at_ps
        same = (
            np.array_equal(self.start[one, column] + by_ps, self.start[other, column])
            and np.array_equal(self.end[one, column] + by_ps, self.end[other, column])
            and np.array_equal(self.wait[one, column], self.wait[other, column])
        )
        return same, int(self.start[one, column].min(initial=at_ps))

    def same(self, at_ps: int, other: Turns, by_ps: int) -> tuple[bool, int]:
        """Whether this class is at an instant as another play has it so much later; and since when what is in progress
        is."""
        now, then = self.begun(at_ps), other.begun(at_ps + by_ps)
        if not np.array_equal(now, then):
            return False, at_ps
        column = np.arange(len(now))
        turn = np.maximum(now - 1, 0)
        running = (now > 0) & (self.end[turn, column] > at_ps)
        if not np.array_equal(running, (now > 0) & (other.end[turn, column] > at_ps + by_ps)):
            return False, at_ps
        turn, column = turn[running], column[running]
        same = (
            np.array_equal(self.start[turn, column] + by_ps, other.start[turn, column])
            and np.array_equal(self.end[turn, column] + by_ps, other.end[turn, column])
            and np.array_equal(self.wait[turn, column], other.wait[turn, column])
        )
        return same, int(self.start[turn, column].min(initial=at_ps))

    def unrolled(self, repeat: Repeat, left_out: int) -> tuple[Ints, Ints]:
        """Of all rows that there are, the one that each is like, and by how much it is later."""
        turns, rows = self.start.shape
        turn = np.arange(turns + left_out)[:, None]
        each = left_out // repeat.times
        passed = np.clip((turn - self.begun(repeat.from_ps)) // each, 0, repeat.times)
        row = self.first + (turn - passed * each) * rows + np.arange(rows)
        after = np.arange(self.first + self.start.size, len(self.all_start))
        shift = np.concatenate([np.zeros(self.first, np.int64), passed.ravel(), np.full(len(after), repeat.times)])
        return np.concatenate([np.arange(self.first), row.ravel(), after]), shift * repeat.period_ps


def paces(turns: Sequence[Turns]) -> int:
    """How many paces there are, where each class has kept one over the last turns: more than one where some get ever
    further ahead of others, until they have to wait for them. 0 where there are too few turns, or a pace changes.

    A pace is how long most rows of a class take to come again.
    """
    found = set()
    for one in turns:
        last, before = (np.median(one.start[-k] - one.start[-k - 1]) if len(one.start) > k else -k for k in (1, 2))
        if last != before:
            return 0
        found.add(last)
    return len(found)


def turns_of(plan: Plan, timeline: Timeline) -> list[Turns]:
    loop = plan.programs.loop
    assert loop is not None, "no loop"
    out = []
    for rank_class in range(plan.classes):
        program = plan.program_of(rank_class)
        first, shape = int(loop.first[program]), (int(loop.laid[program]), int(loop.rows[program]))
        rows = slice(first, first + shape[0] * shape[1])
        start, end, wait = timeline.start_ps[rank_class], timeline.end_ps[rank_class], timeline.wait_ps[rank_class]
        out.append(Turns(start, end, first, *(column[rows].reshape(shape) for column in (start, end, wait))))
    return out
