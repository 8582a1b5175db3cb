"""Max-min fair rates by progressive filling (water-filling).

The rates x are the unique ones for which every demand has a bottleneck: a resource that is full and on which no
demand has a higher rate. Level by level: the resource whose fair share is smallest fixes the demands that cross
it; what they use is taken from the others; repeat.

Two things keep the result equal to the bit however demands are grouped or split into independent parts: shares
are whole numbers, so sums of them are exact; and a rate is the level of its bottleneck, computed from what is
left there, never a sum of increments.

Source: Bertsekas and Gallager, Data Networks, 2nd ed., 1992, section 6.5.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import InfeasibleError
from cmsim.network.demand import SHARE_ONE, Demand
from cmsim.units import CLOCK_PS, PS_PER_S, on_clock

#: crossings from which sorting them once is cheaper than a pass per level
_MANY = 2048


def max_min_Bps(
    capacity_Bps: NDArray[np.float64],
    resource: NDArray[np.int64],
    flow: NDArray[np.int64],
    share: NDArray[np.float64],
    flows: int,
) -> NDArray[np.float64]:
    """Max-min fair rate of each flow. [B/s]

    capacity_Bps  of each resource, shape (resources,)
    resource, flow, share  one entry per crossing, shape (crossings,); shares are whole numbers (2**-24 units)
    flows  how many flows there are; every flow crosses at least one resource

    Cost: one pass over the crossings per distinct level; where there are many crossings, one pass in all, and one over
    the resources per level.

    >>> one = float(SHARE_ONE)    # parking lot: A crosses both links, B the first (1 B/s), C the second (2 B/s)
    >>> max_min_Bps(np.array([1.0, 2.0]), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 2]), np.full(4, one), 3)
    array([0.5, 0.5, 1.5])
    """
    if len(flow) > _MANY:
        return _max_min_of_many(capacity_Bps, resource, flow, share, flows)
    rate = np.full(flows, np.inf)
    left = capacity_Bps * float(SHARE_ONE)
    size = len(capacity_Bps)
    active = np.ones(len(flow), bool)
    while active.any():
        load = np.bincount(resource[active], share[active], minlength=size)
        level = np.divide(left, load, out=np.full(size, np.inf), where=load > 0)
        lowest = level.min()
        fixed = np.zeros(flows, bool)
        fixed[flow[active & (level == lowest)[resource]]] = True
        rate[fixed] = lowest
        gone = active & fixed[flow]
        left = np.maximum(left - np.bincount(resource[gone], share[gone], minlength=size) * lowest, 0.0)
        active &= ~gone
    return rate


def max_min_of_few_Bps(capacity_Bps: Sequence[float], demands: Sequence[Demand]) -> list[float]:
    """The same to the bit for a handful of demands, which columns cost more than they save. [B/s]

    capacity_Bps  of every resource, by its number
    """
    left = {one: capacity_Bps[one] * float(SHARE_ONE) for demand in demands for one in demand.resources}
    rate = [math.inf] * len(demands)
    open_ = list(range(len(demands)))
    while open_:
        load = dict.fromkeys(left, 0)
        for at in open_:
            for one, share in zip(demands[at].resources, demands[at].shares, strict=True):
                load[one] += share
        lowest = min(left[one] / load[one] for one in load if load[one])
        full = {one for one in load if load[one] and left[one] / load[one] == lowest}
        used = dict.fromkeys(left, 0)
        for at in open_:
            if not full.isdisjoint(demands[at].resources):
                rate[at] = lowest
                for one, share in zip(demands[at].resources, demands[at].shares, strict=True):
                    used[one] += share
        left = {one: max(there - used[one] * lowest, 0.0) for one, there in left.items()}
        open_ = [at for at in open_ if rate[at] == math.inf]
    return rate


def _max_min_of_many(
    capacity_Bps: NDArray[np.float64],
    resource: NDArray[np.int64],
    flow: NDArray[np.int64],
    share: NDArray[np.float64],
    flows: int,
) -> NDArray[np.float64]:
    """The same to the bit: loads are not summed anew at every level, only what was fixed is taken off. [B/s]"""
    size = len(capacity_Bps)
    rate = np.full(flows, np.inf)
    left = capacity_Bps * float(SHARE_ONE)
    load = np.bincount(resource, share, minlength=size)
    by_resource, resource_ptr = _rows(resource, size)
    by_flow, flow_ptr = _rows(flow, flows)
    open_ = np.ones(flows, bool)
    while True:
        level = np.divide(left, load, out=np.full(size, np.inf), where=load > 0)
        lowest = level.min(initial=np.inf)
        if lowest == np.inf:
            return rate
        crossing = by_resource[_spread(resource_ptr, np.flatnonzero(level == lowest))]
        fixed = flow[crossing]
        fixed = np.unique(fixed[open_[fixed]])
        rate[fixed] = lowest
        open_[fixed] = False
        gone = by_flow[_spread(flow_ptr, fixed)]
        used = np.bincount(resource[gone], share[gone], minlength=size)
        # whole numbers, so this is the sum of what is left
        load -= used
        left = np.maximum(left - used * lowest, 0.0)


def _rows(owner: NDArray[np.int64], owners: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entries sorted by owner, and where each owner's begin."""
    ptr = np.zeros(owners + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=owners), out=ptr[1:])
    return np.argsort(owner, kind="stable"), ptr


def _spread(ptr: NDArray[np.int64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of all entries of some owners."""
    length = ptr[owners + 1] - ptr[owners]
    ends = np.cumsum(length)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(ptr[owners] - (ends - length), length) + np.arange(total)


def alone_Bps(demand: Demand, capacity_Bps: Sequence[float], *, one_group: bool = False) -> float:
    """Rate of a demand that shares nothing with others: the slowest of its resources. [B/s]

    one_group: nor do the groups that it stands for share anything with each other
    """
    rate = math.inf
    shares = demand.alone if one_group and demand.alone else demand.shares
    for resource, share in zip(demand.resources, shares, strict=True):
        level = capacity_Bps[resource] * float(SHARE_ONE) / float(share)
        rate = level if level < rate else rate
    if not 0 < rate < math.inf:
        raise InfeasibleError(f"a transfer of {demand.size_B:g} B crosses no resource with capacity (rate {rate})")
    return rate


def duration_ps(size_B: float, rate_Bps: float) -> int:
    """Whole picoseconds to move ``size_B`` at ``rate_Bps``, rounded up: a transfer never ends early. [ps]

    Raises FailedError where it ends beyond the clock.
    """
    took_ps = size_B / rate_Bps * PS_PER_S
    if not took_ps < CLOCK_PS:
        on_clock(took_ps)
    return math.ceil(took_ps)
