"""Playing a plan on SimPy.

Ops are cut into steps: a run of ops that nobody outside the stream waits for is one step, its rows filled in afterwards
by integer sums; a communication op is a step of its own. What happens on one rank between its communication is known
ahead: a step starts when the last that it waits for ends, so times of local steps follow at once, in a loop, from the
ends before them, though they lie in the future. Only what moves data is an event of the simulation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import simpy
from numpy.typing import NDArray

from cmsim import collector
from cmsim.engine.calls import Call
from cmsim.engine.plan import Plan
from cmsim.errors import FailedError, InputError
from cmsim.network import NETWORKS, Demand, Network, Segment
from cmsim.workload.ops import COLLECTIVE, HOST, KINDS, SEND

Ints = NDArray[np.int64]

#: SimPy events between two reports of progress
_PROGRESS_EVERY = 8192
#: ops that a message about a deadlock names
_NAMED = 3


@dataclass(frozen=True)
class Timeline:
    """When every op of every rank class ran.

    start_ps, end_ps  per class, one entry per op row of its program; a collective starts when its rank arrives
    wait_ps           per class: how long a rank waited for the others of the group before anything moved
    segments          stretches of constant rate of everything that moved
    host_ps           per class: how long an op waited, ready, for the host to issue it; empty where none does
    """

    start_ps: list[Ints]
    end_ps: list[Ints]
    wait_ps: list[Ints]
    segments: list[Segment]
    host_ps: list[Ints] = field(default_factory=list)

    @property
    def makespan_ps(self) -> int:
        return max((int(end.max()) for end in self.end_ps if len(end)), default=0)


class _Steps(NamedTuple):
    """The steps of one program, by stream, then in order.

    first, last  rows of the program that a step covers (of communication the same)
    kind, slot   of its first row
    turn         how many rows of the program before it do the same (meet, send or receive) in the slot. Members of a
                 group match their calls by it, as libraries match them in the order of issue; the order in which the
                 streams of a rank come by is its own.
    needs        how many steps must end before it
    following    steps that wait for it
    """

    first: list[int]
    last: list[int]
    kind: list[int]
    slot: list[int]
    turn: list[int]
    needs: list[int]
    following: list[tuple[int, ...]]


class _Meeting:
    """One call of a collective: how many have yet to come, and who has: class, step, when its rank arrives."""

    __slots__ = ("call", "came", "waiting")

    def __init__(self, call: int, waiting: int):
        self.call = call
        self.waiting = waiting
        self.came: list[tuple[int, int, int]] = []


class _Message:
    """One message of a channel: when it arrived, or who waits for it: class, step, since when."""

    __slots__ = ("arrived", "receiver")

    def __init__(self) -> None:
        self.arrived: int | None = None
        self.receiver: tuple[int, int, int] | None = None


def play(plan: Plan, network: str | None = None, *, progress: Callable[[float], None] | None = None) -> Timeline:
    """Run a plan. Raises FailedError where ranks wait for each other for ever.

    network: ideal or fluid, default what was planned for; links can be played as links only
    progress: called now and then with the share of ops that have ended, 0 to 1
    """
    timeline = _Player(plan, network or plan.network).run(progress)
    assert timeline is not None, "without a limit a plan is played to its end"
    return timeline


def play_within(
    plan: Plan, limit_ps: int | None, *, progress: Callable[[float], None] | None = None
) -> Timeline | None:
    """As `play`, but None for a plan that takes longer than ``limit_ps``, as soon as that is known.

    A stream takes at least its local work, which is known before anything is played. [ps]
    """
    if limit_ps is not None and least_ps(plan) > limit_ps:
        return None
    return _Player(plan, plan.network).run(progress, limit_ps)


def least_ps(plan: Plan) -> int:
    """The longest local work of any stream: no plan ends before it. [ps]"""
    most = 0
    for rank_class in range(plan.classes):
        stream = plan.programs.ops.stream[plan.rows_of(rank_class)]
        if len(stream):
            most = max(most, int(np.bincount(stream, weights=plan.hold_ps[rank_class]).max()))
    return most


class _Player:
    def __init__(self, plan: Plan, network: str):
        self.plan = plan
        self.env = simpy.Environment(initial_time=0)
        self.network: Network = NETWORKS[network](self.env, plan.resources.capacity_Bps, plan.resources.changes_ps)
        self.steps = [_steps(plan, program) for program in range(len(plan.programs.program_ptr) - 1)]
        self.of = [self.steps[plan.program_of(rank_class)] for rank_class in range(plan.classes)]
        rows = [len(hold) for hold in plan.hold_ps]
        self.start = [[0] * n for n in rows]
        self.end = [[0] * n for n in rows]
        self.wait = [[0] * n for n in rows]
        # per class and step: when it can start as far as is known, how many it still waits for, how long it holds
        self.ready = [[0] * len(steps.first) for steps in self.of]
        self.needs = [list(steps.needs) for steps in self.of]
        self.hold = [_hold_sums(hold, steps) for hold, steps in zip(plan.hold_ps, self.of, strict=True)]
        # per class and row: how long it waited for the host
        self.host = [np.zeros(n, np.int64) for n in rows] if plan.issue_ps else []
        self.group = plan.folding.group_class.tolist()
        self.call = [call.tolist() for call in plan.call]
        self.meetings: dict[tuple[int, int], _Meeting] = {}
        self.messages: dict[tuple[int, int], _Message] = {}
        self.parties = np.bincount(plan.folding.group_class[plan.folding.group_class >= 0].ravel()).tolist()
        self.ended = 0
        self.total = sum(rows)

    def run(self, progress: Callable[[float], None] | None, limit_ps: int | None = None) -> Timeline | None:
        """Play to the end; None where that lies beyond the limit."""
        with collector.paused():  # events come and go by the million: looking for cycles costs up to a fifth of a run
            for rank_class, steps in enumerate(self.of):
                self._settle(rank_class, [step for step, needs in enumerate(steps.needs) if not needs][::-1])
            self._drain(progress, limit_ps)
        if self.ended != self.total:
            if self.env.peek() != simpy.core.Infinity:
                return None  # the rest lies beyond the limit
            raise FailedError(self._stuck())
        timeline = self._timeline()
        return None if limit_ps is not None and timeline.makespan_ps > limit_ps else timeline

    def _drain(self, progress: Callable[[float], None] | None, limit_ps: int | None) -> None:
        """Run until nothing is left to happen, or past the limit."""
        if limit_ps is not None:
            self.env.run(until=limit_ps + 1)
        elif progress is None:
            self.env.run()
        else:
            while self.env.peek() != simpy.core.Infinity:
                for _ in range(_PROGRESS_EVERY):
                    try:
                        self.env.step()
                    except simpy.core.EmptySchedule:
                        break
                progress(self.ended / max(self.total, 1))

    def _settle(self, rank_class: int, todo: list[int]) -> None:
        """Times of steps that wait for nothing more, and of all that follow from them on this rank."""
        first, last, kind, _, _, _, following = self.of[rank_class]
        ready, needs, hold = self.ready[rank_class], self.needs[rank_class], self.hold[rank_class]
        start, end = self.start[rank_class], self.end[rank_class]
        eager = bool(self.plan.issue_ps)
        while todo:
            step = todo.pop()
            at = ready[step]
            if kind[step] > HOST:
                ends = self._communicate(rank_class, step, at)
                if ends is None:
                    continue
            else:
                start[first[step]] = at
                ends = at + (self._issue(rank_class, step, at) if eager else hold[step])
            end[last[step]] = ends
            self.ended += last[step] - first[step] + 1
            for after in following[step]:
                if ready[after] < ends:
                    ready[after] = ends
                needs[after] -= 1
                if not needs[after]:
                    todo.append(after)

    def _over(self, rank_class: int, step: int, ends: int) -> None:
        """A communication step has ended."""
        steps, ready, needs = self.of[rank_class], self.ready[rank_class], self.needs[rank_class]
        self.end[rank_class][steps.last[step]] = ends
        self.ended += 1
        todo = []
        for after in steps.following[step]:
            if ready[after] < ends:
                ready[after] = ends
            needs[after] -= 1
            if not needs[after]:
                todo.append(after)
        self._settle(rank_class, todo)

    def _issue(self, rank_class: int, step: int, at: int) -> int:
        """How long a step takes from ``at`` when the host issues its ops; of communication, until it is issued. [ps]

        An op starts when it is issued and its forerunner has ended: with K the running sum of times k, ends are K + the
        running maximum of what is issued less K - k.
        """
        steps = self.of[rank_class]
        rows = slice(steps.first[step], steps.last[step] + 1)
        issued = self.plan.issue_ps[rank_class][rows]
        if steps.kind[step] > HOST:
            self.host[rank_class][rows.start] = wait = max(int(issued[0]) - at, 0)
            return wait
        if issued[-1] <= at:
            return self.hold[rank_class][step]
        k = self.plan.hold_ps[rank_class][rows]
        before = np.cumsum(k) - k
        lag = np.maximum.accumulate(np.maximum(issued - before, at))
        starts = before + lag
        self.host[rank_class][rows] = np.diff(lag, prepend=at)
        return int(starts[-1] + k[-1]) - at

    def _communicate(self, rank_class: int, step: int, at: int) -> int | None:
        """A rank comes to a communication step at ``at``; its end, where that is known already. [ps]"""
        if self.plan.issue_ps:
            at += self._issue(rank_class, step, at)
        steps = self.of[rank_class]
        row, kind = steps.first[step], steps.kind[step]
        self.start[rank_class][row] = at
        key = (self.group[rank_class][steps.slot[step]], steps.turn[step])
        if kind == COLLECTIVE:
            if self.parties[key[0]] == 1:
                # all members are of this class and arrive as one
                self._at(at, self.call[rank_class][row], lambda: self._over(rank_class, step, self._now()))
            else:
                self._meet(rank_class, step, at, key)
            return None
        if kind == SEND:
            self._at(at, self.call[rank_class][row], lambda: self._sent(rank_class, step, key))
            return None
        message = self.messages.pop(key, None)
        if message is not None and message.arrived is not None:
            return max(at, message.arrived)
        message = self.messages[key] = _Message()
        message.receiver = (rank_class, step, at)
        return None

    def _meet(self, rank_class: int, step: int, at: int, key: tuple[int, int]) -> None:
        """One class comes to a collective; when the last has said when it comes, the data moves from the latest on."""
        call = self.call[rank_class][self.of[rank_class].first[step]]
        meeting = self.meetings.get(key)
        if meeting is None:
            meeting = self.meetings[key] = _Meeting(call, self.parties[key[0]])
        elif meeting.call != call:
            raise InputError(self._disagree(meeting.call, call, rank_class))
        meeting.waiting -= 1
        meeting.came.append((rank_class, step, at))
        if meeting.waiting:
            return
        del self.meetings[key]
        starts = max(arrives for _, _, arrives in meeting.came)
        for other, of, arrives in meeting.came:
            self.wait[other][self.of[other].first[of]] = starts - arrives
        self._at(starts, call, lambda: self._met(meeting))

    def _met(self, meeting: _Meeting) -> None:
        for rank_class, step, _ in meeting.came:
            self._over(rank_class, step, self._now())

    def _now(self) -> int:
        # SimPy types its clock as a float; ours holds whole picoseconds
        return self.env.now  # type: ignore[return-value]

    def _sent(self, rank_class: int, step: int, key: tuple[int, int]) -> None:
        now = self._now()
        message = self.messages.get(key)
        if message is None:
            message = self.messages[key] = _Message()
            message.arrived = now
        else:
            del self.messages[key]
        self._over(rank_class, step, now)
        if message.receiver is not None:
            receiver, of, since = message.receiver
            self._over(receiver, of, max(since, now))

    def _at(self, at: int, call: int, done: Callable[[], None]) -> None:
        """Move the data of a call from a time on, which may be now, and say when it is there."""
        phases = self.plan.calls[call].phases
        delay_ps = at - self._now()
        if phases:
            self._move(phases, 0, done, delay_ps)
        else:
            # through the queue, so that rows of calls that move nothing do not pile up on the stack
            self.env.timeout(delay_ps).callbacks.append(lambda _: done())

    def _move(
        self, phases: Sequence[tuple[Demand, ...]], number: int, done: Callable[[], None], delay_ps: int = 0
    ) -> None:
        """The phases of a call from one on, one after the other; all demands of a phase at once."""
        if number == len(phases):
            done()
            return
        demands = phases[number]
        moved = (
            self.network.move(demands[0], delay_ps)
            if len(demands) == 1
            else simpy.AllOf(self.env, [self.network.move(demand, delay_ps) for demand in demands])
        )
        moved.callbacks.append(lambda _: self._move(phases, number + 1, done))

    def _timeline(self) -> Timeline:
        starts, ends, waits = [], [], []
        for rank_class in range(self.plan.classes):
            start = np.array(self.start[rank_class], np.int64)
            end = np.array(self.end[rank_class], np.int64)
            _fill(
                start,
                end,
                self.plan.hold_ps[rank_class],
                self.of[rank_class],
                self.host[rank_class] if self.host else None,
            )
            starts.append(start)
            ends.append(end)
            waits.append(np.array(self.wait[rank_class], np.int64))
        return Timeline(starts, ends, waits, self.network.log, self.host)

    def _disagree(self, first: int, second: int, rank_class: int) -> str:
        one, two = self.plan.calls[first], self.plan.calls[second]
        rank = self.plan.folding.first[rank_class]
        return (
            f"ranks of one group disagree: rank {rank} calls {two.collective} of {two.size_B:g} B where another rank "
            f"calls {one.collective} of {one.size_B:g} B"
        )

    def _stuck(self) -> str:
        lines = []
        for key, meeting in list(self.meetings.items())[:_NAMED]:
            rank_class, step, _ = meeting.came[0]
            name = self._name(rank_class, self.of[rank_class].first[step])
            call: Call = self.plan.calls[meeting.call]
            lines.append(
                f"rank {self.plan.folding.first[rank_class]} waits in '{name}' ({call.collective}, {call.size_B:g} B) "
                f"for {meeting.waiting} other class(es) of group class {key[0]}"
            )
        for message in self.messages.values():
            if message.receiver is not None and len(lines) < _NAMED:
                rank_class, step, _ = message.receiver
                name, rank = (
                    self._name(rank_class, self.of[rank_class].first[step]),
                    self.plan.folding.first[rank_class],
                )
                lines.append(f"rank {rank} waits in '{name}' for a message that is never sent")
        if not lines:
            lines.append("ops wait for each other in a circle")
        return f"ranks wait for each other for ever ({self.total - self.ended} ops left): " + "; ".join(lines)

    def _name(self, rank_class: int, row: int) -> str:
        ops = self.plan.programs.ops
        return ops.names[int(ops.name_id[self.plan.rows_of(rank_class).start + row])]


def _steps(plan: Plan, program: int) -> _Steps:
    """Cut each stream of a program into steps. Raises InputError for a dependency against stream order."""
    ops = plan.programs.ops
    first, last = int(plan.programs.program_ptr[program]), int(plan.programs.program_ptr[program + 1])
    stream = ops.stream[first:last]
    kind = ops.kind[first:last]
    slot = ops.slot[first:last]
    ptr = ops.dep_ptr[first : last + 1]
    dep = ops.dep_idx[ptr[0] : ptr[-1]]
    count = last - first
    owner = np.repeat(np.arange(count), np.diff(ptr))
    if len(dep) and (dep < 0).any() | (dep >= count).any():
        raise InputError("an op depends on a row outside its program")
    same = stream[dep] == stream[owner]
    if (same & (dep >= owner)).any():
        row = int(owner[np.argmax(same & (dep >= owner))])
        name = ops.names[int(ops.name_id[first + row])]
        raise InputError(f"op '{name}' waits for a later op of its own stream '{ops.streams[int(stream[row])]}'")
    owner, dep = owner[~same], dep[~same]
    awaited = np.zeros(count, bool)
    awaited[dep] = True
    waits = np.zeros(count, bool)
    waits[owner] = True
    # rows by stream, then in order
    rows = np.argsort(stream, kind="stable")
    comm = kind[rows] >= COLLECTIVE
    begins = comm | waits[rows]
    heads = np.ones(count, bool)
    heads[1:] = np.diff(stream[rows]) != 0
    begins |= heads
    begins[1:] |= comm[:-1] | awaited[rows[:-1]]
    # a hold covers contiguous rows only: its rows are filled in by sums
    begins[1:] |= np.diff(rows) != 1
    begin = np.flatnonzero(begins)
    end = np.append(begin[1:], count) - 1
    step = np.empty(count, np.int64)
    step[rows] = np.cumsum(begins) - 1
    follows = np.flatnonzero(~heads[begin])
    before = np.concatenate([follows - 1, step[dep]])
    after = np.concatenate([follows, step[owner]])
    order = np.argsort(before, kind="stable")
    bounds = np.searchsorted(before[order], np.arange(len(begin) + 1)).tolist()
    next_steps = after[order].tolist()
    return _Steps(
        first=rows[begin].tolist(),
        last=rows[end].tolist(),
        kind=kind[rows[begin]].tolist(),
        slot=slot[rows[begin]].tolist(),
        turn=_turns(slot, kind)[rows[begin]].tolist(),
        needs=np.bincount(after, minlength=len(begin)).tolist(),
        following=[tuple(next_steps[i:j]) for i, j in itertools.pairwise(bounds)],
    )


def _turns(slot: Ints, kind: Ints) -> Ints:
    """Of every row, how many rows before it have its slot and kind."""
    code = (slot + 1) * len(KINDS) + kind
    order = np.argsort(code, kind="stable")
    begins = np.ones(len(code), bool)
    begins[1:] = np.diff(code[order]) != 0
    position = np.arange(len(code))
    turn = np.empty(len(code), np.int64)
    turn[order] = position - np.maximum.accumulate(np.where(begins, position, 0))
    return turn


def _hold_sums(hold_ps: Ints, steps: _Steps) -> list[int]:
    """Length of every step's hold. [ps]"""
    until = np.concatenate([[0], np.cumsum(hold_ps)])
    sums: list[int] = (until[np.array(steps.last) + 1] - until[np.array(steps.first)]).tolist()
    return sums


def _fill(start: Ints, end: Ints, hold_ps: Ints, steps: _Steps, host_ps: Ints | None) -> None:
    """Rows inside holds, from the start of each hold, the lengths of its ops and their waits for the host, in place."""
    until = np.concatenate([[0], np.cumsum(hold_ps)])
    holds = np.array(steps.kind) <= HOST
    if not holds.any():
        return
    first, last = np.array(steps.first)[holds], np.array(steps.last)[holds]
    length = last - first + 1
    head = np.repeat(first, length)
    rows = head + np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    base = start[head]
    start[rows] = base + until[rows] - until[head]
    if host_ps is not None:
        waited = np.cumsum(host_ps)
        start[rows] += waited[rows] - waited[head] + host_ps[head]
    end[rows] = start[rows] + hold_ps[rows]
