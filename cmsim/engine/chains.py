"""Chains: steps of a rank class that only wait for each other, with more than one collective among them.

Where nobody else is on its links, a chain is one event instead of one for every collective (``cmsim.network.train``).
A tensor-parallel pass of a training step is such a chain: work, all-reduce, work, all-reduce. Work that runs beside one
of the collectives, and is awaited with it, is a part of it: it stands before its collective. Classes that meet in its
collectives go through it together where they have the same work to do between them, so that none waits for another
after the first: ranks of one stage that differ in whom they send to.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.engine.plan import Plan
from cmsim.engine.steps import StreamSteps
from cmsim.network import Demand, Network, Train
from cmsim.units import on_clock
from cmsim.workload.ops import COLLECTIVE, HOST

Phases = Sequence[Sequence[Demand]]


@dataclass(frozen=True)
class Timing:
    """When what of a chain happens, from its beginning.

    train         its demands
    start, end    of each step [ps]
    part          the first demand of each step, or of those after it; of its end the number of demands
    step, phase   of each demand: the step in the chain, and the phase of its call
    """

    train: Train
    start: Ints
    end: Ints
    part: list[int]
    step: list[int]
    phase: list[int]


@dataclass(frozen=True)
class Chain:
    """Steps in order; the first and the last are collectives.

    first, last   rows of each step    rows  how many rows there are before each step, and in all
    beside        whether a step is a collective with work beside it, which is the step before
    """

    steps: list[int]
    timing: Timing
    first: Ints
    last: Ints
    rows: list[int]
    beside: list[bool]


def together(plan: Plan) -> list[list[int]]:
    """Per class and slot: the first of the classes that go through the collectives of its group as one, which may be
    the class alone; -1 where they do not: they run the same program, name the group in one slot, their work takes as
    long and their collectives are the same calls."""
    groups, kind = plan.folding.group_class, plan.programs.ops.kind
    parties = np.bincount(groups[groups >= 0])
    alike = np.zeros(plan.classes, np.int64)
    if parties.max(initial=0) > 1:
        known: dict[tuple[int, bytes, bytes], int] = {}
        for one in range(plan.classes):
            calls = plan.call[one][kind[plan.rows_of(one)] == COLLECTIVE]
            key = plan.program_of(one), plan.hold_ps[one].tobytes(), calls.tobytes()
            alike[one] = known.setdefault(key, one)
    out: Ints = np.full(groups.shape, -1, np.int64)
    for slot, named in enumerate(groups.T):
        classes = np.flatnonzero(named >= 0)
        _, first, group, count = np.unique(named[classes], return_index=True, return_inverse=True, return_counts=True)
        leader = classes[first][group]
        unlike = np.bincount(group, weights=alike[classes] != alike[leader], minlength=len(first))
        fits = (count == parties[named[classes[first]]]) & (unlike == 0)
        out[classes[fits[group]], slot] = leader[fits[group]]
    found: list[list[int]] = out.tolist()
    return found


def chains(
    steps: StreamSteps,
    hold_ps: Sequence[int],
    call: Sequence[int],
    who: Sequence[int],
    calls: Sequence[Phases],
    network: Network,
    known: dict[bytes, Timing],
) -> tuple[list[Chain], list[int], list[int]]:
    """Chains of a class, and of each step the chain (-1: none) and its place there.

    hold_ps  of each step    call  of each step, -1 for holds    who  takes part in it, a number; -1 where no chain may
    known    timings of the plan's chains so far
    """
    number, place = np.full(len(hold_ps), -1), np.zeros(len(hold_ps), np.int64)
    out: list[Chain] = []
    held, called, members = np.array(hold_ps, np.int64), np.array(call, np.int64), np.array(who, np.int64)
    first, last = np.array(steps.first, np.int64), np.array(steps.last, np.int64)
    rows = last - first + 1
    forked = np.array(steps.beside, np.int64) >= 0
    for some in _linked(steps, _usable(steps, called, members, calls), members):
        key = held[some].tobytes() + called[some].tobytes() + forked[some].tobytes()
        if key not in known:
            known[key] = _timing(held[some], called[some], forked[some], calls, network)
        number[some], place[some] = len(out), np.arange(len(some))
        before = np.append(0, np.cumsum(rows[some])).tolist()
        out.append(Chain(some.tolist(), known[key], first[some], last[some], before, forked[some].tolist()))
    return out, number.tolist(), place.tolist()


def _usable(steps: StreamSteps, call: Ints, who: Ints, calls: Sequence[Phases]) -> NDArray[np.bool_]:
    """Local work, and collectives of somebody whose phases are one demand that no change of links concerns."""
    kind = np.array(steps.kind, np.int64)
    plain = [all(len(phase) == 1 and not phase[0].later for phase in phases) for phases in calls]
    usable: NDArray[np.bool_] = (kind <= HOST) | (
        (kind == COLLECTIVE) & (who >= 0) & np.array([*plain, False], bool)[call]
    )
    return usable


def _linked(steps: StreamSteps, usable: NDArray[np.bool_], who: Ints) -> list[Ints]:
    """Longest runs of usable steps of the same who, each of which nobody awaits but the next, which waits for nobody
    else (`StreamSteps.then`); from a collective to a collective."""
    linked = usable & (steps.then >= 0) & usable[steps.then]
    # of each step the one that it follows; by doubling, the first of all that it follows, and how far that is
    head = np.arange(len(usable))
    head[steps.then[linked]] = np.flatnonzero(linked)
    begins = head == np.arange(len(head))
    far = np.where(begins, 0, 1)
    for _ in range(len(head).bit_length()):
        far += far[head]
        head = head[head]
    run = np.flatnonzero((linked | ~begins) & begins[head])  # a circle has no first
    run = run[np.lexsort((far[run], head[run]))]
    at = np.flatnonzero(np.array(steps.kind)[run] == COLLECTIVE)
    one = run[at]
    same = np.append(False, (head[one][1:] == head[one][:-1]) & (who[one][1:] == who[one][:-1]))
    from_, until = np.flatnonzero(~same), np.append(np.flatnonzero(~same)[1:], len(at)) - 1
    several = until > from_
    return [run[i : j + 1] for i, j in zip(at[from_[several]].tolist(), at[until[several]].tolist(), strict=True)]


def _timing(hold_ps: Ints, call: Ints, forked: NDArray[np.bool_], calls: Sequence[Phases], network: Network) -> Timing:
    """Of steps that hold, and then move the data of a call, or of none (-1). ``forked``: it begins with the step
    before, and what follows waits for both."""
    distinct, of = np.unique(call, return_inverse=True)
    moved = [[phase[0] for phase in calls[number]] if number >= 0 else [] for number in distinct.tolist()]
    paces = [[network.pace(one) if one.size_B > 0 else (0.0, 0) for one in some] for some in moved]
    demands = list(itertools.chain(*moved))
    rate_Bps = np.array([rate for some in paces for rate, _ in some], np.float64)
    took_ps = np.array([took for some in paces for _, took in some], np.int64)
    count = np.array([len(some) for some in moved], np.int64)
    # the phases of all steps: which demand each is, of which step
    phases = count[of]
    step = np.repeat(np.arange(len(call)), phases)
    phase = np.arange(len(step)) - np.repeat(np.cumsum(phases) - phases, phases)
    demand = np.repeat((np.cumsum(count) - count)[of], phases) + phase
    took = took_ps[demand]
    past = np.append(0, np.cumsum(np.array([one.latency_ps for one in demands], np.int64)[demand] + took))
    on_clock(float(hold_ps.sum(dtype=np.float64)) + float(np.diff(past).sum(dtype=np.float64)))
    before = np.cumsum(phases)
    # work beside a collective holds up what follows by what it is longer
    comm = np.flatnonzero(forked[1:]) + 1
    spent, late = hold_ps.copy(), np.zeros(len(call), np.int64)
    spent[comm - 1] = 0
    late[comm] = np.maximum(hold_ps[comm - 1] - (past[before[comm]] - past[before[comm - 1]]), 0)
    held = np.cumsum(spent) + np.cumsum(late) - late
    end = held[step] + past[1:]
    stop = held + past[before]
    begin = held - spent + past[before - phases]
    stop[comm - 1] += hold_ps[comm - 1]
    moves = np.array([one.size_B > 0 for one in demands], bool)[demand]
    part = np.append(0, np.cumsum(moves))[np.append(0, before)].tolist()
    demand, took, end, step, phase = demand[moves], took[moves], end[moves], step[moves], phase[moves]
    train = Train(
        [demands[one] for one in demand.tolist()],
        rate_Bps[demand].tolist(),
        (end - took).tolist(),
        end.tolist(),
        int(stop[-1]),
    )
    return Timing(train, begin, stop, part, step.tolist(), phase.tolist())
