"""What passes and steps of a plan take, measured on a few layers: programs, prices and play as of any run.

Three layers of a kind on three stages, one micro-batch: the middle stage shows what a layer takes, the others what the
token table and the head add. One layer, then two, on all data-parallel ranks: messages and update of a layer. Two ranks
as far apart as stages are: what a message between them takes. What a new key of the workload does to any of these is in
the answer without another line here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmsim import engine, side_by_side
from cmsim.arrays import Floats
from cmsim.execution import options_of, system
from cmsim.kinds.training import TrainingSpec
from cmsim.scenario import Run
from cmsim.search import axes, together
from cmsim.search.axes import Question
from cmsim.search.together import number, of_stage
from cmsim.units import PS_PER_S
from cmsim.workload.generate import training
from cmsim.workload.model import LayerKind, ModelSpec, load_model
from cmsim.workload.ops import COMPUTE, RECV, SEND, Programs

#: what a step does once, by the names that programs have for it
_STEP_STREAM, _UPDATE = "dp", "optimizer"
#: variants of a layout that are priced together, at most
_AT_ONCE = 16
#: keys that say something of all layers of a model, and nothing of a few
_OF_ALL = {"mtp_layers": 0, "precision.layers_at_start_in_bf16": 0, "precision.layers_at_end_in_bf16": 0}
#: layers, and stages, of the first probe
_THREE = 3
#: of what the head adds to a pass, the part that is forward: one product of three
_FORWARD = 1 / 3


@dataclass(frozen=True)
class PassTimes:
    """What one micro-batch takes on a stage. Shapes (layer kinds,), of the ends (2,): first stage, last stage. [s]

    forward, backward   of a layer    ends_forward, ends_backward   beyond its layers
    work_forward, work_backward, ends_work   kernels alone: what no order of passes can hide
    boundary_B          of the message between stages [B]
    """

    forward: Floats
    backward: Floats
    ends_forward: Floats
    ends_backward: Floats
    work_forward: Floats
    work_backward: Floats
    ends_work: Floats
    boundary_B: float


@dataclass(frozen=True)
class StepTimes:
    """What comes beside passes, in layers of each kind and, last, at the ends of the model. Shape (kinds + 1,). [s]

    gather, reduce   messages of weights and of gradients    update   the optimizer
    """

    gather: Floats
    reduce: Floats
    update: Floats


@dataclass(frozen=True)
class Hop:
    """A message from stage to stage: fixed part [s], and for every byte [s/B]."""

    latency_s: float
    each_s: float

    def seconds(self, size_B: float) -> float:
        return self.latency_s + self.each_s * size_B


Answer = PassTimes | StepTimes | Hop
#: keys of a workload and their values, in order
Values = tuple[tuple[str, Any], ...]


class Wanted(NamedTuple):
    """Something to be measured: what, on which layout, with which pass or step."""

    which: str
    layout: Values
    variant: Values = ()


def kinds_of(model: ModelSpec) -> list[LayerKind]:
    """Kinds of layers, the most frequent first."""
    every = [model.kind(layer) for layer in range(model.layers)]
    return sorted(dict.fromkeys(every), key=lambda kind: (-every.count(kind), every.index(kind)))


def few(model: ModelSpec, kind: LayerKind, layers: int) -> ModelSpec:
    """A model with a few layers of one kind."""
    return replace(
        model,
        layers=layers,
        dense_layers=layers if kind.ffn == "dense" else 0,
        kinds=(kind,) * layers if model.kinds else (),
        window_layers=min(model.window_layers, layers),
    )


def measure(
    one: Run, asked: Question, wanted: Sequence[Wanted], *, jobs: int | None, progress: Callable[[float], None] | None
) -> dict[Wanted, Answer]:
    """The answer to each, over processes where that is sooner. Those of one layout are priced together."""
    alike: dict[tuple[str, Values], list[Wanted]] = {}
    for each in wanted:
        alike.setdefault((each.which, each.layout), []).append(each)
    items = [group[at : at + _AT_ONCE] for group in alike.values() for at in range(0, len(group), _AT_ONCE)]

    def here(item: list[Wanted]) -> list[Answer]:
        return _answers(one, asked, item)

    away = functools.partial(_away, one, asked.base)
    out: dict[Wanted, Answer] = {}
    for at, answers in enumerate(side_by_side.in_order(here, away, items, jobs)):
        out.update(zip(items[at], answers, strict=True))
        if progress is not None:
            progress((at + 1) / len(items))
    return out


def _away(one: Run, base: Path | None, item: list[Wanted]) -> list[Answer]:
    return _answers(one, _question(one, base), item)


#: in a process that was started for it: what is trained on what
_ASKED: dict[str, Question] = {}


def _question(one: Run, base: Path | None) -> Question:
    if one.key not in _ASKED:
        assert isinstance(one.spec, TrainingSpec)
        _ASKED[one.key] = Question(one.spec, system(one, base=base), load_model(one.spec.model, base=base), base)
    return _ASKED[one.key]


def _answers(one: Run, asked: Question, item: Sequence[Wanted]) -> list[Answer]:
    """Of items that differ in their variants alone."""
    layout, variants = dict(item[0].layout), [dict(each.variant) for each in item]
    how = engine_options(one, asked)
    if item[0].which == "pass":
        return list(_passes(asked, how, layout, variants))
    if item[0].which == "step":
        return list(_steps(asked, how, layout, variants))
    return [_hop(asked, how, layout)]


# one micro-batch


def _passes(
    asked: Question, how: engine.Options, layout: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]
) -> list[PassTimes]:
    size, ep = layout["parallel.tp"] * layout["parallel.cp"], layout["parallel.ep"]
    dp = math.lcm(size, ep) // size
    at = {**layout, "parallel.dp": dp, "zero_stage": 0, "overlap_data_parallel": False, "schedule": "1f1b"}
    at |= {"parallel.virtual_stages": 1, "fsdp": "none", "overlap_experts": False}
    at["parallel.pp"] = _THREE if _THREE * size * dp <= asked.system.ranks else 1
    counts = (_THREE,) if at["parallel.pp"] > 1 else (1, 2)
    kinds = kinds_of(asked.model)
    cases = [(one, kind, count) for one in variants for kind in kinds for count in counts]
    made = [_programs(asked, {**at, **one}, few(asked.model, kind, count)) for one, kind, count in cases]
    plans = engine.plans(made, asked.system, how)
    read = [_of_three(plan) for plan in plans] if len(counts) == 1 else _of_one(plans)
    return [_times(read[first : first + len(kinds)]) for first in range(0, len(read), len(kinds))]


def _times(found: Sequence[Mapping[str, Floats]]) -> PassTimes:
    """Of one variant, for each kind of layers what its first, middle and last stage take."""
    ends = found[0]
    work = ends["work_forward"] + ends["work_backward"]
    return PassTimes(
        np.array([each["forward"][1] for each in found]),
        np.array([each["backward"][1] for each in found]),
        ends["forward"][[0, 2]] - ends["forward"][1],
        ends["backward"][[0, 2]] - ends["backward"][1],
        np.array([each["work_forward"][1] for each in found]),
        np.array([each["work_backward"][1] for each in found]),
        work[[0, 2]] - work[1],
        float(ends["boundary_B"][0]),
    )


def _of_three(plan: engine.Plan) -> dict[str, Floats]:
    """A layer on each of three stages; times of the first, the middle and the last stage."""
    timeline = engine.play(plan)
    ops = plan.programs.ops
    out = {name: np.zeros(_THREE) for name in ("forward", "backward", "work_forward", "work_backward", "boundary_B")}
    for stage in range(_THREE):
        rows, rank_class = of_stage(plan, stage)
        kinds, begin, end = ops.kind[rows], timeline.start_ps[rank_class], timeline.end_ps[rank_class]
        sent, came, last = np.flatnonzero(kinds == SEND), np.flatnonzero(kinds == RECV), _before_step(plan, rows)
        hold = np.where(kinds == COMPUTE, plan.hold_ps[rank_class], 0)
        hold[last:] = 0
        out["boundary_B"][stage] = float(ops.bytes_B[rows][sent[0]])
        if stage == _THREE - 1:
            whole, work = float(begin[sent[-1]] - end[came[0]]), float(hold.sum())
            middle = out["forward"][1] + out["backward"][1], out["work_forward"][1] + out["work_backward"][1]
            out["forward"][stage] = out["forward"][1] + _FORWARD * (whole - middle[0])
            out["work_forward"][stage] = out["work_forward"][1] + _FORWARD * (work - middle[1])
            out["backward"][stage] = whole - out["forward"][stage]
            out["work_backward"][stage] = work - out["work_forward"][stage]
            continue
        out["forward"][stage] = float(begin[sent[0]] - (end[came[0]] if stage else 0))
        out["backward"][stage] = float((begin[sent[1]] if stage else end[:last].max()) - end[came[-1]])
        out["work_forward"][stage] = float(hold[: sent[0]].sum())
        out["work_backward"][stage] = float(hold[sent[0] :].sum())
    return {name: value / (1.0 if name == "boundary_B" else PS_PER_S) for name, value in out.items()}


def _of_one(plans: Sequence[engine.Plan]) -> list[dict[str, Floats]]:
    """One stage of one layer and of two, where there are not ranks enough for three; what ends add is at the last."""
    whole, work = [], []
    for plan in plans:
        rows, rank_class = of_stage(plan, 0)
        last = _before_step(plan, rows)
        kinds = plan.programs.ops.kind[rows][:last]
        whole.append(float(engine.play(plan).end_ps[rank_class][:last].max()) / PS_PER_S)
        work.append(float(plan.hold_ps[rank_class][:last][kinds == COMPUTE].sum()) / PS_PER_S)
    out = []
    for at in range(0, len(plans), 2):
        found = {"boundary_B": np.zeros(_THREE)}
        for name, (one, two) in (("", whole[at : at + 2]), ("work_", work[at : at + 2])):
            stages = np.array([two - one, two - one, one])
            found |= {f"{name}forward": _FORWARD * stages, f"{name}backward": (1 - _FORWARD) * stages}
        out.append(found)
    return out


def _before_step(plan: engine.Plan, rows: slice) -> int:
    """Row of a program where what comes once a step begins."""
    ops = plan.programs.ops
    found = np.flatnonzero(
        (ops.kernel[rows] == number(ops.kernels, _UPDATE)) | (ops.stream[rows] == number(ops.streams, _STEP_STREAM))
    )
    return int(found[0]) if len(found) else rows.stop - rows.start


# what comes once a step


def _steps(
    asked: Question, how: engine.Options, layout: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]
) -> list[StepTimes]:
    """Messages and update of one layer and of two, of each kind, all priced in one plan."""
    at = {**layout, "parallel.pp": 1, "micro_batch": 1, "schedule": "1f1b", "parallel.virtual_stages": 1}
    kinds = kinds_of(asked.model)
    made = [
        _programs(asked, {**at, **one}, few(asked.model, kind, count))
        for one in variants
        for kind in kinds
        for count in (1, 2)
    ]
    seconds = together.once_a_step(made, asked.system, how, stream=_STEP_STREAM, update=_UPDATE)
    out = []
    for each in seconds.reshape(len(variants), len(kinds), 2, 3):
        ends = np.maximum(2 * each[0, 0] - each[0, 1], 0.0)
        out.append(StepTimes(*np.vstack([each[:, 1] - each[:, 0], ends]).T))
    return out


def _hop(asked: Question, how: engine.Options, layout: Mapping[str, Any]) -> Hop:
    """From a rank to the one as many further on as a stage has."""
    at = {"parallel.tp": 1, "parallel.cp": 1, "parallel.ep": 1, "parallel.pp": 2, "parallel.dp": layout["ranks"]}
    at |= {"schedule": "1f1b", "parallel.virtual_stages": 1, "zero_stage": 0, "micro_batch": 1, "fsdp": "none"}
    plan = engine.plan(_programs(asked, at, few(asked.model, kinds_of(asked.model)[0], 2)), asked.system, how)
    rows, rank_class = of_stage(plan, 0)
    call = plan.calls[int(plan.call[rank_class][np.flatnonzero(plan.programs.ops.kind[rows] == SEND)[0]])]
    return Hop(call.latency_s, max(call.ideal_s - call.latency_s, 0.0) / call.size_B)


def engine_options(one: Run, asked: Question) -> engine.Options:
    """What the scenario says to the planner, of ranks that are alike."""
    return replace(options_of(one, asked.system), fold=True, perturb={}, jitter=None, faults=())


def _programs(asked: Question, values: Mapping[str, Any], model: ModelSpec) -> Programs:
    sizes = [int(values[f"parallel.{name}"]) for name in ("tp", "cp", "pp", "dp")]
    at = {key: value for key, value in {**values, **_OF_ALL}.items() if axes.has(key)}
    at |= {"ranks": math.prod(sizes), "global_batch": int(at.get("micro_batch", 1)) * sizes[3]}
    return training.programs(axes.at(asked.spec, at), asked.system, asked.base, model=model)
