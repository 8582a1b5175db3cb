"""Who starts at an instant: services, then the queue in its order, then whoever delays nobody; or as a policy says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.scheduling.hall import Take
from cmsim.scheduling.own import Offer, PolicyFunction, asked
from cmsim.scheduling.paces import JobPace
from cmsim.scheduling.promise import NEVER, Promise
from cmsim.scheduling.state import PREEMPTION, HallState, JobCourse


class Decisions:
    """The decisions of a run. Each takes what the state has, and starts or stops.

    policy  of the user's own, in place of the queue and of backfilling
    """

    def __init__(self, state: HallState, policy: PolicyFunction | None):
        self._state, self._policy = state, policy
        self._easy = state.spec.backfill == "easy"
        self._preemption = state.spec.preemption
        #: replicas of services that are wanted and have nothing
        self.wanted: list[int] = []
        #: jobs that run, by priority
        self._priorities: Counter[int] = Counter()
        self.started: list[JobCourse] = []
        #: who was first in the last turn and could not start
        self._blocked = -1

    def turn(self, now: int, came: list[int] | None = None) -> list[JobCourse]:
        """Everything that starts now. came: jobs that came, where nothing else has happened since the last turn"""
        self.started = []
        if self.wanted:
            self.wanted = [one for one in self.wanted if not (self._begin(one, now) or self._evicting(one, now))]
        if not len(self._state.lineup):
            self._blocked = -1
        elif self._policy is not None:
            self._own(self._policy, now)
        else:
            self._queue(now, came)
        return self.started

    def gone(self, course: JobCourse) -> None:
        """A job or replica has stopped."""
        if course.job < self._state.count:
            self._priorities[self._state.priority[course.job]] -= 1

    def _start(self, job: int, take: Take, pace: JobPace, now: int) -> None:
        self.started.append(self._state.start(job, take, pace, now))
        if job < self._state.count:
            self._priorities[self._state.priority[job]] += 1

    def _machines(self, job: int) -> tuple[int, ...]:
        state = self._state
        return state.book.prefer[job] if job < state.count else (state.replica[job - state.count][0].machine,)

    def _begin(self, job: int, now: int) -> bool:
        """Starts it on the quickest machine that has room."""
        for machine in self._machines(job):
            found = self._state.find(job, machine)
            if found is not None:
                self._start(job, *found, now)
                return True
        return False

    def _queue(self, now: int, came: list[int] | None) -> None:
        lineup = self._state.lineup
        head = lineup.head()
        if came is None or head != self._blocked or self.started:
            came = None
            while head >= 0 and (self._begin(head, now) or self._evicting(head, now)):
                head = lineup.head()
        self._blocked = head
        if head >= 0 and self._easy and len(lineup) > 1 and any(self._state.hall.machine_free):
            self._backfill(head, now, came)

    # whoever delays nobody

    def _backfill(self, head: int, now: int, came: list[int] | None) -> None:
        """Starts whoever does not delay the first. came: nobody else can, for others have had their turn."""
        state, lineup = self._state, self._state.lineup
        if came is not None and min(state.packages[job] for job in came) > max(state.hall.machine_free):
            return
        promise = self._promise(head, now)
        if came is None:
            places = np.arange(len(lineup))
            rest = [lineup.rest_us(machine) for machine in range(len(state.hall.floors))]
            places = places[self._able(lineup.packages, rest, promise, now)]
        else:
            places = np.searchsorted(lineup.waiting, [lineup.rank(job) for job in came])
        places = places[lineup.may(places) & (places != np.searchsorted(lineup.waiting, lineup.rank(head)))]
        places = lineup.ordered(places)
        # copies, for the queue moves up when one of it starts
        rest = [lineup.rest_us(machine)[places] for machine in range(len(state.hall.floors))]
        jobs, packages = lineup.job_at[lineup.waiting[places]], lineup.packages[places]
        at = 0
        while at < len(jobs):
            job = int(jobs[at])
            at += 1
            if self._may_beside(job, head, promise, now) and self._starts_beside(job, promise, now):
                able = self._able(packages[at:], [one[at:] for one in rest], promise, now)
                jobs, packages, rest = jobs[at:][able], packages[at:][able], [one[at:][able] for one in rest]
                at = 0

    def _starts_beside(self, job: int, promise: Promise, now: int) -> bool:
        """Starts a job where it does not delay the first, if it can."""
        for machine in self._machines(job):
            found = self._beside(job, machine, promise, now)
            if found is not None:
                take, pace = found
                if self._state.expects(job, pace, now) > promise.at:
                    promise.spare -= promise.taken(machine, take.domains, take.by_domain)
                    promise.spare_W -= take.packages * pace.watts[1]
                self._start(job, take, pace, now)
                return True
        return False

    def _promise(self, head: int, now: int) -> Promise:
        """When the first can start, at the earliest of all places where it may."""
        state, hall = self._state, self._state.hall
        need, best = state.packages[head], Promise(NEVER, -1, -1, 0, 0.0)
        for machine in self._machines(head):
            watts = need * state.pace_of(state.sort(head), machine, 1).watts[1]
            lit = state.watts_back.when(now, state.spare_W(), watts)
            if hall.inside(machine, need):
                its = hall.domains_of[machine]
                places = [(d, state.domain_back[d], int(hall.domain_free[d])) for d in range(its.start, its.stop)]
            else:
                places = [(-1, state.machine_back[machine], hall.machine_free[machine])]
            for domain, back, free in places:
                at = max(lit, back.when(now, free, need))
                if at < best.at:
                    spare = int(back.free_at(at, free)) - need
                    spare_W = state.watts_back.free_at(at, state.spare_W()) - watts
                    best = Promise(at, machine, domain, spare, spare_W)
        return best

    def _able(self, packages: Ints, rest: list[Ints], promise: Promise, now: int) -> NDArray[np.bool_]:
        """Of jobs, which may have room somewhere without delaying the first, as far as columns tell."""
        hall = self._state.hall
        some: NDArray[np.bool_] = np.zeros(len(packages), np.bool_)
        for machine, free in enumerate(hall.machine_free):
            if not free:
                continue
            here = packages <= free
            modest = rest[machine] < NEVER
            if machine == promise.machine:
                modest = (rest[machine] <= promise.at - now) | (modest & (packages <= promise.spare))
            if hall.placement == "one_domain":
                its = hall.domains_of[machine]
                inside = hall.domain_free[its]
                if machine == promise.machine and promise.domain >= 0:
                    # beside the domain that the first waits for it may be as long as it likes
                    others = np.delete(inside, promise.domain - its.start).max(initial=0)
                    modest = modest | ((packages <= others) & (rest[machine] < NEVER))
                here &= (packages <= inside.max()) | (packages > hall.domain_size[its].max())
            some |= here & modest
        return some

    def _may_beside(self, job: int, head: int, promise: Promise, now: int) -> bool:
        """Whether its team may have it, and still have what the first in the queue needs where that is of its team."""
        state = self._state
        teams, team = state.teams, state.team[job]
        if teams.borrow or not teams.limited:
            return True
        left = int(teams.quota[team] - teams.used[team]) - state.packages[job]
        if left < 0 or team != state.team[head] or left >= state.packages[head]:
            return left >= 0
        shortest = min(state.rest_us[machine][job] for machine in self._machines(job))
        return now + shortest <= promise.at

    def _beside(self, job: int, machine: int, promise: Promise, now: int) -> tuple[Take, JobPace] | None:
        """Where it may go without delaying the first: perhaps not into the domain that this one waits for."""
        for without in (-1, promise.domain):
            found = self._state.find(job, machine, without=without)
            if found is None:
                return None
            take, pace = found
            ends = self._state.expects(job, pace, now)
            taken = promise.taken(machine, take.domains, take.by_domain)
            if promise.keeps(ends, taken, take.packages * pace.watts[1]):
                return found
            if promise.domain < 0 or not taken:
                return None
        return None

    # whoever makes room

    def _evicting(self, job: int, now: int) -> bool:
        """Stops others so that it can start, where it may and they suffice: as few as possible, the youngest."""
        state, hall = self._state, self._state.hall
        if not self._may_evict(job):
            return False
        need, best = state.packages[job], None
        for machine in self._machines(job):
            its = hall.domains_of[machine]
            if hall.inside(machine, need):
                places = [(d, int(hall.domain_free[d])) for d in range(its.start, its.stop)]
            else:
                places = [(-1, hall.machine_free[machine])]
            for domain, free in places:
                found = self._victims(job, machine, domain, need - free)
                if found is not None and (best is None or found[0] < best[0]):
                    best = (*found, machine)
            if best is not None:
                break  # on the quickest machine where it can be done
        if best is None:
            return False
        _, victims, machine = best
        watts = need * state.pace_of(state.sort(job), machine, 1).watts[1]
        back = sum(one.take.packages * one.pace.watts[1] for one in victims)
        if watts > state.spare_W() + back:
            return False
        for one in victims:
            state.stop(one.job, now, PREEMPTION)
            self.gone(one)
        return self._begin(job, now)

    def _may_evict(self, job: int) -> bool:
        """Whether it may at all, as far as a look tells."""
        state = self._state
        if job >= state.count:
            return True
        if self._preemption == "priority":
            return any(many and one < state.priority[job] for one, many in self._priorities.items())
        return self._preemption == "quota" and state.teams.entitled(state.team[job], state.packages[job])

    def _victims(self, job: int, machine: int, domain: int, lacks: int) -> tuple[int, list[JobCourse]] | None:
        """Who would have to go from a place, and with how many accelerators in all; None where they do not suffice."""
        picked: list[tuple[JobCourse, int]] = []
        used = self._state.teams.used.copy()
        for one in self._order(job, machine):
            if lacks <= 0:
                break
            has = one.take.packages if domain < 0 else _part(one.take, domain)
            team = self._state.team[one.job]
            if not has or (self._of_quota(job) and used[team] <= self._state.teams.promised[team]):
                continue
            used[team] -= one.take.packages
            picked.append((one, has))
            lacks -= has
        if lacks > 0:
            return None
        kept: list[JobCourse] = []
        for one, has in sorted(picked, key=lambda pair: pair[1]):
            if lacks + has <= 0:  # the others do without it
                lacks += has
            else:
                kept.append(one)
        return sum(one.take.packages for one in kept), kept

    def _of_quota(self, job: int) -> bool:
        return job < self._state.count and self._preemption == "quota"

    def _order(self, job: int, machine: int) -> list[JobCourse]:
        """Who may have to go, the first to go first: of low priority, then who began last."""
        state = self._state
        service = job >= state.count
        found = []
        for one in state.running.values():
            if one.take.machine != machine or one.job >= state.count:
                continue
            lower = state.priority[one.job] < (NEVER if service else state.priority[job])
            if service or (lower if self._preemption == "priority" else state.teams.above(state.team[one.job])):
                found.append(one)
        by_priority = service or self._preemption == "priority"
        return sorted(found, key=lambda one: (state.priority[one.job] * by_priority, -one.start, -one.job))

    # a policy of the user's own

    def _own(self, policy: PolicyFunction, now: int) -> None:
        state = self._state
        jobs = np.sort(state.lineup.jobs())
        for row in asked(state.spec.policy or "", policy, self._offer(jobs, now)):
            job = int(jobs[row])
            if state.teams.limited and not self._within(job):
                continue
            self._begin(job, now)

    def _within(self, job: int) -> bool:
        teams, team = self._state.teams, self._state.team[job]
        return bool(teams.used[team] + self._state.packages[job] <= teams.quota[team])

    def _offer(self, jobs: Ints, now: int) -> Offer:
        state, hall = self._state, self._state.hall
        columns = state.book.jobs
        rest = np.array([min(one[job] for one in state.rest_us) for job in jobs.tolist()])
        names = np.array([*state.spec.teams, ""], dtype=object)
        waiting: dict[str, NDArray[Any]] = {
            "job": jobs,
            "accelerators": columns.packages[jobs],
            "priority": columns.priority[jobs],
            "team": names[columns.team[jobs]],
            "submit_s": columns.submit_us[jobs] / 1e6,
            "expected_s": rest / 1e6,
        }
        machines: dict[str, dict[str, NDArray[Any]]] = {
            floor.name: {"free": hall.domain_free[its].copy(), "size": hall.domain_size[its].copy()}
            for floor, its in zip(hall.floors, hall.domains_of, strict=True)
        }
        for table in (waiting, *machines.values()):
            for column in table.values():
                column.setflags(write=False)
        return Offer(now / 1e6, waiting, machines)


def _part(take: Take, domain: int) -> int:
    return next((many for one, many in zip(take.domains, take.by_domain, strict=True) if one == domain), 0)
