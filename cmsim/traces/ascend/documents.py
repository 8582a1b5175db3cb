"""Small JSON files of the Ascend profilers: who a rank is, what its ops moved, who is in a communicator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes
from cmsim.traces.ascend.view import comm_op

#: the aggregate beside the ops
TOTAL = "Total Op Info"
#: what SDMA moves is what these move, so that both never add up
_PARTS = ("HCCS", "PCIE", "SIO")
_LINK = re.compile(r"(\d{1,7})-(\d{1,7})")
_LARGEST_RANK = 2**24


@dataclass(frozen=True)
class CommOp:
    """One communication op of communication.json.

    name, group  what stands before and after the @; "" for no group
    start_us     as printed, since the epoch [us]; duration_us as recorded [us]
    moved_B      bytes this rank moved over all links, not the size of the op [B]
    """

    step: str
    kind: str
    name: str
    group: str
    start_us: float
    duration_us: float
    moved_B: float


@dataclass(frozen=True)
class LinkTraffic:
    """An entry of communication_matrix.json: local ranks of the communicator, and what was moved between them.

    name  of the one op it is of, "" where it is a sum
    """

    kind: str
    op: str
    group: str
    src: int
    dst: int
    transport: str
    size_B: float
    name: str = ""


@dataclass(frozen=True)
class NamedGroup:
    """A communicator as a side file names it: its id or "", its members (ascending), and what it is for."""

    id: str
    members: tuple[int, ...]
    kind: str = ""


def load(path: Path, *, limit_B: int = LIMIT_B) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError where it is none."""
    data = read_bytes(path, limit_B=limit_B)
    try:
        value = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise bad(path, f"not valid JSON ({error.msg})", byte=error.pos) from None
    if not isinstance(value, dict):
        raise bad(path, f"expected an object, got {_what(value)}")
    return value


def _what(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", type(None): "null"}
    return names.get(type(value), f"{value!r:.40}")


def _object(path: Path, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad(path, f"{where}: expected an object, got {_what(value)}")
    return value


def _number(path: Path, table: Mapping[str, Any], key: str, where: str) -> float:
    value = table.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        raise bad(path, f"{where}: {key}: expected a number of 0 or more, got {value!r:.40}")
    return float(value)


def _steps(path: Path, document: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """(step, "collective" or "p2p", its ops)."""
    for step, kinds in document.items():
        for kind, ops in _object(path, kinds, step).items():
            yield step, kind, _object(path, ops, f"{step}: {kind}")


def _named(key: str) -> tuple[str, str]:
    name, _, group = key.partition("@")
    return name, group


def read_communication(path: Path, document: dict[str, Any]) -> tuple[list[CommOp], dict[str, Any]]:
    """Ops of communication.json in order of their start, and counts for people. Raises InputError."""
    ops: list[CommOp] = []
    counts: dict[str, Any] = {"format": "ascend-communication"}
    for step, kind, table in _steps(path, document):
        of_kind: dict[str, int] = {}
        moved: dict[str, float] = {}
        elapsed_ms = 0.0
        for key, entry in table.items():
            if key == TOTAL:
                continue
            where = f"{step}: {kind}: {key}"
            entry = _object(path, entry, where)
            time = _object(path, entry.get("Communication Time Info"), f"{where}: Communication Time Info")
            links = _object(path, entry.get("Communication Bandwidth Info", {}), f"{where}: bandwidth")
            here = {
                name: _number(path, _object(path, link, f"{where}: {name}"), "Transit Size(MB)", f"{where}: {name}")
                for name, link in links.items()
            }
            name, group = _named(key)
            duration_ms = _number(path, time, "Elapse Time(ms)", where)
            ops.append(
                CommOp(
                    step=step,
                    kind=kind,
                    name=name,
                    group=group,
                    start_us=_number(path, time, "Start Timestamp(us)", where),
                    duration_us=duration_ms * 1e3,
                    moved_B=1e6 * _moved_MB(here),
                )
            )
            elapsed_ms += duration_ms
            of_kind[comm_op(name)] = of_kind.get(comm_op(name), 0) + 1
            for link_name, size in here.items():
                if size:
                    moved[link_name] = moved.get(link_name, 0.0) + size
        counts.setdefault(step, {})[kind] = {
            "elapse_ms": round(elapsed_ms, 6),
            "ops": dict(sorted(of_kind.items())),
            "transit_MB": {name: round(size, 6) for name, size in sorted(moved.items())},
        }
    ops.sort(key=lambda op: (op.start_us, op.name))
    return ops, counts


def _moved_MB(links: Mapping[str, float]) -> float:
    """SDMA sums HCCS, PCIE and SIO; older tools may give only the one or the others."""
    return links.get("RDMA", 0.0) + max(links.get("SDMA", 0.0), sum(links.get(name, 0.0) for name in _PARTS))


def read_matrix(path: Path, document: dict[str, Any]) -> tuple[list[LinkTraffic], dict[str, Any]]:
    """Links of communication_matrix.json, the aggregate left out, and counts for people. Raises InputError."""
    links: list[LinkTraffic] = []
    counts: dict[str, Any] = {"format": "ascend-communication_matrix"}
    for step, kind, table in _steps(path, document):
        size_MB: dict[str, float] = {}
        number: dict[str, int] = {}
        for key, entry in table.items():
            where = f"{step}: {kind}: {key}"
            op, group = _named(key)
            for pair, link in _object(path, entry, where).items():
                link = _object(path, link, f"{where}: {pair}")
                transport, size = str(link.get("Transport Type", "")), _number(path, link, "Transit Size(MB)", where)
                found = _LINK.fullmatch(pair)
                if not found or max(int(found[1]), int(found[2])) >= _LARGEST_RANK:
                    raise bad(path, f"{where}: expected a link like 0-1, got {pair!r:.40}")
                size_MB[transport] = size_MB.get(transport, 0.0) + size
                number[transport] = number.get(transport, 0) + 1
                if op != TOTAL:
                    name = str(link.get("Op Name", op if op.startswith("hcom_") else ""))
                    ends = int(found[1]), int(found[2])
                    links.append(LinkTraffic(kind, op, group, *ends, transport=transport, size_B=size * 1e6, name=name))
        counts[f"{step}/{kind}"] = {
            "MB": {name: round(size, 6) for name, size in sorted(size_MB.items())},
            "links": dict(sorted(number.items())),
            "op_keys": len(table),
        }
    return links, counts


def read_rank(path: Path, document: dict[str, Any]) -> int | None:
    """``rank_id`` of profiler_info (a number or a text of one), None where it has none. Raises InputError."""
    value = document.get("rank_id")
    if value is None or value in (-1, "-1", ""):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 8:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST_RANK:
        raise bad(path, f"rank_id: expected a rank, got {value!r:.40}")
    return value


@dataclass(frozen=True)
class Metadata:
    """profiler_metadata.json: rank and size of the job where it says so (None, 0), and the parallel groups."""

    rank: int | None
    world_size: int
    groups: tuple[NamedGroup, ...]


def read_metadata(path: Path, document: dict[str, Any]) -> Metadata:
    """profiler_metadata.json. Raises InputError."""
    args = _object(path, document.get("distributed_args") or {}, "distributed_args")
    world = args.get("world_size", 0)
    if isinstance(world, bool) or not isinstance(world, int) or not 0 <= world < _LARGEST_RANK:
        raise bad(path, f"distributed_args: world_size: expected a number of ranks, got {world!r:.40}")
    groups = []
    for key, entry in _object(path, document.get("parallel_group_info") or {}, "parallel_group_info").items():
        entry = _object(path, entry, f"parallel_group_info: {key}")
        members = _members(path, entry.get("global_ranks"), f"parallel_group_info: {key}: global_ranks")
        groups.append(NamedGroup(id=key, members=members, kind=str(entry.get("group_name", ""))))
    rank = read_rank(path, {"rank_id": args.get("rank")})
    return Metadata(rank=rank, world_size=world, groups=tuple(groups))


def read_groups(path: Path, document: dict[str, Any]) -> tuple[NamedGroup, ...]:
    """Communicators of communication_group.json; those of unknown id have id "". Raises InputError."""
    named = document.get("comm_group_parallel_info") or []
    groups = []
    if not isinstance(named, list):
        raise bad(path, f"comm_group_parallel_info: expected a list, got {_what(named)}")
    for i, entry in enumerate(named):
        where = f"comm_group_parallel_info[{i}]"
        entry = _object(path, entry, where)
        members = _members(path, entry.get("rank_set"), f"{where}: rank_set")
        groups.append(NamedGroup(str(entry.get("group_name", "")), members, str(entry.get("pg_name", ""))))
    lists = document.get("collective") or []
    if not isinstance(lists, list):
        raise bad(path, f"collective: expected a list of lists of ranks, got {_what(lists)}")
    return (*groups, *(NamedGroup("", _members(path, ranks, f"collective[{i}]")) for i, ranks in enumerate(lists)))


def _members(path: Path, ranks: Any, where: str) -> tuple[int, ...]:
    if not isinstance(ranks, list) or not all(type(rank) is int and 0 <= rank < _LARGEST_RANK for rank in ranks):
        raise bad(path, f"{where}: expected a list of ranks, got {ranks!r:.60}")
    if len(set(ranks)) != len(ranks):
        raise bad(path, f"{where}: names a rank twice")
    return tuple(sorted(ranks))


def kind_of(document: Mapping[str, Any]) -> str:
    """Which of the files an object is, by what it holds; "" for none of them.

    >>> kind_of({"collective": [[0, 1]], "p2p": []}), kind_of({"config": {}, "rank_id": 0}), kind_of({"a": 1})
    ('communication_group', 'profiler_info', '')
    """
    if isinstance(document.get("collective"), list) or isinstance(document.get("p2p"), list):
        return "communication_group"
    if any(key in document for key in ("parallel_group_info", "distributed_args", "ENV_VARIABLES")):
        return "profiler_metadata"
    if "config" in document and any(key in document for key in ("rank_id", "start_info", "end_info")):
        return "profiler_info"
    for value in document.values():
        if not isinstance(value, dict):
            return ""
    return _of_ops(document)


def _of_ops(document: Mapping[str, Any]) -> str:
    """Steps and ops of one rank, or groups, steps and ops of all."""
    inner = _down([document])
    prefix = ""
    if not any(str(key).startswith("step") for key in document):
        if not any(str(key).startswith("step") for table in inner for key in table):
            return ""
        prefix, inner = "cluster_", _down(inner)
    elif not all(isinstance(value, dict) and set(value) <= {"p2p", "collective"} for value in document.values()):
        return ""
    entries = inner if prefix else _down(inner)
    for table in entries:
        for entry in table.values():
            if not isinstance(entry, dict):
                return ""
            if prefix:
                entry = next(iter(entry.values()), {})
            if "Communication Time Info" in entry:
                return f"{prefix}communication"
            return f"{prefix}communication_matrix"
    return f"{prefix}communication"


def _down(tables: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [value for table in tables for value in table.values() if isinstance(value, dict)]
