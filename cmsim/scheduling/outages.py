"""When hosts leave and come back: parts that fail, faults as recorded, and maintenance as planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmsim.arrays import Ints
from cmsim.errors import InputError, Problem
from cmsim.kinds.jobs import JobsSpec, MaintenanceSpec
from cmsim.kinds.reliability import FaultTraceSpec
from cmsim.reliability import causes as causes_
from cmsim.reliability import draw, replay
from cmsim.reliability.causes import Cause
from cmsim.reliability.events import to_us
from cmsim.scheduling.hall import Hall, numbered
from cmsim.scheduling.paces import Housed

#: seeds of machines lie so far apart
_APART = 1_000_003


@dataclass(frozen=True)
class Closure:
    """at_us    when it is noticed, and jobs there stop    since_us  when work there ceased to count
    until_us  when its hosts are there again    hosts   that leave
    part      where no host leaves, which accelerator of its first host it is: a job that has it stops
    planned   jobs save first"""

    at_us: int
    since_us: int
    until_us: int
    machine: int
    hosts: Ints
    part: int = -1
    planned: bool = False


def drawn(
    spec: JobsSpec, houses: Sequence[Housed], hall: Hall, *, window_us: int, seed: int, base: Path | None
) -> tuple[list[Closure], list[str]]:
    """Failures of all machines until the end of the window, by time; and what is to be said of them.

    Raises InputError for causes that say too little, and a trace that names more hosts than there are.
    """
    out: list[Closure] = []
    slows = False
    for machine, house in enumerate(houses):
        random = np.random.default_rng([seed, 3, machine])
        at = hall.hosts_of(machine)
        hosts = np.arange(at.start, at.stop)
        if house.name in spec.recorded_faults:
            out += _recorded(spec.recorded_faults[house.name], machine, hosts, random, base)
        elif spec.failures is not None or spec.causes:
            causes = causes_.counted(spec.failures, spec.causes, house.system, base)
            slows = slows or any(one.breaks < 1 for one in causes)
            out += _of_parts(causes, machine, hall, hosts, random, window_us=window_us, seed=seed * _APART + machine)
    notes = ["failures that only slow a step are not heeded: jobs run on as quick as before"] if slows else []
    return sorted(out, key=lambda one: (one.at_us, one.machine, int(one.hosts[0]))), notes


def _of_parts(
    causes: Sequence[Cause],
    machine: int,
    hall: Hall,
    hosts: Ints,
    random: np.random.Generator,
    *,
    window_us: int,
    seed: int,
) -> Iterator[Closure]:
    """Failures by the laws of parts, each on a host that is drawn; racks and domains are hosts in a row."""
    found = draw.events(causes, runs=1, window_s=window_us / 1e6, seed=seed % 2**63)
    found = found.taken(found.breaks)
    which = random.integers(len(hosts), size=len(found.run))
    part = random.random(len(found.run))
    for i in range(len(found.run)):
        wide, first = max(int(found.hosts[i]), 1), int(which[i])
        first -= first % wide
        its = hosts[first : first + wide]
        yield Closure(
            at_us=int(found.ready_us[i]),
            since_us=int(found.start_us[i]),
            until_us=max(int(found.until_us[i]), int(found.ready_us[i])),
            machine=machine,
            hosts=its,
            part=-1 if found.hosts[i] else int(part[i] * hall.size[its[0]]),
        )


def _recorded(
    spec: FaultTraceSpec, machine: int, hosts: Ints, random: np.random.Generator, base: Path | None
) -> Iterator[Closure]:
    """Faults as recorded; the machine's hosts are drawn from those of the fleet."""
    away, _ = replay.read(spec, base)
    names = sorted({one.host for one in away})
    fleet = spec.hosts or max(len(names), len(hosts))
    if fleet < max(len(names), len(hosts)):
        message = f"got {fleet}; the trace names {len(names)}, and the machine has {len(hosts)}"
        raise InputError(Problem(message, key="recorded_faults.hosts"))
    place = random.permutation(fleet)
    host = {name: int(place[i]) for i, name in enumerate(names)}
    for one in away:
        if host[one.host] < len(hosts):
            start, end = (int(to_us(time)) for time in (one.start_s, one.end_s))
            at = hosts[host[one.host] : host[one.host] + 1]
            yield Closure(start, start, max(end, start), machine, at)


class Upkeep:
    """A maintenance that comes once, or again and again."""

    def __init__(self, spec: MaintenanceSpec, machine: int, hall: Hall):
        at = hall.hosts_of(machine, spec.domains)
        self._machine, self._hosts = machine, np.arange(at.start, at.stop)
        self._at, self._lasts = int(to_us(spec.at_s)), int(to_us(spec.lasts_s))
        self.every = None if spec.every_s is None else int(to_us(spec.every_s))

    def number(self, i: int) -> Closure | None:
        """The i-th time; None where it does not come again."""
        if i and self.every is None:
            return None
        at = self._at + i * (self.every or 0)
        return Closure(at, at, at + self._lasts, self._machine, self._hosts, planned=True)


def planned(spec: JobsSpec, hall: Hall) -> list[Upkeep]:
    """Maintenances of a scenario. Raises InputError for a machine or domains that there are not."""
    names = [floor.name for floor in hall.floors]
    out = []
    for i, one in enumerate(spec.maintenance):
        machine = 0 if one.machine is None else numbered(names, one.machine, f"maintenance[{i}].machine")
        there = len(hall.floors[machine].domains)
        if one.domains is not None and one.domains > there:
            message = f"got {one.domains}; {names[machine]} has {there}"
            raise InputError(Problem(message, key=f"maintenance[{i}].domains"))
        out.append(Upkeep(one, machine, hall))
    return out
