"""How quick jobs are where they lie, and what they draw: as simulated, once for each sort of job, place and spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cmsim import api, energy
from cmsim.arrays import Ints
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.jobs import JobsSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.results import Result
from cmsim.scenario import Run, SystemEntry
from cmsim.scheduling.asked import Submitted
from cmsim.scheduling.hall import numbered
from cmsim.serving.idle import idle_W

#: share of the way from waiting to its most that an accelerator draws under a job nobody simulates: low, middle, high
_DRAWN = (0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Housed:
    """A machine of the hall. entry: as runs on it name it    idle_W: of all of it that waits: low, middle, high"""

    name: str
    entry: SystemEntry
    system: System
    idle_W: tuple[float, float, float]

    @classmethod
    def of(cls, name: str, entry: SystemEntry, system: System) -> Housed:
        return cls(name, entry, system, idle_W(system))

    @property
    def domains(self) -> tuple[int, ...]:
        """Accelerators of each domain; the last may be partly filled."""
        whole, rest = divmod(self.system.packages, self.system.spec.accelerators)
        return (self.system.spec.accelerators,) * whole + ((rest,) if rest else ())

    def least(self, packages: int) -> int:
        """Domains that so many accelerators need at least."""
        return int(np.searchsorted(np.cumsum(self.domains), packages)) + 1


@dataclass(frozen=True)
class JobPace:
    """speed  over that on the reference, 0 where it cannot run
    watts     of an accelerator, above one that waits: low, middle, high [W]"""

    speed: float
    watts: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Sort(NamedTuple):
    """Jobs that are as quick as each other: task (-1: none), accelerators, whether simulated at exactly that size"""

    task: int
    packages: int
    exact: bool


@dataclass(frozen=True)
class _Step:
    """of a task on so many accelerators [s], and what one of them draws: low, middle, high [W]"""

    packages: int
    seconds: float
    watts: tuple[float, float, float]

    @property
    def each(self) -> float:
        """Steps of a second and an accelerator. [1/s]"""
        return 1 / (self.seconds * self.packages)


class JobPaces:
    """JobPaces of all sorts of jobs, simulated when they are first asked for. Raises what those runs raise."""

    def __init__(self, run: Run, spec: JobsSpec, houses: Sequence[Housed], base: Path | None):
        self._spec, self._houses, self._run = spec, houses, run
        self._machines = api.Machines(base)
        self._tasks: list[TrainingSpec] = [task.training for task in spec.tasks.values()]
        self._names = list(spec.tasks)
        self._steps: dict[tuple[int, int, int, int], _Step | None] = {}
        self._paces: dict[tuple[Sort, int, int], JobPace] = {}
        #: the same by domains as they are asked for
        self._known: dict[tuple[Sort, int, int], JobPace] = {}
        self._first: dict[Sort, tuple[int, _Step]] = {}
        names = [house.name for house in houses]
        self.reference = 0 if spec.reference is None else numbered(names, spec.reference, "reference")
        self._across = False

    @property
    def simulated(self) -> int:
        """Steps that were played, or refused."""
        return len(self._steps)

    def of(self, sort: Sort, machine: int, domains: int) -> JobPace:
        """Of a job on a machine, over so many domains."""
        asked = (sort, machine, domains)
        if asked not in self._known:
            key = (sort, machine, self._spread(sort, machine, domains))
            if key not in self._paces:
                self._paces[key] = self._given(*key) if sort.task < 0 else self._played(*key)
            self._known[asked] = self._paces[key]
        return self._known[asked]

    def work_us(self, sort: Sort, steps: int) -> int:
        """So many steps of a task, as time on the reference, or on the first machine that can. [us]"""
        found = self._origin(sort)
        return 0 if found is None else max(round(steps * found[1].seconds * 1e6), 1)

    def _spread(self, sort: Sort, machine: int, domains: int) -> int:
        """Domains as they are simulated: the least that there must be, or a power of two."""
        house = self._houses[machine]
        least = house.least(sort.packages)
        if domains <= least:
            return least
        return min(1 << (domains - 1).bit_length(), len(house.domains))

    # without a task

    def _given(self, sort: Sort, machine: int, domains: int) -> JobPace:
        house, spec = self._houses[machine], self._spec
        speed = 1.0 if machine == self.reference else spec.speeds.get(house.name)
        if speed is None:
            message = f"{house.name} is required: jobs without a task run there, and nobody knows how fast"
            raise InputError(Problem(message, key="speeds"))
        shares = _DRAWN if spec.power_share is None else (spec.power_share,) * 3
        rated_W = energy.rated_W(house.system)
        low, middle, high = (
            max(share * (rated_W - idle) / house.system.packages, 0.0)
            for share, idle in zip(shares, house.idle_W, strict=True)
        )
        # a job that no domain of the reference holds was over several when its time was taken
        there = self._houses[self.reference].least(sort.packages) > 1
        if domains > 1 and not there:
            speed *= spec.across
        elif domains == 1 and there:
            speed /= spec.across
        return JobPace(speed, (low, middle, high))

    # with one

    def _played(self, sort: Sort, machine: int, domains: int) -> JobPace:
        origin = self._origin(sort)
        if origin is None:
            return JobPace(0.0)
        house = self._houses[machine]
        least = house.least(sort.packages)
        inside = self._step(sort, machine, least)
        if inside is None:
            return JobPace(0.0)
        found = self._step(sort, machine, domains) if domains > least else inside
        slower = 1.0
        if found is None:
            self._across, found, slower = True, inside, self._spec.across
        watts = (each - idle / house.system.packages for each, idle in zip(found.watts, house.idle_W, strict=True))
        low, middle, high = (max(one, 0.0) for one in watts)
        return JobPace(slower * found.each / origin[1].each, (low, middle, high))

    def _origin(self, sort: Sort) -> tuple[int, _Step] | None:
        """The machine whose time counts for such jobs, and their step there: the reference if it can."""
        if sort not in self._first:
            first = self.reference
            for machine in (first, *(m for m in range(len(self._houses)) if m != first)):
                house = self._houses[machine]
                size = min(sort.packages, house.system.packages)
                one = sort._replace(packages=size)
                step = self._step(one, machine, house.least(size))
                if step is not None:
                    self._first[sort] = machine, step
                    break
        return self._first.get(sort)

    def _step(self, sort: Sort, machine: int, domains: int) -> _Step | None:
        """A step at the size, or at the nearest power of two of its smallest plan that has one: below first, then
        above, for a job smaller than any plan is taken for as quick as those."""
        if sort.exact:
            return self._at(sort.task, machine, sort.packages, domains)
        house, sizes = self._houses[machine], self._tasks[sort.task].parallel
        least, most = -(-sizes.tp * sizes.cp * sizes.pp // house.system.ranks_per_package), house.system.packages
        size = least
        while 2 * size <= min(sort.packages, most):
            size *= 2
        below = [size >> halved for halved in range((size // least).bit_length())]
        above = [size << doubled for doubled in range(1, most.bit_length()) if size << doubled <= most]
        for one in (*below, *above):
            over = max(domains if one == sort.packages else min(domains, one), house.least(one))
            found = self._at(sort.task, machine, one, over)
            if found is not None:
                return found
        return None

    def _at(self, task: int, machine: int, packages: int, domains: int) -> _Step | None:
        key = (task, machine, packages, domains)
        if key not in self._steps:
            self._steps[key] = self._simulated(*key)
        return self._steps[key]

    def _simulated(self, task: int, machine: int, packages: int, domains: int) -> _Step | None:
        house = self._houses[machine]
        if packages > house.system.packages:
            return None
        entry = house.entry.model_copy(update={"accelerators": packages, "name": house.name})
        if domains > house.least(packages):
            per_host = house.system.spec.node.accelerators
            each = -(-packages // (domains * per_host)) * per_host
            some = {**house.entry.set, "accelerators": each}
            entry = entry.model_copy(update={"domains": -(-packages // each), "set": some})
        one = replace(self._run, spec=self._tasks[task], system=entry, open=(), of=None, record="summary")
        try:
            became = api.evaluate(one, self._machines)
        except InputError as error:
            if domains > house.least(packages):
                return None  # a domain cannot be cut into such a part: `across` stands in
            raise InputError(
                Problem(f"{packages} accelerators of {house.name}: {error}", key=f"tasks.{self._names[task]}")
            ) from None
        if not isinstance(became, Result):
            refused = became.error()
            if isinstance(refused, InfeasibleError):
                return None
            raise refused
        drawn = became.metrics
        watts = [float(drawn.get(f"power_avg_W{end}", drawn["power_avg_W"])) for end in ("_low", "", "_high")]
        low, middle, high = (one / packages for one in watts)
        return _Step(packages, float(drawn["step_time_s"]), (low, middle, high))

    def notes(self) -> list[str]:
        """What is to be known of them."""
        said = []
        untold = any(sort.task < 0 for sort, _, _ in self._paces)
        if untold and self._spec.power_share is None:
            said.append(
                "accelerators under jobs without a task are assumed to draw 50 to 90 % of what they can above waiting"
            )
        if untold and any(domains > 1 for sort, _, domains in self._paces if sort.task < 0):
            slow = self._spec.across
            if "across" not in self._spec.model_fields_set:
                said.append(f"jobs without a task over several domains are assumed to have {slow:.0%} of their speed")
        elsewhere = {
            (self._names[sort.task], self._houses[machine].name)
            for sort, (machine, _) in self._first.items()
            if machine != self.reference
        }
        said += [
            f"{task} has no plan at some sizes on {self._houses[self.reference].name}: its time is that on {name}"
            for task, name in sorted(elsewhere)
        ]
        if self._across:
            said.append(f"where a task has no plan over several domains, it has {self._spec.across:.0%} of its speed")
        return said


def sorts(jobs: Submitted) -> tuple[list[Sort], Ints]:
    """The sorts of jobs there are, and the number of each job's."""
    table = np.column_stack([jobs.task, jobs.packages, jobs.steps > 0])
    rows, of = np.unique(table, axis=0, return_inverse=True)
    return [Sort(int(task), int(packages), bool(exact)) for task, packages, exact in rows], of.reshape(-1)


#: pace of a sort of job on a machine over so many domains
PaceOf = Callable[[Sort, int, int], JobPace]
