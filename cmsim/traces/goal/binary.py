"""GOAL schedules in binary form, as txt2bin writes them.

Little endian and packed: ``u64`` cookie; then, where byte offsets of the table count from, ``u32`` ranks, ``u8``
highest cpu, ``u8`` highest nic, and by rank ``u64`` start and end of its block. A block is ``u32`` nodes, ``u32``
roots, the roots (``u32`` each), the nodes, and a list of ``u32`` node numbers into which each node points twice: who
waits for its end, and who waits for its start.

Two writers share the cookie and differ in the record of a node: LogGOPSim's has 39 bytes, LogGOPSim2's the same 39
and 65 more about Portals. The size is the one with which the blocks fill their places exactly.

Source: LogGOPSim, Parser.hpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.errors import InputError, Problem
from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes
from cmsim.traces.goal import schedule as schedules
from cmsim.traces.goal.schedule import ANY, CALCS, PORTALS, RECVS, SENDS, GoalSchedule
from cmsim.traces.recorded import Trace

FORMAT = "goal-binary"
COOKIE, CONSUMED = 4223, 2342
_NODE: list[tuple[str, str]] = [
    ("dep_count", "<u4"),
    ("type", "i1"),
    ("peer", "<u4"),
    ("size", "<u8"),
    ("tag", "<u4"),
    ("cpu", "u1"),
    ("nic", "u1"),
    ("n_dep", "<u4"),
    ("dep_start", "<u4"),
    ("n_startdep", "<u4"),
    ("startdep_start", "<u4"),
]
#: records, the common one first
_RECORDS = tuple(
    np.dtype({
        "names": [name for name, _ in _NODE],
        "formats": [kind for _, kind in _NODE],
        "offsets": np.cumsum([0, *(np.dtype(kind).itemsize for _, kind in _NODE[:-1])]).tolist(),
        "itemsize": size,
    })
    for size in (39, 104)
)  # fmt: skip
_KINDS = {SENDS: "send", RECVS: "recv", CALCS: "calc"}
_ANY = 2**32 - 1
_HEAD_B = 14
#: bytes of a message, or ns of a calculation, above which a record is taken for damaged
_MOST = 2**60


@dataclass(frozen=True)
class GoalBinary:
    """A file as read; ``offset`` is where the record of each row stands [B]."""

    path: Path
    schedule: GoalSchedule
    record_B: int
    max_cpu: int
    max_nic: int
    last_end: int
    file_B: int
    offset: Ints

    def counts(self) -> dict[str, Any]:
        """Nodes of each kind, bytes [B] and calculation [ns]."""
        own = self.schedule
        kinds, numbers = np.unique(own.kind, return_counts=True)
        return {
            "format": FORMAT,
            "magic_cookie": COOKIE,
            "file_bytes": self.file_B,
            "num_ranks": own.num_ranks,
            "max_cpu": self.max_cpu,
            "max_nic": self.max_nic,
            "node_record_bytes": self.record_B,
            "last_end": self.last_end,
            "ops": {
                _KINDS.get(k, "portals"): n
                for k, n in sorted(zip(kinds.tolist(), numbers.tolist(), strict=True), reverse=True)
            },
            "requires": len(own.after),
            "irequires": len(own.after_start),
            "send_bytes": sum(own.size[own.kind == SENDS].tolist()),
            "calc_sum": sum(own.size[own.kind == CALCS].tolist()),
        }

    def trace(self, *, ranks: int | None = None) -> Trace:
        """The ops of all ranks; see `schedules.trace`. Errors name the byte."""
        return schedules.trace(self.schedule, format=FORMAT, path=self.path, ranks=ranks, place=self._place)

    def _place(self, row: int, message: str) -> Problem:
        own = self.schedule
        block = int(np.searchsorted(own.first, row, "right")) - 1
        what = f"rank {own.rank[block]}, node {row - own.first[block]}"
        what += f" ({_KINDS.get(int(own.kind[row]), 'another type')})"
        return Problem(f"byte {self.offset[row]}: {what}: {message}", str(self.path))


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001 (all importers are asked alike)
    """Whether a file starts with one of the two cookies."""
    return len(start) >= 8 and int.from_bytes(start[:8], "little") in (COOKIE, CONSUMED)


def open_(path: Path, *, limit_B: int = LIMIT_B) -> GoalBinary:
    """Read a file, gzipped or not. Raises InputError naming the byte."""
    path = Path(path)
    data = read_bytes(path, limit_B=limit_B)
    cookie = int.from_bytes(data[:8], "little")
    if cookie == CONSUMED:
        raise bad(path, "the schedule was read destructively, and nothing can be read again: make it anew", byte=0)
    if cookie != COOKIE or len(data) < _HEAD_B:
        raise bad(path, f"expected the cookie {COOKIE}, got {cookie}, in a file of {len(data)} bytes", byte=0)
    num_ranks = int.from_bytes(data[8:12], "little")
    table_end = _HEAD_B + 16 * num_ranks
    if not num_ranks or table_end > len(data):
        raise bad(path, f"{num_ranks} ranks are announced, whose table does not fit {len(data)} bytes", byte=8)
    places = np.frombuffer(data, "<u8", 2 * num_ranks, _HEAD_B).reshape(-1, 2)
    bounds = np.concatenate([[np.uint64(table_end - 8)], places.ravel()])
    wrong = np.flatnonzero((bounds[1:] < bounds[:-1]) | (bounds[1:] > len(data) - 8))
    if len(wrong):
        got = f"{places[wrong[0] // 2, 0]} to {places[wrong[0] // 2, 1]}"
        message = f"rank {wrong[0] // 2}: its block goes from {got}; blocks follow each other up to {len(data) - 8}"
        raise bad(path, message, byte=_HEAD_B + 8 * int(wrong[0]))
    start = places.astype(np.int64) + 8
    record = _record(path, data, start)
    blocks = [_Block(path, data, rank, (begin, end), record) for rank, (begin, end) in enumerate(start.tolist())]
    first = np.zeros(num_ranks + 1, np.int64)
    np.cumsum([len(block.nodes) for block in blocks], out=first[1:])
    nodes = np.concatenate([block.nodes for block in blocks])
    offset = _joined([block.offset for block in blocks])
    edges = [block.edges() for block in blocks]
    after, before, after_start, before_start = (
        _joined([edge[i] + shift for edge, shift in zip(edges, first.tolist(), strict=False)]) for i in range(4)
    )
    schedule = _schedule(path, num_ranks, first, nodes, offset, (after, before, after_start, before_start))
    return GoalBinary(
        path=path,
        schedule=schedule,
        record_B=record.itemsize,
        max_cpu=data[12],
        max_nic=data[13],
        last_end=int(start[-1, 1]),
        file_B=len(data),
        offset=offset,
    )


def _record(path: Path, data: bytes, places: Ints) -> np.dtype[Any]:
    """The record with which every block fills its place."""
    fits = [True, True]
    for rank, (start, end) in enumerate(places.tolist()):
        fits = [was and _fits(data, start, end, record) for was, record in zip(fits, _RECORDS, strict=True)]
        if not any(fits):
            sizes = " or ".join(str(record.itemsize) for record in _RECORDS)
            message = (
                f"rank {rank}: nodes of {sizes} bytes and their lists do not fill the {end - start} bytes of its block"
            )
            raise bad(path, message, byte=start)
    return _RECORDS[fits.index(True)]


def _fits(data: bytes, start: int, end: int, record: np.dtype[Any]) -> bool:
    if end - start < 8:
        return False
    nodes, roots = np.frombuffer(data, "<u4", 2, start).tolist()
    at = start + 8 + 4 * roots
    behind = at + record.itemsize * nodes
    if behind > end:
        return False
    table = np.frombuffer(data, record, nodes, at)
    listed = int(table["n_dep"].sum(dtype=np.int64)) + int(table["n_startdep"].sum(dtype=np.int64))
    return int(behind + 4 * listed) == end


class _Block:
    """The nodes of one rank."""

    def __init__(self, path: Path, data: bytes, rank: int, place: tuple[int, int], record: np.dtype[Any]):
        start, end = place
        count, roots = np.frombuffer(data, "<u4", 2, start).tolist()
        at = start + 8 + 4 * roots
        behind = at + record.itemsize * count
        self._path, self._rank = path, rank
        self.nodes: NDArray[Any] = np.frombuffer(data, record, count, at)
        self.offset = at + record.itemsize * np.arange(count)
        self._list = np.frombuffer(data, "<u4", (end - behind) // 4, behind).astype(np.int64)

    def edges(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Who waits, for whose end; who waits, for whose start."""
        after, before = self._pointed("n_dep", "dep_start")
        after_start, before_start = self._pointed("n_startdep", "startdep_start")
        waits = np.bincount(np.concatenate([after, after_start]), minlength=len(self.nodes))
        wrong = waits != self.nodes["dep_count"]
        if wrong.any():
            node = int(np.argmax(wrong))
            said = f"waits for {self.nodes['dep_count'][node]} nodes, but stands in the lists of {waits[node]}"
            raise self._bad(node, said)
        wrong = after == before
        if wrong.any():
            raise self._bad(int(after[np.argmax(wrong)]), "waits for itself")
        return after, before, after_start, before_start

    def _pointed(self, count: str, start: str) -> tuple[Ints, Ints]:
        number, first = self.nodes[count].astype(np.int64), self.nodes[start].astype(np.int64)
        wrong = (number > 0) & (first + number > len(self._list))
        if wrong.any():
            node = int(np.argmax(wrong))
            message = f"{number[node]} entries from {first[node]} on, in a list of {len(self._list)}"
            raise self._bad(node, message)
        begin = np.cumsum(number) - number
        pointing = np.repeat(np.arange(len(self.nodes)), number)
        waiting: Ints = self._list[np.repeat(first - begin, number) + np.arange(len(pointing))]
        wrong = waiting >= len(self.nodes)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise self._bad(int(pointing[at]), f"node {waiting[at]} waits for it; there are {len(self.nodes)}")
        return waiting, pointing

    def _bad(self, node: int, message: str) -> InputError:
        return bad(self._path, f"rank {self._rank}, node {node}: {message}", byte=int(self.offset[node]))


def _schedule(
    path: Path, num_ranks: int, first: Ints, nodes: NDArray[Any], offset: Ints, edges: tuple[Ints, Ints, Ints, Ints]
) -> GoalSchedule:
    kind = nodes["type"].astype(np.int64)
    plain = (kind >= SENDS) & (kind <= CALCS)
    message = (kind == SENDS) | (kind == RECVS)
    any_source = (kind == RECVS) & (nodes["peer"] == _ANY)
    for wrong, what in (
        (message & ~any_source & (nodes["peer"] >= num_ranks), f"its peer is none of the {num_ranks} ranks"),
        (nodes["size"] >= _MOST, f"its size is {_MOST} or more"),
        ((kind == SENDS) & (nodes["tag"] == _ANY), "only a receive can leave the tag open"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            rank = int(np.searchsorted(first, at, "right")) - 1
            raise bad(path, f"rank {rank}, node {at - first[rank]}: {what}", byte=int(offset[at]))
    peer = np.where(message, nodes["peer"].astype(np.int64), 0)
    tag = np.where(message, nodes["tag"].astype(np.int64), 0)
    return GoalSchedule(
        num_ranks=num_ranks,
        rank=np.arange(num_ranks),
        first=first,
        kind=np.where(plain, kind, PORTALS),
        size=nodes["size"].astype(np.int64),
        peer=np.where(any_source, ANY, peer),
        tag=np.where((kind == RECVS) & (tag == _ANY), ANY, tag),
        cpu=nodes["cpu"].astype(np.int64),
        nic=nodes["nic"].astype(np.int64),
        after=edges[0],
        before=edges[1],
        after_start=edges[2],
        before_start=edges[3],
    )


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
