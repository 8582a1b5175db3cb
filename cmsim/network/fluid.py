"""The fluid network: demands in flight share the resources they cross, max-min fair.

A demand pays its latency, then flows. When one starts or ends, rates are solved again for the connected part
of the network it touches; demands whose rate stays are left alone, so their arithmetic does not depend on what
happens elsewhere. All starts and ends of one instant are gathered before rates are solved.

Most demands meet nobody on their resources. One that nobody is known to meet is *ahead*: its end is one event, and its
start is none. Should another start on its resources meanwhile, it becomes what it would have been, a demand in flight.
So does a whole train of demands.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import simpy

from cmsim.errors import InfeasibleError
from cmsim.network.demand import Demand, Segment
from cmsim.network.fire import fire
from cmsim.network.log import Log
from cmsim.network.maxmin import alone_Bps, duration_ps, max_min_Bps, max_min_of_few_Bps
from cmsim.network.train import Ride
from cmsim.units import PS_PER_S

#: demands up to which columns cost more than they save
_FEW = 12
#: after all other events of an instant (SimPy's own are 0 and 1)
END_OF_INSTANT = 2


class InFlight:
    """A demand in flight, or ahead until ``end_ps``; ``version`` outdates timers set for earlier rates."""

    __slots__ = ("asked", "demand", "end_ps", "event", "log", "rate_Bps", "remaining_B", "since_ps", "version")

    def __init__(self, demand: Demand, event: simpy.Event, log: Log):
        self.asked = demand
        self.demand = demand
        self.event = event
        self.log = log
        self.remaining_B = demand.size_B
        self.rate_Bps = 0.0
        self.since_ps = 0
        self.end_ps = 0
        self.version = 0

    def crosses(self, _: int, begin_ps: int, end_ps: int) -> bool:
        """Of one ahead: is it on its resources at any time of a stretch?"""
        return self.since_ps < end_ps and begin_ps < self.end_ps


class Fluid:
    """Latency, then a max-min fair share of every resource crossed.

    capacity_Bps: what one instance of each resource carries, one direction [B/s]
    """

    def __init__(self, env: simpy.Environment, capacity_Bps: Sequence[float]):
        self._env = env
        self._capacity_Bps = list(capacity_Bps)
        # of each resource, demands in flight on it, and demands ahead
        self._on: list[dict[InFlight, None]] = [{} for _ in self._capacity_Bps]
        self._ahead: list[dict[InFlight | Ride, None]] = [{} for _ in self._capacity_Bps]
        self._touched: dict[int, None] = {}
        # the demand is kept beside its rate, so that its identity is not given to another
        self._rates: dict[int, tuple[Demand, float, int]] = {}
        self._settling = False
        self.log = Log()

    def add(self, capacity_Bps: Sequence[float]) -> int:
        self._capacity_Bps += capacity_Bps
        self._on += [{} for _ in capacity_Bps]
        self._ahead += [{} for _ in capacity_Bps]
        return len(self._capacity_Bps) - len(capacity_Bps)

    def move(self, demand: Demand, delay_ps: int = 0, log: Log | None = None) -> simpy.Event:
        wait_ps = delay_ps + demand.latency_ps
        if demand.size_B <= 0:
            return self._env.timeout(wait_ps)
        if not demand.resources and not demand.later:
            alone_Bps(demand, self._capacity_Bps)  # raises: nothing would ever end it
        event = self._env.event()
        flow = InFlight(demand, event, self.log if log is None else log)
        if not demand.later and self._goes_ahead(flow, self._now() + wait_ps):
            return event
        if wait_ps:
            self._env.timeout(wait_ps).callbacks.append(partial(self._begin, flow))
        else:
            self._start(flow)
        return event

    def _now(self) -> int:
        return self._env.now  # type: ignore[return-value]  # whole picoseconds: every delay is a whole number

    def _goes_ahead(self, flow: InFlight, begin_ps: int) -> bool:
        """Take a demand that meets nobody, as far as is known, to its end."""
        rate_Bps, took_ps = self.pace(flow.demand)
        end_ps = begin_ps + took_ps
        resources = flow.demand.resources
        for resource in resources:
            if self._on[resource]:
                return False
            for other in self._ahead[resource]:
                if other.crosses(resource, begin_ps, end_ps):
                    return False
        flow.since_ps, flow.end_ps, flow.rate_Bps = begin_ps, end_ps, rate_Bps
        for resource in resources:
            self._ahead[resource][flow] = None
        self._env.timeout(end_ps - self._now()).callbacks.append(lambda _: self._finish_ahead(flow))
        return True

    def _finish_ahead(self, flow: InFlight) -> None:
        if flow.version:
            return
        for resource in flow.demand.resources:
            del self._ahead[resource][flow]
        flow.log.append(Segment(flow.demand, flow.since_ps, flow.end_ps, flow.rate_Bps))
        fire(flow.event)

    def ride(self, ride: Ride) -> bool:
        """Trains give way to each other: two that cross one resource meet, whenever they are there."""
        for resource in ride.train.on:
            if self._on[resource]:
                return False
            for other in self._ahead[resource]:
                if other.end_ps > ride.since_ps and ride.crosses(resource, other.since_ps, other.end_ps):
                    return False
        for resource in ride.train.on:
            self._ahead[resource][ride] = None
        left_ps = ride.base_ps + ride.train.total_ps - self._now()
        self._env.timeout(left_ps).callbacks.append(lambda _: self._arrive(ride))
        return True

    def _arrive(self, ride: Ride) -> None:
        if ride.gone:
            return
        for resource in ride.train.on:
            del self._ahead[resource][ride]
        ride.passed(len(ride.train.demands))
        ride.ended()

    def _leave(self, ride: Ride) -> InFlight:
        """A train is broken: its first demand that has not ended, by itself again, as one ahead."""
        for resource in ride.train.on:
            del self._ahead[resource][ride]
        ride.gone = True
        train = ride.train
        part = bisect_right(train.end_ps, self._now() - ride.base_ps, lo=ride.first)
        ride.passed(part)
        flow = InFlight(train.demands[part], self._env.event(), ride.log)
        flow.since_ps, flow.end_ps = ride.base_ps + train.begin_ps[part], ride.base_ps + train.end_ps[part]
        flow.rate_Bps = train.rate_Bps[part]
        ride.broken(part, flow.event)
        return flow

    def _meet(self, resources: Sequence[int]) -> None:
        """A demand starts on resources: those ahead there may meet it from now on, and others ahead may meet those."""
        now = self._now()
        queue = list(resources)
        while queue:
            for one in list(self._ahead[queue.pop()]):
                if one.end_ps <= now:
                    continue  # gone within this instant
                if isinstance(one, Ride):
                    flow = self._leave(one)
                else:
                    flow = one
                    for resource in flow.demand.resources:
                        del self._ahead[resource][flow]
                flow.version += 1
                if flow.since_ps > now:
                    flow.rate_Bps = 0.0
                    self._env.timeout(flow.since_ps - now).callbacks.append(partial(self._begin, flow))
                else:
                    queue += flow.demand.resources
                    for resource in flow.demand.resources:
                        self._on[resource][flow] = None
                    self._env.timeout(flow.end_ps - now).callbacks.append(partial(self._end, flow, flow.version))

    def _begin(self, flow: InFlight, _: simpy.Event) -> None:
        self._start(flow)

    def _end(self, flow: InFlight, version: int, _: simpy.Event) -> None:
        self._finish(flow, version)

    def _start(self, flow: InFlight) -> None:
        flow.since_ps = self._now()
        shared = False
        for resource in flow.demand.resources:
            if self._ahead[resource]:
                self._meet(flow.demand.resources)
            on = self._on[resource]
            on[flow] = None
            shared = shared or len(on) > 1
        if shared:
            self._touch(flow)
        else:
            # nobody to share with: should another start within this instant, it touches these resources itself
            self._set(flow, self.pace(flow.demand)[0])

    def _finish(self, flow: InFlight, version: int) -> None:
        if version != flow.version:
            return
        flow.log.append(Segment(flow.demand, flow.since_ps, self._now(), flow.rate_Bps))
        left = False
        for resource in flow.demand.resources:
            on = self._on[resource]
            del on[flow]
            left = left or bool(on)
        if left:
            self._touch(flow)
        fire(flow.event)

    def _touch(self, flow: InFlight) -> None:
        self._touched.update(dict.fromkeys(flow.demand.resources))
        if not self._settling:
            self._settling = True
            self._at_end_of_instant(self._settle)

    def _at_end_of_instant(self, act: Callable[[], None]) -> None:
        event = self._env.event()
        event._ok = True
        event._value = None
        event.callbacks.append(lambda _: act())
        self._env.schedule(event, priority=END_OF_INSTANT)  # type: ignore[arg-type]

    def _settle(self) -> None:
        self._settling = False
        touched, self._touched = self._touched, {}
        seen: set[int] = set()
        for resource in touched:
            if resource not in seen and self._on[resource]:
                self._solve(self._component(resource, seen))

    def _component(self, resource: int, seen: set[int]) -> list[InFlight]:
        """Flows of the connected part around a resource; its resources are added to ``seen``."""
        flows: dict[InFlight, None] = {}
        queue = [resource]
        seen.add(resource)
        while queue:
            for flow in self._on[queue.pop()]:
                if flow not in flows:
                    flows[flow] = None
                    for other in flow.demand.resources:
                        if other not in seen:
                            seen.add(other)
                            queue.append(other)
        return list(flows)

    def _solve(self, flows: list[InFlight]) -> None:
        if len(flows) == 1:
            self._set(flows[0], self.pace(flows[0].demand)[0])
            return
        for flow, rate in zip(flows, self._rates_of([flow.demand for flow in flows]), strict=True):
            if not rate > 0:
                raise InfeasibleError("a transfer is left without capacity: a resource it crosses is down")
            self._set(flow, rate)

    def _rates_of(self, demands: list[Demand]) -> list[float]:
        """Max-min fair rates of demands that share with each other and nobody else. [B/s]"""
        if len(demands) <= _FEW:
            return max_min_of_few_Bps(self._capacity_Bps, demands)
        resource = np.concatenate([np.array(demand.resources, np.int64) for demand in demands])
        number = np.repeat(np.arange(len(demands)), [len(demand.resources) for demand in demands])
        share = np.concatenate([np.array(demand.shares, np.float64) for demand in demands])
        used, local = np.unique(resource, return_inverse=True)
        capacity = np.array([self._capacity_Bps[i] for i in used])
        rates: list[float] = max_min_Bps(capacity, local, number, share, len(demands)).tolist()
        return rates

    def pace(self, demand: Demand) -> tuple[float, int]:
        # demands recur, and identity tells them apart at no cost
        known = self._rates.get(id(demand))
        if known is None:
            rate_Bps = alone_Bps(demand, self._capacity_Bps)
            known = self._rates[id(demand)] = (demand, rate_Bps, duration_ps(demand.size_B, rate_Bps))
        return known[1], known[2]

    def _set(self, flow: InFlight, rate_Bps: float) -> None:
        if rate_Bps == flow.rate_Bps:
            return
        if flow.rate_Bps:
            self._rebase(flow)
        else:  # it begins
            flow.version += 1
        flow.rate_Bps = rate_Bps
        timer = self._env.timeout(duration_ps(flow.remaining_B, rate_Bps))
        timer.callbacks.append(partial(self._end, flow, flow.version))

    def _rebase(self, flow: InFlight) -> None:
        """Count what has moved at the rate so far, from here on anew; timers set before are void."""
        now = self._now()
        if now > flow.since_ps and flow.rate_Bps:
            flow.remaining_B = max(flow.remaining_B - flow.rate_Bps * (now - flow.since_ps) / PS_PER_S, 0.0)
            flow.log.append(Segment(flow.demand, flow.since_ps, now, flow.rate_Bps))
        flow.since_ps = now
        flow.version += 1
