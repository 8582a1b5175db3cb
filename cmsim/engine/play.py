"""Playing a plan on SimPy.

One process per rank class and stream. A process knows three things: hold its stream, meet the others of a
group, move a demand through the network. Runs of ops that nobody outside the stream waits for are one hold;
their rows are filled in afterwards by integer sums.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
import simpy
from numpy.typing import NDArray

from cmsim.engine.calls import Call
from cmsim.engine.plan import Plan
from cmsim.errors import InfeasibleError, InputError
from cmsim.network import NETWORKS, Demand, Network, Segment, fire
from cmsim.workload.ops import COLLECTIVE, HOST, KINDS, RECV, SEND

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


class _Step(NamedTuple):
    """A hold over rows first..last of a stream, or one communication row (then first == last) on a group slot.

    turn: how many rows of the program before it do the same (meet, send or receive) in the slot. Members of a group
    match their calls by it, as libraries match them in the order of issue; the order in which the streams of a rank
    come by is its own.
    """

    first: int
    last: int
    kind: int
    slot: int
    turn: int
    after: tuple[int, ...]
    awaited: bool


class _Meeting:
    """One call of a collective: who has yet to come, and what the first comer brought."""

    __slots__ = ("call", "event", "since", "waiting")

    def __init__(self, event: simpy.Event, call: int, waiting: int):
        self.event = event
        self.call = call
        self.waiting = waiting
        self.since: list[tuple[int, int]] = []


def play(plan: Plan, network: str | None = None, *, progress: Callable[[float], None] | None = None) -> Timeline:
    """Run a plan. Raises InfeasibleError where ranks wait for each other for ever.

    network: ideal or fluid, default what was planned for; links can be played as links only
    progress: called now and then with the share of ops that have ended, 0 to 1
    """
    return _Player(plan, network or plan.network).run(progress)


class _Player:
    def __init__(self, plan: Plan, network: str):
        self.plan = plan
        self.env = simpy.Environment(initial_time=0)
        self.network: Network = NETWORKS[network](self.env, plan.resources.capacity_Bps, plan.resources.changes_ps)
        rows = [len(hold) for hold in plan.hold_ps]
        # SimPy types its clock as a float; ours holds whole picoseconds
        self.start: list[list[float]] = [[0] * n for n in rows]
        self.end: list[list[float]] = [[0] * n for n in rows]
        self.wait: list[list[float]] = [[0] * n for n in rows]
        # per class and row: None (not awaited yet), True (ended), or the event that others wait for
        self.done: list[list[simpy.Event | bool | None]] = [[None] * n for n in rows]
        # per class and row: how long it waited for the host
        self.host = [np.zeros(n, np.int64) for n in rows] if plan.issue_ps else []
        self.meetings: dict[tuple[int, int], _Meeting] = {}
        self.messages: dict[tuple[int, int], simpy.Event] = {}
        self.parties = np.bincount(plan.folding.group_class[plan.folding.group_class >= 0].ravel()).tolist()
        self.ended = 0
        self.total = sum(rows)

    def run(self, progress: Callable[[float], None] | None) -> Timeline:
        steps = [_steps(self.plan, program) for program in range(len(self.plan.programs.program_ptr) - 1)]
        for rank_class in range(self.plan.classes):
            for stream in steps[self.plan.program_of(rank_class)]:
                self.env.process(self._stream(rank_class, stream))
        collecting = gc.isenabled()
        # Events come and go by the million and none is in a cycle: looking for cycles costs a tenth of the run.
        gc.disable()
        try:
            self._drain(progress)
        finally:
            if collecting:
                gc.enable()
        if self.ended != self.total:
            raise InfeasibleError(self._stuck(steps))
        return self._timeline(steps)

    def _drain(self, progress: Callable[[float], None] | None) -> None:
        """Run until nothing is left to happen."""
        if progress is None:
            self.env.run()
        else:
            while self.env.peek() != simpy.core.Infinity:
                for _ in range(_PROGRESS_EVERY):
                    try:
                        self.env.step()
                    except simpy.core.EmptySchedule:
                        break
                progress(self.ended / max(self.total, 1))

    def _stream(self, rank_class: int, steps: list[_Step]) -> Generator[simpy.Event, object, None]:
        env, move, done = self.env, self.network.move, self.done[rank_class]
        start, end = self.start[rank_class], self.end[rank_class]
        hold = _hold_sums(self.plan.hold_ps[rank_class], steps)
        group = self.plan.folding.group_class[rank_class].tolist()
        call = self.plan.call[rank_class].tolist()
        calls, parties = self.plan.calls, self.parties
        issued = self.plan.issue_ps[rank_class] if self.plan.issue_ps else None
        for step, hold_ps in zip(steps, hold, strict=True):
            first, last, kind, slot, turn, after, awaited = step
            for row in after:
                mark = done[row]
                if mark is None:
                    mark = done[row] = env.event()
                if mark is not True:
                    yield mark  # type: ignore[misc]
            if issued is not None:
                hold_ps = self._issue(rank_class, step, hold_ps)
                if kind > HOST and hold_ps:
                    yield env.timeout(hold_ps)
            start[first] = env.now
            if kind <= HOST:
                if hold_ps:
                    yield env.timeout(hold_ps)
            elif kind == COLLECTIVE:
                if parties[group[slot]] == 1:
                    # all members are of this class and arrive as one
                    for demands in calls[call[first]].phases:
                        yield move(demands[0]) if len(demands) == 1 else self._together(demands)
                else:
                    yield from self._meet(rank_class, step, group[slot], call[first])
            elif kind == SEND:
                message = self._message(group[slot], turn)
                for demands in calls[call[first]].phases:
                    yield move(demands[0]) if len(demands) == 1 else self._together(demands)
                fire(message)
            else:
                yield self._message(group[slot], turn)
            end[last] = env.now
            self.ended += last - first + 1
            if awaited:
                mark = done[last]
                done[last] = True
                if mark is not None:
                    fire(mark)  # type: ignore[arg-type]

    def _issue(self, rank_class: int, step: _Step, hold_ps: int) -> int:
        """How long a step takes from now when the host must issue its ops; of communication, until it is issued. [ps]

        An op starts when it is issued and its forerunner has ended: with K the running sum of times k, ends are K + the
        running maximum of what is issued less K - k.
        """
        now: int = self.env.now  # type: ignore[assignment]  # whole picoseconds
        rows = slice(step.first, step.last + 1)
        issued = self.plan.issue_ps[rank_class][rows]
        if step.kind > HOST:
            self.host[rank_class][step.first] = wait = max(int(issued[0]) - now, 0)
            return wait
        if issued[-1] <= now:
            return hold_ps
        k = self.plan.hold_ps[rank_class][rows]
        before = np.cumsum(k) - k
        lag = np.maximum.accumulate(np.maximum(issued - before, now))
        starts = before + lag
        self.host[rank_class][rows] = np.diff(lag, prepend=now)
        return int(starts[-1] + k[-1]) - now

    def _meet(self, rank_class: int, step: _Step, group: int, call: int) -> Generator[simpy.Event, object, None]:
        """Wait for the other classes of the group; the last to come moves the data for all."""
        env = self.env
        key = (group, step.turn)
        meeting = self.meetings.get(key)
        if meeting is None:
            meeting = self.meetings[key] = _Meeting(env.event(), call, self.parties[group])
        elif meeting.call != call:
            raise InputError(self._disagree(meeting.call, call, rank_class))
        meeting.waiting -= 1
        meeting.since.append((rank_class, step.first))
        if meeting.waiting:
            yield meeting.event
            return
        del self.meetings[key]
        for other, row in meeting.since:
            self.wait[other][row] = env.now - self.start[other][row]
        for demands in self.plan.calls[call].phases:
            yield self.network.move(demands[0]) if len(demands) == 1 else self._together(demands)
        fire(meeting.event)

    def _together(self, demands: tuple[Demand, ...]) -> simpy.Event:
        """Fires when all of them are met."""
        return simpy.AllOf(self.env, [self.network.move(demand) for demand in demands])

    def _message(self, group: int, turn: int) -> simpy.Event:
        """The n-th message of a channel: made by whichever end comes first, found by the other."""
        key = (group, turn)
        return self.messages.pop(key) if key in self.messages else self.messages.setdefault(key, self.env.event())

    def _timeline(self, steps: list[list[list[_Step]]]) -> Timeline:
        starts, ends, waits = [], [], []
        for rank_class in range(self.plan.classes):
            start = np.array(self.start[rank_class], np.int64)
            end = np.array(self.end[rank_class], np.int64)
            hold = self.plan.hold_ps[rank_class]
            for stream in steps[self.plan.program_of(rank_class)]:
                _fill(start, end, hold, stream, self.host[rank_class] if self.host else None)
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

    def _stuck(self, steps: list[list[list[_Step]]]) -> str:
        lines = []
        for key, meeting in list(self.meetings.items())[:_NAMED]:
            rank_class, row = meeting.since[0]
            name = self._name(rank_class, row)
            call: Call = self.plan.calls[meeting.call]
            lines.append(
                f"rank {self.plan.folding.first[rank_class]} waits in '{name}' ({call.collective}, {call.size_B:g} B) "
                f"for {meeting.waiting} other class(es) of group class {key[0]}"
            )
        asked = {key for key, message in self.messages.items() if not message.triggered}
        for rank_class in range(self.plan.classes):
            group = self.plan.folding.group_class[rank_class].tolist()
            for step in chain.from_iterable(steps[self.plan.program_of(rank_class)]):
                if len(lines) < _NAMED and step.kind == RECV and (group[step.slot], step.turn) in asked:
                    name, rank = self._name(rank_class, step.first), self.plan.folding.first[rank_class]
                    lines.append(f"rank {rank} waits in '{name}' for a message that is never sent")
        if not lines:
            lines.append("ops wait for each other in a circle")
        return f"ranks wait for each other for ever ({self.total - self.ended} ops left): " + "; ".join(lines)

    def _name(self, rank_class: int, row: int) -> str:
        ops = self.plan.programs.ops
        return ops.names[int(ops.name_id[self.plan.rows_of(rank_class).start + row])]


def _steps(plan: Plan, program: int) -> list[list[_Step]]:
    """Cut each stream of a program into steps. Raises InputError for a dependency against stream order."""
    ops = plan.programs.ops
    first, last = int(plan.programs.program_ptr[program]), int(plan.programs.program_ptr[program + 1])
    stream = ops.stream[first:last]
    kind = ops.kind[first:last]
    slot = ops.slot[first:last]
    ptr = ops.dep_ptr[first : last + 1]
    dep = ops.dep_idx[ptr[0] : ptr[-1]]
    owner = np.repeat(np.arange(last - first), np.diff(ptr))
    if len(dep) and (dep < 0).any() | (dep >= last - first).any():
        raise InputError("an op depends on a row outside its program")
    same = stream[dep] == stream[owner]
    if (same & (dep >= owner)).any():
        row = int(owner[np.argmax(same & (dep >= owner))])
        name = ops.names[int(ops.name_id[first + row])]
        raise InputError(f"op '{name}' waits for a later op of its own stream '{ops.streams[int(stream[row])]}'")
    owner, dep = owner[~same], dep[~same]
    awaited = np.zeros(last - first, bool)
    awaited[dep] = True
    waits = np.zeros(last - first, bool)
    waits[owner] = True
    turn = _turns(slot, kind)
    waited = dep.tolist()
    out = []
    for number in np.unique(stream):
        rows = np.flatnonzero(stream == number)
        comm = kind[rows] >= COLLECTIVE
        starts = comm | waits[rows]
        starts[0] = True
        starts[1:] |= comm[:-1] | awaited[rows[:-1]]
        # a hold covers contiguous rows only: its rows are filled in by sums
        starts[1:] |= np.diff(rows) != 1
        begin = np.flatnonzero(starts)
        end = np.append(begin[1:], len(rows)) - 1
        left, right = np.searchsorted(owner, rows[begin]), np.searchsorted(owner, rows[begin], side="right")
        out.append(
            [
                _Step(a, b, k, s, t, tuple(waited[i:j]), w)
                for a, b, k, s, t, i, j, w in zip(
                    rows[begin].tolist(),
                    rows[end].tolist(),
                    kind[rows[begin]].tolist(),
                    slot[rows[begin]].tolist(),
                    turn[rows[begin]].tolist(),
                    left.tolist(),
                    right.tolist(),
                    awaited[rows[end]].tolist(),
                    strict=True,
                )
            ]
        )
    return out


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


def _hold_sums(hold_ps: Ints, steps: list[_Step]) -> list[int]:
    """Length of every step's hold. [ps]"""
    until = np.concatenate([[0], np.cumsum(hold_ps)])
    bounds = np.array([(step.first, step.last + 1) for step in steps])
    sums: list[int] = (until[bounds[:, 1]] - until[bounds[:, 0]]).tolist()
    return sums


def _fill(start: Ints, end: Ints, hold_ps: Ints, steps: list[_Step], host_ps: Ints | None) -> None:
    """Rows inside holds, from the start of each hold, the lengths of its ops and their waits for the host, in place."""
    until = np.concatenate([[0], np.cumsum(hold_ps)])
    holds = [(step.first, step.last) for step in steps if step.kind <= HOST]
    if not holds:
        return
    first, last = np.array(holds).T
    length = last - first + 1
    head = np.repeat(first, length)
    rows = head + np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    base = start[head]
    start[rows] = base + until[rows] - until[head]
    if host_ps is not None:
        waited = np.cumsum(host_ps)
        start[rows] += waited[rows] - waited[head] + host_ps[head]
    end[rows] = start[rows] + hold_ps[rows]
