"""PyTorch execution traces (ExecutionTraceObserver): what the host asked for, in order, with sizes and without times.

A file is an object with ``schema`` and the list ``nodes``, one a call, numbered as they started. Schema 1.0.1 has flat
keys; 1.0.2 and later nest ``inputs`` and ``outputs``, name the caller in ``ctrl_deps`` and keep the rest in ``attrs``.
A collective is a node ``record_param_comms``; the node ``nccl:<operation>`` below it repeats its tensors.

What becomes of a node:

- ``record_param_comms`` with tensors: a collective, send or receive on the queue of its communicator. It waits for the
  operator before it, as the framework has its communication stream wait for the stream in use.
- ``record_param_comms`` of ``wait``: the next operator waits for that collective.
- matrix products and convolutions whose shapes are known: kernels without a time, on the queue "compute". Of operators
  that call each other only the innermost counts.
- the rest: left out; nothing says how much work it is.

One page of more than 500 lines: a node means something only beside its parents and what it returns.

Source: pytorch/pytorch, torch/csrc/profiler/standalone/execution_trace_observer.cpp, and the files in
``workloads/traces/pytorch_et``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cmsim.reading.bytes_in import HEADS_B, LIMIT_B, bad, folder_heads, known
from cmsim.reading.formats import not_used
from cmsim.reading.json_blocks import blocks
from cmsim.traces import c10d
from cmsim.traces.kernels import MATRIX
from cmsim.traces.numbered import numbered, ranks_of
from cmsim.traces.recorded import Communicator, RankTrace, Trace, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, RECV, SEND

_SCHEMA = re.compile(rb'"schema"\s*:\s*"\d+\.\d+\.\d+')
_RANK = re.compile(
    r"(?:rank|worker)[-_.]?(\d{1,7})|(?<!\d)(\d{1,7})(?:\.pt)?(?:\.trace)?\.json(?:\.gz)?$", re.IGNORECASE
)
_COMMS, _GROUPS = "record_param_comms", "process_group:init"
_CONVOLUTIONS = ("convolution", "_convolution", "cudnn_convolution", "miopen_convolution", "mkldnn_convolution")
#: operations whose call says the caller's own place in the group; of others it is the root's or the other end's
_SYMMETRIC = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "barrier")


@dataclass(frozen=True)
class CollectiveCall:
    """A collective as the host called it.

    id        of the node
    operation  of `c10d.collective`; "wait" for a wait, "" for others
    number    of the call in its process, by which a wait names it
    in_B, out_B  tensors that go in and come out [B]
    place     the caller's place in the group, the root's or the other end's
    name, members, size  of the group; "", () and 0 where not told
    start, stride  first rank of the group and step between ranks, -1 where not told
    """

    id: int
    operation: str
    number: int
    in_B: float
    out_B: float
    tensors: bool
    place: int
    name: str
    members: tuple[int, ...]
    size: int
    start: int
    stride: int

    @property
    def size_B(self) -> float:
        """As nccl-tests counts it; NaN where the group's size is needed and not known. [B]"""
        return c10d.size_B(self.operation, self.in_B, self.out_B, self.size)

    def ranks(self) -> tuple[int, ...]:
        """Members of the group; empty where not told."""
        if self.members:
            return self.members
        known = self.start >= 0 < self.stride and 0 < self.size < 2**20
        return tuple(range(self.start, self.start + self.stride * self.size, self.stride)) if known else ()


@dataclass(frozen=True)
class Product:
    """A matrix product or convolution: node, operator, work [FLOP], operands and result [B], precision."""

    id: int
    name: str
    flops: float
    bytes_B: float
    precision: str


@dataclass(frozen=True)
class HostTrace:
    """One rank's file. ``calls`` and ``products`` by id.

    said    its collectives of groups with known ranks say its rank
    placed  collectives of the one group do
    """

    path: Path
    rank: int
    calls: tuple[CollectiveCall, ...]
    products: tuple[Product, ...]
    others: int
    counts: Mapping[str, Any]
    said: bool = False
    placed: bool = False

    def collectives(self) -> list[CollectiveCall]:
        """Calls that move tensors, in order."""
        return [call for call in self.calls if call.tensors and call.operation not in ("", "wait")]


@dataclass(frozen=True)
class PytorchET:
    """Files by rank, ascending."""

    source: Path
    files: Mapping[int, HostTrace]
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, Any]:
        """Of one file its counts; of a folder those of each file, by name.

        nodes, schema                      calls in all, layout of the file
        nccl_nodes, nccl_node_input_bytes  nodes nccl:<operation>, and the tensors that go into them [B]
        record_param_comms                 calls by operation, waits too
        record_param_comms_with_tensor, record_param_comms_input_bytes  those with tensors [B]
        """
        if not self.source.is_dir():
            return dict(next(iter(self.files.values())).counts)
        return {"format": "pytorch-et-json", "files": {one.path.name: dict(one.counts) for one in self.files.values()}}

    def trace(self, *, ranks: int | None = None) -> Trace:
        """Collectives and products in order; no times. InputError where there is neither."""
        made = _Job(self.source)
        out = {rank: made.rank(one, ranks or 0) for rank, one in self.files.items()}
        if not any(len(one) for one in out.values()):
            raise bad(self.source, "holds no collective with tensors and no product of known shape")
        sizes = [call.size for one in self.files.values() for call in one.calls if call.start == 0 and call.stride == 1]
        notes = [
            *self.notes,
            "an execution trace of the host has no times: kernels are priced by their FLOPs and bytes",
            *(f"{count} {what}" for what, count in sorted(made.notes.items()) if count),
        ]
        return Trace(
            format="pytorch-et-json",
            source=str(self.source),
            ranks=out,
            communicators=tuple(made.groups),
            world_size=max([*sizes, 0]),
            notes=tuple(notes),
        )


def sniff(start: bytes, path: Path) -> bool:
    """Whether a file, or a file in a folder, looks like an execution trace of PyTorch."""
    return holds(path) if not start and path.is_dir() else looks(start)


def holds(path: Path, size_B: int = HEADS_B[0]) -> bool:
    """Whether a file in a folder looks like one by so many first bytes."""
    return any(map(looks, folder_heads([one for one in _entries(path) if one.is_file()], size_B)))


def looks(start: bytes) -> bool:
    """Whether the first bytes of a file are of an execution trace."""
    ours = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and _SCHEMA.search(start) is not None
    return ours and (b'"nodes"' in start or b'"start_ts"' in start)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise bad(folder, f"cannot be read ({error.strerror or error})") from None


def open_(path: Path, *, limit_B: int = LIMIT_B) -> PytorchET:
    """Read a file, or a folder with one file for each rank. Raises InputError.

    The rank is what collectives of known groups say, else that of `numbered.ranks_of`, else what collectives of the one
    group say, else 0.
    """
    if not path.is_dir():
        one = read_host(path, limit_B=limit_B)
        return PytorchET(path, {one.rank: one})
    files: dict[Path, HostTrace] = {}
    others: list[Path] = []
    for name in _entries(path):
        if name.is_file() and known(name, looks):
            files[name] = read_host(name, limit_B=limit_B)
        else:
            others.append(name)
    if not files:
        raise bad(path, "holds no execution trace of PyTorch")
    said = {name: one.rank if one.said else -1 for name, one in files.items()}
    if len(said) > 1 and numbered([name.name for name in said]) is None:
        said = {name: one.rank if one.said or one.placed else -1 for name, one in files.items()}
    ranks = ranks_of(path, said, {name: bool(one.calls) for name, one in files.items()})
    notes = tuple(not_used(others, "no execution trace of PyTorch"))
    return PytorchET(path, {rank: replace(files[name], rank=rank) for rank, name in ranks.items()}, notes)


def rank_in_name(path: Path) -> int:
    """The number after "rank" or "worker" in a file's name, else the one before its ending; -1 for none.

    >>> [rank_in_name(Path(name)) for name in ("worker12_step_3.json", "et_7.json.gz", "a_2gpu.json")]
    [12, 7, -1]
    """
    found = _RANK.search(path.name)
    return int(found[1] or found[2]) if found else -1


def read_host(path: Path, *, limit_B: int = LIMIT_B) -> HostTrace:
    """Read one file. Raises InputError."""
    found = blocks(path, key="nodes", limit_B=limit_B)
    reader = _Reader()
    for block in found:
        for node in block:
            try:
                reader.add(node)
            except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                what = f"a node that cannot be read ({what:.60}), in the block from here: {node!r:.120}"
                raise bad(path, what, byte=found.start_B) from None
    schema = found.header.get("schema")
    if not isinstance(schema, str):
        raise bad(path, f"schema: expected a text such as 1.1.0-chakra.0.0.4, got {schema!r:.40}")
    if not reader.nodes:
        raise bad(path, "holds no nodes")
    calls = tuple(sorted(reader.calls, key=lambda call: call.id))
    products = reader.innermost()
    rank, said = _rank(calls)
    return HostTrace(
        path=path,
        rank=max(rank, 0),
        said=said,
        placed=rank >= 0,
        calls=calls,
        products=products,
        others=reader.nodes - len(products) - sum(reader.comms.values()) - sum(reader.nccl.values()),
        counts={"format": "pytorch-et-json", "schema": schema, **reader.counts()},
    )


def _rank(calls: Sequence[CollectiveCall]) -> tuple[int, bool]:
    """The rank that collectives say, -1 where they say none, and whether by groups whose ranks are known."""
    told = [call for call in calls if call.operation in _SYMMETRIC and call.place >= 0]
    ranks = {call.start + call.place * call.stride for call in told if call.start >= 0 < call.stride}
    if len(ranks) == 1:
        return ranks.pop(), True
    places = {call.place for call in told}
    return (places.pop() if len(places) == 1 else -1), False


class _Reader:
    """Nodes of one file as they come."""

    def __init__(self) -> None:
        self.nodes = 0
        self.parent: dict[int, int] = {}
        self.calls: list[CollectiveCall] = []
        self.products: dict[int, Product] = {}
        self.listed: dict[str, tuple[int, ...]] = {}
        self.nccl: Counter[str] = Counter()
        self.nccl_B: Counter[str] = Counter()
        self.comms: Counter[str] = Counter()
        self.with_tensor: Counter[str] = Counter()
        self.comms_B: Counter[str] = Counter()

    def add(self, node: dict[str, Any]) -> None:
        self.nodes += 1
        name, ident = node["name"], _integer(node["id"])
        self.parent[ident] = _integer(node["ctrl_deps"] if "ctrl_deps" in node else node["parent"])
        if name == _COMMS:
            self._add_call(node, ident)
        elif name.startswith("nccl:"):
            self.nccl[name] += 1
            self.nccl_B[name] += _bytes(*_side(node, "input")[:2])
        elif name.startswith("aten::"):
            made = _product(name, node)
            if made is not None:
                self.products[ident] = Product(ident, name, *made)
        elif _GROUPS in name:
            self._add_groups(_side(node, "input")[0])

    def _add_groups(self, values: Sequence[Any]) -> None:
        for one in orjson.loads(values[0]) if values else []:
            members = tuple(sorted({_integer(rank) for rank in one["ranks"]}))
            if len(members) == _integer(one.get("group_size", len(members))):
                self.listed[str(one["pg_name"])] = members

    def _add_call(self, node: dict[str, Any], ident: int) -> None:
        values, types, _ = _side(node, "input")
        at = types.index("String")
        said = str(values[at])
        in_B = _bytes(values, types)
        tensors = any("Tensor" in kind for kind in types)
        self.comms[said] += 1
        if tensors:
            self.with_tensor[said] += 1
            self.comms_B[said] += in_B
        # In front of the name: [tensors,] number of the call, group (an address, or name and description), place.
        number, group, place = values[at - 3], values[at - 2], values[at - 1]
        name = str(group[0]) if isinstance(group, list) and group else (f"group at {group}" if group else "")
        start, stride, size = (
            [_integer(one) for one in values[at + 3 : at + 6]] if len(values) > at + 5 else [-1, -1, 0]
        )
        out, kinds, _ = _side(node, "output")
        operation = "wait" if said == "wait" else c10d.collective(said)
        self.calls.append(
            CollectiveCall(
                id=ident,
                operation=operation,
                number=_integer(number),
                in_B=float(in_B),
                out_B=float(_bytes(out, kinds)) if out else math.nan,
                tensors=tensors,
                place=_integer(place),
                name=name,
                members=self.listed.get(name, ()),
                size=max(size, len(self.listed.get(name, ()))),
                start=start,
                stride=stride,
            )
        )

    def innermost(self) -> tuple[Product, ...]:
        """Products that call no other product, by id."""
        outer: set[int] = set()
        for ident in self.products:
            at, steps = self.parent.get(ident, 0), 0
            while at in self.parent and at not in outer and steps < 1000:
                outer.add(at)
                at, steps = self.parent[at], steps + 1
        return tuple(one for ident, one in sorted(self.products.items()) if ident not in outer)

    def counts(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes,
            "nccl_nodes": _sorted(self.nccl),
            "nccl_node_input_bytes": _sorted(self.nccl_B),
            "record_param_comms": _sorted(self.comms),
            "record_param_comms_with_tensor": _sorted(self.with_tensor),
            "record_param_comms_input_bytes": _sorted(self.comms_B),
        }


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter)}


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"expected a whole number, got {value!r:.40}")
    return value


def _side(node: Mapping[str, Any], side: str) -> tuple[list[Any], list[str], list[Any]]:
    """Values, types and shapes of "input" or "output"."""
    given = node[f"{side}s"]
    if isinstance(given, list):
        return given, node[f"{side}_types"], node[f"{side}_shapes"]
    return given["values"], given["types"], given["shapes"]


def _tensors(values: Sequence[Any], types: Sequence[str]) -> Iterator[Sequence[Any]]:
    """[id, storage, offset, elements, bytes of an element, device] of each tensor, those in lists too."""
    for value, kind in zip(values, types, strict=False):
        if kind.startswith("Tensor"):
            yield value
        elif "Tensor" in kind:
            yield from (one for one in value if isinstance(one, list) and len(one) == 6)


def _bytes(values: Sequence[Any], types: Sequence[str]) -> int:
    return sum(_integer(one[3]) * _integer(one[4]) for one in _tensors(values, types))


def _product(name: str, node: Mapping[str, Any]) -> tuple[float, float, str] | None:
    values, types, shapes = _side(node, "input")
    kinds = [kind[len("Tensor(") : -1] if kind.startswith("Tensor(") else "" for kind in types]
    operator = name.removeprefix("aten::")
    if operator in _CONVOLUTIONS and len(shapes) >= 2 and kinds[0] and kinds[1]:
        results, result_types, out = _side(node, "output")
        if not out or not isinstance(out[0], list) or len(out[0]) != len(shapes[1]):
            return None
        moved = _bytes(values[:3], types[:3]) + _bytes(results, result_types)
        flops = 2 * math.prod(map(_integer, out[0])) * math.prod(map(_integer, shapes[1][1:]))
        return float(flops), float(moved), c10d.element(kinds[0])[1]
    made = c10d.matrix_product(name, shapes, kinds)
    if made is None or operator != "convolution_backward":
        return made
    # Its last input says which gradients are wanted: by the input, by the weight, by the bias.
    wanted = values[-1] if isinstance(values[-1], list) and all(type(one) is bool for one in values[-1]) else [True] * 2
    products = sum(wanted[:2])
    return (made[0] * products, made[1] * products, made[2]) if products else None


# -- rows --------------------------------------------------------------------------------------------------


class _Job:
    """Ranks one after the other; communicators are numbered over all of them."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.groups: dict[Communicator, int] = {}
        self.notes: Counter[str] = Counter()

    def rank(self, file: HostTrace, world: int) -> RankTrace:
        unnamed: dict[str, str] = {}
        columns: dict[str, list[Any]] = {key: [] for key in _COLUMNS}
        edges: list[tuple[int, int]] = []
        by_number: dict[int, int] = {}
        waited: list[int] = []
        last = -1
        steps: list[CollectiveCall | Product] = [*file.calls, *file.products]
        for one in sorted(steps, key=lambda step: step.id):
            here = len(columns["name"])
            if isinstance(one, Product):
                edges += [(here, row) for row in waited]
                waited, last = [], here
                _append(columns, one.name, COMPUTE, "compute", one.bytes_B, kernel=MATRIX, flops=one.flops,
                        precision=one.precision)  # fmt: skip
            elif one.operation == "wait":
                if one.number in by_number:
                    waited.append(by_number[one.number])
            elif one.tensors and one.operation:
                row = self._call(one, unnamed, world, columns)
                if row:
                    by_number[one.number] = here
                    edges += [(here, last)] if last >= 0 else []
        self.notes["operators and ranges of which nothing says how much work they are: left out"] += file.others
        pairs = np.array(edges, np.int64).reshape(-1, 2)
        return rank_trace(
            file.rank,
            name=columns["name"],
            kind=columns["kind"],
            stream=columns["stream"],
            kernel=columns["kernel"],
            precision=columns["precision"],
            flops=columns["flops"],
            bytes_B=columns["bytes_B"],
            collective=columns["collective"],
            group=columns["group"],
            peer=columns["peer"],
            deps=(pairs[:, 0], pairs[:, 1]),
        )

    def _call(self, call: CollectiveCall, unnamed: dict[str, str], world: int, columns: dict[str, list[Any]]) -> bool:
        name = call.name
        if not call.members and call.start < 0:
            # An address tells groups of one process apart; ranks come to their groups in one order.
            name = unnamed.setdefault(call.name, f"communicator {len(unnamed)}")
            self.notes["collectives whose group is not told: all ranks"] += 1
        ranks = call.ranks()
        size_B = c10d.size_B(call.operation, call.in_B, call.out_B, call.size or world)
        message = call.operation in ("send", "recv")
        if math.isnan(size_B) or (message and call.place < 0):
            self.notes["collectives of unknown size: left out"] += 1
            return False
        if call.size == 1:
            self.notes["collectives in a group of one: left out"] += 1
            return False
        peer = -1
        if message:
            peer = ranks[call.place] if call.place < len(ranks) else call.place
        group = Communicator(name, tuple(sorted(ranks)), call.size)
        number = self.groups.setdefault(group, len(self.groups))
        kind = {"send": SEND, "recv": RECV}.get(call.operation, COLLECTIVE)
        _append(columns, f"c10d::{call.operation}", kind, f"comm {number}", size_B,
                collective="" if message else call.operation, group=number, peer=peer)  # fmt: skip
        return True


_COLUMNS = ("name", "kind", "stream", "bytes_B", "kernel", "flops", "precision", "collective", "group", "peer")


def _append(
    columns: dict[str, list[Any]],
    name: str,
    kind: int,
    stream: str,
    bytes_B: float,
    *,
    kernel: str = "",
    flops: float = 0.0,
    precision: str = "",
    collective: str = "",
    group: int = -1,
    peer: int = -1,
) -> None:
    row = (name, kind, stream, bytes_B, kernel, flops, precision, collective, group, peer)
    for key, value in zip(_COLUMNS, row, strict=True):
        columns[key].append(value)
