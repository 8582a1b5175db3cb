"""Services that stand beside jobs: how many replicas the hour of the day asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmsim.errors import InputError, Problem
from cmsim.kinds.jobs import JobsSpec
from cmsim.reliability.events import to_us
from cmsim.scheduling.hall import numbered
from cmsim.scheduling.promise import NEVER

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Replicas:
    """A service: name, machine, task (-1: none), packages of one replica, and the day: (time of it [us], replicas)"""

    name: str
    machine: int
    task: int
    packages: int
    day: tuple[tuple[int, int], ...]

    @property
    def most(self) -> int:
        return max(many for _, many in self.day)

    def wanted(self, now: int) -> int:
        """Replicas that the hour asks for."""
        hour = now % DAY_US
        return next((many for at, many in reversed(self.day) if at <= hour), self.day[-1][1])

    def changes(self, now: int) -> int:
        """When the day goes on, after now. [us]"""
        start, hour = now - now % DAY_US, now % DAY_US
        return start + next((at for at, _ in self.day if at > hour), DAY_US + self.day[0][0])

    def needed(self, now: int, replica: int) -> int:
        """Until when a replica that is wanted now stays so. [us]"""
        at, ends = now, now + DAY_US
        while at < ends and self.wanted(at) > replica:
            at = self.changes(at)
        return NEVER if self.wanted(at) > replica else at

    def asked_us(self, until: int) -> int:
        """Accelerators that it asks for from 0 on, times time. [us]"""
        points = [(at, many) for at, many in self.day if at < DAY_US]
        if points[0][0] > 0:
            points.insert(0, (0, self.day[-1][1]))
        ends = [at for at, _ in points[1:]] + [DAY_US]

        def of_day(to: int) -> int:
            spans = zip(points, ends, strict=True)
            return sum(many * max(min(end, to) - at, 0) for (at, many), end in spans)

        days, rest = divmod(until, DAY_US)
        return (days * of_day(DAY_US) + of_day(rest)) * self.packages


def services(spec: JobsSpec, machines: Sequence[str], packages: Sequence[int]) -> list[Replicas]:
    """Those of a scenario. Raises InputError for a machine that there is not, or that is too small for them."""
    tasks = list(spec.tasks)
    out = []
    for name, one in spec.services.items():
        machine = 0 if one.machine is None else numbered(machines, one.machine, f"services.{name}.machine")
        day = tuple((int(to_us(hour * 3600)), -(-many // one.replica)) for hour, many in one.accelerators)
        its = Replicas(name, machine, -1 if one.task is None else tasks.index(one.task), one.replica, day)
        if (most := its.most * one.replica) > packages[machine]:
            message = f"asks for {most}; {machines[machine]} has {packages[machine]}"
            raise InputError(Problem(message, key=f"services.{name}.accelerators"))
        out.append(its)
    return out
