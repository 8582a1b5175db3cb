"""One plan being played: what has ended on every rank class, and what it waits for.

What happens on one rank between its communication is known ahead: a step starts when the last that it waits for ends,
so times of local steps follow at once, in a loop, from the ends before them, though they lie in the future. Only what
moves data is an event of the simulation, and a chain of collectives that nobody meets is one event. Where rates of
cores may change, kernels are events too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import simpy

from cmsim.engine.calls import Call
from cmsim.engine.chains import Chain, Timing, chains, together
from cmsim.engine.plan import Plan
from cmsim.engine.steps import cut, fill, hold_sums
from cmsim.engine.timeline import Timeline
from cmsim.errors import InputError
from cmsim.network import Core, Demand, Log, Network, Ride
from cmsim.units import on_clock
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, SEND

Phases = Sequence[Sequence[Demand]]

#: ops that a message about a deadlock names
_NAMED = 3


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


class Running:
    """A plan on a clock, from now on.

    network, phases  what carries data, and the demands of each call on it, phase by phase
    cores            where their rates may change: the core of each class; empty where times are fixed
    ended            called with nothing when all times are known, some of which may lie ahead
    """

    def __init__(
        self,
        env: simpy.Environment,
        plan: Plan,
        network: Network,
        phases: Sequence[Phases],
        ended: Callable[[], None],
        *,
        cores: Sequence[Core] = (),
    ):
        self.plan = plan
        self.env = env
        self.network = network
        self.phases = phases
        self.begin_ps = self._now()
        self.log = Log()
        self.ended = 0
        self.total = sum(len(hold) for hold in plan.hold_ps)
        self.over = False
        self._tell = ended
        self.cores = cores
        steps = [cut(plan, program, singly=bool(cores)) for program in range(len(plan.programs.program_ptr) - 1)]
        self.of = [steps[plan.program_of(rank_class)] for rank_class in range(plan.classes)]
        rows = [len(hold) for hold in plan.hold_ps]
        self.start = [[0] * n for n in rows]
        self.end = [[0] * n for n in rows]
        self.wait = [[0] * n for n in rows]
        # per class and step: when it can start as far as is known, how many it still waits for, how long it holds
        self.ready = [[self.begin_ps] * len(steps.first) for steps in self.of]
        self.needs = [list(steps.needs) for steps in self.of]
        self.hold = [hold_sums(hold, steps) for hold, steps in zip(plan.hold_ps, self.of, strict=True)]
        self.issue_ps = [issued + self.begin_ps for issued in plan.issue_ps]
        # per class and row: how long it waited for the host
        self.host = [np.zeros(n, np.int64) for n in rows] if plan.issue_ps else []
        self.group = plan.folding.group_class.tolist()
        self.call = [call.tolist() for call in plan.call]
        self.meetings: dict[tuple[int, int], _Meeting] = {}
        self.messages: dict[tuple[int, int], _Message] = {}
        self.chains: list[list[Chain]] = []
        self.chain: list[list[int]] = []
        self.place: list[list[int]] = []
        self.timings: dict[bytes, Timing] = {}
        # per class: stretches of chains that have come true, as (chain, from step, to step, beginning of the chain)
        self.rode: list[list[tuple[Chain, int, int, int]]] = [[] for _ in rows]
        self.parties = np.bincount(plan.folding.group_class[plan.folding.group_class >= 0].ravel()).tolist()
        members = together(plan)
        for rank_class, of in enumerate(self.of):
            found, chain, place = self._chains(rank_class, members[rank_class]) if of.first else ([], [], [])
            self.chains.append(found)
            self.chain.append(chain)
            self.place.append(place)

    def _chains(self, rank_class: int, together: list[int]) -> tuple[list[Chain], list[int], list[int]]:
        """Chains of a class; there are none where times are not known ahead. ``together``: see `chains`."""
        steps, calls = self.of[rank_class], self.call[rank_class]
        if self.issue_ps or self.cores or max(together, default=-1) < 0:
            return [], [-1] * len(steps.first), []
        who = [together[slot] if kind == COLLECTIVE else -1 for kind, slot in zip(steps.kind, steps.slot, strict=True)]
        call = [calls[row] for row in steps.first]
        return chains(steps, self.hold[rank_class], call, who, self.phases, self.network, self.timings)

    def begin(self) -> None:
        """Start every step that waits for nothing."""
        for rank_class, steps in enumerate(self.of):
            self._settle(rank_class, [step for step, needs in enumerate(steps.needs) if not needs][::-1])

    def _settle(self, rank_class: int, todo: list[int]) -> None:
        """Times of steps that wait for nothing more, and of all that follow from them on this rank."""
        first, last, kind, _, _, _, following, *_ = self.of[rank_class]
        ready, needs, hold = self.ready[rank_class], self.needs[rank_class], self.hold[rank_class]
        start, end = self.start[rank_class], self.end[rank_class]
        eager, worked = bool(self.issue_ps), bool(self.cores)
        while todo:
            step = todo.pop()
            at = ready[step]
            if kind[step] > HOST:
                ends = self._communicate(rank_class, step, at)
                if ends is None:
                    continue
            elif worked and kind[step] == COMPUTE:
                self._work(rank_class, step, at)
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
        if self.ended == self.total and not self.over:
            self.over = True
            self._tell()

    def _over(self, rank_class: int, step: int, ends: int) -> None:
        """A communication step has ended."""
        self.end[rank_class][self.of[rank_class].last[step]] = ends
        self.ended += 1
        self._settle(rank_class, self._free(rank_class, step, ends))

    def _free(self, rank_class: int, step: int, ends: int) -> list[int]:
        """Of those that wait for a step the ones that wait for nothing more."""
        ready, needs = self.ready[rank_class], self.needs[rank_class]
        todo = []
        for after in self.of[rank_class].following[step]:
            if ready[after] < ends:
                ready[after] = ends
            needs[after] -= 1
            if not needs[after]:
                todo.append(after)
        return todo

    def _work(self, rank_class: int, step: int, at: int) -> None:
        """A kernel as work on the cores of its class, from ``at`` on."""
        row = self.of[rank_class].first[step]
        if self.issue_ps:
            self.host[rank_class][row] = wait = max(int(self.issue_ps[rank_class][row]) - at, 0)
            at += wait
        self.start[rank_class][row] = at
        work = self.cores[rank_class].run(self.hold[rank_class][step], at - self._now())
        work.callbacks.append(lambda _: self._over(rank_class, step, self._now()))

    def _issue(self, rank_class: int, step: int, at: int) -> int:
        """How long a step takes from ``at`` when the host issues its ops; of communication, until it is issued. [ps]

        An op starts when it is issued and its forerunner has ended: with K the running sum of times k, ends are K + the
        running maximum of what is issued less K - k.
        """
        steps = self.of[rank_class]
        rows = slice(steps.first[step], steps.last[step] + 1)
        issued = self.issue_ps[rank_class][rows]
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
        if self.issue_ps:
            at += self._issue(rank_class, step, at)
        steps = self.of[rank_class]
        row, kind = steps.first[step], steps.kind[step]
        self.start[rank_class][row] = at
        key = (self.group[rank_class][steps.slot[step]], steps.turn[step])
        if kind == COLLECTIVE:
            if self.parties[key[0]] == 1:
                # all members are of this class and arrive as one
                self._all_there((rank_class,), step, at)
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

    def _all_there(self, classes: Sequence[int], step: int, at: int) -> None:
        """All classes of a group have come to one step, a collective, whose data moves from ``at`` on."""
        if self.chain[classes[0]][step] < 0 or not self._ride(classes, step, at):
            call = self.call[classes[0]][self.of[classes[0]].first[step]]
            self._at(at, call, lambda: self._all_over(classes, step))

    def _all_over(self, classes: Sequence[int], step: int) -> None:
        for rank_class in classes:
            self._over(rank_class, step, self._now())

    def _ride(self, classes: Sequence[int], step: int, at: int) -> bool:
        """Take the rest of a chain at once, from ``at`` on; False where that is nothing or somebody is in the way."""
        one = classes[0]
        chain = self.chains[one][self.chain[one][step]]
        here, timing = self.place[one][step], chain.timing
        if here + 1 == len(chain.steps) or chain.beside[here]:
            return False  # work beside it began when the group was not yet there
        base = at - int(timing.start[here])

        def done(until: int) -> None:
            """What has ended of it, and when the step after that has begun."""
            row = int(chain.first[until])
            for rank_class in classes:
                self.rode[rank_class].append((chain, here, until, base))
                self.ended += chain.rows[until] - chain.rows[here]
                self.start[rank_class][row] = base + int(timing.start[until]) - self.wait[rank_class][row]
                if chain.beside[until]:
                    self._free(rank_class, chain.steps[until - 1], base + int(timing.end[until - 1]))

        def ended() -> None:
            done(len(chain.steps) - 1)
            self._all_over(classes, chain.steps[-1])

        def broken(part: int, event: simpy.Event) -> None:
            at_step, phase = timing.step[part], timing.phase[part] + 1
            done(at_step)
            phases = self.phases[self.call[one][int(chain.first[at_step])]]
            event.callbacks.append(
                lambda _: self._move(phases, phase, lambda: self._all_over(classes, chain.steps[at_step]))
            )

        return self.network.ride(Ride(timing.train, timing.part[here], base, self.log, ended, broken))

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
        if self.chain[rank_class][step] >= 0:
            # classes that share a chain run the same program
            self._all_there([other for other, _, _ in meeting.came], step, starts)
        else:
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
        phases = self.phases[call]
        delay_ps = at - self._now()
        if phases:
            self._move(phases, 0, done, delay_ps)
        else:
            # through the queue, so that rows of calls that move nothing do not pile up on the stack
            self.env.timeout(delay_ps).callbacks.append(lambda _: done())

    def _move(self, phases: Phases, number: int, done: Callable[[], None], delay_ps: int = 0) -> None:
        """The phases of a call from one on, one after the other; all demands of a phase at once."""
        if number == len(phases):
            done()
            return
        demands = phases[number]
        moved = (
            self.network.move(demands[0], delay_ps, self.log)
            if len(demands) == 1
            else simpy.AllOf(self.env, [self.network.move(demand, delay_ps, self.log) for demand in demands])
        )
        moved.callbacks.append(lambda _: self._move(phases, number + 1, done))

    def timeline(self, origin: Mapping[int, Demand]) -> Timeline:
        """Times from the launch on. ``origin``: the plan's own demand by the identity of what carried it; empty where
        they are the same."""
        starts, ends, waits = [], [], []
        on_clock(max((max(end) for end in self.end if end), default=0))
        for rank_class in range(self.plan.classes):
            start = np.array(self.start[rank_class], np.int64)
            end = np.array(self.end[rank_class], np.int64)
            wait = np.array(self.wait[rank_class], np.int64)
            for chain, here, there, base in self.rode[rank_class]:
                rows = chain.first[here:there]
                start[rows] = base + chain.timing.start[here:there] - wait[rows]
                end[chain.last[here:there]] = base + chain.timing.end[here:there]
            host = self.host[rank_class] if self.host else None
            fill(start, end, self.plan.hold_ps[rank_class], self.of[rank_class], host, worked=bool(self.cores))
            starts.append(start - self.begin_ps)
            ends.append(end - self.begin_ps)
            waits.append(wait)
        return Timeline(starts, ends, waits, self.log.moved(self.begin_ps, origin), self.host, self.begin_ps)

    def _disagree(self, first: int, second: int, rank_class: int) -> str:
        one, two = self.plan.calls[first], self.plan.calls[second]
        rank = self.plan.folding.first[rank_class]
        return (
            f"ranks of one group disagree: rank {rank} calls {two.collective} of {two.size_B:g} B where another rank "
            f"calls {one.collective} of {one.size_B:g} B"
        )

    def stuck(self) -> str:
        """Who waits for whom, in words."""
        first = self.plan.folding.first
        lines = [f"cores of rank {first[i]} stand still" for i, core in enumerate(self.cores) if core.still][:_NAMED]
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
