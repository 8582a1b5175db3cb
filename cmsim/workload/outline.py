"""Rows of programs laid out, whatever their numbers: which is a copy of which, what waits for what, what codes mean.

Runs of one scenario write the same rows again and again, with other FLOPs and bytes: their outline is made once, and
kept.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cmsim.arrays import Ints

#: what a row says in words: name, stream, kind, kernel, precision, slot, collective
Words = tuple[str, str, int, str, str, str, str]
#: the words that are numbered, by column
_NUMBERED = {"name": 0, "stream": 1, "kernel": 3, "precision": 4, "slot": 5, "collective": 6}
_KIND = 2
#: of programs with more rows, written or copied, none is kept: it would hold memory for those who come again seldom
_MOST_ROWS = 1 << 12


class ByHand(NamedTuple):
    """Rows of a block that were written one by one: numbers of the first and of the one after the last, and pairs of a
    row of the block and one that it waits for (negative: see `cmsim.workload.ops.awaited`)."""

    first: int
    end: int
    waits: tuple[tuple[int, int], ...]


class Copied(NamedTuple):
    """Another block, where it stands in this one, and the rows that it waits for."""

    block: int
    at: int
    after: tuple[tuple[int, ...], ...]


Block = tuple[ByHand | Copied, ...]


class Outline(NamedTuple):
    """Columns of codes, by name; what the codes mean; of each row the one that was written; waits as `OpTable` has
    them; and how many rows each program has."""

    columns: dict[str, Ints]
    names: dict[str, tuple[str, ...]]
    written: Ints
    dep_ptr: Ints
    dep_idx: Ints
    lengths: list[int]


def outline(
    words: tuple[Words, ...], blocks: tuple[Block, ...], programs: Sequence[int], slots: tuple[str, ...], *, rows: int
) -> Outline:
    """The outline of programs.

    words   of rows that were written, in the order in which codes are given    blocks: each behind those it copies
    programs  block of each    slots: by number    rows: of all programs
    """
    make = _kept if rows <= _MOST_ROWS else _made
    return make(words, blocks, tuple(programs), slots)


class _Laid(NamedTuple):
    """A block: the written row of each of its rows, pairs of a row and one of the block that it waits for, and of a row
    and the number of what it is told to wait for where the block is copied."""

    written: Ints
    owner: Ints
    dep: Ints
    left_open: list[tuple[int, int]]


def _made(
    words: tuple[Words, ...], blocks: tuple[Block, ...], programs: tuple[int, ...], slots: tuple[str, ...]
) -> Outline:
    numbers: dict[str, dict[str, int]] = {key: {"": -1} for key in _NUMBERED}
    numbers["slot"].update({name: i for i, name in enumerate(slots)})
    columns = {"kind": np.array([row[_KIND] for row in words], np.int64)}
    for key, position in _NUMBERED.items():
        known = numbers[key]
        columns[key] = np.array([known.setdefault(row[position], len(known) - 1) for row in words], np.int64)  # type: ignore[arg-type]
    assert len(numbers["slot"]) == len(slots) + 1, "an op uses a slot that has no groups"
    laid: list[_Laid] = []
    for block in blocks:
        laid.append(_laid(block, laid))
    counts, deps = [], []
    for one in (laid[program] for program in programs):
        assert not one.left_open, "a block's wait was left open"
        counts.append(np.bincount(one.owner, minlength=len(one.written)))
        deps.append(one.dep[np.argsort(one.owner, kind="stable")])
    written = np.concatenate([laid[program].written for program in programs])
    dep_ptr = np.zeros(len(written) + 1, np.int64)
    np.cumsum(np.concatenate(counts), out=dep_ptr[1:])
    made = Outline(
        {key: column[written] for key, column in columns.items()},
        {key: tuple(name for name in known if name) for key, known in numbers.items()},
        written,
        dep_ptr,
        np.concatenate(deps),
        [len(laid[program].written) for program in programs],
    )
    for column in (*made.columns.values(), made.written, made.dep_ptr, made.dep_idx):
        column.flags.writeable = False  # several have it
    return made


_kept = functools.lru_cache(maxsize=16)(_made)


def _laid(block: Block, before: Sequence[_Laid]) -> _Laid:
    written: list[Ints] = []
    owners: list[Ints] = []
    deps: list[Ints] = []
    later: list[tuple[int, int]] = []
    for part in block:
        if isinstance(part, ByHand):
            written.append(np.arange(part.first, part.end))
            pairs = np.array(part.waits, np.int64).reshape(-1, 2)
            owners.append(pairs[:, 0])
            deps.append(pairs[:, 1])
            continue
        copied = before[part.block]
        written.append(copied.written)
        owners.append(copied.owner + part.at)
        deps.append(copied.dep + part.at)
        for row, number in copied.left_open:
            later += [(row + part.at, waits) for waits in part.after[number]]
    # of one row what it waits for inside a block comes first, wherever the pairs stand
    pairs = np.array(later, np.int64).reshape(-1, 2)
    owner, dep = np.concatenate([*owners, pairs[:, 0]]), np.concatenate([*deps, pairs[:, 1]])
    inside = dep >= 0
    left_open = list(zip(owner[~inside].tolist(), (-1 - dep[~inside]).tolist(), strict=True))
    return _Laid(np.concatenate(written), owner[inside], dep[inside], left_open)


__all__ = ["Block", "ByHand", "Copied", "Outline", "Words", "outline"]
