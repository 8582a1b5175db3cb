"""What Kineto recorded as rows that can be replayed: work of the device, and the host work between its launches.

Device rows are kernels, copies and memsets, each on its stream and after the launch that a link names. Kernels of
communication libraries become collectives, sends and receives where operation, size and group are known: from their
own arguments, else from the host call or range around their launch, else from the execution trace of the same rank;
else they keep their recorded time.

Host rows are cut at the launches. A thread that launches work is one queue; a row ends when the launch takes effect,
and its length is all the time since the row before (operators, Python between them, other calls), less the time that
the thread waited. A row after a wait depends on what was waited for:

- calls that wait for the device, and copies to pageable memory, which block: the device rows launched before;
- another thread: where two threads take turns, the first launch of a turn waits for the last one of the turn before,
  if its thread did little else meanwhile (an autograd thread and the thread that called backward);
- values polled from memory: a thread idle for long that goes on when the kernel it launched last runs or just ended.

Streams wait for each other through events, which files name only with the category ``cuda_sync``. Without it:

- communication waits for what was launched before it on the stream in use;
- the first kernel after n calls of ``cudaStreamWaitEvent`` waits for the n other streams last launched on;
- what started long after all this, and just as a row of another stream ended, waits for that row.

A dependency that ends after its waiter started contradicts the file: the last row of that stream that had ended takes
its place. What still started late is kept as a gap, where rows become programs.

Source: PyTorch, ProcessGroupNCCL (events between streams) and torch/csrc/autograd/engine.cpp (threads).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.reading.bytes_in import bad
from cmsim.traces import c10d
from cmsim.traces.clocks import aligned, late_note
from cmsim.traces.kernels import MATRIX, OTHER, kernel_class
from cmsim.traces.kineto.comm import Message, ProcessGroups, communicates, messages
from cmsim.traces.kineto.events import COPY, KERNEL, OP, PRODUCTS, SET, Events, whole_number
from cmsim.traces.kineto.launch import LAUNCH, WAIT, Launches, launches
from cmsim.traces.kineto.waits import HostWaits, host_waits, stream_waits
from cmsim.traces.pytorch_et import CollectiveCall
from cmsim.traces.recorded import RankTrace, Trace, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND


def trace(
    source: Path,
    files: Mapping[int, Events],
    hosts: Mapping[int, Sequence[CollectiveCall]],
    *,
    ranks: int | None = None,
) -> Trace:
    """The job of some ranks' files.

    hosts  collectives of the ranks' execution traces, in order
    ranks  size of the job, where the files do not say
    """
    groups, counts = ProcessGroups(), Counter[str]()
    told = max((_world(events) for events in files.values()), default=0)
    world = told or ranks or 0
    out: dict[int, RankTrace] = {}
    lengths, steps, said = [], 0, list[str]()
    for rank, events in sorted(files.items()):
        given = launches(events)
        out[rank], end_us = _rank(rank, given, groups, hosts.get(rank), world, counts)
        lengths.append(end_us)
        steps = max(steps, given.steps)
        said += [f"rank {rank}: {note}" for note in events.notes]
    if not told and (named := max((max(one.members, default=-1) + 1 for one in groups.found), default=0)):
        told = named
        if ranks is None and named > len(out):
            said.append(f"the job is taken to have {named} ranks, all that its communicators name")
    made, late_us = aligned(out)
    said += late_note(late_us)
    said += [f"{count} {what}" for what, count in sorted(counts.items()) if count]
    return Trace(
        format="kineto",
        source=str(source),
        ranks=made,
        communicators=tuple(groups.found),
        world_size=told,
        recorded_us=max(length + late_us[rank] for rank, length in zip(sorted(files), lengths, strict=True)),
        notes=tuple(said),
        facts={"steps": float(steps)} if steps else {},
    )


def _world(events: Events) -> int:
    size = events.job.get("world_size", 0)
    number = whole_number(size)
    if not 0 <= number < 2**31:
        raise bad(events.path, f"distributedInfo.world_size: expected a whole number from 0, got {size!r:.40}")
    return number


def _rank(
    rank: int,
    given: Launches,
    groups: ProcessGroups,
    host: Sequence[CollectiveCall] | None,
    world: int,
    counts: Counter[str],
) -> tuple[RankTrace, float]:
    """Rows of a rank, and their length in the recording [us]."""
    events, marks = given.events, given.marks
    talks = communicates(given)
    found_how: Counter[str] = Counter()
    told = messages(given, talks, groups, host, world, found_how)
    waits = host_waits(given)
    row, dep, stream_how = stream_waits(given, talks)
    begin, end = _host_rows(given, waits)

    # A sync that found nothing to wait for and no time passed before it says nothing.
    waited = np.zeros(len(marks), bool)
    waited[[mark for mark, _ in waits.device] + [one for pair in waits.host for one in pair]] = True
    kept = np.flatnonzero((marks.kind != WAIT) | (end > begin) | waited)
    count = len(kept)
    order = _issued(given, kept)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    of_mark = np.full(len(marks), -1, np.int64)
    of_mark[kept] = place[:count]
    of_device = place[count:]

    edges = [
        (of_device, of_mark[given.mark]),
        (of_device[row], of_device[dep]),
        *(
            (of_mark[np.array([a for a, _ in pairs], np.int64)], to[np.array([b for _, b in pairs], np.int64)])
            for pairs, to in ((waits.device, of_device), (waits.host, of_mark))
        ),
    ]
    waiter, awaited = (np.concatenate(side) for side in zip(*edges, strict=True))
    backward = awaited >= waiter
    if backward.any():
        counts["waits against the order of issue: dropped"] += int(backward.sum())
    device = _device_columns(given, told, counts)
    order_list = order.tolist()

    def texts(host_values: list[str], device_values: list[str]) -> list[str]:
        both = host_values + device_values
        return [both[i] for i in order_list]

    def numbers(host_values: Floats | float, device_values: Floats) -> Floats:
        return np.concatenate([np.broadcast_to(np.asarray(host_values, np.float64), count), device_values])[order]

    none = [""] * count
    made = rank_trace(
        rank,
        name=texts(_host_names(given, kept), [events.names[i] for i in events.name[given.event].tolist()]),
        kind=numbers(HOST, device.kind).astype(np.int64),
        stream=texts(
            ["host" if i == 0 else f"host {i}" for i in marks.thread[kept].tolist()],
            [given.streams[i] for i in given.stream.tolist()],
        ),
        start_us=numbers(begin[kept], given.begin_us) - given.start_us,
        duration_us=numbers(end[kept] - begin[kept], given.finish_us - given.begin_us),
        kernel=texts(none, device.kernel),
        precision=texts(none, device.precision),
        flops=numbers(0.0, device.flops),
        bytes_B=numbers(0.0, device.bytes_B),
        collective=texts(none, device.collective),
        group=numbers(-1, device.group).astype(np.int64),
        peer=numbers(-1, device.peer).astype(np.int64),
        deps=(waiter[~backward], awaited[~backward]),
    )
    _say(counts, given, found_how, waits, stream_how)
    return made, float(max(end.max(), given.finish_us.max())) - given.start_us


def _issued(given: Launches, kept: Ints) -> Ints:
    """Order of issue of the host rows of some marks and, after them, of all device rows."""
    key = given.mark.astype(np.float64)
    for one in given.by_stream:
        # Rows of a stream stand in order of execution: none before one that the device took first.
        key[one.rows] = np.maximum.accumulate(key[one.rows])
    begin = np.concatenate([np.zeros(len(kept)), given.begin_us])
    return np.lexsort((begin, np.repeat([0, 1], [len(kept), len(key)]), np.concatenate([kept.astype(np.float64), key])))


def _host_rows(given: Launches, waits: HostWaits) -> tuple[Floats, Floats]:
    """Start and end of the host row that each mark ends. [us]

    A launch takes effect a while after its call starts, but no later than its work starts. That while is the median of
    those that found their stream idle. A row that ends with a wait may end as late as the wait does.
    """
    marks = given.marks
    first = np.full(len(marks), np.inf)
    np.minimum.at(first, given.mark, given.begin_us)
    launch = marks.kind == LAUNCH
    latest = np.where(launch, np.maximum(first, marks.start_us), marks.start_us)
    wanted = np.where(launch, np.minimum(latest, marks.start_us + given.latency_us), marks.start_us)
    latest = np.minimum(latest, np.maximum(waits.held_us, marks.start_us))
    end = np.empty(len(marks))
    threads = [np.flatnonzero(marks.thread == thread) for thread in range(len(given.threads))]
    for mine in threads:
        last = latest[mine]
        # While a thread waits, the launches before may still be taking effect.
        after = np.append(waits.over_us[mine[1:]], -np.inf)
        syncs = marks.kind[mine] == WAIT
        last[syncs] = np.maximum(last, after)[syncs]
        last = np.minimum.accumulate(last[::-1])[::-1]
        end[mine] = np.minimum(np.maximum.accumulate(wanted[mine]), last)
    over = waits.over_us.copy()
    for mark, other in waits.host:
        over[mark] = max(over[mark], end[other])
    begin = np.empty(len(marks))
    for mine in threads:
        start = np.append(given.start_us, end[mine][:-1])
        begin[mine] = np.minimum(np.maximum(start, over[mine]), end[mine])
    return begin, end


def _host_names(given: Launches, kept: Ints) -> list[str]:
    """The operator around each call, else the call."""
    events, marks = given.events, given.marks
    name = np.full(len(kept), -1, np.int64)
    called = marks.event[kept] >= 0
    name[called] = events.name[marks.event[kept][called]]
    ops = events.rows(OP)
    for thread, lane in enumerate(given.threads):
        mine = ops[events.lane[ops] == lane]
        mine = mine[np.argsort(events.start_us[mine], kind="stable")]
        rows = np.flatnonzero((marks.thread[kept] == thread) & called)
        at = np.searchsorted(events.start_us[mine], marks.start_us[kept][rows], "right") - 1
        op = mine[np.maximum(at, 0)] if len(mine) else np.zeros(len(at), np.int64)
        inside = (at >= 0) & (events.start_us[op] + events.length_us[op] >= marks.start_us[kept][rows])
        name[rows[inside]] = events.name[op[inside]]
    return [events.names[i] if i >= 0 else "host" for i in name.tolist()]


class _Device:
    """Columns of device rows, as `rank_trace` takes them."""

    def __init__(self, given: Launches) -> None:
        events, count = given.events, len(given.event)
        classes = [kernel_class(name) for name in events.names]
        kernels = events.category[given.event] == KERNEL
        self.kernel = [
            classes[i] if k else OTHER for i, k in zip(events.name[given.event].tolist(), kernels.tolist(), strict=True)
        ]
        self.kind = np.full(count, float(COMPUTE))
        self.collective = [""] * count
        self.precision = [""] * count
        self.flops, self.bytes_B = np.zeros(count), np.zeros(count)
        self.group, self.peer = np.full(count, -1.0), np.full(count, -1.0)


_KIND = {"send": SEND, "recv": RECV}


def _device_columns(given: Launches, told: Mapping[int, Message], counts: Counter[str]) -> _Device:
    events = given.events
    device = _Device(given)
    for row, one in told.items():
        kind = _KIND.get(one.operation, COLLECTIVE)
        device.kind[row], device.bytes_B[row], device.group[row] = kind, one.size_B, one.group
        device.peer[row] = one.peer if kind != COLLECTIVE else -1
        device.collective[row] = one.operation if kind == COLLECTIVE else ""
        device.kernel[row] = ""
    for row in np.flatnonzero(np.isin(events.category[given.event], (COPY, SET))).tolist():
        size_B = events.arguments.get(int(given.event[row]), {}).get("bytes", 0)
        if isinstance(size_B, int | float) and 0 <= size_B < 2**53:
            # On the device a copy is read and written; of others one end is the host's.
            twice = "DtoD" in events.names[events.name[given.event[row]]]
            device.bytes_B[row] = size_B * (2 if twice else 1)
    _products(given, device, told, counts)
    return device


def _products(given: Launches, device: _Device, told: Mapping[int, Message], counts: Counter[str]) -> None:
    """FLOPs, bytes and precision of the kernels that operators of known shape launched, shared out evenly."""
    events, marks = given.events, given.marks
    wanted = np.array([name in PRODUCTS for name in events.names], bool)
    ops = events.rows(OP)
    ops = ops[wanted[events.name[ops]]]
    ops = ops[np.argsort(events.start_us[ops], kind="stable")]
    inner = np.full(len(marks), -1, np.int64)
    for thread, lane in enumerate(given.threads):
        mine, here = np.flatnonzero(marks.thread == thread), ops[events.lane[ops] == lane]
        low = np.searchsorted(marks.start_us[mine], events.start_us[here], "left").tolist()
        high = np.searchsorted(marks.start_us[mine], events.start_us[here] + events.length_us[here], "right").tolist()
        for op, first, end in zip(here.tolist(), low, high, strict=True):
            inner[mine[first:end]] = op  # operators nest: the innermost starts last
    kernels: dict[int, list[int]] = {}
    for row, op in enumerate(inner[given.mark].tolist()):
        if op >= 0 and device.kernel[row] == MATRIX and row not in told:
            kernels.setdefault(op, []).append(row)
    for op, rows in kernels.items():
        shape = events.arguments.get(op, {})
        dims, types, concrete = (shape.get(key) for key in ("Input Dims", "Input type", "Concrete Inputs"))
        name = events.names[events.name[op]]
        if not isinstance(dims, list) or not isinstance(types, list):
            continue
        made = c10d.matrix_product(
            name,
            dims,
            [str(one) for one in types],
            [str(one) for one in concrete] if isinstance(concrete, list) else (),
        )
        if made is None:
            continue
        products = min(len(rows), 2) if name.endswith("_backward") else 1
        for row in rows:
            device.flops[row], device.bytes_B[row] = made[0] * products / len(rows), made[1] * products / len(rows)
            tensor_float = made[2] == "fp32" and "tf32" in events.names[events.name[given.event[row]]]
            device.precision[row] = "tf32" if tensor_float else made[2]
        counts["matrix kernels with FLOPs from their operators' shapes"] += len(rows)


def _say(counts: Counter[str], given: Launches, found: Counter[str], waits: HostWaits, streams: Counter[str]) -> None:
    for how, count in found.items():
        counts[f"kernels of communication {how}"] += count
    for what, count in waits.counts.items():
        counts[f"host rows with {what}"] += count
    for how, count in streams.items():
        counts[f"waits of one stream for another, {how}"] += count
    counts["kernels or copies without a launch in the file: launched when they began"] += given.unlaunched
    counts["kernels or copies launched outside the recorded steps: left out"] += given.outside
