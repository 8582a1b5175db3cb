"""Are numbers of equal things those that sorting gives?"""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.engine.codes import dense, distinct, joined, multisets, run_lengths, sorting
from cmsim.engine.perturb import alike


def columns(seed):
    """Columns of one length whose values lie close together, far apart, below zero, or are all one."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 300))
    spans = rng.choice([1, 3, 70, 5_000, 2**40], size=3)
    return [rng.integers(-2, span, length).astype(np.int32 if span < 2**31 else np.int64) for span in spans.tolist()]


@pytest.mark.parametrize("seed", range(40))
def test_numbers_are_those_of_unique(seed):
    for column in columns(seed):
        values, number = np.unique(column, return_inverse=True)
        mine, count = dense(column)
        assert mine.tolist() == number.tolist() and count == len(values)
        assert distinct(column).tolist() == values.tolist()


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_numbered_in_their_order(seed):
    table = columns(seed)
    rows = sorted(set(zip(*(column.tolist() for column in table), strict=True)))
    expected = [rows.index(row) for row in zip(*(column.tolist() for column in table), strict=True)]
    assert joined(table).tolist() == expected


def test_numbers_of_rows_do_not_overflow():
    one = np.arange(70_000)
    assert joined([one, one[::-1]]).tolist() == one.tolist()  # 70,000 x 70,000 is more than 32 bits hold


@pytest.mark.parametrize("most", [1, 9, 70_000, 2**31 - 1])
def test_a_sort_by_digits_is_stable(most):
    keys = np.random.default_rng(most).integers(0, most, 5_000, endpoint=True).astype(np.int32)
    assert sorting(keys).tolist() == np.argsort(keys, kind="stable").tolist()


def test_runs_end_where_any_column_changes():
    assert run_lengths(np.array([4, 4, 4, 1, 1]), np.array([0, 0, 2, 2, 2])).tolist() == [2, 2, 1, 2, 2]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("longest", [3, 100])
def test_containers_are_equal_where_sorted_colours_are(seed, longest):
    rng = np.random.default_rng(seed)
    size = rng.integers(0, longest, 60)
    colour = rng.integers(0, int(rng.choice([1, 2, 400])), int(size.sum()))
    held = [tuple(sorted(part.tolist())) for part in np.split(colour, np.cumsum(size)[:-1])]
    # by size, then byte by byte, lowest first: how numbers of 64 bits lie in memory
    order = sorted(set(held) - {()}, key=lambda one: (len(one), np.array(one, "<i8").tobytes() if one[1:] else one))
    assert multisets(size, colour).tolist() == [order.index(one) + 1 if one else 0 for one in held]


@pytest.mark.parametrize("seed", range(40))
def test_ranks_are_alike_where_their_factors_are(seed):
    rng = np.random.default_rng(seed)
    factors = rng.choice([1.0, 1.0, 0.5, 2.0], (int(rng.integers(1, 40)), 3))
    assert alike(factors).tolist() == np.unique(factors, axis=0, return_inverse=True)[1].reshape(-1).tolist()
