"""Where the time of one kernel comes from: its parts, what binds, what the residual adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cmsim.calibration.kernels import accelerator_of, kernel_rows, kernel_times
from cmsim.errors import InputError, did_you_mean
from cmsim.kernels import Machine, choose_variant, kernel_data, kernel_machine
from cmsim.kernels.kinds import KINDS
from cmsim.kernels.kinds.kind import KernelKind, KernelRows

#: what a number of tables is when nothing is said of it
_USUAL = {"step": 0, "window_size": 0, "head_dim": 128, "batch_size": 1}
_FORMAT = "bfloat16"
#: more than the largest peak, so that what it bounds takes no time
_UNBOUND = 1e9
WHY: dict[str, str] = {
    "fixed_us": "launch, first loads and drain",
    "prepare_us": "projections read, rotated, written to queries and cache",
    "product_us": "products of the core on its busiest core",
    "softmax_us": "exponentials of the core, in one pipeline with the products",
    "start_us": "starts and ends of tiles",
    "chain_us": "blocks of one worker, one after the other",
    "combine_us": "parts of a split cache joined; choice and schedule of a long one",
    "compute_us": "arithmetic at its share of the peak, in waves of tiles",
    "memory_us": "bytes over the share of bandwidth",
    "core_us": "smooth maximum of what binds side by side",
    "physics_us": "the parts added up",
    "residual": "factor of what was measured near these columns; outside the range it goes to 1",
    "predicted_us": "physics times residual",
}


@dataclass(frozen=True)
class ExplainedKernel:
    """One kernel, explained.

    of: whose constants these are    variant: which of them    parts: by name [us, FLOP, B, 1]
    binds: the largest of the times that bind side by side, or "fixed" where all of them are smaller than that
    notes: what a prediction says of where it comes from
    """

    accelerator: str
    kind: str
    of: str
    variant: str
    parts: Mapping[str, float]
    binds: str
    notes: tuple[str, ...]

    @property
    def predicted_us(self) -> float:
        return self.parts["predicted_us"]


def explain_kernel(accelerator: str, kind: str, columns: Mapping[str, str | float]) -> ExplainedKernel:
    """The parts of one kernel's time on an accelerator.

    kind: as ``predict`` takes it    columns: a row of its table; formats are bfloat16 where nothing is said

    InputError: an unknown kind, accelerator or column; a column that is missing or cannot be.
    """
    import pandas as pd

    if kind not in KINDS:
        raise InputError(f"no kernels of kind '{kind}'. {did_you_mean(kind, KINDS)}")
    one = KINDS[kind]
    known = [*one.numbers, *one.texts, *one.optional, *one.defaults]
    for name in columns:
        if name not in known:
            raise InputError(f"'{name}' is no column of {kind}. {did_you_mean(name, known, limit=20)}")
    missing = [name for name in one.numbers if name not in columns and name not in _USUAL]
    if missing:
        needed = ", ".join(f"{name}=..." for name in missing)
        others = ", ".join(name for name in (*one.texts, *one.optional, *one.defaults) if name not in columns)
        raise InputError(f"{kind} needs {needed}" + (f"; it may have {others}" if others else ""))
    usual = {name: value for name, value in _USUAL.items() if name in one.numbers}
    row = {**usual, **dict.fromkeys(one.texts, _FORMAT), **columns}
    frame = pd.DataFrame({name: [value] for name, value in row.items()})
    predicted_us, notes = kernel_times(frame, kind, system=accelerator)
    predicted = float(predicted_us[0])
    rows, _ = kernel_rows(frame, one, "", accelerator, np.zeros(1, dtype=np.int64))
    spec = accelerator_of(accelerator)
    data = kernel_data(spec, kind)
    wanted = one.variants(rows)[0][int(one.variants(rows)[1][0])]
    variant = choose_variant(wanted, data.variants)
    parts = _parts(one, rows, kernel_machine(spec), wanted, data.variants[variant].whole)
    parts["residual"] = predicted / parts["physics_us"]
    parts["predicted_us"] = predicted
    sides = {name: parts[f"{name}_us"] for name in ("chain", "compute", "memory") if f"{name}_us" in parts}
    sides["fixed"] = parts["fixed_us"]
    return ExplainedKernel(
        accelerator=spec.name,
        kind=kind,
        of=data.of,
        variant=variant,
        parts=parts,
        binds=max(sides, key=lambda name: sides[name]),
        notes=notes,
    )


def _parts(
    kind: KernelKind, rows: KernelRows, machine: Machine, variant: str, c: Mapping[str, float]
) -> dict[str, float]:
    """The page's own parts; of a page without, its time with all but one bound taken away."""
    if kind.parts is not None:
        found = kind.parts(rows, machine, variant, c)
        return {name: float(values[0]) for name, values in found.items()}

    def time(memory: bool, compute: bool) -> float:
        part = replace(
            machine,
            memory_Bps=machine.memory_Bps * (1.0 if memory else _UNBOUND),
            peak_FLOPps={name: value * (1.0 if compute else _UNBOUND) for name, value in machine.peak_FLOPps.items()},
        )
        # what cores draw of memory and caches is a bound of bytes, too
        own = {name: value if memory or not name.endswith("_GBps") else value * _UNBOUND for name, value in c.items()}
        return float(kind.time_us(rows, part, variant, own)[0])

    fixed = time(False, False)
    out = {
        "fixed_us": fixed,
        "compute_us": time(False, True) - fixed,
        "memory_us": time(True, False) - fixed,
        "physics_us": time(True, True),
    }
    if {"m", "n", "k"} <= set(rows.numbers):
        m, n, k = (float(rows[name][0]) for name in ("m", "n", "k"))
        tiles = float(np.ceil(m / 128) * np.ceil(n / 128))
        out = {"flops": 2.0 * m * n * k, "tiles": tiles, "waves": tiles / machine.cores, **out}
    return out
