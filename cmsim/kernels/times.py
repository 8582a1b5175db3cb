"""Times of kernels on an accelerator: the page of their kind, its constants as data, and the residual on top.

Nothing is faster than its arithmetic and its bytes at the peaks of the device (`Kind.least_us`), whatever a residual
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware import AcceleratorSpec, load_accelerator
from cmsim.kernels.data import Found, choose_variant, kernel_machine
from cmsim.kernels.kinds.kind import KernelKind, KernelRows
from cmsim.kernels.machine import Machine
from cmsim.kernels.residual import APART, Residual, carried

_BLOCK = 32_768
_THREADS = 4


class Timed(NamedTuple):
    """Times of rows [us], and what is to be said of where they come from, in the order in which it was found."""

    us: Floats
    notes: tuple[str, ...]


def times_us(
    kind: KernelKind,
    rows: KernelRows,
    spec: AcceleratorSpec,
    data: Found,
    *,
    file: str = "",
    row: Ints | None = None,
    machine: Machine | None = None,
    as_op: bool = False,
) -> Timed:
    """Times of rows on one accelerator, from constants and residuals. [us]

    Notes: constants that are a relative's or another format's, and rows outside of what was measured.

    row: what errors call each row    machine: default one device of the accelerator
    as_op: without what a run has as ops of its own (`Kind.op_us`)
    """
    us, (notes,) = times_for([np.arange(len(rows))], kind, rows, spec, data, file, row, machine, as_op)
    return Timed(us, notes)


def times_for(
    askers: Sequence[Ints],
    kind: KernelKind,
    rows: KernelRows,
    spec: AcceleratorSpec,
    data: Found,
    file: str = "",
    row: Ints | None = None,
    machine: Machine | None = None,
    as_op: bool = False,
) -> tuple[Floats, list[tuple[str, ...]]]:
    """As `times_us`, of rows that several ask for; notes for each. ``askers``: the rows of each"""
    machine = machine or kernel_machine(spec)
    page_us = kind.op_us if as_op and kind.op_us is not None else kind.time_us
    foreign: dict[int, str] = {}
    larger = 1.0 if data.same_cores else _core_ratio(machine, kernel_machine(load_accelerator(data.of)))
    out = np.empty(len(rows))
    names, code = kind.variants(rows)
    outside = np.zeros(len(rows), bool)
    for number in np.unique(code).tolist():
        here = np.flatnonzero(code == number)
        wanted = names[number]
        if kind.precision(wanted) not in spec.peak_TFLOPps:
            hint = did_you_mean(kind.precision(wanted), spec.peak_TFLOPps)
            at = int(here[0] if row is None else row[here[0]])
            problem = f"{spec.name} has no peak for '{wanted.partition('/')[0]}'. {hint}"
            raise InputError(Problem(problem, file, key=f"row {at}: {kind.texts[0]}"))
        name = choose_variant(wanted, data.variants)
        if name.partition("/")[0] != wanted.partition("/")[0]:
            foreign[number] = (
                f"{data.of} has no measured '{kind.name}' of {wanted}: constants of {name}, against the own peak"
            )
        constants = {
            key: value * (larger if key in kind.per_core else 1.0) for key, value in data.variants[name].whole.items()
        }
        residual = data.residuals.get(name)

        def block_us(
            block: Ints,
            wanted: str = wanted,
            constants: Mapping[str, float] = constants,
            residual: Residual | None = residual,
        ) -> None:
            part = rows.take(block)
            found = page_us(part, machine, wanted, constants)
            if residual is not None:
                factor, beyond = residual.factor(kind.all_axes(part, machine))
                if len(far := np.flatnonzero(beyond > 0)):
                    near = kind.nearest(part.take(far), machine, residual.low, residual.high)
                    edge, _ = residual.factor(kind.all_axes(near, machine))
                    factor[far] = carried(edge, page_us(near, machine, wanted, constants), found[far])
                    outside[block] = beyond > APART
                found *= factor
            out[block] = np.maximum(found, kind.least_us(part, machine, wanted))

        # in blocks that fit the cache, side by side: NumPy lets go of the interpreter
        blocks = [here[start : start + _BLOCK] for start in range(0, len(here), _BLOCK)]
        if len(blocks) < 4:
            for block in blocks:
                block_us(block)
        else:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(block_us, blocks))
    inherited = f"constants of {data.of}, shares of its own peaks{_host(spec, data)}" if data.inherited else ""
    all_notes = []
    for mine in askers:
        notes = [f"{spec.name} has no measured rows of '{kind.name}': {inherited}"] if inherited else []
        notes += [foreign[number] for number in np.unique(code[mine]).tolist() if number in foreign]
        if beyond := int(np.count_nonzero(outside[mine])):
            notes.append(
                f"{beyond} of {len(mine)} different rows of '{kind.name}' lie outside what was measured on {data.of}"
            )
        all_notes.append(tuple(notes))
    return out, all_notes


def _host(spec: AcceleratorSpec, data: Found) -> str:
    """Whose host's part it is, where that is not the relative's or not its own kind's."""
    if data.host_of is None or spec.host_kind is None:
        return ""
    if data.host != spec.host_kind:
        return f"; host work is that of {data.host} hosts, no rows beside {spec.host_kind} ones"
    return f"; host work is that of {data.host} hosts, from rows of {data.host_of}" if data.host_of != data.of else ""


def _core_ratio(machine: Machine, of: Machine) -> float:
    """How much faster a core is than the relative's, of unlike cores: what feeds it is built for what it computes."""
    common = next(name for name in machine.peak_FLOPps if name in of.peak_FLOPps and name not in ("fp32", "tf32"))
    return (machine.peak_FLOPps[common] / machine.cores) / (of.peak_FLOPps[common] / of.cores)
