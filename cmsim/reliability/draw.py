"""Lives of parts, drawn: when each fails, and when what took its place does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cmsim.errors import InputError, Problem
from cmsim.reliability.causes import HOUR_S, Cause
from cmsim.reliability.events import Failures, Floats, Ints, to_us

#: failures of all draws together
_MOST = 20_000_000


def expected(cause: Cause, window_s: float) -> float:
    """Failures of one draw, mean; where the law is not exponential, about so many. [1]

    n T / m, m the mean life. Else the lesser of n ((a + T)^k - a^k) / s^k, of parts mended as old as they were, and
    n (T / m + E[X^2] / m^2), Lorden's bound on parts that are renewed (Ann. Math. Stat. 41(2), 1970).
    """
    if not cause.parts or math.isinf(cause.scale_s):
        return 0.0
    mended = _hazard(cause, cause.age_s + window_s) - _hazard(cause, cause.age_s)
    if cause.shape == 1:
        return cause.parts * mended
    mean = math.gamma(1 + 1 / cause.shape)
    renewed = window_s / (cause.scale_s * mean) + math.gamma(1 + 2 / cause.shape) / mean**2
    return cause.parts * min(mended, renewed)


def events(causes: Sequence[Cause], *, runs: int, window_s: float, seed: int) -> Failures:
    """Failures of every cause in every draw. A part that fails has a new one in its place at once.

    Draws of a cause do not change with the others. Raises InputError for more failures than there is room for.
    """
    mean = runs * sum(expected(cause, window_s) for cause in causes)
    if mean > _MOST:
        raise InputError(
            Problem(f"{mean:.3g} failures in {runs} runs of {window_s / 86400:g} days; up to {_MOST:,}", key="runs")
        )
    columns: list[tuple[np.ndarray, ...]] = []
    for number, cause in enumerate(causes):
        random = np.random.default_rng([seed, number, *cause.name.encode()])
        run, start_s = _failures(cause, runs, window_s, random)
        breaks = random.random(len(run)) < cause.breaks
        start = to_us(start_s)
        gone = cause.detect_s + cause.repair_h * HOUR_S
        columns.append(
            (
                run,
                start,
                start + int(to_us(cause.detect_s)),
                start + int(to_us(gone)),
                np.full(len(run), number),
                breaks,
                np.where(breaks, cause.hosts, 0),
                np.where(breaks, 1.0, cause.slowdown),
            )
        )
    joined = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    order = np.lexsort((joined[4], joined[1], joined[0]))
    return Failures(runs, int(to_us(window_s)), *(column[order] for column in joined))


def _failures(cause: Cause, runs: int, window_s: float, random: np.random.Generator) -> tuple[Ints, Floats]:
    """Draw and time of each failure, generation by generation: of first parts, of those in their place, and so on."""
    if not cause.parts or math.isinf(cause.scale_s):
        return np.zeros(0, np.int64), np.zeros(0)
    past = _hazard(cause, cause.age_s)
    fails = -math.expm1(past - _hazard(cause, cause.age_s + window_s))
    counts = random.binomial(cause.parts, fails, size=runs)
    run = np.repeat(np.arange(runs), counts)
    # of those that fail at all: the law below its end
    life = -np.log1p(-fails * random.random(len(run)))
    time = cause.scale_s * (past + life) ** (1 / cause.shape) - cause.age_s
    time = np.clip(time, 0.0, window_s)
    found = [(run, time)]
    while len(run):
        time = time + cause.scale_s * random.standard_exponential(len(run)) ** (1 / cause.shape)
        inside = time < window_s
        run, time = run[inside], time[inside]
        found.append((run, time))
    return np.concatenate([one for one, _ in found]), np.concatenate([other for _, other in found])


def _hazard(cause: Cause, age_s: float) -> float:
    return float((age_s / cause.scale_s) ** cause.shape)
