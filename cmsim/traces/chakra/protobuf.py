"""The protobuf form of Chakra traces: messages to columns.

What all producers write is decoded by `wire`, many nodes at once. A node or attribute that is spelt in another
way goes through protobuf itself, which says what is wrong with it or gives it in the usual spelling.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from google.protobuf import unknown_fields
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.reading.bytes_in import bad
from cmsim.traces.chakra import chakra_pb2 as _pb2
from cmsim.traces.chakra import wire
from cmsim.traces.chakra.nodes import ALIAS, DIMS, METADATA, NAMES, NODE_TYPES, REALS, WORDS, NodeColumns, coerce
from cmsim.traces.chakra.wire import BadMessageError, Block, Data, varint

_pb: Any = _pb2
_unknown_fields: Any = unknown_fields.UnknownFieldSet

_FIND = wire.Names(NAMES)
_WANTED = {name.encode() for name in NAMES}
_MISSING: Any = object()
#: an attribute's bytes repeat from node to node (pg_name = "3"): decode each spelling once, up to this many
_CACHE = 100_000
#: fields of the layouts before 2023-10: 11 attr, 12 num_ops, 13 comm_type, 18 comm_size
_OLD_FIELDS = set(range(11, 20))


def is_metadata(message: bytes | memoryview) -> bool:
    """Tell GlobalMetadata (1 and 2 are strings or messages) from Node (1 and 3 are varints)."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        if tag not in (0x0A, 0x12):
            return False
        size, at = varint(message, at)
        at += size
    return at == len(message)


def read_protobuf(path: Path, data: Data) -> tuple[dict[str, Any], NodeColumns]:
    """Metadata and nodes of a file's bytes. Raises InputError with the byte of the first message that is wrong."""
    offsets, wrong = wire.message_offsets(data)
    bounds = offsets if wrong else np.append(offsets, len(data))
    reader, metadata = _Reader(), {}
    if len(bounds) > 1:
        try:
            first = memoryview(data)[varint(data, 0)[1] : int(bounds[1])]
            if is_metadata(first):
                metadata = _metadata(first)
                bounds = bounds[1:]
        except (BadMessageError, DecodeError):
            raise bad(path, "not a Chakra trace: the first message does not parse", byte=0) from None
    for number, block in wire.blocks(data, bounds):
        try:
            reader.read(block, number)
        except BadMessageError as error:
            raise bad(path, str(error), byte=int(bounds[number + error.row])) from None
        if wrong:
            reader = _Reader()  # only a message that is wrong in an earlier place is still of interest
    if wrong:
        raise bad(path, wrong, byte=int(bounds[-1]))
    return metadata, reader.nodes


def _metadata(message: memoryview) -> dict[str, Any]:
    parsed = _pb.GlobalMetadata.FromString(message)
    out: dict[str, Any] = {"version": parsed.version}
    for attr in parsed.attr:
        kind = attr.WhichOneof("value")
        if kind and kind.endswith("_val"):
            out[attr.name] = getattr(attr, kind)
    return out


class _TextCodes(dict[bytes, int]):
    """Number of each text by its bytes. Raises UnicodeDecodeError."""

    def __init__(self, texts: dict[str, int]):
        super().__init__()
        self._known = texts

    def __missing__(self, raw: bytes) -> int:
        if len(self) >= _CACHE:
            self.clear()
        text = raw.decode()
        code = self[raw] = self._known.setdefault(text, len(self._known))
        return code


class _Texts(dict[bytes, str]):
    """Texts by their bytes. Raises UnicodeDecodeError."""

    def __missing__(self, raw: bytes) -> str:
        if len(self) >= _CACHE:
            self.clear()
        text = self[raw] = raw.decode()
        return text


class _Reader:
    """Takes blocks of messages apart into columns."""

    def __init__(self) -> None:
        self.nodes = NodeColumns()
        self._texts = _TextCodes(self.nodes.texts)
        self._spelt: dict[bytes, tuple[str, Any] | None] = {}
        # names of a profiler recur: one text for all of them saves memory. Where they do not, this is given up.
        self._names: _Texts | None = _Texts()

    def read(self, block: Block, first: int, *, again: bool = False) -> None:
        """Add the nodes of a block; ``first`` is the number of its first node. Raises BadMessageError."""
        count, fields = len(block), wire.node_fields(block)
        odd = fields.odd
        columns = {}
        for key, tag in (("id", wire.ID), ("type", wire.TYPE), ("duration", wire.DURATION)):
            columns[key] = np.zeros(count, np.uint64)
            row, value, _ = fields.of(tag)
            columns[key][row] = value  # of two, the last counts
        odd |= (columns["type"] == 0) | (columns["type"] >= len(NODE_TYPES))
        names = _names(block, *fields.spans(wire.NAME), odd, self._names)
        if self._names is not None and len(self._names) > (len(self.nodes) + count) // 2:
            self._names = None
        deps = {
            "ctrl": _dependencies(block, fields, wire.CTRL_DEP, wire.CTRL_DEPS),
            "data": _dependencies(block, fields, wire.DATA_DEP, wire.DATA_DEPS),
        }
        if odd.any():
            # protobuf itself says what is wrong with them, or spells them as everyone does
            assert not again, "a node in protobuf's own spelling was not read"
            rows = np.flatnonzero(odd).tolist()
            self.read(block.respelt({row: _respelt(block, row, first) for row in rows}), first, again=True)
            return
        base = len(self.nodes)
        nodes = self.nodes
        nodes.name.extend(names)
        nodes.fixed("id", columns["id"])
        nodes.fixed("type", columns["type"].astype(np.int8))
        nodes.fixed("duration", columns["duration"])
        for key, (value, number) in deps.items():
            nodes.deps(key, value, number)
        self._attributes(block, base, *fields.spans(wire.ATTR))
        for node in np.flatnonzero(columns["type"] == METADATA).tolist():
            if "process_group:init" in names[node]:
                self._groups(block, node, fields)

    def _attributes(self, block: Block, base: int, row: Ints, start: Ints, end: Ints) -> None:
        code, at = _FIND.find(block, start, end)
        by_code = np.argsort(code, kind="stable")
        bounds = np.searchsorted(code[by_code], np.arange(len(NAMES) + 1)).tolist()
        found: dict[str, list[tuple[Ints, Any]]] = {}
        closer = [(code == wire.UNCLEAR).nonzero()[0]]
        for name, low, high in zip(NAMES, bounds[:-1], bounds[1:], strict=True):
            if low == high:
                continue
            here = by_code[low:high]
            plain, values = self._plain(name, block, at[here], end[here])
            found.setdefault(ALIAS.get(name, name), []).append((here[plain], values))
            if len(values) < len(here):
                closer.append(here[~plain])
        self._look_closer(block, row, start, end, np.sort(np.concatenate(closer)), found)
        for name, parts in found.items():
            for which, values in _in_order(parts):
                self.nodes.put_codes(name, row[which] + base, values)

    def _plain(self, name: str, block: Block, at: Ints, end: Ints) -> tuple[wire.Flags, NDArray[Any]]:
        """Which attributes of a name are spelt plainly, and the values of those."""
        if name in REALS:
            real, plain = wire.real_values(block, at, end)
            return plain, real[plain]
        if name == DIMS:
            return np.zeros(len(at), bool), np.zeros(0, np.int64)
        if name not in WORDS:
            value, plain, _ = wire.whole_values(block, at, end)
            return plain, value[plain]
        first, plain = wire.text_spans(block, at, end)
        if plain.any():
            data, codes = block.data, self._texts
            spans = zip(first[plain].tolist(), end[plain].tolist(), strict=True)
            try:
                return plain, np.array([codes[data[low:high]] for low, high in spans], np.int64)
            except UnicodeDecodeError:
                return np.zeros(len(at), bool), np.zeros(0, np.int64)
        # text that some producers write as a number (stream = 7)
        value, _, integer = wire.whole_values(block, at, end)
        distinct, which = np.unique(value[integer], return_inverse=True)
        known = self.nodes.texts
        numbers = np.array([known.setdefault(str(number), len(known)) for number in distinct.tolist()], np.int64)
        return integer, numbers[which]

    def _look_closer(
        self, block: Block, row: Ints, start: Ints, end: Ints, left: Ints, found: dict[str, list[tuple[Ints, Any]]]
    ) -> None:
        """Attributes one by one, those of them that are spelt alike once; their values are added to ``found``."""
        by_name: dict[str, tuple[list[int], list[Any]]] = {}
        places = zip(left.tolist(), row[left].tolist(), start[left].tolist(), end[left].tolist(), strict=True)
        for which, one, first, last in places:
            raw = block.data[first:last]
            known = self._spelt.get(raw, _MISSING)
            if known is _MISSING:
                if len(self._spelt) >= _CACHE:
                    self._spelt.clear()
                known = self._spelt[raw] = _attribute(raw, one)
            if known is not None:
                indices, values = by_name.setdefault(known[0], ([], []))
                indices.append(which)
                values.append(known[1])
        for name, (indices, values) in by_name.items():
            if name in WORDS:
                texts = self.nodes.texts
                values = [texts.setdefault(text, len(texts)) for text in values]
            found.setdefault(name, []).append((np.array(indices, np.int64), values))

    def _groups(self, block: Block, row: int, fields: wire.Fields) -> None:
        rows, start, end = fields.spans(wire.INPUTS)
        mine = np.flatnonzero(rows == row)
        raw = block.data[int(start[mine[-1]]) : int(end[mine[-1]])] if len(mine) else b""
        try:
            self.nodes.groups.update(_embedded_groups(_pb.IOInfo.FromString(raw).values))
        except BadMessageError as error:
            raise BadMessageError(str(error), row) from None
        except DecodeError:
            raise BadMessageError("broken data: the node's inputs do not parse", row) from None


def _names(block: Block, row: Ints, start: Ints, end: Ints, odd: wire.Flags, known: _Texts | None) -> list[str]:
    """Names by row, the last of a row; rows whose name is no text are marked odd."""
    data, spans = block.data, list(zip(start.tolist(), end.tolist(), strict=True))
    try:
        if known is None:
            texts = [data[first:last].decode() for first, last in spans]
        else:
            texts = [known[data[first:last]] for first, last in spans]
    except UnicodeDecodeError:
        texts = [data[first:last].decode("utf-8", "replace") for first, last in spans]
        for one, (first, last), text in zip(row.tolist(), spans, texts, strict=True):
            odd[one] |= "\ufffd" in text and text.encode() != data[first:last]
    if len(row) == len(block) and bool((np.diff(row) > 0).all()):
        return texts
    out = [""] * len(block)
    for one, text in zip(row.tolist(), texts, strict=True):
        out[one] = text
    return out


def _dependencies(block: Block, fields: wire.Fields, single: int, many: int) -> tuple[NDArray[np.uint64], Ints]:
    """Ids that nodes depend on, and how many each has; packed and unpacked. Broken ones are marked odd."""
    row, start, end = fields.spans(many)
    by_row = np.argsort(row, kind="stable")
    row, start, end = row[by_row], start[by_row], end[by_row]
    value, count, broken = wire.packed(block, start, end)
    fields.odd[row[broken]] = True
    alone, one, _ = fields.of(single)
    if len(alone):
        row, value = np.concatenate([np.repeat(row, count), alone]), np.concatenate([value, one])
        by_row = np.argsort(row, kind="stable")
        return value[by_row], np.bincount(row, minlength=len(block))
    return value, np.bincount(row, weights=count, minlength=len(block)).astype(np.int64)


def _in_order(parts: list[tuple[Ints, Any]]) -> Iterable[tuple[Ints, Any]]:
    """Values of one attribute so that of a node with two the last one comes last."""
    parts = [part for part in parts if len(part[0])]
    if len(parts) < 2:
        return parts
    which = np.concatenate([part[0] for part in parts])
    values = [value for _, part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]
    order = np.argsort(which)
    return [(which[order], [values[i] for i in order.tolist()])]


def _respelt(block: Block, row: int, first: int) -> bytes:
    """A node that is spelt in an unusual way, as protobuf spells it. Raises BadMessageError."""
    number = first + row
    try:
        node = _pb.Node.FromString(block.message(row))
    except DecodeError:
        what = "not a Chakra trace" if not number else "broken data"
        raise BadMessageError(f"{what}: the message does not parse as a Chakra node", row) from None
    if not 0 < node.type < len(NODE_TYPES):
        what = "INVALID" if node.type == 0 else "unknown; layouts before 2023-10 are not read"
        raise BadMessageError(f"node {node.id}: node type {node.type} is {what}", row)
    if (not node.attr or number < 16) and any(f.field_number in _OLD_FIELDS for f in _unknown_fields(node)):
        raise BadMessageError(
            f"node {node.id}: this is a Chakra layout from before 2023-10, which is not read; convert it", row
        )
    node.DiscardUnknownFields()
    spelt: bytes = node.SerializeToString()
    return spelt


def _attribute(raw: bytes, row: int) -> tuple[str, Any] | None:
    """Name and value of an attribute, None for one that replay does not need. Raises BadMessageError."""
    # Most attributes start with their name (field 1): leave the unneeded ones undecoded.
    if len(raw) > 2 and raw[0] == 0x0A and raw[1] < 0x80 and raw[2 : 2 + raw[1]] not in _WANTED:
        return None
    try:
        attr = _pb.AttributeProto.FromString(raw)
    except DecodeError:
        raise BadMessageError("broken data: an attribute of the node does not parse", row) from None
    kind = attr.WhichOneof("value")
    if kind is None:
        return None
    value = getattr(attr, kind)
    try:
        return coerce(attr.name, list(value.values) if kind.endswith("_list") else value)
    except BadMessageError as error:
        raise BadMessageError(str(error), row) from None


def _embedded_groups(text: str) -> dict[str, tuple[int, ...]]:
    """Communicators of a ``process_group:init`` node: a JSON list, inside the Python repr of a list."""
    try:
        value: Any = ast.literal_eval(text)
        while isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
            value = orjson.loads(value[0])
        return {str(group["pg_name"]): tuple(sorted({int(rank) for rank in group["ranks"]})) for group in value}
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError, OverflowError):
        raise BadMessageError("a process_group:init node whose groups cannot be read") from None
