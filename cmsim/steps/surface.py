"""Boxes as arrays: the cost of many rows at once, or of one with plain numbers, to the same digits."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Bools, Floats, Ints
from cmsim.steps.cells import NEED, Cell

#: columns that one point is asked for: seconds, joules, and what it needs of memory
_ONE = (0, 1, NEED)
#: of a surface, as they are kept
_ARRAYS = ("lo", "hi", "first", "per", "rows", "codes")


@dataclass(frozen=True)
class Surface:
    """Boxes over some axes; they share no whole number, and hold all.

    lo, hi  both ends, shape (boxes, axes)    per: along which axes costs are those of one unit, same shape
    first   the lowest numbers that a box holds, same shape
    rows    costs of the corners, shape (boxes, corners, columns); corners as in ``Cell.corners``
    codes   names of the corners' bounds and limiters, shape (boxes, corners, 2); no corners where they have none
    """

    lo: Ints
    hi: Ints
    first: Ints
    per: Bools
    rows: Floats
    codes: NDArray[np.int16]

    @classmethod
    def of(cls, cells: Sequence[Cell], rows: Sequence[Floats], codes: NDArray[np.int16]) -> Surface:
        lo, hi, first, per = (
            np.array([getattr(cell, name) for cell in cells]) for name in ("lo", "hi", "first", "per")
        )
        return cls(
            lo.astype(np.int64), hi.astype(np.int64), first.astype(np.int64), per.astype(bool), np.array(rows), codes
        )

    @cached_property
    def _cuts(self) -> list[Ints]:
        """Along each axis, the ends of boxes."""
        return [np.unique(column) for column in self.hi.T]

    @cached_property
    def _raster(self) -> Ints:
        """The box between every two cuts, flat."""
        out = np.empty([len(cuts) for cuts in self._cuts], np.int64)
        for number, (first, hi) in enumerate(zip(self.first, self.hi, strict=True)):
            spans = zip(self._cuts, first, hi, strict=True)
            out[tuple(slice(np.searchsorted(cuts, a), np.searchsorted(cuts, b) + 1) for cuts, a, b in spans)] = number
        return out.ravel()

    @cached_property
    def _over(self) -> Floats:
        """One over the width, 0 of boxes that are one number wide, shape (boxes, axes)."""
        width = (self.hi - self.lo).astype(np.float64)
        return np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)

    def columns(self, xs: Sequence[Floats]) -> tuple[list[Floats], NDArray[np.int16]]:
        """Costs of every column, and codes of the nearest corner, shape (rows, 2), of points in the range."""
        box = self._box(xs)
        weights, nearest = [np.ones(len(box))], np.zeros(len(box), np.int64)
        scale: Floats | None = None
        for axis, x in enumerate(xs):
            share = np.maximum(x - self.lo[box, axis], 0.0) * self._over[box, axis]
            weights = [weight * part for weight in weights for part in (1.0 - share, share)]
            nearest = 2 * nearest + (share > 0.5)
            if self.per[:, axis].any():
                units = np.where(self.per[box, axis], x, 1.0)
                scale = units if scale is None else scale * units
        out = []
        for column in range(self.rows.shape[2]):
            total = np.zeros(len(box))
            for corner, weight in enumerate(weights):
                total += weight * self.rows[:, corner, column][box]
            needed = column == self.rows.shape[2] + NEED
            out.append(total if needed or scale is None else total * scale)
        return out, self.codes[box, nearest] if self.codes.size else np.zeros((len(box), 0), np.int16)

    def _box(self, xs: Sequence[Floats]) -> Ints:
        flat = np.zeros(len(xs[0]), np.int64)
        for cuts, x in zip(self._cuts, xs, strict=True):
            flat *= len(cuts)
            flat += np.searchsorted(cuts, x)
        return self._raster[flat]

    def one(self) -> Callable[[Sequence[float]], tuple[float, float, float, int]]:
        """A function of one point: seconds, joules, memory, and the code of the nearest corner's bound."""
        cuts = [column.tolist() for column in self._cuts]
        raster = self._raster.tolist()
        codes = self.codes[:, :, 0].tolist() if self.codes.size else [[0] * self.rows.shape[1]] * len(self.lo)
        boxes = list(
            zip(
                self.lo.astype(float).tolist(),
                self._over.tolist(),
                [axes if any(axes) else None for axes in self.per.tolist()],
                self.rows[:, :, list(_ONE)].tolist(),
                codes,
                strict=True,
            )
        )

        if len(cuts) == 2:
            return _flat(cuts, raster, boxes)

        def at(xs: Sequence[float]) -> tuple[float, float, float, int]:
            flat = 0
            for ends, x in zip(cuts, xs):  # noqa: B905  # a tenth of the time
                flat = flat * len(ends) + bisect_left(ends, x)
            lo, over, per, rows, names = boxes[raster[flat]]
            weights, nearest = [1.0], 0
            for x, low, by in zip(xs, lo, over):  # noqa: B905
                share = (x - low) * by if x > low else 0.0
                left = 1.0 - share
                weights = [weight * part for weight in weights for part in (left, share)]
                nearest = 2 * nearest + (share > 0.5)
            seconds = joules = need = 0.0
            for weight, row in zip(weights, rows):  # noqa: B905
                seconds += weight * row[0]
                joules += weight * row[1]
                need += weight * row[2]
            scale = _units(xs, per)
            return seconds * scale, joules * scale, need, names[nearest]

        return at

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]]) -> Surface:
        """What was written. Raises KeyError or ValueError for arrays that are no boxes."""
        out = cls(*(arrays[name] for name in _ARRAYS))
        boxes, axes = out.lo.shape
        corners = len(list(itertools.product(*[(0, 1)] * axes)))
        if (
            out.hi.shape != out.lo.shape
            or out.first.shape != out.lo.shape
            or out.per.shape != out.lo.shape
            or out.rows.shape[:2] != (boxes, corners)
        ):
            raise ValueError("the arrays of a surface do not go together")
        return out


def _flat(
    cuts: list[list[int]], raster: list[int], boxes: list[Any]
) -> Callable[[Sequence[float]], tuple[float, float, float, int]]:
    """The same of two axes, which most tables have, written out: half the time."""
    rows_of, columns_of = cuts
    width = len(columns_of)

    def at(xs: Sequence[float]) -> tuple[float, float, float, int]:
        x, y = xs
        (low_x, low_y), (by_x, by_y), per, (a, b, c, d), names = boxes[
            raster[bisect_left(rows_of, x) * width + bisect_left(columns_of, y)]
        ]
        right = (x - low_x) * by_x if x > low_x else 0.0
        up = (y - low_y) * by_y if y > low_y else 0.0
        left, down = 1.0 - right, 1.0 - up
        in_a, in_b, in_c, in_d = left * down, left * up, right * down, right * up
        scale = 1.0 if per is None else _units(xs, per)
        return (
            (in_a * a[0] + in_b * b[0] + in_c * c[0] + in_d * d[0]) * scale,
            (in_a * a[1] + in_b * b[1] + in_c * c[1] + in_d * d[1]) * scale,
            in_a * a[2] + in_b * b[2] + in_c * c[2] + in_d * d[2],
            names[2 * (right > 0.5) + (up > 0.5)],
        )

    return at


def _units(xs: Sequence[float], per: Sequence[bool] | None) -> float:
    scale = 1.0
    if per is not None:
        for x, one in zip(xs, per):  # noqa: B905
            if one:
                scale *= x
    return scale
