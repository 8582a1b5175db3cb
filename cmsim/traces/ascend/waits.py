"""What waits for what on a rank's timeline, beside its queues.

Which task an event waits for is not recorded. A wait on a stream that held it up is taken for one on the last event
recorded before it ended; one that did not, for waits on the last event of each other stream. A communication op
without such a wait waits for the last kernel of each stream launched before it. No wait contradicts recorded times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.traces.ascend.timeline import TOLERANCE_US, ViewTimeline

Pairs = tuple[Ints, Ints]
_NONE: Pairs = (np.zeros(0, np.int64), np.zeros(0, np.int64))

#: without events recorded, a kernel that starts this soon after communication on an idle stream waited for it, assumed
_SOON_US = 100.0
#: a wait longer than this held its stream up [us]
_BLOCKED_US = 1.0


class _Streams:
    """Rows of each stream of the device, by start."""

    def __init__(self, line: ViewTimeline) -> None:
        self.line = line
        codes: dict[str, int] = {}
        # Communication of unknown stream stands by itself; its queue is in order too.
        names = [hw if hw else f"queue {queue}" for hw, queue in zip(line.hw, line.queue, strict=True)]
        code = np.array([codes.setdefault(name, len(codes)) for name in names], np.int64)
        order = np.lexsort((line.end_us, line.start_us, code))
        bounds = np.searchsorted(code[order], np.arange(len(codes) + 1))
        self.code = code
        self.rows = {name: order[bounds[i] : bounds[i + 1]] for name, i in codes.items()}

    def last_started(self, name: str, before_us: Floats) -> Ints:
        """The last row of a stream that started before a time, -1 for none."""
        rows = self.rows[name]
        at = np.searchsorted(self.line.start_us[rows], before_us) - 1
        return np.where(at >= 0, rows[np.maximum(at, 0)], -1)


def waits(line: ViewTimeline) -> Pairs:
    """Pairs (row, row it waits for) between streams; none contradicts the recorded times."""
    streams = _Streams(line)
    row, dep = _possible(line, _event_waits(line, streams))
    waited = np.zeros(len(line.name), bool)
    waited[row] = True
    comm = np.arange(line.devices, len(line.name))
    more = [_launched_before(line, streams, comm[~waited[comm]])]
    if not len(line.waits):
        more.append(_soon_after(line, streams))
    row = np.concatenate([row, *(pair[0] for pair in more)])
    dep = np.concatenate([dep, *(pair[1] for pair in more)])
    return _needed(line, *_possible(line, (row, dep)))


def _possible(line: ViewTimeline, pairs: Pairs) -> Pairs:
    """Those whose first row started after the other had ended."""
    row, dep = pairs
    good = (row != dep) & (line.end_us[dep] <= line.start_us[row] + TOLERANCE_US)
    return row[good], dep[good]


def _event_waits(line: ViewTimeline, streams: _Streams) -> Pairs:
    marks, records = line.waits, line.records
    waits_of, records_of = _by_stream(marks.stream), _by_stream(records.stream)
    out_row, out_dep = [], []
    loose = [name for name in streams.rows if name.startswith("queue ")]
    for stream, here in waits_of.items():
        rows = streams.rows.get(stream)
        if rows is None:
            continue
        place = np.searchsorted(line.start_us[rows], marks.start_us[here] - TOLERANCE_US)
        here, target = here[place < len(rows)], rows[place[place < len(rows)]]
        end_us = marks.end_us[here]
        # A wait was called for before the task that follows it.
        called_us = np.where(np.isnan(marks.called_us[here]), line.launch_us[target], marks.called_us[here])
        found: list[tuple[Floats, Ints]] = []
        for other, recorded in records_of.items():
            if other == stream or other not in streams.rows:
                continue
            at = np.minimum(
                np.searchsorted(records.end_us[recorded], end_us + TOLERANCE_US, "right"),
                _called_by(records.called_us[recorded], called_us),
            )
            chosen = recorded[np.maximum(at - 1, 0)]
            dep = streams.last_started(other, records.start_us[chosen])
            found.append((np.where(at > 0, records.end_us[chosen], -np.inf), np.where(at > 0, dep, -1)))
        for name in loose:
            dep = _last_ended(line, streams.rows[name], end_us)
            launched = _called_by(line.launch_us[streams.rows[name]], called_us)
            before = np.where(launched > 0, streams.rows[name][np.maximum(launched - 1, 0)], -1)
            dep = np.where((dep >= 0) & (before >= 0), np.where(before < dep, before, dep), -1)
            found.append((np.where(dep >= 0, line.end_us[dep], -np.inf), dep))
        latest = np.max([time for time, _ in found], axis=0) if found else np.full(len(here), -np.inf)
        blocked = end_us - marks.start_us[here] > _BLOCKED_US
        for time, dep in found:
            use = (dep >= 0) & (~blocked | (time == latest))
            out_row.append(target[use])
            out_dep.append(dep[use])
    return (np.concatenate(out_row), np.concatenate(out_dep)) if out_row else _NONE


def _by_stream(streams: Sequence[str]) -> dict[str, Ints]:
    out: dict[str, list[int]] = {}
    for i, stream in enumerate(streams):
        out.setdefault(stream, []).append(i)
    return {stream: np.array(indices) for stream, indices in out.items()}


def _called_by(called_us: Floats, by_us: Floats) -> Ints:
    """How many of a queue's calls came up to a time: all where it is unknown."""
    known = np.maximum.accumulate(np.where(np.isnan(called_us), -np.inf, called_us))
    return np.where(np.isnan(by_us), len(called_us), np.searchsorted(known, by_us, "right"))


def _last_ended(line: ViewTimeline, rows: Ints, by_us: Floats) -> Ints:
    """The last row of an in-order queue that ended by a time, -1 for none."""
    at = np.searchsorted(np.maximum.accumulate(line.end_us[rows]), by_us + TOLERANCE_US, "right") - 1
    return np.where(at >= 0, rows[np.maximum(at, 0)], -1)


def _launched_before(line: ViewTimeline, streams: _Streams, comm: Ints) -> Pairs:
    """Communication waits for the kernels launched before it, as far as they had ended when it started."""
    out_row, out_dep = [], []
    for rows in streams.rows.values():
        if rows[0] >= line.devices:
            continue
        kernels = rows[rows < line.devices]
        dep = _last_ended(line, kernels, line.start_us[comm])
        at = _called_by(line.launch_us[kernels], line.launch_us[comm])
        before = np.where(at > 0, kernels[np.maximum(at - 1, 0)], -1)
        earlier = (dep >= 0) & ((before < 0) | (line.start_us[before] < line.start_us[dep]))
        dep = np.where(earlier, before, dep)
        out_row.append(comm[dep >= 0])
        out_dep.append(dep[dep >= 0])
    return (np.concatenate(out_row), np.concatenate(out_dep)) if out_row else _NONE


def _soon_after(line: ViewTimeline, streams: _Streams) -> Pairs:
    """Where no waits were recorded: kernels that start soon after communication on a stream that was idle till then."""
    out_row, out_dep = [], []
    queues: dict[str, list[int]] = {}
    for i in range(line.devices, len(line.name)):
        queues.setdefault(line.queue[i], []).append(i)
    for rows in streams.rows.values():
        kernels = rows[rows < line.devices]
        if not len(kernels):
            continue
        idle_us = np.concatenate([[-np.inf], np.maximum.accumulate(line.end_us[kernels])[:-1]])
        for queue in queues.values():
            dep = _last_ended(line, np.array(queue), line.start_us[kernels])
            ended = line.end_us[dep]
            start = line.start_us[kernels]
            use = (dep >= 0) & (ended >= idle_us - TOLERANCE_US) & (start - ended <= _SOON_US)
            out_row.append(kernels[use])
            out_dep.append(dep[use])
    return (np.concatenate(out_row), np.concatenate(out_dep)) if out_row else _NONE


def _needed(line: ViewTimeline, row: Ints, dep: Ints) -> Pairs:
    """Without the pairs that the order of queues implies: those on one queue, and those no later than one before."""
    queues: dict[str, int] = {}
    queue = np.array([queues.setdefault(name, len(queues)) for name in line.queue], np.int64)
    other = queue[row] != queue[dep]
    row, dep = row[other], dep[other]
    if not len(row):
        return row, dep
    rank = np.empty(len(line.name), np.int64)
    rank[np.lexsort((line.end_us, line.start_us))] = np.arange(len(line.name))
    pair = queue[row] * len(queues) + queue[dep]
    order = np.lexsort((-rank[dep], rank[row], pair))
    row, dep, pair = row[order], dep[order], pair[order]
    # Ranks are below the number of rows, so one running maximum serves all pairs of queues, one after the other.
    climbing = np.maximum.accumulate(rank[dep] + pair * len(line.name))
    new = np.concatenate([[True], climbing[1:] > climbing[:-1]])
    new |= np.concatenate([[True], pair[1:] != pair[:-1]])
    return row[new], dep[new]
