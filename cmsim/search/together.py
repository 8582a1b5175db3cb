"""Programs of the same ranks and groups, planned as one: what is priced in columns is priced once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from cmsim import engine
from cmsim.arrays import Floats, Ints
from cmsim.hardware import System
from cmsim.units import PS_PER_S
from cmsim.workload.ops import COLLECTIVE, COMPUTE, OpTable, ProgramBuilder, Programs, assemble

#: columns of codes -> what they number
_CODED = {
    "name_id": "names",
    "stream": "streams",
    "kernel": "kernels",
    "precision": "precisions",
    "collective": "collectives",
    "shape": "shapes",
}


def plans(programs: Sequence[Programs], system: System, options: engine.Options) -> list[engine.Plan]:
    """A plan of each, as `engine.plan` makes them, of programs with the same ranks and groups and no loops."""
    first = programs[0]
    if len(programs) == 1 or any(one.slots != first.slots or one.loop is not None for one in programs):
        return [engine.plan(one, system, options) for one in programs]
    joined, starts = _joined(programs)
    whole = engine.plan(joined, system, options)
    return [_cut(whole, one, starts[number]) for number, one in enumerate(programs)]


def _cut(whole: engine.Plan, one: Programs, starts: Ints) -> engine.Plan:
    """The plan of one of the programs; starts: of each of its programs the first row in that of all. [1]"""
    hold, call, issue, bound = [], [], [], np.zeros(len(one.ops), np.int64)
    for rank_class in range(whole.classes):
        program = whole.program_of(rank_class)
        length = int(one.program_ptr[program + 1] - one.program_ptr[program])
        rows = slice(int(starts[program]), int(starts[program]) + length)
        hold.append(whole.hold_ps[rank_class][rows])
        call.append(whole.call[rank_class][rows])
        if whole.issue_ps:
            issue.append(whole.issue_ps[rank_class][:length])
        at = int(whole.programs.program_ptr[program])
        bound[one.program_ptr[program] : one.program_ptr[program + 1]] = whole.bound[at + rows.start : at + rows.stop]
    return replace(whole, programs=one, hold_ps=hold, call=call, issue_ps=issue, bound=bound)


def _joined(programs: Sequence[Programs]) -> tuple[Programs, list[Ints]]:
    """All of them one after the other in every program, and where each begins in it."""
    tables = _renumbered([one.ops for one in programs])
    count = len(programs[0].program_ptr) - 1
    order, starts, lengths = [], [np.zeros(count, np.int64) for _ in programs], np.zeros(count, np.int64)
    offset = np.append(0, np.cumsum([len(one.ops) for one in programs]))
    for program in range(count):
        for number, one in enumerate(programs):
            first, last = int(one.program_ptr[program]), int(one.program_ptr[program + 1])
            starts[number][program] = lengths[program]
            lengths[program] += last - first
            order.append(np.arange(first, last) + offset[number])
    row = np.concatenate(order)
    columns = {
        name: np.concatenate([getattr(one, name) for one in tables])[row]
        for name in (field.name for field in fields(OpTable))
        if isinstance(getattr(tables[0], name), np.ndarray)
        and not name.startswith("dep_")
        and all(len(getattr(one, name)) == len(one) for one in tables)
    }
    # they are priced only: nothing waits
    ptr, idx = np.zeros(len(row) + 1, np.int64), np.zeros(0, np.int64)
    ops = replace(tables[0], **columns, dep_ptr=ptr, dep_idx=idx)
    return replace(programs[0], ops=ops, program_ptr=np.append(0, np.cumsum(lengths))), starts


def _renumbered(tables: Sequence[OpTable]) -> list[OpTable]:
    """The same tables with one numbering of names."""
    out = list(tables)
    for column, names in _CODED.items():
        known: dict[object, int] = {}
        for table in tables:
            for name in getattr(table, names):
                known.setdefault(name, len(known))
        for at, table in enumerate(tables):
            numbers = np.array([*(known[name] for name in getattr(table, names)), -1], np.int64)
            codes = getattr(table, column)
            out[at] = replace(out[at], **{column: numbers[codes] if len(codes) else codes, names: tuple(known)})
    return out


def once_a_step(
    programs: Sequence[Programs], system: System, options: engine.Options, *, stream: str, update: str
) -> Floats:
    """Seconds of a rank of the first program in gathering, in other collectives of a stream, and in updating; of
    programs with the same ranks and groups, shape (programs, 3). [s]"""
    build, owner, part = ProgramBuilder(), [], []
    for which, one in enumerate(programs):
        ops = one.ops
        rows = np.arange(int(one.program_ptr[1]))
        mine = (ops.kind[rows] == COLLECTIVE) & (ops.stream[rows] == number(ops.streams, stream))
        # what comes behind the optimizer belongs to it: weights that are cast
        begins = np.flatnonzero(ops.kernel[rows] == number(ops.kernels, update))
        updates = (ops.kind[rows] == COMPUTE) & (rows >= (begins[0] if len(begins) else len(rows)))
        for row in np.flatnonzero(mine | updates).tolist():
            owner.append(which)
            if updates[row]:
                build.compute(
                    update,
                    stream="compute",
                    kernel=update,
                    flops=float(ops.flops[row]),
                    bytes_B=float(ops.bytes_B[row]),
                )
                part.append(2)
                continue
            name = ops.collectives[ops.collective[row]]
            slot = one.slots[ops.slot[row]]
            build.collective(name, stream=stream, collective=name, size_B=float(ops.bytes_B[row]), slot=slot)
            part.append(0 if name == "all_gather" else 1)
    out = np.zeros((len(programs), 3))
    if not owner:
        return out
    first = programs[0]
    groups = {name: first.groups[:, at] for at, name in enumerate(first.slots)}
    plan = engine.plan(assemble([build], program=np.zeros(first.ranks, np.int64), groups=groups), system, options)
    ideal = np.array([0.0, *(one.ideal_s for one in plan.calls)])[plan.call[0] + 1]
    np.add.at(out, (np.array(owner), np.array(part)), ideal + plan.hold_ps[0] / PS_PER_S)
    return out


def number(names: Sequence[str], name: str) -> int:
    """The code of a name; of one that is not there, a code that nothing has."""
    return names.index(name) if name in names else -2


def of_stage(plan: engine.Plan, stage: int) -> tuple[slice, int]:
    """Rows of a stage's program, and its first class."""
    rank_class = next(one for one in range(plan.classes) if plan.program_of(one) == stage)
    return plan.rows_of(rank_class), rank_class
