"""What of a batch's time goes by tiles: its products, whose rows are the tokens at work, priced in columns.

A library multiplies in tiles of 64 rows and more, and in waves of them over the cores: every 64 or 128 tokens a batch
takes 1 to 7 % longer. So many jumps are not to be found by playing. What the products of one part of a batch take is a
function of its tokens alone, whatever kernels are beside them; thousands of numbers of tokens are priced in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmsim import engine, kinds
from cmsim.arrays import Floats, Ints
from cmsim.compute.shape import Shape
from cmsim.errors import InfeasibleError
from cmsim.execution import options_of
from cmsim.hardware import System
from cmsim.kernels.gemm import TILES
from cmsim.scenario import Run
from cmsim.steps.cells import Cell
from cmsim.workload import OpTable, Programs, generate
from cmsim.workload.loops import times

#: the class of kernels that is priced so
_PRODUCT = "gemm"
#: rows of the smallest tile: a product's time jumps after multiples of it
_TILE = min(rows for rows, _ in TILES)
#: numbers of tokens that are nearer to each other than this share of them are not told apart
_FINE = 1 / 256
#: by how much products take longer after a number of tokens, that it is seen in a step
_JUMP = 0.01


@dataclass(frozen=True)
class Products:
    """Products of one program, different ones once.

    table    their rows, of ``programs``    system, options  what prices them
    m        rows of C for every token of a part [1]    count  how often each comes in a part [1]
    flops, bytes_B  for every token    fixed_B  bytes of its weights, whatever the tokens
    """

    programs: Programs
    table: OpTable
    system: System
    options: engine.Options
    m: Floats
    flops: Floats
    fixed_B: Floats
    bytes_B: Floats
    count: Floats

    def seconds(self, tokens: Ints) -> Floats:
        """Of all products of a part, shape of ``tokens``. [s]"""
        each = len(self.m)
        rows, token = np.tile(np.arange(each), len(tokens)), np.repeat(tokens, each)
        one = [self.table.shapes[number] for number in self.table.shape.tolist()]
        m = self.m[rows] * token
        shapes = tuple(_with_rows(one[row], size) for row, size in zip(rows.tolist(), m.tolist(), strict=True))
        ops = replace(
            _rows(self.table, rows),
            shapes=shapes,
            shape=np.arange(len(shapes)),
            flops=self.flops[rows] * token,
            bytes_B=self.fixed_B[rows] + self.bytes_B[rows] * token,
        )
        held_s, _ = engine.hold_s(replace(self.programs, ops=ops), self.system, self.options)
        out: Floats = held_s.reshape(len(tokens), each) @ self.count
        return out


def products(
    run: Run, more: Run, system: System, base: Path | None, *, tokens: tuple[int, int], parts: int
) -> Products | None:
    """Products of a run and of the same one with more tokens; None where there are none whose rows grow with them.

    tokens  of a part of each    parts  equal ones that a batch is cut into
    """
    if tokens[0] == tokens[1] or not isinstance(kinds.get(run.spec.kind).execution, kinds.PlayedKind):
        return None
    try:
        few, many = (generate.programs(one.spec, system, base=base, loops=True) for one in (run, more))
    except InfeasibleError:
        return None
    a, b = few.ops, many.ops
    if len(a) != len(b) or (a.kernel != b.kernel).any() or not len(a.shape) or _PRODUCT not in a.kernels:
        return None
    rows = np.flatnonzero((a.kernel == a.kernels.index(_PRODUCT)) & (a.shape >= 0) & (b.shape >= 0))
    first, second = (np.array([_sizes(ops, row) for row in rows.tolist()]).reshape(-1, 4) for ops in (a, b))
    grows = np.isclose(second[:, 0] * tokens[0], first[:, 0] * tokens[1]) & (first[:, 1:] == second[:, 1:]).all(axis=1)
    rows, first = rows[grows], first[grows]
    if not len(rows):
        return None
    slope_B = (b.bytes_B[rows] - a.bytes_B[rows]) / (tokens[1] - tokens[0])
    key = np.column_stack([a.shape[rows], a.cores[rows], a.precision[rows], a.bytes_B[rows]])
    _, one, back = np.unique(key, axis=0, return_index=True, return_inverse=True)
    count = np.bincount(back.reshape(-1), weights=times(few)[rows].astype(float)) / parts
    chosen = rows[one]
    return Products(
        few,
        _rows(a, chosen),
        system,
        options_of(run, system),
        first[one, 0] / tokens[0],
        a.flops[chosen] / tokens[0],
        a.bytes_B[chosen] - slope_B[one] * tokens[0],
        slope_B[one],
        count,
    )


def _with_rows(shape: Shape, m: float) -> Shape:
    return shape._replace(numbers=tuple((name, m if name == "m" else size) for name, size in shape.numbers))


def _sizes(ops: OpTable, row: int) -> list[float]:
    numbers = dict(ops.shapes[int(ops.shape[row])].numbers)
    return [float(numbers[name]) for name in ("m", "n", "k", "groups")]


def _rows(ops: OpTable, rows: Ints) -> OpTable:
    """Some rows, which wait for nothing."""
    columns = (
        "name_id",
        "stream",
        "kind",
        "kernel",
        "precision",
        "flops",
        "bytes_B",
        "cores",
        "recorded_s",
        "slot",
        "collective",
    )
    taken = {name: getattr(ops, name)[rows] for name in columns}
    none = np.zeros(0, np.int64)
    return replace(
        ops, **taken, shape=ops.shape[rows], dep_ptr=np.zeros(len(rows) + 1, np.int64), dep_idx=none, exchange=none
    )


def line(its: Products, low: int, high: int, tolerance: float) -> tuple[list[Cell], list[Floats]]:
    """Boxes of tokens from ``low`` to ``high``, and what products take at both their ends, shape (2,). [s]"""
    ends = _ends(its.m, low, high)
    begins = np.append(low, ends[:-1] + 1)
    tokens = np.unique(np.concatenate([begins, ends]))
    seconds = its.seconds(tokens)
    first, last = np.searchsorted(tokens, begins), np.searchsorted(tokens, ends)
    cells, rows = [], []
    at = 0
    while at < len(ends):
        end = _reach(tokens[first[at] :], seconds[first[at] :], last[at:] - first[at], tolerance) + at
        cells.append(Cell((int(begins[at]),), (int(ends[end]),), (int(begins[at]),), (False,)))
        rows.append(seconds[[first[at], last[end]]])
        at = end + 1
    return cells, rows


def _ends(m: Floats, low: int, high: int) -> Ints:
    """The last numbers of tokens before a tile more, thinned out where they are close, and the highest."""
    found = {high}
    for rows in np.unique(m).tolist():
        tiles, most = 1, high * rows / _TILE
        while tiles <= most:
            found.add(int(tiles * _TILE / rows))
            # twos: large tiles and waves go by them
            tiles += 1 << max(int(tiles * _FINE).bit_length() - 1, 0)
    return np.array(sorted(end for end in found if low <= end <= high), np.int64)


def _reach(x: Ints, y: Floats, ends: Ints, tolerance: float) -> int:
    """The furthest of some ends up to which a line from the first number meets all others, looked for by doubling."""
    best, step = 0, 1
    while best + step < len(ends) and _straight(x, y, int(ends[best + step]), tolerance):
        best += step
        step *= 2
    while step:
        if best + step < len(ends) and _straight(x, y, int(ends[best + step]), tolerance):
            best += step
        step //= 2
    return best


def _straight(x: Ints, y: Floats, end: int, tolerance: float) -> bool:
    told = y[0] + (y[end] - y[0]) * (x[: end + 1] - x[0]) / max(x[end] - x[0], 1)
    return bool((np.abs(told / y[: end + 1] - 1) <= tolerance).all())


def steepest(cells: Sequence[Cell], rows: Sequence[Floats], low: int, high: int) -> tuple[int, float] | None:
    """After which number of tokens from ``low`` to below ``high`` products take a larger share longer, and how much
    longer [s]; None where there is no jump to speak of."""
    found = [
        (float(after[0] / before[-1] - 1), cell.hi[0], float(after[0] - before[-1]))
        for cell, before, after in zip(cells, rows, rows[1:], strict=False)
        if low <= cell.hi[0] < high
    ]
    share, end, more_s = max(found, default=(0.0, 0, 0.0))
    return (end, more_s) if share > _JUMP else None
