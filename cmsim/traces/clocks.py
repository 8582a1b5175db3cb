"""Clocks of ranks that were recorded apart, set by what they have in common: the ends of collectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.traces.recorded import RankTrace, edges_csr
from cmsim.workload.ops import COLLECTIVE, HOST

#: a start that is later by no more than this says nothing: ends of one collective differ by as much [us]
_SAME_US = 20.0


def aligned(ranks: Mapping[int, RankTrace]) -> tuple[dict[int, RankTrace], dict[int, float]]:
    """Ranks on one clock, and how much later each starts than the first of them. [us]

    A collective ends everywhere at once, whenever its ranks came. The clock of a rank is set by the median of the ends
    it shares with the rank that has most collectives (ranks that share none keep theirs). A rank that starts later
    than the first gets a row of host work for the difference, which all its queues wait for: who waits for whom in the
    first collective is part of what was recorded.
    """
    ends = {rank: _ends(one) for rank, one in ranks.items()}
    if len(ranks) < 2 or not any(len(key) for key, _ in ends.values()):
        return dict(ranks), dict.fromkeys(ranks, 0.0)
    first = max(sorted(ends), key=lambda rank: len(ends[rank][0]))
    key, end_us = ends[first]
    starts = {}
    for rank, one in ranks.items():
        own_key, own_end_us = ends[rank]
        _, here, there = np.intersect1d(key, own_key, assume_unique=True, return_indices=True)
        clock_us = float(np.median(end_us[here] - own_end_us[there])) if len(here) else 0.0
        starts[rank] = clock_us + float(
            np.nanmin(one.start_us, initial=0.0 if np.isnan(one.start_us).all() else np.inf)
        )
    least = min(starts.values())
    late = {rank: start - least if start - least > _SAME_US else 0.0 for rank, start in starts.items()}
    return {rank: _later(one, late[rank]) for rank, one in ranks.items()}, late


def late_note(late_us: Mapping[int, float]) -> list[str]:
    """What to say of ranks that start late."""
    last_us = max(late_us.values(), default=0.0)
    if not last_us:
        return []
    return [f"clocks of {len(late_us)} ranks set by the ends of collectives: the last starts {last_us:.0f} us late"]


def _ends(one: RankTrace) -> tuple[Ints, Floats]:
    """A number for each collective that has a recorded end, by communicator and turn in it, and that end. [us]"""
    rows = np.flatnonzero(one.kind == COLLECTIVE)
    group = one.group[rows]
    order = np.argsort(group, kind="stable")
    position = np.arange(len(rows))
    heads = np.maximum.accumulate(np.where(np.diff(group[order], prepend=-2) != 0, position, 0))
    turn = np.empty(len(rows), np.int64)
    turn[order] = position - heads
    end_us = one.start_us[rows] + one.duration_us[rows]
    known = ~np.isnan(end_us)
    return (group * 2**32 + turn)[known], end_us[known]


def _later(one: RankTrace, late_us: float) -> RankTrace:
    """A rank that starts later: a row of host work before all others, which the first of every queue waits for."""
    if not late_us:
        return one
    streams = (*one.streams, "clock") if "clock" not in one.streams else one.streams
    names = (*one.names, "starts later than the first rank")
    _, firsts = np.unique(one.stream, return_index=True)
    alone = np.flatnonzero((one.stream < 0) & (np.diff(one.dep_ptr) == 0))
    row = np.concatenate([np.repeat(np.arange(len(one)), np.diff(one.dep_ptr)) + 1, firsts + 1, alone + 1])
    dep = np.concatenate([one.dep_idx + 1, np.zeros(len(firsts) + len(alone), np.int64)])
    dep_ptr, dep_idx = edges_csr(len(one) + 1, row, dep)
    start = float(np.nanmin(one.start_us))
    before: dict[str, float] = {
        "name": len(names) - 1,
        "kind": HOST,
        "stream": streams.index("clock"),
        "start_us": start,
        "duration_us": late_us,
        "flops": 0.0,
        "bytes_B": 0.0,
        "tag": 0,
        "cores": 1.0,
    }
    columns: dict[str, Any] = {
        name: np.concatenate([np.array([before.get(name, -1)], column.dtype), column])
        for name, column in vars(one).items()
        if isinstance(column, np.ndarray) and name not in ("dep_ptr", "dep_idx") and len(column) == len(one)
    }
    columns["start_us"][1:] += late_us
    return replace(one, names=names, streams=streams, dep_ptr=dep_ptr, dep_idx=dep_idx, **columns)
