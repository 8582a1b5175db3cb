"""A recorded trace on a system: its files found, its ranks filled up with copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cmsim import compute, reading
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.trace import TraceFacts, TraceSpec
from cmsim.traces import load_trace
from cmsim.traces.groups import read_placement
from cmsim.traces.lower import Placement
from cmsim.workload.ops import COLLECTIVE, COMPUTE, Programs

#: by precision: which stand in for it where an accelerator lacks it, nearest first
_INSTEAD = {
    "tf32": ("fp32", "bf16"),
    "fp32": ("tf32", "bf16"),
    "fp16": ("bf16",),
    "bf16": ("fp16",),
    "fp8": ("int8", "bf16"),
    "int8": ("fp8", "bf16"),
    "fp4": ("fp8", "int8", "bf16"),
}
#: where built-in traces lie, below what is built in
_BUILT_IN = ("workloads/traces", "")


def programs(spec: TraceSpec, system: System, base: Path | None = None) -> Programs:
    """Programs of the trace at ``spec.path``: beside the scenario, in the working folder, or built in."""
    found = reading.locate(spec.path, base=base, built_in=_BUILT_IN, folders=True)
    if found is None:
        # models are no traces of runs
        known = [name for name in reading.builtin_tree(_BUILT_IN[0]) if not name.startswith(("onnx/", "mindir/"))]
        message = f"no such trace: {spec.path}. Built in: {', '.join(known)}."
        raise InputError(Problem(message, key="path"))
    if spec.compute == "scaled" and spec.recorded_on is None:
        raise InputError(Problem("compute: scaled needs the accelerator the trace was recorded on", key="recorded_on"))
    if spec.collectives == "recorded" and spec.compute != "recorded":
        message = f"recorded goes with compute: recorded, got {spec.compute}: their times are of another machine"
        raise InputError(Problem(message, key="collectives"))
    ranks = spec.ranks
    if ranks is not None and ranks > system.ranks:
        raise InfeasibleError(
            Problem(f"got {ranks}; {system.name} has {system.ranks} ranks ({system.spec.rank}s)", key="ranks")
        )
    made = load_trace(
        found,
        ranks=ranks,
        format=spec.format,
        placement=_placement(spec.placement, base),
        host_ops=spec.host == "replayed",
        collectives=spec.collectives,
    )
    _check_takes_time(made, spec)
    made = _in_known_precisions(made, system) if spec.compute == "modelled" else made
    assert isinstance(made.facts, TraceFacts)
    facts = replace(
        made.facts,
        # every rank replays what one rank was recorded to do, in as many steps
        rank_steps_per_run=made.ranks * made.facts.steps,
        samples_per_run=None if spec.samples_per_rank is None else spec.samples_per_rank * made.ranks,
    )
    return replace(made, facts=facts, notes=(*made.notes, _times(made, spec)))


def _check_takes_time(made: Programs, spec: TraceSpec) -> None:
    """A replay of nothing but ops of no length would have no rate and no power."""
    ops = made.ops
    works = (np.nan_to_num(ops.recorded_s) > 0) | (ops.flops > 0) | (ops.bytes_B > 0) | (ops.kind >= COLLECTIVE)
    if not works.any():
        asked = ", and with collectives: recorded communication has none either" * (spec.collectives == "recorded")
        message = f"no op of the trace takes time: none has a recorded time, FLOPs or bytes{asked}"
        raise InputError(Problem(message, made.source))


def _in_known_precisions(made: Programs, system: System) -> Programs:
    """Precisions of the recording that the accelerator lacks, replaced by the next that it has."""
    known = {str(name) for name in system.accelerator.peak_TFLOPps}
    instead = {
        name: next(other for other in _INSTEAD.get(name, ()) if other in known)
        for name in made.ops.precisions
        if name not in known and any(other in known for other in _INSTEAD.get(name, ()))
    }
    if not instead:
        return made
    precisions = [instead.get(name, name) for name in made.ops.precisions]
    distinct = tuple(dict.fromkeys(precisions))
    number = np.array([*(distinct.index(name) for name in precisions), -1])
    ops = replace(made.ops, precisions=distinct, precision=number[made.ops.precision])
    said = ", ".join(f"{name} as {other}" for name, other in instead.items())
    return replace(made, ops=ops, notes=(*made.notes, f"precisions that {system.accelerator.name} lacks: {said}"))


def _placement(text: str, base: Path | None) -> Placement:
    """A way to place ranks, or the system's rank of each from a file."""
    if text == "contiguous":
        return "contiguous"
    if text == "strided":
        return "strided"
    path = reading.locate(text, base=base, built_in=_BUILT_IN)
    if path is None:
        message = f"got '{text}'. Allowed: contiguous, strided, or a JSON file with the place of each rank."
        raise InputError(Problem(message, key="placement"))
    return read_placement(path)


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
    priced, rest = "", "kernel times"
    if spec.compute == "modelled":
        known = (ops.flops > 0) | (ops.bytes_B > 0)
        share = kernel_s[known].sum() / kernel_s.sum()
        priced = f"{share:.0%} of the recorded kernel time is of kernels whose work is known, and priced by it; "
        rest = "the rest"
        kernel_s = np.where(known, 0.0, kernel_s)
        if spec.recorded_on is None or not kernel_s.sum():
            return priced + ("the rest is as recorded" if kernel_s.sum() else "nothing is as recorded")
    share = kernel_s[on_matrix].sum() / kernel_s.sum()
    return (
        f"{priced}{rest} scaled from one {spec.recorded_on} to one rank: {share:.0%} of them are of matrix kernels "
        f"(told by name), scaled by the ratio of 16-bit peaks, {1 - share:.0%} of others, by that of memory "
        "bandwidths; host times are as recorded"
    )
