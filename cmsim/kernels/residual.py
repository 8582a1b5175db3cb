"""What physics leaves, smooth in the logs of the columns.

    log2 factor = sum over terms of a piecewise linear surface over a grid in log2 of the term's columns

Fitted with penalties on curvature and size, so that a gap between rows is bridged and a grid without rows is flat.
Outside the columns' range physics carries on: of the factor f at the nearest edge, where physics had the time e, there
is left at a time p

    h = max(f, 1/f);  u = min(e, p) / max(e, p);  factor = 1 + (h - 1) u, or its inverse where f is below 1

which is f at the edge, goes to 1 as physics leaves it behind, and times p never falls where p grows: a factor that
faded with the distance alone would make a larger kernel faster than a smaller one.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.errors import InputError, Problem
from cmsim.reading.tables import records

#: doublings of a column beyond its range from which a row counts as outside
APART = 1e-3


@dataclass(frozen=True)
class Term:
    """A surface. axes: names of columns    low, step: of the grid, in log2    values: log2, one axis for each column"""

    axes: tuple[str, ...]
    low: tuple[float, ...]
    step: tuple[float, ...]
    values: Floats

    def corners(self, logs: Mapping[str, Floats]) -> tuple[list[NDArray[np.int64]], list[Floats]]:
        """Flat positions of the grid points around every row, and their weights."""
        shape = self.values.shape
        places: list[NDArray[np.int64]] = []
        shares: list[Floats] = []
        for name, low, step, count in zip(self.axes, self.low, self.step, shape, strict=True):
            at = np.clip((logs[name] - low) / step, 0.0, count - 1.0)
            place = np.minimum(at.astype(np.int64), max(count - 2, 0))
            places.append(place)
            shares.append(at - place)
        stride = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
        positions, weights = [], []
        for corner in itertools.product((0, 1), repeat=len(shape)):
            if any(one and count == 1 for one, count in zip(corner, shape, strict=True)):
                continue
            position = np.zeros(len(places[0]), dtype=np.int64)
            for place, one, s in zip(places, corner, stride, strict=True):
                position += (place + one) * s
            weight: Floats = np.ones(len(position))
            for one, share, count in zip(corner, shares, shape, strict=True):
                if count > 1:
                    weight = weight * (share if one else 1.0 - share)
            positions.append(position)
            weights.append(weight)
        return positions, weights

    def value(self, logs: Mapping[str, Floats]) -> Floats:
        flat = self.values.reshape(-1)
        positions, weights = self.corners(logs)
        out: Floats = np.zeros(len(weights[0]))
        for position, weight in zip(positions, weights, strict=True):
            out += flat[position] * weight
        return out


@dataclass(frozen=True)
class Residual:
    """Surfaces of one variant. low, high: of every column that was seen, in log2"""

    low: Mapping[str, float]
    high: Mapping[str, float]
    terms: tuple[Term, ...]

    def factor(self, columns: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        """Of every row, outside the range that of the edge; and how many doublings outside its furthest column is.

        columns: those of the terms, above 0
        """
        logs = {name: np.log2(columns[name]) for name in self.low}
        beyond = np.zeros(len(next(iter(logs.values()))))
        for name, values in logs.items():
            # most columns are inside, which is found faster than by how much each row is not outside
            if values.min() < self.low[name] or values.max() > self.high[name]:
                beyond = np.maximum(beyond, np.maximum(self.low[name] - values, values - self.high[name]))
        out: Floats = np.exp2(sum((term.value(logs) for term in self.terms), np.zeros(len(beyond))))
        return out, beyond


def carried(factor: Floats, edge_us: Floats, time_us: Floats) -> Floats:
    """What is left of the residual of an edge, whose physics takes ``edge_us``, where physics takes ``time_us``."""
    left = np.minimum(edge_us, time_us) / np.maximum(edge_us, time_us)
    size = 1.0 + (np.maximum(factor, 1.0 / factor) - 1.0) * left
    out: Floats = np.where(factor < 1.0, 1.0 / size, size)
    return out


def fit_residual(
    columns: Mapping[str, Floats],
    log2_ratio: Floats,
    terms: Sequence[tuple[tuple[str, ...], float | tuple[float, ...]]],
    *,
    smooth: float = 0.3,
    small: float = 0.01,
    error: float = 0.1,
    rounds: int = 4,
) -> Residual:
    """Surfaces that explain measured over physics.

    columns: above 0    log2_ratio: of measured to physics
    terms: columns of each surface, and doublings a grid step (of all, or of each)
    smooth, small: weights of squared curvature and of squared size, for one row's weight of 1
    error: in log2, beyond which a row weighs less (soft L1)    rounds: of reweighting
    """
    from scipy import sparse

    logs = {name: np.log2(values) for name, values in columns.items()}
    low = {name: float(values.min()) for name, values in logs.items()}
    high = {name: float(values.max()) for name, values in logs.items()}
    empty: list[Term] = []
    blocks, penalties = [], []
    count = len(log2_ratio)
    for axes, wanted in terms:
        steps = (wanted,) * len(axes) if isinstance(wanted, int | float) else wanted
        shape = tuple(
            max(1, round((high[name] - low[name]) / one)) + (high[name] > low[name])
            for name, one in zip(axes, steps, strict=True)
        )
        step = tuple((high[name] - low[name]) / (n - 1) if n > 1 else 1.0 for name, n in zip(axes, shape, strict=True))
        term = Term(axes, tuple(low[name] for name in axes), step, np.zeros(shape))
        empty.append(term)
        positions, weights = term.corners(logs)
        row = np.tile(np.arange(count), len(positions))
        size = int(np.prod(shape))
        blocks.append(
            sparse.csr_matrix((np.concatenate(weights), (row, np.concatenate(positions))), shape=(count, size))
        )
        penalties.append(smooth * _curvature(shape) + small * sparse.identity(size))
    design = sparse.hstack(blocks).tocsr()
    penalty = sparse.block_diag(penalties).toarray()
    weight: Floats = np.ones(count)
    found: Floats = np.zeros(design.shape[1])
    for _ in range(rounds):
        weighted = design.multiply(weight[:, None]).tocsr()
        normal = (weighted.T @ design).toarray() + penalty
        found = np.linalg.solve(normal, weighted.T @ log2_ratio)
        left = (log2_ratio - design @ found) / error
        weight = 1.0 / np.sqrt(1.0 + left * left)
    done: list[Term] = []
    start = 0
    for term in empty:
        size = term.values.size
        values: Floats = np.round(found[start : start + size], 4).reshape(term.values.shape)
        done.append(Term(term.axes, term.low, term.step, values))
        start += size
    return Residual(low, high, tuple(done))


def _curvature(shape: tuple[int, ...]) -> Any:
    """Sum over axes of squared second differences, as a quadratic form."""
    from scipy import sparse

    total = sparse.csr_matrix((int(np.prod(shape)),) * 2)
    for axis, count in enumerate(shape):
        if count < 3:
            continue
        second = sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(count - 2, count))
        whole = sparse.identity(1)
        for other, n in enumerate(shape):
            whole = sparse.kron(whole, second if other == axis else sparse.identity(n))
        total = total + whole.T @ whole
    return total


_HEAD = ("variant", "part", "columns", "low", "step_or_high", "shape", "values")


def write_residuals(residuals: Mapping[str, Residual]) -> str:
    """As CSV: the range of each variant, then a line for each surface, values in row-major order."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEAD)

    def spaced(values: Sequence[float]) -> str:
        return " ".join(f"{value:.6g}" for value in values)

    for name, one in residuals.items():
        writer.writerow(
            (name, "range", " ".join(one.low), spaced(list(one.low.values())), spaced(list(one.high.values())), "", "")
        )
        for term in one.terms:
            shape = " ".join(map(str, term.values.shape))
            values = spaced(term.values.reshape(-1).tolist())
            writer.writerow((name, "surface", " ".join(term.axes), spaced(term.low), spaced(term.step), shape, values))
    return out.getvalue()


def read_residuals(text: str, *, file: str = "") -> dict[str, Residual]:
    """What ``write_residuals`` wrote.

    InputError: a line that it does not write, with its number.
    """
    ranges: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
    terms: dict[str, list[Term]] = {}
    for cells in records(text, file=file, needed=_HEAD):
        try:
            axes = tuple(cells["columns"].split())
            low, other = ([float(v) for v in cells[key].split()] for key in ("low", "step_or_high"))
            if cells["part"] == "range":
                ranges[cells["variant"]] = dict(zip(axes, low, strict=True)), dict(zip(axes, other, strict=True))
                terms[cells["variant"]] = []
                continue
            shape = tuple(int(v) for v in cells["shape"].split())
            values = np.array([float(v) for v in cells["values"].split()]).reshape(shape)
            terms[cells["variant"]].append(Term(axes, tuple(low), tuple(other), values))
        except (KeyError, ValueError) as error:
            raise InputError(Problem(f"not a line of a residual: {error}", file, cells.line)) from None
    return {name: Residual(*ranges[name], tuple(found)) for name, found in terms.items()}
