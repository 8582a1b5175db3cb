"""Whatever a cost is: boxes tile the range, corners are exact, and what only goes up stays between its neighbours."""

from __future__ import annotations

import itertools
from bisect import bisect_right

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim.arrays import Floats
from cmsim.steps import cells
from cmsim.steps.surface import Surface

Ramp = tuple[float, list[tuple[int, float, float]]]

steps_up = st.tuples(st.integers(1, 80), st.floats(0, 3), st.floats(0, 0.2))
ramps = st.tuples(st.floats(0.1, 5), st.lists(steps_up, max_size=5).map(sorted))


def height(ramp: Ramp, x: int) -> float:
    """A line that only goes up: at each place a jump, and more slope from there on."""
    base, places = ramp
    seen = places[: bisect_right([place for place, _, _ in places], x)]
    return base + sum(jump + slope * (x - place) for place, jump, slope in seen)


def grown(low: cells.Point, high: cells.Point, cost: cells.Cost, most: int) -> tuple[cells.Grown, Surface]:
    out = cells.grow(low, high, cells.Played(cost), line=None, room=1.0, tolerance=0.01, most=most)
    codes = np.zeros((len(out.cells), 2 ** len(low), 2), np.int16)
    return out, Surface.of(out.cells, out.rows, codes)


@settings(max_examples=25)
@given(one=ramps, other=ramps, high=st.tuples(st.integers(1, 80), st.integers(1, 40)), most=st.integers(30, 90))
def test_between_corners_costs_stay_between_them(one: Ramp, other: Ramp, high: tuple[int, int], most: int):
    def cost(point: cells.Point) -> Floats:
        return np.array([height(one, point[0]) * height(other, point[1]), height(one, point[0]), 0.0])

    out, surface = grown((1, 1), high, cost, most)
    told = np.full((high[0] + 1, high[1] + 1, 2), np.nan)
    for cell in out.cells:
        for point in itertools.product(*(range(lo, hi + 1) for lo, hi in zip(cell.lo, cell.hi, strict=True))):
            assert np.isnan(told[point]).all(), "boxes share no number"
            columns, _ = surface.columns([np.array([float(x)]) for x in point])
            told[point] = seconds, joules = float(columns[0][0]), float(columns[1][0])
            for got, column in ((seconds, 0), (joules, 1)):
                least, most_ = cost(cell.lo)[column], cost(cell.hi)[column]
                assert least * (1 - 1e-9) <= got <= most_ * (1 + 1e-9)
            if point in cell.corners:
                np.testing.assert_allclose(told[point], cost(point)[:2], rtol=1e-9)
    assert not np.isnan(told[1:, 1:]).any(), "boxes hold all numbers"


@given(ramp=ramps, high=st.integers(1, 80))
def test_with_points_enough_no_checked_point_misses(ramp: Ramp, high: int):
    def cost(point: cells.Point) -> Floats:
        return np.array([height(ramp, point[0])] * 2 + [0.0])

    out, _ = grown((1,), (high,), cost, 400)
    assert out.errors.max(initial=0.0) <= 0.01
