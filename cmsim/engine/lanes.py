"""Parts of a loop that go their own way: pipelines that meet nowhere in it, each at a pace of its own.

Pipelines beside each other meet before the loop and after it, in what data-parallel ranks exchange. Where their
messages cross different links, one is a part in a thousand faster than the other, and all together come to no steady
state, though each of them does. Then each is taken by itself:

    * parts are classes that meet in no group and on no link, as far as the loop goes;
    * each has two instants that are alike (`cmsim.engine.steady`), and the time between them may come any number of
      times while others go on as they do, for nothing of them is seen here;
    * what follows the loop depends on when each part comes out of it. So the plan is played once more, each part held
      up for as long as its turns that are left out take: one kernel of each of its classes takes so much longer. Held
      up so, it must be at its second instant, that much later, exactly as it was: all that is in progress, how long it
      is, and how links were shared since it began. From there on it is the play of all turns.

Where a part is not as it was, or what follows the loop begins before all are, nothing is said. See
docs/decisions/0023-a-steady-state-is-played-once.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmsim.arrays import Ints
from cmsim.engine.plan import Plan
from cmsim.engine.play import play
from cmsim.engine.timeline import Timeline
from cmsim.engine.turns import Turns, turns_of
from cmsim.network import Log, Stretches
from cmsim.repeats import Repeat
from cmsim.workload.ops import COMPUTE

#: instants at which a part may be held up that are looked at
_LOOKED_AT = 400

#: (turns of some classes; (since, at, then) -> whether links were shared alike) -> two instants that are alike: the
#: first, how far the other is from it [ps], and how many turns; None where there are none
Period = Callable[[Sequence[Turns], Callable[[int, int, int], bool]], tuple[int, int, int] | None]


def parts(plan: Plan) -> tuple[Ints, dict[int, int]] | None:
    """Part of each class, and of each resource that the loop uses; None where a class has no loop, or what moves in it
    crosses no link that it could be told by."""
    programs, loop = plan.programs, plan.programs.loop
    assert loop is not None, "no loop"
    up: dict[tuple[str, int], tuple[str, int]] = {}

    def top(one: tuple[str, int]) -> tuple[str, int]:
        up.setdefault(one, one)
        while up[one] != one:
            up[one] = up[up[one]]
            one = up[one]
        return one

    for rank_class in range(plan.classes):
        program = plan.program_of(rank_class)
        if not loop.rows[program]:
            return None
        first = int(programs.program_ptr[program] + loop.first[program])
        slot = np.unique(programs.ops.slot[first : first + int(loop.rows[program])])
        met = plan.folding.group_class[rank_class][slot[slot >= 0]]
        here = slice(int(loop.first[program]), int(loop.first[program] + loop.rows[program]))
        called = np.unique(plan.call[rank_class][here])
        phases = [phase for call in called[called >= 0].tolist() for phase in plan.calls[call].phases]
        demands = [demand.resources for phase in phases for demand in phase]
        if not all(demands):
            return None
        crossed = {resource for resources in demands for resource in resources}
        me = top(("class", rank_class))
        for other in (*(("group", int(one)) for one in met), *(("link", one) for one in crossed)):
            up[top(other)] = me = top(me)
    number: dict[tuple[str, int], int] = {}
    part = [number.setdefault(top(("class", one)), len(number)) for one in range(plan.classes)]
    return np.array(part), {one: number[top((what, one))] for what, one in list(up) if what == "link"}


class Shared:
    """How links were shared, part by part; what crosses links of several belongs to each of them."""

    def __init__(self, log: Log, of_resource: dict[int, int]):
        self.columns: Stretches = log.columns()
        owners = [{of_resource.get(one, -1) for one in demand.resources} for demand in self.columns.demands]
        part = np.array([next(iter(its)) if len(its) == 1 else -1 for its in owners], np.int64)
        #: part of each stretch; -1 where it is of none, or of several
        self.part: Ints = part[self.columns.demand]
        self._key = np.array([id(demand) for demand in self.columns.demands])[self.columns.demand]

    def between(self, since_ps: int, until_ps: int, by_ps: int, part: int) -> list[Ints]:
        """What began between two times, later, in an order of its own."""
        start = self.columns.start_ps
        mine = (self.part == part) | (self.part < 0)
        rows = np.flatnonzero((start >= since_ps) & (start <= until_ps) & mine)
        _, _, start, end, rate = self.columns.rows(rows, by_ps)
        columns = [self._key[rows], start, end, rate]
        order = np.lexsort(columns[::-1])
        return [column[order] for column in columns]

    def across(self, since_ps: int, until_ps: int) -> Stretches:
        """Of no part, or of several: what began from one time on and before another."""
        start = self.columns.start_ps
        return self.columns.rows(np.flatnonzero((self.part < 0) & (start >= since_ps) & (start < until_ps)))

    def again(self, since_ps: int, at_ps: int, then_ps: int, *, part: int) -> bool:
        """Whether what began from the first time on until the second came again at the third, the same."""
        return self.alike(since_ps, at_ps, self, then_ps - at_ps, part)

    def alike(self, since_ps: int, at_ps: int, other: Shared, by_ps: int, part: int) -> bool:
        """Whether what began here from the first time on until the second is there so much later."""
        one = self.between(since_ps, at_ps, by_ps, part)
        return all(map(np.array_equal, one, other.between(since_ps + by_ps, at_ps + by_ps, 0, part)))


@dataclass(frozen=True)
class Lane:
    """number  of it    classes  in it    repeat  its stretch    turns  of the stretch"""

    number: int
    classes: list[int]
    repeat: Repeat
    turns: int


def lanes_of(plan: Plan, timeline: Timeline, period: Period) -> Lanes | None:
    """A plan whose loop is laid out a few times, as it was played, part by part; None where it is one part, or one of
    them has no two instants that are alike."""
    told = parts(plan)
    if told is None or told[0].max(initial=0) < 1:
        return None
    part, of_resource = told
    turns, shared = turns_of(plan, timeline), Shared(timeline.segments, of_resource)
    found = []
    for number in range(int(part.max()) + 1):
        classes = np.flatnonzero(part == number).tolist()
        its = period([turns[one] for one in classes], functools.partial(shared.again, part=number))
        if its is None:
            return None
        at_ps, period_ps, many = its
        found.append(Lane(number, classes, Repeat(at_ps, period_ps, 1), many))
    return Lanes(plan, timeline, turns, shared, of_resource, found)


@dataclass(frozen=True)
class Lanes:
    """turns  of each class    shared  links    of_resource  part of each resource    found  parts, with stretches"""

    plan: Plan
    timeline: Timeline
    turns: list[Turns]
    shared: Shared
    of_resource: dict[int, int]
    found: list[Lane]

    @property
    def each(self) -> int:
        """Turns after which every part is as it was."""
        return math.lcm(*(one.turns for one in self.found))

    def whole(self, left_out: int) -> Timeline | None:
        """The timeline with nothing left out, of ``left_out`` turns more; None where it cannot be told."""
        assert left_out % self.each == 0, "parts come again after whole stretches"
        several = [replace(one, repeat=replace(one.repeat, times=left_out // one.turns)) for one in self.found]
        hold = [column.copy() for column in self.plan.hold_ps]
        for one in several:
            at_ps = self._held_up(one)
            for rank_class in one.classes:
                row, _ = self._running(rank_class, at_ps)
                if row is None:
                    return None
                hold[rank_class][row] += one.repeat.added_ps
        then = play(replace(self.plan, hold_ps=hold))
        turns, shared = turns_of(self.plan, then), Shared(then.segments, self.of_resource)
        last_ps = max(one.repeat.until_ps + one.repeat.added_ps for one in several)
        if last_ps > min(one.after_ps for one in turns) or not all(
            self._as_it_was(one, turns, shared) for one in several
        ):
            return None
        return self._joined(several, then, shared, left_out)

    def _running(self, rank_class: int, at_ps: int) -> tuple[int | None, bool]:
        """The kernel of a class that started last, and whether it still runs; None where none did."""
        start, end = self.timeline.start_ps[rank_class], self.timeline.end_ps[rank_class]
        rows = self.plan.rows_of(rank_class)
        kernels = np.flatnonzero((self.plan.programs.ops.kind[rows] == COMPUTE) & (end > start) & (start <= at_ps))
        if not len(kernels):
            return None, False
        row = int(kernels[np.argmax(start[kernels])])
        return row, bool(end[row] > at_ps)

    def _held_up(self, one: Lane) -> int:
        """The latest instant before its stretch at which most of its classes are at work."""
        first = self.turns[one.classes[0]]
        starts = np.unique(first.start[(first.start < one.repeat.from_ps) & (first.start >= self._before_ps)])
        starts = starts[-_LOOKED_AT:] if len(starts) else np.array([one.repeat.from_ps])
        busy = [sum(self._running(rank_class, at)[1] for rank_class in one.classes) for at in starts.tolist()]
        return int(starts[len(busy) - 1 - int(np.argmax(busy[::-1]))])

    @property
    def _before_ps(self) -> int:
        return max(one.before_ps for one in self.turns)

    def _as_it_was(self, one: Lane, turns: Sequence[Turns], shared: Shared) -> bool:
        """Whether a part is, held up, at its second instant as it was when it was not."""
        at_ps, by_ps = one.repeat.until_ps, one.repeat.added_ps
        since_ps = at_ps
        for rank_class in one.classes:
            same, since = self.turns[rank_class].same(at_ps, turns[rank_class], by_ps)
            if not same:
                return False
            since_ps = min(since_ps, since)
        return self.shared.alike(since_ps, at_ps, shared, by_ps, one.number)

    def _joined(self, several: Sequence[Lane], then: Timeline, shared: Shared, left_out: int) -> Timeline:
        """Turns as they were played, again and again, and after each part's last one as it was held up."""
        rows: list[tuple[Ints, Ints, Ints]] = [(np.zeros(0, np.int64),) * 3 for _ in range(self.plan.classes)]
        log = Log()
        for one in several:
            for rank_class in one.classes:
                rows[rank_class] = self._times(rank_class, one.repeat, then, left_out)
            start, true = self.shared.columns.start_ps, shared.columns.start_ps
            mine = np.flatnonzero((self.shared.part == one.number) & (start <= one.repeat.until_ps))
            number, by_ps = one.repeat.copies(start[mine])
            log.append(self.shared.columns.rows(mine[number], by_ps))
            late = (shared.part == one.number) & (true > one.repeat.until_ps + one.repeat.added_ps)
            log.append(shared.columns.rows(np.flatnonzero(late)))
        # what crosses links of several comes before all loops, or after them
        first_ps = max(one.repeat.from_ps for one in several)
        last_ps = max(one.repeat.until_ps + one.repeat.added_ps for one in several)
        log.append(self.shared.across(0, first_ps))
        log.append(shared.across(last_ps, then.kept_ps + 1))
        starts, ends, waits = (list(column) for column in zip(*rows, strict=True))
        return Timeline(starts, ends, waits, log, begin_ps=self.timeline.begin_ps)

    def _times(self, rank_class: int, repeat: Repeat, then: Timeline, left_out: int) -> tuple[Ints, Ints, Ints]:
        """Start, end and wait of all rows of a class."""
        kept = self.timeline
        row, by_ps = self.turns[rank_class].unrolled(repeat, left_out)
        late = (by_ps == repeat.added_ps) & (kept.start_ps[rank_class][row] > repeat.until_ps)
        start = np.where(late, then.start_ps[rank_class][row], kept.start_ps[rank_class][row] + by_ps)
        end = np.where(late, then.end_ps[rank_class][row], kept.end_ps[rank_class][row] + by_ps)
        return start, end, np.where(late, then.wait_ps[rank_class][row], kept.wait_ps[rank_class][row])
