"""Jobs at one moment: who waits, who runs where and until when, what the hall draws; and what has been."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.kinds.jobs import JobsSpec
from cmsim.reliability.events import to_us
from cmsim.scheduling.asked import Submitted
from cmsim.scheduling.hall import Hall, Take
from cmsim.scheduling.lineup import Lineup, Teams, ranks
from cmsim.scheduling.paces import JobPace, PaceOf, Sort
from cmsim.scheduling.promise import NEVER, Expected
from cmsim.scheduling.standing import Replicas

#: how an attempt ended, as codes of columns
ENDS = ("end", "failure", "preemption", "maintenance", "service", "clock")
END, FAILURE, PREEMPTION, MAINTENANCE, GIVEN_BACK, CLOCK = range(len(ENDS))
#: watts by which sums of the same watts may differ
_SAME_W = 1e-6


@dataclass(frozen=True)
class JobCourse:
    """Who runs: where, how quick, since when, until when, and as expected; until `works` it only starts again. [us]"""

    job: int
    take: Take
    pace: JobPace
    start: int
    works: int
    end: int
    expected: int


@dataclass
class History:
    """What has been: rows of attempts, and of hosts that were away."""

    #: job, machine, domains, accelerators, start, end, kept, slow (of what was kept, lost by lying apart), how it
    #: ended, in the queue since
    attempts: list[tuple[int, int, int, int, int, int, int, float, int, int]] = field(default_factory=list)
    #: of each attempt, the pace it had
    paces: list[JobPace] = field(default_factory=list)
    #: machine, when, accelerators that go away (above 0) or are there again
    away: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Docket:
    """What does not change in a run.

    sorts, sort_of    of jobs, and behind them of replicas of services    prefer  by job: machines, quickest first
    alone_us          by job, on the reference machine    expected_us  by machine and job: on the fewest domains
    can               by machine and job: whether it may run there
    """

    jobs: Submitted
    sorts: Sequence[Sort]
    sort_of: Sequence[int]
    prefer: Sequence[tuple[int, ...]]
    alone_us: Ints
    expected_us: Sequence[Ints]
    can: Sequence[NDArray[np.bool_]]


class HallState:
    """What starts and stops, kept in step: room, teams, watts, what is expected back, what is written down."""

    def __init__(
        self,
        spec: JobsSpec,
        book: Docket,
        hall: Hall,
        pace_of: PaceOf,
        services: Sequence[Replicas],
        *,
        idle_W: float,
        fails: bool,
    ):
        self.spec, self.book, self.hall, self.pace_of = spec, book, hall, pace_of
        jobs = book.jobs
        self.count = len(jobs)
        self.packages: list[int] = [book.sorts[sort].packages for sort in book.sort_of]
        self.left_us: list[int] = jobs.work_us.tolist()
        self.starts = [0] * self.count
        self.since = jobs.submit_us.tolist()
        self.team: list[int] = jobs.team.tolist()
        self.priority: list[int] = jobs.priority.tolist()
        self.teams = Teams(spec.teams, borrow=spec.preemption == "quota")
        #: replicas of services stand behind jobs: of which service each is, and its number there
        self.replica = [(service, i) for service in services for i in range(service.most)]
        self._over, self._restart = spec.overestimate, int(to_us(spec.restart_s))
        self._saves = int(to_us(spec.checkpoint_s))
        rest = [np.where(can, one, NEVER) for one, can in zip(book.expected_us, book.can, strict=True)]
        #: by machine and job: expected length of what is left, NEVER where it may not run
        self.rest_us: list[list[int]] = [one.tolist() for one in rest]
        self.lineup = Lineup(
            ranks(spec.queue, jobs.submit_us, np.minimum.reduce(rest), jobs.priority),
            jobs.packages,
            jobs.team,
            self.teams,
            machines=len(hall.floors),
            fair=spec.queue == "fair_share",
        )
        self.running: dict[int, JobCourse] = {}
        self.machine_back = [Expected() for _ in hall.floors]
        self.domain_back = [Expected() for _ in hall.domain_size] if spec.placement == "one_domain" else []
        self.budget_W = spec.power_budget_W if spec.power_budget_W is not None else math.inf
        self.now_W = idle_W
        self.watts_back = Expected()
        self.on: list[dict[int, int]] = [{} for _ in hall.size] if fails else []
        self.history = History()

    def spare_W(self) -> float:
        """What the budget leaves."""
        return self.budget_W - self.now_W + _SAME_W

    def sort(self, job: int) -> Sort:
        return self.book.sorts[self.book.sort_of[job]]

    def find(self, job: int, machine: int, *, without: int = -1) -> tuple[Take, JobPace] | None:
        """Where it would lie on a machine now, and how quick it would be; None where there is no room, or no watts."""
        need = self.packages[job]
        if not self.hall.room(machine, need):
            return None
        take = self.hall.place(machine, need, without=without)
        if take is None:
            return None
        pace = self.pace_of(self.sort(job), machine, len(take.domains))
        return (take, pace) if need * pace.watts[1] <= self.spare_W() else None

    def length_us(self, job: int, pace: JobPace) -> int:
        """How long it runs from here, with starting again."""
        return math.ceil(self.left_us[job] / pace.speed) + self.again_us(job)

    def again_us(self, job: int) -> int:
        """How long a job that was stopped takes to start."""
        return self._restart if self.starts[job] else 0

    def expects(self, job: int, pace: JobPace, now: int) -> int:
        """When it is expected to end. [us]"""
        return now + math.ceil(self.length_us(job, pace) * self._over)

    def start(self, job: int, take: Take, pace: JobPace, now: int) -> JobCourse:
        """It runs from now on."""
        if job < self.count:
            works = now + self.again_us(job)
            course = JobCourse(
                job, take, pace, now, works, now + self.length_us(job, pace), self.expects(job, pace, now)
            )
            self.starts[job] += 1
            self.lineup.remove(job)
            self.teams.used[self.team[job]] += take.packages
        else:
            service, number = self.replica[job - self.count]
            course = JobCourse(job, take, pace, now, now, NEVER, service.needed(now, number))
        self.hall.take(take)
        self.running[job] = course
        self.machine_back[take.machine].add(course.expected, job, take.packages)
        if self.domain_back:
            for domain, many in zip(take.domains, take.by_domain, strict=True):
                self.domain_back[domain].add(course.expected, job, many)
        self._draw(course, 1)
        if self.on:
            for host, many in zip(take.hosts.tolist(), take.many.tolist(), strict=True):
                self.on[host][job] = many
        return course

    def _draw(self, course: JobCourse, sign: int) -> None:
        watts = course.take.packages * course.pace.watts[1]
        self.now_W += sign * watts
        if self.budget_W < math.inf:
            (self.watts_back.add if sign > 0 else self.watts_back.remove)(course.expected, course.job, watts)

    def stop(self, job: int, now: int, why: int, *, since: int | None = None) -> None:
        """It runs no longer. What it did since its last checkpoint is lost unless it ended, or was told in time.

        since: when what it does ceased to count
        """
        course = self.running.pop(job)
        take = course.take
        self.hall.give(take)
        self.machine_back[take.machine].remove(course.expected, job, take.packages)
        if self.domain_back:
            for domain, many in zip(take.domains, take.by_domain, strict=True):
                self.domain_back[domain].remove(course.expected, job, many)
        self._draw(course, -1)
        if self.on:
            for host in take.hosts.tolist():
                del self.on[host][job]
        if job >= self.count:
            self._write(course, now, now - course.start, why, 0.0, course.start)
            return
        self.teams.used[self.team[job]] -= take.packages
        worked = max(min(now if since is None else since, now) - course.works, 0)
        kept = worked if why in (END, MAINTENANCE, CLOCK) else worked // self._saves * self._saves
        self._write(course, now, kept, why, self._slow(course), self.since[job])
        if why in (END, CLOCK):
            return
        self.left_us[job] = max(self.left_us[job] - math.floor(kept * course.pace.speed), 1)
        self.wait(job, now)

    def _slow(self, course: JobCourse) -> float:
        """Share of its time that it would not have needed on the fewest domains."""
        if len(course.take.domains) == 1:
            return 0.0
        near = self.pace_of(self.sort(course.job), course.take.machine, 1)
        return max(1 - course.pace.speed / near.speed, 0.0) if near.speed else 0.0

    def _write(self, course: JobCourse, now: int, kept: int, why: int, slow: float, since: int) -> None:
        take = course.take
        row = (course.job, take.machine, len(take.domains), take.packages, course.start, now, kept, slow, why, since)
        self.history.attempts.append(row)
        self.history.paces.append(course.pace)

    def wait(self, job: int, now: int) -> None:
        """It stands in the queue from now on."""
        self.since[job] = now
        if self.starts[job]:
            for machine in self.book.prefer[job]:
                pace = self.pace_of(self.sort(job), machine, 1)
                self.rest_us[machine][job] = self.expects(job, pace, 0)
        self.lineup.add(job, [rest[job] for rest in self.rest_us])

    def expect_hosts(self, machine: int, hosts: Ints, until: int, who: int, *, back: bool) -> None:
        """Hosts that are away are expected back then; back: no longer, for they are there."""
        many = int(self.hall.size[hosts].sum())
        (self.machine_back[machine].remove if back else self.machine_back[machine].add)(until, who, many)
        if self.domain_back:
            domains, where = np.unique(self.hall.domain_of[hosts], return_inverse=True)
            for domain, much in zip(domains.tolist(), np.bincount(where, self.hall.size[hosts]).tolist(), strict=True):
                (self.domain_back[domain].remove if back else self.domain_back[domain].add)(until, who, int(much))
