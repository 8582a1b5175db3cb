"""Chains: steps of a rank class that only wait for each other, with more than one collective among them.

Where nobody else is on its links, a chain is one event instead of one for every collective (``cmsim.network.train``).
A tensor-parallel pass of a training step is such a chain: work, all-reduce, work, all-reduce. Classes that meet in its
collectives go through it together where they have the same work to do between them, so that none waits for another
after the first: ranks of one stage that differ in whom they send to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.engine.plan import Plan
from cmsim.engine.steps import Steps
from cmsim.network import Demand, Network, Train
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
    """

    steps: list[int]
    timing: Timing
    first: Ints
    last: Ints
    rows: list[int]


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
    out = np.full(groups.shape, -1, np.int64)
    for slot, named in enumerate(groups.T):
        classes = np.flatnonzero(named >= 0)
        _, first, group, count = np.unique(named[classes], return_index=True, return_inverse=True, return_counts=True)
        leader = classes[first][group]
        unlike = np.bincount(group, weights=alike[classes] != alike[leader], minlength=len(first))
        one = (count == parties[named[classes[first]]]) & (unlike == 0)
        out[classes[one[group]], slot] = leader[one[group]]
    found: list[list[int]] = out.tolist()
    return found


def chains(
    steps: Steps,
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
    for some in _linked(steps, _usable(steps, called, members, calls), members):
        key = held[some].tobytes() + called[some].tobytes()
        if key not in known:
            known[key] = _timing(held[some].tolist(), called[some].tolist(), calls, network)
        number[some], place[some] = len(out), np.arange(len(some))
        before = np.append(0, np.cumsum(rows[some])).tolist()
        out.append(Chain(some.tolist(), known[key], first[some], last[some], before))
    return out, number.tolist(), place.tolist()


def _usable(steps: Steps, call: Ints, who: Ints, calls: Sequence[Phases]) -> NDArray[np.bool_]:
    """Local work, and collectives of somebody whose phases are one demand that no change of links concerns."""
    kind = np.array(steps.kind, np.int64)
    plain = [all(len(phase) == 1 and not phase[0].later for phase in phases) for phases in calls]
    usable: NDArray[np.bool_] = (kind <= HOST) | (
        (kind == COLLECTIVE) & (who >= 0) & np.array([*plain, False], bool)[call]
    )
    return usable


def _linked(steps: Steps, usable: NDArray[np.bool_], who: Ints) -> list[Ints]:
    """Longest runs of usable steps of the same who, each of which nobody awaits but the next, which waits for nobody
    else; from a collective to a collective."""
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


def _timing(hold_ps: Sequence[int], call: Sequence[int], calls: Sequence[Phases], network: Network) -> Timing:
    demands: list[Demand] = []
    rates: list[float] = []
    begins: list[int] = []
    ends: list[int] = []
    of_step: list[int] = []
    of_phase: list[int] = []
    part: list[int] = []
    starts: list[int] = []
    stops: list[int] = []
    at = 0
    for step, (held, number) in enumerate(zip(hold_ps, call, strict=True)):
        starts.append(at)
        part.append(len(demands))
        at += held
        for phase, (demand,) in enumerate(calls[number] if number >= 0 else ()):
            at += demand.latency_ps
            if demand.size_B > 0:
                rate_Bps, took_ps = network.pace(demand)
                demands.append(demand)
                rates.append(rate_Bps)
                begins.append(at)
                at += took_ps
                ends.append(at)
                of_step.append(step)
                of_phase.append(phase)
        stops.append(at)
    train = Train(demands, rates, begins, ends, at)
    return Timing(train, np.array(starts), np.array(stops), [*part, len(demands)], of_step, of_phase)
