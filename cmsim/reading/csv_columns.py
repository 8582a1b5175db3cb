"""Rows of CSV text as columns: one parser a column, and an error that names the line.

A file is parsed a thousand rows at a time, so that never more than these stand in memory as Python text. What a
parser refuses is looked for again value by value, which costs time only where the file is wrong.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes

#: rows that stand in memory as text; these stay in the cache, with 16 times as many reading takes 1.5 times as long
CHUNK = 1024
#: longest line of a table [B]
LINE_LIMIT_B = 2**20
#: how tools write a value that is not there
BLANK = ("", "nan", "NaN", "NaT", "None", "null")
#: what `Clock` gives for a time that is not there
NO_TIME = np.iinfo(np.int64).min
_SHOWN = 40  # characters of a wrong value that an error repeats


class Parser(Protocol):
    """Values of a column as they are read, as an array of the same length; ValueError where one is not allowed."""

    @property
    def allowed(self) -> str:
        """What the column may hold, to end an error message."""
        ...

    def __call__(self, values: Sequence[Any]) -> NDArray[Any]: ...


def _plain(values: Sequence[str]) -> None:
    """Python reads '1_000' and digits of other scripts as numbers; a trace does not write them."""
    text = "".join(values)
    if "_" in text or not text.isascii():
        raise ValueError


@dataclass(frozen=True)
class Whole(Parser):
    """Whole numbers from ``low`` to ``high``; '12.0' counts as 12."""

    low: int = 0
    high: int = 10**9

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def __call__(self, values: Sequence[str]) -> Ints:
        _plain(values)
        try:
            found = np.fromiter(map(int, values), np.int64, len(values))
        except OverflowError:
            raise ValueError from None
        except ValueError:
            real = np.fromiter(map(float, values), np.float64, len(values))
            if not (np.abs(real) < 2**53).all() or (real != np.floor(real)).any():
                raise ValueError from None
            found = real.astype(np.int64)
        if len(found) and (found.min() < self.low or found.max() > self.high):
            raise ValueError
        return found


@dataclass(frozen=True)
class Real(Parser):
    """Numbers from ``low`` to ``high``; with ``blank`` also none at all, which is NaN."""

    low: float = 0.0
    high: float = 1e15
    blank: bool = False

    @property
    def allowed(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}{', or nothing' if self.blank else ''}"

    def __call__(self, values: Sequence[str]) -> Floats:
        _plain(values)
        if self.blank:
            values = ["nan" if value in BLANK else value for value in values]
        found = np.fromiter(map(float, values), np.float64, len(values))
        inside = (found >= self.low) & (found <= self.high)
        if not (inside | np.isnan(found) if self.blank else inside).all():
            raise ValueError
        return found


@dataclass(frozen=True)
class Label(Parser):
    """Words as codes in order of first use; -1 where there is none. ``names`` has the words met so far."""

    _known: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BLANK, -1))

    @property
    def allowed(self) -> str:
        return "any text"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(itertools.islice(self._known, len(BLANK), None))

    def counts(self, codes: Ints) -> dict[str, int]:
        """How often each word occurs, "" for none, by word."""
        many = np.bincount(codes + 1, minlength=len(self.names) + 1).tolist()
        return {name: count for name, count in sorted(zip(("", *self.names), many, strict=True)) if count}

    def __call__(self, values: Sequence[str]) -> Ints:
        known = self._known
        for value in dict.fromkeys(values):
            known.setdefault(value, len(known) - len(BLANK))
        return np.fromiter(map(known.__getitem__, values), np.int64, len(values))


@dataclass
class Clock(Parser):
    """Dates with time as nanoseconds since 1970 UTC: 'YYYY-MM-DD HH:MM:SS[.up to nine digits][Z or +HH:MM]'.

    blank  a time may be missing: `NO_TIME`
    zoned, local  how many said their zone and how many did not (taken as UTC)
    """

    blank: bool = False
    zoned: int = 0
    local: int = 0

    @property
    def allowed(self) -> str:
        return f"YYYY-MM-DD HH:MM:SS[.fraction][+HH:MM]{', or nothing' if self.blank else ''}"

    def __call__(self, values: Sequence[str]) -> Ints:
        out = np.full(len(values), NO_TIME, np.int64)
        there = np.array([value not in BLANK for value in values], bool)
        if not there.all():
            if not self.blank:
                raise ValueError
            values = list(itertools.compress(values, there))
        if not values:
            return out
        size = np.fromiter(map(len, values), np.int64, len(values))
        if size.min() < 19 or size.max() > 35:
            raise ValueError
        raw = np.array(values, "S35").view(np.uint8).reshape(len(values), 35).astype(np.int64)
        # a zone is cut off first, so that what is left of one length has one layout
        offset_ns = np.zeros(len(values), np.int64)
        sign = raw[np.arange(len(values)), size - 6]
        far = np.flatnonzero((size >= 25) & ((sign == ord("+")) | (sign == ord("-"))))
        zone = raw[far[:, None], size[far, None] - 6 + np.arange(6)]
        if (zone[:, 3] != ord(":")).any():
            raise ValueError
        hour, minute = _number(zone[:, 1:3]), _number(zone[:, 4:6])
        if (hour > 23).any() or (minute > 59).any():
            raise ValueError
        offset_ns[far] = np.where(zone[:, 0] == ord("+"), 1, -1) * (hour * 60 + minute) * (60 * 10**9)
        zulu = raw[np.arange(len(values)), size - 1] == ord("Z")
        body = size.copy()
        body[far] -= 6
        body[zulu] -= 1
        found = np.empty(len(values), np.int64)
        for length in np.unique(body):
            rows = np.flatnonzero(body == length)
            found[rows] = _date_ns(raw[rows, :length])
        out[there] = found - offset_ns
        self.zoned += len(far) + int(zulu.sum())
        self.local += len(values) - len(far) - int(zulu.sum())
        return out

    def notes(self) -> list[str]:
        if not (self.zoned and self.local):
            return []
        return [f"{self.local} of {self.zoned + self.local} times do not say their zone: taken as UTC"]


def _number(digits: Ints) -> Ints:
    """Numbers from ASCII digits, one row each."""
    value = digits - ord("0")
    if ((value < 0) | (value > 9)).any():
        raise ValueError
    return np.asarray(value @ 10 ** np.arange(digits.shape[1] - 1, -1, -1), np.int64)


def _date_ns(text: Ints) -> Ints:
    """Nanoseconds since 1970 of dates of one length, as ASCII codes, one row each."""
    length = text.shape[1]
    if length == 20 or length > 29:
        raise ValueError
    marks = text[:, [4, 7, 13, 16]]
    split = text[:, 10]
    if (marks != [ord("-"), ord("-"), ord(":"), ord(":")]).any() or not np.isin(split, (ord(" "), ord("T"))).all():
        raise ValueError
    year, month, day = _number(text[:, 0:4]), _number(text[:, 5:7]), _number(text[:, 8:10])
    hour, minute, second = _number(text[:, 11:13]), _number(text[:, 14:16]), _number(text[:, 17:19])
    inside = (year >= 1970) & (year <= 2261) & (month >= 1) & (month <= 12) & (day >= 1)
    if not (inside & (hour < 24) & (minute < 60) & (second < 60)).all():
        raise ValueError
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    if (days.astype("datetime64[M]") != months).any():
        raise ValueError
    ns = ((days.astype(np.int64) * 24 + hour) * 60 + minute) * (60 * 10**9) + second * 10**9
    if length > 19:
        if (text[:, 19] != ord(".")).any():
            raise ValueError
        ns += _number(text[:, 20:]) * 10 ** (29 - length)
    return np.asarray(ns, np.int64)


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
    if not done:
        raise bad(path, "has no rows" if first else "has no text")
    return Table(
        path=path,
        header=header,
        unused=tuple(name for name in header if name not in wanted and name not in known),
        columns={name: np.concatenate(part) for name, part in parts.items()},
        rows=done,
        _data=data,
        _named=named,
    )


def _wanted(
    path: Path, header: tuple[str, ...], columns: Mapping[str, Parser], optional: Mapping[str, Parser]
) -> dict[str, tuple[int, Parser]]:
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
    wanted: Mapping[str, tuple[int, Parser]],
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


def seconds(*times_ns: Ints) -> tuple[Floats, ...]:
    """Columns of `Clock` in seconds since the earliest time of the first one, NaN for `NO_TIME`. [s]"""
    known = times_ns[0][times_ns[0] != NO_TIME]
    zero = known.min() if len(known) else np.int64(0)
    # a difference of whole nanoseconds has no rounding; one of seconds since 1970 would have
    return tuple(np.where(time == NO_TIME, np.nan, (time - zero * (time != NO_TIME)) / 1e9) for time in times_ns)
