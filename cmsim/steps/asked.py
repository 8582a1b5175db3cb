"""Steps that are played when they are asked for: points on a coarse grid, and costs between in a straight line.

A table seeks where costs bend over whole ranges, and plays hundreds of points for it. A service asks for few sizes, a
search for few steps of each of many plans: here a point is played when somebody asks for its neighbourhood, and kept.
Kernels' tiles make costs jump between points of this grid; `Points.trial` says by how much it misses at a point.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cmsim import api, reading
from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError
from cmsim.scenario import Run
from cmsim.steps import store
from cmsim.steps.axes import Axis
from cmsim.steps.cells import Point
from cmsim.steps.plays import COLUMNS, Evaluate, Plays

#: of the files; another one is not read
_SCHEMA = 1


def between(low: int, high: int) -> list[int]:
    """Powers of two from ``low`` on and numbers halfway between them, up to the first that is not below ``high``."""
    out, x = [low], 1
    while out[-1] < high:
        for one in (x, x + x // 2):
            if one > out[-1]:
                out.append(one)
            if out[-1] >= high:
                break
        x *= 2
    return out


class Points:
    """Points of a plan, played when they are asked for and kept in a file from run to run.

    run      a workload on a system that leaves nothing open    axes  keys that points are of, in their order
    folder   where points are kept; default: that of tables; None: nowhere

    ``asked`` has the points that somebody asked for here, whether they were kept from before or not.
    """

    def __init__(
        self,
        run: Run,
        axes: Sequence[Axis],
        machines: api.Machines,
        *,
        folder: Path | str | None = "",
        evaluate: Evaluate = api.evaluate,
    ):
        self._plays = Plays(run, axes, machines, evaluate)
        self.asked: dict[Point, None] = {}
        self._played = False
        where = store.folder() if folder == "" else folder
        self._file: Path | None = None
        if where is not None and evaluate is api.evaluate:
            name = store.digest(run, axes, machines, points=_SCHEMA)
            self._file = Path(where) / f"{name}.points.npz"
        self._rows: dict[Point, Floats] = self._read()

    def __call__(self, point: Point) -> Floats:
        """Columns of a step at a point, as `Plays` has them. Raises InfeasibleError where no plan is possible there."""
        self.asked[point] = None
        found = self._rows.get(point)
        if found is None:
            self._played = True
            found = self._rows[point] = self._plays(point)
        if np.isnan(found[0]):
            axes = ", ".join(f"{axis.called} {x}" for axis, x in zip(self._plays.axes, point, strict=True))
            raise self._plays.refused or InfeasibleError(f"no step of {axes} is possible")
        return found

    def at(self, point: Point) -> Run:
        """The run at a point, whole: for who looks at more than its columns."""
        return dataclasses.replace(self._plays.at(point), record="full")

    def _read(self) -> dict[Point, Floats]:
        if self._file is None:
            return {}
        try:
            with np.load(io.BytesIO(self._file.read_bytes()), allow_pickle=False) as kept:
                points, rows = kept["points"], kept["rows"]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return {}
        if points.ndim != 2 or rows.shape != (len(points), len(COLUMNS)):
            return {}
        return {tuple(point): row for point, row in zip(points.tolist(), rows, strict=True)}

    def save(self) -> None:
        """Keeps what was played, with what others have kept meanwhile; where nothing can be written, nowhere."""
        if self._file is None or not self._played:
            return
        rows = {**self._read(), **self._rows}
        points = sorted(rows)
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            reading.sweep(self._file.parent)
            with reading.whole_file(self._file) as beside, beside.open("wb") as file:
                np.savez(file, points=np.array(points, np.int64), rows=np.array([rows[one] for one in points]))


def straight(low: float, high: float, x: float, told: Callable[[float], Floats]) -> Floats:
    """What is told at ``x``, on the line through ``low`` and ``high``."""
    if low == high:
        return told(low)
    share = (x - low) / (high - low)
    out: Floats = told(low) * (1 - share) + told(high) * share
    return out


__all__ = ["Points", "between", "straight"]
