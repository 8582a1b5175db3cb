"""Numbers of the resources of several plans on one network.

A plan numbers classes of equal resources of its own folding. Two plans mean the same links where classes of theirs
stand for the same single resources of the system; those get one number. Classes that have no link in common get two.
Classes that have only some in common cannot be joined: what one plan takes for equal the other tells apart.

Joined so, rates of classes are rates of single links: every link of a class carries the same of either plan, so the
rates for which every class of demands has its bottleneck are those for which every single demand has one, and max-min
rates are unique.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cmsim.arrays import Ints
from cmsim.engine.plan import Plan
from cmsim.errors import InputError
from cmsim.network import Demand, Network

Phases = Sequence[Sequence[Demand]]


class Joined:
    """The resources of plans so far, on a network that nobody else adds to."""

    def __init__(self, network: Network):
        self._network = network
        self._first: Plan | None = None
        #: by kind: the number on the network of each single resource, -1 where no plan so far crosses it
        self._number: dict[str, Ints] = {}
        self._capacity_Bps: list[float] = []

    def phases(self, plan: Plan) -> tuple[list[Phases], dict[int, Demand]]:
        """The demands of each call on the network; and by the identity of each the plan's own, where they differ."""
        if self._first is None:
            # a plan by itself keeps its numbers
            self._first = plan
            self._add(plan.resources.capacity_Bps)
            return [call.phases for call in plan.calls], {}
        if plan is self._first:
            return [call.phases for call in plan.calls], {}
        self._check(plan)
        if not self._number:
            used = _used(self._first)
            for kind, classes in self._first.resources.located().items():
                self._number[kind] = np.where(np.isin(classes, used), classes, -1)
        return _renumbered(plan, self._join(plan))

    def _check(self, plan: Plan) -> None:
        first = self._first
        assert first is not None
        if plan.system is not first.system and plan.system != first.system:
            raise InputError(f"plans on one network are for one system; got {first.system.name} and {plan.system.name}")
        levels = {one.network == "flow" for one in (first, plan)}
        if len(levels) > 1 or plan.resources.changes_ps != first.resources.changes_ps:
            raise InputError("plans on one network are made for the same network, with the same faults")

    def _add(self, capacity_Bps: Sequence[float]) -> int:
        self._capacity_Bps += capacity_Bps
        return self._network.add(capacity_Bps)

    def _join(self, plan: Plan) -> dict[int, int]:
        """Of each class that the plan's demands cross, the number on the network."""
        number: dict[int, int] = {}
        used = _used(plan)
        for kind, classes in plan.resources.located().items():
            known = self._padded(kind, len(classes))
            met = np.full(len(known), -1, np.int64)
            met[: len(classes)] = np.where(np.isin(classes, used), classes, -1)
            # of our classes and theirs, which have a link in common: each must have all in common with one
            pairs = np.unique(np.stack([met, known])[:, met >= 0], axis=1).T.tolist()
            for ours, theirs in pairs:
                here = met == ours
                if ours in number or (theirs >= 0 and not np.array_equal(here, known == theirs)):
                    raise InputError(self._apart(plan, ours))
                if theirs < 0:
                    number[ours] = self._add([plan.resources.capacity_Bps[ours]])
                    known[here] = number[ours]
                else:
                    number[ours] = theirs
                    self._same(plan, ours, theirs)
        assert len(number) == len(used), "every class stands for links of the system"
        return number

    def _padded(self, kind: str, size: int) -> Ints:
        known = self._number.get(kind, np.zeros(0, np.int64))
        if len(known) < size:
            known = np.concatenate([known, np.full(size - len(known), -1, np.int64)])
        self._number[kind] = known
        return known

    def _same(self, plan: Plan, ours: int, theirs: int) -> None:
        """One link, one capacity."""
        one, two = plan.resources.capacity_Bps[ours], self._capacity_Bps[theirs]
        if one != two:
            name = plan.resources.name[ours]
            raise InputError(f"plans on one network disagree: {name} carries {one:g} B/s in one and {two:g} in another")

    def _apart(self, plan: Plan, ours: int) -> str:
        return (
            f"what one plan takes for equal another tells apart: only some of {plan.resources.name[ours]} "
            f"({plan.resources.instances[ours]} equal ones) are crossed alike; plan them together "
            "(engine.plan_together), or with the same Options.apart"
        )


def _demands(plan: Plan) -> Iterator[Demand]:
    return (demand for call in plan.calls for phase in call.phases for demand in phase)


def _used(plan: Plan) -> Ints:
    """Classes that any demand crosses, now or after a change."""
    crossed = {r for one in _demands(plan) for part in (one, *one.later) for r in part.resources}
    return np.array(sorted(crossed), np.int64)


def _renumbered(plan: Plan, number: dict[int, int]) -> tuple[list[Phases], dict[int, Demand]]:
    origin: dict[int, Demand] = {}
    made: dict[int, Demand] = {}

    def one(demand: Demand) -> Demand:
        if id(demand) not in made:
            made[id(demand)] = replace(
                demand,
                resources=tuple(number[r] for r in demand.resources),
                later=tuple(one(part) for part in demand.later),
            )
            origin[id(made[id(demand)])] = demand
        return made[id(demand)]

    return [[[one(demand) for demand in phase] for phase in call.phases] for call in plan.calls], origin
