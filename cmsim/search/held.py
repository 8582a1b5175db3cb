"""Memory of plans in columns, from the one function that programs are made with.

It is called for a few plans of a layout; between them memory is a sum: states of each step, what a pass keeps whatever
is in flight, and what every micro-batch in flight adds, both growing evenly with the micro-batch. What is simulated is
weighed again, whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.search import axes
from cmsim.search.axes import Question
from cmsim.workload.generate import training
from cmsim.workload.generate.footprint import footprint_B
from cmsim.workload.schedules.passes import AtPeak

#: schedules whose ranks hold other layers, or more of them, than those of 1F1B
_OTHERS = ("zb_v", "dualpipe")


@dataclass(frozen=True)
class Held:
    """What ranks of every stage hold in plans of one order; shapes (passes, stages), of states (steps, stages). [B]

    fixed_B, each_B   of a pass: whatever is in flight, and for every micro-batch that is
    states_B          of a step, beyond those of the first
    """

    fixed_B: Floats
    each_B: Floats
    states_B: Floats

    def in_flight(self, planned: Any, micro_batches: int) -> Floats:  # noqa: ARG002
        """Micro-batches whose activations ranks hold at their peak, shape (stages,). [1]"""
        return np.array([_weight(planned.schedule.in_flight(stage)) for stage in range(planned.layout.pp)])


@dataclass(frozen=True)
class _Flying:
    """A schedule that holds a given number of micro-batches on every rank."""

    of: Any
    count: float

    def in_flight(self, rank: int) -> AtPeak:  # noqa: ARG002
        return AtPeak(self.count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def _weight(peak: AtPeak) -> float:
    return peak.activations


def footprints(
    asked: Question,
    layout: Mapping[str, Any],
    passes: Sequence[Mapping[str, Any]],
    orders: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    goes: NDArray[np.bool_],
) -> list[Held]:
    """What plans of a layout hold, for each order of passes. goes: which plans are asked for."""
    made: dict[Any, Held] = {}
    out = []
    for o, order in enumerate(orders):
        its = order.get("schedule") if order.get("schedule") in _OTHERS else None
        if its not in made:
            wanted = goes[:, o] if its is not None else np.asarray(goes.any(axis=1))
            made[its] = _held(asked, {**layout, **order}, passes, steps, wanted)
        out.append(made[its])
    return out


def _held(
    asked: Question,
    layout: Mapping[str, Any],
    passes: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    wanted: NDArray[np.bool_],
) -> Held:
    at = {**layout, "micro_batch": 1}
    base = _B(asked, at, passes[0], steps[0], 1, 1.0)
    fixed, each = np.zeros((len(passes), len(base))), np.zeros((len(passes), len(base)))
    known: dict[str, tuple[Floats, Floats, Floats]] = {}
    for p, one in enumerate(passes):
        if not wanted[p].any():
            continue
        others = {key: value for key, value in one.items() if key != "micro_batch"}
        key = str(others)
        if key not in known:
            # empty with one sequence and with two, and with one micro-batch of one sequence in flight
            few = [_B(asked, at, others, steps[0], *case) for case in ((1, 0.0), (2, 0.0), (1, 1.0))]
            known[key] = few[0] - (few[1] - few[0]), few[1] - few[0], few[2] - few[0]
        states, still, flying = known[key]
        fixed[p] = states + still * one["micro_batch"]
        each[p] = flying * one["micro_batch"]
    more = [_B(asked, at, passes[0], one, 1, 1.0) - base if s else 0.0 * base for s, one in enumerate(steps)]
    return Held(fixed, each, np.stack(more))


def _B(
    asked: Question,
    layout: Mapping[str, Any],
    one: Mapping[str, Any],
    step: Mapping[str, Any],
    micro_batch: int,
    flying: float,
) -> Floats:
    """Memory of a rank of every stage of one plan with so much in flight, shape (stages,). [B]"""
    values = {**layout, **one, **step, "micro_batch": micro_batch}
    spec = axes.at(asked.spec, values)
    # as many micro-batches as any schedule may want, whatever the batch divides by
    whole = spec.model_copy(update={"global_batch": many(asked, micro_batch)})
    planned = training.planned(whole, asked.system, asked.model, asked.base)
    parts = footprint_B(
        whole,
        asked.model,
        planned.layout,
        planned.mixture,
        planned.stage_layers,
        _Flying(planned.schedule, flying),  # type: ignore[arg-type]
    )
    return np.asarray(np.sum([np.asarray(part) for part in parts.values()], axis=0), np.float64)


def many(asked: Question, micro_batch: int) -> int:
    """A batch that every plan's micro-batches divide, into a multiple of four times its stages. [1]"""
    return 4 * micro_batch * asked.ranks
