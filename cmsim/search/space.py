"""All plans of a space, as blocks: one for each way to place ranks, in it every pass, order and step in columns.

A plan is a layout (who shares what), a pass (micro-batch, recomputation, ...), an order of passes and a step (what
comes once: sharding of states). The axes of each role are multiplied out once; a block holds arrays of shape (passes,
orders, steps). What does not go together is refused by the functions that make programs, and counted by reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.search import axes
from cmsim.search.axes import LAYOUT, ORDER, PASS, STEP, Question
from cmsim.search.held import ALONE, held, many, shape, whole_B
from cmsim.workload.generate.plan import Planned, plan_of

#: plans that are held at once, at most
MOST = 30_000_000
#: why a plan is not priced: by the key that the generator complains of
REASONS = {
    "ranks": "more ranks than there are",
    "parallel": "sizes do not divide the ranks",
    "parallel.tp": "tp does not divide the heads",
    "parallel.cp": "cp does not divide the sequence, or the heads",
    "parallel.cp_comm_type": "context parallelism does not go so",
    "parallel.pp": "more stages than layers, or layers that do not divide",
    "parallel.ep": "ep does not divide the ranks of a stage, or is above the experts",
    "parallel.expert_tp": "expert_tp does not divide",
    "parallel.virtual_stages": "virtual stages do not divide",
    "overlap_experts": "the schedule has no forward beside a backward",
    "mtp_layers": "modules that predict further tokens have no room on the last stage",
    "global_batch": "micro_batch x dp does not divide the batch",
    "memory": "does not fit the memory",
    "same": "the same plan as another",
    "order": "virtual stages without an interleaved schedule, or the other way round",
}
#: codes of outcomes in a block: 0 is a plan that goes
GOES = 0
_COUNT = "the schedule does not take so many micro-batches"
_MEMORY, _SAME, _ORDER, _BATCH = "memory", "same", "order", "global_batch"


@dataclass
class PlanBlock:
    """All plans of one layout; arrays have shape (passes, orders, steps).

    values     of the layout's keys    planned  what the generator makes of them
    reason     code into ``Space.reasons`` of what refuses a plan, 0 for none
    memory_B   of the fullest rank [B]
    micro_batches  of each pass, 0 where the batch does not divide, shape (passes,)
    time_s, bound_s   as priced, and what no play of it can beat; NaN where it is refused [s]
    busy_s     of it a mean rank is in kernels [s]
    """

    values: Mapping[str, Any]
    planned: Planned
    micro_batches: Ints
    reason: NDArray[np.int8]
    memory_B: Floats
    time_s: Floats = field(default_factory=lambda: np.zeros(0))
    bound_s: Floats = field(default_factory=lambda: np.zeros(0))
    busy_s: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def goes(self) -> NDArray[np.bool_]:
        out: NDArray[np.bool_] = self.reason == GOES
        return out


@dataclass
class Space:
    """Every plan of a question within the values of its axes.

    values    of every axis    passes, orders, steps   the axes of each role multiplied out
    reasons   what codes of blocks mean, "" first    refused  plans of layouts that do not go at all, by reason
    """

    asked: Question
    values: Mapping[str, tuple[Any, ...]]
    passes: list[dict[str, Any]]
    orders: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    reasons: list[str] = field(default_factory=lambda: [""])
    refused: dict[str, int] = field(default_factory=dict)
    blocks: list[PlanBlock] = field(default_factory=list)
    _said: dict[str, str] = field(default_factory=dict)
    _orders: dict[tuple[Any, ...], Planned | str] = field(default_factory=dict)

    @cached_property
    def named_passes(self) -> list[tuple[tuple[str, Any], ...]]:
        """Passes as keys and values in order, to look things up by."""
        return [tuple(one.items()) for one in self.passes]

    @cached_property
    def named_steps(self) -> list[tuple[tuple[str, Any], ...]]:
        return [tuple(one.items()) for one in self.steps]

    @property
    def each(self) -> int:
        """Plans of one layout."""
        return len(self.passes) * len(self.orders) * len(self.steps)

    @property
    def layouts(self) -> int:
        return _product(self.values[key] for key in _of(self.values, LAYOUT))

    @property
    def plans(self) -> int:
        """All combinations of the axes' values."""
        return self.layouts * self.each

    def counts(self) -> dict[str, int]:
        """Plans that are refused, by reason, most first."""
        found = dict(self.refused)
        for block in self.blocks:
            each = np.bincount(block.reason.ravel(), minlength=len(self.reasons))
            for reason, count in zip(self.reasons[1:], each[1:].tolist(), strict=True):
                found[reason] = found.get(reason, 0) + count
        some = ((reason, count) for reason, count in found.items() if count)
        return dict(sorted(some, key=lambda one: (-one[1], one[0])))

    def code(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def plan(self, block: PlanBlock, at: int) -> dict[str, Any]:
        """Values of all keys of a plan, by its flat place in a block; sizes that follow from others are resolved."""
        p, o, s = np.unravel_index(at, block.reason.shape)
        found = {**block.values, **self.passes[p], **self.orders[o], **self.steps[s]}
        return {**found, "parallel.dp": block.planned.layout.dp}

    def contradictions(self, block: PlanBlock) -> Iterator[tuple[Any, str]]:
        """Where in a block keys of passes, or of steps, contradict each other or the layout's; and how."""
        for number, (cases, free) in enumerate(((self.passes, "micro_batch"), (self.steps, ""))):
            for row, case in enumerate(cases):
                values = {key: value for key, value in case.items() if key != free}
                key = str(
                    (number, values, *(block.values[f"parallel.{name}"] == 1 for name in ("tp", "cp", "pp", "ep")))
                )
                if key not in self._said:
                    self._said[key] = _contradiction(self.asked, {**block.values, **values})
                if self._said[key]:
                    yield (row if not number else (slice(None), slice(None), row)), self._said[key]

    def order(self, block: PlanBlock, p: int, o: int) -> Planned | str:
        """What the generator makes of an order of passes, or the reason why it makes nothing of it."""
        pp, m = block.planned.layout.pp, int(block.micro_batches[p])
        expert = has_experts(block.planned)
        key = (pp, m, o, expert)
        if key not in self._orders:
            self._orders[key] = self._settled(block, p, o)
        return self._orders[key]

    def _settled(self, block: PlanBlock, p: int, o: int) -> Planned | str:
        asked = self.asked
        spec = axes.at(asked.spec, {**block.values, **self.passes[p], **self.orders[o], **self.steps[0]})
        try:
            return plan_of(spec, asked.system, asked.base, model=asked.model)
        except InfeasibleError as error:
            # the batch divides, or nobody would ask
            return _COUNT if error.problems[0].key == "global_batch" else reason_of(error)


def _contradiction(asked: Question, values: Mapping[str, Any]) -> str:
    """What the schema says against values that it takes one by one; "" where nothing."""
    try:
        axes.settled(asked.spec, values)
    except InputError as error:
        return f"keys that contradict each other: {error.problems[0].key or 'workload'}"
    return ""


def has_experts(planned: Planned) -> bool:
    """Whether experts are on several ranks."""
    return planned.mixture is not None and planned.mixture.ranks > 1


def reason_of(error: InfeasibleError) -> str:
    key = error.problems[0].key
    return REASONS.get(key, f"{key}: {error.problems[0].message}" if key else error.problems[0].message)


def space(asked: Question, values: Mapping[str, tuple[Any, ...]], progress: Callable[[float], None] | None) -> Space:
    """The space, every plan of it checked. Raises InputError where it has more plans than can be held."""
    passes, orders, steps = (_multiplied(values, role) for role in (PASS, ORDER, STEP))
    out = Space(asked, values, passes, orders, steps)
    if out.plans > MOST:
        most = max(values, key=lambda key: len(values[key]))
        raise InputError(
            Problem(
                f"the space has {out.plans:,} plans; allowed: up to {MOST:,}. Restrict an axis: {most} has "
                f"{len(values[most])} values",
                key="search.axes",
            )
        )
    layouts = _multiplied(values, LAYOUT)
    for number, one in enumerate(layouts):
        _settle(out, one)
        if progress is not None:
            progress((number + 1) / len(layouts))
    return out


def _of(values: Mapping[str, Sequence[Any]], role: str) -> list[str]:
    known = axes.there()
    return [key for key in values if known[key].role == role]


def _multiplied(values: Mapping[str, Sequence[Any]], role: str) -> list[dict[str, Any]]:
    keys = _of(values, role)
    return [dict(zip(keys, one, strict=True)) for one in itertools.product(*(values[key] for key in keys))]


def _product(lists: Iterator[Sequence[Any]] | Any) -> int:
    out = 1
    for one in lists:
        out *= len(one)
    return out


def _settle(found: Space, values: Mapping[str, Any]) -> None:
    """Add the plans of a layout to a space."""
    asked = found.asked
    first = min((one["micro_batch"] for one in found.passes), default=asked.spec.micro_batch)
    spec = axes.at(asked.spec, {**values, "micro_batch": first, "global_batch": many(asked, first)})
    world = asked.ranks
    try:
        if values["parallel.dp"] != "auto":  # a plan is on all ranks
            sizes = [values[f"parallel.{name}"] for name in ("tp", "cp", "pp", "dp")]
            if np.prod(sizes) != world:
                raise InfeasibleError(Problem("", key="parallel"))
        planned = plan_of(spec, asked.system, asked.base, model=asked.model)
    except InfeasibleError as error:
        reason = reason_of(error)
        found.refused[reason] = found.refused.get(reason, 0) + found.each
        return
    shape = len(found.passes), len(found.orders), len(found.steps)
    each = np.array([one["micro_batch"] for one in found.passes]) * planned.layout.dp
    batch = asked.spec.global_batch
    block = PlanBlock(
        values, planned, np.where(batch % each == 0, batch // each, 0), np.zeros(shape, np.int8), np.zeros(shape)
    )
    _refuse(found, block)
    if block.goes.any():
        _weigh(found, block)
    found.blocks.append(block)


def _refuse(found: Space, block: PlanBlock) -> None:
    """Mark plans of a block that do not go together, or are others under another name."""
    layout = block.planned.layout
    alone = layout.dp * layout.cp == 1
    expert = has_experts(block.planned)
    same = np.zeros(block.reason.shape, bool)
    kinds = found.values.get("parallel.cp_comm_type", ())
    same |= layout.cp == 1 and len(kinds) > 1 and block.values["parallel.cp_comm_type"] != kinds[0]
    if layout.tp == 1:
        keys = [key for key in ("parallel.sequence_parallel", "tp_overlap") if key in found.passes[0]]
        same |= np.array([_other(one, found.passes[0], keys) for one in found.passes])[:, None, None]
    if layout.pp == 1:
        same |= np.array([_other(one, found.orders[0], list(one)) for one in found.orders])[None, :, None]
    elif not expert and "overlap_experts" in found.orders[0]:
        same |= np.array([_other(one, found.orders[0], ["overlap_experts"]) for one in found.orders])[None, :, None]
    if alone:
        same |= np.array([_other(one, found.steps[0], list(one)) for one in found.steps])[None, None, :]
    for where, text in found.contradictions(block):
        block.reason[where] = found.code(text)
    block.reason[same] = found.code(REASONS[_SAME])
    if layout.pp > 1:
        odd = np.array([_odd(one) for one in found.orders])
        block.reason[:, odd, :] = found.code(REASONS[_ORDER])
    block.reason[block.micro_batches == 0] = found.code(REASONS[_BATCH])
    for p, o in np.argwhere(block.goes.any(axis=2)).tolist():
        made = found.order(block, p, o)
        if isinstance(made, str):
            block.reason[p, o, block.goes[p, o]] = found.code(made)


def _other(one: Mapping[str, Any], first: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return any(one[key] != first[key] for key in keys)


def _odd(order: Mapping[str, Any]) -> bool:
    """Whether virtual stages and schedule contradict each other."""
    several = order.get("parallel.virtual_stages", 1) > 1
    return "schedule" in order and several != (order["schedule"] == "interleaved")


def _weigh(found: Space, block: PlanBlock) -> None:
    """Memory of the fullest rank of every plan, and who does not fit."""
    asked, known = found.asked, {}
    layout = {**block.values, "parallel.dp": block.planned.layout.dp}
    for o in np.flatnonzero(block.goes.any(axis=(0, 2))).tolist():
        ps = np.flatnonzero(block.goes[:, o].any(axis=1)).tolist()
        order = {**layout, **found.orders[o]}
        made = [found.order(block, p, o) for p in ps]
        planned = [one for one in made if isinstance(one, Planned)]
        its = shape(planned[0])
        if its not in known:
            known[its] = held(asked, order, found.passes, found.steps, np.asarray(block.goes.any(axis=(1, 2))))
        if found.orders[o].get("schedule") in ALONE:
            first = found.steps[0]
            moving = np.stack(
                [whole_B(asked, one, {**order, **found.passes[p], **first}) for p, one in zip(ps, planned, strict=True)]
            )
        else:
            moving = known[its].moving_B(ps, planned)
        block.memory_B[ps, o, :] = (moving[:, None, :] + known[its].states_B[None, :, :]).max(axis=2)
    block.reason[block.goes & (block.memory_B > asked.system.rank_memory_B)] = found.code(REASONS[_MEMORY])
