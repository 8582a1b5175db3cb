"""Errors of a fit on rows it has not seen: folds grouped by configuration, and what is said of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import InputError, Problem

FOLDS = 5
#: rows below which nothing is fitted
FEWEST = 8
#: how rows were held out, for the files a fit writes
HOW = f"{FOLDS} folds grouped by configuration; errors of the rows held out"


def folds_of(configuration: NDArray[np.int64], *, file: str = "", seed: int = 0) -> NDArray[np.int64]:
    """A fold for every row; rows of one configuration share it.

    configuration: a number for every row, from 0

    InputError: one configuration only, so that nothing is left to fit when its rows are held out.
    """
    several = int(configuration.max()) + 1
    if several < 2:
        raise InputError(Problem(f"the {len(configuration)} rows are one configuration; at least 2 are needed", file))
    found: NDArray[np.int64] = np.random.default_rng(seed).permutation(several)[configuration] % FOLDS
    return found


def errors_pct(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[float, float]:
    """Median and 90th percentile of absolute errors, of the rows that have a prediction. [%]

    InputError: no row has one.
    """
    error = 100 * np.abs(predicted / measured - 1)
    error = error[np.isfinite(error)]
    if not len(error):
        raise InputError(f"no prediction for any of {len(measured)} rows")
    return float(np.median(error)), float(np.percentile(error, 90))
