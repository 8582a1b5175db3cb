"""Chakra execution traces: one rank's file in, columns out.

A file is a run of messages, each after its length as a LEB128 varint: one ``GlobalMetadata`` (which some
producers leave out), then one ``Node`` per op. A JSON variant holds the same nodes in ``workload_graph``.

Source: mlcommons/chakra, schema of 2023-10 onwards (versions 0.0.4 to 1.0.0, wire-stable), and the files in
``workloads/traces/chakra``.
"""

from __future__ import annotations

import ast
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from google.protobuf import unknown_fields
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cmsim.workload.ops import Floats, Ints
from cmsim.workload.trace import chakra_pb2 as _pb2
from cmsim.workload.bytes_in import LIMIT_B, bad, read_bytes

_pb: Any = _pb2
_unknown_fields: Any = unknown_fields.UnknownFieldSet

NODE_TYPES = ("INVALID", "METADATA", "MEM_LOAD", "MEM_STORE", "COMP", "COMM_SEND", "COMM_RECV", "COMM_COLL")
INVALID, METADATA, MEM_LOAD, MEM_STORE, COMP, COMM_SEND, COMM_RECV, COMM_COLL = range(len(NODE_TYPES))
COMM_TYPES = (
    "ALL_REDUCE",
    "REDUCE",
    "ALL_GATHER",
    "GATHER",
    "SCATTER",
    "BROADCAST",
    "ALL_TO_ALL",
    "REDUCE_SCATTER",
    "REDUCE_SCATTER_BLOCK",
    "BARRIER",
)

#: attributes with a meaning for replay, by name on the wire
_NUMBERS = {"is_cpu_op", "num_ops", "tensor_size", "comm_type", "comm_size", "comm_src", "comm_dst", "comm_tag"}
_WORDS = {"pg_name", "comm_group", "stream", "tid"}
_MARKS = {"involved_dim", "rf_id", "fw_parent"}
_WANTED = {name.encode() for name in _NUMBERS | _WORDS | _MARKS}
_SIGNED = {"comm_src", "comm_dst", "comm_tag"}
_MISSING: Any = object()
#: an attribute's bytes repeat from node to node (is_cpu_op = 1): decode each spelling once, up to this many
_CACHE = 100_000
#: fields of the layouts before 2023-10: 11 attr, 12 num_ops, 13 comm_type, 18 comm_size
_OLD_FIELDS = set(range(11, 20))


@dataclass(frozen=True)
class ChakraFile:
    """The nodes of one rank's file, one row each, in file order.

    id            as in the file, unique, sparse
    type          into ``NODE_TYPES``
    is_cpu        1 on the host, 0 on the accelerator, -1 where the file does not say (accelerator)
    duration_us   recorded time, 0 where unknown [us]
    num_ops       FLOPs for a roofline, 0 where not given [FLOP]
    tensor_size_B bytes touched or moved, 0 where not given [B]
    comm_type     into ``COMM_TYPES``, -1 where not given
    comm_size_B   as the producer counts it (all-gather: what one rank contributes), NaN where not given [B]
    comm_src, comm_dst, comm_tag  as given, -1 where not (tag 0)
    pg_name       communicator, "" for all ranks
    stream        accelerator stream recorded, "" for none (of a profiler also where it calls it a thread: tid)
    dep_ptr, dep_idx  CSR: rows that must end first, each once
    ctrl_deps, data_deps, missing_deps  edges in the file, and how many of both name an id that is not there
    profiled      the nodes come from a profiler of PyTorch (they say rf_id or fw_parent)
    call_tree     the ctrl_deps are the profiler's call tree and were not used as order
    groups        communicators defined inside the file; an empty tuple means all ranks
    partial_dims  collectives that name only some network dimensions (``involved_dim``)
    """

    path: Path
    encoding: str
    metadata: Mapping[str, Any]
    id: NDArray[np.uint64]
    name: tuple[str, ...]
    type: Ints
    is_cpu: Ints
    duration_us: Floats
    num_ops: Floats
    tensor_size_B: Floats
    comm_type: Ints
    comm_size_B: Floats
    comm_src: Ints
    comm_dst: Ints
    comm_tag: Ints
    pg_name: tuple[str, ...]
    stream: tuple[str, ...]
    dep_ptr: Ints
    dep_idx: Ints
    ctrl_deps: int
    data_deps: int
    missing_deps: int
    profiled: bool
    call_tree: bool
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    partial_dims: int = 0

    def __len__(self) -> int:
        return len(self.id)


class _BadValueError(ValueError):
    """A value that makes no sense; the caller knows the file and the byte."""


@dataclass
class _Rows:
    """Columns under construction."""

    id: list[int] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    type: list[int] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)
    attrs: list[dict[str, Any]] = field(default_factory=list)
    ctrl: array[int] = field(default_factory=lambda: array("Q"))
    ctrl_count: list[int] = field(default_factory=list)
    data: array[int] = field(default_factory=lambda: array("Q"))
    data_count: list[int] = field(default_factory=list)
    profiled: bool = False
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)


def read_chakra(path: Path | str, *, limit_B: int = LIMIT_B) -> ChakraFile:
    """Read one rank's file: protobuf or JSON, gzipped or not. Raises InputError naming file and byte."""
    path = Path(path)
    data = read_bytes(path, limit_B=limit_B)
    if looks_like_json(data):
        metadata, rows = _read_json(path, data)
        return _columns(path, "json", metadata, rows)
    metadata, rows = _read_protobuf(path, data)
    return _columns(path, "protobuf", metadata, rows)


def looks_like_json(data: bytes) -> bool:
    """A JSON object. The second character tells it from a protobuf message that happens to be 123 bytes long.

    >>> looks_like_json(b' {"workload_graph": []}'), looks_like_json(b"{" + bytes(123))
    (True, False)
    """
    start = data[:4096].lstrip()
    return start[:1] == b"{" and start[1:].lstrip()[:1] in (b'"', b"}")


def looks_like_chakra(data: bytes) -> bool:
    """Whether the first bytes of a file could start a Chakra trace in either encoding."""
    if looks_like_json(data):
        return b'"workload_graph"' in data
    try:
        size, start = _varint(data, 0)
        first = data[start : start + size]
        if len(first) < size:  # the message is longer than what was sniffed
            return first[:1] in (b"\x08", b"\x0a", b"\x12") and len(data) >= 1024 and size < 2**24
        if not size:
            return len(data) > start
        _pb.GlobalMetadata.FromString(first) if _is_metadata(first) else _pb.Node.FromString(first)
    except (DecodeError, _BadValueError):
        return False
    return True


# -- protobuf ----------------------------------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The LEB128 number at a byte, and the byte after it."""
    value = shift = 0
    for i in range(at, min(at + 10, len(data))):
        byte = data[i]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, i + 1
        shift += 7
    raise _BadValueError("the length of a message is cut short" if len(data) - at < 10 else "a length of over 10 bytes")


def _is_metadata(message: bytes) -> bool:
    """Tell GlobalMetadata (1 and 2 are strings or messages) from Node (1 and 3 are varints)."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag not in (0x0A, 0x12):
            return False
        size, at = _varint(message, at)
        at += size
    return at == len(message)


def _read_protobuf(path: Path, data: bytes) -> tuple[dict[str, Any], _Rows]:
    rows, metadata = _Rows(), {}
    cache: dict[bytes, tuple[str, Any] | None] = {}
    parse, end, at, first = _pb.Node.FromString, len(data), 0, True
    while at < end:
        offset = at
        try:
            size = data[at]
            at += 1
            if size >= 0x80:
                size, at = _varint(data, offset)
            if size > end - at:
                raise _BadValueError(
                    f"a message of {size} bytes is announced but {end - at} bytes are left: "
                    + ("not a Chakra trace, or cut short" if first else "the file is cut short")
                )
            message = data[at : at + size]
            at += size
            if first:
                first = False
                if _is_metadata(message):
                    metadata = _metadata(message)
                    continue
            _add_node(rows, parse(message), cache)
        except DecodeError:
            what = "not a Chakra trace" if not rows.id else "broken data"
            raise bad(path, f"{what}: the message does not parse as a Chakra node", byte=offset) from None
        except _BadValueError as error:
            raise bad(path, str(error), byte=offset) from None
    return metadata, rows


def _metadata(message: bytes) -> dict[str, Any]:
    parsed = _pb.GlobalMetadata.FromString(message)
    out: dict[str, Any] = {"version": parsed.version}
    for attr in parsed.attr:
        kind = attr.WhichOneof("value")
        if kind and kind.endswith("_val"):
            out[attr.name] = getattr(attr, kind)
    return out


def _add_node(rows: _Rows, node: Any, cache: dict[bytes, tuple[str, Any] | None]) -> None:
    kind = node.type
    if not 0 < kind < len(NODE_TYPES):
        what = "INVALID" if kind == 0 else "unknown; layouts before 2023-10 are not read"
        raise _BadValueError(f"node {node.id}: node type {kind} is {what}")
    raw_attrs = node.attr
    if (not raw_attrs or len(rows.id) < 16) and any(f.field_number in _OLD_FIELDS for f in _unknown_fields(node)):
        raise _BadValueError(
            f"node {node.id}: this is a Chakra layout from before 2023-10, which is not read; convert it"
        )
    attrs: dict[str, Any] = {}
    for raw in raw_attrs[:]:  # a slice makes one list; iterating asks the message for each
        known = cache.get(raw, _MISSING)
        if known is _MISSING:
            if len(cache) >= _CACHE:
                cache.clear()
            known = cache[raw] = _attribute(raw)
        if known is not None:
            attrs[known[0]] = known[1]
    rows.id.append(node.id)
    rows.name.append(node.name)
    rows.type.append(kind)
    rows.duration.append(node.duration_micros)
    rows.attrs.append(attrs)
    deps = node.ctrl_deps[:]
    rows.ctrl.fromlist(deps)
    rows.ctrl_count.append(len(deps))
    deps = node.data_deps[:]
    rows.data.fromlist(deps)
    rows.data_count.append(len(deps))
    if "rf_id" in attrs or "fw_parent" in attrs:
        rows.profiled = True
    if kind == METADATA and "process_group:init" in node.name:
        rows.groups.update(_embedded_groups(_pb.IOInfo.FromString(node.inputs).values))


def _attribute(raw: bytes) -> tuple[str, Any] | None:
    """Name and value of an attribute, None for one that replay does not need."""
    # Most attributes start with their name (field 1): leave the unneeded ones undecoded.
    if len(raw) > 2 and raw[0] == 0x0A and raw[1] < 0x80 and raw[2 : 2 + raw[1]] not in _WANTED:
        return None
    attr = _pb.AttributeProto.FromString(raw)
    kind = attr.WhichOneof("value")
    if kind is None:
        return None
    value = getattr(attr, kind)
    return _coerce(attr.name, list(value.values) if kind.endswith("_list") else value)


def _coerce(name: str, value: Any) -> tuple[str, Any] | None:
    """Producers disagree on the type of an attribute: 1, 1.0, "1" and true are the same number."""
    if name in _NUMBERS:
        number = _whole(value)
        if number is None or not (-(2**63) <= number < 2**63 if name in _SIGNED else 0 <= number < 2**64):
            raise _BadValueError(f"attribute {name}: expected a whole number of a sensible size, got {value!r:.60}")
        return name, number
    if name in _WORDS:
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return ("pg_name" if name == "comm_group" else name), str(value)
    if name == "involved_dim":
        return name, isinstance(value, list) and not all(value)
    return (name, value) if name in _MARKS else None


def _whole(value: Any) -> int | None:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        try:
            return int(value) if len(value) <= 20 else None
        except ValueError:
            return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    return int(value) if isinstance(value, int) else None


def _embedded_groups(text: str) -> dict[str, tuple[int, ...]]:
    """Communicators of a ``process_group:init`` node: a JSON list, inside the Python repr of a list."""
    try:
        value: Any = ast.literal_eval(text)
        while isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
            value = orjson.loads(value[0])
        return {str(group["pg_name"]): tuple(sorted({int(rank) for rank in group["ranks"]})) for group in value}
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError, OverflowError):
        raise _BadValueError("a process_group:init node whose groups cannot be read") from None


# -- JSON --------------------------------------------------------------------------------------------------

_JSON_KEYS = {
    "nodetype": "type",
    "node_type": "type",
    "ctrldeps": "ctrl_deps",
    "datadeps": "data_deps",
    "runtime": "duration_micros",
}


def _read_json(path: Path, data: bytes) -> tuple[dict[str, Any], _Rows]:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise bad(path, f"not valid JSON ({error.msg})", byte=error.pos) from None
    nodes = document.get("workload_graph")
    if not isinstance(nodes, list):
        raise bad(path, "not a Chakra JSON trace: no list named workload_graph")
    rows = _Rows()
    for number, node in enumerate(nodes):
        try:
            _add_json_node(rows, node)
        except _BadValueError as error:
            raise bad(path, f"workload_graph[{number}]: {error}") from None
    return {key: value for key, value in document.items() if key != "workload_graph"}, rows


def _add_json_node(rows: _Rows, node: Any) -> None:
    if not isinstance(node, dict):
        raise _BadValueError("expected an object")
    fields = {_JSON_KEYS.get(key.lower(), key.lower()): value for key, value in node.items()}
    kind, ident = _unsigned(fields, "type", None), _unsigned(fields, "id", None)
    if not 0 < kind < len(NODE_TYPES):
        raise _BadValueError(f"node {ident}: node type {kind} is not known")
    for key, column, count in (
        ("ctrl_deps", rows.ctrl, rows.ctrl_count),
        ("data_deps", rows.data, rows.data_count),
    ):
        deps = fields.get(key) or []
        if not isinstance(deps, list) or not all(type(d) is int and 0 <= d < 2**64 for d in deps):
            raise _BadValueError(f"{key}: expected a list of node ids")
        column.extend(deps)
        count.append(len(deps))
    rows.id.append(ident)
    rows.name.append(str(fields.get("name", "")))
    rows.type.append(kind)
    rows.duration.append(_unsigned(fields, "duration_micros", 0))
    coerced = [_coerce(key, value) for key, value in fields.items() if value is not None]
    rows.attrs.append(dict(pair for pair in coerced if pair))
    if "rf_id" in fields or "fw_parent" in fields:
        rows.profiled = True


def _unsigned(fields: Mapping[str, Any], key: str, default: int | None) -> int:
    number = _whole(fields.get(key, default))
    if number is None or not 0 <= number < 2**64:
        raise _BadValueError(f"{key}: expected a whole number from 0, got {fields.get(key)!r:.60}")
    return number


# -- columns -----------------------------------------------------------------------------------------------


def _columns(path: Path, encoding: str, metadata: dict[str, Any], rows: _Rows) -> ChakraFile:
    if not rows.id:
        raise bad(path, "holds no nodes")
    ids = np.array(rows.id, np.uint64)
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(twice):
        raise bad(path, f"node id {ids[order][twice[0]]} stands twice")
    attrs = rows.attrs
    for number, (kind, attr) in enumerate(zip(rows.type, attrs, strict=True)):
        # Some producers put the node type into comm_type of sends and receives: only collectives have one.
        if kind == COMM_COLL and attr.get("comm_type", 0) >= len(COMM_TYPES):
            raise bad(path, f"node {rows.id[number]}: unknown comm_type {attr['comm_type']}")
    rows_of = _Lookup(ids, order)
    data = rows_of.edges(rows.data, rows.data_count)
    ctrl = rows_of.edges(rows.ctrl, rows.ctrl_count)
    # A profiler's ctrl_deps name the caller, in ids from before the converter renumbered them: they point at
    # unrelated nodes and even form cycles. Elsewhere (text converter) they are the only order there is.
    used = [data] if rows.profiled else [data, ctrl]

    def thread(attr: Mapping[str, Any]) -> str:
        return "" if attr.get("is_cpu_op") else str(attr.get("tid", ""))

    dep_ptr, dep_idx = _csr(len(ids), np.concatenate([e[0] for e in used]), np.concatenate([e[1] for e in used]))
    return ChakraFile(
        path=path,
        encoding=encoding,
        metadata=metadata,
        id=ids,
        name=tuple(rows.name),
        type=np.array(rows.type, np.int64),
        is_cpu=np.array([(-1 if (v := a.get("is_cpu_op")) is None else int(v != 0)) for a in attrs], np.int64),
        duration_us=np.array(rows.duration, np.float64),
        num_ops=_floats(attrs, "num_ops", 0),
        tensor_size_B=_floats(attrs, "tensor_size", 0),
        comm_type=_ints(
            [a.get("comm_type", -1) if t == COMM_COLL else -1 for t, a in zip(rows.type, attrs, strict=True)]
        ),
        comm_size_B=_floats(attrs, "comm_size", math.nan),
        comm_src=_ints(a.get("comm_src", -1) for a in attrs),
        comm_dst=_ints(a.get("comm_dst", -1) for a in attrs),
        comm_tag=_ints(a.get("comm_tag", 0) for a in attrs),
        pg_name=tuple(a.get("pg_name", "") for a in attrs),
        stream=tuple(a.get("stream") or (thread(a) if rows.profiled else "") for a in attrs),
        dep_ptr=dep_ptr,
        dep_idx=dep_idx,
        ctrl_deps=len(rows.ctrl),
        data_deps=len(rows.data),
        missing_deps=len(rows.ctrl) + len(rows.data) - len(ctrl[0]) - len(data[0]),
        profiled=rows.profiled,
        call_tree=rows.profiled and len(rows.ctrl) > 0,
        groups=rows.groups,
        partial_dims=sum(bool(a.get("involved_dim")) for a in attrs),
    )


class _Lookup:
    """Rows of node ids; ids are sparse and may be any 64-bit number."""

    def __init__(self, ids: NDArray[np.uint64], order: Ints):
        self._sorted, self._order = ids[order], order

    def edges(self, deps: array[int], counts: Sequence[int]) -> tuple[Ints, Ints]:
        """(row, row it depends on) for the edges whose end is in the file."""
        row = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        wanted = np.frombuffer(deps, np.uint64) if len(deps) else np.zeros(0, np.uint64)
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        there = self._sorted[at] == wanted
        return row[there], self._order[at[there]].astype(np.int64)


def _csr(n: int, row: Ints, dep: Ints) -> tuple[Ints, Ints]:
    """Each edge once, sorted by row, then by what it depends on."""
    edges = np.sort(row * n + dep, kind="stable")
    edges = edges[np.diff(edges, prepend=-1) > 0]
    ptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(edges // n, minlength=n), out=ptr[1:])
    return ptr, edges % n


def _ints(values: Iterable[int]) -> Ints:
    return np.array(list(values), np.int64)


def _floats(attrs: Sequence[Mapping[str, Any]], name: str, default: float) -> Floats:
    return np.array([a.get(name, default) for a in attrs], np.float64)
