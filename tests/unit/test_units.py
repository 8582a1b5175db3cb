"""Conversions: whole picoseconds, rounded to nearest, over the whole range of the clock."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim import units


@pytest.mark.parametrize(
    ("seconds", "picoseconds"),
    [(0.0, 0), (1e-12, 1), (0.4e-12, 0), (0.6e-12, 1), (1.5e-6, 1_500_000), (1.0, 10**12), (3600.0, 3600 * 10**12)],
)
def test_to_ps(seconds, picoseconds):
    assert units.to_ps(seconds) == picoseconds
    assert units.to_ps(seconds).dtype == np.int64


def test_columns():
    column = np.array([1e-9, 2e-9])
    assert units.to_ps(column).tolist() == [1000, 2000]
    assert units.to_s(units.to_ps(column)).tolist() == [1e-9, 2e-9]


def test_there_and_back_to_the_picosecond():
    # A double counts whole picoseconds up to 2**53, two and a half hours; beyond it the clock stays an integer.
    times = np.array([1, 999, 123_456_789, 3600 * 10**12 + 1], dtype=np.int64)
    assert (units.to_ps(units.to_s(times)) == times).all()


def test_clock_holds_a_hundred_days():
    assert units.to_ps(100 * 86_400.0) > 0
    assert np.iinfo(np.int64).max / units.PS_PER_S / 86_400 == pytest.approx(106.75, abs=0.01)


def test_decimal_prefixes():
    assert (units.GB, units.TB, units.GIGA, units.TERA) == (1e9, 1e12, 1e9, 1e12)
    assert units.US / units.NS == pytest.approx(1000)


def test_bytes_of_every_precision():
    from typing import get_args

    from cmsim.hardware.specs import Precision

    assert set(units.BYTES_PER_ELEMENT) == set(get_args(Precision)), "a precision has a size, and a size a precision"
    assert units.BYTES_PER_ELEMENT["fp4"] == 0.5
