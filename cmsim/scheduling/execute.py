"""A run of the kind: machines of the hall, jobs for them, the clock, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmsim import api
from cmsim.arrays import Ints
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import System
from cmsim.kinds import Executed
from cmsim.kinds.jobs import JobsFacts, JobsSpec
from cmsim.numbers import quantity
from cmsim.reliability.events import to_us
from cmsim.scenario import Run, SystemEntry
from cmsim.scheduling import asked, measure, outages, own, standing, told
from cmsim.scheduling.asked import DAY_S, Submitted
from cmsim.scheduling.clockwork import Clockwork
from cmsim.scheduling.decisions import Decisions
from cmsim.scheduling.hall import Floor, Hall, numbered
from cmsim.scheduling.measure import Measures
from cmsim.scheduling.paces import Housed, JobPace, JobPaces, Sort, sorts
from cmsim.scheduling.promise import NEVER
from cmsim.scheduling.standing import Replicas
from cmsim.scheduling.state import Docket, HallState

#: failures are drawn until this many times the time in which the machines could do all work, the longest job beside it
_BEYOND = 2.0
_LATE = "failures are drawn for twice the time that the work should take: behind it nothing fails"


def execute(
    run: Run, system: System, *, base: Path | None, progress: Callable[[float], None] | None = None
) -> Executed:
    """Runs jobs through their queue. Raises InfeasibleError for a budget below what waits, InputError for what is
    wrong with jobs, machines or a policy."""
    spec = run.spec
    assert isinstance(spec, JobsSpec)
    policy = None
    if spec.policy is not None:
        if not run.allow_policies:
            message = "runs a program of yours: allowed with --allow-policies, or allow_policies=True"
            raise InputError(Problem(f"{spec.policy}: {message}", key="policy"))
        policy = own.load(spec.policy, base)
    houses = _houses(run, spec, system, base)
    idle_W = sum(house.idle_W[1] for house in houses)
    if spec.power_budget_W is not None and idle_W > spec.power_budget_W:
        waits, budget = (quantity("power_W", watts) for watts in (idle_W, spec.power_budget_W))
        raise InfeasibleError(
            Problem(f"{budget} is below what the hall draws while it waits ({waits})", key="power_budget_W")
        )
    hall = Hall(
        [Floor(one.name, one.domains, one.system.spec.node.accelerators) for one in houses], placement=spec.placement
    )
    services = standing.services(spec, [one.name for one in houses], [floor.packages for floor in hall.floors])
    given, notes = asked.submitted(spec, [one.name for one in houses], seed=run.seed, base=base)
    paces = JobPaces(run, spec, houses, base)
    desk = _Desk(spec, houses, paces, given, services, idle_W)
    book = desk.book()
    until = None if spec.days is None else int(to_us(spec.days * DAY_S))
    window_us = until or _window_us(book.jobs, hall)
    failures, said = outages.drawn(spec, houses, hall, window_us=window_us, seed=run.seed, base=base)
    planned = outages.planned(spec, hall)
    state = HallState(spec, book, hall, paces.of, services, idle_W=idle_W, fails=bool(failures or planned))
    clock = Clockwork(
        state, Decisions(state, policy), services=services, outages=failures, planned=planned, until=until
    )
    lived = clock.live(progress)
    measures = Measures(spec, houses, given, desk.refused, desk.rows, state, lived, services)
    metrics = measure.metrics(measures)
    late = failures and spec.days is None and lived.until > window_us and not spec.recorded_faults
    return Executed(
        metrics=metrics,
        frames=measure.frames(measures) if run.record == "full" else {},
        facts=JobsFacts(
            jobs=float(len(given)),
            machines=float(len(houses)),
            domains=float(len(hall.domain_size)),
            hosts=float(len(hall.size)),
            accelerators_all=float(hall.size.sum()),
            events=float(lived.events),
            simulated=float(paces.simulated),
        ),
        accelerators=int(hall.size.sum()),
        ranks=sum(one.system.ranks for one in houses),
        plan={one.name: one.system.packages for one in houses},
        notes=(
            *told.sentences(measures, metrics),
            *notes,
            *paces.notes(),
            *said,
            *([_LATE] if late else []),
            *_of_systems(houses[1:]),
        ),
    )


def _houses(run: Run, spec: JobsSpec, system: System, base: Path | None) -> list[Housed]:
    """The run's own machine, and those beside it. Raises InputError for two of one name."""
    machines = api.Machines(base)
    out = [Housed.of(run.system.label, run.system, system)]
    for name, one in spec.beside.items():
        if name == out[0].name:
            raise InputError(Problem(f"the machine of the run is called {name!r}, too", key=f"beside.{name}"))
        entry = SystemEntry(
            system=one.machine,
            name=name,
            accelerators=one.accelerators,
            domains=one.domains,
            stack=one.stack,
            set=one.set,
        )
        out.append(Housed.of(name, entry, machines(replace(run, system=entry))))
    names = [house.name for house in out]
    for key, said in (("speeds", spec.speeds), ("recorded_faults", spec.recorded_faults)):
        for name in said:
            numbered(names, name, key)
    return out


def _of_systems(houses: Sequence[Housed]) -> list[str]:
    return [f"{house.name}: {note}" for house in houses for note in house.system.notes]


def _window_us(jobs: Submitted, hall: Hall) -> int:
    """About how long it all takes, and longer. [us]"""
    if not len(jobs):
        return 1
    work = float((jobs.packages * jobs.work_us.astype(np.float64)).sum()) / float(hall.size.sum())
    return int(_BEYOND * (int(jobs.submit_us[-1]) + work + int(jobs.work_us.max()))) + 1


@dataclass
class _Desk:
    """Takes jobs in, or says why it cannot. refused: of each job as given, why, "" if not; rows: of those taken"""

    spec: JobsSpec
    houses: Sequence[Housed]
    paces: JobPaces
    given: Submitted
    services: Sequence[Replicas]
    idle_W: float

    def book(self) -> Docket:
        """All that jobs need to be played: those that can never run are left out."""
        kinds, of = sorts(self.given)
        table = self._paces(kinds, of)
        speed = np.array([[one.speed for one in row] for row in table]).reshape(len(kinds), len(self.houses))
        watts = np.array([[one.watts[1] for one in row] for row in table]).reshape(len(kinds), len(self.houses))
        work = self._work(kinds, of)
        can = (speed > 0)[of]
        for machine in range(len(self.houses)):
            can[:, machine] &= (self.given.only < 0) | (self.given.only == machine)
        drawn = watts[of] * self.given.packages[:, None]
        self.refused = self._refused(can, drawn)
        self.rows = np.flatnonzero(self.refused == "")
        jobs = replace(self.given, work_us=work).taken(self.rows)
        of, can = of[self.rows], can[self.rows]
        expected = [self._expected(jobs.work_us, speed[of, machine]) for machine in range(len(self.houses))]
        known = {sort: number for number, sort in enumerate(kinds)}
        slots = [Sort(one.task, one.packages, False) for one in self.services for _ in range(one.most)]
        for one in self.services:
            self.paces.of(Sort(one.task, one.packages, False), one.machine, 1)
        for sort in slots:
            known.setdefault(sort, len(known))
        return Docket(
            jobs=jobs,
            sorts=list(known),
            sort_of=[*of.tolist(), *(known[sort] for sort in slots)],
            prefer=_preferred(of, can, speed),
            alone_us=jobs.work_us,
            expected_us=expected,
            can=[can[:, machine] for machine in range(len(self.houses))],
        )

    def _paces(self, kinds: Sequence[Sort], of: Ints) -> list[list[JobPace]]:
        """Of each sort on each machine that some job of it may run on, on the fewest domains."""
        only = self.given.only
        out = []
        for number, sort in enumerate(kinds):
            its = only[of == number]
            row = []
            for machine, house in enumerate(self.houses):
                may = sort.packages <= house.system.packages and bool(((its < 0) | (its == machine)).any())
                row.append(self.paces.of(sort, machine, 1) if may else JobPace(0.0))
            out.append(row)
        return out

    def _work(self, kinds: Sequence[Sort], of: Ints) -> Ints:
        work: Ints = self.given.work_us.copy()
        for row in np.flatnonzero(self.given.steps).tolist():
            work[row] = self.paces.work_us(kinds[of[row]], int(self.given.steps[row]))
        return work

    def _refused(self, can: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        out = np.full(len(self.given), "", dtype=object)
        out[~can.any(axis=1)] = "too large"
        if self.spec.power_budget_W is not None:
            fits = can & (drawn <= self.spec.power_budget_W - self.idle_W)
            out[(out == "") & ~fits.any(axis=1)] = "over the power budget"
        if self.spec.preemption != "quota":
            quotas = [math.inf if team.quota is None else team.quota for team in self.spec.teams.values()]
            quota = np.array([*quotas, math.inf])[self.given.team]
            out[(out == "") & (self.given.packages > quota)] = "over its quota"
        return out

    def _expected(self, work: Ints, speed: np.ndarray) -> Ints:
        """As expected, on one machine. [us]"""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.ceil(np.ceil(work / speed) * self.spec.overestimate)
        out: Ints = np.where((speed > 0) & (found < NEVER), found, NEVER).astype(np.int64)
        return np.minimum(out, NEVER // 2)


def _preferred(of: Ints, can: np.ndarray, speed: np.ndarray) -> list[tuple[int, ...]]:
    """Of each job, machines that it may run on, the quickest first."""
    known: dict[tuple[int, bytes], tuple[int, ...]] = {}
    out = []
    for sort, may in zip(of.tolist(), can, strict=True):
        key = (sort, may.tobytes())
        if key not in known:
            machines = [machine for machine, allowed in enumerate(may.tolist()) if allowed]
            known[key] = tuple(sorted(machines, key=lambda machine: -speed[sort, machine]))
        out.append(known[key])
    return out
