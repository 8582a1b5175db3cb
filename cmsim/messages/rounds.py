"""What one round of messages takes on the fabric, and the same round as demands for a network that is shared.

All messages of a round start together; it ends when the last byte of the last message is in:

    T = max over messages (bytes through, at max-min fair rates + latency of the path + 2 o)
    and at least, for m messages of one rank, (m - 1) max(g, o) + k G + latency + 2 o

with o, g and k G as in LogGP: overhead of either end, gap between the messages of one sender, and the time of one
message alone. Shares are proportional to bytes (``merge``), so that no message is slower than the slowest class, before
or after others end: the bytes of a round take exactly as long as its most loaded resource. Only where a longer path
might end after those are the ends of the faster messages followed one by one.

Leaves out: skew between ranks (a round starts when the one before has ended everywhere), and incast losses.
Source: Bertsekas and Gallager, Data Networks, 2nd ed., 1992, section 6.5.2; Alexandrov et al., SPAA 1995 (LogGP).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError
from cmsim.messages.merge import Classes
from cmsim.network import SHARE_ONE, Demand
from cmsim.network.maxmin import max_min_Bps
from cmsim.units import to_ps

#: ends of messages that are followed before the rest is taken to keep its rate
_EVENTS = 32
#: rates and times closer than this are taken as one: shares are rounded to whole units
_ALIKE = 1 + 1e-9


@dataclass(frozen=True)
class Software:
    """What a library adds to the wire. The default adds nothing.

    base_s      of one call [s]                      step_s  of one round [s]
    overhead_s  o: either end of a message [s]       gap_s   g: between two messages of one rank [s]
    scale_up, scale_out  payload share of what the links carry inside domains and between them [1]
    gamma_s_per_B  of adding a byte, between rounds [s/B]
    wire        whether a message pays the latency of its path; not where base_s was fitted with it inside
    """

    base_s: float = 0.0
    step_s: float = 0.0
    overhead_s: float = 0.0
    gap_s: float = 0.0
    scale_up: float = 1.0
    scale_out: float = 1.0
    wire: bool = True
    gamma_s_per_B: float = 0.0

    def latency_s(self, path_s: Floats) -> Floats:
        """Of a message beside its bytes: o + L + o, and the software of a round. [s]"""
        return (path_s if self.wire else 0.0 * path_s) + (2 * self.overhead_s + self.step_s)


@dataclass(frozen=True)
class Solved:
    """A round in time.

    time_s  from the first start to the last end [s]      rate_Bps  of each message class at the start [B/s]
    """

    time_s: float
    rate_Bps: Floats


def solve(classes: Classes, software: Software, *, most_per_rank: int = 1) -> Solved:
    """How long a round takes.

    most_per_rank: messages of the rank that sends most, for the gaps between them [1]
    Raises InfeasibleError where a message crosses a resource without capacity.
    """
    if not len(classes.count):
        return Solved(software.step_s, np.zeros(0))
    latency = software.latency_s(classes.latency_s)
    rate = _rates(classes, np.ones(len(classes.count), bool))
    if not (rate > 0).all():
        raise InfeasibleError("a message is left without capacity: a resource it crosses is down")
    slow = rate <= rate.min() * _ALIKE
    slow_latency = float(latency[slow].max())
    time_s = classes.size_B / float(rate.min()) + slow_latency
    # by then all bytes are through; only a message with a longer way may still be under it
    if (latency > slow_latency).any():
        time_s = max(time_s, _last_end_s(classes, rate, latency, slow_latency))
    if software.gap_s or software.overhead_s:
        per_B = classes.one / (classes.capacity_Bps[classes.resource] * classes.unit)
        alone = np.zeros(len(classes.count))
        np.maximum.at(alone, classes.message, per_B * classes.size_B)
        waits = (most_per_rank - 1) * max(software.gap_s, software.overhead_s)
        time_s = max(time_s, waits + float((alone + latency).max()))
    return Solved(time_s, rate)


def _rates(classes: Classes, active: NDArray[np.bool_]) -> Floats:
    """Max-min fair progress of the active classes, 0 of the others. [B/s]"""
    which = np.flatnonzero(active)
    number = np.full(len(active), -1, np.int64)
    number[which] = np.arange(len(which))
    cross = active[classes.message]
    if which.size == len(active):
        resource, message, share = classes.resource, classes.message, classes.share
    else:
        resource, message, share = classes.resource[cross], number[classes.message[cross]], classes.share[cross]
    rate = np.zeros(len(active))
    capacity = classes.capacity_Bps * (classes.unit / SHARE_ONE)
    rate[which] = max_min_Bps(capacity, resource, message, share, len(which))
    return rate


def _last_end_s(classes: Classes, rate: Floats, latency: Floats, slow_latency: float) -> float:
    """When the last message with a path longer than that of the slowest is in. [s]"""
    left = np.full(len(rate), classes.size_B)
    active = np.ones(len(rate), bool)
    far = latency > slow_latency
    now = last = 0.0
    for _ in range(_EVENTS):
        ends = np.where(active, left / np.where(active, rate, 1.0), np.inf)
        step = float(ends.min())
        done = active & (ends <= step * _ALIKE)
        now += step
        if (done & far).any():
            last = max(last, now + float(latency[done & far].max()))
        left -= rate * step
        active &= ~done
        if not (active & far).any():
            return last
        rate = _rates(classes, active)
    ends = now + left / np.where(active, rate, 1.0) + latency
    return max(last, float(ends[active & far].max()))


def demands(classes: Classes, software: Software) -> tuple[Demand, ...]:
    """The round for a shared network: one demand per message class, on every single resource it crosses.

    Resources are numbered as the routes number them, each instance by itself, so that demands of whatever groups meet
    where their messages do. ``shares`` are sums over the members that cross an instance.
    """
    latency = to_ps(software.latency_s(classes.latency_s)).tolist()
    order = np.argsort(classes.resource_class, kind="stable")
    start = np.searchsorted(classes.resource_class[order], np.arange(len(classes.capacity_Bps) + 1))
    out = []
    scale = SHARE_ONE / classes.unit
    by_message = np.argsort(classes.message, kind="stable")
    ptr = np.searchsorted(classes.message[by_message], np.arange(len(classes.count) + 1))
    for number in range(len(classes.count)):
        resources: list[int] = []
        shares: list[int] = []
        for cross in by_message[ptr[number] : ptr[number + 1]].tolist():
            kind = int(classes.resource[cross])
            instances = order[start[kind] : start[kind + 1]].tolist()
            resources += instances
            shares += [max(round(float(classes.share[cross]) * scale), 1)] * len(instances)
        out.append(Demand(classes.size_B, int(latency[number]), tuple(resources), tuple(shares)))
    return tuple(out)
