"""A rank's timeline from what the Ascend profilers recorded: device tasks, communication, launches, marks of the host.

Device tasks of compute types, and copies, stand on the streams they ran on; what only moves a queue along (events,
notifies, and the tasks that communication ops are made of) is no task here.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.traces.ascend.comm import RankFiles, is_communication
from cmsim.traces.ascend.groups import CommRow
from cmsim.traces.ascend.shapes import RowWork, work
from cmsim.traces.ascend.tables import ABSENT, QUEUE_TYPES, Kernels
from cmsim.traces.ascend.view import View
from cmsim.traces.kernels import kernel_class

#: times closer than this are one: the device's clock ticks in 20 ns, and durations are rounded [us]
TOLERANCE_US = 0.05
#: tasks of a stream that overlap by no more do so by rounding: some tools print times in double precision [us]
_ROUNDED_US = 0.5
#: a launch recorded this long after its task started is no launch of it; less is the clocks' distance [us], assumed
_SKEW_US = 1000.0
#: names of a device task and of its row in the table of kernels start this close together [ns]
_SAME_NS = 1000
_COMPUTE = re.compile(r"(KERNEL_)?(AI_|AIC|AIV|MIX_|DSA|DVPP|JPEG|VPC|FUSION)", re.IGNORECASE)
_COPY = re.compile(r"MEMCPY|MEMSET", re.IGNORECASE)
_WAIT = re.compile(r"EVENT[_ ]?WAIT|WAIT[_ ]?EVENT", re.IGNORECASE)
_RECORD = re.compile(r"EVENT[_ ]?RECORD|RECORD[_ ]?EVENT", re.IGNORECASE)


@dataclass(frozen=True)
class TaskMarks:
    """Waits for events on the device's streams, or records of them: times, when the host called (NaN unknown) [us]."""

    start_us: Floats
    end_us: Floats
    called_us: Floats
    stream: list[str]

    def __len__(self) -> int:
        return len(self.stream)


@dataclass(frozen=True)
class ViewTimeline:
    """Device tasks and communication ops of a rank, device tasks first, each by start.

    Times count from ``origin_ns`` [us]. ``hw`` tells streams of the device apart, ``queue`` what runs in order.
    ``counted``: the task counts as computing or communication in the profiler's own sums (copies do not).
    """

    rank: int
    origin_ns: int
    start_us: Floats
    end_us: Floats
    name: list[str]
    hw: list[str]
    queue: list[str]
    kernel: list[str]
    work: list[RowWork]
    counted: NDArray[np.bool_]
    comm: list[CommRow]
    launch_us: Floats
    launch_thread: list[str]
    issued_us: Floats
    issuer: list[str]
    sync: tuple[Floats, Floats, list[str]]
    waits: TaskMarks
    records: TaskMarks
    notes: Counter[str]
    span_us: float

    @property
    def devices(self) -> int:
        """Rows that are device tasks: the rest are communication."""
        return len(self.name) - len(self.comm)


@dataclass(frozen=True)
class _Device:
    """Device tasks that make rows."""

    start_ns: Ints
    duration_us: Floats
    name: list[str]
    hw: list[str]
    stream: list[str]
    counted: NDArray[np.bool_]
    thread: Ints
    kernel: list[str]
    work: list[RowWork]


def timeline(files: RankFiles, comm: Sequence[CommRow]) -> ViewTimeline | None:
    """What a rank's device did and who launched it; None where it did nothing."""
    notes: Counter[str] = Counter()
    view = files.view
    if view is not None and len(view.tasks):
        device = _of_view(view, files.kernels, comm, notes)
    elif files.kernels is not None:
        device = _of_kernels(files.kernels, notes)
    else:
        device = _Device(*_EMPTY)
    start_ns = np.concatenate([device.start_ns, np.array([row.start_ns for row in comm], np.int64)])
    duration_us = np.concatenate([device.duration_us, np.array([row.duration_us for row in comm], np.float64)])
    counted = np.concatenate([device.counted, np.ones(len(comm), bool)])
    if not counted.any():
        return None
    origin_ns = int(start_ns[counted].min())
    start_us = (start_ns - origin_ns) / 1000
    end_us = start_us + duration_us
    last_us = float(end_us[counted].max())
    # The step starts with the first kernel: what was copied before is preparation, as in the profiler's own sums.
    keep = np.flatnonzero(counted | ((start_us >= 0) & (end_us <= last_us)))
    notes["copies before the first kernel or after the last left out"] += len(counted) - len(keep)
    devices = len(device.name)
    kept_device, kept_comm = keep[keep < devices], (keep[keep >= devices] - devices).tolist()
    launch_ns, by, issued_ns, issuer, sync = _launches(view, device, comm, keep, start_ns)
    skew_us = _skew_us(start_us[keep] - (launch_ns - origin_ns) / 1000, notes)

    def host_us(ns: Ints) -> Floats:
        return np.where(ns < 0, np.nan, (ns - origin_ns) / 1000 - skew_us)

    launch_us = host_us(launch_ns)
    late = launch_us > start_us[keep] + TOLERANCE_US
    linked = ~np.isnan(launch_us) & ~late
    if view is not None:
        notes["tasks without a launch in the trace: they start their recorded gap after the task before"] += int(
            (~linked).sum()
        )
    launch_us = np.where(linked, launch_us, np.nan)
    hw = [device.hw[i] for i in kept_device.tolist()] + [comm[i].hw for i in kept_comm]
    lanes = [device.stream[i] for i in kept_device.tolist()] + [comm[i].queue for i in kept_comm]
    queue = _lanes(lanes, start_us[keep], end_us[keep], notes)
    waits_on, records_on = (_marks(view, pattern, origin_ns, host_us) for pattern in (_WAIT, _RECORD))
    return ViewTimeline(
        rank=files.rank,
        origin_ns=origin_ns,
        start_us=start_us[keep],
        end_us=end_us[keep],
        name=[device.name[i] for i in kept_device.tolist()] + [comm[i].name for i in kept_comm],
        hw=hw,
        queue=queue,
        kernel=[device.kernel[i] for i in kept_device.tolist()],
        work=[device.work[i] for i in kept_device.tolist()],
        counted=counted[keep],
        comm=[comm[i] for i in kept_comm],
        launch_us=launch_us,
        launch_thread=by,
        issued_us=np.where(linked, host_us(issued_ns), np.nan),
        issuer=issuer,
        sync=(host_us(sync[0]), host_us(sync[1]), sync[2]),
        waits=waits_on,
        records=records_on,
        notes=notes,
        span_us=last_us,
    )


# -- device tasks ------------------------------------------------------------------------------------------


_EMPTY: tuple[Any, ...] = (
    np.zeros(0, np.int64),
    np.zeros(0),
    [],
    [],
    [],
    np.zeros(0, bool),
    np.zeros(0, np.int64),
    [],
    [],
)


def _of_view(view: View, kernels: Kernels | None, comm: Sequence[CommRow], notes: Counter[str]) -> _Device:
    tasks = view.tasks
    compute = np.array([bool(_COMPUTE.match(kind)) for kind in tasks.type], bool)
    named = np.array([name.lower().startswith("hcom_") for name in tasks.name], bool)
    copy = ~compute & np.array([bool(_COPY.match(name)) for name in tasks.name], bool)
    stream_id = [view.threads[thread][1] for thread in range(len(view.threads))]
    inside = named | _of_communication(view, comm, stream_id)
    notes["kernels and copies that are part of a communication op"] += int((inside & (compute | copy)).sum())
    rows = np.flatnonzero((compute | copy) & ~inside)
    rows = rows[np.lexsort((tasks.duration_us[rows], tasks.start_ns[rows]))]
    chosen = rows.tolist()
    name, thread = [tasks.name[i] for i in chosen], tasks.thread[rows]
    hw = [stream_id[i] for i in thread.tolist()]
    stream = [view.labels[i] or f"Stream {stream_id[i]}" for i in thread.tolist()]
    joined = _join(name, tasks.start_ns[rows], kernels)
    kernel, done = _classes(name, joined, kernels, notes)
    if kernels is not None:
        notes["kernels of the timeline without a row in the table of kernels"] += int(
            ((joined < 0) & compute[rows]).sum()
        )
    return _Device(tasks.start_ns[rows], tasks.duration_us[rows], name, hw, stream, compute[rows], thread, kernel, done)


def _of_communication(view: View, comm: Sequence[CommRow], stream_id: Sequence[str]) -> NDArray[np.bool_]:
    """Device tasks that run on the stream of a communication op while it runs."""
    tasks = view.tasks
    inside = np.zeros(len(tasks), bool)
    start = tasks.start_ns
    by_stream: dict[str, list[CommRow]] = {}
    for row in comm:
        if row.hw:
            by_stream.setdefault(row.hw, []).append(row)
    codes = np.array([stream_id[i] in by_stream for i in range(len(stream_id))], bool)
    candidates = np.flatnonzero(codes[tasks.thread]) if len(tasks) else np.zeros(0, np.int64)
    names = [stream_id[i] for i in tasks.thread[candidates].tolist()]
    for hw, rows in by_stream.items():
        here = candidates[[name == hw for name in names]] if len(candidates) else candidates
        first = np.array([row.start_ns for row in rows])
        last = np.array([row.start_ns + int(row.duration_us * 1e3) for row in rows])
        at = np.searchsorted(first, start[here], "right") - 1
        inside[here] = (at >= 0) & (start[here] < last[np.maximum(at, 0)])
    return inside


def _of_kernels(kernels: Kernels, notes: Counter[str]) -> _Device:
    part = np.array([name.lower().startswith("hcom_") for name in kernels.name], bool)
    queued = np.array([core.upper().startswith(QUEUE_TYPES) for core in kernels.core], bool)
    whole = is_communication(kernels)
    notes["kernels and copies that are part of a communication op"] += int((part & ~whole & ~queued).sum())
    rows = np.flatnonzero(~whole & ~part & ~queued)
    rows = rows[np.lexsort((kernels.duration_us[rows], kernels.start_ns[rows]))]
    chosen = rows.tolist()
    name = [kernels.name[i] for i in chosen]
    stream = [f"Stream {kernels.stream[i]}" if kernels.stream[i] else "compute" for i in chosen]
    notes["kernels without a recorded stream: those that overlap stand on streams of their own"] += stream.count(
        "compute"
    )
    notes["rows of the table of kernels with too few or too many fields: their shapes are not used"] += sum(
        not whole for whole in kernels.whole
    )
    kernel, done = _classes(name, rows, kernels, notes)
    return _Device(
        kernels.start_ns[rows],
        kernels.duration_us[rows],
        name,
        [kernels.stream[i] for i in chosen],
        stream,
        np.ones(len(rows), bool),
        np.full(len(rows), -1),
        kernel,
        done,
    )


def _join(name: Sequence[str], start_ns: Ints, kernels: Kernels | None) -> Ints:
    """Row of the table of kernels of each task: of the same name, and starting at the same time. -1 for none."""
    out = np.full(len(name), -1, np.int64)
    if kernels is None or not len(kernels) or not len(name):
        return out
    codes: dict[str, int] = {}
    theirs = np.array([codes.setdefault(text, len(codes)) for text in kernels.name], np.int64)
    mine = np.array([codes.get(text, -1) for text in name], np.int64)
    order = np.lexsort((kernels.start_ns, theirs))
    first = np.searchsorted(theirs[order], np.arange(len(codes) + 1))
    by_code = np.argsort(mine, kind="stable")
    at = np.searchsorted(mine[by_code], np.arange(len(codes) + 1))
    for code in range(len(codes)):
        tasks = by_code[at[code] : at[code + 1]]
        if len(tasks):
            out[tasks] = _nearest(start_ns[tasks], order[first[code] : first[code + 1]], kernels.start_ns)
    return out


def _nearest(start_ns: Ints, rows: Ints, their_start_ns: Ints) -> Ints:
    at = np.searchsorted(their_start_ns[rows], start_ns)
    before, after = rows[np.maximum(at - 1, 0)], rows[np.minimum(at, len(rows) - 1)]
    far_before, far_after = abs(their_start_ns[before] - start_ns), abs(their_start_ns[after] - start_ns)
    best = np.where(far_before <= far_after, before, after)
    return np.where(np.minimum(far_before, far_after) <= _SAME_NS, best, -1)


def _classes(
    name: Sequence[str], joined: Ints, kernels: Kernels | None, notes: Counter[str]
) -> tuple[list[str], list[RowWork]]:
    """Kernel class and work of each task; the type tells more than the name, which may hold that of a larger op."""
    known: dict[tuple[str, ...], RowWork] = {}
    by_word: dict[str, str] = {}
    kernel, done = [], []
    none = RowWork()
    for text, row in zip(name, joined.tolist(), strict=True):
        of = none
        word = text
        if row >= 0 and kernels is not None:
            type_ = kernels.type[row]
            word = text if type_ in ABSENT or type_.isdigit() else type_
            if kernels.whole[row]:
                key = (type_, *(column[row] for column in kernels.shapes.values()))
                found = known.get(key)
                if found is None:
                    found = known[key] = work(type_, dict(zip(kernels.shapes, key[1:], strict=True)))
                of = found
        if word not in by_word:
            by_word[word] = kernel_class(word)
        kernel.append(by_word[word])
        done.append(of)
    notes["kernels with FLOPs from their shapes (of tiled formats with the padding)"] += sum(
        of.flops > 0 for of in done
    )
    notes["kernels that may use HF32, counted as tf32"] += sum(of.precision == "tf32" for of in done)
    return kernel, done


def _lanes(streams: Sequence[str], start_us: Floats, end_us: Floats, notes: Counter[str]) -> list[str]:
    """In-order queues: a stream, and where its tasks overlap, more of them beside it."""
    out = list(streams)
    codes: dict[str, int] = {}
    code = np.array([codes.setdefault(stream, len(codes)) for stream in streams], np.int64)
    order = np.lexsort((end_us, start_us, code))
    bounds = np.searchsorted(code[order], np.arange(len(codes) + 1))
    for i, stream in enumerate(codes):
        rows = order[bounds[i] : bounds[i + 1]]
        busy = np.maximum.accumulate(end_us[rows])
        if not (start_us[rows][1:] < busy[:-1] - _ROUNDED_US).any():
            continue
        lanes = 0
        waiting: list[tuple[float, int]] = []
        idle: list[int] = []
        for row in rows.tolist():
            while waiting and waiting[0][0] <= start_us[row] + _ROUNDED_US:
                heapq.heappush(idle, heapq.heappop(waiting)[1])
            lane = heapq.heappop(idle) if idle else lanes
            lanes = max(lanes, lane + 1)
            heapq.heappush(waiting, (float(end_us[row]), lane))
            if lane:
                out[row] = f"{stream} beside {lane}"
                notes["tasks that overlap others of their stream, on a queue beside it"] += 1
    return out


# -- host --------------------------------------------------------------------------------------------------


def _launches(
    view: View | None, device: _Device, comm: Sequence[CommRow], keep: Ints, start_ns: Ints
) -> tuple[Ints, list[str], Ints, list[str], tuple[Ints, Ints, list[str]]]:
    """When and by which thread each row was launched, when and by whom it was queued, and the host's waits.

    Times are -1 where unknown [ns].
    """
    count = len(keep)
    none = np.full(count, -1, np.int64)
    if view is None:
        return none, [""] * count, none, [""] * count, (none[:0], none[:0], [])
    label_thread = {view.labels[i]: i for i in np.unique(view.comm.thread).tolist()}
    thread = [*device.thread.tolist(), *(label_thread.get(row.queue, -1) for row in comm)]
    target = [(thread[i], int(start_ns[i])) for i in keep.tolist()]
    launch, by = none.copy(), [""] * count
    for cat in ("async_npu", "HostToDevice"):  # the nearer call wins
        starts, ends = view.flows[cat]
        begun = {ident: i for i, ident in enumerate(starts.id)}
        ended = {
            (at, ns): begun[ident]
            for at, ns, ident in zip(ends.thread.tolist(), ends.start_ns.tolist(), ends.id, strict=True)
            if ident in begun
        }
        for row, key in enumerate(target):
            found = ended.get(key)
            if found is not None:
                launch[row] = starts.start_ns[found]
                by[row] = view.threads[int(starts.thread[found])][1]
    issued, issuer = _issued(view, launch, by)
    sync = view.sync
    sync_end = sync.start_ns + np.round(sync.duration_us * 1e3).astype(np.int64)
    return launch, by, issued, issuer, (sync.start_ns, sync_end, [view.threads[i][1] for i in sync.thread.tolist()])


def _issued(view: View, launch_ns: Ints, by: Sequence[str]) -> tuple[Ints, list[str]]:
    """Time and thread at which the framework put a launch into its task queue, else those of the launch."""
    issued, issuer = launch_ns.copy(), list(by)
    starts, ends = view.flows["async_task_queue"]
    begun = {ident: i for i, ident in enumerate(starts.id)}
    per_thread: dict[str, list[tuple[int, int]]] = {}
    for thread, ns, ident in zip(ends.thread.tolist(), ends.start_ns.tolist(), ends.id, strict=True):
        if ident in begun:
            per_thread.setdefault(view.threads[thread][1], []).append((ns, begun[ident]))
    for name, taken in per_thread.items():
        taken.sort()
        rows = np.array([i for i, one in enumerate(by) if one == name and launch_ns[i] >= 0], np.int64)
        at = np.searchsorted(np.array([ns for ns, _ in taken]), launch_ns[rows], "right") - 1
        for row, place in zip(rows.tolist(), at.tolist(), strict=True):
            if place >= 0:
                origin = taken[place][1]
                issued[row] = starts.start_ns[origin]
                issuer[row] = view.threads[int(starts.thread[origin])][1]
    return issued, issuer


def _skew_us(delay_us: Floats, notes: Counter[str]) -> float:
    """How far the host's clock runs ahead of the device's: no task starts before its launch. [us]"""
    early = delay_us[(delay_us < 0) & (delay_us > -_SKEW_US)]
    if not len(early):
        return 0.0
    notes["ranks whose host clock was set back against the device's, by the earliest start after a launch"] += 1
    return float(-early.min())


def _marks(view: View | None, pattern: re.Pattern[str], origin_ns: int, host_us: Callable[[Ints], Floats]) -> TaskMarks:
    """Tasks that wait for an event or record one, by their start."""
    if view is None:
        return TaskMarks(np.zeros(0), np.zeros(0), np.zeros(0), [])
    tasks = view.events
    named = enumerate(zip(tasks.name, tasks.type, strict=True))
    rows = np.array([i for i, both in named if any(map(pattern.match, both))], np.int64)
    rows = rows[np.argsort(tasks.start_ns[rows], kind="stable")]
    start_us = (tasks.start_ns[rows] - origin_ns) / 1000
    streams = [view.threads[i][1] for i in tasks.thread[rows].tolist()]
    return TaskMarks(start_us, start_us + tasks.duration_us[rows], host_us(view.called_ns[rows]), streams)
