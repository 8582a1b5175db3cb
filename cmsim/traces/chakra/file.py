"""Chakra execution traces: one rank's file in, columns out.

A file is a run of messages, each after its length as a LEB128 varint: one ``GlobalMetadata`` (which some
producers leave out), then one ``Node`` per op. A JSON variant holds the same nodes in ``workload_graph``.

Source: mlcommons/chakra, schema of 2023-10 onwards (versions 0.0.4 to 1.0.0, wire-stable), and the files in
``workloads/traces/chakra``.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.compute import Shape
from cmsim.errors import InputError
from cmsim.reading.bytes_in import GZIP_MAGIC, LIMIT_B, bad, read_bytes
from cmsim.reading.regular import opened
from cmsim.traces.chakra import chakra_pb2 as _pb2
from cmsim.traces.chakra.json_form import is_jsonized, read_json
from cmsim.traces.chakra.nodes import (
    COMM_COLL,
    COMM_RECV,
    COMM_SEND,
    COMM_TYPES,
    COMP,
    DIMS,
    INVALID,
    MEM_LOAD,
    MEM_STORE,
    METADATA,
    NODE_TYPES,
    NodeColumns,
)
from cmsim.traces.chakra.protobuf import is_metadata, read_protobuf
from cmsim.traces.chakra.wire import BadMessageError, Data, varint

_pb: Any = _pb2

#: size from which a file is mapped [B]
_MAPPED_B = 1 << 24
#: what the two counts of collectives of ``ChakraFile.counts`` mean
_NOTE = (
    "collectives/collective_bytes count a COMM_COLL node that has no comm_type as ALL_REDUCE with 0 bytes (proto "
    "default); collectives_with_comm_type counts only nodes that carry the attribute"
)


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

    What only files have that cmsim wrote (`cmsim.traces.chakra.write`):

    duration_ps   length, 0 included, where ``duration_us`` is a rounding of it, -1 where not given [ps]
    flops         where ``num_ops`` is a rounding of it, else NaN [FLOP]
    bytes_B       size as cmsim counts it (of all-gathers the whole array) where ``tensor_size_B`` or ``comm_size_B``
                  is a rounding of it, else NaN [B]
    cores         share of the accelerator's cores, 1 where not given [1]
    kernel        into ``kernels`` (classes of ``cmsim.compute.KERNELS``), -1 where not given
    precision     into ``precisions``, -1 where not given
    collective    into ``collectives`` (names of ``cmsim.collectives``) where Chakra has none of that name, else -1
    shape         into ``shapes``, -1 where not given
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
    duration_ps: Ints
    flops: Floats
    bytes_B: Floats
    cores: Floats
    kernels: tuple[str, ...]
    kernel: Ints
    precisions: tuple[str, ...]
    precision: Ints
    collectives: tuple[str, ...]
    collective: Ints
    shapes: tuple[Shape, ...]
    shape: Ints
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    partial_dims: int = 0

    def __len__(self) -> int:
        return len(self.id)

    def counts(self) -> dict[str, Any]:
        """What the file holds, in the words of the format. Sizes in bytes as the producer counts them."""
        return _json_counts(self) if self.encoding == "json" else _et_counts(self)


# -- counts ------------------------------------------------------------------------------------------------


def _et_counts(file: ChakraFile) -> dict[str, Any]:
    collective = file.type == COMM_COLL
    typed = collective & (file.comm_type >= 0)
    kind = np.where(collective, np.maximum(file.comm_type, 0), -1)
    size_B = np.where(typed, np.nan_to_num(file.comm_size_B), 0.0)
    found = [code for code in range(len(COMM_TYPES)) if (kind == code).any()]
    bytes_of = {COMM_TYPES[code]: _total(size_B[kind == code]) for code in found}
    return {
        "format": "chakra-et",
        "version": str(file.metadata.get("version", "")),
        "has_metadata_message": bool(file.metadata),
        "nodes": len(file),
        "node_types": {f"{NODE_TYPES[t]}_NODE": n for t, n in _tally(file.type)},
        "unique_ids": len(file),
        "id_min": int(file.id.min()),
        "id_max": int(file.id.max()),
        "cpu_ops": int((file.is_cpu == 1).sum()),
        "gpu_ops": int((file.is_cpu == 0).sum()),
        "ops_without_is_cpu_op": int((file.is_cpu < 0).sum()),
        "ctrl_deps": file.ctrl_deps,
        "data_deps": file.data_deps,
        "dep_edges_to_missing_ids": file.missing_deps,
        "collectives": {COMM_TYPES[code]: int((kind == code).sum()) for code in found},
        "collectives_with_comm_type": {COMM_TYPES[code]: n for code, n in _tally(file.comm_type[typed])},
        "gpu_collectives": int((collective & (file.is_cpu != 1)).sum()),
        "collective_bytes": {name: total for name, total in bytes_of.items() if total},
        "total_collective_bytes": sum(bytes_of.values()),
        "send_bytes": _total(file.comm_size_B[file.type == COMM_SEND]),
        "recv_bytes": _total(file.comm_size_B[file.type == COMM_RECV]),
        "pg": _by_communicator(file),
        "num_ops": _total(file.num_ops),
        "tensor_size": _total(file.tensor_size_B),
        "sum_duration_micros": _total(file.duration_us),
        "note": _NOTE,
    }


def _json_counts(file: ChakraFile) -> dict[str, Any]:
    sized = ~np.isnan(file.comm_size_B)
    return {
        "format": "chakra-json",
        "nodes": len(file),
        "node_types": {str(t): n for t, n in _tally(file.type)},
        "cpu_ops": int((file.is_cpu == 1).sum()),
        "ctrl_deps": file.ctrl_deps,
        "data_deps": file.data_deps,
        "dep_edges_to_missing_ids": file.missing_deps,
        "comm_types": {COMM_TYPES[code]: n for code, n in _tally(file.comm_type[file.comm_type >= 0])},
        "comm_nodes_with_comm_size": int((sized & (file.type >= COMM_SEND)).sum()),
        "comm_size_sum": _total(file.comm_size_B),
        "sum_runtime_micros": _total(file.duration_us),
    }


def set_counts(files: Iterable[ChakraFile]) -> dict[str, int]:
    """Sums over the files of a job, one per rank: ranks, nodes, collectives and bytes as the producer counts them."""
    out = dict.fromkeys(
        ("ranks", "nodes", "collective_nodes", "collective_bytes_sum_over_ranks", "send_bytes", "recv_bytes"), 0
    )
    for file in files:
        collective = file.type == COMM_COLL
        out["ranks"] += 1
        out["nodes"] += len(file)
        out["collective_nodes"] += int(collective.sum())
        out["collective_bytes_sum_over_ranks"] += _total(file.comm_size_B[collective & (file.comm_type >= 0)])
        out["send_bytes"] += _total(file.comm_size_B[file.type == COMM_SEND])
        out["recv_bytes"] += _total(file.comm_size_B[file.type == COMM_RECV])
    return out


def group_counts(groups: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """What the side file of a job holds: its communicators.

    >>> group_counts({"1": (0, 1)})
    {'format': 'chakra-comm-group-json', 'groups': {'1': [0, 1]}}
    """
    return {"format": "chakra-comm-group-json", "groups": {name: list(ranks) for name, ranks in groups.items()}}


def _tally(codes: Ints) -> list[tuple[int, int]]:
    """Codes from 0 that occur, and how often."""
    found = np.bincount(codes) if len(codes) else np.zeros(0, np.int64)
    return [(code, int(found[code])) for code in np.flatnonzero(found).tolist()]


def _total(values: Floats) -> int:
    """The sum of whole numbers, NaN left out; exact also beyond 2**53."""
    values = values[~np.isnan(values)]
    total = float(values.sum())
    return int(total) if total < 2**53 else sum(map(int, values.tolist()))


def _by_communicator(file: ChakraFile) -> dict[str, int]:
    """Collectives of each communicator."""
    return dict(Counter(file.pg_name[row] for row in np.flatnonzero(file.type == COMM_COLL).tolist()))


# -- reading -----------------------------------------------------------------------------------------------


def read_chakra(path: Path | str, *, limit_B: int = LIMIT_B) -> ChakraFile:
    """Read one rank's file: protobuf or JSON, gzipped or not. Raises InputError naming file and byte."""
    path = Path(path)
    data = _data(path, limit_B)
    if looks_like_json(data[:4096]):
        metadata, nodes = read_json(path, data)
        return _columns(path, "json", metadata, nodes)
    metadata, nodes = read_protobuf(path, data)
    return _columns(path, "protobuf", metadata, nodes)


def _data(path: Path, limit_B: int) -> Data:
    """The bytes of a file, expanded; those of a large one are not read but mapped, which takes no memory of ours."""
    try:
        with opened(path) as (file, size):
            plain = file.read(2) != GZIP_MAGIC
            if plain and _MAPPED_B <= size <= limit_B:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (InputError, OSError, ValueError):
        pass  # the ordinary way says what is wrong
    return read_bytes(path, limit_B=limit_B)


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
        return b'"workload_graph"' in data or is_jsonized(data)
    try:
        size, start = varint(data, 0)
        first = data[start : start + size]
        if len(first) < size:  # the message is longer than what was sniffed
            return first[:1] in (b"\x08", b"\x0a", b"\x12") and len(data) >= 1024 and size < 2**24
        if not size:
            return len(data) > start
        _pb.GlobalMetadata.FromString(first) if is_metadata(first) else _pb.Node.FromString(first)
    except (DecodeError, BadMessageError):
        return False
    return True


# -- columns -----------------------------------------------------------------------------------------------


def _columns(path: Path, encoding: str, metadata: dict[str, Any], nodes: NodeColumns) -> ChakraFile:
    count = len(nodes)
    if not count:
        raise bad(path, "holds no nodes")
    ids, kind, duration_us = nodes.columns()
    try:
        rows_of = _Lookup(ids)
    except BadMessageError as error:
        raise bad(path, str(error)) from None
    comm_type = np.where(kind == COMM_COLL, nodes.attribute("comm_type", -1), -1)
    # Some producers put the node type into comm_type of sends and receives: only collectives have one.
    wrong = np.flatnonzero(comm_type >= len(COMM_TYPES))
    if len(wrong):
        raise bad(path, f"node {ids[wrong[0]]}: unknown comm_type {comm_type[wrong[0]]}")
    (data, data_deps), (ctrl, ctrl_deps) = ((rows_of.edges(*nodes.edges(key))) for key in ("data", "ctrl"))
    # A profiler's ctrl_deps name the caller, in ids from before the converter renumbered them: they point at
    # unrelated nodes and even form cycles. Elsewhere (text converter) they are the only order there is.
    used = [data] if nodes.profiled else [data, ctrl]
    dep_ptr, dep_idx = _csr(count, np.concatenate([e[0] for e in used]), np.concatenate([e[1] for e in used]))
    is_cpu = nodes.attribute("is_cpu_op", -1)
    stream = nodes.attribute("stream", 0)
    if nodes.profiled:
        stream = np.where((stream == 0) & (is_cpu <= 0), nodes.attribute("tid", 0), stream)
    texts = np.array(list(nodes.texts), object)
    words = {
        f"{name}s": _coded(texts, nodes.attribute(f"cmsim_{name}", 0))
        for name in ("kernel", "precision", "collective", "shape")
    }
    return ChakraFile(
        path=path,
        encoding=encoding,
        metadata=metadata,
        id=ids,
        name=tuple(nodes.name),
        type=kind,
        is_cpu=np.minimum(is_cpu, 1),
        duration_us=duration_us,
        num_ops=nodes.attribute("num_ops", 0, np.float64),
        tensor_size_B=nodes.attribute("tensor_size", 0, np.float64),
        comm_type=comm_type,
        comm_size_B=nodes.attribute("comm_size", math.nan, np.float64),
        comm_src=nodes.attribute("comm_src", -1),
        comm_dst=nodes.attribute("comm_dst", -1),
        comm_tag=nodes.attribute("comm_tag", 0),
        pg_name=tuple(texts[nodes.attribute("pg_name", 0)].tolist()),
        stream=tuple(texts[stream].tolist()),
        dep_ptr=dep_ptr,
        dep_idx=dep_idx,
        ctrl_deps=ctrl_deps,
        data_deps=data_deps,
        missing_deps=ctrl_deps + data_deps - len(ctrl[0]) - len(data[0]),
        profiled=nodes.profiled,
        call_tree=nodes.profiled and ctrl_deps > 0,
        duration_ps=nodes.attribute("cmsim_duration_ps", -1),
        flops=nodes.attribute("cmsim_flops", math.nan, np.float64),
        bytes_B=nodes.attribute("cmsim_bytes", math.nan, np.float64),
        cores=nodes.attribute("cmsim_cores", 1.0, np.float64),
        kernels=words["kernels"][0],
        kernel=words["kernels"][1],
        precisions=words["precisions"][0],
        precision=words["precisions"][1],
        collectives=words["collectives"][0],
        collective=words["collectives"][1],
        shapes=tuple(_shape(path, text) for text in words["shapes"][0]),
        shape=words["shapes"][1],
        groups=nodes.groups,
        partial_dims=int(nodes.attribute(DIMS, 0).sum()),
    )


def _coded(texts: NDArray[Any], number: Ints) -> tuple[tuple[str, ...], Ints]:
    """Texts in use in order of first use, and the code of each row; "" is -1."""
    used, first, code = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(np.where(used == 0, -1, first))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    none = int(used[0] == 0)
    return tuple(texts[used[order]].tolist()[none:]), place[code] - none


def _shape(path: Path, text: str) -> Shape:
    """Sizes of a kernel, as `write` spells them."""
    try:
        kind, numbers, formats = orjson.loads(text)
        return Shape(
            str(kind),
            tuple((str(key), float(value)) for key, value in numbers),
            tuple((str(key), str(value)) for key, value in formats),
        )
    except (ValueError, TypeError):
        raise bad(path, f"attribute cmsim_shape: expected [kind, numbers, formats], got {text!r:.60}") from None


class _Lookup:
    """Rows of node ids; ids are sparse and may be any 64-bit number. Raises BadMessageError where one stands twice."""

    def __init__(self, ids: NDArray[np.uint64]):
        count, self._first = len(ids), int(ids.min())
        rows = np.arange(count, dtype=np.int64)
        span = int(ids.max()) - self._first + 1
        self._table: Ints | None = None
        if span <= 8 * count + 1024:
            self._table = np.full(span, -1, np.int64)
            at = (ids - np.uint64(self._first)).astype(np.int64)
            self._table[at] = rows
            twice = ids[self._table[at] != rows]
        else:
            self._order = np.argsort(ids, kind="stable")
            self._sorted = ids[self._order]
            twice = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        if len(twice):
            raise BadMessageError(f"node id {twice.min()} stands twice")

    def edges(self, wanted: NDArray[np.uint64], count: Ints) -> tuple[tuple[Ints, Ints], int]:
        """(row, row it depends on) for the edges whose end is in the file, and how many edges there are."""
        row = np.repeat(np.arange(len(count), dtype=np.int64), count)
        if self._table is not None:
            at = wanted - np.uint64(self._first)  # below the first it wraps round to a large number
            dep = self._table[np.minimum(at, np.uint64(len(self._table) - 1)).astype(np.int64)]
            there = (at < len(self._table)) & (dep >= 0)
            if there.all():
                return (row, dep), len(wanted)
            return (row[there], dep[there]), len(wanted)
        place = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        there = self._sorted[place] == wanted
        return (row[there], self._order[place[there]].astype(np.int64)), len(wanted)


def _csr(n: int, row: Ints, dep: Ints) -> tuple[Ints, Ints]:
    """Each edge once, sorted by row, then by what it depends on."""
    edges = np.sort(row * n + dep)
    edges = edges[np.diff(edges, prepend=-1) > 0]
    row = edges // n
    ptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=n), out=ptr[1:])
    return ptr, edges - row * n


__all__ = [
    "COMM_COLL",
    "COMM_RECV",
    "COMM_SEND",
    "COMM_TYPES",
    "COMP",
    "INVALID",
    "MEM_LOAD",
    "MEM_STORE",
    "METADATA",
    "NODE_TYPES",
    "ChakraFile",
    "group_counts",
    "looks_like_chakra",
    "looks_like_json",
    "read_chakra",
    "set_counts",
]
