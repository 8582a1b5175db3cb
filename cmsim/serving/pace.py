"""How many sequences the fullest holder of a replica has, and how many cached tokens: what sets the pace of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from cmsim.serving.holder import Holder

#: holders from which on columns are quicker than a look at each
_MANY = 16


class Pace(Protocol):
    """Told of holders that changed."""

    def of(self, changed: Iterable[Holder], step: int) -> tuple[int, int]:
        """(sequences, their cached tokens in the mean) at a step; 0 tokens where there are none."""
        ...


class _Few:
    def __init__(self, holders: Sequence[Holder]):
        self._holders = holders

    def of(self, changed: Iterable[Holder], step: int) -> tuple[int, int]:  # noqa: ARG002
        sequences = max([len(holder.decoding) for holder in self._holders])
        if not sequences:
            return 0, 0
        held = max([holder.offsets + len(holder.decoding) * step for holder in self._holders])
        return sequences, held // sequences


class _Many:
    def __init__(self, holders: Sequence[Holder]):
        self._first = holders[0].number
        self._counts, self._offsets = np.zeros((2, len(holders)), np.int64)

    def of(self, changed: Iterable[Holder], step: int) -> tuple[int, int]:
        for holder in changed:
            at = holder.number - self._first
            self._counts[at], self._offsets[at] = len(holder.decoding), holder.offsets
        sequences = int(self._counts.max())
        if not sequences:
            return 0, 0
        return sequences, int((self._counts * step + self._offsets).max()) // sequences


def pace(holders: Sequence[Holder]) -> Pace:
    """Of holders that are numbered one after the other."""
    return _Many(holders) if len(holders) >= _MANY else _Few(holders)


__all__ = ["Pace", "pace"]
