"""A recorded trace on a system: its files found, its ranks filled up with copies."""

from __future__ import annotations

from pathlib import Path

from cmsim import files
from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.scenario import TraceSpec
from cmsim.workload.ops import Programs
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
        raise InputError(Problem(f"got {ranks}; {system.name} has {system.ranks} ranks ({system.spec.rank}s)", key="ranks"))
    return load_trace(found, ranks=ranks)
