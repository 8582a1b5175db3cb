"""Demands that follow each other at known distances, as long as nobody is in their way."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Sequence

import simpy

from cmsim.network.demand import Demand
from cmsim.network.log import Log, Stretches


class Train:
    """Demands one after the other. Times count from where the train begins.

    demands           each at its rate and from when to when bytes move when it is alone on its resources
    total_ps          the whole train, waits before, between and after its demands included
    """

    __slots__ = ("_stretches", "begin_ps", "demands", "end_ps", "on", "rate_Bps", "total_ps")

    def __init__(
        self,
        demands: Sequence[Demand],
        rate_Bps: Sequence[float],
        begin_ps: Sequence[int],
        end_ps: Sequence[int],
        total_ps: int,
    ):
        self.demands = demands
        self.rate_Bps = rate_Bps
        self.begin_ps = begin_ps
        self.end_ps = end_ps
        self.total_ps = total_ps
        self._stretches: Stretches | None = None
        #: of each resource, from when to when it is crossed
        self.on: dict[int, tuple[list[int], list[int]]] = {}
        of: dict[int, list[int]] = {}
        for number, demand in enumerate(demands):
            of.setdefault(id(demand), []).append(number)
        crossed: dict[int, list[list[int]]] = {}
        for numbers in of.values():
            for resource in demands[numbers[0]].resources:
                crossed.setdefault(resource, []).append(numbers)
        # a demand's resources are mostly crossed by the same others
        known: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
        for resource, some in crossed.items():
            key = tuple(numbers[0] for numbers in some)
            if key not in known:
                numbers = some[0] if len(some) == 1 else sorted(itertools.chain(*some))
                known[key] = [begin_ps[one] for one in numbers], [end_ps[one] for one in numbers]
            self.on[resource] = known[key]

    @property
    def stretches(self) -> Stretches:
        """Its demands as a log has them."""
        if self._stretches is None:
            self._stretches = Stretches.of(self.demands, self.begin_ps, self.end_ps, self.rate_Bps)
        return self._stretches


class Ride:
    """A train on its way, from its demand ``first`` on; its origin lay, or lies, at ``base_ps``.

    ended   called when all of it is over
    broken  called when another demand gets in its way, with the first demand that has not ended and the event of its
            end: those before it are as planned, those after it have not begun
    """

    __slots__ = ("base_ps", "broken", "end_ps", "ended", "first", "gone", "log", "since_ps", "train")

    def __init__(
        self,
        train: Train,
        first: int,
        base_ps: int,
        log: Log,
        ended: Callable[[], None],
        broken: Callable[[int, simpy.Event], None],
    ):
        self.train = train
        self.first = first
        self.base_ps = base_ps
        self.log = log
        self.ended = ended
        self.broken = broken
        self.gone = False
        parts = first < len(train.demands)
        self.since_ps = base_ps + train.begin_ps[first] if parts else base_ps
        self.end_ps = base_ps + train.end_ps[-1] if parts else base_ps

    def crosses(self, resource: int, begin_ps: int, end_ps: int) -> bool:
        """Is it on a resource at any time of a stretch, which begins now or later?"""
        begins, ends = self.train.on[resource]
        i = bisect_right(ends, begin_ps - self.base_ps)
        return i < len(ends) and begins[i] < end_ps - self.base_ps

    def passed(self, until: int) -> None:
        """Put down the demands before one, which are over."""
        if until > self.first:
            self.log.append(self.train.stretches.rows(slice(self.first, until), self.base_ps))
