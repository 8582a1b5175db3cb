"""Loops of programs: the same rows laid out more often, and what that makes of them."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from cmsim.arrays import Ints
from cmsim.workload.ops import Loop, OpTable, Programs


def sources(programs: Programs, more: int) -> list[Ints]:
    """Of every row of each program, laid out ``more`` times more, the row that it is a copy of."""
    loop = programs.loop
    assert loop is not None, "no loop to lay out"
    out = []
    for length, first, rows, laid in zip(np.diff(programs.program_ptr), loop.first, loop.rows, loop.laid, strict=True):
        end = first + rows * laid
        again = np.tile(np.arange(end - rows, end), more)
        out.append(np.concatenate([np.arange(end), again, np.arange(end, length)]))
    return out


def times(programs: Programs) -> Ints:
    """How often every row of the table comes, shape (rows,)."""
    out = np.ones(len(programs.ops), np.int64)
    loop = programs.loop
    if loop is not None:
        for start, first, rows in zip(programs.program_ptr[:-1], loop.first, loop.rows, strict=True):
            out[start + first : start + first + rows] += loop.left_out
    return out


def laid_out(programs: Programs, more: int) -> Programs:
    """The same programs with their loops laid out ``more`` times more."""
    loop = programs.loop
    if loop is None or not more:
        return programs
    copied = sources(programs, more)
    ops = _copied(programs.ops, programs.program_ptr, copied, loop)
    left = loop.left_out - more
    return replace(
        programs,
        ops=ops,
        program_ptr=np.append(0, np.cumsum([len(rows) for rows in copied])),
        loop=replace(loop, laid=loop.laid + np.where(loop.rows > 0, more, 0), left_out=left) if left else None,
    )


def whole(programs: Programs) -> Programs:
    """The same programs with nothing left out."""
    return laid_out(programs, programs.loop.left_out) if programs.loop is not None else programs


def _copied(ops: OpTable, ptr: Ints, copied: list[Ints], loop: Loop) -> OpTable:
    """The table with rows copied; waits for rows of the loop keep their distance."""
    row = np.concatenate([rows + start for rows, start in zip(copied, ptr[:-1].tolist(), strict=True)])
    shift = np.concatenate([np.arange(len(rows)) - rows for rows in copied])
    first = np.repeat(loop.first, [len(rows) for rows in copied])
    count = np.diff(ops.dep_ptr)[row]
    dep_ptr = np.append(0, np.cumsum(count))
    owner = np.repeat(np.arange(len(row)), count)
    dep = ops.dep_idx[ops.dep_ptr[row][owner] + np.arange(len(owner)) - dep_ptr[owner]]
    dep = dep + np.where(dep >= first[owner], shift[owner], 0)
    columns = {
        one.name: column[row]
        for one in fields(ops)
        # a column that says the same of every op may be empty
        if isinstance(column := getattr(ops, one.name), np.ndarray) and len(column) and not one.name.startswith("dep_")
    }
    return replace(ops, **columns, dep_ptr=dep_ptr, dep_idx=dep)
