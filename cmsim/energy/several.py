"""Power of several runs that one class of ranks makes one after the other, worked out at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cmsim.arrays import Columns, Ints
from cmsim.energy.power import (
    MOST_INTERVALS,
    Power,
    Profile,
    banded_W,
    edges_of,
    integrals_of,
    over_intervals,
    profile_rows,
    profiles_of,
    shared_out,
)
from cmsim.hardware import BoardWatts, System, band, board_watts
from cmsim.units import PS_PER_S


def powers(system: System, ops: Columns, links: Columns, *, begin_ps: Ints, end_ps: Ints) -> list[Power]:
    """Power of several runs that one class of ranks makes one after the other: of each as `power_over_time` has it.

    ops, links  of all of them    begin_ps, end_ps  of each run, with something between it and the next
    """
    (profile,) = profiles_of(system, ops, links, begin_ps)
    boards, at_ps = [board_watts(system.accelerator), *(band(system.accelerator) or ())], profile.at_ps
    first, last = np.searchsorted(at_ps, begin_ps), np.searchsorted(at_ps, end_ps, side="right")
    assert (at_ps[first] == begin_ps).all(), "something happens where a run begins"
    if (at_ps[last - 1] != end_ps).any() or (last - first).max() > MOST_INTERVALS + 1:
        return [_of_one(system, boards, profile, a, b, end) for a, b, end in zip(first, last, end_ps, strict=True)]
    moved = profile_rows(system, boards, profile)[:, :-1] * np.diff(at_ps)
    bounds = list(zip(first.tolist(), last.tolist(), strict=True))
    total = profile.count * np.concatenate([over_intervals(moved[:, a : b - 1]) for a, b in bounds], axis=1)
    seconds = np.concatenate([np.diff(at_ps[a:b]) for a, b in bounds]) / PS_PER_S
    use, engines_J = shared_out(system, total, seconds)
    watts = banded_W(system, boards, engines_J, seconds, use, at_work=profile.count)
    out, start = [], 0
    for a, b in bounds:
        own = slice(start, start := start + b - a - 1)
        out.append(Power(at_ps[a:b] - at_ps[a], *(part[:, own] for part in watts)))
    return out


def _of_one(system: System, boards: Sequence[BoardWatts], profile: Profile, first: int, last: int, end: int) -> Power:
    """Power of one of several runs, whose intervals are not its own instants."""
    rows, since = slice(first, last), int(profile.at_ps[first])
    own = replace(
        profile,
        at_ps=profile.at_ps[rows] - since,
        engines=profile.engines[:, rows],
        feeding=profile.feeding[rows],
        port=profile.port[rows],
    )
    edges = edges_of([own], end - since)
    use, engines_J = integrals_of(system, boards, [own], edges)
    seconds = np.diff(edges) / PS_PER_S
    return Power(edges, *banded_W(system, boards, engines_J, seconds, use, at_work=own.count))


__all__ = ["powers"]
