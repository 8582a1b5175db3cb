"""Several workloads of the same ranks and groups, planned as one and, where one class of ranks does it all, played so.

Their programs stand one after the other in one table, so that ranks are folded once, and kernels and calls of all are
priced in one call each. Programs of one class of ranks are also played as one: before each stands a joint, a row that
waits for all that was before it, and for which all behind it waits. What happens in a play follows from differences
of whole picoseconds alone, so that each does what it does by itself, later; and a joint takes a picosecond, so that
nothing on a link reaches from one into the next.

Not where times follow from the number of a row (scatter), or from the clock (links that change, a host that launches op
by op).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from cmsim.arrays import Ints
from cmsim.engine.calls import notes_of
from cmsim.engine.plan import Options, Plan, plan, planned
from cmsim.engine.timeline import Timeline
from cmsim.hardware import System
from cmsim.network import Log, Stretches
from cmsim.units import PS_PER_S
from cmsim.workload.ops import COLLECTIVE, OpTable, ProgramBuilder, Programs, assemble

#: columns of codes -> what they number
_CODED = {
    "name_id": "names",
    "stream": "streams",
    "kernel": "kernels",
    "precision": "precisions",
    "collective": "collectives",
    "shape": "shapes",
}


@dataclass(frozen=True)
class Line:
    """Workloads one after the other.

    plan     of all of them
    each     the plan of each
    joint    of a line that can be played, the row before each of them; else empty
    """

    plan: Plan
    each: list[Plan]
    joint: Ints

    def spans(self, timeline: Timeline) -> tuple[Ints, Ints]:
        """When each begins and ends. [ps]"""
        begin_ps: Ints = timeline.end_ps[0][self.joint]
        return begin_ps, np.append(timeline.start_ps[0][self.joint[1:]], timeline.kept_ps)

    def apart(self, timeline: Timeline) -> list[Timeline]:
        """The timeline of each, from its beginning on."""
        (start,), (end,), (wait,) = timeline.start_ps, timeline.end_ps, timeline.wait_ps
        begin = end[self.joint]
        moved = timeline.segments.columns()
        order = np.argsort(moved.start_ps, kind="stable")
        bounds = np.append(np.searchsorted(moved.start_ps[order], begin), len(order)).tolist()
        out = []
        for number, (one, since) in enumerate(zip(self.each, begin.tolist(), strict=True)):
            rows = slice(int(self.joint[number]) + 1, int(self.joint[number]) + 1 + len(one.programs.ops))
            own = moved.rows(order[bounds[number] : bounds[number + 1]], -since)
            used, demand = np.unique(own.demand, return_inverse=True)
            part = Stretches([own.demands[at] for at in used.tolist()], demand, own.start_ps, own.end_ps, own.rate_Bps)
            out.append(Timeline([start[rows] - since], [end[rows] - since], [wait[rows]], Log([part])))
        return out


def plans(programs: Sequence[Programs], system: System, options: Options) -> list[Plan]:
    """A plan of each, as `cmsim.engine.plan` makes them."""
    if not fit(programs, options):
        return [plan(one, system, options) for one in programs]
    return lined_up(programs, system, options).each


def fit(programs: Sequence[Programs], options: Options) -> bool:
    """Whether programs, more than one, may stand in one table: they have the same groups, and use them for the same
    collectives."""
    first = programs[0]
    if len(programs) == 1 or options.jitter is not None or options.faults or options.network == "flow":
        return False
    uses = _uses(first)
    return all(
        one.slots == first.slots
        and one.loop is None
        and not one.traffic
        and np.array_equal(one.program, first.program)
        and np.array_equal(one.groups, first.groups)
        and _uses(one) == uses
        for one in programs
    )


def _uses(one: Programs) -> set[tuple[int, str]]:
    """Which slots a workload calls which collectives in."""
    names, rows = (*one.ops.collectives, ""), np.flatnonzero(one.ops.kind == COLLECTIVE)
    width = len(names)
    codes = np.unique(one.ops.slot[rows] * width + one.ops.collective[rows]).tolist()
    return {(code // width, names[code % width]) for code in codes}


def lined_up(programs: Sequence[Programs], system: System, options: Options) -> Line:
    """Plans of workloads that fit together."""
    joints = len(programs[0].program_ptr) == 2
    joined, owner, starts = _joined(programs, joints=joints)
    whole, notes = planned(joined, system, options, owner)
    each = [_cut(whole, one, starts[at], notes[at]) for at, one in enumerate(programs)]
    playable = joints and whole.classes == 1 and not whole.issue_ps
    return Line(whole, each, np.concatenate(starts) - 1 if playable else np.zeros(0, np.int64))


def _cut(whole: Plan, one: Programs, starts: Ints, notes: Sequence[str]) -> Plan:
    """The plan of one of the programs; starts: of each of its programs the first row in that of all. [1]"""
    rows, issue = [], []
    for rank_class in range(whole.classes):
        program = whole.program_of(rank_class)
        length = int(one.program_ptr[program + 1] - one.program_ptr[program])
        rows.append(slice(int(starts[program]), int(starts[program]) + length))
        if whole.issue_ps:
            issue.append(whole.issue_ps[rank_class][:length])
    called = [call[at] for call, at in zip(whole.call, rows, strict=True)]
    used = np.unique(np.concatenate(called)) if called else np.zeros(0, np.int64)
    used = used[used >= 0]
    number = np.full(len(whole.calls) + 1, -1, np.int64)
    number[used] = np.arange(len(used))
    calls = [whole.calls[at] for at in used.tolist()]
    firsts = starts + whole.programs.program_ptr[:-1]
    at = np.repeat(firsts - one.program_ptr[:-1], np.diff(one.program_ptr)) + np.arange(len(one.ops))
    return replace(
        whole,
        programs=one,
        hold_ps=[hold[at] for hold, at in zip(whole.hold_ps, rows, strict=True)],
        bound=whole.bound[at],
        calls=calls,
        call=[number[call] for call in called],
        issue_ps=issue,
        notes=(*notes, *notes_of(calls)),
        clock=whole.clock[at] if whole.clock.size else whole.clock,
    )


def _joined(programs: Sequence[Programs], *, joints: bool) -> tuple[Programs, Ints, list[Ints]]:
    """All of them one after the other in every program, with ``joints`` before each; of each row of the table the
    number of its workload, -1 of joints; and where each begins in every program."""
    tables = [one.ops for one in programs]
    if joints:
        joint = _joint()
        tables = [table for one in tables for table in (joint, one)]
    tables = _renumbered(tables)
    count = len(programs[0].program_ptr) - 1
    order, starts, lengths = [], [np.zeros(count, np.int64) for _ in programs], np.zeros(count, np.int64)
    offset = np.append(0, np.cumsum([len(one) for one in tables]))[1 if joints else 0 :: 2 if joints else 1]
    for program in range(count):
        for number, one in enumerate(programs):
            first, last = int(one.program_ptr[program]), int(one.program_ptr[program + 1])
            starts[number][program] = lengths[program] + joints
            lengths[program] += last - first + joints
            order.append(np.arange(first - joints, last) + offset[number])
    row = np.concatenate(order)
    owner = np.repeat(np.tile(np.arange(len(programs)), count), [len(rows) for rows in order])
    if joints:
        owner[np.concatenate(starts) - 1] = -1
    columns = {
        name: _column(tables, name)[row]
        for name in (field.name for field in fields(OpTable))
        if isinstance(getattr(tables[0], name), np.ndarray) and not name.startswith("dep_")
    }
    # those that are priced only wait for nothing
    ptr, idx = np.zeros(len(row) + 1, np.int64), np.zeros(0, np.int64)
    if joints:
        ptr, idx = _waits(programs, np.concatenate(starts), len(row))
    ops = replace(tables[-1], **columns, dep_ptr=ptr, dep_idx=idx)
    return replace(programs[0], ops=ops, program_ptr=np.append(0, np.cumsum(lengths))), owner, starts


def _column(tables: Sequence[OpTable], name: str) -> Ints:
    """A column of all tables; -1 where one has none."""
    parts = [getattr(one, name) for one in tables]
    out: Ints = np.concatenate(
        [part if len(part) else np.full(len(one), -1) for part, one in zip(parts, tables, strict=True)]
    )
    return out


def _joint() -> OpTable:
    build = ProgramBuilder()
    build.host("joint", stream="joint", recorded_s=1 / PS_PER_S)
    return assemble([build], program=np.zeros(1, np.int64), groups={}).ops


def _waits(programs: Sequence[Programs], starts: Ints, rows: int) -> tuple[Ints, Ints]:
    """Waits of rows of one program: those of each workload, of its joint for all before it, and of what begins in it
    for its joint. ``starts``: first row of each"""
    owners, deps = [], []
    ends: Ints = np.zeros(0, np.int64)
    for one, start in zip(programs, starts.tolist(), strict=True):
        ops = one.ops
        owners += [np.repeat(np.arange(len(ops)), np.diff(ops.dep_ptr)) + start, np.full(len(ends), start - 1)]
        deps += [ops.dep_idx + start, ends]
        _, first = np.unique(ops.stream, return_index=True)
        owners.append(first + start)
        deps.append(np.full(len(first), start - 1))
        _, back = np.unique(ops.stream[::-1], return_index=True)
        ends = start + len(ops) - 1 - back
    owner, dep = np.concatenate(owners), np.concatenate(deps)
    ptr = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=rows), out=ptr[1:])
    return ptr, dep[np.argsort(owner, kind="stable")]


def _renumbered(tables: Sequence[OpTable]) -> list[OpTable]:
    """The same tables with one numbering of names."""
    changed: list[dict[str, object]] = [{} for _ in tables]
    for column, names in _CODED.items():
        known: dict[object, int] = {}
        alike: dict[tuple[object, ...], Ints] = {}
        for table in tables:
            own = getattr(table, names)
            if own not in alike:
                alike[own] = np.array([*(known.setdefault(name, len(known)) for name in own), -1], np.int64)
        for at, table in enumerate(tables):
            codes = getattr(table, column)
            changed[at][column] = alike[getattr(table, names)][codes] if len(codes) else codes
            changed[at][names] = tuple(known)
    return [replace(table, **change) for table, change in zip(tables, changed, strict=True)]  # type: ignore[arg-type]


__all__ = ["Line", "fit", "lined_up", "plans"]
