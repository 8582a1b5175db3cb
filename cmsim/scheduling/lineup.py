"""Jobs that wait, and whose turn it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.kinds.jobs import TeamSpec

_NONE = np.iinfo(np.int64).max


class Teams:
    """What each team has at the moment. Numbers of teams as in columns of jobs; the last, -1, is nobody."""

    def __init__(self, teams: Mapping[str, TeamSpec], *, borrow: bool):
        quotas = [one.quota for one in teams.values()]
        #: whether what others leave may be had beyond a quota
        self.borrow = borrow
        self.quota = np.array([*(_NONE if one is None else one for one in quotas), _NONE], np.int64)
        # nobody is promised anything, nor is a team without a quota
        self.promised = np.array([*(one or 0 for one in quotas), 0], np.int64)
        self.share = np.array([*(one.share for one in teams.values()), 1.0])
        self.used = np.zeros(len(self.quota), np.int64)
        self.limited = any(one is not None for one in quotas)

    def load(self) -> Floats:
        """What each has for its share."""
        out: Floats = self.used / self.share
        return out

    def above(self, team: int) -> bool:
        """Whether others may have back what it has."""
        return bool(self.used[team] > self.promised[team])

    def entitled(self, team: int, packages: int) -> bool:
        """Whether a job is within what its team is promised."""
        return bool(self.used[team] + packages <= self.promised[team])


class Lineup:
    """The queue. Jobs stand by their rank: the place that the order of the queue gives them among all jobs.

    What decides about those that wait stands beside them in columns, without holes: a look at all is a few operations
    on whole columns, however long the queue.

    rank    of each job    packages, team   of each job    machines  how many
    """

    def __init__(self, rank: Ints, packages: Ints, team: Ints, teams: Teams, *, machines: int, fair: bool):
        self._rank: list[int] = rank.tolist()
        self._packages, self._team = packages.tolist(), team.tolist()
        self._fair, self._teams = fair, teams
        self.job_at = np.empty(len(rank), np.int64)
        self.job_at[rank] = np.arange(len(rank))
        self._count = 0
        #: rank, accelerators, team; then by machine expected length of what is left [us]
        self._columns = [np.zeros(16, np.int64) for _ in range(3 + machines)]

    def __len__(self) -> int:
        return self._count

    def _column(self, number: int) -> Ints:
        return self._columns[number][: self._count]

    def rank(self, job: int) -> int:
        """Its place among all jobs."""
        return self._rank[job]

    @property
    def waiting(self) -> Ints:
        """Ranks of those that wait, ascending."""
        return self._column(0)

    @property
    def packages(self) -> Ints:
        return self._column(1)

    def rest_us(self, machine: int) -> Ints:
        """Of each that waits, how long it is expected to run there; NEVER where it may not. [us]"""
        return self._column(3 + machine)

    def add(self, job: int, rest_us: Sequence[int]) -> None:
        """It waits from now on. rest_us: by machine"""
        if self._count == len(self._columns[0]):
            self._columns = [np.append(one, np.zeros_like(one)) for one in self._columns]
        at, end = int(np.searchsorted(self.waiting, self._rank[job])), self._count
        row = (self._rank[job], self._packages[job], self._team[job], *rest_us)
        for column, value in zip(self._columns, row, strict=True):
            if at < end:
                column[at + 1 : end + 1] = column[at:end]
            column[at] = value
        self._count += 1

    def remove(self, job: int) -> None:
        """It waits no longer."""
        at, end = int(np.searchsorted(self.waiting, self._rank[job])), self._count
        for column in self._columns:
            column[at : end - 1] = column[at + 1 : end]
        self._count -= 1

    def jobs(self) -> Ints:
        """Those that wait, as the order of the queue has them."""
        return self.job_at[self.waiting]

    def head(self) -> int:
        """Whose turn it is; -1 if nobody's: of those whose team may have them, the promised first."""
        if not self._count:
            return -1
        if not (self._teams.limited or self._fair):
            return int(self.job_at[self.waiting[0]])
        places = np.arange(self._count)
        some = places[self.may(places)]
        return int(self.job_at[self.waiting[self.ordered(some)[0]]]) if len(some) else -1

    def may(self, places: Ints) -> NDArray[np.bool_]:
        """Of some places of the queue, whether the team may have the job now."""
        teams = self._teams
        if teams.borrow or not teams.limited:
            return np.ones(len(places), np.bool_)
        allowed: NDArray[np.bool_] = self.packages[places] <= (teams.quota - teams.used)[self._column(2)[places]]
        return allowed

    def ordered(self, places: Ints) -> Ints:
        """Some places of the queue in the order in which they have their turn."""
        teams, team = self._teams, self._column(2)[places]
        keys: list[NDArray[np.generic]] = [places]
        if self._fair:
            keys.append(teams.load()[team])
        if teams.borrow:
            keys.append(teams.used[team] + self.packages[places] > teams.promised[team])
        return places if len(keys) == 1 else places[np.lexsort(keys)]


def ranks(queue: str, submit_us: Ints, expected_us: Ints, priority: Ints) -> Ints:
    """Of each job its place among all, as the order of a queue that does not change has it."""
    number = np.arange(len(submit_us))
    keys: Sequence[Ints] = {"shortest": (number, expected_us), "priority": (number, -priority)}.get(queue, (number,))
    order = np.lexsort(keys)
    out = np.empty(len(order), np.int64)
    out[order] = number
    return out
