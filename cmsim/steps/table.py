"""Costs of steps without playing them: a table of a plan on a system, asked in columns or one step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmsim.arrays import Bools, Floats
from cmsim.errors import InfeasibleError, InputError, Problem, did_you_mean
from cmsim.steps.axes import Axis
from cmsim.steps.plays import COLUMNS
from cmsim.steps.surface import Surface

#: rows at a time: their columns stay in the second-level cache
_CHUNK = 16_384
#: what a need may be above the room by rounding alone
_ROUNDING = 1 + 1e-9

_Ask = Callable[[Sequence[float]], tuple[float, float, float, int]]


class Step(NamedTuple):
    """One step. joules: of the facility, PUE included, in the middle of the band of power; bound: the physical bound
    of the nearest point that was played."""

    seconds: float
    joules: float
    bound: str


@dataclass(frozen=True)
class Steps:
    """Costs of steps, a row each; nan where a step does not fit the memory (``fits``).

    seconds                          of one step [s]
    joules, joules_low, joules_high  of the facility, PUE included: the middle of the band of power, and its ends [J]
    memory_B                         of the fullest rank [B]; also of what does not fit, where it is known
    bound, limiter                   of the nearest point that was played: the physical bound, and what most of the time
                                     went to, as positions in ``names``
    plan                             which of the table's plans a row took: the fastest; -1 where none fits
    """

    seconds: Floats
    joules: Floats
    joules_low: Floats
    joules_high: Floats
    memory_B: Floats
    bound: NDArray[np.int16]
    limiter: NDArray[np.int16]
    plan: NDArray[np.int16]
    names: tuple[str, ...]

    @property
    def fits(self) -> Bools:
        return self.plan >= 0


@dataclass(frozen=True)
class Layers:
    """Boxes of all axes, and what they are laid over: boxes of the product of some, or nothing. line_axes: which;
    line_parts: how many parts take the line at a point, and how many at one unit less of the first of its axes;
    over: those of another kind of numbers, which all this is laid over."""

    whole: Surface
    line: Surface | None = None
    line_axes: tuple[int, ...] = ()
    line_parts: tuple[int, int] = (1, 0)
    over: Layers | None = None


@dataclass(frozen=True)
class TabledPlan:
    """A plan that leaves nothing open.

    chosen    what its open keys became
    apart     along each axis, how many kinds of numbers there are: two micro-batches of an odd number of sequences are
              unlike, and costs of odd numbers are told apart from those of even ones
    families  kind of number along each axis -> its boxes, in units of ``apart``, rounded up
    room_B    of one rank    played: points
    errors    relative, the larger of seconds and joules, at points that no box knows: played, and compared
    """

    chosen: Mapping[str, Any]
    apart: tuple[int, ...]
    families: Mapping[tuple[int, ...], Layers]
    room_B: float
    played: int
    errors: Floats


@dataclass(frozen=True)
class Table:
    """What steps of a workload on a system cost, between points that were played.

    axes       what is asked by name    plans: of what `best` left open; a step takes the fastest that fits
    names      of bounds and limiters    digest: of everything that went in
    tolerance  what was sought: the largest relative error at points that no box knows; `error_max` is what came of it
    """

    axes: tuple[Axis, ...]
    plans: tuple[TabledPlan, ...]
    names: tuple[str, ...]
    tolerance: float
    digest: str

    def __repr__(self) -> str:
        axes = ", ".join(f"{axis.called} {axis.low} to {axis.high}" for axis in self.axes)
        return (
            f"<steps.Table {axes}: {self.played} points, error {self.error_median:.2%}, at most {self.error_max:.2%}>"
        )

    @property
    def played(self) -> int:
        return sum(plan.played for plan in self.plans)

    @property
    def errors(self) -> Floats:
        """Relative, the larger of seconds and joules, at points that were played and that no box knows."""
        return np.concatenate([plan.errors for plan in self.plans])

    @property
    def error_median(self) -> float:
        return float(np.median(self.errors)) if len(self.errors) else 0.0

    @property
    def error_p90(self) -> float:
        return float(np.quantile(self.errors, 0.9)) if len(self.errors) else 0.0

    @property
    def error_max(self) -> float:
        return float(self.errors.max(initial=0.0))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say where the points did not suffice."""
        if self.error_max <= self.tolerance:
            return ()
        return (
            f"steps between points miss by {self.error_median:.1%} (median), {self.error_p90:.1%} (p90), at most "
            f"{self.error_max:.1%}, with {self.played} points played; sought was at most {self.tolerance:.1%}: give it "
            "more points, or a smaller range",
        )

    def step_s(self, columns: Mapping[str, ArrayLike]) -> Steps:
        """Costs of many steps.

        columns   name of each axis -> numbers, all of one length (a single number stands for all rows)

        Raises InputError for a column that is missing or unknown, and for numbers outside the range of an axis.
        """
        asked = self._asked(columns)
        rows = len(asked[0])
        seconds, joules, low, high, memory_B = out = [np.empty(rows) for _ in COLUMNS]
        codes, plan = np.empty((rows, 2), np.int16), np.empty(rows, np.int16)
        for start in range(0, rows, _CHUNK):
            part = slice(start, start + _CHUNK)
            costs, codes[part], plan[part] = self._best([x[part] for x in asked])
            for column, cost in zip(out, costs, strict=True):
                column[part] = cost
        return Steps(seconds, joules, low, high, memory_B, codes[:, 0], codes[:, 1], plan, self.names)

    def at(self, *units: float) -> Step:
        """One step, axes in their order. Raises InputError outside of the range, InfeasibleError without room."""
        return self._at(units)

    def _asked(self, columns: Mapping[str, ArrayLike]) -> list[Floats]:
        names = [axis.called for axis in self.axes]
        if unknown := next((name for name in columns if name not in names), None):
            raise InputError(f"the table has no axis '{unknown}'. {did_you_mean(unknown, names)}")
        if missing := next((name for name in names if name not in columns), None):
            raise InputError(f"the column '{missing}' is required. Allowed: {', '.join(names)}.")
        try:
            given = np.broadcast_arrays(*(np.atleast_1d(np.asarray(columns[name], float)) for name in names))
        except ValueError:
            lengths = ", ".join(f"{name} {np.size(columns[name])}" for name in names)
            raise InputError(f"columns have one length, got {lengths}") from None
        out = []
        for axis, column in zip(self.axes, given, strict=True):
            x = np.ceil(column) if axis.whole else np.asarray(column)
            inside = (x >= axis.low) & (x <= axis.high)
            if not inside.all():
                raise _outside(axis, float(column[np.argmin(inside)]))
            out.append(x)
        return out

    def _best(self, xs: list[Floats]) -> tuple[list[Floats], NDArray[np.int16], NDArray[np.int16]]:
        """(columns, codes, number of the plan) of the fastest plan of every row."""
        best, codes = _of_plan(self.plans[0], xs)
        plan = np.where(np.isnan(best[0]), -1, 0).astype(np.int16)
        for number, other in enumerate(self.plans[1:], 1):
            costs, its = _of_plan(other, xs)
            # nan is less than nothing
            faster = costs[0] < np.where(np.isnan(best[0]), np.inf, best[0])
            best = [np.where(faster, new, old) for new, old in zip(costs, best, strict=True)]
            codes, plan = np.where(faster[:, None], its, codes), np.where(faster, np.int16(number), plan)
        return best, codes, plan

    @cached_property
    def _at(self) -> Callable[[Sequence[float]], Step]:
        axes = [(axis.whole, float(axis.low), float(axis.high)) for axis in self.axes]
        plans, names = [one_of(plan) for plan in self.plans], self.names

        def at(units: Sequence[float]) -> Step:
            if len(units) != len(axes):
                raise InputError(f"expected {', '.join(axis.called for axis in self.axes)}; got {len(units)} numbers")
            xs = [float(math.ceil(x)) if whole and x == x else x for x, (whole, _, _) in zip(units, axes)]  # noqa: B905
            for x, (_, low, high) in zip(xs, axes):  # noqa: B905
                if not low <= x <= high:
                    number = next(i for i, (x, (_, a, b)) in enumerate(zip(xs, axes, strict=True)) if not a <= x <= b)
                    raise _outside(self.axes[number], units[number])
            best: tuple[float, float, int] | None = None
            for ask, room_B in plans:
                seconds, joules, need_B, code = ask(xs)
                if need_B <= room_B and (best is None or seconds < best[0]):
                    best = seconds, joules, code
            if best is None:
                raise self._no_room(units)
            return Step(best[0], best[1], names[best[2]])

        return at

    def _no_room(self, units: Sequence[float]) -> InfeasibleError:
        asked = {axis.called: x for axis, x in zip(self.axes, units, strict=True)}
        need_B = self.step_s(asked).memory_B[0]
        room_B = max(plan.room_B for plan in self.plans)
        what = ", ".join(f"{name} {x:g}" for name, x in asked.items())
        if math.isnan(need_B):
            return InfeasibleError(f"{what}: does not fit a rank's {room_B / 1e9:.1f} GB")
        budget = {"what": "memory", "needed_B": float(need_B), "available_B": room_B}
        return InfeasibleError(f"{what}: a rank needs {need_B / 1e9:.1f} GB and has {room_B / 1e9:.1f} GB", budget)


def _outside(axis: Axis, got: float) -> InputError:
    allowed = f"Allowed: {axis.low} to {axis.high}, the range of the table; nothing is extrapolated."
    return InputError(Problem(f"{axis.called}: got {got:g}. {allowed}", key=axis.key))


def _of_plan(plan: TabledPlan, xs: list[Floats]) -> tuple[list[Floats], NDArray[np.int16]]:
    """Columns and codes of one plan; nan where there is no room, but for the memory that it would take."""
    kinds = [(-x) % many if many > 1 else None for x, many in zip(xs, plan.apart, strict=True)]
    costs = [np.empty(len(xs[0])) for _ in COLUMNS]
    codes = np.empty((len(xs[0]), 2), np.int16)
    for kind, layers in plan.families.items():
        here: Any = slice(None)
        for its, one in zip(kinds, kind, strict=True):
            if its is not None:
                here = its == one if isinstance(here, slice) else here & (its == one)
        at = [(x[here] + r) / many for x, r, many in zip(xs, kind, plan.apart, strict=True)]
        told, codes[here] = _of_layers(layers, at)
        for column, cost in zip(costs, told, strict=True):
            column[here] = cost
    full = ~(costs[-1] <= plan.room_B * _ROUNDING)
    if full.any():
        for column in costs[:-1]:
            column[full] = np.nan
    return costs, codes


def _of_layers(layers: Layers, at: list[Floats]) -> tuple[list[Floats], NDArray[np.int16]]:
    told, codes = layers.whole.columns(at)
    return under(layers, at, told), codes


def under(layers: Layers, at: list[Floats], told: list[Floats]) -> list[Floats]:
    """What boxes tell, with all that they lie over."""
    if layers.line is not None:
        for many, product in _products(layers, at):
            costs, _ = layers.line.columns([product])
            told = [cost + many * below for cost, below in zip(told, costs, strict=True)]
    if layers.over is not None:
        costs, _ = _of_layers(layers.over, at)
        told = [cost + below for cost, below in zip(told, costs, strict=True)]
    return told


def _products(layers: Layers, at: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Where the line is asked, and how often."""
    first, *others = (at[axis] for axis in layers.line_axes)
    for many, product in zip(layers.line_parts, (first, first - 1), strict=True):
        if many:
            for other in others:
                product = product * other
            yield many, product


def one_of(plan: TabledPlan) -> tuple[_Ask, float]:
    """A function of one point in a plan, and the room there is."""
    families = {kind: _one_of(layers) for kind, layers in plan.families.items()}
    room_B = plan.room_B * _ROUNDING
    if all(many == 1 for many in plan.apart):
        return next(iter(families.values())), room_B
    apart = plan.apart

    def ask(xs: Sequence[float]) -> tuple[float, float, float, int]:
        kind = tuple([int(-x % many) if many > 1 else 0 for x, many in zip(xs, apart)])  # noqa: B905
        return families[kind]([(x + r) / many for x, r, many in zip(xs, kind, apart)])  # noqa: B905

    return ask, room_B


def _one_of(layers: Layers) -> _Ask:
    if layers.over is None:
        return _alone(layers)
    mine, its = _alone(layers), _one_of(layers.over)

    def ask(xs: Sequence[float]) -> tuple[float, float, float, int]:
        seconds, joules, need_B, code = mine(xs)
        below = its(xs)
        return seconds + below[0], joules + below[1], need_B + below[2], code

    return ask


def _alone(layers: Layers) -> _Ask:
    whole = layers.whole.one()
    if layers.line is None:
        return whole
    line = layers.line.one()

    def ask(xs: Sequence[float]) -> tuple[float, float, float, int]:
        seconds, joules, need_B, code = whole(xs)
        for many, product in _products(layers, xs):
            below = line((product,))
            seconds += many * below[0]
            joules += many * below[1]
            need_B += many * below[2]
        return seconds, joules, need_B, code

    return ask
