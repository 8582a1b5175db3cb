"""Boxes of whole numbers between whose corners a cost is interpolated, cut where that misses what was played.

A box is tried near its middle. Where the interpolated cost misses the played one by more than a share of the tolerance,
the box is cut in two along the axis that bends most, after the roundest number near its middle: kernels' tiles are
powers of two, and a cost jumps after them. The halves share no number, so that what jumps between them does so here;
along axes that are said to be smooth they share a corner.

Most jumps depend on one number alone: how many sequences a rank has, whatever their contexts. The cost along that axis,
the others at their low ends, is told first, by boxes of its own (the line), where nothing is told already; boxes of all
axes hold what is left.

The error that is stated is that of points which no box knows: neither corners nor tried ones, spread evenly over the
logs of the axes. Where one of them misses, its box is cut, and others of that box take its place.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cmsim.arrays import Floats

Point = tuple[int, ...]
#: what a point costs: columns of a row, those of ``CHECKED`` first, ``NEED`` last; not a number where it cannot be
Cost = Callable[[Point], Floats]
#: columns that are held to the tolerance: seconds and joules
CHECKED = slice(0, 2)
#: the column that must not exceed the room there is, and is never taken per unit
NEED = -1

#: points that no box knows, one after the other without a miss
HELD = 24
#: of the tolerance, what is allowed where a box is tried: it is the worst place of a bend, but not of every bend
_OF_TOLERANCE = 0.6
#: where in a box it is tried: off the middle, where numbers are round and costs are all at their best
_TRIED = 0.45
#: boxes narrower than this share of where they stand are not cut: what jumps inside of them is located to that [1]
_FINE = 1 / 256
#: wider boxes are halved by ratio, others by difference
_WIDE = 4
#: times the seconds of a rival, from which on nobody asks for it
_BEATEN = 1.03
#: how often a point is sought nearer to the low end where the middle of a box has no room
_RETREATS = 3


@dataclass(frozen=True)
class Cell:
    """A box between two corners.

    first  the lowest numbers in it: its low end, or the next where that is a neighbour's, and only its cost is shared
    per    along which axes the cost of one unit is interpolated, not of all
    """

    lo: Point
    hi: Point
    first: Point
    per: tuple[bool, ...]

    @property
    def corners(self) -> Iterator[Point]:
        """In the order of ``itertools.product``: the last axis goes fastest."""
        return itertools.product(*zip(self.lo, self.hi, strict=True))

    def holds(self, point: Point) -> bool:
        return all(first <= x <= hi for first, x, hi in zip(self.first, point, self.hi, strict=True))


@dataclass
class Played:
    """Points that were played, each once."""

    cost: Cost
    rows: dict[Point, Floats] = field(default_factory=dict)

    def __call__(self, point: Point) -> Floats:
        if point not in self.rows:
            self.rows[point] = self.cost(point)
        return self.rows[point]


@dataclass(frozen=True)
class Grown:
    """Boxes that tile the whole range, in order of their corners, and how good they are.

    line     boxes of one axis alone, which the others are laid over; none for a cost of one axis
    rows     of each box, what its corners add to the line, shape (corners, columns)
    errors   of points that no box knows: relative, the larger of seconds and joules
    """

    line: list[Cell]
    line_rows: list[Floats]
    cells: list[Cell]
    rows: list[Floats]
    errors: Floats


def grow(
    low: Point,
    high: Point,
    play: Played,
    *,
    line: int | None,
    room: float,
    tolerance: float,
    most: int,
    rival: Callable[[Point], float] = lambda _: math.inf,
    below: Callable[[Point], Floats | float] = lambda _: 0.0,
    smooth: tuple[bool, ...] = (),
    spare: float = 1.0,
) -> Grown:
    """Boxes over everything from ``low`` to ``high``, both included.

    line   the axis that is told first    room: what the last column may be; no accuracy is sought beyond
    most   points to play; where they do not suffice, the errors say so
    rival  what the first column must not exceed by far: no accuracy is sought where another is taken
    below  what is told already, where there is no line: boxes are of what is left
    smooth axes along which nothing jumps
    spare  times the room up to which corners are played, for what these boxes are told to others
    """
    along: _Boxes | None = None
    if line is not None:

        def on_line(point: Point) -> Floats:
            return play((*low[:line], point[0], *low[line + 1 :]))

        along = _Boxes(Played(on_line), room, tolerance * _OF_TOLERANCE, low[line : line + 1], high[line : line + 1])
        along.refine(lambda: len(play.rows) >= most // 2)

    def under(point: Point) -> Floats | float:
        return along.told((point[line],)) if along is not None and line is not None else below(point)

    boxes = _Boxes(play, room, tolerance * _OF_TOLERANCE, low, high, under, rival, smooth, spare)
    errors = _held(boxes, play, tolerance, most)
    first = along.done() if along is not None else ([], [])
    return Grown(*first, *boxes.done(), errors)


def _held(boxes: _Boxes, play: Played, tolerance: float, most: int) -> Floats:
    """Cuts boxes until ``HELD`` points that none of them knows do not miss, or until points run out: then those that
    are left over are what is stated. A point in a box that is cut counts no more."""
    errors: dict[Point, tuple[Cell, float]] = {}
    boxes.refine(lambda: len(play.rows) >= most - HELD)
    for point in itertools.islice(_halton(boxes.low, boxes.high), 40 * HELD):
        if len(errors) >= HELD:  # also where corners alone took all points: an error that nobody looked for is no 0
            break
        cell = boxes.holding(point)
        if point in play.rows or not boxes.asked(point, cell):
            continue
        errors[point] = cell, boxes.error(cell, point)
        if errors[point][1] > tolerance and len(play.rows) < most - HELD and boxes.reopen(cell, errors[point][1]):
            boxes.refine(lambda: len(play.rows) >= most - HELD)
            errors = {point: (cell, error) for point, (cell, error) in errors.items() if cell in boxes.cells}
    return np.array([error for _, error in errors.values()])


class _Boxes:
    """Boxes so far, laid over what is ``under`` them; ``open`` ones miss, first the worst in most of the range."""

    def __init__(
        self,
        play: Played,
        room: float,
        tolerance: float,
        low: Point,
        high: Point,
        under: Callable[[Point], Floats | float] = lambda _: 0.0,
        rival: Callable[[Point], float] = lambda _: math.inf,
        smooth: tuple[bool, ...] = (),
        spare: float = 1.0,
    ):
        self.smooth, self.spare = smooth or (False,) * len(low), spare
        self.play, self.room, self.tolerance, self.low, self.high = play, room, tolerance, low, high
        self.under, self.rival = under, rival
        self.cells: dict[Cell, None] = {}
        self.open: list[tuple[float, Point, Cell]] = []
        self._rows: dict[Cell, Floats] = {}
        self._take(Cell(low, high, low, (False,) * len(low)))

    def done(self) -> tuple[list[Cell], list[Floats]]:
        """Boxes in order of their corners, and what those add."""
        cells = sorted(self.cells, key=lambda cell: cell.first)
        return cells, [self.rows(cell) for cell in cells]

    def refine(self, spent: Callable[[], bool]) -> None:
        """Cuts the worst boxes until none misses, or no points are left."""
        while self.open and not spent():
            _, _, cell = heapq.heappop(self.open)
            if cell in self.cells and (axis := self._bends(cell)) is not None:
                del self.cells[cell]
                for half in _halves(cell, axis, self.smooth[axis]):
                    self._take(half)

    def reopen(self, cell: Cell, error: float) -> bool:
        """Whether there is something to cut in a box that misses."""
        if not _inside(cell):
            return False
        heapq.heappush(self.open, (-error * _extent(cell), cell.lo, cell))
        return True

    def error(self, cell: Cell, point: Point) -> float:
        """Relative, the larger of what is checked; 0 where nothing was played to compare with."""
        played, told = self.play(point)[CHECKED], self.told(point, cell)[CHECKED]
        if np.isnan(played).any():
            return 0.0
        return 1.0 if np.isnan(told).any() else float(np.abs(told / played - 1).max())

    def told(self, point: Point, cell: Cell | None = None) -> Floats:
        """What a point costs by the box that holds it."""
        cell = self.holding(point) if cell is None else cell
        weights = np.array([1.0])
        for lo, x, hi in zip(cell.lo, point, cell.hi, strict=True):
            share = (x - lo) / (hi - lo) if hi > lo else 0.0
            weights = np.outer(weights, (1 - share, share)).ravel()
        out: Floats = weights @ self.rows(cell)
        out[:NEED] *= _units(point, cell.per)
        return out + self.under(point)

    def rows(self, cell: Cell) -> Floats:
        """What the corners of a box add to what is under them, per unit where the box says so."""
        if cell not in self._rows:
            if self.full(cell):
                return np.full((2 ** len(cell.lo), len(self.play(cell.lo))), np.nan)
            rows = np.array([self.play(corner) - self.under(corner) for corner in cell.corners])
            rows[:, :NEED] /= np.array([_units(corner, cell.per) for corner in cell.corners])[:, None]
            self._rows[cell] = rows
        return self._rows[cell]

    def full(self, cell: Cell) -> bool:
        """Whether nothing in a box has room: what is needed grows along every axis."""
        return bool(self.play(cell.lo)[NEED] > self.room * self.spare)

    def holding(self, point: Point) -> Cell:
        return next(cell for cell in self.cells if cell.holds(point))

    def asked(self, point: Point, cell: Cell) -> bool:
        """Whether there is room, and no rival is better by far; or no telling."""
        if self.full(cell):
            return False
        told = self.told(point, cell)
        return not (told[NEED] > self.room or told[0] > self.rival(point) * _BEATEN)

    def _take(self, cell: Cell) -> None:
        """A box, in the form that suits it, and whether it has to be cut."""
        error = 0.0
        if _inside(cell) and (point := self._tried(cell)) is not None:
            forms = [replace(cell, per=per) for per in itertools.product((False, True), repeat=len(cell.lo))]
            forms = [form for form in forms if self._tame(form)]
            errors = [self.error(form, point) for form in forms]
            # the plain one unless it misses: at one point any other may be right by chance
            error = errors[0] if errors[0] <= self.tolerance else min(errors)
            cell = forms[errors.index(error)]
        self.cells[cell] = None
        if error > self.tolerance:
            self.reopen(cell, error)

    def _tame(self, cell: Cell) -> bool:
        """Whether a form goes up or down along every edge, and never both: between corners it stays between them."""
        rows = self.rows(cell)[:, CHECKED].T.reshape(-1, *(2,) * len(cell.lo))
        for axis, (lo, hi, per) in enumerate(zip(cell.lo, cell.hi, cell.per, strict=True)):
            if per and hi > lo:
                first, last = (rows.take(end, axis=axis + 1) for end in (0, 1))
                slope = (last - first) / (hi - lo)
                if ((first + slope * lo) * (last + slope * hi) < 0).any():
                    return False
        return True

    def _tried(self, cell: Cell) -> Point | None:
        """A point near the middle, or nearer to the low end where nobody asks for the middle."""
        share = _TRIED
        for _ in range(_RETREATS + 1):
            point = tuple(_between(lo, hi, share) for lo, hi in zip(cell.lo, cell.hi, strict=True))
            if self.asked(point, cell):
                return None if point in cell.corners else point
            share /= 2
        return None

    def _bends(self, cell: Cell) -> int | None:
        """The axis along which a box misses most at its edges; the longest, where none does; None: nothing to cut."""
        found: list[tuple[float, float, int]] = []
        for axis in _inside(cell):
            middle = _cut(cell.lo[axis], cell.hi[axis])
            edges = [(*end[:axis], middle, *end[axis + 1 :]) for end in (cell.hi, cell.lo)]
            edge = next((edge for edge in edges if self.asked(edge, cell)), edges[-1])
            error = self.error(cell, edge)
            length = math.log(cell.hi[axis] / cell.lo[axis])
            found.append((error if error > self.tolerance else 0.0, length, -axis))
        return -max(found)[2] if found else None


def _inside(cell: Cell) -> list[int]:
    """Axes along which a box can be cut."""
    spans = enumerate(zip(cell.lo, cell.hi, strict=True))
    return [axis for axis, (lo, hi) in spans if hi - lo >= 2 and hi - lo > _FINE * lo]


def _extent(cell: Cell) -> float:
    """How much of the range a box is, by the logs of its axes."""
    return math.prod(math.log((hi + 1) / lo) for lo, hi in zip(cell.lo, cell.hi, strict=True))


def _halves(cell: Cell, axis: int, smooth: bool) -> tuple[Cell, Cell]:
    end = _cut(cell.lo[axis], cell.hi[axis])

    def to(point: Point, x: int) -> Point:
        return (*point[:axis], x, *point[axis + 1 :])

    upper = to(cell.lo, end if smooth else end + 1)
    return replace(cell, hi=to(cell.hi, end)), replace(cell, lo=upper, first=to(cell.first, end + 1))


def _between(lo: int, hi: int, share: float) -> int:
    """A whole number between two, by ratio where they are far apart."""
    at = round(lo * (hi / lo) ** share if hi > _WIDE * lo else lo + (hi - lo) * share)
    return at if hi - lo < 2 else min(max(at, lo + 1), hi - 1)


def _cut(lo: int, hi: int) -> int:
    """The number after which a box is cut: the roundest of those near its middle, in twos.

    >>> _cut(1, 384), _cut(33, 64), _cut(1, 3), _cut(1025, 5000)
    (64, 48, 2, 2048)
    """
    first, last = _between(lo, hi, 0.3), _between(lo, hi, 0.7)
    for twos in range(last.bit_length(), -1, -1):
        if (round_one := last >> twos << twos) >= first:
            return round_one
    raise AssertionError("every number is a multiple of one")


def _units(point: Sequence[int], per: Sequence[bool]) -> float:
    return math.prod(float(x) for x, one in zip(point, per, strict=True) if one)


def _halton(low: Point, high: Point) -> Iterator[Point]:
    """Points that fill a range evenly by the logs of its axes, always the same ones.

    Source: Halton, Numerische Mathematik 2 (1960) 84.
    """
    for number in itertools.count(20):  # the first ones lie in lines
        shares = (_radical(number, prime) for prime in (2, 3, 5, 7, 11, 13))
        spans = zip(low, high, shares, strict=False)
        yield tuple(min(max(round(lo * (hi / lo) ** share), lo), hi) for lo, hi, share in spans)


def _radical(number: int, base: int) -> float:
    """Digits of a number behind the point, the last one first.

    >>> _radical(6, 2)
    0.375
    """
    out, place = 0.0, 1 / base
    while number:
        number, digit = divmod(number, base)
        out += digit * place
        place /= base
    return out
