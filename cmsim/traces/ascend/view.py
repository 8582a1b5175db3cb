"""trace_view.json of the Ascend profilers: a bare list of Chrome trace events, host and device, as columns.

A process is known by its name (pids are arbitrary): "Ascend Hardware" holds the device's tasks by stream, "HCCL" or
"Communication" whole communication ops ("Group N Communication") and the tasks they are made of ("Plane N"), "Overlap
Analysis" the profiler's own sums. The others are the host's: the framework's ops carry a category, the calls of the
device's library none. Flows join calls to tasks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError
from cmsim.reading.bytes_in import LIMIT_B, bad
from cmsim.reading.json_blocks import blocks
from cmsim.traces.ascend.tables import HCOM, epoch_ns

#: bytes of an element, by the names of HCCL and of kernels
DTYPE_B: dict[str, float] = {
    **dict.fromkeys(("INT8", "UINT8", "BOOL", "HIF8", "HIFLOAT8", "FP8E4M3", "FP8E5M2", "FP8E8M0"), 1),
    **dict.fromkeys(("FLOAT8_E4M3FN", "FLOAT8_E5M2", "FLOAT8_E8M0"), 1),
    **dict.fromkeys(("INT16", "UINT16", "FP16", "FLOAT16", "BFP16", "BF16", "BFLOAT16"), 2),
    **dict.fromkeys(("INT32", "UINT32", "FP32", "FLOAT", "FLOAT32", "HF32"), 4),
    **dict.fromkeys(("INT64", "UINT64", "FP64", "DOUBLE", "COMPLEX64"), 8),
    **dict.fromkeys(("INT128", "COMPLEX128"), 16),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4_E2M1", "FLOAT4_E1M2"), 0.5),
}
#: largest count of elements taken for one (above: "unknown", all bits set)
_MOST = 2**60
_HARDWARE, _COMM, _OVERLAP = "Ascend Hardware", ("HCCL", "Communication"), "Overlap Analysis"
_GROUP = re.compile(r"Group.*Communication", re.IGNORECASE)
_SYNC = re.compile(r"synchronize", re.IGNORECASE)
_EVENT = re.compile(r"event", re.IGNORECASE)
_FLOWS = ("HostToDevice", "async_npu", "async_task_queue")
#: names of calls remembered
_NAMES = 100_000
#: rank given where a task has no other end
NO_RANK = 2**32 - 1


@dataclass(frozen=True)
class Tasks:
    """Events of one kind, in file order.

    start_ns since the epoch [ns]; duration_us [us]; thread into ``View.threads``; name and the others: texts
    """

    start_ns: Ints
    duration_us: Floats
    thread: Ints
    name: list[str]
    type: list[str]

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True)
class FlowArrow:
    """Ends of the flows of one category: start_ns [ns], thread into ``View.threads``, and the id as text."""

    start_ns: Ints
    thread: Ints
    id: list[str]


@dataclass(frozen=True)
class View:
    """A rank's timeline.

    threads    (process, thread) as text, what ``thread`` of all columns points into
    labels     their names, "" where the file gives none
    tasks      on the device; ``type`` is the task type
    comm       whole communication ops; ``type`` is their element type, ``count`` its number (-1 unknown)
    plane      tasks that communication ops are made of; ``type`` is that of the link
    src, dst   of each plane task, local ranks of the communicator, -1 for none
    size_B     of each plane task [B]
    hw_stream  of each plane task, stream of the device as the file numbers it, "" where unknown
    sync       calls of the host that wait for the device
    events     tasks that record an event or wait for one; ``type`` is that of the task
    called_ns  when the host called for each of them, -1 where the file does not say [ns]
    flows      (starts, ends) by category
    """

    path: Path
    threads: list[tuple[str, str]]
    labels: list[str]
    tasks: Tasks
    comm: Tasks
    count: Ints
    plane: Tasks
    src: Ints
    dst: Ints
    size_B: Floats
    hw_stream: list[str]
    sync: Tasks
    events: Tasks
    called_ns: Ints
    flows: dict[str, tuple[FlowArrow, FlowArrow]]
    summary: dict[str, Any]
    overlap_us: dict[str, float]

    def counts(self) -> dict[str, Any]:
        """What the file holds, for people; ``span_us`` in double precision, as tools print it (0.25 us today)."""
        return dict(self.summary)


def comm_op(name: str) -> str:
    """The op of a communication op's name, up to the marks of the communicator.

    >>> comm_op("hcom_allReduce__586_0_1"), comm_op("hcom_broadcast_")
    ('hcom_allReduce', 'hcom_broadcast')
    """
    found = HCOM.match(name)
    return found[1] if found else name


def dtype_B(name: str) -> float:
    """Bytes of an element, 0 where the name is unknown.

    >>> dtype_B("DT_BF16"), dtype_B("FP32"), dtype_B("UNDEFINED")
    (2, 4, 0)
    """
    return DTYPE_B.get(name.upper().removeprefix("DT_"), 0)


def read_view(path: Path, *, limit_B: int = LIMIT_B) -> View:
    """Read trace_view.json. Raises InputError naming the event."""
    reader = _Reader(path)
    for block in blocks(path, key=None, limit_B=limit_B):
        try:
            reader.take(block)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise _faulty(path, block, reader.events) from None
        reader.events += len(block)
    if not reader.events:
        raise bad(path, "holds no events")
    try:
        reader.flush()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise bad(path, "holds events whose arguments are not what a profiler writes") from None
    return reader.view()


class _WrongError(ValueError):
    """What is wrong with an event; the caller knows which."""


@dataclass
class _Columns:
    """Tasks under construction, one array or list a block."""

    start_ns: list[Ints] = field(default_factory=list)
    duration_us: list[Floats] = field(default_factory=list)
    thread: list[Ints] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    type: list[str] = field(default_factory=list)

    def done(self) -> Tasks:
        return Tasks(_ints(self.start_ns), _floats(self.duration_us), _ints(self.thread), self.name, self.type)


class _Reader:
    """Takes blocks of events; those of processes without a name so far wait for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = 0
        self.phases: Counter[str] = Counter()
        self.ts_types: Counter[type] = Counter()
        self.by_pid: Counter[Any] = Counter()
        self.processes: dict[Any, str] = {}
        self.thread_names: dict[tuple[str, str], str] = {}
        self.threads: dict[tuple[str, str], int] = {}
        self.first_us, self.last_us = np.inf, -np.inf
        self.waiting: dict[Any, list[tuple[Any, ...]]] = {}
        self.tasks, self.comm, self.plane, self.sync, self.events_on, self.overlap = (_Columns() for _ in range(6))
        self.connections: list[str] = []
        self.called: dict[str, int] = {}
        self.calls: dict[str, str] = {}
        self.count: list[int] = []
        self.alg: list[str] = []
        self.src: list[int] = []
        self.dst: list[int] = []
        self.size_B: list[float] = []
        self.hw_stream: list[str] = []
        self.flows: dict[str, tuple[list[Any], list[Any]]] = {cat: ([], []) for cat in _FLOWS}
        self.takes: dict[str, Callable[[list[Any], Ints, Floats], None]] = {
            _HARDWARE: self._hardware,
            _OVERLAP: self._overlap,
            **dict.fromkeys(_COMM, self._comm),
        }

    def take(self, block: list[Any]) -> None:
        # One character each, so that the events of a phase are found without looking at each again.
        text = "".join([event["ph"] for event in block]).encode("latin-1")
        if len(text) != len(block):
            raise _WrongError
        phase = np.frombuffer(text, np.uint8)
        found = np.bincount(phase)
        for code in np.flatnonzero(found).tolist():
            self.phases[chr(code)] += int(found[code])

        def of(kind: str) -> list[Any]:
            return [block[i] for i in np.flatnonzero(phase == ord(kind)).tolist()]

        self._names(of("M"))
        complete = of("X")
        if complete:
            self._complete(complete)
        for end, kind in enumerate("sf"):
            for event in of(kind):
                flow = self.flows.get(event.get("cat"))
                if flow is not None:
                    flow[end].append((event["ts"], event["pid"], event["tid"], event["id"]))

    def _names(self, events: list[Any]) -> None:
        for event in events:
            if event["name"] == "process_name":
                self.processes[event["pid"]] = str(event["args"]["name"])
            elif event["name"] == "thread_name":
                self.thread_names[str(event["pid"]), str(event["tid"])] = str(event["args"]["name"])

    def _complete(self, events: list[Any]) -> None:
        times = [event["ts"] for event in events]
        pids = [event["pid"] for event in events]
        kinds = set(map(type, times))
        self.ts_types.update(map(type, times) if len(kinds) > 1 else {kinds.pop(): len(times)})
        start_ns, wrong = epoch_ns(times)
        if wrong >= 0:
            raise _WrongError
        duration_us = np.array([event["dur"] for event in events], np.float64)
        if not ((duration_us >= 0) & (duration_us < 1e12)).all():
            raise _WrongError
        # As tools print it: whole microseconds are exact in double precision, their sum with the rest rounds once.
        start_us = (start_ns // 1000).astype(np.float64) + (start_ns % 1000) / 1000
        self.first_us = min(self.first_us, float(start_us.min()))
        self.last_us = max(self.last_us, float((start_us + duration_us).max()))
        here = Counter(pids)
        self.by_pid.update(here)
        if len(here) == 1:
            return self._of_process(pids[0], events, start_ns, duration_us)
        code = {pid: i for i, pid in enumerate(here)}
        codes = np.array([code[pid] for pid in pids])
        for pid, i in code.items():
            rows = np.flatnonzero(codes == i)
            self._of_process(pid, [events[row] for row in rows.tolist()], start_ns[rows], duration_us[rows])
        return None

    def _of_process(self, pid: Any, events: list[Any], start_ns: Ints, duration_us: Floats) -> None:
        name = self.processes.get(pid)
        if name is not None:
            self.takes.get(name, self._host)(events, start_ns, duration_us)
        else:
            keep = [i for i, event in enumerate(events) if "cat" not in event]
            if keep:
                rows = np.array(keep)
                self.waiting.setdefault(pid, []).append(([events[i] for i in keep], start_ns[rows], duration_us[rows]))

    def flush(self) -> None:
        """Events of processes whose name came after them."""
        for pid, parts in self.waiting.items():
            take = self.takes.get(self.processes.get(pid, ""), self._host)
            for events, start_ns, duration_us in parts:
                take(events, start_ns, duration_us)
        self.waiting.clear()

    def _thread(self, events: list[Any]) -> Ints:
        known = self.threads
        keys = [(str(event["pid"]), str(event["tid"])) for event in events]
        return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)

    def _add(self, columns: _Columns, events: list[Any], start_ns: Ints, duration_us: Floats) -> list[Any]:
        columns.start_ns.append(start_ns)
        columns.duration_us.append(duration_us)
        columns.thread.append(self._thread(events))
        columns.name += [str(event["name"]) for event in events]
        return [event.get("args") or {} for event in events]

    def _hardware(self, events: list[Any], start_ns: Ints, duration_us: Floats) -> None:
        args = self._add(self.tasks, events, start_ns, duration_us)
        types = [str(one.get("Task Type", "")) for one in args]
        self.tasks.type += types
        marks = [i for i, kind in enumerate(types) if "EVENT" in kind or _EVENT.match(events[i]["name"])]
        if marks:
            rows = np.array(marks)
            self._add(self.events_on, [events[i] for i in marks], start_ns[rows], duration_us[rows])
            self.events_on.type += [types[i] for i in marks]
            self.connections += [str(args[i].get("connection_id", "")) for i in marks]

    def _comm(self, events: list[Any], start_ns: Ints, duration_us: Floats) -> None:
        whole = [i for i, event in enumerate(events) if self._is_whole(event)]
        if whole:
            rows = np.array(whole)
            args = self._add(self.comm, [events[i] for i in whole], start_ns[rows], duration_us[rows])
            self.comm.type += [str(one.get("data_type", "")) for one in args]
            self.alg += [str(one.get("alg_type", "")) for one in args]
            self.count += [_whole(one.get("count")) for one in args]
        if len(whole) == len(events):
            return
        inside = set(whole)
        rest = [i for i in range(len(events)) if i not in inside]
        rows = np.array(rest)
        args = self._add(self.plane, [events[i] for i in rest], start_ns[rows], duration_us[rows])
        self.plane.type += [str(one.get("link type", "")) for one in args]
        self.src += [_rank(one.get("src rank")) for one in args]
        self.dst += [_rank(one.get("dst rank")) for one in args]
        self.size_B += [max(_whole(one.get("size(Byte)")), 0) for one in args]
        self.hw_stream += [str(one.get("stream id", "")) for one in args]

    def _is_whole(self, event: Any) -> bool:
        label = self.thread_names.get((str(event["pid"]), str(event["tid"])))
        return bool(_GROUP.match(label)) if label else str(event["name"]).startswith("hcom_")

    def _host(self, events: list[Any], start_ns: Ints, duration_us: Floats) -> None:
        kinds = ["" if "cat" in one else self.calls.get(one["name"]) or self._call(one["name"]) for one in events]
        waits = [i for i, kind in enumerate(kinds) if kind == "sync"]
        if waits:
            rows = np.array(waits)
            self._add(self.sync, [events[i] for i in waits], start_ns[rows], duration_us[rows])
            self.sync.type += [""] * len(waits)
        for i in [i for i, kind in enumerate(kinds) if kind == "event"]:
            connection = (events[i].get("args") or {}).get("connection_id")
            if connection is not None:
                self.called[str(connection)] = int(start_ns[i])

    def _call(self, name: str) -> str:
        kind = "sync" if _SYNC.search(name) else ("event" if _EVENT.search(name) else "other")
        if len(self.calls) < _NAMES:
            self.calls[name] = kind
        return kind

    def _overlap(self, events: list[Any], start_ns: Ints, duration_us: Floats) -> None:
        self._add(self.overlap, events, start_ns, duration_us)

    def view(self) -> View:
        comm, overlap = self.comm.done(), self.overlap.done()
        flows = {cat: (self._flow(cat, starts), self._flow(cat, ends)) for cat, (starts, ends) in self.flows.items()}
        labels = [self.thread_names.get(key, "") for key in self.threads]
        overlap_us: dict[str, float] = {}
        for thread, duration in zip(overlap.thread.tolist(), overlap.duration_us.tolist(), strict=True):
            overlap_us[labels[thread]] = overlap_us.get(labels[thread], 0.0) + duration
        count = np.array(self.count, np.int64)
        return View(
            path=self.path,
            threads=list(self.threads),
            labels=labels,
            tasks=self.tasks.done(),
            comm=comm,
            count=count,
            plane=self.plane.done(),
            src=np.array(self.src, np.int64),
            dst=np.array(self.dst, np.int64),
            size_B=np.array(self.size_B, np.float64),
            hw_stream=self.hw_stream,
            sync=self.sync.done(),
            events=self.events_on.done(),
            called_ns=np.array([self.called.get(connection, -1) for connection in self.connections], np.int64),
            flows=flows,
            summary=self._summary(comm, count, overlap_us),
            overlap_us=overlap_us,
        )

    def _flow(self, cat: str, ends: Sequence[tuple[Any, ...]]) -> FlowArrow:
        times = [end[0] for end in ends]
        start_ns, wrong = epoch_ns(times)
        if wrong >= 0:
            raise bad(self.path, f"a flow of {cat} with a time of {times[wrong]!r:.60}")
        thread = [self.threads.setdefault((str(end[1]), str(end[2])), len(self.threads)) for end in ends]
        return FlowArrow(start_ns=start_ns, thread=np.array(thread, np.int64), id=[str(end[3]) for end in ends])

    def _summary(self, comm: Tasks, count: Ints, overlap_us: dict[str, float]) -> dict[str, Any]:
        by_process: Counter[str] = Counter()
        for pid, events in self.by_pid.items():
            by_process[self.processes.get(pid, str(pid))] += events
        op = [comm_op(name) for name in comm.name]
        size_B = np.maximum(count, 0) * np.array([dtype_B(name) for name in comm.type])
        return {
            "format": "ascend-trace_view",
            "events": self.events,
            "phases": dict(sorted(self.phases.items())),
            "ts_type": {kind.__name__: n for kind, n in self.ts_types.items()},
            "complete_events_by_process": dict(sorted(by_process.items())),
            "ascend_hardware_tasks": len(self.tasks.name),
            "ascend_hardware_task_types": dict(sorted(Counter(self.tasks.type).items())),
            "hcom_ops": dict(sorted(Counter(op).items())),
            "hcom_bytes": _sums(op, size_B),
            "hcom_dur_us": _sums(op, comm.duration_us),
            "hcom_alg_types": dict(sorted(Counter(self.alg).items())),
            "overlap_analysis_us": {name: round(total, 3) for name, total in sorted(overlap_us.items())},
            "span_us": self.last_us - self.first_us if self.by_pid else 0.0,
        }


def _sums(keys: Sequence[str], values: Floats) -> dict[str, float]:
    out: dict[str, float] = {}
    for key, value in zip(keys, values.tolist(), strict=True):
        out[key] = out.get(key, 0.0) + value
    return {key: round(total, 3) for key, total in sorted(out.items())}


def _whole(value: Any) -> int:
    """A count, -1 where there is none: tools write numbers, texts of them, "NA", or all bits set."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return -1
    return number if 0 <= number < _MOST else -1


def _rank(value: Any) -> int:
    number = _whole(value)
    return -1 if number >= NO_RANK else number


def _ints(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _floats(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)


def _faulty(path: Path, block: list[Any], before: int) -> InputError:
    """Which event of a block is wrong, and how."""
    for i, event in enumerate(block):
        number = before + i
        if not isinstance(event, dict):
            return bad(path, f"event {number}: expected an object, got {type(event).__name__}")
        phase = event.get("ph")
        if not isinstance(phase, str) or len(phase) != 1 or not phase.isascii():
            return bad(path, f"event {number}: 'ph' is {phase!r:.40}, expected one character")
        needed = {"M": ("name", "pid"), "X": ("name", "pid", "tid", "ts", "dur"), "s": _FLOW_KEYS, "f": _FLOW_KEYS}
        for key in needed.get(phase, ()):
            if key not in event:
                return bad(path, f"event {number}: no '{key}'")
            if isinstance(event[key], dict | list) or event[key] is None:
                return bad(path, f"event {number}: '{key}' is {event[key]!r:.40}")
        if phase == "X":
            duration = event["dur"]
            if epoch_ns([event["ts"]])[1] >= 0:
                return bad(path, f"event {number}: 'ts' is {event['ts']!r:.40}, expected microseconds since the epoch")
            if isinstance(duration, str) or not 0 <= duration < 1e12:
                return bad(path, f"event {number}: 'dur' is {duration!r:.40}, expected microseconds of 0 or more")
        if not isinstance(event.get("name", ""), str):
            return bad(path, f"event {number}: 'name' is {event['name']!r:.40}")
        if not isinstance(event.get("args") or {}, dict) or (
            phase == "M"
            and event["name"] in ("process_name", "thread_name")
            and "name" not in (event.get("args") or {})
        ):
            return bad(path, f"event {number}: 'args' is {event.get('args')!r:.40}")
    return bad(path, f"events {before} to {before + len(block)}: not what a profiler writes")


_FLOW_KEYS = ("pid", "tid", "ts", "id")
