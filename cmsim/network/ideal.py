"""The ideal network: every group has every resource to itself."""

from __future__ import annotations

from collections.abc import Sequence

import simpy

from cmsim.network.demand import Demand, Segment
from cmsim.network.log import Log
from cmsim.network.maxmin import alone_Bps, duration_ps
from cmsim.network.train import Ride


class Ideal:
    """Latency, then size over the slowest resource; nothing is shared.

    capacity_Bps: what one instance of each resource carries, one direction [B/s]
    """

    def __init__(self, env: simpy.Environment, capacity_Bps: Sequence[float]):
        self._env = env
        self._capacity_Bps = list(capacity_Bps)
        self.log = Log()

    def add(self, capacity_Bps: Sequence[float]) -> int:
        self._capacity_Bps += capacity_Bps
        return len(self._capacity_Bps) - len(capacity_Bps)

    def move(self, demand: Demand, delay_ps: int = 0, log: Log | None = None) -> simpy.Event:
        if demand.size_B <= 0:
            return self._env.timeout(delay_ps + demand.latency_ps)
        rate, took_ps = self.pace(demand)
        now: int = self._env.now  # type: ignore[assignment]  # whole picoseconds
        start = now + delay_ps + demand.latency_ps
        end = start + took_ps
        (self.log if log is None else log).append(Segment(demand, start, end, rate))
        return self._env.timeout(end - now)

    def pace(self, demand: Demand) -> tuple[float, int]:
        rate_Bps = alone_Bps(demand, self._capacity_Bps, one_group=True)
        return rate_Bps, duration_ps(demand.size_B, rate_Bps)

    def ride(self, ride: Ride) -> bool:
        ride.passed(len(ride.train.demands))
        now: int = self._env.now  # type: ignore[assignment]  # whole picoseconds
        self._env.timeout(ride.base_ps + ride.train.total_ps - now).callbacks.append(lambda _: ride.ended())
        return True
