"""Arrays by what they hold; their shapes and units stand where they are used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


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
