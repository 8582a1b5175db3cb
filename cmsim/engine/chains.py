"""Chains: steps of one rank class that only wait for each other, with more than one collective of its own among them.

Where nobody else is on its links, a chain is one event instead of one for every collective (``cmsim.network.train``).
A tensor-parallel pass of a training step is such a chain: work, all-reduce, work, all-reduce.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.engine.steps import Steps
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
    """

    steps: list[int]
    timing: Timing
    first: Ints
    last: Ints
    rows: list[int]


def chains(
    steps: Steps,
    hold_ps: Sequence[int],
    call: Sequence[int],
    own: Sequence[bool],
    calls: Sequence[Phases],
    network: Network,
) -> tuple[list[Chain], list[int], list[int]]:
    """Chains of a class, and of each step the chain (-1: none) and its place there.

    hold_ps  of each step    call  of each step, -1 for holds    own  whether nobody but the class takes part in it
    """
    number, place = [-1] * len(hold_ps), [0] * len(hold_ps)
    out: list[Chain] = []
    known: dict[bytes, Timing] = {}
    held, called = np.array(hold_ps, np.int64), np.array(call, np.int64)
    first, last = np.array(steps.first, np.int64), np.array(steps.last, np.int64)
    for members in _linked(steps, _usable(steps, called, own, calls)):
        which = np.array(members)
        key = held[which].tobytes() + called[which].tobytes()
        if key not in known:
            known[key] = _timing(held[which].tolist(), called[which].tolist(), calls, network)
        for at, step in enumerate(members):
            number[step], place[step] = len(out), at
        rows = np.append(0, np.cumsum(last[which] - first[which] + 1)).tolist()
        out.append(Chain(members, known[key], first[which], last[which], rows))
    return out, number, place


def _usable(steps: Steps, call: Ints, own: Sequence[bool], calls: Sequence[Phases]) -> NDArray[np.bool_]:
    """Local work, and collectives of the class alone whose phases are one demand that no change of links concerns."""
    kind = np.array(steps.kind, np.int64)
    plain = [all(len(phase) == 1 and not phase[0].later for phase in phases) for phases in calls]
    usable: NDArray[np.bool_] = (kind <= HOST) | (
        (kind == COLLECTIVE) & np.array(own, bool) & np.array([*plain, False], bool)[call]
    )
    return usable


def _linked(steps: Steps, usable: NDArray[np.bool_]) -> Iterator[list[int]]:
    """Longest runs of usable steps, each of which nobody awaits but the next, which waits for nobody else."""
    kind = steps.kind
    linked = usable & (steps.then >= 0) & usable[steps.then]
    head = usable.copy()
    head[steps.then[linked]] = False
    head &= linked
    after = np.where(linked, steps.then, -1).tolist()
    for step in np.flatnonzero(head).tolist():
        run = []
        while step >= 0:
            run.append(step)
            step = after[step]
        collectives = [i for i, one in enumerate(run) if kind[one] == COLLECTIVE]
        if len(collectives) > 1:
            yield run[collectives[0] : collectives[-1] + 1]


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
    on_clock(at)
    train = Train(demands, rates, begins, ends, at)
    return Timing(train, np.array(starts), np.array(stops), [*part, len(demands)], of_step, of_phase)
