"""A recorded trace on a system: its files found, its ranks filled up with copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cmsim import compute, files
from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.scenario import TraceSpec
from cmsim.workload.ops import COMPUTE, Programs
from cmsim.workload.trace import load_trace


def programs(spec: TraceSpec, system: System, base: Path | None = None) -> Programs:
    """Programs of the trace at ``spec.path``: beside the scenario, in the working folder, or built in."""
    roots = [root for root in (base, Path.cwd(), files.DATA / "workloads" / "traces", files.DATA) if root is not None]
    found = next((root / spec.path for root in roots if (root / spec.path).exists()), None)
    if found is None:
        built_in = sorted(
            str(path.parent.relative_to(files.DATA / "workloads" / "traces"))
            for path in (files.DATA / "workloads" / "traces").rglob("*.0.et*")
        )
        raise InputError(Problem(f"no such trace: {spec.path}. Built in: {', '.join(built_in)}.", key="path"))
    if spec.compute == "scaled" and spec.recorded_on is None:
        raise InputError(Problem("compute: scaled needs the accelerator the trace was recorded on", key="recorded_on"))
    ranks = spec.ranks
    if ranks is not None and ranks > system.ranks:
        raise InputError(
            Problem(f"got {ranks}; {system.name} has {system.ranks} ranks ({system.spec.rank}s)", key="ranks")
        )
    made = load_trace(found, ranks=ranks)
    return replace(made, notes=(*made.notes, _times(made, spec)))


def _times(made: Programs, spec: TraceSpec) -> str:
    """What becomes of the recorded times of kernels, and how much of them each factor of ``scaled`` touches."""
    ops = made.ops
    on_matrix = np.array([compute.KERNELS[name].matrix for name in ops.kernels] + [False])[ops.kernel]
    kernel_s = np.where((ops.kind == COMPUTE) & ~np.isnan(ops.recorded_s), ops.recorded_s, 0.0)
    times = np.bincount(made.program, minlength=len(made.program_ptr) - 1)  # ranks that run each program
    kernel_s = kernel_s * np.repeat(times, np.diff(made.program_ptr))
    if not kernel_s.sum():
        return "the trace has no recorded kernel times: kernels are priced by the roofline of this system"
    if spec.compute == "recorded":
        return "kernel times are as recorded, whatever the accelerator of this system"
    share = kernel_s[on_matrix].sum() / kernel_s.sum()
    return (
        f"kernel times scaled from one {spec.recorded_on} to one rank: {share:.0%} of them are of matrix kernels (told "
        f"by name), scaled by the ratio of 16-bit peaks, {1 - share:.0%} of others, by that of memory bandwidths; "
        "host times are as recorded"
    )
