"""Tables of text: rows of small ones by name, large ones as columns, and errors that name file, line and column.

`records` is for what people write and what lies beside a data file: a text for each column, row by row. `read_table` is
for what tools leave: one parser a column, an array each. A large file goes through Arrow where it can (`arrow_csv`).
A small one, and one that Arrow refuses, is parsed a thousand rows at a time, so that never more than these stand in
memory as Python text. What a parser refuses is looked for again value by value, which costs time only where the file is
wrong.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading.arrow_csv import BY_ARROW_B, after_line, read_columns
from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes
from cmsim.reading.parsers import Parser

#: rows that stand in memory as text; these stay in the cache, with 16 times as many reading takes 1.5 times as long
CHUNK = 1024
#: longest line of a table [B]
LINE_LIMIT_B = 2**20
_SHOWN = 40  # characters of a wrong value that an error repeats
_BOM = b"\xef\xbb\xbf"
#: where a column stands in a row, and what reads it
_Place = tuple[int, Parser]


@dataclass(frozen=True)
class TextTable:
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


@dataclass(frozen=True)
class Record(Mapping[str, str]):
    """A row of a small table: texts by column, without blanks around them. line: of the file, where it ends"""

    file: str
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.cells[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    def number(self, name: str) -> float:
        """A cell as a number, NaN where it is none."""
        return number(self.cells[name])

    def problem(self, name: str, message: str) -> Problem:
        return Problem(message, self.file, self.line, name)


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


def number(cell: str) -> float:
    """A cell as a number, NaN where it is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def rows_of(text: str, *, file: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """(line it ends on, cells without blanks around them) of every row with a cell that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(Problem(f"is no CSV ({error})", file, reader.line_num)) from None


def records(
    text: str, *, file: str, needed: Collection[str] = (), known: Collection[str] | None = None, delimiter: str = ","
) -> list[Record]:
    """Rows of a small table with a header, in the file's order.

    file: names it in errors    needed: columns that must be there    known: those that may be, None: any

    Raises InputError where a column is missing, unknown or there twice, or rows are shorter or longer than the header.
    """
    rows = rows_of(text, file=file, delimiter=delimiter)
    _, header = next(rows, (1, []))
    problems = [Problem(message, file, 1) for message in _of_header(header, needed, known)]
    found = []
    for line, cells in rows if not problems else ():
        if len(cells) != len(header):
            problems.append(_wrong_width(file, line, len(cells), header))
        else:
            found.append(Record(file, line, dict(zip(header, cells, strict=True))))
    if problems:
        raise InputError(problems[:20])
    return found


def read_records(path: Path, *, needed: Collection[str] = (), known: Collection[str] | None = None) -> list[Record]:
    """`records` of a file in UTF-8, which may be zipped; ``.tsv`` has tabs. Raises InputError."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad(path, f"is not UTF-8 text (byte {error.start})") from None
    delimiter = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    return records(text, file=str(path), needed=needed, known=known, delimiter=delimiter)


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
) -> TextTable:
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
        start = after_line(data, rows.line) if named else len(_BOM) * data.startswith(_BOM)
        found = read_columns(data, start, header, {name: parser for name, (_, parser) in wanted.items()})
    if found is None:
        found = _by_rows(path, data, rows, header, wanted, named=named)
    done = len(next(iter(found.values()), ()))
    if not done:
        raise bad(path, "has no rows" if first else "has no text")
    return TextTable(
        path=path,
        header=header,
        unused=tuple(name for name in header if name not in wanted and name not in known),
        columns=found,
        rows=done,
        _data=data,
        _named=named,
    )


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
    problems = _of_header(header, columns)
    if problems:
        raise InputError(Problem(problem, str(path), 1) for problem in problems[:20])
    both = {**columns, **optional}
    return {name: (header.index(name), parser) for name, parser in both.items() if name in header}


def _of_header(header: Sequence[str], needed: Collection[str], known: Collection[str] | None = None) -> list[str]:
    """What is wrong with a header."""
    problems = [f"no column '{name}'. {did_you_mean(name, header[:100])}" for name in needed if name not in header]
    problems += [f"column '{name}' stands {many} times" for name, many in Counter(header).items() if many > 1]
    if known is not None:
        problems += [f"unknown column '{name}'. {did_you_mean(name, known)}" for name in header if name not in known]
    return problems


def _wrong_width(file: str, line: int, got: int, header: Sequence[str]) -> Problem:
    return Problem(f"got {got} fields, allowed: {len(header)} ({', '.join(header)[:200]})", file, line)


def _first_wrong(
    path: Path,
    rows: _Rows,
    header: tuple[str, ...],
    wanted: Mapping[str, _Place],
) -> InputError:
    while taken := rows.take(1):
        (row,), line = taken, rows.line
        if len(row) != len(header):
            return InputError(_wrong_width(str(path), line, len(row), header))
        for name, (index, parser) in wanted.items():
            try:
                parser([row[index]])
            except ValueError:
                return _refused(path, line, name, row[index], parser.allowed)
    raise AssertionError("a column was refused, none of its values is")
