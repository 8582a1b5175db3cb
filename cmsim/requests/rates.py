"""Rates of arrival by window, where a trace says how often requests came and not when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError

#: of the time between two requests; a window without requests has none (-1)
DISTRIBUTIONS = ("Gamma", "Weibull", "Exponential")
GAMMA, WEIBULL, EXPONENTIAL = range(len(DISTRIBUTIONS))


@dataclass(frozen=True)
class RateWindows:
    """One row per window, ascending.

    start_s       [s]
    width_s       of every window [s]
    rate_rps      requests in the window by its width [1/s]
    cv            coefficient of variation of the time between two requests, as measured [1]
    distribution  fitted to the time between two requests, into `DISTRIBUTIONS`; -1: none
    shape, scale_s  its parameters: of Gamma k and theta, of Weibull k and lambda [1], [s]
    """

    format: str
    source: str
    start_s: Floats
    width_s: float
    rate_rps: Floats
    cv: Floats
    distribution: Ints
    shape: Floats
    scale_s: Floats
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start_s)

    def counts(self) -> dict[str, Any]:
        """What the file holds, for ``cmsim trace info``; the key ``format`` names the format."""
        return {"format": self.format, **self.facts}


def draw_arrivals(windows: RateWindows, *, seed: int, rate_scale: float = 1.0, most: int = 10**8) -> Floats:
    """Arrivals that have the rates of the windows, ascending, from the start of the first window. [s]

    Each window gets rate x width x ``rate_scale`` requests (what is cut off in rounding goes to the next window). The
    times between them are drawn from its distribution and scaled so that they fill the window: the shape of the
    distribution says how bursty they are, the rate says how many there are. The scale that was fitted is not used: over
    the windows of one client the mean of the fitted Weibull is 0.02 to 7 times what its rate says.

    seed  of NumPy's default generator: the same seed gives the same arrivals
    most  requests above which nothing is drawn

    Raises InputError where there would be more than ``most`` requests.
    Source: github.com/alibaba/ServeGen, README and servegen/construct.py, which scales what it draws in the same way
    (and loses the last request of each window, which falls on the window's end; here there is one more gap than
    requests); Xiang et al., ServeGen, NSDI 2026.
    """
    expected = np.cumsum(windows.rate_rps * windows.width_s * rate_scale)
    if not rate_scale >= 0 or not (len(expected) and expected[-1] <= most):
        total = float(expected[-1]) if len(expected) else 0.0
        raise InputError(f"{windows.source}: {total:.3g} requests to draw; allowed: 0 to {most}")
    count = np.asarray(np.diff(np.rint(expected), prepend=0), np.int64)
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(count)
    gaps = count[rows] + 1
    kind = np.repeat(windows.distribution[rows], gaps)
    shape = np.repeat(windows.shape[rows], gaps)
    drawn = np.ones(len(kind))
    for code, draw in ((GAMMA, rng.standard_gamma), (WEIBULL, rng.weibull)):
        drawn[kind == code] = draw(shape[kind == code])
    poisson = (kind == EXPONENTIAL) | (kind < 0)
    drawn[poisson] = rng.standard_exponential(int(poisson.sum()))
    if not len(rows):
        return drawn
    first = np.cumsum(gaps) - gaps
    # a Weibull of shape 0.001 goes beyond what a float holds, and a Gamma of that shape may leave nothing but zeros:
    # then all requests of the window come at once, at its start
    drawn = np.minimum(drawn, 1e280)
    length = np.add.reduceat(drawn, first)
    ends = np.cumsum(drawn / np.repeat(np.where(length > 0, length, 1.0), gaps))
    within = ends - np.repeat(np.concatenate(([0.0], ends))[first], gaps)
    start = np.repeat(windows.start_s[rows] - windows.start_s[0], gaps)
    # a last gap far below the others vanishes in the sum, and its request is not to fall into the next window
    arrival = np.minimum(start + within * windows.width_s, np.nextafter(start + windows.width_s, 0))
    return np.asarray(np.delete(arrival, first + gaps - 1))
