"""Who waited for whom in a Kineto file: host threads for the device and each other, streams for each other.

Files say little of it; what is said is taken, the rest is inferred as `to_trace` tells, and held against the
recorded times: nothing may start before what it waits for has ended.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.traces.kineto.events import CALL, COPY, SYNC
from cmsim.traces.kineto.launch import LAUNCH, WAIT, WAITS, Launches, Mask, Stream

STREAM_WAITS = ("cudaStreamWaitEvent", "cuStreamWaitEvent", "hipStreamWaitEvent")
_RECORD = "wait_on_cuda_event_record_corr_id"
#: how far two readings of one moment may be apart: many files cut times to whole microseconds [us]
CLOCK_US = 1.0
#: shortest time between launches of a thread in which another thread may have had its turn [us], assumed
TURN_US = 100.0
#: a row started late if nothing known explains the last part of its wait [us]; it waited for what ended shortly before,
#: or was about to drain [us], assumed
LATE_US, SOON_US, DRAIN_US = 20.0, 10.0, 50.0
#: shortest idle time that is asked whether the thread polled memory [us], assumed
POLL_US = 1000.0


@dataclass
class HostWaits:
    """Waits of host threads, each after a mark (at the start of the thread's next host row).

    over_us    by mark: when the wait before its row was over, -inf for none
    device     (mark, device row): the mark's host row starts after the device row
    host       (mark, mark before): the same for a host row
    held_us    by mark: latest moment for the row's end, so that who waits for it is not late
    counts     of what was found, by what it was
    """

    over_us: Floats
    held_us: Floats
    device: list[tuple[int, int]] = field(default_factory=list)
    host: list[tuple[int, int]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def host_waits(given: Launches) -> HostWaits:
    """What host rows wait for. Work after a mark stands in the row of the next mark of its thread."""
    marks = given.marks
    waits = HostWaits(np.full(len(marks), -np.inf), np.full(len(marks), np.inf))
    after = np.full(len(marks), -1, np.int64)
    after[marks.before[marks.before >= 0]] = np.flatnonzero(marks.before >= 0)
    said = _Said(given)
    for mark in np.flatnonzero(marks.kind == WAIT).tolist():
        rows = _awaited(given, mark, said)
        waits.counts["waits for the device"] += 1
        if after[mark] >= 0:
            _wait(given, waits, int(after[mark]), rows)
    for row in np.flatnonzero(_blocking(given)).tolist():
        waits.counts["copies that block"] += 1
        if after[given.mark[row]] >= 0:
            _wait(given, waits, int(after[given.mark[row]]), [row])
    _turns(given, waits)
    _polls(given, waits)
    return waits


def _wait(given: Launches, waits: HostWaits, mark: int, rows: list[int]) -> None:
    for row in rows:
        waits.device.append((mark, row))
        waits.over_us[mark] = max(waits.over_us[mark], given.finish_us[row])


def _awaited(given: Launches, mark: int, said: _Said) -> list[int]:
    """Device rows that a call waited for: launched before it, ended when it returned."""
    marks, events = given.marks, given.events
    start, end = float(marks.start_us[mark]), float(marks.end_us[mark]) + CLOCK_US
    call = int(marks.event[mark])
    kind, told = WAITS[events.names[events.name[call]]], said.of(call)
    last = [stream.last(start, end) for stream in given.by_stream]
    if kind == "device":
        return [row for row in last if row >= 0]
    if kind == "event" and "wait_on_stream" in told:
        row = said.before_event(told, start, end)
        return [row] if row >= 0 else []
    if kind == "stream":
        if stream := said.stream(told):
            row = stream.last(start, end)
            return [row] if row >= 0 else []
        # Only a stream that had nothing left to do can have been waited for.
        last = [row for row, one in zip(last, given.by_stream, strict=True) if row >= 0 and one.last(start) == row]
    ended = [row for row in last if row >= 0 and given.finish_us[row] > start]
    if ended:
        return [max(ended, key=lambda row: (given.finish_us[row], row))]
    # It returned at once: of a stream that says it waited for the one in use.
    mine = [row for row in last if row >= 0 and marks.thread[given.mark[row]] == marks.thread[mark]]
    return [max(mine)] if mine and kind == "stream" else []


class _Said:
    """What ``cuda_sync`` events say of the calls they belong to, by link: streams by number, events by their record."""

    def __init__(self, given: Launches) -> None:
        events = given.events
        self.given = given
        self.told: dict[int, dict[str, int]] = {}
        for row in events.rows(SYNC).tolist():
            told = {key: one for key, one in events.arguments.get(row, {}).items() if type(one) is int and one >= 0}
            stream = events.lanes[events.lane[row]][1]
            if type(stream) is int and stream >= 0:
                told.setdefault("stream", stream)
            self.told[int(events.link[row])] = told
        calls = events.rows(CALL)
        records = sorted({one[_RECORD] for one in self.told.values() if _RECORD in one})
        calls = calls[np.isin(events.link[calls], records)]
        self._record_us = dict(zip(events.link[calls].tolist(), events.start_us[calls].tolist(), strict=True))
        self._streams = {
            events.lanes[events.lane[given.event[one.rows[0]]]][1]: one for one in reversed(given.by_stream)
        }

    def of(self, call: int) -> dict[str, int]:
        """What is said of a call, given by its row."""
        return self.told.get(int(self.given.events.link[call]), {})

    def stream(self, told: dict[str, int], key: str = "stream") -> Stream | None:
        return self._streams.get(told.get(key, -1))

    def before_event(self, told: dict[str, int], moment: float, ended_us: float) -> int:
        """The last row launched on the stream that is waited for, before its event was recorded; -1 for none."""
        waited = self.stream(told, "wait_on_stream")
        recorded = self._record_us.get(told.get(_RECORD, -1), moment)
        return waited.last(recorded, ended_us) if waited else -1


def _blocking(given: Launches) -> Mask:
    """Copies whose call returned only when they had ended."""
    events, marks = given.events, given.marks
    copies = np.flatnonzero((events.category[given.event] == COPY) & (marks.event[given.mark] >= 0))
    names = np.array(events.names, object)
    out = np.zeros(len(given.event), bool)
    for row in copies.tolist():
        name, mark = names[events.name[given.event[row]]], given.mark[row]
        call = names[events.name[marks.event[mark]]]
        returned = marks.end_us[mark] + CLOCK_US >= given.finish_us[row]
        if "Async" not in call:
            out[row] = returned and "emcpy" in call
        elif "Pageable" in name:
            # A copy to pageable memory has the caller wait, inside the call or in one that the file left out.
            idle = given.next_start_us(int(marks.thread[mark]), float(marks.start_us[mark])) + CLOCK_US
            idle_until_end = idle >= given.finish_us[row]
            out[row] = returned or ("DtoH" in name and idle_until_end)
    return out


def _turns(given: Launches, waits: HostWaits) -> None:
    """Threads that take turns: the first mark of a turn waits for the last of the turn before."""
    marks = given.marks
    for mark in (np.flatnonzero(marks.thread[1:] != marks.thread[:-1]) + 1).tolist():
        own, thread = int(marks.before[mark]), int(marks.thread[mark])
        start = float(marks.start_us[mark])
        handed = float(marks.end_us[mark - 1])
        if handed > start + CLOCK_US:
            continue
        if own >= 0:
            since = float(marks.end_us[own])
            gap = start - since
            if gap < TURN_US or given.busy_us(thread, since, min(handed, start)) > gap / 2:
                continue
        waits.host.append((mark, mark - 1))
        waits.over_us[mark] = max(waits.over_us[mark], min(handed, start))
        waits.held_us[mark - 1] = min(waits.held_us[mark - 1], start)
        waits.counts["waits for another thread"] += 1


def _polls(given: Launches, waits: HostWaits) -> None:
    """Threads idle for long that went on with the kernel launched last: they polled what it writes."""
    marks = given.marks
    launched = np.full(len(marks), -1, np.int64)
    launched[given.mark] = np.arange(len(given.mark))  # in order of issue: the last row of each mark
    for thread in range(len(given.threads)):
        starts, ends, _ = given.busy(thread)
        mine = np.flatnonzero(marks.thread == thread)
        for gap in np.flatnonzero(starts[1:] - ends[:-1] >= POLL_US).tolist():
            left, back = float(ends[gap]), float(starts[gap + 1])
            at = int(np.searchsorted(marks.start_us[mine], back, "left"))
            if not 0 < at < len(mine) or marks.kind[mine[at - 1]] != LAUNCH or waits.over_us[mine[at]] > -np.inf:
                continue
            row = int(launched[mine[at - 1]])
            length, idle = given.finish_us[row] - given.begin_us[row], back - left
            if length > idle or not given.begin_us[row] <= back <= given.finish_us[row] + idle / 10:
                continue
            if given.finish_us[row] > back:
                row = int(given.stream_before[row])
            if row >= 0 and given.finish_us[row] > left:
                _wait(given, waits, int(mine[at]), [row])
                waits.counts["waits for values that a kernel writes"] += 1


def stream_waits(given: Launches, communicates: Mask) -> tuple[Ints, Ints, Counter[str]]:
    """(device row, device row of another stream it waits for), and how they were found."""
    events, marks = given.events, given.marks
    counts: Counter[str] = Counter()
    found: list[tuple[int, int]] = []
    said = _Said(given)
    wait = np.array([name.startswith(STREAM_WAITS) for name in events.names], bool)
    calls = events.rows(CALL)
    calls = calls[wait[events.name[calls]]]
    calls = calls[(events.start_us[calls] >= given.start_us) & (events.start_us[calls] <= given.end_us)]
    calls = calls[np.argsort(events.start_us[calls], kind="stable")]
    groups: dict[int, int] = {}
    told_of = {call: told for call in calls.tolist() if "wait_on_stream" in (told := said.of(call))}
    for call, told in told_of.items():
        row, waited = _told(given, said, told, float(events.start_us[call]))
        if waited >= 0:
            found.append((row, waited))
            counts["named by the file"] += 1
    silent = calls[~np.isin(calls, list(told_of))]
    for thread, lane in enumerate(given.threads):
        rows = np.flatnonzero(marks.thread[given.mark] == thread)
        own = silent[events.lane[silent] == lane]
        at = np.searchsorted(given.issued_us[rows], events.start_us[own], "left")
        following, times = np.unique(rows[at[at < len(rows)]], return_counts=True)
        for row, count in zip(following.tolist(), times.tolist(), strict=True):
            groups[row] = groups.get(row, 0) + count
    waiters = {waiter for waiter, _ in found}
    for row in np.flatnonzero(communicates).tolist():
        if row not in waiters:
            groups.setdefault(row, 1)
    in_use = _in_use(given, communicates)
    for row, count in sorted(groups.items()):
        _inferred(given, row, count, in_use, found, counts)
    _late(given, found, counts)
    pairs = np.array(sorted(set(found)), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1], counts


def _late(given: Launches, found: list[tuple[int, int]], counts: Counter[str]) -> None:
    """Rows that started long after all that is known to hold them: just as a row of another stream ended.

    An event in between that no call told of, or a device with no room for both: then the last blocks of the one still
    run when the first of the other start.
    """
    before = given.stream_before
    known = np.maximum(np.where(before >= 0, given.finish_us[before], -np.inf), given.issued_us + given.latency_us)
    if found:
        pairs = np.array(found, np.int64)
        np.maximum.at(known, pairs[:, 0], given.finish_us[pairs[:, 1]])
    by_end = np.argsort(given.finish_us, kind="stable")
    ends = given.finish_us[by_end]
    for row in np.flatnonzero(given.begin_us - known > LATE_US).tolist():
        begin = float(given.begin_us[row])
        low, high = np.searchsorted(ends, [begin - SOON_US, begin + DRAIN_US], "left").tolist()
        near = [
            one
            for one in by_end[low:high].tolist()
            if one < row
            and given.stream[one] != given.stream[row]
            and given.finish_us[one] - begin <= max(CLOCK_US, (given.finish_us[one] - given.begin_us[one]) / 10)
        ]
        if near:
            last = min(near, key=lambda one: (abs(given.finish_us[one] - begin), one))
            found.append((row, last))
            drained = given.finish_us[last] > begin + CLOCK_US
            counts["inferred from times" + (", while the other still drained" if drained else "")] += 1


def _told(given: Launches, said: _Said, told: dict[str, int], moment: float) -> tuple[int, int]:
    """The next row launched on the stream that waits, and the row it waits for; -1 for none."""
    waiter = said.stream(told)
    at = int(np.searchsorted(waiter.issued_us, moment, "left")) if waiter else 0
    if waiter is None or at == len(waiter.rows) or waiter is said.stream(told, "wait_on_stream"):
        return -1, -1
    row = int(waiter.rows[at])
    return row, said.before_event(told, moment, float(given.begin_us[row]) + CLOCK_US)


def _inferred(
    given: Launches, row: int, count: int, in_use: Ints, found: list[tuple[int, int]], counts: Counter[str]
) -> None:
    """What a row waits for whose thread had its stream wait ``count`` times before launching it.

    in_use  by row: of communication, a row of the stream that was in use then; -1 for other rows
    """
    moment, begin = float(given.issued_us[row]), float(given.begin_us[row]) + CLOCK_US
    among = [given.by_stream[given.stream[in_use[row]]]] if in_use[row] >= 0 else given.by_stream
    latest = [(one.last(moment), one) for one in among]
    others = [(last, one) for last, one in latest if last >= 0 and given.stream[last] != given.stream[row]]
    for last, stream in sorted(others, key=lambda pair: -pair[0])[:count]:
        ended = stream.last(moment, begin)
        if ended >= 0:
            found.append((row, ended))
            counts["inferred" if ended == last else "inferred, of an earlier row than the last launched"] += 1
        else:
            counts["dropped: nothing had ended yet"] += 1


def _in_use(given: Launches, communicates: Mask) -> Ints:
    """For each row of communication the last other row that its thread launched before, else anybody; -1 for none."""
    thread = given.marks.thread[given.mark]
    out = np.full(len(given.mark), -1, np.int64)
    for mine in [np.arange(len(thread)), *(np.flatnonzero(thread == one) for one in range(len(given.threads)))]:
        last = np.maximum.accumulate(np.where(communicates[mine], -1, mine))
        out[mine] = np.where(last >= 0, last, out[mine])
    return np.where(communicates, out, -1)
