"""A rank's rows from its timeline: device tasks, communication, and the host work between.

A replay that starts each row at the end of the one before on its queue, or of the last row it waits for, and a gap
later, gives the recorded timeline back:

- the host's thread has a row up to each launch; what it spent in a call that waits for the device is no work of its own
  but a wait for the task that ended last before the call returned;
- what is left between a task and all it waits for (time from launch to start, what the device takes between tasks) is
  kept where rows become programs (`cmsim.traces.gaps`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmsim.arrays import Ints
from cmsim.traces.ascend.timeline import ViewTimeline
from cmsim.traces.ascend.waits import waits
from cmsim.traces.recorded import RankTrace, rank_trace
from cmsim.workload.ops import COMPUTE, HOST


@dataclass
class _Extra:
    """Rows beside the recorded tasks: host work."""

    start_us: list[float]
    end_us: list[float]
    name: list[str]
    queue: list[str]


@dataclass(frozen=True)
class Meaning:
    """What a communication op is in a replay: kind of row, collective, communicator, peer, tag and size [B]."""

    kind: int = COMPUTE
    collective: str = ""
    group: int = -1
    peer: int = -1
    tag: int = 0
    size_B: float = 0.0


def rows(line: ViewTimeline, meaning: Sequence[Meaning], *, offset_us: float, notes: Counter[str]) -> RankTrace:
    """All rows of a rank, in the order of their starts, which count from ``offset_us`` before its first."""
    wait_row, wait_dep = waits(line)
    extra = _Extra([], [], [], [])
    pairs: list[tuple[int, int]] = []  # rows of ``extra`` count from len(line.name)
    launch_row = _host_rows(line, extra, pairs, notes)
    linked = np.flatnonzero(launch_row >= 0)
    row = np.concatenate([wait_row, linked, np.array([pair[0] for pair in pairs], np.int64)])
    dep = np.concatenate([wait_dep, launch_row[linked], np.array([pair[1] for pair in pairs], np.int64)])
    count = len(line.name)
    start = np.concatenate([line.start_us, extra.start_us])
    end = np.concatenate([line.end_us, extra.end_us])
    place = np.concatenate([np.full(count, 1), np.zeros(len(extra.name), np.int64)])
    order = np.lexsort((place, end, start))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    forwards = position[dep] < position[row]
    comm, devices = line.comm, line.devices
    blank = len(extra.name)

    def pick(values: Sequence[Any]) -> list[Any]:
        return [values[i] for i in order.tolist()]

    def of_comm(get: Callable[[Meaning], Any], device: Any) -> list[Any]:
        return pick([*[device] * devices, *(get(one) for one in meaning), *[device] * blank])

    kinds = [COMPUTE] * devices + [one.kind for one in meaning] + [HOST] * blank
    kernel = line.kernel + ["generic" if one.kind == COMPUTE else "" for one in meaning] + [""] * blank
    assert len(meaning) == len(comm)
    size = [one.bytes_B for one in line.work] + [one.size_B for one in meaning] + [0.0] * blank
    return rank_trace(
        line.rank,
        name=pick([*line.name, *extra.name]),
        kind=pick(kinds),
        stream=pick([*line.queue, *extra.queue]),
        start_us=start[order] + offset_us,
        duration_us=(end - start)[order],
        kernel=pick(kernel),
        precision=pick([*(one.precision for one in line.work), *[""] * (len(comm) + blank)]),
        flops=pick([*(one.flops for one in line.work), *[0.0] * (len(comm) + blank)]),
        bytes_B=pick(size),
        collective=of_comm(lambda one: one.collective, ""),
        group=of_comm(lambda one: one.group, -1),
        peer=of_comm(lambda one: one.peer, -1),
        tag=of_comm(lambda one: one.tag, 0),
        deps=(position[row[forwards]], position[dep[forwards]]),
    )


def _host_rows(line: ViewTimeline, extra: _Extra, pairs: list[tuple[int, int]], notes: Counter[str]) -> Ints:
    """Host work up to each launch; returns the row that launches each task, -1 for none."""
    base = len(line.name)
    launch_row = np.full(base, -1, np.int64)
    at = np.maximum(line.launch_us, 0.0)
    threads: dict[str, list[int]] = {}
    for i in np.flatnonzero(~np.isnan(at)).tolist():
        threads.setdefault(line.launch_thread[i], []).append(i)
    held = _held(line)
    for thread in sorted(threads):
        tasks = np.array(threads[thread])
        tasks = tasks[np.lexsort((line.start_us[tasks], at[tasks]))]
        now = 0.0
        for i in tasks.tolist():
            here = float(at[i])
            hold = held.get(i)
            if here > now or hold or launch_row[tasks[0]] < 0:
                waited = -1
                if hold and hold[0] >= 0:
                    begin = min(max(now, hold[1]), here)
                    if begin > now:
                        _add(extra, now, begin, "host", f"host {thread}")
                        now = begin
                    waited = hold[0]
                    now = min(max(now, float(line.end_us[waited])), here)
                _add(extra, now, here, "launch", f"host {thread}")
                if waited >= 0:
                    pairs.append((base + len(extra.name) - 1, waited))
                    notes["calls of the host that wait for the device"] += 1
                now = here
            launch_row[i] = base + len(extra.name) - 1
    return launch_row


def _add(extra: _Extra, start_us: float, end_us: float, name: str, queue: str) -> None:
    extra.start_us.append(start_us)
    extra.end_us.append(end_us)
    extra.name.append(name)
    extra.queue.append(queue)


def _held(line: ViewTimeline) -> Mapping[int, tuple[int, float]]:
    """Tasks whose launch came after a call that waits for the device: the task awaited, and when the call began.

    The call holds up the thread that made it, and each that queued nothing meanwhile.
    """
    begin, end, on = line.sync
    rows = np.flatnonzero(~np.isnan(line.issued_us))
    if not len(begin) or not len(rows):
        return {}
    by_issuer: dict[str, list[int]] = {}
    for i in rows.tolist():
        by_issuer.setdefault(line.issuer[i], []).append(i)
    everything = np.arange(len(line.name))
    by_end = everything[np.argsort(line.end_us, kind="stable")]
    device_by_end = by_end[by_end < line.devices]
    out: dict[int, tuple[int, float]] = {}
    order = np.argsort(end, kind="stable")
    for issuer, tasks_list in by_issuer.items():
        tasks = np.array(tasks_list)
        tasks = tasks[np.lexsort((line.launch_us[tasks], line.issued_us[tasks]))]
        issued = line.issued_us[tasks]
        first, last = np.searchsorted(issued, begin[order]), np.searchsorted(issued, end[order])
        mine = np.array([on[i] == issuer for i in order.tolist()])
        use = (mine | (first == last)) & (last < len(tasks)) & (end[order] > 0)
        for i, place in zip(order[use].tolist(), last[use].tolist(), strict=True):
            awaited = _awaited(line, by_end, end[i])
            if awaited >= 0 and line.end_us[awaited] <= begin[i]:
                awaited = _awaited(line, device_by_end, end[i])  # it waited for nothing: for kernels, if for any
            if awaited >= 0:
                out[int(tasks[place])] = (awaited, float(begin[i]))
    return out


def _awaited(line: ViewTimeline, by_end: Ints, by_us: float) -> int:
    at = int(np.searchsorted(line.end_us[by_end], by_us, "right")) - 1
    return int(by_end[at]) if at >= 0 else -1
