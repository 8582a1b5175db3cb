"""Robust least squares in the logarithm of time, for several link classes at once.

Every class has its own constants; a common value pulls them together, so that what one class has no rows of (a rank
count, a protocol) comes from the others, and a new class starts from there. With x = log constant,

    minimise  sum rho(log(T(x)/t) / s)  +  sum ((common - start) / wide)^2  +  sum ((own - common) / narrow)^2

rho is the soft L1 loss, s the error that counts as one. Of a constant that is a share, x = log(c / (1 - c)): whatever
the rows say, it stays below 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Floats

Constants = dict[str, float]


@dataclass(frozen=True)
class Part:
    """The rows of one class: measured times [us] and the model, a function of constants. weight: of each row. [1]"""

    name: str
    time_us: Floats
    model: Callable[[Mapping[str, float]], Floats]
    weight: Floats


def fit(
    parts: Sequence[Part],
    start: Mapping[str, float],
    *,
    width: Mapping[str, float],
    default_width: float = 1.0,
    apart: float = 0.4,
    error: float = 0.05,
    rounds: int = 40,
    shares: Collection[str] = (),
) -> tuple[dict[str, Constants], Constants]:
    """Constants of every part, and the common ones.

    start: where the common constants are pulled to    width: how far they may go from there, in the logarithm
    apart: how far a part may go from the common ones, in units of width    error: of a row, in the logarithm
    rounds: evaluations at most    shares: constants that stay below 1
    """
    from scipy.optimize import least_squares

    names = list(start)
    count, several = len(names), len(parts)
    share = np.array([name in shares for name in names], dtype=bool)
    first = np.array([start[name] for name in names])
    # of a share the same step in its logarithm is a longer one in x
    left = np.where(share, 1.0 - first, 1.0)
    begin = np.log(first / left)
    wide = np.array([width.get(name, default_width) for name in names]) / left
    wanted = np.concatenate([np.log(part.time_us) for part in parts])
    weight = np.sqrt(np.concatenate([part.weight for part in parts])) / error
    edges = np.cumsum([0, *(len(part.time_us) for part in parts)])

    def values(x: Floats) -> Constants:
        grown = np.exp(x)
        return dict(zip(names, np.where(share, grown / (1.0 + grown), grown).tolist(), strict=True))

    def constants(v: Floats, number: int) -> Constants:
        return values(v[:count] + v[count * (number + 1) : count * (number + 2)])

    def rows(v: Floats) -> Floats:
        times = [part.model(constants(v, number)) for number, part in enumerate(parts)]
        raw = (np.log(np.concatenate(times)) - wanted) * weight
        # the square of this is the soft L1 loss, for data alone: the pulls stay quadratic
        out: Floats = np.sign(raw) * np.sqrt(2.0 * (np.sqrt(1.0 + raw * raw) - 1.0))
        return out

    def pulls(v: Floats) -> Floats:
        return np.concatenate(
            [
                (v[:count] - begin) / wide,
                *(v[count * (i + 1) : count * (i + 2)] / (apart * wide) for i in range(several)),
            ]
        )

    def residuals(v: Floats) -> Floats:
        return np.concatenate([rows(v), pulls(v)])

    def jacobian(v: Floats) -> Floats:
        here, h = rows(v), 1e-5
        out = np.zeros((len(here) + len(v), len(v)))
        for k in range(count):
            # one shift of all parts at once: rows of a part depend on its own constants alone
            moved = v.copy()
            moved[k] += h
            slope = (rows(moved) - here) / h
            out[: len(here), k] = slope
            out[len(here) + k, k] = 1.0 / wide[k]
            for i in range(several):
                column = count * (i + 1) + k
                out[edges[i] : edges[i + 1], column] = slope[edges[i] : edges[i + 1]]
                out[len(here) + column, column] = 1.0 / (apart * wide[k])
        return out

    found = least_squares(
        residuals, np.concatenate([begin, np.zeros(count * several)]), jac=jacobian, max_nfev=rounds, ftol=1e-5
    ).x
    return {part.name: constants(found, number) for number, part in enumerate(parts)}, values(found[:count])
