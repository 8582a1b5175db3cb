"""Numbers for what is equal, at a million ranks: columns, rows and multisets, numbered without sorting where possible.

Numbers go by value, as those of `np.unique`, which sorts: here a column whose values lie close together is numbered
through a table of what occurs. Results are the same; a million ranks take a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmsim.arrays import Ints, Numbers, Shorts

#: a table of what occurs may be this many times as long as the column
_SPARSE = 4
#: rows up to this long are numbered column by column, longer ones byte by byte: there are few of them
_SHORT = 64
#: digits of a sort by digits: those of this type are counted, not compared
_DIGIT = np.uint16
_DIGIT_BITS = 16
_MOST = np.iinfo(np.int32).max


def dense(column: Numbers) -> tuple[Shorts, int]:
    """Numbers of the distinct values in order, from 0, and how many there are.

    >>> number, count = dense(np.array([7, 5, 7, 9]))
    >>> number.tolist(), count
    ([1, 0, 1, 2], 3)
    """
    if not len(column):
        return np.zeros(0, np.int32), 0
    low, high = int(column.min()), int(column.max())
    span = high - low + 1
    if span > _SPARSE * len(column) + 1024:
        values, inverse = np.unique(column, return_inverse=True)
        return inverse.astype(np.int32), len(values)
    at = column if low == 0 else column - low
    occurs = np.zeros(span, bool)
    occurs[at] = True
    number: Shorts = np.cumsum(occurs, dtype=np.int32)
    number -= 1
    return number[at], int(number[-1]) + 1


def distinct(column: Numbers) -> Ints:
    """The distinct values in order.

    >>> distinct(np.array([7, 5, 7, 9]))
    array([5, 7, 9])
    """
    code, used = dense(column)
    values = np.empty(used, np.int64)
    values[code] = column
    return values


def joined(columns: Sequence[Numbers]) -> Shorts:
    """One number per distinct row of the columns, in the order of the rows.

    >>> joined([np.array([1, 0, 1]), np.array([3, 5, 2])]).tolist()
    [2, 0, 1]
    """
    code, used = dense(columns[0])
    for column in columns[1:]:
        part, more = dense(column)
        if more > 1:
            wide: Numbers = code if used * more <= _MOST else code.astype(np.int64)
            wide *= more
            wide += part
            code, used = dense(wide)
    return code


def sorting(keys: Numbers) -> Shorts:
    """What sorts numbers from 0 up, equal ones in the order they stand in: as a stable argsort, digit by digit.

    >>> sorting(np.array([2, 70000, 2, 1])).tolist()
    [3, 0, 2, 1]
    """
    order = np.argsort(keys.astype(_DIGIT), kind="stable").astype(np.int32)
    for shift in range(_DIGIT_BITS, int(keys.max(initial=0)).bit_length(), _DIGIT_BITS):
        order = order[np.argsort((keys[order] >> shift).astype(_DIGIT), kind="stable")]
    return order


def run_lengths(*columns: Numbers) -> Shorts:
    """For each row how many rows of the same values stand together with it.

    >>> run_lengths(np.array([4, 4, 4, 1]), np.array([0, 0, 2, 2])).tolist()
    [2, 2, 1, 1]
    """
    begins = np.ones(len(columns[0]), bool)
    begins[1:] = False
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    start = np.append(np.flatnonzero(begins), len(begins)).astype(np.int32)
    length: Shorts = start[1:] - start[:-1]
    return np.repeat(length, length)


def multisets(size: Ints, colour: Numbers) -> Ints:
    """A number per container from the sorted colours of what it holds, from 1; containers that hold nothing get 0.

    size    of each container    colour  of what they hold, container after container

    Containers of one size are compared as rows of a matrix, so nothing is hashed. Numbers go by size, then by the bytes
    of the sorted colours.
    """
    out = np.zeros(len(size), np.int64)
    used = 1
    lengths = np.flatnonzero(np.bincount(size)).tolist()
    for length in lengths:
        if not length:
            continue
        which = size == length
        held = colour if which.all() else colour[np.repeat(which, size)]
        code, number = _rows(_sorted(held.reshape(-1, length)))
        out[which] = code + used
        used += number
    return out


def _sorted(rows: Numbers) -> Numbers:
    return rows if (rows[:, 1:] >= rows[:, :-1]).all() else np.sort(rows, axis=1)


def _rows(rows: Numbers) -> tuple[Numbers, int]:
    """Numbers of the distinct rows, in the order of their bytes, or values where rows are of one; and how many."""
    if rows.shape[1] == 1:
        return dense(rows[:, 0])
    if rows.shape[1] > _SHORT:
        return _by_bytes(rows)
    code = joined(list(rows.T))
    # of each distinct row the last that is equal: any will do
    one = np.empty(int(code.max()) + 1, np.int64)
    one[code] = np.arange(len(code))
    number, count = _by_bytes(rows[one])
    return number[code], count


def _by_bytes(rows: Numbers) -> tuple[Ints, int]:
    rows = np.ascontiguousarray(rows, np.int64)
    packed = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    values, number = np.unique(packed, return_inverse=True)
    return number, len(values)
