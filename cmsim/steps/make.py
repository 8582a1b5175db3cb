"""Making a table: points of each plan are played where they are needed, or the table is taken from where it is kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmsim import api
from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError, InputError
from cmsim.results import follows_time
from cmsim.scenario import Run
from cmsim.steps import priced, store
from cmsim.steps.axes import Axis, check_axes, check_plan, of_inference
from cmsim.steps.cells import NEED, Cell, Grown, Played, Point, grow
from cmsim.steps.plays import COLUMNS, Evaluate, Plays
from cmsim.steps.surface import Surface
from cmsim.steps.table import Layers, Table, TabledPlan, one_of, under

#: points of a plan and kind of numbers, the most
POINTS = 600
#: relative, of seconds and of joules, at points that no box knows
TOLERANCE = 0.01

#: bound and limiter of a corner that has no room, and was not played
_NOT_PLAYED = ("none", "none")

#: of the tolerance, what is left to products that are priced: they are a part of a step
_OF_TOLERANCE = 0.3
#: boxes that are still to be found
_NOTHING = Surface.of([], [], np.zeros((0, 0, 2), np.int16))

_KEPT = store.Kept()


def table(
    run: Run,
    axes: Sequence[Axis] = (),
    *,
    machines: api.Machines | None = None,
    tolerance: float = TOLERANCE,
    points: int = POINTS,
    folder: Path | str | None = "",
    evaluate: Evaluate = api.evaluate,
) -> Table:
    """What steps of a run cost over ranges of some of its keys; what the run says of those keys does not matter.

    run       a workload on a system. Keys that it leaves open must leave batch and machine as they are
              (`microbatches`): each of their values is a plan, and a step takes the fastest that fits
    axes      what to range over; default: `of_inference`
    machines  the systems, for runs of a scenario
    tolerance relative, of seconds and of joules, at points that no box knows    points: the most that are played of a
              plan (and of each kind of numbers that it keeps apart); where they do not suffice, `Table.notes` says so
    folder    where tables are kept; default: of `store.folder`; None: in memory alone
    evaluate  plays a run; another than `api.evaluate` is not kept

    Raises InputError for axes and keys that do not go together, InfeasibleError where no plan fits at any point.
    """
    machines = machines or api.Machines()
    check_plan(run)
    if run.open and not follows_time(run.spec.kind, run.of):
        raise InputError(f"{run.key}: a step takes the fastest plan; `best` of {run.of} is not for a table")
    axes = tuple(axes) or of_inference(run, machines)
    check_axes(axes)
    if not 0 < tolerance < 1 or points < 1:
        raise InputError(
            f"got a tolerance of {tolerance!r} and {points!r} points. Allowed: above 0 and below 1; from 1."
        )
    name = store.digest(run, axes, machines, tolerance=tolerance, points=points)
    if evaluate is not api.evaluate:
        return _made(run, axes, machines, tolerance, points, evaluate, name)
    where = store.folder() if folder == "" else folder
    found = _KEPT.get(name) or (store.read(name, Path(where), axes) if where is not None else None)
    if found is None:
        found = _made(run, axes, machines, tolerance, points, evaluate, name)
    if where is not None:
        store.save(found, Path(where))
    _KEPT.put(found)
    return found


def forget() -> None:
    """Keeps no table in memory any more; files stay."""
    _KEPT.clear()


def _made(
    run: Run,
    axes: tuple[Axis, ...],
    machines: api.Machines,
    tolerance: float,
    points: int,
    evaluate: Evaluate,
    digest: str,
) -> Table:
    names: dict[str, int] = {}
    plans: list[TabledPlan] = []
    refused: InfeasibleError | None = None
    for candidate in api.candidates(run, machines):
        plays = Plays(candidate, axes, machines, evaluate)
        plan = _plan(plays, names, tolerance, points, _fastest(plans))
        plans += [plan] if plan is not None else []
        refused = refused or plays.refused
    if not plans:
        raise refused or InfeasibleError(f"{run.key}: no step of these ranges fits")
    return Table(axes, tuple(plans), tuple(names), tolerance, digest)


def _fastest(plans: Sequence[TabledPlan]) -> Callable[[Point], float]:
    """Seconds of the fastest of some plans that fits a point; endless where none does."""
    asks = [one_of(plan) for plan in plans]

    def seconds(point: Point) -> float:
        told = ((ask(point), room_B) for ask, room_B in asks)
        return min((costs[0] for costs, room_B in told if costs[2] <= room_B), default=math.inf)

    return seconds


@dataclass(frozen=True)
class _Kind:
    """Numbers of one kind along each axis, counted from one to the next: point x is ``many`` x - r."""

    plays: Plays
    many: tuple[int, ...]
    r: tuple[int, ...]

    @property
    def spans(self) -> list[tuple[int, int]]:
        ends = zip(self.plays.axes, self.many, self.r, strict=True)
        return [(-(-(axis.low + r) // many), (axis.high + r) // many) for axis, many, r in ends]

    def point(self, at: Point) -> Point:
        return tuple(x * many - r for x, many, r in zip(at, self.many, self.r, strict=True))

    def shares(self, axis: int) -> tuple[int, int]:
        """How many parts hold the larger share of what is cut along an axis, and how many one less."""
        return self.many[axis] - self.r[axis], self.r[axis]

    def play(self, at: Point) -> Floats:
        return self.plays(self.point(at))

    def layers(self, grown: Grown, line: int | None, names: dict[str, int], base: Layers) -> Layers:
        """Boxes as arrays. names: of bounds and limiters -> code, which grow"""
        codes = [
            [
                [names.setdefault(name, len(names)) for name in self.plays.names.get(self.point(corner), _NOT_PLAYED)]
                for corner in cell.corners
            ]
            for cell in grown.cells
        ]
        whole = Surface.of(grown.cells, grown.rows, np.array(codes, np.int16))
        if line is not None:
            return Layers(whole, _line(grown.line, grown.line_rows), (line,))
        return replace(base, whole=whole)


def _line(cells: Sequence[Cell], rows: Sequence[Floats]) -> Surface:
    return Surface.of(cells, rows, np.zeros((len(cells), 0, 2), np.int16))


def _along(plays: Plays, many: tuple[int, ...], line: tuple[int, ...], tolerance: float) -> Surface | None:
    """What goes by the tiles of a part's products, by its tokens: seconds as they are priced, times what each column of
    a step grows by for a second of them, where they jump most. None where they do not jump, or nothing is played."""
    kind = _Kind(plays, many, (0,) * len(many))
    if plays.evaluate is not api.evaluate or any(low > high for low, high in kind.spans):
        return None
    low, high = (tuple(ends) for ends in zip(*kind.spans, strict=True))
    first, last, parts = line[0], line[-1], many[line[0]]

    def tokens(at: Point) -> int:
        return math.prod(at[axis] for axis in line)

    few = _at(low, first, high[first])
    more = _at(few, last, min(2 * low[last], high[last]))
    run, larger = (plays.at(kind.point(at)) for at in (few, more))
    both = tokens(few), tokens(more)
    its = priced.products(run, larger, plays.machines(run), plays.machines.base, tokens=both, parts=parts)
    if its is None:
        return None
    least = tokens(_at(low, first, max(low[first] - 1, 1)))
    cells, seconds = priced.line(its, least, tokens(high), tolerance * _OF_TOLERANCE)
    held = tokens(low) // low[last]
    jump = priced.steepest(cells, seconds, tokens(low), held * high[last])
    if jump is None:
        return None
    before, after = (plays(kind.point(_at(low, last, jump[0] // held + one))) for one in (0, 1))
    gain = (after - before) / (parts * jump[1])
    gain[NEED] = 0.0
    return _line(cells, [its_s[:, None] * gain for its_s in seconds]) if np.isfinite(gain).all() else None


def _at(point: Point, axis: int, x: int) -> Point:
    return (*point[:axis], x, *point[axis + 1 :])


def _told(layers: Layers) -> Callable[[Point], Floats | float]:
    """All columns of a point by what layers lie over."""
    if layers.line is None and layers.over is None:
        return lambda _: 0.0

    def told(at: Point) -> Floats:
        costs = under(layers, [np.array([float(x)]) for x in at], [np.zeros(1)] * len(COLUMNS))
        return np.concatenate(costs)

    return told


def _plan(
    plays: Plays, names: dict[str, int], tolerance: float, points: int, rival: Callable[[Point], float]
) -> TabledPlan | None:
    """A plan's boxes; None where nothing of it fits. rival: seconds of the plans before it"""
    axes = plays.axes
    # parts of whole things that do not divide are unlike
    parts = int(getattr(plays.run.spec, "microbatches", 1))
    many = tuple(parts if axis.whole else 1 for axis in axes)
    line = tuple(number for number, axis in enumerate(axes) if axis.line and len(axes) > 1)
    along = _along(plays, many, line, tolerance) if len(line) > 1 else None
    alone = line[-1] if line else None
    families: dict[tuple[int, ...], Layers] = {}
    errors, played = [], 0
    for r in itertools.product(*map(range, many)):
        kind = _Kind(plays, many, r)
        if any(low > high for low, high in kind.spans):
            continue
        play = Played(kind.play)
        low, high = (tuple(ends) for ends in zip(*kind.spans, strict=True))
        base = Layers(_NOTHING, over=next(iter(families.values()), None))
        if along is not None:
            base = Layers(_NOTHING, along, line, kind.shares(line[0]))
        told = base.line is not None or base.over is not None
        grown = grow(
            low,
            high,
            play,
            line=None if told else alone,
            room=plays.room_B,
            tolerance=tolerance,
            most=points,
            rival=lambda at, kind=kind: rival(kind.point(at)),  # type: ignore[misc]
            below=_told(base),
            smooth=tuple(axis.smooth for axis in axes),
            # what does not fit of one kind may fit of another
            spare=math.prod(many),
        )
        families[r] = kind.layers(grown, None if told else alone, names, base)
        errors.append(grown.errors)
        played += len(play.rows)
    if all(np.isnan(layers.whole.rows).all() for layers in families.values()):
        return None
    return TabledPlan(dict(plays.run.chosen), many, families, plays.room_B, played, np.concatenate(errors))
