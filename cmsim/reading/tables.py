"""Rows of CSV text as columns: one parser a column, and an error that names the line.

A large file goes through Arrow where it can (`arrow_csv`). A small one, and one that Arrow refuses, is parsed a
thousand rows at a time, so that never more than these stand in memory as Python text. What a parser refuses is looked
for again value by value, which costs time only where the file is wrong.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading.arrow_csv import read_columns
from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes
from cmsim.reading.parsers import Parser

#: rows that stand in memory as text; these stay in the cache, with 16 times as many reading takes 1.5 times as long
CHUNK = 1024
#: size of a file from which Arrow gains more than its import takes: 34 ms, or 20,000 rows of 45 bytes [B]
BY_ARROW_B = 2**20
#: longest line of a table [B]
LINE_LIMIT_B = 2**20
_SHOWN = 40  # characters of a wrong value that an error repeats
_BOM = b"\xef\xbb\xbf"
#: where a column stands in a row, and what reads it
_Place = tuple[int, Parser]


@dataclass(frozen=True)
class Table:
    """A CSV file as columns by name; optional columns that are not there are missing.

    unused  names in the header that nobody knows
    """

    path: Path
    header: tuple[str, ...]
    unused: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    rows: int
    _data: bytes = field(repr=False)
    _named: bool = True

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def get(self, name: str) -> NDArray[Any] | None:
        return self.columns.get(name)

    def text(self, row: int, name: str) -> str:
        """A value as the file spells it."""
        return self._row(row)[1][self.header.index(name)]

    def refuse(self, wrong: NDArray[np.bool_], name: str, allowed: str) -> None:
        """InputError where values are wrong because of other columns or rows, naming the first of them."""
        if wrong.any():
            line, texts = self._row(int(wrong.argmax()))
            raise _refused(self.path, line, name, texts[self.header.index(name)], allowed)

    def notes(self) -> list[str]:
        more = f" and {len(self.unused) - 12} more" if len(self.unused) > 12 else ""
        return [f"columns not used: {', '.join(self.unused[:12])}{more}"] if self.unused else []

    def _row(self, row: int) -> tuple[int, list[str]]:
        rows = _Rows(self.path, self._data)
        rows.skip(row + self._named)
        (texts,) = rows.take(1)
        return rows.line, texts


def _refused(path: Path, line: int, name: str, value: str, allowed: str) -> InputError:
    shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} characters)"
    return InputError(Problem(f"got {shown!r}; allowed: {allowed}", str(path), line, f"column '{name}'"))


class _Rows:
    """Rows of a CSV file that are not blank. Bytes that are no UTF-8 become the replacement mark."""

    def __init__(self, path: Path, data: bytes):
        # BytesIO shares the memory of the bytes, and the wrapper decodes a little at a time
        self._reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", errors="replace", newline=""))
        self._path = path

    @property
    def line(self) -> int:
        """The line on which the last row ended."""
        return self._reader.line_num

    def take(self, most: int) -> list[list[str]]:
        """The next rows; [] at the end. InputError where they are no CSV."""
        try:
            while rows := list(itertools.islice(self._reader, most)):
                if all(rows) or (rows := list(filter(None, rows))):
                    return rows
        except csv.Error as error:
            raise InputError(Problem(f"is no CSV ({error})", str(self._path), self.line)) from None
        return []

    def skip(self, count: int) -> None:
        while count > 0:
            taken = len(self.take(min(count, CHUNK)))
            assert taken, "rows that were there before"
            count -= taken


def check_lines(path: Path, data: bytes, limit_B: int) -> None:
    """InputError where a line is longer than ``limit_B``: what reads lines takes several times a line in memory."""
    at = 0
    while len(data) - at > limit_B:
        end = data.rfind(b"\n", at, at + limit_B + 1)
        if end < 0:
            line = data.count(b"\n", 0, at) + 1
            raise InputError(Problem(f"a line of more than {limit_B} bytes; allowed: up to that", str(path), line))
        at = end + 1


def header_names(start: bytes) -> tuple[str, ...]:
    """Fields of the first line of a CSV file, for sniffing.

    >>> header_names(b'a,"b c"\\r\\n1,2')
    ('a', 'b c')
    """
    line = start.partition(b"\n")[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    try:
        return tuple(name.strip() for name in next(csv.reader([line]), []))
    except csv.Error:
        return ()


def read_table(
    path: Path,
    columns: Mapping[str, Parser],
    *,
    optional: Mapping[str, Parser] | None = None,
    known: Collection[str] = (),
    names: Sequence[str] = (),
    limit_B: int = LIMIT_B,
) -> Table:
    """A CSV file, its columns in any order.

    columns   parsers of the columns that must be there, by name
    optional  parsers of those that may be there
    known     columns that may be there too and are not read
    names     of the columns of a file without a header; a first row that says just them is a header

    Raises InputError naming file, line and column.
    """
    data = read_bytes(path, limit_B=limit_B)
    check_lines(path, data, LINE_LIMIT_B)
    rows = _Rows(path, data)
    first = next(iter(rows.take(1)), [])
    header = tuple(name.strip() for name in first)
    named = not names or header == tuple(names)
    if not named:
        header, rows = tuple(names), _Rows(path, data)
    wanted = _wanted(path, header, columns, optional or {})
    found = None
    if len(data) >= BY_ARROW_B:
        start = _end_of_line(data, rows.line) if named else len(_BOM) * data.startswith(_BOM)
        found = read_columns(data, start, header, {name: parser for name, (_, parser) in wanted.items()})
    if found is None:
        found = _by_rows(path, data, rows, header, wanted, named=named)
    done = len(next(iter(found.values()), ()))
    if not done:
        raise bad(path, "has no rows" if first else "has no text")
    return Table(
        path=path,
        header=header,
        unused=tuple(name for name in header if name not in wanted and name not in known),
        columns=found,
        rows=done,
        _data=data,
        _named=named,
    )


def _end_of_line(data: bytes, line: int) -> int:
    """Where the line after this one starts; lines count from 1. [B]"""
    at = 0
    for _ in range(line):
        at = data.find(b"\n", at) + 1 or len(data)
    return at


def _by_rows(
    path: Path, data: bytes, rows: _Rows, header: tuple[str, ...], wanted: Mapping[str, _Place], *, named: bool
) -> dict[str, NDArray[Any]]:
    """Columns by name, from a reader that stands at the first row. Raises InputError for the first that is wrong."""
    width = len(header)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in wanted}
    done = 0
    while texts := rows.take(CHUNK):
        try:
            if set(map(len, texts)) != {width}:
                raise ValueError
            for name, (index, parser) in wanted.items():
                parts[name].append(parser([row[index] for row in texts]))
        except ValueError:
            again = _Rows(path, data)
            again.skip(done + named)
            raise _first_wrong(path, again, header, wanted) from None
        done += len(texts)
    return {name: np.concatenate(part) for name, part in parts.items() if part}


def _wanted(
    path: Path, header: tuple[str, ...], columns: Mapping[str, Parser], optional: Mapping[str, Parser]
) -> dict[str, _Place]:
    """Place and parser of the columns to read, by name."""
    problems = [f"no column '{name}'. {did_you_mean(name, header[:100])}" for name in columns if name not in header]
    problems += [f"column '{name}' stands {many} times" for name, many in Counter(header).items() if many > 1]
    if problems:
        raise InputError(Problem(problem, str(path), 1) for problem in problems[:20])
    both = {**columns, **optional}
    return {name: (header.index(name), parser) for name, parser in both.items() if name in header}


def _first_wrong(
    path: Path,
    rows: _Rows,
    header: tuple[str, ...],
    wanted: Mapping[str, _Place],
) -> InputError:
    while taken := rows.take(1):
        (row,), line = taken, rows.line
        if len(row) != len(header):
            return InputError(
                Problem(f"got {len(row)} fields, allowed: {len(header)} ({', '.join(header)[:200]})", str(path), line)
            )
        for name, (index, parser) in wanted.items():
            try:
                parser([row[index]])
            except ValueError:
                return _refused(path, line, name, row[index], parser.allowed)
    raise AssertionError("a column was refused, none of its values is")
