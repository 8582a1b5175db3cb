"""Any workload as Chakra execution traces, for simulators that read those: a file per rank and its communicators.

What becomes of an op:

- compute, host: COMP, on the host with ``is_cpu_op``. FLOPs are ``num_ops``, bytes ``tensor_size``.
- collective: COMM_COLL with ``comm_type``, ``comm_size`` as Chakra counts it (all-gather: what one rank contributes)
  and ``pg_name``. What Chakra has no type for (dispatch, combine, send_recv) is written as ALL_TO_ALL.
- send, recv: COMM_SEND, COMM_RECV with ``comm_src``, ``comm_dst``, ``comm_tag``.

Chakra has no in-order queues: each op depends on the one before it on its stream, beside what it waits for. Node ids
are rows of the program. Communicators of collectives are numbered from 1 in ``<prefix>.json``; one that has all ranks
and is the only one to have them is Chakra's default, without a name.

Chakra's numbers are whole and its times whole microseconds, so both are rounded up. Where that loses something, and for
what Chakra has no words for, attributes that start with ``cmsim_`` keep it: duration_ps, flops, bytes, cores, kernel,
precision, collective, shape. `cmsim.traces.chakra.file` reads them back. Left out: unequal blocks of exchanges
(``Programs.traffic``), memory footprints, notes.

Source: mlcommons/chakra, schema 0.0.4; ASTRA-sim, astra-sim/workload/Workload.cc (``comm_tag`` required, group 0 and ""
are all ranks, of collectives all-reduce, all-gather, reduce-scatter, all-to-all and broadcast are simulated).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmsim.arrays import Ints
from cmsim.compute import Shape
from cmsim.errors import InputError, Problem
from cmsim.reading import whole_folder
from cmsim.reading.bytes_in import head
from cmsim.traces.chakra import chakra_pb2 as _pb2
from cmsim.traces.chakra.file import COMM_COLL, COMM_RECV, COMM_SEND, COMM_TYPES, COMP
from cmsim.traces.recorded import edges_csr
from cmsim.units import to_ps
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND, Programs

_pb: Any = _pb2

VERSION, SCHEMA = "0.0.4", "cmsim"
_NODE_TYPE = {COMPUTE: COMP, HOST: COMP, COLLECTIVE: COMM_COLL, SEND: COMM_SEND, RECV: COMM_RECV}
#: collectives of the same name; all others are written as the last
_COMM_TYPE = {name.lower(): COMM_TYPES.index(name) for name in COMM_TYPES if name != "REDUCE_SCATTER_BLOCK"}
_NEAREST = COMM_TYPES.index("ALL_TO_ALL")
#: names that the reader takes for another collective, or that Chakra does not have, are kept in an attribute
_AS_READ = set(_COMM_TYPE) - {"gather", "scatter"}
#: counted by what one rank has of the whole
_SHARED = {"all_gather", "gather"}
_US_PS = 10**6


def write_chakra(
    programs: Programs, folder: Path | str, *, prefix: str = SCHEMA, hold_s: ArrayLike | None = None
) -> list[Path]:
    """Write ``<prefix>.<rank>.et`` for every rank and ``<prefix>.json`` with the communicators; returns the paths.

    folder  complete or absent; one that was written so before is replaced
    hold_s  time of each op row, for compute and host work, shape (rows,); NaN leaves it to the reader's roofline.
            None: times that were recorded, where there are any [s]

    Equal workloads give equal bytes. Unequal blocks are left out, see `left_out`. Raises InputError where the folder
    holds something else or cannot be written.
    """
    folder = Path(folder).absolute()
    if not prefix or re.search(r"[/\\]|^\.|\.\d+$", prefix):
        raise InputError(f"got prefix {prefix!r}; it starts a file name and does not end like a rank (.0)")
    _check_folder(folder, prefix)
    names_: list[str] = []
    with whole_folder(folder) as beside:
        for name, data in _files(programs, prefix, hold_s):
            (beside / name).write_bytes(data)
            names_.append(name)
    return [folder / name for name in names_]


def left_out(programs: Programs) -> tuple[str, ...]:
    """What of a workload has no form in Chakra."""
    ops = programs.ops
    unequal = {ops.collectives[code] for code in ops.collective[: len(ops.exchange)][ops.exchange >= 0].tolist()}
    return (f"written with equal blocks, Chakra has no others: {', '.join(sorted(unequal))}",) if unequal else ()


def _check_folder(folder: Path, prefix: str) -> None:
    """Raises InputError where the place holds something that this module did not write."""
    if not folder.exists():
        return
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    ours = re.compile(re.escape(prefix) + r"\.(json|\d+\.et)")
    traces = [path for path in inside if path.suffix == ".et"]
    mine = all(ours.fullmatch(path.name) for path in inside) and all(SCHEMA.encode() in head(p, 64) for p in traces)
    if not folder.is_dir() or not mine:
        raise InputError(Problem("holds something that is not an earlier export, so it is left alone", str(folder)))


def _files(programs: Programs, prefix: str, hold_s: ArrayLike | None) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files."""
    ops, ptr = programs.ops, programs.program_ptr.tolist()
    times = ops.recorded_s if hold_s is None else np.asarray(hold_s, np.float64)
    assert times.shape == (len(ops),), "one time per op row"
    groups = _Groups(programs)
    start = _metadata(programs)
    encoder = _Encoder(programs, np.where(ops.kind <= HOST, times, np.nan))
    encoded: dict[int, _Program] = {}
    last: tuple[int, list[bytes], bytes] = (-1, [], b"")
    for rank, program in enumerate(programs.program.tolist()):
        if program not in encoded:
            encoded[program] = encoder.program(ptr[program], ptr[program + 1])
        made = encoded[program]
        tails = [groups.tail(rank, call) for call in made.calls]
        if (program, tails) != last[:2]:
            last = program, tails, start + made.bytes_for(tails)
        yield f"{prefix}.{rank}.et", last[2]
    table = {str(number): groups.members[group] for group, number in groups.numbers.items() if number}
    lines = ",\n".join(f'  "{name}": {json.dumps(ranks)}' for name, ranks in table.items())
    yield f"{prefix}.json", f"{{\n{lines}\n}}\n".encode() if lines else b"{}\n"


def _metadata(programs: Programs) -> bytes:
    """The first message: who wrote it, and the facts of the workload."""
    attrs = [_pb.AttributeProto(name="schema", string_val=SCHEMA)]
    attrs += [
        _pb.AttributeProto(name=f"cmsim_fact {key}", double_val=value)
        for key, value in sorted(programs.facts.named().items())
    ]
    message: bytes = _pb.GlobalMetadata(version=VERSION, attr=attrs).SerializeToString(deterministic=True)
    return _varint(len(message)) + message


# -- groups ------------------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """What a communication op does: all of a node that depends on the rank."""

    kind: int
    collective: str
    size_B: float
    slot: int


class _Groups:
    """Who meets, under what name; and the attributes that say so.

    members  ranks of each group
    numbers  of groups that collectives use: their name in the side file, 0 for the default of all ranks
    """

    def __init__(self, programs: Programs):
        self._groups = programs.groups
        rank, slot = np.nonzero(programs.groups >= 0)
        pairs = np.unique(np.stack([programs.groups[rank, slot], rank], axis=1), axis=0)
        self.members: dict[int, list[int]] = {}
        for group, member in pairs.tolist():
            self.members.setdefault(group, []).append(member)
        used = _used(programs, programs.ops.kind == COLLECTIVE)
        whole = [group for group in used if len(self.members[group]) == programs.ranks]
        default = whole[0] if len(whole) == 1 else None
        named = [group for group in used if group != default]
        self.numbers = {group: number for number, group in enumerate(named, start=1)}
        if default is not None:
            self.numbers[default] = 0
        self._tags: dict[int, int] = {}
        channels: Counter[tuple[int, ...]] = Counter()
        for group in _used(programs, programs.ops.kind >= SEND):
            pair = tuple(self.members[group])
            assert len(pair) == 2, "a channel is a group of two"
            self._tags[group] = channels[pair]
            channels[pair] += 1
        self._spelt: dict[tuple[_Call, int], bytes] = {}

    def tail(self, rank: int, call: _Call) -> bytes:
        """The attributes of a communication node that depend on the rank."""
        group = int(self._groups[rank, call.slot])
        assert group >= 0, "an op uses a slot in which its rank has no group"
        if call.kind != COLLECTIVE:
            return self._message(rank, call, group)
        key = (call, group)
        if key not in self._spelt:
            self._spelt[key] = self._collective(call, group)
        return self._spelt[key]

    def _collective(self, call: _Call, group: int) -> bytes:
        parts = len(self.members[group]) if call.collective in _SHARED else 1
        size_B = math.ceil(call.size_B / parts)
        out = _int64("comm_type", _COMM_TYPE.get(call.collective, _NEAREST)) + _int64("comm_size", size_B)
        if self.numbers[group]:
            out += _text("pg_name", str(self.numbers[group]))
        if size_B * parts != call.size_B:
            out += _real("cmsim_bytes", call.size_B)
        if call.collective not in _AS_READ:
            out += _text("cmsim_collective", call.collective)
        return out

    def _message(self, rank: int, call: _Call, group: int) -> bytes:
        peer = next(other for other in self.members[group] if other != rank)
        source, destination = (rank, peer) if call.kind == SEND else (peer, rank)
        size_B = math.ceil(call.size_B)
        return b"".join(
            (
                _int64("comm_size", size_B),
                _int32("comm_src", source),
                _int32("comm_dst", destination),
                _int32("comm_tag", self._tags[group]),
                _real("cmsim_bytes", call.size_B) if size_B != call.size_B else b"",
            )
        )


def _used(programs: Programs, rows: NDArray[np.bool_]) -> list[int]:
    """Groups that ops of some rows meet in, ascending."""
    meets = np.zeros((len(programs.program_ptr) - 1, len(programs.slots)), bool)
    at = np.flatnonzero(rows)
    meets[np.searchsorted(programs.program_ptr, at, side="right") - 1, programs.ops.slot[at]] = True
    found: list[int] = np.unique(programs.groups[meets[programs.program] & (programs.groups >= 0)]).tolist()
    return found


# -- programs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Program:
    """The nodes of a program, in bytes, but for what depends on the rank.

    rows   for each communication node: the whole nodes before it, the node so far, and its call
    rest   the whole nodes behind the last of them
    calls  different ones of the program
    """

    rows: list[tuple[bytes, bytes, int]]
    rest: bytes
    calls: list[_Call]

    def bytes_for(self, tails: list[bytes]) -> bytes:
        """All messages of a rank; ``tails`` completes its calls."""
        parts: list[bytes] = []
        for before, node, call in self.rows:
            tail = tails[call]
            parts += (before, _varint(len(node) + len(tail)), node, tail)
        parts.append(self.rest)
        return b"".join(parts)


class _Encoder:
    """Spells programs. Equal attributes of ops are spelt once."""

    def __init__(self, programs: Programs, times: Any):
        ops = self._ops = programs.ops
        self._hold_ps = np.where(np.isnan(times), -1, to_ps(np.nan_to_num(times)))
        self._names = [b"\x12" + _bytes(name.encode("utf-8", "replace")) if name else b"" for name in ("", *ops.names)]
        self._streams = [_text("stream", name) if name else b"" for name in ("", *ops.streams)]
        self._kernels = [_text("cmsim_kernel", name) if name else b"" for name in ("", *ops.kernels)]
        self._precisions = [_text("cmsim_precision", name) if name else b"" for name in ("", *ops.precisions)]
        self._shapes = [b"", *(_text("cmsim_shape", _spelt(shape)) for shape in ops.shapes)]
        self._works: dict[tuple[Any, ...], bytes] = {}

    def program(self, first: int, last: int) -> _Program:
        """The program of rows ``first`` to ``last``."""
        ops, rows = self._ops, slice(first, last)
        count = last - first
        number = [_varint(row) for row in range(max(count, 128))]
        ptr, deps = _waits(ops.stream[rows], ops.dep_ptr[first : last + 1], ops.dep_idx)
        shape = ops.shape[rows] if len(ops.shape) else np.full(count, -1)
        kinds, works = ops.kind[rows].tolist(), self._work
        calls: dict[_Call, int] = {}
        done: list[tuple[bytes, bytes, int]] = []
        whole: list[bytes] = []
        columns = zip(
            kinds,
            ops.name_id[rows].tolist(),
            ops.stream[rows].tolist(),
            self._hold_ps[rows].tolist(),
            ops.flops[rows].tolist(),
            ops.bytes_B[rows].tolist(),
            ops.cores[rows].tolist(),
            ops.kernel[rows].tolist(),
            ops.precision[rows].tolist(),
            shape.tolist(),
            ops.slot[rows].tolist(),
            ops.collective[rows].tolist(),
            strict=True,
        )
        host = _boolean("is_cpu_op", True)
        device = _boolean("is_cpu_op", False)
        for row, (kind, name, stream, hold_ps, flops, size_B, *rest, slot, collective) in enumerate(columns):
            packed = b"".join([number[dep] for dep in deps[ptr[row] : ptr[row + 1]]])
            node = b"".join(
                (
                    b"\x08" + number[row] if row else b"",
                    self._names[name + 1],
                    b"\x18",
                    number[_NODE_TYPE[kind]],
                    b"\x2a" + _bytes(packed) if packed else b"",
                    b"\x38" + _varint(-(-hold_ps // _US_PS)) if hold_ps > 0 else b"",
                    host if kind == HOST else device,
                    self._streams[stream + 1],
                )
            )
            if kind > HOST:
                call = _Call(kind, ops.collectives[collective] if collective >= 0 else "", size_B, slot)
                done.append((b"".join(whole), node, calls.setdefault(call, len(calls))))
                whole = []
                continue
            if kind == COMPUTE:
                node += works(flops, size_B, *rest)
            if hold_ps >= 0 and (hold_ps % _US_PS or not hold_ps):
                node += _int64("cmsim_duration_ps", hold_ps)
            whole += (_varint(len(node)), node)
        return _Program(done, b"".join(whole), list(calls))

    def _work(self, *work: Any) -> bytes:
        """The attributes of a kernel."""
        known = self._works.get(work)
        if known is None:
            flops, size_B, cores, kernel, precision, shape = work
            known = self._works[work] = b"".join(
                (
                    _int64("num_ops", math.ceil(flops)),
                    _int64("tensor_size", math.ceil(size_B)),
                    _real("cmsim_flops", flops) if math.ceil(flops) != flops else b"",
                    _real("cmsim_bytes", size_B) if math.ceil(size_B) != size_B else b"",
                    _real("cmsim_cores", cores) if cores != 1.0 else b"",
                    self._kernels[kernel + 1],
                    self._precisions[precision + 1],
                    self._shapes[shape + 1],
                )
            )
        return known


def _waits(stream: Ints, dep_ptr: Ints, dep_idx: Ints) -> tuple[list[int], list[int]]:
    """What each row waits for, its forerunner on the stream included."""
    count = len(stream)
    by_stream = np.argsort(stream, kind="stable")
    follows = by_stream[1:][stream[by_stream][1:] == stream[by_stream][:-1]]
    before = by_stream[:-1][stream[by_stream][1:] == stream[by_stream][:-1]]
    row = np.repeat(np.arange(count), np.diff(dep_ptr))
    dep = dep_idx[int(dep_ptr[0]) : int(dep_ptr[-1])]
    ptr, idx = edges_csr(count, np.concatenate([row, follows]), np.concatenate([dep, before]))
    return ptr.tolist(), idx.tolist()


def _spelt(shape: Shape) -> str:
    """Sizes of a kernel as text: [kind, [[column, number], ...], [[column, text], ...]]."""
    return json.dumps([shape.kind, shape.numbers, shape.formats], separators=(",", ":"))


# -- protobuf ----------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    """
    >>> _varint(300).hex()
    'ac02'
    """
    if number < 0x80:
        return _ONE[number]
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_ONE = [bytes([number]) for number in range(0x80)]


def _bytes(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _attribute(name: str, value: bytes) -> bytes:
    """Field 10 of a node: an attribute with its name (field 1) and a value."""
    return b"\x52" + _bytes(b"\x0a" + _bytes(name.encode()) + value)


def _int32(name: str, number: int) -> bytes:
    return _attribute(name, b"\x38" + _varint(number))


def _int64(name: str, number: int) -> bytes:
    return _attribute(name, b"\x48" + _varint(number))


def _real(name: str, number: float) -> bytes:
    return _attribute(name, b"\x19" + struct.pack("<d", number))


def _boolean(name: str, value: bool) -> bytes:
    return _attribute(name, b"\xd8\x01" + _varint(int(value)))


def _text(name: str, text: str) -> bytes:
    return _attribute(name, b"\xea\x01" + _bytes(text.encode("utf-8", "replace")))
