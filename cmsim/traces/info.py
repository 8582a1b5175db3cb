"""What a recorded trace holds, in numbers, for any format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.traces import order as orders
from cmsim.traces.lower import keys_of
from cmsim.traces.queues import queued
from cmsim.traces.recorded import PASS, RankTrace, Trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, KINDS, RECV, SEND


def trace_info(trace: Trace, *, top: int = 20) -> dict[str, Any]:
    """Numbers about a trace, ready for JSON; None where the recording does not say.

    format, source, ranks (recorded), world_size, notes, facts
    ops               by kind, all ranks
    collectives       by name: count, bytes_B (as nccl-tests counts), time_us; all ranks
    messages          sends and receives: count, bytes_B, time_us; all ranks
    communicators     name, ranks (size, or None for all), members, ops of all ranks; those that are used
    recorded_us       length of what was recorded
    steps, step_us    steps of the recording (None: it marks none), and its length over these
    span_us           from the first start to the last end, the longest of the ranks
    critical_path_us  longest chain of recorded durations through dependencies and queues, the longest of the ranks
    busy_us           of kernels, communication and host work: time in which one of them ran, mean of the ranks
    overlap_us        time in which communication and a kernel ran at once, mean of the ranks
    exposed_us        time in which communication ran and no kernel, mean of the ranks
    kernels           the ``top`` names by time: name, count, time_us, share of all kernels' time; all ranks

    Raises InputError where dependencies make no sense.
    """
    ranks = [trace.ranks[rank] for rank in sorted(trace.ranks)]
    overlaps = [found for one in ranks if (found := _overlap(one))]
    spans = [span_us for one in ranks if (span_us := _span_us(one)) is not None]
    timed = any(not np.isnan(one.duration_us).all() for one in ranks)
    return {
        "format": trace.format,
        "source": trace.source,
        "ranks": len(ranks),
        "world_size": trace.world_size or None,
        "ops": {
            KINDS[kind] if kind != PASS else "pass": count
            for kind in (*range(len(KINDS)), PASS)
            if (count := sum(int((one.kind == kind).sum()) for one in ranks))
        },
        "collectives": _collectives(ranks),
        "messages": {
            name: found for kind, name in ((SEND, "send"), (RECV, "recv")) if (found := _total(ranks, kind))["count"]
        },
        "communicators": _communicators(trace, ranks),
        "recorded_us": None if np.isnan(trace.recorded_us) else float(trace.recorded_us),
        "steps": int(trace.facts["steps"]) if "steps" in trace.facts else None,
        "step_us": None if np.isnan(trace.recorded_us) else float(trace.recorded_us / trace.facts.get("steps", 1.0)),
        "span_us": max(spans, default=None),
        "critical_path_us": max((_critical_path_us(trace, one) for one in ranks), default=None) if timed else None,
        "busy_us": _mean(overlaps, ("compute", "communication", "host")) if overlaps else None,
        "overlap_us": _mean(overlaps, ("overlap",))["overlap"] if overlaps else None,
        "exposed_us": _mean(overlaps, ("exposed",))["exposed"] if overlaps else None,
        "kernels": _kernels(ranks, top),
        "facts": dict(trace.facts),
        "notes": list(trace.notes),
    }


def _total(ranks: Iterable[RankTrace], kind: int) -> dict[str, Any]:
    out = {"count": 0, "bytes_B": 0.0, "time_us": 0.0}
    for one in ranks:
        rows = one.kind == kind
        out["count"] += int(rows.sum())
        out["bytes_B"] += float(one.bytes_B[rows].sum())
        out["time_us"] += float(np.nansum(one.duration_us[rows]))
    return out


def _collectives(ranks: Iterable[RankTrace]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in ranks:
        rows = np.flatnonzero(one.kind == COLLECTIVE)
        codes, count = one.collective[rows], len(one.collectives)
        columns = (
            np.bincount(codes, minlength=count).tolist(),
            np.bincount(codes, one.bytes_B[rows], count).tolist(),
            np.bincount(codes, np.nan_to_num(one.duration_us[rows]), count).tolist(),
        )
        for name, number, size_B, time_us in zip(one.collectives, *columns, strict=True):
            if number:
                its = found.setdefault(name, {"count": 0, "bytes_B": 0.0, "time_us": 0.0})
                its["count"] += number
                its["bytes_B"] += size_B
                its["time_us"] += time_us
    return dict(sorted(found.items()))


def _communicators(trace: Trace, ranks: Iterable[RankTrace]) -> list[dict[str, Any]]:
    used = np.zeros(len(trace.communicators), np.int64)
    for one in ranks:
        used += np.bincount(one.group[one.kind == COLLECTIVE], minlength=len(used))
    return [
        {
            "name": one.name,
            "ranks": len(one.members) or one.size or trace.world_size or None,
            "members": list(one.members),
            "ops": count,
        }
        for one, count in zip(trace.communicators, used.tolist(), strict=True)
        if count
    ]


def _span_us(one: RankTrace) -> float | None:
    end = one.start_us + np.nan_to_num(one.duration_us)
    return None if np.isnan(end).all() else float(np.nanmax(end) - np.nanmin(one.start_us))


def _union_us(start: Floats, end: Floats) -> float:
    """Length of the union of intervals.

    >>> _union_us(np.array([0.0, 5.0, 1.0]), np.array([3.0, 6.0, 4.0]))
    5.0
    """
    if not len(start):
        return 0.0
    order = np.argsort(start, kind="stable")
    start, reached = start[order], np.maximum.accumulate(end[order])
    gaps = np.maximum(start[1:] - reached[:-1], 0.0)
    return float(reached[-1] - start[0] - gaps.sum())


def _overlap(one: RankTrace) -> dict[str, float]:
    """Times in which something ran; empty where there is no clock. [us]"""
    timed = ~np.isnan(one.start_us) & ~np.isnan(one.duration_us)
    if not timed.any():
        return {}
    end = one.start_us + one.duration_us
    works, talks = timed & (one.kind == COMPUTE), timed & (one.kind >= COLLECTIVE)
    found = {
        name: _union_us(one.start_us[rows], end[rows])
        for name, rows in (
            ("compute", works),
            ("communication", talks),
            ("host", timed & (one.kind == HOST)),
            ("either", works | talks),
        )
    }
    found["overlap"] = max(found["compute"] + found["communication"] - found["either"], 0.0)
    found["exposed"] = found["communication"] - found["overlap"]
    return found


def _mean(found: list[dict[str, float]], names: Iterable[str]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in found])) for name in names}


def _critical_path_us(trace: Trace, one: RankTrace) -> float:
    """The longest chain of recorded durations; what has none takes no time. [us]"""
    key, _ = keys_of(one)
    rows = queued(trace, one, one.kind, key)
    length_us = np.nan_to_num(np.where(one.kind == PASS, 0.0, one.duration_us))
    if rows.order is not None:
        length_us = length_us[rows.order]
    by_queue = np.argsort(rows.queue, kind="stable")
    before, after = by_queue[:-1], by_queue[1:]
    same = (rows.queue[after] == rows.queue[before]) & (rows.queue[after] >= 0)
    ptr, idx = _csr(len(one), np.append(rows.row, after[same]), np.append(rows.dep, before[same]))
    return float((orders.ready(ptr, idx, length_us) + length_us).max(initial=0.0))


def _csr(count: int, row: Ints, dep: Ints) -> tuple[Ints, Ints]:
    ptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=count), out=ptr[1:])
    return ptr, dep[np.argsort(row, kind="stable")]


def _kernels(ranks: Iterable[RankTrace], top: int) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for one in ranks:
        rows = np.flatnonzero(one.kind == COMPUTE)
        codes, count = one.name[rows] + 1, len(one.names) + 1
        numbers = np.bincount(codes, minlength=count)
        times_us = np.bincount(codes, np.nan_to_num(one.duration_us[rows]), count)
        for code in np.flatnonzero(numbers).tolist():
            its = found.setdefault(one.names[code - 1] if code else "", [0, 0.0])
            its[0] += int(numbers[code])
            its[1] += float(times_us[code])
    whole_us = sum(time_us for _, time_us in found.values())
    most = sorted(found.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))[:top]
    return [
        {"name": name, "count": int(count), "time_us": time_us, "share": time_us / whole_us if whole_us else 0.0}
        for name, (count, time_us) in most
    ]
