"""Who launched what: device work of a Kineto file, and the calls of the host by which it was issued or waited for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.reading.bytes_in import bad
from cmsim.traces.kineto.events import ANNOTATION, CALL, COPY, KERNEL, OP, SET, STEP, Events

Mask = NDArray[np.bool_]

#: calls that wait for the device: for all of it, a stream, or an event
WAITS = {
    "cudaDeviceSynchronize": "device",
    "cuCtxSynchronize": "device",
    "hipDeviceSynchronize": "device",
    "cudaFree": "device",
    "hipFree": "device",
    "cudaStreamSynchronize": "stream",
    "cuStreamSynchronize": "stream",
    "hipStreamSynchronize": "stream",
    "cudaEventSynchronize": "event",
    "cuEventSynchronize": "event",
    "hipEventSynchronize": "event",
}
LAUNCH, WAIT, TAIL = range(3)


@dataclass(frozen=True)
class Marks:
    """Calls that cut a thread's time, in order of start; the last one of a step's thread is the end of the steps.

    thread  into ``Launches.threads``
    start_us, end_us  of the call
    kind    LAUNCH, WAIT or TAIL
    event   row of the call; -1 for TAIL, and for work without a launch in the file
    before  the mark before on the same thread, -1 for the first
    """

    thread: Ints
    start_us: Floats
    end_us: Floats
    kind: Ints
    event: Ints

    def __len__(self) -> int:
        return len(self.thread)

    @cached_property
    def before(self) -> Ints:
        order = np.argsort(self.thread, kind="stable")
        before = np.full(len(self), -1, np.int64)
        same = self.thread[order][1:] == self.thread[order][:-1]
        before[order[1:][same]] = order[:-1][same]
        return before


@dataclass(frozen=True)
class Stream:
    """Device rows of one stream in order of execution; times that only grow.

    issued_us  when the row, and so all before it, had been launched
    """

    rows: Ints
    issued_us: Floats
    end_us: Floats

    def last(self, before_us: float, ended_us: float = np.inf) -> int:
        """The last row launched before a moment and ended by another; -1 for none."""
        count = min(
            int(np.searchsorted(self.issued_us, before_us, "left")),
            int(np.searchsorted(self.end_us, ended_us, "right")),
        )
        return int(self.rows[count - 1]) if count else -1


@dataclass(frozen=True)
class Launches:
    """Device work in order of issue, and the marks on the host.

    start_us    of the window that is replayed: the recorded steps, else everything
    end_us      of the window on the host
    event       row of each device row
    begin_us, finish_us  of device rows
    mark        by which a device row was launched
    stream      into ``streams``
    threads     lanes of the threads with marks, in order of their first
    unlaunched, outside  device rows without a launch in the file (then: when they began), and those left out
    """

    events: Events
    start_us: float
    end_us: float
    steps: int
    event: Ints
    begin_us: Floats
    finish_us: Floats
    mark: Ints
    stream: Ints
    streams: tuple[str, ...]
    threads: tuple[int, ...]
    marks: Marks
    unlaunched: int
    outside: int
    _busy: dict[int, tuple[Floats, Floats, Floats]] = field(default_factory=dict)
    _starts: dict[int, Floats] = field(default_factory=dict)

    @cached_property
    def issued_us(self) -> Floats:
        return self.marks.start_us[self.mark]

    @cached_property
    def by_stream(self) -> tuple[Stream, ...]:
        out = []
        for which in range(len(self.streams)):
            rows = np.flatnonzero(self.stream == which)
            rows = rows[np.lexsort((rows, self.begin_us[rows]))]
            out.append(
                Stream(rows, np.maximum.accumulate(self.issued_us[rows]), np.maximum.accumulate(self.finish_us[rows]))
            )
        return tuple(out)

    @cached_property
    def stream_before(self) -> Ints:
        """The row before each row on its stream, -1 for the first."""
        before = np.full(len(self.event), -1, np.int64)
        for one in self.by_stream:
            before[one.rows[1:]] = one.rows[:-1]
        return before

    @cached_property
    def latency_us(self) -> float:
        """From the start of a call to that of its work, where the stream was free: median; 0 where none was. [us]"""
        before = self.stream_before
        free = np.where(before >= 0, self.finish_us[before], -np.inf) <= self.issued_us
        called = free & (self.marks.event[self.mark] >= 0)
        return max(float(np.median((self.begin_us - self.issued_us)[called])), 0.0) if called.any() else 0.0

    def busy(self, thread: int) -> tuple[Floats, Floats, Floats]:
        """Stretches in which operators or calls of a thread ran: starts, ends, and length of those before each."""
        if thread not in self._busy:
            events = self.events
            rows = events.rows(OP, CALL)
            rows = rows[events.lane[rows] == self.threads[thread]]
            rows = rows[np.argsort(events.start_us[rows], kind="stable")]
            start, end = events.start_us[rows], events.start_us[rows] + events.length_us[rows]
            reach = np.maximum.accumulate(end) if len(end) else end
            first = np.flatnonzero(np.append(True, start[1:] > reach[:-1])) if len(rows) else np.zeros(0, np.int64)
            starts = start[first]
            ends = reach[np.append(first[1:] - 1, len(rows) - 1)] if len(rows) else reach
            self._busy[thread] = starts, ends, np.concatenate([[0.0], np.cumsum(ends - starts)])
        return self._busy[thread]

    def next_start_us(self, thread: int, after_us: float) -> float:
        """When the next operator or call of a thread started, inf for never. [us]"""
        if thread not in self._starts:
            events = self.events
            rows = events.rows(OP, CALL)
            self._starts[thread] = np.sort(events.start_us[rows[events.lane[rows] == self.threads[thread]]])
        at = int(np.searchsorted(self._starts[thread], after_us, "right"))
        return float(self._starts[thread][at]) if at < len(self._starts[thread]) else np.inf

    def busy_us(self, thread: int, start_us: float, end_us: float) -> float:
        """How long operators or calls of a thread ran between two moments. [us]"""
        starts, ends, before = self.busy(thread)

        def until(moment: float) -> float:
            at = int(np.searchsorted(starts, moment, "right"))
            return float(before[at] - max(ends[at - 1] - moment, 0)) if at else 0.0

        return until(end_us) - until(start_us)


def launches(events: Events) -> Launches:
    """Join device work with its launches. Raises InputError where there is no device work."""
    device = events.rows(KERNEL, COPY, SET)
    if not len(device):
        raise bad(events.path, "holds no kernel or copy: recorded without the device's activity")
    calls = events.rows(CALL)
    names = np.array([WAITS.get(name, "") != "" for name in events.names], bool)
    waits = calls[names[events.name[calls]]]
    linked = calls[events.link[calls] >= 0]
    linked = linked[np.lexsort((events.start_us[linked], events.link[linked]))]
    at = np.searchsorted(events.link[linked], events.link[device])
    found = at < len(linked)
    found[found] = events.link[linked[at[found]]] == events.link[device[found]]
    call = np.full(len(device), -1, np.int64)
    call[found] = linked[at[found]]
    begin = events.start_us[device]
    issued = np.where(found, events.start_us[call], begin)

    start, end, steps, step_lane = _window(events)
    inside = (issued >= start) & (issued <= end)
    outside = int((~inside).sum())
    device, call, begin, issued, found = device[inside], call[inside], begin[inside], issued[inside], found[inside]
    if not len(device):
        raise bad(events.path, "no kernel was launched in the recorded steps")
    waits = waits[(events.start_us[waits] >= start) & (events.start_us[waits] <= end)]
    # Threads that only watch events would look as if they took turns with those that work.
    works = np.append(np.unique(events.lane[call[found]]), step_lane)
    waits = waits[np.isin(events.lane[waits], works)]
    finish = begin + events.length_us[device]

    # One mark a call, however many rows it launched (graphs); work without a launch stands for one each.
    launched = np.unique(call[found])
    lost = np.flatnonzero(~found)
    main = _busiest(events, launched, step_lane)
    event = np.concatenate([launched, np.full(len(lost), -1, np.int64), waits])
    lane = np.where(event >= 0, events.lane[event], main)
    moment = np.concatenate([events.start_us[launched], begin[lost], events.start_us[waits]])
    over = np.concatenate([_ends(events, launched), begin[lost], _ends(events, waits)])
    kind = np.repeat([LAUNCH, LAUNCH, WAIT], [len(launched), len(lost), len(waits)])
    if steps:
        event, lane = np.append(event, -1), np.append(lane, step_lane)
        moment, over, kind = np.append(moment, end), np.append(over, end), np.append(kind, TAIL)
        over = np.minimum(over, np.maximum(end, moment))
    order = np.lexsort((np.arange(len(event)), kind, moment))
    lanes, thread = _in_order(lane[order])
    marks = Marks(thread, moment[order], over[order], kind[order], event[order])

    place = np.empty(len(event), np.int64)
    place[order] = np.arange(len(event))
    mark = np.empty(len(device), np.int64)
    mark[found] = place[np.searchsorted(launched, call[found])]
    mark[lost] = place[len(launched) + np.arange(len(lost))]
    by_issue = np.lexsort((device, begin, mark))
    codes, stream = _in_order(events.lane[device][by_issue])
    return Launches(
        events=events,
        start_us=start if steps else float(min(marks.start_us.min(), begin.min())),
        end_us=end if steps else float(marks.end_us.max()),
        steps=steps,
        event=device[by_issue],
        begin_us=begin[by_issue],
        finish_us=finish[by_issue],
        mark=mark[by_issue],
        stream=stream,
        streams=_stream_names(events, codes),
        threads=lanes,
        marks=marks,
        unlaunched=len(lost),
        outside=outside,
    )


def _ends(events: Events, rows: Ints) -> Floats:
    return events.start_us[rows] + events.length_us[rows]


def _window(events: Events) -> tuple[float, float, int, int]:
    """Start and end of the recorded steps, how many, and their thread's lane; everything where none is marked."""
    step = np.array([name.startswith(STEP) for name in events.names], bool)
    rows = events.rows(ANNOTATION)
    rows = rows[step[events.name[rows]]]
    if not len(rows):
        return -np.inf, np.inf, 0, -1
    # a step has one name, on however many threads it is marked
    steps = len(np.unique(events.name[rows]))
    return float(events.start_us[rows].min()), float(_ends(events, rows).max()), steps, int(events.lane[rows[0]])


def _busiest(events: Events, launched: Ints, step_lane: int) -> int:
    """The thread that work without a launch is given to."""
    if step_lane >= 0 or not len(launched):
        return step_lane
    return int(np.argmax(np.bincount(events.lane[launched])))


def _in_order(codes: Ints) -> tuple[tuple[int, ...], Ints]:
    """Different codes in order of first use, and the number of each."""
    values, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(values), np.int64)
    number[order] = np.arange(len(values))
    return tuple(int(one) for one in values[order]), number[inverse]


def _stream_names(events: Events, lanes: tuple[int, ...]) -> tuple[str, ...]:
    """ "stream 7"; of several devices "device 1 stream 7"."""
    devices = {events.lanes[lane][0] for lane in lanes}
    several = len(devices) > 1
    return tuple(
        (f"device {device} " if several else "") + f"stream {stream}"
        for device, stream in (events.lanes[lane] for lane in lanes)
    )
