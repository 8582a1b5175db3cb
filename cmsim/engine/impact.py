"""What faults did to a run: how much slower it was, for whom, and which links were full."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from cmsim.arrays import Ints
from cmsim.engine.plan import Plan
from cmsim.engine.record import links_columns
from cmsim.engine.timeline import Timeline
from cmsim.units import to_s

#: a link is saturated from this utilization on; shares are rounded to whole units
_FULL = 1 - 1e-4
#: a rank is slowed where its last op ends later than this, relative to the whole run; shares are rounded to 6e-8
_LATER = 1e-6
#: how many links and stretches of ranks are listed
_LISTED = 8


@dataclass(frozen=True)
class Saturated:
    """Links that were full alike: one of them in words, how many there are, and for how long. [s]"""

    link: str
    instances: int
    time_s: float


@dataclass(frozen=True)
class Impact:
    """A run with faults beside the same run without.

    slowdown   makespan over that of the healthy run [1]    healthy_makespan_s  [s]
    slowed     how many ranks end later than in the healthy run    ranks: which, as stretches "0-7"
    saturated  links that were full for longest, first
    """

    slowdown: float
    healthy_makespan_s: float
    slowed: int
    ranks: tuple[str, ...]
    saturated: tuple[Saturated, ...]

    def data(self) -> dict[str, object]:
        """As plain data, for results."""
        return {**asdict(self), "ranks": list(self.ranks), "saturated": [asdict(one) for one in self.saturated]}


def impact(healthy: tuple[Plan, Timeline], broken: tuple[Plan, Timeline]) -> Impact:
    """Compare two runs of one workload by links."""
    before_ps, after_ps = _ends_ps(*healthy), _ends_ps(*broken)
    whole_ps = healthy[1].makespan_ps
    later = np.flatnonzero(after_ps - before_ps > _LATER * whole_ps)
    return Impact(
        slowdown=broken[1].makespan_ps / whole_ps,
        healthy_makespan_s=float(to_s(whole_ps)),
        slowed=len(later),
        ranks=_stretches(later),
        saturated=saturated(*broken),
    )


def saturated(plan: Plan, timeline: Timeline) -> tuple[Saturated, ...]:
    """The links that were full for longest, first."""
    links = links_columns(plan, timeline)
    full = links["utilization"] >= _FULL
    if not full.any():
        return ()
    names, code = np.unique(links["resource"][full].astype(str), return_inverse=True)
    time_ps = np.bincount(code.reshape(-1), (links["times"] * links["each_ps"])[full])
    number = {name: i for i, name in enumerate(plan.resources.name)}
    order = np.lexsort((np.arange(len(names)), -time_ps))[:_LISTED]
    out = []
    for i in order.tolist():
        at = number[str(names[i])]
        words = plan.resources.label[at] if plan.resources.label else plan.resources.name[at]
        out.append(Saturated(words, plan.resources.instances[at], float(to_s(time_ps[i]))))
    return tuple(out)


def _ends_ps(plan: Plan, timeline: Timeline) -> Ints:
    """When the last op of each rank ends. [ps]"""
    ends = np.array([int(end.max()) if len(end) else 0 for end in timeline.end_ps], np.int64)
    return ends[plan.folding.rank_class]


def _stretches(ranks: Ints) -> tuple[str, ...]:
    """Rank numbers as stretches.

    >>> _stretches(np.array([0, 1, 2, 5, 8, 9]))
    ('0-2', '5', '8-9')
    """
    if not len(ranks):
        return ()
    breaks = np.flatnonzero(np.diff(ranks) > 1)
    first, last = ranks[np.append(0, breaks + 1)].tolist(), ranks[np.append(breaks, len(ranks) - 1)].tolist()
    words = [str(a) if a == b else f"{a}-{b}" for a, b in zip(first, last, strict=True)]
    more = len(words) - _LISTED
    return tuple(words if more <= 0 else [*words[:_LISTED], f"and {more} more"])
