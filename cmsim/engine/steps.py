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
    then         the step that follows it where the two only wait for each other, -1 where there is none: the one that
                 waits for it, and for nothing else; of work beside a collective, which begin and are awaited together,
                 the collective after the work, and what waits for both after the collective
    beside       of such a collective the work, else -1
    """

    first: list[int]
    last: list[int]
    kind: list[int]
    slot: list[int]
    turn: list[int]
    needs: list[int]
    following: list[tuple[int, ...]]
    then: Ints
    beside: list[int]


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
        return StreamSteps([], [], [], [], [], [], [], np.zeros(0, np.int64), [])
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
    then, beside = _links(before, after, kind[rows[begin]])
    return StreamSteps(
        first=rows[begin].tolist(),
        last=rows[end].tolist(),
        kind=kind[rows[begin]].tolist(),
        slot=slot[rows[begin]].tolist(),
        turn=_turns(slot, kind)[rows[begin]].tolist(),
        needs=needs.tolist(),
        following=[tuple(next_steps[i:j]) for i, j in itertools.pairwise(bounds)],
        then=then,
        beside=beside.tolist(),
    )


def _links(before: Ints, after: Ints, kind: Ints) -> tuple[Ints, Ints]:
    """``then`` and ``beside`` of steps, of waits sorted by who is awaited."""
    steps = len(kind)
    awaited, needs = np.bincount(before, minlength=steps), np.bincount(after, minlength=steps)
    following, forerun = _two(after, awaited), _two(before[np.argsort(after, kind="stable")], needs)
    # two that have the same one or two before them, and after them, which have nobody else after them, and before them
    one, two = following[awaited == 2].T
    fits = (forerun[one] == forerun[two]).all(axis=1) & (following[one] == following[two]).all(axis=1)
    fits &= (forerun[one, 0] >= 0) & (following[one, 0] >= 0)
    for of, many in ((forerun, awaited), (following, needs)):
        first, second = of[one].T
        fits &= (many[first] == 2) & ((second < 0) | (many[second] == 2))
    fits &= ((kind[one] == COLLECTIVE) & (kind[two] <= HOST)) | ((kind[one] <= HOST) & (kind[two] == COLLECTIVE))
    one, two = one[fits], two[fits]
    work, comm = np.where(kind[one] <= HOST, one, two), np.where(kind[one] <= HOST, two, one)
    beside = np.full(steps, -1, np.int64)
    beside[comm] = work
    then = np.full(steps, -1, np.int64)
    alone = (awaited[before] == 1) & (needs[after] == 1)
    then[before[alone]] = after[alone]
    then[work] = comm
    first, second = forerun[comm].T
    then[first[second < 0]] = work[second < 0]
    first, second = following[comm].T
    then[comm[second < 0]] = first[second < 0]
    # of two after two, where both are such a pair
    last = np.where(beside[first] == second, first, second)
    both = (second >= 0) & (beside[last] == np.where(last == first, second, first))
    then[comm[both]] = beside[last[both]]
    return then, beside


def _two(others: Ints, count: Ints) -> Ints:
    """Of each step its one or two others; -1 for none, and for more. ``others``: those of the first step, and so on."""
    out = np.full((len(count), 2), -1, np.int64)
    ptr = np.cumsum(count) - count
    some = np.flatnonzero((count > 0) & (count < 3))
    out[some, 0] = others[ptr[some]]
    two = np.flatnonzero(count == 2)
    out[two, 1] = others[ptr[two] + 1]
    return out


def _needed(before: Ints, after: Ints, steps: int, *, forward: bool) -> tuple[Ints, Ints]:
    """Waits sorted by who is awaited, once each; without those that go without saying: a waits for c, and for b, which
    waits for c, itself or through a run of steps that only wait for each other.

    forward: all waits point back in the program; in a circle each could go without saying by the others
    """
    code = np.sort(before * steps + after)
    code = code[np.diff(code, prepend=-1) != 0]
    before, after = code // steps, code % steps
    if not forward:
        return before, after
    before, after = _unsaid(before, after, np.arange(steps))
    return _unsaid(before, after, _last_of_run(before, after, steps))


def _unsaid(before: Ints, after: Ints, last: Ints) -> tuple[Ints, Ints]:
    """Sorted waits, without those that another makes. ``last``: of each step the last of its run."""
    steps = len(last)
    code = before * steps + after
    ptr = np.searchsorted(before, np.arange(steps + 1))
    goes = last[after]
    width = ptr[goes + 1] - ptr[goes]
    first = np.repeat(np.arange(len(after)), width)
    second = np.repeat(ptr[goes] + width - np.cumsum(width), width) + np.arange(len(first))
    through = before[first] * steps + after[second]
    at = np.searchsorted(code, through)
    said = np.zeros(len(code), bool)
    said[at[code[np.minimum(at, len(code) - 1)] == through]] = True
    return before[~said], after[~said]


def _last_of_run(before: Ints, after: Ints, steps: int) -> Ints:
    """Of each step the last of those that only wait for each other from it on, by doubling."""
    alone = (np.bincount(before, minlength=steps)[before] == 1) & (np.bincount(after, minlength=steps)[after] == 1)
    last = np.arange(steps)
    last[before[alone]] = after[alone]
    while (last[last] != last).any():
        last = last[last]
    return last


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
