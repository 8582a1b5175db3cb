"""Arrays by what they hold; their shapes and units stand where they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
#: half as wide, where there is one for each of a million ranks or members of groups
Shorts = NDArray[np.int32]
#: of either width
Numbers = NDArray[np.integer]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Columns = Mapping[str, NDArray[Any]]
#: numbers into a table, and the table
Coded = tuple[Numbers, NDArray[Any]]


def coded(number: Numbers, table: NDArray[Any]) -> Coded:
    """A column as numbers into a table, -1 for its last value, as narrow as they can be.

    >>> number, _ = coded(np.array([0, -1, 0]), np.array([8, 9]))
    >>> number.dtype
    dtype('int8')
    """
    return number.astype(np.min_scalar_type(-max(len(table), 1)), copy=False), table


class Packed(Columns):
    """Columns of one length, those of few different values held as numbers into a table and made when asked for.

    >>> Packed({"kind": coded(np.array([1, 0, 1]), np.array(["host", "compute"], object))})["kind"].tolist()
    ['compute', 'host', 'compute']
    """

    def __init__(self, parts: Mapping[str, NDArray[Any] | Coded]):
        self._parts = dict(parts)

    def __getitem__(self, name: str) -> NDArray[Any]:
        part = self._parts[name]
        return part[1][part[0]] if isinstance(part, tuple) else part

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def part(self, name: str) -> NDArray[Any] | Coded:
        """A column as it is held."""
        return self._parts[name]

    def equal(self, name: str, value: Any) -> Bools:
        """Which rows of a column hold a value: each value of the table is compared once."""
        part = self._parts[name]
        found: Bools = (part[1] == value)[part[0]] if isinstance(part, tuple) else part == value
        return found


def equal(columns: Columns, name: str, value: Any) -> Bools:
    """Which rows of a column hold a value."""
    if isinstance(columns, Packed):
        return columns.equal(name, value)
    found: Bools = columns[name] == value
    return found


def held(columns: Columns, name: str) -> NDArray[Any]:
    """The values that a column may hold, each once where it is packed."""
    part = columns.part(name) if isinstance(columns, Packed) else columns[name]
    return part[1] if isinstance(part, tuple) else part


def length(columns: Columns, name: str) -> int:
    """Rows of a column, which is not made for that."""
    part = columns.part(name) if isinstance(columns, Packed) else columns[name]
    return len(part[0] if isinstance(part, tuple) else part)


def recurred(start: Ints, end: Ints, times: Ints, each: Ints) -> tuple[Ints, Ints, Ints]:
    """Of rows that stand for several stretches, each stretch: its row, where it begins, and where it ends.

    start, end  of the first stretch, and of the last    times  how many there are, all at one distance
    each        how long each is

    >>> recurred(np.array([5]), np.array([27]), np.array([3]), np.array([2]))
    (array([0, 0, 0]), array([ 5, 15, 25]), array([ 7, 17, 27]))
    """
    row = np.repeat(np.arange(len(times)), times)
    turn = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    distance = (end - start - each) // np.maximum(times - 1, 1)
    begins: Ints = start[row] + turn * distance[row]
    return row, begins, begins + each[row]


def spectrum(values: Floats, step_s: float) -> tuple[Floats, Floats]:
    """Frequencies above 0 [Hz], and how far values at even steps of time go up and down at each.

    >>> at = np.arange(1000) * 0.1
    >>> hertz, swings = spectrum(500 + 80 * np.sin(2 * np.pi * 0.5 * at), 0.1)
    >>> float(hertz[np.argmax(swings)]), round(float(swings.max()), 6)
    (0.5, 80.0)
    """
    found = np.fft.rfft(values - values.mean())
    swings: Floats = np.abs(found).astype(np.float64) * (2.0 / len(values))
    hertz = np.arange(len(found)) / (len(values) * step_s)
    return hertz[1:], swings[1:]
