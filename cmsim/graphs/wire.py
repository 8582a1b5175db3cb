"""Where a protobuf file breaks: a walk over its fields, for errors that name byte and place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cmsim.reading.bytes_in import bad

#: field number -> (what to call it, fields inside; None: bytes that are not looked into)
Layout = Mapping[int, tuple[str, "Layout | None"]]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def text(value: str | bytes, path: Path, where: str) -> str:
    """A name as text: protobuf gives bytes where a damaged file has no UTF-8."""
    if isinstance(value, str):
        return value
    raise bad(path, f"{where}: a name is not UTF-8 text ({value[:40]!r}); the file is damaged")


class BrokenError(Exception):
    """A field that does not fit the file."""


def broken_at(data: bytes, layout: Layout) -> str:
    """What is wrong first, and where; "" where the walk finds nothing (the fault lies in a field's text)."""
    try:
        _walk(memoryview(data), 0, len(data), layout, "")
    except BrokenError as error:
        return str(error)
    return ""


def _walk(data: memoryview, at: int, end: int, layout: Layout, where: str) -> None:
    counts: dict[int, int] = {}
    while at < end:
        start = at
        key, at = _varint(data, at, end, where)
        number, kind = key >> 3, key & 7
        name, inner = layout.get(number, ("", None))
        counts[number] = counts.get(number, 0) + 1
        place = f"{where}{name or f'field {number}'} {counts[number]}"
        if number == 0:
            raise BrokenError(f"byte {start}: {where or 'the file '}has a field numbered 0, which none is")
        if kind == _VARINT:
            _, at = _varint(data, at, end, where)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            if at > end:
                raise BrokenError(f"byte {start}: {place} is cut short")
        elif kind == _LENGTH:
            size, at = _varint(data, at, end, where)
            if at + size > end:
                raise BrokenError(f"byte {start}: {place} should be {size} bytes long, {end - at} are left")
            if inner is not None:
                _walk(data, at, at + size, inner, f"{place}, ")
            at += size
        else:
            raise BrokenError(f"byte {start}: {place} is of wire type {kind}, which no such file has")


def _varint(data: memoryview, at: int, end: int, where: str) -> tuple[int, int]:
    value = shift = 0
    start = at
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise BrokenError(f"byte {start}: {where or 'the file '}ends inside a number")
