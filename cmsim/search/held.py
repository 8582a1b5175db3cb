"""Memory of plans in columns, from the one function that programs are made with.

It is called for a few plans of a layout; between them memory is a sum: states of each step, what a pass keeps whatever
is in flight, and what every micro-batch in flight adds, all growing evenly with the micro-batch. What is simulated is
weighed again, whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.search import axes
from cmsim.search.axes import Question
from cmsim.workload.generate.plan import Planned, memory_of, plan_of
from cmsim.workload.generate.stages import like
from cmsim.workload.schedules.passes import AtPeak

#: schedules that keep something of every micro-batch: each plan is weighed by itself
ALONE = ("gpipe",)


@dataclass(frozen=True)
class Held:
    """What ranks of every stage hold in plans of one order; shapes (passes, stages), of states (steps, stages). [B]

    fixed_B     of a pass, whatever is in flight    states_B  of a step, beyond those of the first
    each_B      for every micro-batch that is    waiting_B  and for every one whose gradients of weights wait
    """

    fixed_B: Floats
    each_B: Floats
    waiting_B: Floats
    states_B: Floats

    def moving_B(self, passes: Sequence[int], planned: Sequence[Planned]) -> Floats:
        """What passes hold with the first step, each as planned, shape (passes, stages). [B]"""
        flying = np.array(
            [[one.schedule.in_flight(stage) for stage in range(one.layout.pp)] for one in planned], np.float64
        )
        rows = list(passes)
        out: Floats = self.fixed_B[rows] + flying[..., 0] * self.each_B[rows] + flying[..., 1] * self.waiting_B[rows]
        return out


@dataclass(frozen=True)
class _Flying:
    """A schedule that holds given numbers of micro-batches on every rank."""

    of: Any
    count: AtPeak

    def in_flight(self, rank: int) -> AtPeak:  # noqa: ARG002
        return self.count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def shape(planned: Planned) -> tuple[Any, ...]:
    """Plans of a layout whose shapes are equal hold the same, but for what is in flight."""
    stages = ((tuple(len(part.layers) for part in held), held[0].first, held[-1].last) for held in planned.parts)
    apart = tuple((sum(layers), first, last) for layers, first, last in stages)
    return apart, any(len(held) > 1 and held[0].last for held in planned.parts), planned.schedule.copies


def held(
    asked: Question,
    layout: Mapping[str, Any],
    passes: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    wanted: NDArray[np.bool_],
) -> Held:
    """What plans of a layout and an order hold. wanted: which passes are asked for, shape (passes,)."""
    weighs = {key: axis.weighs and key != "micro_batch" for key, axis in axes.there().items()}
    base = _B(asked, layout, passes[0], steps[0], 1, AtPeak(1.0))
    fixed, each, waiting = (np.zeros((len(passes), len(base))) for _ in range(3))
    known: dict[str, tuple[Floats, ...]] = {}
    for p in np.flatnonzero(wanted).tolist():
        others = {key: value for key, value in passes[p].items() if weighs[key]}
        if str(others) not in known:
            cases = (1, AtPeak(0.0)), (2, AtPeak(0.0)), (1, AtPeak(1.0)), (1, AtPeak(0.0, 1.0))
            one, two, flying, waits = (_B(asked, layout, others, steps[0], *case) for case in cases)
            known[str(others)] = 2 * one - two, two - one, flying - one, waits - one
        states, still, flies, waits = known[str(others)]
        size = passes[p]["micro_batch"]
        fixed[p], each[p], waiting[p] = states + still * size, flies * size, waits * size
    more = [
        _B(asked, layout, passes[0], one, 1, AtPeak(1.0)) - base if s else 0.0 * base for s, one in enumerate(steps)
    ]
    return Held(fixed, each, waiting, np.stack(more))


def whole_B(asked: Question, planned: Planned, values: Mapping[str, Any]) -> Floats:
    """Memory of a rank of every stage of a plan as it is, shape (stages,). [B]"""
    return _footprint(asked, axes.at(asked.spec, values), planned, planned.schedule)


def _B(
    asked: Question,
    layout: Mapping[str, Any],
    one: Mapping[str, Any],
    step: Mapping[str, Any],
    micro_batch: int,
    flying: AtPeak,
) -> Floats:
    """Memory of a rank of every stage with so much in flight, shape (stages,). [B]"""
    values = {**layout, **one, **step, "micro_batch": micro_batch}
    # as many micro-batches as any schedule may want, whatever the batch divides by
    spec = axes.at(asked.spec, {**values, "global_batch": many(asked, micro_batch)})
    planned = plan_of(spec, asked.system, asked.base, model=asked.model)
    return _footprint(asked, spec, planned, _Flying(planned.schedule, flying))


def _footprint(asked: Question, spec: Any, planned: Planned, schedule: Any) -> Floats:
    """The one place that asks what a plan holds, shape (stages,): of stages that hold alike, once. [B]"""
    kinds = [_kinds(asked, held) for held in planned.parts]
    first = {kind: stage for stage, kind in reversed(list(enumerate(kinds)))} if isinstance(schedule, _Flying) else {}
    some = sorted(first.values()) or list(range(len(kinds)))
    few = replace(planned, parts=[planned.parts[stage] for stage in some], schedule=schedule)
    found = memory_of(spec, asked.system, few)
    total = np.asarray(np.sum([np.asarray(part) for part in found.values()], axis=0), np.float64)
    return total[[some.index(first[kind]) for kind in kinds]] if first else total


def _kinds(asked: Question, held: Sequence[Any]) -> tuple[Any, ...]:
    """What a stage holds, as far as it matters how much that is."""
    layers = (tuple(asked.model.kind(like(asked.model, layer)) for layer in part.layers) for part in held)
    further = sum(layer >= asked.model.layers for part in held for layer in part.layers)
    return tuple(layers), further, any(part.first for part in held), any(part.last for part in held)


def many(asked: Question, micro_batch: int) -> int:
    """A batch that every plan's micro-batches divide, into a multiple of four times its stages. [1]"""
    return 4 * micro_batch * asked.ranks
