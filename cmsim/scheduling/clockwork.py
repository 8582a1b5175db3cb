"""The clock of a run: instants at which something happens, one after the other, and what happens then.

At one instant jobs end first, hosts come back, others leave, services want more or less, jobs come; then there is one
turn of whoever waits.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cmsim.scheduling.decisions import Decisions
from cmsim.scheduling.outages import Closure, Upkeep
from cmsim.scheduling.standing import DAY_US, Replicas
from cmsim.scheduling.state import CLOCK, END, FAILURE, GIVEN_BACK, MAINTENANCE, HallState

#: order of what happens at one instant, beside jobs that come, which are last
_ENDS, _BACK, _AWAY, _PLANNED, _SERVICE = range(5)
#: days without a start or an end after which who still waits is said to wait for ever
_PATIENCE_US = 3 * DAY_US


@dataclass
class Lived:
    """until   when the clock was stopped [us]    events  instants
    free, scattered  by machine: accelerators that were free, and those outside the emptiest domain, times time [us]"""

    until: int = 0
    events: int = 0
    free: list[int] = field(default_factory=list)
    scattered: list[int] = field(default_factory=list)


class Clockwork:
    """One run. until: when the clock is stopped, None: when every job has ended [us]"""

    def __init__(
        self,
        state: HallState,
        turns: Decisions,
        *,
        services: Sequence[Replicas],
        outages: Sequence[Closure],
        planned: Sequence[Upkeep],
        until: int | None,
    ):
        self._state, self._turns, self._until = state, turns, until
        self._services, self._planned = services, planned
        self._outages = list(outages)
        self._heap: list[tuple[int, int, int, int]] = []
        self._first = [0]
        for service in services:
            self._first.append(self._first[-1] + service.most)
        for i in range(len(self._outages)):
            self._push(self._outages[i].at_us, _AWAY, i, 0)
        for i in range(len(planned)):
            self._plan(i, 0)
        for i in range(len(services)):
            self._push(0, _SERVICE, i, 0)
        self._repeats = max([one.every or 0 for one in planned], default=0)
        #: jobs that have not ended, and the next that comes
        self._open, self._next = state.count, 0
        self._moved = 0

    def _push(self, at: int, what: int, one: int, other: int) -> None:
        heapq.heappush(self._heap, (at, what, one, other))

    def _plan(self, one: int, number: int) -> None:
        outage = self._planned[one].number(number)
        if outage is not None:
            self._push(outage.at_us, _PLANNED, one, number)

    def live(self, progress: Callable[[float], None] | None = None) -> Lived:
        """To its end."""
        state, hall = self._state, self._state.hall
        submit: list[int] = state.book.jobs.submit_us.tolist()
        machines = range(len(hall.floors))
        lived = Lived(free=[0 for _ in machines], scattered=[0 for _ in machines])
        now, told = 0, 0.0
        free, apart = list(hall.machine_free), [hall.scattered(machine) for machine in machines]
        while (at := self._when(submit)) is not None:
            for machine in machines:
                lived.free[machine] += free[machine] * (at - now)
                lived.scattered[machine] += apart[machine] * (at - now)
            now = at
            if self._until is not None and now >= self._until:
                break
            quiet, came = self._happens(now), self._come(now, submit)
            for course in self._turns.turn(now, came if quiet else None):
                if course.job < state.count:
                    self._moved = now
                    self._push(course.end, _ENDS, course.job, 0)
            free, apart = list(hall.machine_free), [hall.scattered(machine) for machine in machines]
            lived.events += 1
            if progress is not None and state.count and (share := 1 - self._open / state.count) >= told + 0.01:
                told = share
                progress(share)
        self._stopped(now)
        lived.until = now
        return lived

    def _when(self, submit: Sequence[int]) -> int | None:
        """The next instant; None where nothing more is to come, or to be waited for."""
        if self._until is None and not self._open:
            return None
        next_ = submit[self._next] if self._next < len(submit) else None
        if self._heap and (next_ is None or self._heap[0][0] <= next_):
            next_ = self._heap[0][0]
        if next_ is None:
            return self._until
        if self._until is not None:
            return min(next_, self._until)
        if self._next == len(submit) and not self._runs() and next_ - self._moved > _PATIENCE_US + 2 * self._repeats:
            return None
        return next_

    def _runs(self) -> bool:
        """Whether any job runs: replicas of services are no reason to go on."""
        return any(job < self._state.count for job in self._state.running)

    def _come(self, now: int, submit: Sequence[int]) -> list[int]:
        """Jobs that come."""
        first = self._next
        while self._next < len(submit) and submit[self._next] == now:
            self._state.wait(self._next, now)
            self._next += 1
        return list(range(first, self._next))

    def _happens(self, now: int) -> bool:
        """Everything else; whether there was nothing."""
        quiet = True
        while self._heap and self._heap[0][0] == now:
            _, what, one, other = heapq.heappop(self._heap)
            quiet = False
            if what == _ENDS:
                self._ends(one, now)
            elif what == _BACK:
                self._comes_back(one, now)
            elif what == _AWAY:
                self._leaves(one, now)
            elif what == _PLANNED:
                outage = self._planned[one].number(other)
                assert outage is not None, "it was pushed"
                self._outages.append(outage)
                self._leaves(len(self._outages) - 1, now)
                self._plan(one, other + 1)
            else:
                self._wants(one, now)
        return quiet

    def _ends(self, job: int, now: int) -> None:
        course = self._state.running.get(job)
        if course is None or course.end != now:
            return  # it was stopped before, and has another end
        self._state.stop(job, now, END)
        self._turns.gone(course)
        self._open -= 1
        self._moved = now

    # hosts

    def _leaves(self, number: int, now: int) -> None:
        state, one = self._state, self._outages[number]
        why = MAINTENANCE if one.planned else FAILURE
        if one.part >= 0:
            self._breaks(int(one.hosts[0]), one, now)
            return
        jobs = sorted({job for host in one.hosts.tolist() for job in state.on[host]})
        for job in jobs:
            self._halt(job, now, why, one.since_us)
        many = state.hall.leave(one.machine, one.hosts)
        state.history.away.append((one.machine, now, many))
        state.expect_hosts(one.machine, one.hosts, one.until_us, -1 - number, back=False)
        self._push(one.until_us, _BACK, number, 0)

    def _breaks(self, host: int, one: Closure, now: int) -> None:
        """A part fails, and its host stays: the job that has that accelerator stops."""
        seat = one.part
        for job, many in sorted(self._state.on[host].items()):
            if seat < many:
                self._halt(job, now, FAILURE, one.since_us)
                return
            seat -= many

    def _halt(self, job: int, now: int, why: int, since: int) -> None:
        course = self._state.running[job]
        self._state.stop(job, now, why, since=since)
        self._turns.gone(course)
        if job >= self._state.count:
            self._turns.wanted = sorted([*self._turns.wanted, job])

    def _comes_back(self, number: int, now: int) -> None:
        state, one = self._state, self._outages[number]
        state.expect_hosts(one.machine, one.hosts, one.until_us, -1 - number, back=True)
        state.history.away.append((one.machine, now, -state.hall.come_back(one.machine, one.hosts)))
        self._moved = now

    # services

    def _wants(self, number: int, now: int) -> None:
        state, service = self._state, self._services[number]
        first = state.count + self._first[number]
        many = service.wanted(now)
        wanted = [one for one in self._turns.wanted if not first <= one < first + service.most]
        for replica in range(service.most):
            job = first + replica
            if replica < many:
                wanted += [] if job in state.running else [job]
            elif job in state.running:
                course = state.running[job]
                state.stop(job, now, GIVEN_BACK)
                self._turns.gone(course)
        self._turns.wanted = sorted(wanted)
        self._push(service.changes(now), _SERVICE, number, 0)

    def _stopped(self, now: int) -> None:
        """What still runs is written down as it is."""
        for job in list(self._state.running):
            self._state.stop(job, now, CLOCK)
