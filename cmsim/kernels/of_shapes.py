"""Kernels of a run by their sizes: what pages and measured rows say they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.compute.shape import Shape
from cmsim.errors import InputError
from cmsim.hardware import AcceleratorSpec
from cmsim.kernels.data import kernel_data, kernel_machine
from cmsim.kernels.families import sizes_of
from cmsim.kernels.kinds import KINDS
from cmsim.kernels.kinds.kind import KernelRows
from cmsim.kernels.times import Timed, times_for


def shape_times_us(
    shapes: Sequence[Shape],
    cores: Floats,
    spec: AcceleratorSpec,
    *,
    devices: float = 1.0,
    gemm_formats: Mapping[str, str] | None = None,
) -> Timed:
    """Time of each shape as one op, and what is to be said of it; see `shape_times_for`."""
    us, (notes,) = shape_times_for(
        [np.arange(len(shapes))], shapes, cores, spec, devices=devices, gemm_formats=gemm_formats
    )
    return Timed(us, notes)


def shape_times_for(
    askers: Sequence[Ints],
    shapes: Sequence[Shape],
    cores: Floats,
    spec: AcceleratorSpec,
    *,
    devices: float = 1.0,
    gemm_formats: Mapping[str, str] | None = None,
) -> tuple[Floats, list[tuple[str, ...]]]:
    """Time of each shape as one op: what a table's row has beside it (host work, kernels that are ops of their own) is
    left out. NaN where neither the accelerator nor a part with the same cores has measured rows of the kind. [us]

    cores: share of the device's cores, one a shape [1]
    devices: that share each kernel, more than 1 where a rank is a package of several [1]
    gemm_formats: by precision the format of the table's products that stand for it, where it is not the same
    askers: the shapes that each of several asks for, in order; each gets notes on its own
    """
    formats = gemm_formats or {}
    out = np.full(len(shapes), np.nan)
    notes: list[list[str]] = [[] for _ in askers]
    keys = np.array([f"{one.kind} {share}" for one, share in zip(shapes, cores.tolist(), strict=True)])
    # the folder of tables is looked at once for each kind, not for each shape
    sizes = {kind: sizes_of(kind) for kind in {one.kind for one in shapes}}
    like_measured = np.array([_like_measured(one, sizes[one.kind]) for one in shapes], bool)
    for key in sorted(set(keys.tolist())):
        here = np.flatnonzero((keys == key) & like_measured)
        if not len(here):
            continue
        kind = KINDS[shapes[int(here[0])].kind]
        try:
            data = kernel_data(spec, kind.name)
        except InputError:
            continue  # no rows, and no relative that has any
        if data.same_cores:
            rows = _rows([_in_format(shapes[at], formats) for at in here.tolist()])
            machine = kernel_machine(spec).scaled(devices, float(cores[here[0]]))
            place = np.full(len(shapes), -1)
            place[here] = np.arange(len(here))
            own = [place[mine][place[mine] >= 0] for mine in askers]
            out[here], said = times_for(own, kind, rows, spec, data, machine=machine, as_op=True)
            for mine, whose, more in zip(notes, own, said, strict=True):
                mine += more if len(whose) else ()
    return out, [tuple(said) for said in notes]


def _like_measured(shape: Shape, sizes: Mapping[str, float]) -> bool:
    """Whether a shape has the sizes that all measured rows of its kind share."""
    numbers = dict(shape.numbers)
    return all(numbers.get(name, size) == size for name, size in sizes.items())


def _in_format(shape: Shape, formats: Mapping[str, str]) -> Shape:
    if shape.kind != "gemm":
        return shape
    return shape._replace(formats=tuple((name, formats.get(own, own)) for name, own in shape.formats))


def _rows(shapes: Sequence[Shape]) -> KernelRows:
    """Shapes of one kind as a table."""
    kind = KINDS[shapes[0].kind]
    columns = [{**kind.defaults, **dict(one.numbers)} for one in shapes]
    texts = [{**kind.optional, **dict(one.formats)} for one in shapes]
    spelled = {name: [one[name] for one in texts] for name in texts[0]}
    names = {name: sorted(set(column)) for name, column in spelled.items()}
    return KernelRows(
        {name: np.array([one[name] for one in columns], np.float64) for name in columns[0]},
        {name: (tuple(names[name]), np.searchsorted(names[name], column)) for name, column in spelled.items()},
    )
