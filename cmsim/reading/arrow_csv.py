"""Columns of a large CSV file through Arrow: the same values as a reader of rows gives, or none at all.

Arrow parses about ten times as fast as Python's `csv`, but takes 34 ms of processor time to import and says of a wrong
value neither its line nor what is allowed. So a file that is not quite plain (a number with a sign in front, bytes that
are no UTF-8, a row that goes over lines, anything that is refused) is left to the reader of rows, which knows.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.reading.parsers import BLANK, NO_TIME, Clock, Label, Parser, Real, Whole

#: size of a file from which Arrow gains more than its import takes: 34 ms, or 20,000 rows of 45 bytes [B]
BY_ARROW_B = 2**20
#: times that are taken apart at once, so that they stay in the cache
_AT_ONCE = 4096
_KNOWN = (Whole, Real, Label, Clock)


def read_columns(
    data: bytes, start: int, header: Sequence[str], parsers: Mapping[str, Parser]
) -> dict[str, NDArray[Any]] | None:
    """Columns by name, or None where the rows have to be read one by one.

    data: of the file    start: of the first row below the header [B]    header: names of all columns, each once
    parsers: of those to read; of these kinds a `Label` serves one column only
    """
    if any(type(one) not in _KNOWN for one in parsers.values()):
        return None
    import pyarrow as pa

    kinds = {Label: pa.dictionary(pa.int32(), pa.string()), Clock: pa.string()}
    types = {name: kinds.get(type(one), pa.float64()) for name, one in parsers.items()}
    try:
        table, _ = _read(data, start, header, types)
        # numbers first: where one is refused, no label and no clock has counted anything
        found = {name: _number(table[name], one) for name, one in parsers.items() if isinstance(one, Whole | Real)}
        for name, one in parsers.items():
            if isinstance(one, Label):
                found[name] = np.concatenate([_words(chunk, one) for chunk in table[name].chunks])
            elif isinstance(one, Clock):
                found[name] = np.concatenate([_times(chunk, one) for chunk in table[name].chunks])
    except ValueError:
        return None
    return {name: found[name] for name in parsers}


def read_texts(
    data: bytes, start: int, header: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, list[str]], Ints] | None:
    """Columns as texts without blanks around them, and the line each row is on, from 0 at ``start``.

    None where the rows have to be read one by one: where a row is shorter or longer than the header, too.
    """
    if not data.isascii() or len(set(header)) < len(header) or not names:
        return None
    import pyarrow as pa

    try:
        table, line = _read(data, start, header, dict.fromkeys(names, pa.dictionary(pa.int32(), pa.string())))
    except ValueError:
        return None
    found = {name: [text for chunk in table[name].chunks for text in _stripped(chunk)] for name in names}
    # what looks blank in these columns may be so in all, which a reader of rows passes over
    return (found, line) if all(map(any, zip(*found.values(), strict=True))) else None


def after_line(data: bytes, count: int) -> int:
    """Where the first ``count`` lines end. [B]"""
    at = 0
    for _ in range(count):
        at = data.find(b"\n", at) + 1 or len(data)
    return at


def _read(data: bytes, start: int, header: Sequence[str], types: Mapping[str, Any]) -> tuple[Any, Ints]:
    """A table of Arrow, and the line of each row, from 0; ValueError where rows are not lines, one for one."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    line = _lines(data, start)
    table = arrow.read_csv(
        pa.py_buffer(memoryview(data)[start:]),
        arrow.ReadOptions(column_names=list(header), use_threads=False),
        convert_options=arrow.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=list(BLANK), strings_can_be_null=False
        ),
    )
    if len(table) != len(line):
        raise ValueError
    return table, line


def _lines(data: bytes, start: int) -> Ints:
    """Numbers of the lines that are not blank, from 0; ValueError where one is too long for a field of `csv`."""
    codes = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(codes[start:] == ord("\n")) + start
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    length = np.diff(ends, prepend=start - 1) - 1
    if len(length) and length.max() > csv.field_size_limit():
        raise ValueError
    bare = (length == 1) & (codes[ends - 1] == ord("\r"))
    return np.flatnonzero(~bare & (length > 0))


def _number(column: Any, parser: Whole | Real) -> NDArray[Any]:
    """A column of Arrow as the parser would have read it; ValueError where it would not."""
    blank = isinstance(parser, Real) and parser.blank
    if column.null_count and not blank:
        raise ValueError
    found: Floats = np.concatenate([_values(chunk, np.float64) for chunk in column.chunks])
    missing = np.concatenate([_missing(chunk) for chunk in column.chunks])
    there = found[~missing]
    # not a number ("NAN") is refused here too, though the parser takes it for nothing
    if len(there) and not (there.min() >= parser.low and there.max() <= parser.high):
        raise ValueError
    if isinstance(parser, Real):
        found[missing] = np.nan
        return found
    if parser.high >= 2**53 or (found != np.floor(found)).any():
        raise ValueError
    return found.astype(np.int64)


def _words(chunk: Any, parser: Label) -> Ints:
    codes: Ints = parser(chunk.dictionary.to_pylist())[_values(chunk.indices, np.int32)]
    return codes


def _stripped(chunk: Any) -> list[str]:
    words = np.array([text.strip() for text in chunk.dictionary.to_pylist()], dtype=object)
    texts: list[str] = words[_values(chunk.indices, np.int32)].tolist()
    return texts


def _times(chunk: Any, parser: Clock) -> Ints:
    _, offsets, texts = chunk.buffers()
    ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    first, size = ends[:-1], np.diff(ends)
    out: Ints = np.full(len(chunk), NO_TIME, np.int64)
    there = np.ones(len(chunk), bool)
    short = np.flatnonzero(size <= max(map(len, BLANK)))
    there[short] = [chunk[row].as_py() not in BLANK for row in short.tolist()]
    if not there.all() and not parser.blank:
        raise ValueError
    codes = np.frombuffer(texts, np.uint8)
    width = np.arange(parser.LONGEST)
    rows = np.flatnonzero(there)
    for part in np.array_split(rows, len(rows) // _AT_ONCE + 1) if len(rows) else ():
        parser.check(size[part])
        at = np.minimum(first[part, None] + width, len(codes) - 1)
        out[part] = parser.of_codes(np.where(width < size[part, None], codes[at], np.uint8(0)), size[part])
    return out


def _values(chunk: Any, kind: type[Any]) -> NDArray[Any]:
    """Numbers of a chunk as they lie in memory; its own ``to_numpy`` imports pandas."""
    whole: NDArray[Any] = np.frombuffer(chunk.buffers()[1], kind)
    return whole[chunk.offset : chunk.offset + len(chunk)]


def _missing(chunk: Any) -> NDArray[np.bool_]:
    bits = chunk.buffers()[0]
    if bits is None:
        return np.zeros(len(chunk), bool)
    there = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[chunk.offset : chunk.offset + len(chunk)]
    missing: NDArray[np.bool_] = there == 0
    return missing
