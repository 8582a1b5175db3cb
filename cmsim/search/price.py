"""The time of a step in closed form, over columns of plans.

    step = fill + (m - 1) x cycle + drain + what gathering, reducing and updating leave exposed

cycle is that of the slowest stage, or of the loop of messages that 1F1B waits for; what fills and drains is a v-th of
it with v virtual stages, and less with zero bubbles. Passes and messages take what `probes` found. It ranks plans; what
it leaves out (what side by side share of the network, stages that wait in turns) is what simulation of the best is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.search.axes import Question
from cmsim.search.probes import Answer, Hop, PassTimes, StepTimes, Wanted, kinds_of
from cmsim.search.space import PlanBlock, Space, has_experts
from cmsim.workload.generate.plan import Planned
from cmsim.workload.generate.stages import like

#: keys of a layout that a pass takes notice of
_PASS_KEYS = ("parallel.tp", "parallel.cp", "parallel.cp_comm_type", "parallel.ep", "parallel.expert_tp")


def wanted(space: Space) -> list[Wanted]:
    """What has to be measured to price the plans of a space that go."""
    out: dict[Wanted, None] = {}
    for block in space.blocks:
        goes = block.goes
        for p in np.flatnonzero(goes.any(axis=(1, 2))).tolist():
            out[_pass_item(space, block, p)] = None
        for s in np.flatnonzero(goes.any(axis=(0, 1))).tolist():
            out[_step_item(space, block, s)] = None
        if goes.any() and block.planned.layout.pp > 1:
            out[_hop_item(block)] = None
    return list(out)


def _pass_item(space: Space, block: PlanBlock, p: int) -> Wanted:
    return Wanted("pass", _layout(block), space.named_passes[p])


def _step_item(space: Space, block: PlanBlock, s: int) -> Wanted:
    return Wanted("step", (*_layout(block), ("parallel.dp", block.planned.layout.dp)), space.named_steps[s])


def _hop_item(block: PlanBlock) -> Wanted:
    return Wanted("hop", (("ranks", block.planned.layout.stage_ranks),))


def _layout(block: PlanBlock) -> tuple[tuple[str, Any], ...]:
    return tuple((key, block.values[key]) for key in _PASS_KEYS if key in block.values)


def price(space: Space, found: Mapping[Wanted, Answer], progress: Callable[[float], None] | None = None) -> None:
    """Give every plan that goes a time, and a bound that no play of it beats."""
    groups: dict[tuple[int, bool], list[PlanBlock]] = {}
    for block in space.blocks:
        block.time_s = np.full(block.reason.shape, np.nan)
        block.bound_s = np.full(block.reason.shape, np.nan)
        block.busy_s = np.full(block.reason.shape, np.nan)
        if block.goes.any():
            groups.setdefault((block.planned.layout.pp, has_experts(block.planned)), []).append(block)
    measured = _Measured(space, found)
    own = {"overlap_data_parallel": space.asked.spec.overlap_data_parallel}
    steps = [{**own, **one} for one in space.steps]
    for number, blocks in enumerate(groups.values()):
        _price(space, blocks, measured, steps)
        if progress is not None:
            progress((number + 1) / len(groups))


def _price(space: Space, blocks: list[PlanBlock], measured: _Measured, steps: list[dict[str, Any]]) -> None:
    """Blocks of as many stages, all their passes in columns."""
    each = [np.flatnonzero(block.goes.any(axis=(1, 2))) for block in blocks]
    of = np.repeat(np.arange(len(blocks)), [len(ps) for ps in each])
    m = np.concatenate([block.micro_batches[ps] for block, ps in zip(blocks, each, strict=True)]).astype(float)
    passes = measured.passes(blocks, each)
    step = measured.steps(blocks)
    goes = np.concatenate([block.goes[ps] for block, ps in zip(blocks, each, strict=True)])
    time_s, bound_s, busy_s = (np.full(goes.shape, np.nan) for _ in range(3))
    for o in np.flatnonzero(goes.any(axis=(0, 2))).tolist():
        first = int(np.flatnonzero(goes[:, o].any(axis=1))[0])
        block = blocks[of[first]]
        planned = space.order(block, int(np.concatenate(each)[first]), o)
        assert isinstance(planned, Planned)
        on = _on_stages(space.asked, planned, measured.kinds)
        ends = _at_ends(space.asked, planned)
        early = space.asked.system.stack.training.early_gradients
        time, bound, busy = _step_s(passes, (on, ends), m, space.orders[o], step, of, steps, early)
        time_s[:, o], bound_s[:, o], busy_s[:, o] = time, bound, busy[:, None]
    for column in (time_s, bound_s, busy_s):
        column[~goes] = np.nan
    starts = np.cumsum([0, *(len(ps) for ps in each)])
    for number, (block, ps) in enumerate(zip(blocks, each, strict=True)):
        rows = slice(starts[number], starts[number + 1])
        block.time_s[ps], block.bound_s[ps], block.busy_s[ps] = time_s[rows], bound_s[rows], busy_s[rows]


class _Measured:
    """All answers in columns, and where in them passes and steps of blocks are."""

    def __init__(self, space: Space, found: Mapping[Wanted, Answer]):
        self.space, self.found = space, found
        self.kinds = kinds_of(space.asked.model)
        every = [(item, one) for item, one in found.items() if isinstance(one, PassTimes)]
        self._row = {item: row for row, (item, _) in enumerate(every)}
        self._columns = {
            field.name: np.array([getattr(one, field.name) for _, one in every]) for field in fields(PassTimes)
        }

    def passes(self, blocks: list[PlanBlock], each: list[Ints]) -> dict[str, Floats]:
        """Columns of passes, shape (passes, kinds) and (passes, 2), and what a message takes, shape (passes,)."""
        rows, latency_s, each_s = [], [], []
        for block, ps in zip(blocks, each, strict=True):
            layout = _layout(block)
            rows += [self._row[Wanted("pass", layout, self.space.named_passes[p])] for p in ps.tolist()]
            hop = self.found[_hop_item(block)] if block.planned.layout.pp > 1 else Hop(0.0, 0.0)
            assert isinstance(hop, Hop)
            latency_s.append(hop.latency_s)
            each_s.append(hop.each_s)
        counts = [len(ps) for ps in each]
        out = {name: column[rows] for name, column in self._columns.items()}
        return {**out, "hop_s": np.repeat(latency_s, counts) + np.repeat(each_s, counts) * out["boundary_B"]}

    def steps(self, blocks: list[PlanBlock]) -> dict[str, Floats]:
        """Messages and update of a layer of each kind and of the ends, shape (blocks, steps, kinds + 1), 0 where no
        plan goes."""
        shape = len(blocks), len(self.space.steps), len(self.kinds) + 1
        out = {field.name: np.zeros(shape) for field in fields(StepTimes)}
        for number, block in enumerate(blocks):
            for s in np.flatnonzero(block.goes.any(axis=(0, 1))).tolist():
                one = self.found[_step_item(self.space, block, s)]
                for name, column in out.items():
                    column[number, s] = getattr(one, name)
        return out


def _on_stages(asked: Question, planned: Planned, kinds: list[Any]) -> Floats:
    """Layers of each kind on each stage, shape (kinds, stages). Modules that predict further tokens are like the layers
    they are made as. [1]"""
    number = [kinds.index(asked.model.kind(layer)) for layer in range(asked.model.layers)]
    out = np.zeros((len(kinds), planned.layout.pp))
    for stage, held in enumerate(planned.parts):
        for layer in (layer for part in held for layer in part.layers):
            out[number[like(asked.model, layer)], stage] += 1
    return out


def _at_ends(asked: Question, planned: Planned) -> Floats:
    """How often each stage has what the first and the last have beyond their layers, shape (2, stages): the head comes
    again with every module that predicts further tokens. [1]"""
    out = np.zeros((2, planned.layout.pp))
    for stage, held in enumerate(planned.parts):
        out[0, stage] = sum(part.first for part in held)
        out[1, stage] = sum(part.last for part in held) * (1 + asked.spec.mtp_layers)
    return out


def _step_s(
    passes: Mapping[str, Floats],
    held: tuple[Floats, Floats],
    m: Floats,
    order: Mapping[str, Any],
    step: Mapping[str, Floats],
    of: Ints,
    steps: list[dict[str, Any]],
    early: float,
) -> tuple[Floats, Floats, Floats]:
    """Time and bound of a step, shape (passes, steps) each, and the time in kernels of a mean rank, shape (passes,).
    [s]

    held: layers of each kind, and ends of the model, on each stage    of: the block, in ``step``, of each pass, shape
    (passes,)    early: share of the layers whose gradients are reduced while a pass still runs
    """
    on, ends = held
    forward = passes["forward"] @ on + passes["ends_forward"] @ ends
    backward = passes["backward"] @ on + passes["ends_backward"] @ ends
    work = (passes["work_forward"] + passes["work_backward"]) @ on + passes["ends_work"] @ ends
    work_forward = passes["work_forward"] @ on
    pipe = pipeline_s(forward, backward, passes["hop_s"], m, order)
    updates = step["update"][..., :-1] @ on
    update = updates.max(axis=2) + step["update"][..., -1] / 2
    virtual = order.get("parallel.virtual_stages", 1)
    time = pipe[:, None] + _exposed_s(forward, backward, on, m, step, of, steps, pipe, virtual, early) + update[of]
    if order.get("schedule") == "dualpipe":  # which is filled from both ends
        before = np.zeros_like(work_forward)
    else:
        before = (np.cumsum(work_forward, axis=1) - work_forward) / virtual
    least = (m[:, None] * work + before).max(axis=1)
    return time, least[:, None] + updates.min(axis=2)[of], m * work.mean(axis=1)


def pipeline_s(forward: Floats, backward: Floats, hop_s: Floats, m: Floats, order: Mapping[str, Any]) -> Floats:
    """Time of all passes of a pipeline, shape (plans,). [s]

    forward, backward  of a micro-batch on each stage, shape (plans, stages) [s]
    hop_s  of a message between stages [s]    m  micro-batches [1]    order  names schedule and virtual stages
    """
    return np.asarray(_pipeline_s(forward, backward, hop_s, m, order), np.float64)


def _pipeline_s(forward: Any, backward: Any, hop_s: Any, m: Any, order: Mapping[str, Any]) -> Any:
    """See `pipeline_s`."""
    p = forward.shape[1]
    both = forward + backward
    name = order.get("schedule", "1f1b")
    v = order.get("parallel.virtual_stages", 1)
    slowest, total = both.max(axis=1), both.sum(axis=1)
    if p == 1:
        return m * slowest
    messages = 2 * (p - 1) * hop_s
    if name == "gpipe":
        return total + messages + (m - 1) * (forward.max(axis=1) + backward.max(axis=1))
    if name == "interleaved" or v > 1:
        return m * slowest + (total - slowest) / v + messages
    weights = np.minimum(forward, backward / 2)
    if name == "zb_h1":
        idle = (forward + backward - 2 * weights).sum(axis=1) * (p - 1) / p
        # of few micro-batches gradients of weights all go into bubbles, but for the last
        inputs = both - weights
        few = inputs.sum(axis=1) + (m - 1) * inputs.max(axis=1) + weights.max(axis=1)
        return np.maximum(m * slowest + np.maximum(idle, 0.0), few) + messages
    if name == "zb_v":
        return m * slowest + (p - 1) / 2 * forward.mean(axis=1) + messages
    if name == "dualpipe":
        idle = (forward + 2 * backward - 3 * weights).mean(axis=1) * (p / 2 - 1)
        return m * slowest + np.maximum(idle, 0.0) + messages
    # 1F1B: stage k has p - k micro-batches on their way to the end and back, messages with them
    left = np.arange(p, 0, -1)
    loops = (np.cumsum(both[:, ::-1], axis=1)[:, ::-1] + 2 * hop_s[:, None] * (left - 1)) / left
    waits = np.where(left[None, :] <= m[:, None], loops, 0.0).max(axis=1)
    return total + messages + (m - 1) * np.maximum(slowest, waits)


def _exposed_s(
    forward: Floats,
    backward: Floats,
    on: Floats,
    m: Floats,
    step: Mapping[str, Floats],
    of: Ints,
    steps: list[dict[str, Any]],
    pipe: Floats,
    virtual: int,
    early: float,
) -> Floats:
    """What messages of weights and gradients add, shape (passes, steps): of the first stage, whose passes come first
    and last. [s]"""
    layers = max(float(on[:, 0].sum()), 1.0)
    ends = {name: step[name][..., -1] / 2 for name in ("gather", "reduce")}
    gather, reduce = ((step[name][..., :-1] @ on[:, 0] + ends[name])[of] for name in ("gather", "reduce"))
    whole = gather + reduce
    # those of one layer stand alone, those of the others run beside the passes
    rest = (layers - 1) / layers
    # and gradients of as many as the framework holds back until the pass ends
    late = (1 + np.round((layers - 1) * (1 - early))) / layers
    overlapped = (
        gather / layers
        + reduce * late
        + rest * np.maximum(gather - forward[:, :1], 0.0)
        + (1 - late) * np.maximum(reduce - backward[:, :1], 0.0)
    )
    # split weights come again with every pass, beside it as far as there is time; those of the first layer of a virtual
    # stage wait for the last gradients of the one before
    waited = m[:, None] * virtual * (gather / 2 / layers + reduce * late)
    each = waited + np.maximum(m[:, None] * whole - pipe[:, None], 0.0)
    apart = np.array([not one["overlap_data_parallel"] for one in steps])
    split = np.array([one.get("zero_stage", 0) == 3 or one.get("fsdp", "none") != "none" for one in steps])
    return np.where(split, each, np.where(apart, whole, overlapped))
