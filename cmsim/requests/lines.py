"""JSON lines as columns: one object a line, one parser a key, and an error that names the line."""

from __future__ import annotations

import io
import itertools
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem
from cmsim.reading.bytes_in import LIMIT_B, bad, head, read_bytes
from cmsim.reading.parsers import Label, Parser
from cmsim.reading.tables import check_lines

#: longest line; a prompt of a million token ids takes half of it [B]
LINE_LIMIT_B = 16 * 2**20
#: objects that stand in memory as Python objects
CHUNK = 1024
#: what `WholeValue` gives for a value that is not there
NO_VALUE = np.iinfo(np.int64).min
_KEY = re.compile(rb'"([^"\\]{1,64})"\s*:')


@dataclass(frozen=True)
class WholeValue(Parser):
    """Whole numbers from ``low`` to ``high``; 12.0 counts as 12. With ``blank`` also nothing: `NO_VALUE`."""

    low: int = 0
    high: int = 10**9
    blank: bool = False

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}{', or nothing' if self.blank else ''}"

    def __call__(self, values: Sequence[Any]) -> Ints:
        if set(map(type, values)) == {int} and min(values) >= self.low and max(values) <= self.high:
            return np.array(values, np.int64)
        return np.array([self._one(value) for value in values], np.int64)

    def _one(self, value: Any) -> int:
        if value is None and self.blank:
            return NO_VALUE
        # a bool is an int to Python and a mistake here
        if type(value) not in (int, float) or not self.low <= value <= self.high or value != int(value):
            raise ValueError
        return int(value)


@dataclass(frozen=True)
class RealValue(Parser):
    """Numbers from ``low`` to ``high``."""

    low: float = 0.0
    high: float = 1e15

    @property
    def allowed(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    def __call__(self, values: Sequence[Any]) -> Floats:
        if not set(map(type, values)) <= {int, float} or not (min(values) >= self.low and max(values) <= self.high):
            raise ValueError
        return np.array(values, np.float64)


class LabelValue(Label):
    """Words as codes in order of first use; -1 where there is none."""

    def __call__(self, values: Sequence[Any]) -> Ints:
        if not set(map(type, values)) <= {str, type(None)}:
            raise ValueError
        return super().__call__([value or "" for value in values])


@dataclass(frozen=True)
class Lines:
    """Columns by key, one row an object.

    line   of each object in the file, from 1
    keys   of all objects, sorted
    lists  by key: numbers of all objects' lists in one column, and how many each object has (-1: no list)
    """

    path: Path
    line: Ints
    keys: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    lists: Mapping[str, tuple[Ints, Ints]]

    def __len__(self) -> int:
        return len(self.line)

    def __getitem__(self, key: str) -> NDArray[Any]:
        return self.columns[key]

    def wrong(self, row: int, key: str, message: str) -> InputError:
        """The error for a value that the other keys of its object forbid."""
        return InputError(Problem(message, str(self.path), int(self.line[row]), f"'{key}'"))


def first_keys(start: bytes, path: Path) -> frozenset[str]:
    """Keys of the first object, for sniffing; empty where the file is no JSON lines."""
    if not start.lstrip().startswith(b"{"):
        return frozenset()
    if b"\n" not in start.lstrip() and len(start) < 2**20:  # one prompt's token ids can be longer than what was sniffed
        start = head(path, 2**20) or start
    line = start.lstrip().partition(b"\n")[0]
    try:
        return frozenset(orjson.loads(line))
    except orjson.JSONDecodeError:
        return frozenset(match.decode("utf-8", errors="replace") for match in _KEY.findall(line))


def read_lines(
    path: Path,
    columns: Mapping[str, Parser],
    *,
    lists: Sequence[str] = (),
    counted: Sequence[str] = (),
    limit_B: int = LIMIT_B,
) -> Lines:
    """A file of JSON objects, one a line; blank lines are passed over.

    columns  parsers by key; they get None where an object does not have the key
    lists    keys of lists of whole numbers, which an object may have or not
    counted  keys of such lists of which only the length is kept

    Raises InputError naming file, line and key.
    """
    data = read_bytes(path, limit_B=limit_B)
    check_lines(path, data, LINE_LIMIT_B)
    objects = _objects(path, data)
    line = array("q")
    seen: set[str] = set()
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in columns}
    numbers = {key: array("q") for key in lists}
    sizes = {key: array("q") for key in (*lists, *counted)}
    while True:
        rows: list[dict[str, Any]] = []
        for number, row in itertools.islice(objects, CHUNK):
            line.append(number)
            seen.update(row)
            for key, size in sizes.items():
                found = row.pop(key, None)  # a list is not to stay in memory with its chunk
                size.append(-1 if found is None else _extend(numbers.get(key), found, path, number, key))
            rows.append(row)
        if not rows:
            break
        for key, parser in columns.items():
            values = [row.get(key) for row in rows]
            try:
                parts[key].append(parser(values))
            except ValueError:
                raise _first_wrong(path, key, zip(line[-len(rows) :], values, strict=True), parser) from None
    if not line:
        raise bad(path, "has no lines")
    none = np.empty(0, np.int64)
    return Lines(
        path=path,
        line=np.array(line, np.int64),
        keys=tuple(sorted(seen)),
        columns={key: np.concatenate(part) for key, part in parts.items()},
        lists={
            key: (np.array(numbers[key], np.int64) if key in numbers else none, np.array(sizes[key], np.int64))
            for key in sizes
        },
    )


def _objects(path: Path, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in enumerate(io.BytesIO(data), 1):
        if not text.strip():
            continue
        try:
            row = _object(text)
        except ValueError as error:
            raise InputError(Problem(str(error), str(path), number)) from None
        yield number, row


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is no JSON, or cut short ({error})") from None
    if type(found) is not dict:
        raise ValueError(f"got a {type(found).__name__}; allowed: one JSON object a line")
    return found


def _extend(numbers: array[int] | None, found: Any, path: Path, line: int, key: str) -> int:
    """Append a list of whole numbers to a column, if there is one, and say how long it is."""
    if type(found) is list and set(map(type, found)) <= {int}:
        try:
            if numbers is not None:
                numbers.extend(found)
            return len(found)
        except OverflowError:
            pass
    raise InputError(Problem("allowed: a list of whole numbers below 2^63", str(path), line, f"'{key}'"))


def _first_wrong(path: Path, key: str, numbered: Iterator[tuple[int, Any]], parser: Parser) -> InputError:
    for line, value in numbered:
        try:
            parser([value])
        except ValueError:
            got = "nothing" if value is None else repr(value)[:40]
            return InputError(Problem(f"got {got}; allowed: {parser.allowed}", str(path), line, f"'{key}'"))
    raise AssertionError("a column was refused, none of its values is")
