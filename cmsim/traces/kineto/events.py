"""Events of one Kineto file as columns, and their counts.

Times are microseconds, whatever ``displayTimeUnit`` says. Flows, counters and Python calls are counted and forgotten.

Source: pytorch/kineto, libkineto/src/output_json.cpp (the writer), and the files in ``workloads/traces/kineto``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim import collector
from cmsim.arrays import Floats, Ints
from cmsim.reading.bytes_in import LIMIT_B, bad
from cmsim.reading.json_blocks import Blocks, blocks
from cmsim.traces.c10d import element

#: categories that are kept
OP, ANNOTATION, CALL, KERNEL, COPY, SET, SYNC = range(7)
_CATEGORIES = {
    "cpu_op": OP,
    "user_annotation": ANNOTATION,
    "cuda_runtime": CALL,
    "cuda_driver": CALL,
    "privateuse1_runtime": CALL,
    "privateuse1_driver": CALL,
    "xpu_runtime": CALL,
    "xpu_driver": CALL,
    "mtia_runtime": CALL,
    "kernel": KERNEL,
    "gpu_memcpy": COPY,
    "gpu_memset": SET,
    "cuda_sync": SYNC,
    # of 2021 and before
    "Operator": OP,
    "Runtime": CALL,
    "Kernel": KERNEL,
    "Memcpy": COPY,
    "Memset": SET,
    "Trace": -2,
}
#: codes of the others: counted with their times, or (the profiler's own span) without
_OTHER, _SPAN = -1, -2

#: operators whose inputs say how much work they are
PRODUCTS = tuple(
    f"aten::{name}"
    for name in (
        "mm",
        "bmm",
        "addmm",
        "baddbmm",
        "linear",
        "_scaled_mm",
        "_int_mm",
        "convolution",
        "_convolution",
        "convolution_backward",
    )
)
STEP = "ProfilerStep#"
SYNCS = ("Stream Wait Event", "Event Sync", "Stream Sync", "Stream Synchronize", "Event Synchronize")
#: arguments that are kept, of the events whose name says that they matter
_ARGUMENTS = (
    "Collective name",
    "In msg nelems",
    "Out msg nelems",
    "dtype",
    "Group size",
    "Process Group Name",
    "Process Group Ranks",
    "Global rank start",
    "Global rank stride",
    "Src Rank",
    "Dst Rank",
    "Input Dims",
    "Input type",
    "Concrete Inputs",
    "bytes",
    "stream",
    "wait_on_stream",
    "wait_on_cuda_event_record_corr_id",
)
#: kernels that communicate, and what counts call them
_NCCL = re.compile(r"(?:^|[^A-Za-z])nccl(?:Dev)?Kernel_([A-Za-z0-9]+)")
_DEEP_EP = re.compile(r"ep::(?:inter|intra)node(?:_ll)?::(\w+)")


@dataclass(frozen=True)
class Events:
    """Complete events of the categories above, one row each, in file order.

    category     OP, ANNOTATION, CALL (of the device's runtime or driver), KERNEL, COPY, SET, SYNC
    name         into ``names``
    lane         into ``lanes``: process and thread, or device and stream
    start_us     from the first event of the file [us]
    length_us    [us]
    link         what a call and the device work it launched share; -1 for none
    arguments    by row, of rows that communicate, multiply, copy or wait; not all keys of a row need be there
    job          ``distributedInfo``
    counts       see ``file.Kineto``
    """

    path: Path
    names: tuple[str, ...]
    lanes: tuple[tuple[object, object], ...]
    category: Ints
    name: Ints
    lane: Ints
    start_us: Floats
    length_us: Floats
    link: Ints
    arguments: Mapping[int, Mapping[str, Any]]
    job: Mapping[str, Any]
    counts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.category)

    def rows(self, *categories: int) -> Ints:
        """Rows of some categories."""
        return np.flatnonzero(np.isin(self.category, categories))


def communication_kernel(name: str) -> str:
    """Operation of a kernel of a communication library, as its name says it; "" for other kernels.

    >>> communication_kernel("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)")
    'AllReduce'
    >>> communication_kernel("void deep_ep::internode::combine<false, 8>(int)"), communication_kernel("gemm")
    ('DeepEP_combine', '')
    """
    if found := _NCCL.search(name):
        return found[1]
    found = _DEEP_EP.search(name)
    return f"DeepEP_{found[1]}" if found else ""


def whole_number(given: Any) -> int:
    """A number that may be text; -1 for what is none or absurd.

    >>> whole_number("12"), whole_number(3.0), whole_number(None), whole_number(10**30)
    (12, 3, -1, -1)
    """
    try:
        number = int(given)
    except (TypeError, ValueError, OverflowError):
        return -1
    return number if 0 <= number < 2**62 else -1


def read_events(path: Path, *, limit_B: int = LIMIT_B) -> Events:
    """Read one file. Raises InputError."""
    found = blocks(path, key="traceEvents", limit_B=limit_B)
    columns = _Columns()
    with collector.paused():  # looking for cycles in so many new objects takes a fifth of the time
        for block in found:
            try:
                columns.add(block)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
                raise _bad_event(path, block, found.start_B, error) from None
    job = found.header.get("distributedInfo") or {}
    if not isinstance(job, dict):
        raise bad(path, f"distributedInfo: expected an object, got {job!r:.40}")
    if not columns.rows:
        kinds = ", ".join(sorted(map(str, columns.cats))[:8]) or "none"
        raise bad(path, f"no event of the PyTorch profiler among {sum(columns.phases.values())} (categories: {kinds})")
    return columns.events(path, job, found)


def _bad_event(path: Path, block: Sequence[Any], byte: int, error: Exception) -> Exception:
    """The first event of a block that does not stand on its own."""
    for event in block:
        try:
            _Columns().add([event])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            what = f"no {error}" if isinstance(error, KeyError) else "wrong type"
            return bad(
                path, f"an event that cannot be read ({what}), in the block from here: {event!r:.120}", byte=byte
            )
    return bad(path, f"events that cannot be read ({error})", byte=byte)


class _Codes(dict[Any, int]):
    """Codes of values in order of first use; ``_Codes.__getitem__`` under ``map`` makes a column of them."""

    def __missing__(self, value: Any) -> int:
        self[value] = code = len(self)
        return code


class _Categories(dict[str, int]):
    def __missing__(self, category: str) -> int:
        return _OTHER


_KNOWN = _Categories(_CATEGORIES)
_phase, _times, _place = itemgetter("ph"), itemgetter("cat", "ts", "dur"), itemgetter("name", "pid", "tid", "args")
_USUAL = {"ph": "", "cat": "", "dur": 0, "name": "", "pid": "", "tid": "", "args": {}}


class _Columns:
    """Events of the categories that are kept, as they come."""

    def __init__(self) -> None:
        self.names, self.lanes = _Codes(), _Codes()
        self.worth = bytearray()
        self.phases: Counter[str] = Counter()
        self.cats: Counter[str] = Counter()
        self.chunks: list[tuple[NDArray[Any], ...]] = []
        self.arguments: dict[int, dict[str, Any]] = {}
        self.rows = 0
        self.start_us, self.end_us, self.fractions = np.inf, -np.inf, False

    def add(self, events: Sequence[dict[str, Any]]) -> None:
        try:
            self._add(events)
        except KeyError:
            self._add([{**_USUAL, **event} for event in events])

    def _add(self, events: Sequence[dict[str, Any]]) -> None:
        # The whole time of reading goes by here: one pass of C per column, and nothing for events that are forgotten.
        phases = list(map(_phase, events))
        complete = [event for event, phase in zip(events, phases, strict=True) if phase == "X"]
        cats, start, length = _transposed(_times, complete, 3)
        category = np.array(list(map(_KNOWN.__getitem__, cats)), np.int8)
        kept = category >= 0
        if not kept.all():
            complete = [complete[i] for i in np.flatnonzero(kept).tolist()]
        name, process, thread, arguments = _transposed(_place, complete, 4)
        start_us, length_us = (np.fromiter(times, np.float64, len(times)) for times in (start, length))
        if not np.isfinite(start_us).all() or not np.isfinite(length_us).all():
            raise ValueError("a time that is no number")
        link = np.fromiter([one.get("correlation", -1) for one in arguments], np.int64, len(arguments))
        names = np.array(list(map(self.names.__getitem__, name)), np.int32)
        lanes = np.array(list(map(self.lanes.__getitem__, zip(process, thread, strict=True))), np.int32)
        if len(self.worth) < len(self.names):
            self.worth.extend(_worth_keeping(one) for one in list(self.names)[len(self.worth) :])

        self.phases.update(phases)
        self.cats.update(cats)
        timed = category != _SPAN
        if timed.any():
            self.start_us = min(self.start_us, float(start_us[timed].min()))
            self.end_us = max(self.end_us, float((start_us + length_us)[timed].max()))
            self.fractions = self.fractions or bool((start_us[timed] % 1 != 0).any())
        for i in np.flatnonzero(np.frombuffer(self.worth, np.uint8)[names]).tolist():
            picked = {key: arguments[i][key] for key in _ARGUMENTS if key in arguments[i]}
            if picked:
                self.arguments[self.rows + i] = picked
        self.chunks.append((start_us[kept], length_us[kept], category[kept], names, lanes, link))
        self.rows += len(complete)

    def events(self, path: Path, job: dict[str, Any], found: Blocks) -> Events:
        start, length, category, name, lane, link = (
            np.concatenate(column) for column in zip(*self.chunks, strict=True)
        )
        self.chunks.clear()
        return Events(
            path=path,
            names=tuple(self.names),
            lanes=tuple(self.lanes),
            category=category,
            name=name,
            lane=lane,
            start_us=start - self.start_us,
            length_us=np.maximum(length, 0),
            link=link,
            arguments=self.arguments,
            job=job,
            counts=self._counts(job, length, category, name, lane),
            notes=_notes(found, int((length < 0).sum())),
        )

    def _counts(self, job: dict[str, Any], length: Floats, category: Ints, name: Ints, lane: Ints) -> dict[str, Any]:
        names = list(self.names)
        kernels = category == KERNEL
        by_name = np.bincount(name[kernels], minlength=len(names))
        us_by_name = np.bincount(name[kernels], weights=length[kernels], minlength=len(names))
        kinds: Counter[str] = Counter()
        us: Counter[str] = Counter()
        for which in np.flatnonzero(by_name).tolist():
            if kind := communication_kernel(names[which]):
                kinds[kind] += int(by_name[which])
                us[kind] += float(us_by_name[which])  # type: ignore[assignment]
        calls: Counter[str] = Counter()
        named: Counter[str] = Counter()
        in_B: Counter[str] = Counter()
        out_B: Counter[str] = Counter()
        for row, given in self.arguments.items():
            operation = given.get("Collective name")
            if operation is None:
                continue
            if category[row] == OP:
                calls[str(operation)] += 1
            elif category[row] == KERNEL:
                width = element(str(given.get("dtype", "")))[0]
                named[str(operation)] += 1
                in_B[str(operation)] += max(whole_number(given.get("In msg nelems")), 0) * width
                out_B[str(operation)] += max(whole_number(given.get("Out msg nelems")), 0) * width
        ops = np.bincount(name[category == OP], minlength=len(names))
        marks = np.bincount(name[category == ANNOTATION], minlength=len(names))
        return {
            "format": "kineto",
            "events": sum(self.phases.values()),
            "phases": _sorted(self.phases),
            "complete_events_by_cat": _sorted(self.cats),
            "kernels": int(kernels.sum()),
            "kernel_dur_sum_us": round(float(length[kernels].sum()), 3),
            "gpu_streams": len(np.unique(lane[kernels])),
            "comm_kernels_by_name": _sorted(kinds),
            "comm_kernel_dur_us": {kind: round(value, 3) for kind, value in sorted(us.items())},
            "kernels_with_collective_args": _sorted(named),
            "in_bytes_from_args": _sorted(in_B),
            "out_bytes_from_args": _sorted(out_B),
            "record_param_comms": int(ops[self.names["record_param_comms"]])
            if "record_param_comms" in self.names
            else 0,
            "record_param_comms_with_collective_name": _sorted(calls),
            "nccl_user_annotations": {
                one: int(marks[i]) for one, i in sorted(self.names.items()) if one.startswith("nccl:") and marks[i]
            },
            "steps": int(sum(marks[i] for one, i in self.names.items() if one.startswith(STEP))),
            "span_us": round(self.end_us - self.start_us, 3),
            "nonint_ts": self.fractions,
            "rank": job.get("rank"),
            "world_size": job.get("world_size"),
        }


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {str(key): counter[key] for key in sorted(counter, key=str)}


def _transposed(pick: itemgetter[Any], events: Sequence[dict[str, Any]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*map(pick, events), strict=True)) or [()] * width


def _worth_keeping(name: str) -> bool:
    """Whether the arguments of events of this name say what it did."""
    return (
        "nccl" in name
        or "msccl" in name
        or name.startswith(("Memcpy", "Memset"))
        or name == "record_param_comms"
        or name in PRODUCTS
        or name in SYNCS
    )


def _notes(found: Blocks, negative: int) -> tuple[str, ...]:
    notes = []
    if found.lenient:
        notes.append(f"{found.lenient} blocks of the file are JSON only by looser rules (inf, NaN, raw characters)")
    if negative:
        notes.append(f"{negative} events with a negative length: taken as 0")
    return tuple(notes)
