"""Results as a Perfetto trace: streams as tracks, power and links as counters, requests as slices that overlap.

One process a run, called by its label. In it a track for each stream of each rank class, with how many ranks it
stands for; an arrow from each send to its receive; counters of power by component and of the use of links; a track
for as many requests as were there at once. Recorded runs stand beside them, a process each, a track for a stream of a
rank. Every run starts at 0, a recorded one with its step. Times are nanoseconds, a thousand of what a run counts in;
what is shorter than one has no length.

Descriptors are written by the schema (PyPI ``perfetto``). Events, of which there are millions, are columns of bytes:
all packets of a kind are of one length, as a number may be written with more bytes than it needs.

Source: Perfetto, ``protos/perfetto/trace/track_event``; https://protobuf.dev/programming-guides/encoding (varints)
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Columns, Floats, Ints, recurred
from cmsim.errors import InputError, Problem
from cmsim.reading import written
from cmsim.results import Result, Results
from cmsim.traces.recorded import Trace

Bytes = NDArray[np.uint8]

#: who writes: packets of one sequence share names by number; and that names are needed, or are new from here on
_SEQUENCE, _NEEDS, _CLEARED = 1, 2, 1
#: kinds of events: TrackEvent.Type
_BEGIN, _END, _COUNTER = 1, 2, 4
#: bytes of a number up to 2**35, and up to 2**63
_SHORT, _LONG = 5, 9
_PS_PER_NS, _PS_PER_US = 1000, 10**6
#: stages of a request, and what they are called
_STAGES = {"waited_s": "waits", "prefill_s": "prefill", "moved_s": "cache moves", "decode_s": "decode"}


def write_perfetto(results: Results | Sequence[Result], path: str | Path, *, recorded: Sequence[Trace] = ()) -> Path:
    """A trace file of results with frames, and of recorded runs beside them.

    Parameters
    ----------
    results
        Whose runs stand side by side.
    path
        File to write, complete or absent.
    recorded
        What other tools recorded, as `cmsim.traces.open_trace` reads it; its step begins where a simulated one does.

    Returns
    -------
    Path
        The file; https://ui.perfetto.dev opens it, and ``trace_processor`` queries it.

    Raises
    ------
    InputError
        Where a run has no frames, a trace no clock, the package is not there, or the file cannot be written.
    """
    trace = _Trace()
    for before in recorded:
        _recorded(trace, before)
    for one in results:
        _run(trace, one)
    path = Path(path)
    with written(path) as beside, beside.open("wb") as file:
        file.write(trace.head())
        for part in trace.parts:
            file.write(part.tobytes())
    return path


def _run(trace: _Trace, one: Result) -> None:
    process = trace.process(one.run)
    there = {name: one.frame_columns(name) for name in (frame.name for frame in one.declared.frames)}
    if "ops" in there:
        _ops(trace, process, there["ops"])
    if "power" in there:
        _power(trace, process, there["power"])
    if "links" in there:
        _links(trace, process, there["links"])
    if "requests" in there:
        _requests(trace, process, there["requests"])
    if "load" in there:
        _load(trace, process, there["load"])


def _recorded(trace: _Trace, before: Trace) -> None:
    """A process for a job, from the first that any of its ranks did; tracks of ranks, several where ops overlap."""
    begins = [float(np.nanmin(one.start_us)) for one in before.ranks.values() if not np.isnan(one.start_us).all()]
    if not begins:
        raise InputError(Problem("says no times: only an order was recorded", before.source))
    count, size = len(before.ranks), max(before.world_size, len(before.ranks))
    process = trace.process(f"recorded: {Path(before.source).name}, {count} of {size} ranks")
    for rank, one in before.ranks.items():
        rows = np.flatnonzero(~np.isnan(one.start_us) & (one.kind >= 0))
        start_ps = np.rint((one.start_us[rows] - min(begins)) * _PS_PER_US).astype(np.int64)
        end_ps = start_ps + np.rint(np.nan_to_num(one.duration_us[rows]) * _PS_PER_US).astype(np.int64)
        names = trace.names(np.array([*one.names, ""], object)[one.name[rows]])
        for number, stream in [*enumerate(one.streams), (-1, "no stream")]:
            mine = np.flatnonzero(one.stream[rows] == number)
            for lane in _lanes(start_ps[mine], end_ps[mine]):
                here = mine[lane]
                none = np.zeros(len(here), np.int64)
                track = trace.track(f"rank {rank}: {stream}", process)
                trace.slices(track, start_ps[here], end_ps[here], names[here], none, none)


# what a run is made of


def _ops(trace: _Trace, process: int, ops: Columns) -> None:
    """Tracks of streams, and arrows between sends and receives."""
    flows = _flows(ops)
    for rows, (rank_class, stream) in _groups(ops["rank_class"], ops["stream"]):
        times = int(ops["multiplicity"][rows[0]])
        of = f" of {times:,} ranks" if times > 1 else ""
        track = trace.track(f"class {rank_class}{of}: {stream}", process)
        order = rows[np.argsort(ops["start_ps"][rows], kind="stable")]
        names = trace.names(ops["op"][order])
        sent, received = flows[0][order], flows[1][order]
        trace.slices(track, ops["start_ps"][order], ops["end_ps"][order], names, sent, received)


def _flows(ops: Columns) -> tuple[Ints, Ints]:
    """By op the number of the arrow that begins at it, and that ends there; 0 for none.

    A frame does not say who a send is to: sends go, in the order of their ends, each with the first receive of another
    class that has as many bytes, ends no earlier and is still free.
    """
    starts, ends = np.zeros(len(ops["kind"]), np.int64), np.zeros(len(ops["kind"]), np.int64)
    sends, receives = (np.flatnonzero(ops["kind"] == kind) for kind in ("send", "recv"))
    sends, receives = (rows[np.argsort(ops["end_ps"][rows], kind="stable")] for rows in (sends, receives))
    number = itertools.count(1)
    for size_B in np.unique(ops["sent_B"][sends]):
        mine = sends[ops["sent_B"][sends] == size_B]
        theirs = receives[ops["received_B"][receives] == size_B]
        firsts = np.searchsorted(ops["end_ps"][theirs], ops["end_ps"][mine]).tolist()
        of_mine, of_theirs = (ops["rank_class"][rows].tolist() for rows in (mine, theirs))
        free = list(range(len(theirs) + 1))  # the first that may be free from there on
        for send, first, own in zip(mine.tolist(), firsts, of_mine, strict=True):
            at = _free(free, first)
            while at < len(theirs) and of_theirs[at] == own:
                at = _free(free, at + 1)
            if at < len(theirs):
                free[at] = at + 1
                starts[send] = ends[theirs[at]] = next(number)
    return starts, ends


def _free(free: list[int], at: int) -> int:
    """The first that is free from a place on; ways that were gone are shortened."""
    while free[at] != at:
        free[at] = free[free[at]]
        at = free[at]
    return at


def _power(trace: _Trace, process: int, power: Columns) -> None:
    for rows, (component,) in _groups(power["component"]):
        track = trace.track(f"power: {component}", process, unit="W")
        trace.counter(track, power["start_ps"][rows], power["end_ps"][rows], power["power_W"][rows])


def _links(trace: _Trace, process: int, links: Columns) -> None:
    for rows, (resource,) in _groups(links["resource"]):
        times = int(links["instances"][rows[0]])
        track = trace.track(f"link: {resource}" + (f" ({times:,})" if times > 1 else ""), process, unit="share")
        start, end, share = (links[name][rows] for name in ("start_ps", "end_ps", "utilization"))
        if "times" in links:  # equal stretches are one row
            row, start, end = recurred(start, end, links["times"][rows], links["each_ps"][rows])
            share = share[row]
        trace.counter(track, start, end, share)


def _load(trace: _Trace, process: int, load: Columns) -> None:
    units = {"waiting": "requests", "running": "requests", "cached_tokens": "tokens", "power_W": "W"}
    start_ps, end_ps = ((1e12 * np.asarray(load[name], float)).astype(np.int64) for name in ("start_s", "end_s"))
    for name, unit in units.items():
        track = trace.track(name.removesuffix("_W"), process, unit=unit)
        trace.counter(track, start_ps, end_ps, np.asarray(load[name], float))


def _requests(trace: _Trace, process: int, requests: Columns) -> None:
    """Each from arrival to end on the first track that is free, its stages inside it."""
    took = np.array([requests[name] for name in _STAGES], float)
    times = np.vstack([requests["arrival_s"], requests["arrival_s"] + np.cumsum(took, axis=0)])
    ps = (1e12 * times).astype(np.int64)
    names = trace.names(np.array([f"request {number}" for number in requests["request"].tolist()], object))
    words = trace.names(np.array(list(_STAGES.values()), object))
    for rows in _lanes(ps[0], ps[-1]):
        # begin, then begin and end of each stage, then end
        when = np.vstack([ps[0, rows], np.repeat(ps[:, rows], 2, axis=0)[1:-1], ps[-1, rows]]).T
        called = np.empty(when.shape, np.int64)
        called[:, [0, -1]] = names[rows, None]
        called[:, 1:-1] = np.repeat(words, 2)
        kinds = np.tile(np.array([_BEGIN, *[_BEGIN, _END] * len(_STAGES), _END]), (len(rows), 1))
        kept = np.ones(when.shape, bool)
        kept[:, 1:-1] = np.repeat(took[:, rows].T > 0, 2, axis=1)
        trace.marks(trace.track("requests", process), when[kept], kinds[kept], called[kept])


def _lanes(start_ps: Ints, end_ps: Ints) -> list[Ints]:
    """Rows that do not overlap, as few lists as there are of them at once."""
    free: list[tuple[int, int]] = []  # when a lane is free again, and which
    lanes: list[list[int]] = []
    for row in np.argsort(start_ps, kind="stable").tolist():
        if free and free[0][0] <= start_ps[row]:
            lane = heapq.heappop(free)[1]
        else:
            lane = len(lanes)
            lanes.append([])
        lanes[lane].append(row)
        heapq.heappush(free, (int(end_ps[row]), lane))
    return [np.array(lane) for lane in lanes]


def _groups(*keys: Any) -> Iterator[tuple[Ints, tuple[Any, ...]]]:
    """Rows with equal keys, in the order in which these first come."""
    codes = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        _, code = np.unique(
            np.asarray(key, dtype=str if np.asarray(key).dtype == object else None), return_inverse=True
        )
        codes = codes * (int(code.max(initial=0)) + 1) + code
    _, first, code = np.unique(codes, return_index=True, return_inverse=True)
    for which in np.argsort(first, kind="stable"):
        yield np.flatnonzero(code == which), tuple(key[first[which]] for key in keys)


# bytes


class _Trace:
    """Packets of a trace: descriptors by the schema, events as arrays of bytes, shape (events, bytes of each)."""

    def __init__(self) -> None:
        try:
            from perfetto.protos.perfetto.trace import perfetto_trace_pb2
        except ImportError:
            raise InputError(
                Problem("needs the package perfetto: pip install 'cmsim[perfetto]'", key="export")
            ) from None
        self._pb = perfetto_trace_pb2
        self._descriptors: list[Any] = []
        self._names: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self.parts: list[Bytes] = []

    def head(self) -> bytes:
        """What comes before the events: names, processes and tracks."""
        first = self._pb.TracePacket(trusted_packet_sequence_id=_SEQUENCE, sequence_flags=_CLEARED)
        for name, number in self._names.items():
            first.interned_data.event_names.add(iid=number, name=name)
        return bytes(self._pb.Trace(packet=[first, *self._descriptors]).SerializeToString())

    def process(self, name: str) -> int:
        """A run; its number."""
        return self._described(process={"pid": len(self._descriptors) + 1, "process_name": name})

    def track(self, name: str, process: int, *, unit: str = "") -> int:
        """A track of a run, of counters where there is a unit; its number."""
        counter = {"counter": {"unit_name": unit}} if unit else {}
        return self._described(name=name, parent_uuid=process, **counter)

    def _described(self, **said: Any) -> int:
        uuid = next(self._numbers)
        packet = self._pb.TracePacket(trusted_packet_sequence_id=_SEQUENCE)
        packet.track_descriptor.CopyFrom(self._pb.TrackDescriptor(uuid=uuid, **said))
        self._descriptors.append(packet)
        return uuid

    def names(self, column: Any) -> Ints:
        """Numbers of names."""
        words, codes = np.unique(np.asarray(column, dtype=str), return_inverse=True)
        known = [self._names.setdefault(str(word), len(self._names) + 1) for word in words]
        return np.array(known, np.int64)[codes] if len(words) else np.zeros(0, np.int64)

    def slices(self, track: int, start_ps: Ints, end_ps: Ints, names: Ints, sent: Ints, received: Ints) -> None:
        """Slices that follow each other on a track, each with the arrows that begin and end at it, if any."""
        has_flow = (sent > 0) | (received > 0)
        edges = np.append(0, np.flatnonzero(has_flow[1:] != has_flow[:-1]) + 1) if len(sent) else np.zeros(0, np.int64)
        # rows with and without arrows are of different length, and stand in the order of time
        for first, last in itertools.pairwise([*edges.tolist(), len(sent)]):
            rows = slice(first, last)
            count = len(start_ps[rows])
            own = (sent[rows], received[rows]) if has_flow[first] else None
            begin = self._events(track, start_ps[rows], np.full(count, _BEGIN), names=names[rows], flows=own)
            end = self._events(track, end_ps[rows], np.full(count, _END))
            self.parts.append(np.concatenate([begin, end], axis=1))

    def marks(self, track: int, time_ps: Ints, kinds: Ints, names: Ints) -> None:
        """Begins and ends of slices, one inside another, in their order."""
        self.parts.append(self._events(track, time_ps, kinds, names=names))

    def counter(self, track: int, start_ps: Ints, end_ps: Ints, values: Floats) -> None:
        """A counter that has its value from start to end, and 0 where nothing follows at once."""
        order = np.argsort(start_ps, kind="stable")
        start_ps, end_ps, values = start_ps[order], end_ps[order], values[order]
        gap = np.append(start_ps[1:] != end_ps[:-1], True) if len(start_ps) else np.zeros(0, bool)
        times = np.concatenate([start_ps, end_ps[gap]])
        both = np.concatenate([values, np.zeros(int(gap.sum()))])
        order = np.argsort(times, kind="stable")
        self.parts.append(self._events(track, times[order], np.full(len(order), _COUNTER), value=both[order]))

    def _events(
        self,
        track: int,
        time_ps: Ints,
        kinds: Ints,
        *,
        names: Ints | None = None,
        flows: tuple[Ints, Ints] | None = None,
        value: Floats | None = None,
    ) -> Bytes:
        """Packets of one length, a row each."""
        rows = len(time_ps)
        event = [_varints(9, kinds, 1), _constant(rows, _varint(11, track))]
        if names is not None:
            event.append(_varints(10, names, _SHORT))
        if value is not None:
            event.append(_fixed(44, value))
        if flows is not None:
            event += [_fixed(field, numbers.astype(np.uint64)) for field, numbers in zip((47, 48), flows, strict=True)]
        body = [
            _varints(8, time_ps // _PS_PER_NS, _LONG),
            _constant(rows, _varint(10, _SEQUENCE) + _varint(13, _NEEDS)),
            *_message(11, rows, event),
        ]
        return np.concatenate(_message(1, rows, body), axis=1)


def _message(field: int, rows: int, parts: Sequence[Bytes]) -> list[Bytes]:
    """A message inside another, in each row of the same length."""
    length = sum(part.shape[1] for part in parts)
    return [_constant(rows, _tag(field, 2) + _number(length)), *parts]


def _constant(rows: int, said: bytes) -> Bytes:
    return np.broadcast_to(np.frombuffer(said, np.uint8), (rows, len(said)))


def _varints(field: int, values: Ints, width: int) -> Bytes:
    """A number in each row, written with ``width`` bytes: seven bits in each, the eighth says that more follow."""
    shifts = 7 * np.arange(width)
    out = ((values[:, None] >> shifts) & 0x7F).astype(np.uint8)
    out[:, :-1] |= 0x80
    return np.concatenate([_constant(len(values), _tag(field, 0)), out], axis=1)


def _fixed(field: int, values: Any) -> Bytes:
    """Eight bytes in each row, the least first."""
    raw = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).view(np.uint8).reshape(len(values), 8)
    return np.concatenate([_constant(len(values), _tag(field, 1)), raw], axis=1)


def _varint(field: int, value: int) -> bytes:
    return _tag(field, 0) + _number(value)


def _tag(field: int, wire: int) -> bytes:
    return _number(field << 3 | wire)


def _number(value: int) -> bytes:
    """
    >>> _number(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


__all__ = ["write_perfetto"]
