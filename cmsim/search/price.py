"""The time of a step in closed form, over columns of plans.

    step = fill + (m - 1) x cycle + drain + what gathering, reducing and updating leave exposed

cycle is that of the slowest stage, or of the loop of messages that 1F1B waits for; what fills and drains is a v-th of
it with v virtual stages, and less with zero bubbles. Passes and messages take what `probes` found. It ranks plans; what
it leaves out (what side by side share of the network, stages that wait in turns) is what simulation of the best is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.search.axes import Question
from cmsim.search.probes import Answer, Hop, PassTimes, StepTimes, Wanted, kinds_of
from cmsim.search.space import PlanBlock, Space
from cmsim.workload.generate.training import Planned

#: keys of a layout that a pass takes notice of
_PASS_KEYS = ("parallel.tp", "parallel.cp", "parallel.ep", "parallel.expert_tp")


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
    kinds = kinds_of(space.asked.model)
    on: dict[int, Floats] = {}
    for number, block in enumerate(space.blocks):
        block.time_s = np.full(block.reason.shape, np.nan)
        block.bound_s = np.full(block.reason.shape, np.nan)
        block.busy_s = np.full(block.reason.shape, np.nan)
        if block.goes.any():
            _price(space, block, found, kinds, on)
        if progress is not None:
            progress((number + 1) / len(space.blocks))


def _price(
    space: Space, block: PlanBlock, found: Mapping[Wanted, Answer], kinds: list[Any], known: dict[int, Floats]
) -> None:
    """known: layers on stages, by the identity of what the space keeps of an order."""
    goes = block.goes
    ps = np.flatnonzero(goes.any(axis=(1, 2)))
    steps = _step_columns(space, block, found, np.flatnonzero(goes.any(axis=(0, 1))), len(kinds) + 1)
    passes = _Passes([found[_pass_item(space, block, p)] for p in ps.tolist()], _hop(block, found))
    m = block.micro_batches[ps].astype(float)
    for o in np.flatnonzero(goes.any(axis=(0, 2))).tolist():
        first = int(np.flatnonzero(goes[:, o, :].any(axis=1))[0])
        planned = space.order(block, first, o)
        assert isinstance(planned, Planned)
        if id(planned) not in known:
            known[id(planned)] = _on_stages(space.asked, planned, kinds)
        time_s, bound_s, busy_s = _step_s(passes, known[id(planned)], m, space.orders[o], steps, space.steps)
        block.time_s[ps, o, :] = time_s
        block.bound_s[ps, o, :] = bound_s
        block.busy_s[ps, o, :] = busy_s[:, None]
    block.time_s[~goes] = np.nan
    block.bound_s[~goes] = np.nan


class _Passes:
    """Columns of passes: shape (passes, kinds) and (passes, 2)."""

    def __init__(self, answers: list[Any], hop: Hop | None):
        self.forward, self.backward, self.work_forward, self.work_backward = (
            np.stack([getattr(one, name) for one in answers])
            for name in ("forward", "backward", "work_forward", "work_backward")
        )
        self.ends_forward, self.ends_backward, self.ends_work = (
            np.stack([getattr(one, name) for one in answers]) for name in ("ends_forward", "ends_backward", "ends_work")
        )
        size_B = np.array([one.boundary_B for one in answers])
        self.hop_s = np.zeros(len(answers)) if hop is None else hop.latency_s + hop.each_s * size_B
        assert all(isinstance(one, PassTimes) for one in answers)


def _hop(block: PlanBlock, found: Mapping[Wanted, Answer]) -> Hop | None:
    if block.planned.layout.pp == 1:
        return None
    hop = found[_hop_item(block)]
    assert isinstance(hop, Hop)
    return hop


def _step_columns(
    space: Space, block: PlanBlock, found: Mapping[Wanted, Answer], which: Ints, width: int
) -> dict[str, Floats]:
    """Messages and update of a layer of each kind and of the ends, shape (steps, kinds + 1), 0 where no plan goes."""
    out = {name: np.zeros((len(space.steps), width)) for name in ("gather", "reduce", "update")}
    for s in which.tolist():
        one = found[_step_item(space, block, s)]
        assert isinstance(one, StepTimes)
        for name, column in out.items():
            column[s] = getattr(one, name)
    return out


def _on_stages(asked: Question, planned: Planned, kinds: list[Any]) -> Floats:
    """Layers of each kind on each stage, shape (kinds, stages). [1]"""
    out = np.zeros((len(kinds), planned.layout.pp))
    for stage, held in enumerate(planned.stage_layers):
        for layer in _flat(held):
            out[kinds.index(asked.model.kind(layer)), stage] += 1
    return out


def _flat(held: Any) -> list[int]:
    """Layers of a stage, whose virtual stages may be apart."""
    return [held] if isinstance(held, int) else [layer for one in held for layer in _flat(one)]


def _step_s(
    passes: _Passes,
    on: Floats,
    m: Floats,
    order: Mapping[str, Any],
    step: Mapping[str, Floats],
    steps: list[dict[str, Any]],
) -> tuple[Floats, Floats, Floats]:
    """Time and bound of a step, shape (passes, steps) each, and the time in kernels of a mean rank, shape (passes,).
    [s]"""
    forward, backward = passes.forward @ on, passes.backward @ on
    work = (passes.work_forward + passes.work_backward) @ on
    work_forward = passes.work_forward @ on
    for columns, ends in ((forward, passes.ends_forward), (backward, passes.ends_backward), (work, passes.ends_work)):
        columns[:, 0] += ends[:, 0]
        columns[:, -1] += ends[:, 1]
    pipe = pipeline_s(forward, backward, passes.hop_s, m, order)
    update = (step["update"][:, :-1] @ on).max(axis=1) + step["update"][:, -1] / 2
    time = pipe[:, None] + _exposed_s(forward, backward, on, m, step, steps, pipe) + update[None, :]
    parts = order.get("parallel.virtual_stages", 1)
    if order.get("schedule") == "dualpipe":
        before = 0.0 * work_forward
    else:
        before = (np.cumsum(work_forward, axis=1) - work_forward) / parts
    least = (m[:, None] * work + before).max(axis=1)
    own = (step["update"][:, :-1] @ on).min(axis=1)
    return time, least[:, None] + own[None, :], m * work.mean(axis=1)


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
        return m * slowest + np.maximum(idle, 0.0) + messages
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
    steps: list[dict[str, Any]],
    pipe: Floats,
) -> Floats:
    """What messages of weights and gradients add, shape (passes, steps): of the first stage, whose passes come first
    and last. [s]"""
    layers = max(on[:, 0].sum(), 1.0)
    gather, reduce = (step[name][:, :-1] @ on[:, 0] + step[name][:, -1] / 2 for name in ("gather", "reduce"))
    # of one layer: messages may run beside the passes of the others
    beside = {
        "forward": (forward[:, :1] * (layers - 1) / layers),
        "backward": (backward[:, :1] * (layers - 1) / layers),
    }
    whole = gather + reduce
    overlapped = gather / layers + np.maximum(gather * (layers - 1) / layers - beside["forward"], 0.0)
    overlapped = overlapped + reduce / layers + np.maximum(reduce * (layers - 1) / layers - beside["backward"], 0.0)
    # split weights come again with every pass, beside it as far as there is time; the first layer's weights wait for
    # the last gradients of the micro-batch before
    each = m[:, None] * (gather / 2 + reduce) / layers + np.maximum(m[:, None] * whole - pipe[:, None], 0.0)
    apart = np.array([not one.get("overlap_data_parallel", True) for one in steps])
    split = np.array([one.get("zero_stage", 0) == 3 or one.get("fsdp", "none") != "none" for one in steps])
    return np.where(split, each, np.where(apart, whole, overlapped))
