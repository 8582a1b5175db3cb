"""The steady state of loops: played until all that is in progress comes again, shifted in time; the rest follows.

Programs with a loop (`cmsim.workload.ops.Loop`) are played with a few of its turns. Two instants are alike when

    * of every row of the loop as many turns have started by each, but for k that are the period's; nothing before the
      loop is still in progress, nothing after it has started;
    * what is in progress has started, waited and will end at the same distance from each;
    * since the first of it started, all links were shared alike: stretches of the same rate at the same distance.

What happens next follows from this and from the rows ahead alone: what has ended says which rows are ready, what is in
progress says when it ends if nothing else comes, and how the links were shared says what of each demand is left, to the
bit, for arithmetic is on differences of whole picoseconds. The rows ahead are alike as far as the loop goes. So the
time between the instants may come any number of times, and what follows comes as much later: exactly the play of so
many turns. Where there are none of all ranks, but of each of several parts that do not meet in the loop, these are
taken one by one (`cmsim.engine.lanes`). Where no such instants are found, everything is laid out and played.

Not where anything goes by the clock or the number of a row (links that change, times that scatter, a host that launches
op by op): such plans have no loop. See docs/decisions/0023-a-steady-state-is-played-once.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.engine.lanes import lanes_of
from cmsim.engine.plan import Plan
from cmsim.engine.play import least_ps, play, play_within
from cmsim.engine.timeline import Timeline
from cmsim.engine.turns import Turns, paces, turns_of
from cmsim.network import Log, Stretches
from cmsim.repeats import Repeat
from cmsim.units import on_clock
from cmsim.workload import loops
from cmsim.workload.ops import COLLECTIVE, RECV, SEND

#: share of all turns that plays which may be in vain have together, at most
_WORTH = 5 / 8
#: instants tried for each length of a period, from the last before the loop ends
_TRIED = 3


def play_loops(
    plan: Plan, *, limit_ps: int | None = None, progress: Callable[[float], None] | None = None
) -> tuple[Plan, Timeline] | None:
    """Play a plan with its loop; the plan as it was laid out for it, and the timeline. See `cmsim.engine.unrolled`.

    None for a plan that takes longer than ``limit_ps``. Raises FailedError where ranks wait for each other for ever.
    """
    if limit_ps is not None and least_ps(plan) > limit_ps:
        return None
    steady = _steady(plan) if plan.programs.loop is not None and _in_step(plan) else None
    if steady is not None:
        return None if limit_ps is not None and steady[1].makespan_ps > limit_ps else steady
    full = plan if plan.programs.loop is None else laid_out(plan, plan.programs.loop.left_out)
    timeline = play_within(full, limit_ps, progress=progress)
    return None if timeline is None else (full, timeline)


def laid_out(plan: Plan, more: int) -> Plan:
    """The plan of the same programs with their loops laid out ``more`` times more."""
    if not more:
        return plan
    copied = loops.sources(plan.programs, more)
    row = np.concatenate([rows + start for rows, start in zip(copied, plan.programs.program_ptr, strict=False)])
    of = [copied[plan.program_of(rank_class)] for rank_class in range(plan.classes)]
    return replace(
        plan,
        programs=loops.laid_out(plan.programs, more),
        hold_ps=[hold[rows] for hold, rows in zip(plan.hold_ps, of, strict=True)],
        bound=plan.bound[row],
        clock=plan.clock[row] if plan.clock.size else plan.clock,
        call=[call[rows] for call, rows in zip(plan.call, of, strict=True)],
    )


def _steady(plan: Plan) -> tuple[Plan, Timeline] | None:
    """Play more and more turns until the steady state shows; None where it has not by `_WORTH` of the time of all."""
    loop = plan.programs.loop
    assert loop is not None, "no loop to play"
    total, laid, more = int(loop.laid.max()) + loop.left_out, int(loop.laid.max()), 0
    in_vain = 0
    while in_vain + laid + more <= _WORTH * total:
        short = laid_out(plan, more)
        timeline = play(short)
        turns_played = [one for one in turns_of(short, timeline) if one.start.size]
        found = _period(turns_played, _Shared(timeline.segments).alike)
        if found is None:
            lanes = lanes_of(short, timeline, _period)
            rest = 0 if lanes is None else (loop.left_out - more) % lanes.each
            in_vain += laid + more
            if lanes is not None and not rest:
                if (whole := lanes.whole(loop.left_out - more)) is not None:
                    return laid_out(plan, loop.left_out), whole
                in_vain += laid + more
            # what has to catch up takes many turns, what has yet to come to rest few
            further = 3 * (laid + more) if paces(turns_played) > 1 else (laid + more + 1) // 2
            more += rest or further
            continue
        at_ps, period_ps, turns = found
        times, rest = divmod(loop.left_out - more, turns)
        if not rest:
            repeated = replace(timeline, repeat=Repeat(at_ps, period_ps, times))
            on_clock(repeated.makespan_ps)
            return short, repeated
        # whole periods are left out: what is beyond them is played too
        more += rest
    return None


def _in_step(plan: Plan) -> bool:
    """Whether every rank does its share in each turn: who meets calls as often, what is sent is received."""
    programs, loop, folding = plan.programs, plan.programs.loop, plan.folding
    assert loop is not None, "no loop to play"
    groups = int(folding.group_class.max(initial=-1)) + 1
    called = np.zeros((plan.classes, groups, 3), np.int64)
    for rank_class in range(plan.classes):
        program = plan.program_of(rank_class)
        first = int(programs.program_ptr[program] + loop.first[program])
        rows = slice(first, first + int(loop.rows[program]))
        if rows.start == rows.stop and plan.rows_of(rank_class).start < plan.rows_of(rank_class).stop:
            return False
        kind, slot = programs.ops.kind[rows], programs.ops.slot[rows]
        for number, one in enumerate((COLLECTIVE, SEND, RECV)):
            here = folding.group_class[rank_class][slot[kind == one]]
            called[rank_class, :, number] = np.bincount(here, minlength=groups)
    party = np.zeros((plan.classes, groups), bool)
    where, slot = np.nonzero(folding.group_class >= 0)
    party[where, folding.group_class[where, slot]] = True
    meets = called[:, :, 0]
    together = ((meets == meets.max(axis=0)) | ~party).all()
    return bool(together and (called[:, :, 1].sum(axis=0) == called[:, :, 2].sum(axis=0)).all())


def _period(turns: Sequence[Turns], shared: Callable[[int, int, int], bool]) -> tuple[int, int, int] | None:
    """Two instants that are alike: the first, how far the other is from it [ps], and how many turns.

    shared: (since, at, then) whether links were shared alike since so long before both instants
    """
    if not turns:
        return None
    before_ps, after_ps = max(one.before_ps for one in turns), min(one.after_ps for one in turns)
    for at_ps, then_ps, count in _instants(turns[0].start[:, 0], before_ps, after_ps):
        since_ps = at_ps
        for one in turns:
            alike, since = one.alike(at_ps, then_ps, count)
            if not alike:
                break
            since_ps = min(since_ps, since)
        else:
            if shared(since_ps, at_ps, then_ps):
                return at_ps, then_ps - at_ps, count
    return None


def _instants(start: Ints, before_ps: int, after_ps: int) -> Iterator[tuple[int, int, int]]:
    """Pairs to try: a row starts at both, with so many turns between; short periods first, late ones first."""
    there = np.flatnonzero((start >= before_ps) & (start < after_ps)).tolist()
    for turns in range(1, len(there)):
        for last in there[: -_TRIED - 1 : -1]:
            if last - turns >= there[0] and start[last] > start[last - turns]:
                yield int(start[last - turns]), int(start[last]), turns


class _Shared:
    """How links were shared: stretches of constant rate, as columns."""

    def __init__(self, log: Log):
        self._log = log
        self._columns: Stretches | None = None

    def alike(self, since_ps: int, at_ps: int, then_ps: int) -> bool:
        """Whether what began from the first time on and until the second came again at the third, the same."""
        by_ps = then_ps - at_ps
        one, other = self._between(since_ps, at_ps, by_ps), self._between(since_ps + by_ps, then_ps, 0)
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))

    def _between(self, since_ps: int, until_ps: int, by_ps: int) -> list[NDArray[Any]]:
        """What began between two times, later, in an order of its own."""
        if self._columns is None:
            self._columns = self._log.columns()
        start = self._columns.start_ps
        _, *columns = self._columns.rows(np.flatnonzero((start >= since_ps) & (start <= until_ps)), by_ps)
        order = np.lexsort(columns[::-1])
        return [column[order] for column in columns]
