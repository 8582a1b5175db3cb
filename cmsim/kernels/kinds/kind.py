"""What a kind of kernel declares: its columns, its page, where its constants start. Prediction and fit need no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.compute.work import Work
from cmsim.kernels.machine import Machine

Names = tuple[tuple[str, ...], Ints]
#: rows, and what a column of the residual is to be multiplied by -> the columns that do it
Move = Callable[["KernelRows", Floats], Mapping[str, Floats]]


@dataclass(frozen=True)
class KernelRows:
    """Columns of a table: numbers, and texts as names with codes."""

    numbers: Mapping[str, Floats]
    texts: Mapping[str, Names]

    def __len__(self) -> int:
        return len(next(iter(self.numbers.values())))

    def __getitem__(self, name: str) -> Floats:
        return self.numbers[name]

    def take(self, rows: Ints | NDArray[np.bool_]) -> KernelRows:
        return KernelRows(
            {name: values[rows] for name, values in self.numbers.items()},
            {name: (names, code[rows]) for name, (names, code) in self.texts.items()},
        )

    def spelled(self, name: str) -> list[str]:
        """A text column, one text a row."""
        names, code = self.texts[name]
        return [names[c] for c in code.tolist()]


def spelled_so(column: str, good: Callable[[str], bool]) -> Callable[[KernelRows], NDArray[np.bool_]]:
    """A rule of a text column, asked once of each different text."""

    def holds(rows: KernelRows) -> NDArray[np.bool_]:
        names, code = rows.texts[column]
        return np.array([good(name) for name in names], dtype=bool)[code]

    return holds


def scaled(column: str) -> Move:
    """The move of a column of the residual that is in proportion to one of the table."""
    return lambda rows, ratio: {column: rows[column] * ratio}


def from_zero(values: Floats) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = (values >= 0) & (values == np.floor(values))
    return good


@dataclass(frozen=True)
class KernelKind:
    """One kind of kernel.

    name        as ``cmsim predict`` takes it
    numbers     columns that must be there: whole, above 0    zero: of them, which may be 0
    texts       columns of text that must be there
    optional    columns of text that may be absent, and what stands in    defaults: the same of numbers
    variants    of every row the name of its constants, leading part first: format, then kernel ("fp8/cutlass")
    precision   of a variant the key of ``peak_TFLOPps`` that its arithmetic counts against
    time_us     the page: rows of one variant, the device, the variant, constants -> time [us]
    work        rows, the variant -> arithmetic and bytes, which no time beats: each operand once
    shares      constants that are shares of a peak: fits keep them below 1
    start       constants that a fit of a variant starts from, and is pulled to; of several, the one that fits best
    width       how far they may go, in the logarithm (1 where nothing is said)
    axes        columns of the residual from rows, each above 0; its range is what "seen" means
    machine_axes   more of them, which depend on the device
    moves       of a column of the residual, how rows outside its range get to the edge (``nearest``), in this order
    terms       surfaces of the residual: columns, and doublings of a column a step (one for all, or one for each)
    per_core    constants that are rates of one core: where a relative's cores are unlike, scaled by the cores' peaks
    host        constants of what the host does around a kernel, where a variant has the first of them
    known       columns by which ``calibrate`` knows the table    is_one: of those, whether it is this kind
    rules       what else must hold of rows: column, what it must be, and where it does
    """

    name: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    variants: Callable[[KernelRows], Names]
    precision: Callable[[str], str]
    time_us: Callable[[KernelRows, Machine, str, Mapping[str, float]], Floats]
    start: Callable[[str], Mapping[str, float] | tuple[Mapping[str, float], ...]]
    axes: Callable[[KernelRows], Mapping[str, Floats]]
    terms: Sequence[tuple[tuple[str, ...], float | tuple[float, ...]]]
    known: tuple[str, ...]
    work: Callable[[KernelRows, str], Work]
    shares: tuple[str, ...]
    moves: Mapping[str, Move]
    width: Mapping[str, float] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    optional: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=dict)
    is_one: Callable[[KernelRows], bool] = lambda _: True
    machine_axes: Callable[[KernelRows, Machine], Mapping[str, Floats]] = lambda _, __: {}
    per_core: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    rules: Sequence[tuple[str, str, Callable[[KernelRows], NDArray[np.bool_]]]] = ()
    #: the format that a device computes a variant in, where it is not ``precision``
    computes_in: Callable[[str, Machine], str] | None = None
    #: what the time is made of, by name, "physics_us" the whole [us, FLOP, B, 1]; None: the page is one expression
    parts: Callable[[KernelRows, Machine, str, Mapping[str, float]], Mapping[str, Floats]] | None = None
    #: the same as ``time_us`` without what a run has as ops of its own, or as host work; None where that is nothing
    op_us: Callable[[KernelRows, Machine, str, Mapping[str, float]], Floats] | None = None
    #: weights of the residual's penalties: squared curvature, squared size
    smooth: float = 0.3
    small: float = 0.01

    def all_axes(self, rows: KernelRows, machine: Machine) -> dict[str, Floats]:
        """Columns of the residual."""
        return {**self.axes(rows), **self.machine_axes(rows, machine)}

    def least_us(self, rows: KernelRows, machine: Machine, variant: str) -> Floats:
        """What no row is faster than: its FLOPs over the peak of their format, its bytes over that of memory. [us]"""
        work = self.work(rows, variant)
        engine = self.precision(variant) if self.computes_in is None else self.computes_in(variant, machine)
        compute_s, memory_s = work.flops / machine.peak_FLOPps[engine], work.bytes_B / machine.memory_Bps
        out: Floats = 1e6 * np.maximum(compute_s, memory_s)
        return out

    def nearest(
        self, rows: KernelRows, machine: Machine, low: Mapping[str, float], high: Mapping[str, float]
    ) -> KernelRows:
        """Rows at the edge of the residual's range, each column moved no further than that; low, high: in log2."""
        for name, move in self.moves.items():
            if name in low:
                now = self.all_axes(rows, machine)[name]
                ratio = np.clip(now, 2.0 ** low[name], 2.0 ** high[name]) / now
                rows = replace(rows, numbers={**rows.numbers, **move(rows, ratio)})
        return rows

    def parted(self, constants: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
        """Constants of the device, and of the host."""
        host = self.host if self.host and self.host[0] in constants else ()
        device = {name: value for name, value in constants.items() if name not in host}
        return device, {name: constants[name] for name in host if name in constants}

    def starts(self, variant: str) -> tuple[Mapping[str, float], ...]:
        """Constants to start from, one or several."""
        found = self.start(variant)
        return found if isinstance(found, tuple) else (found,)


def joined(rows: KernelRows, parts: Sequence[Names]) -> Names:
    """Names of several columns joined by "/", each combination once."""
    code = np.zeros(len(rows), dtype=np.int64)
    for names, own in parts:
        code = code * len(names) + own
    values, at = np.unique(code, return_inverse=True)
    spelled = []
    for value in values.tolist():
        words = []
        for names, _ in reversed(parts):
            value, which = divmod(value, len(names))
            words.append(names[which])
        spelled.append("/".join(reversed(words)))
    return tuple(spelled), at.astype(np.int64)
