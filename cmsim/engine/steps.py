"""Programs cut into steps: runs of ops that nobody outside their stream waits for, and each communication by itself."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from cmsim.arrays import Ints
from cmsim.engine.plan import Plan
from cmsim.errors import InputError
from cmsim.reading.kept import while_equal
from cmsim.units import on_clock
from cmsim.workload.ops import COLLECTIVE, HOST, KINDS


class StreamSteps(NamedTuple):
    """The steps of one program, by stream, then in order.

    first, last  rows of the program that a step covers (of communication the same)
    kind, slot   of its first row
    turn         how many rows of the program before it do the same (meet, send or receive) in the slot. Members of a
                 group match their calls by it, as libraries match them in the order of issue; the order in which the
                 streams of a rank come by is its own.
    needs        how many steps must end before it
    following    steps that wait for it
    then         the one step that waits for it, and for nothing else; -1 where there is none
    """

    first: list[int]
    last: list[int]
    kind: list[int]
    slot: list[int]
    turn: list[int]
    needs: list[int]
    following: list[tuple[int, ...]]
    then: Ints


def cut(plan: Plan, program: int, *, singly: bool = False) -> StreamSteps:
    """Cut each stream of a program into steps. Raises InputError for a dependency against stream order.

    singly: every op is a step of its own
    """
    ops = plan.programs.ops
    first, last = int(plan.programs.program_ptr[program]), int(plan.programs.program_ptr[program + 1])
    stream = ops.stream[first:last]
    kind = ops.kind[first:last]
    slot = ops.slot[first:last]
    ptr = ops.dep_ptr[first : last + 1]
    dep = ops.dep_idx[ptr[0] : ptr[-1]]
    count = last - first
    if not count:
        return StreamSteps([], [], [], [], [], [], [], np.zeros(0, np.int64))
    owner = np.repeat(np.arange(count), np.diff(ptr))
    if len(dep) and (dep < 0).any() | (dep >= count).any():
        raise InputError("an op depends on a row outside its program")
    same = stream[dep] == stream[owner]
    if (same & (dep >= owner)).any():
        row = int(owner[np.argmax(same & (dep >= owner))])
        name = ops.names[int(ops.name_id[first + row])]
        raise InputError(f"op '{name}' waits for a later op of its own stream '{ops.streams[int(stream[row])]}'")
    return _steps(stream, kind, slot, owner[~same], dep[~same], singly)


@while_equal(most=16)
def _steps(stream: Ints, kind: Ints, slot: Ints, owner: Ints, dep: Ints, singly: bool) -> StreamSteps:
    """Of the columns of a program; row ``owner[i]`` waits for ``dep[i]`` of another stream."""
    count = len(stream)
    awaited = np.zeros(count, bool)
    awaited[dep] = True
    waits = np.zeros(count, bool)
    waits[owner] = True
    # rows by stream, then in order
    rows = np.argsort(stream, kind="stable")
    comm = kind[rows] >= COLLECTIVE
    begins = comm | waits[rows]
    heads = np.ones(count, bool)
    heads[1:] = np.diff(stream[rows]) != 0
    begins |= heads
    begins[1:] |= comm[:-1] | awaited[rows[:-1]]
    # a hold covers contiguous rows only: its rows are filled in by sums
    begins[1:] |= np.diff(rows) != 1
    begins |= singly
    begin = np.flatnonzero(begins)
    end = np.append(begin[1:], count) - 1
    step = np.empty(count, np.int64)
    step[rows] = np.cumsum(begins) - 1
    follows = np.flatnonzero(~heads[begin])
    before = np.concatenate([follows - 1, step[dep]])
    after = np.concatenate([follows, step[owner]])
    before, after = _needed(before, after, len(begin), forward=bool((dep < owner).all()))
    bounds = np.searchsorted(before, np.arange(len(begin) + 1)).tolist()
    next_steps = after.tolist()
    needs = np.bincount(after, minlength=len(begin))
    alone = (np.bincount(before, minlength=len(begin))[before] == 1) & (needs[after] == 1)
    then = np.full(len(begin), -1, np.int64)
    then[before[alone]] = after[alone]
    return StreamSteps(
        first=rows[begin].tolist(),
        last=rows[end].tolist(),
        kind=kind[rows[begin]].tolist(),
        slot=slot[rows[begin]].tolist(),
        turn=_turns(slot, kind)[rows[begin]].tolist(),
        needs=needs.tolist(),
        following=[tuple(next_steps[i:j]) for i, j in itertools.pairwise(bounds)],
        then=then,
    )


def _needed(before: Ints, after: Ints, steps: int, *, forward: bool) -> tuple[Ints, Ints]:
    """Waits sorted by who is awaited, once each; without those that go without saying: a waits for c, and for b, which
    waits for c.

    forward: all waits point back in the program; in a circle each could go without saying by the others
    """
    code = np.sort(before * steps + after)
    code = code[np.diff(code, prepend=-1) != 0]
    before, after = code // steps, code % steps
    if not forward:
        return before, after
    ptr = np.searchsorted(before, np.arange(steps + 1))
    width = ptr[after + 1] - ptr[after]
    first = np.repeat(np.arange(len(after)), width)
    second = np.repeat(ptr[after] + width - np.cumsum(width), width) + np.arange(len(first))
    through = before[first] * steps + after[second]
    at = np.searchsorted(code, through)
    said = np.zeros(len(code), bool)
    said[at[code[np.minimum(at, len(code) - 1)] == through]] = True
    return before[~said], after[~said]


def _turns(slot: Ints, kind: Ints) -> Ints:
    """Of every row, how many rows before it have its slot and kind."""
    code = (slot + 1) * len(KINDS) + kind
    order = np.argsort(code, kind="stable")
    begins = np.ones(len(code), bool)
    begins[1:] = np.diff(code[order]) != 0
    position = np.arange(len(code))
    turn = np.empty(len(code), np.int64)
    turn[order] = position - np.maximum.accumulate(np.where(begins, position, 0))
    return turn


def hold_sums(hold_ps: Ints, steps: StreamSteps) -> list[int]:
    """Length of every step's hold. [ps] Raises FailedError where all of them together go beyond the clock."""
    on_clock(float(hold_ps.sum(dtype=np.float64)))
    until = np.concatenate([[0], np.cumsum(hold_ps)])
    first, last = np.array(steps.first, np.int64), np.array(steps.last, np.int64)
    sums: list[int] = (until[last + 1] - until[first]).tolist()
    return sums


def fill(
    start: Ints, end: Ints, hold_ps: Ints, steps: StreamSteps, host_ps: Ints | None, *, worked: bool = False
) -> None:
    """Rows inside holds, from the start of each hold, the lengths of its ops and their waits for the host, in place.

    worked: times of kernels are known already
    """
    until = np.concatenate([[0], np.cumsum(hold_ps)])
    kind = np.array(steps.kind, np.int64)
    holds = kind == HOST if worked else kind <= HOST
    if not holds.any():
        return
    first, last = np.array(steps.first)[holds], np.array(steps.last)[holds]
    length = last - first + 1
    head = np.repeat(first, length)
    rows = head + np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    base = start[head]
    start[rows] = base + until[rows] - until[head]
    if host_ps is not None:
        waited = np.cumsum(host_ps)
        start[rows] += waited[rows] - waited[head] + host_ps[head]
    end[rows] = start[rows] + hold_ps[rows]
