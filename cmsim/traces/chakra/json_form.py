"""The JSON forms of Chakra traces: nodes in a list ``workload_graph``, or what the tool ``jsonizer`` prints.

That tool prints each message of a trace as protobuf's JSON, one object after another: the metadata, then the nodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from cmsim import collector
from cmsim.arrays import Ints
from cmsim.reading.bytes_in import bad
from cmsim.traces.chakra.nodes import MARKS, NAMES, NODE_TYPES, NUMBERS, NodeColumns, coerce, whole
from cmsim.traces.chakra.wire import BadMessageError, Data

_KEYS = {
    "nodetype": "type",
    "node_type": "type",
    "ctrldeps": "ctrl_deps",
    "datadeps": "data_deps",
    "runtime": "duration_micros",
}
#: first bytes by which the form of ``jsonizer`` is told [B]
_SNIFFED_B = 2**16
_NODE_TYPE = re.compile(rb'"type"\s*:\s*"(?:COMP|COMM_COLL|COMM_SEND|COMM_RECV|MEM_LOAD|MEM_STORE|METADATA)_NODE"')
_NEXT = re.compile(rb"\}\s*\{")
_WANTED = {"id", "type", "name", "duration_micros", "ctrl_deps", "data_deps", *NAMES}


def read_json(path: Path, data: Data) -> tuple[dict[str, Any], NodeColumns]:
    """What stands beside the nodes, and the nodes. Raises InputError with the number of the node that is wrong."""
    try:
        with collector.paused():  # a million objects come: looking for cycles takes half of the time
            return _nodes(path, orjson.loads(memoryview(data)))
    except orjson.JSONDecodeError as error:
        if is_jsonized(bytes(memoryview(data)[:_SNIFFED_B])):
            return _nodes(path, _jsonized(path, data))
        raise bad(path, f"not valid JSON ({error.msg})", byte=error.pos) from None


def is_jsonized(start: bytes) -> bool:
    """Whether a text starts with what ``jsonizer`` prints: objects one after another, of which one is a node."""
    return _NODE_TYPE.search(start) is not None and _NEXT.search(start) is not None


def _jsonized(path: Path, data: Data) -> dict[str, Any]:
    """The same trace as an object with ``workload_graph``."""
    text = bytes(memoryview(data)).decode("utf-8", "replace")
    read, at = json.JSONDecoder().raw_decode, _skipped(text, 0)
    found: list[Any] = []
    while at < len(text):
        try:
            one, at = read(text, at)
        except (ValueError, RecursionError) as error:
            raise bad(path, f"not valid JSON ({error!s:.60})", byte=len(text[:at].encode())) from None
        found.append(_plain(one) if isinstance(one, dict) else one)
        at = _skipped(text, at)
    metadata = found.pop(0) if found and isinstance(found[0], dict) and "type" not in found[0] else {}
    return {**metadata, "workload_graph": found}


def _skipped(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _plain(node: dict[str, Any]) -> dict[str, Any]:
    """A node of protobuf's JSON: numbers of 64 bits are texts there, types names, attributes a list."""
    out = dict(node)
    kind = out.get("type")
    if isinstance(kind, str):
        named = kind.removesuffix("_NODE")
        out["type"] = NODE_TYPES.index(named) if named in NODE_TYPES else kind
    for key in ("id", "durationMicros"):
        if key in out:
            out[key] = _number(out[key])
    if "durationMicros" in out:
        out["duration_micros"] = out.pop("durationMicros")
    for key in ("ctrlDeps", "dataDeps"):
        if isinstance(out.get(key), list):
            out[key] = [_number(one) for one in out[key]]
    for one in out.pop("attr", None) or []:
        if isinstance(one, dict) and "name" in one:
            value = next((value for key, value in one.items() if key.endswith(("Val", "List"))), None)
            value = value.get("values", []) if isinstance(value, dict) else value
            out.setdefault(str(one["name"]), _number(value) if "int" in "".join(one).lower() else value)
    return out


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 21 else value


def _nodes(path: Path, document: dict[str, Any]) -> tuple[dict[str, Any], NodeColumns]:
    found = document.get("workload_graph")
    if not isinstance(found, list):
        raise bad(path, "not a Chakra JSON trace: no list named workload_graph")
    nodes = NodeColumns()
    try:
        _add(nodes, found)
    except BadMessageError as error:
        raise bad(path, f"workload_graph[{error.row}]: {error}") from None
    return {key: value for key, value in document.items() if key != "workload_graph"}, nodes


def _add(nodes: NodeColumns, found: list[Any]) -> None:
    """Columns of nodes: keys are looked at once for each combination of them, values key by key."""
    for row, node in enumerate(found):
        if not isinstance(node, dict):
            raise BadMessageError("expected an object", row)
    alike: dict[tuple[str, ...], list[int]] = {}
    for row, node in enumerate(found):
        alike.setdefault(tuple(node), []).append(row)
    columns: dict[str, tuple[list[int], list[Any]]] = {}
    for keys, rows in alike.items():
        # of two spellings of a key in one node the last counts
        spelt = {_KEYS.get(key.lower(), key.lower()): key for key in keys}
        for name, key in spelt.items():
            if name in _WANTED:
                into = columns.setdefault(name, ([], []))
                into[0].extend(rows)
                into[1].extend([found[row][key] for row in rows])
    count = len(found)
    ids = _numbers(columns, "id", count, None)
    kind = _numbers(columns, "type", count, None)
    wrong = np.flatnonzero((kind == 0) | (kind >= len(NODE_TYPES)))
    if len(wrong):
        row = int(wrong[0])
        raise BadMessageError(f"node {ids[row]}: node type {kind[row]} is not known", row)
    nodes.fixed("id", ids)
    nodes.fixed("type", kind)
    nodes.fixed("duration", _numbers(columns, "duration_micros", count, 0))
    names = [""] * count
    for row, name in zip(*columns.get("name", ((), ())), strict=True):
        names[row] = str(name)
    nodes.name.extend(names)
    for key in ("ctrl", "data"):
        nodes.deps(key, *_deps(columns, f"{key}_deps", count))
    for name in NAMES:
        rows_, values = columns.get(name, ([], []))
        if name in MARKS:
            nodes.profiled |= bool(rows_)
        elif rows_:
            given, made = _attribute(name, rows_, values)
            nodes.put(name, given, made)


def _attribute(name: str, rows: list[int], values: list[Any]) -> tuple[Ints, list[Any]]:
    """Rows that have a value for an attribute, and the values."""
    if name in NUMBERS and _plain_numbers(values):
        return np.array(rows, np.int64), values
    given, made = [], []
    for row, value in zip(rows, values, strict=True):
        if value is None:
            continue
        try:
            pair = coerce(name, value)
        except BadMessageError as error:
            raise BadMessageError(str(error), row) from None
        assert pair is not None, "an attribute that is read has a value"
        given.append(row)
        made.append(pair[1])
    return np.array(given, np.int64), made


def _plain_numbers(values: list[Any]) -> bool:
    """Whether all are whole numbers from 0 that fit 64 bits."""
    return {int, bool}.issuperset(map(type, values)) and (not values or (min(values) >= 0 and max(values) < 2**63))


def _numbers(
    columns: Mapping[str, tuple[list[int], list[Any]]], key: str, count: int, default: int | None
) -> NDArray[np.uint64]:
    rows, values = columns.get(key, ([], []))
    if _plain_numbers(values) and (default is not None or len(rows) == count):
        out = np.full(count, default or 0, np.uint64)
        out[rows] = np.array(values, np.uint64)
        return out
    by_row: list[Any] = [default] * count
    for row, value in zip(rows, values, strict=True):
        by_row[row] = value
    for row, value in enumerate(by_row):
        number = whole(value)
        if number is None or not 0 <= number < 2**64:
            raise BadMessageError(f"{key}: expected a whole number from 0, got {value!r:.60}", row)
        by_row[row] = number
    return np.array(by_row, np.uint64)


def _deps(columns: Mapping[str, tuple[list[int], list[Any]]], key: str, count: int) -> tuple[NDArray[np.uint64], Ints]:
    rows, values = columns.get(key, ([], []))
    by_row: list[list[int]] = [[]] * count
    for row, value in zip(rows, values, strict=True):
        by_row[row] = value or []
    if {list}.issuperset(map(type, by_row)):
        flat = list(chain.from_iterable(by_row))
        if {int}.issuperset(map(type, flat)) and _plain_numbers(flat):
            return np.array(flat, np.uint64), np.array(list(map(len, by_row)), np.int64)
    for row, value in enumerate(by_row):
        if not isinstance(value, list) or not all(type(d) is int and 0 <= d < 2**64 for d in value):
            raise BadMessageError(f"{key}: expected a list of node ids", row)
    flat = list(chain.from_iterable(by_row))
    return np.array(flat, np.uint64), np.array(list(map(len, by_row)), np.int64)
