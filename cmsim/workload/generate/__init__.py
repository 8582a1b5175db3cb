"""Programs of a scenario's workload on a system: one page per way to make them, which kinds name."""

from __future__ import annotations

from pathlib import Path

from cmsim import kinds
from cmsim.errors import InputError
from cmsim.hardware import System
from cmsim.kinds.parts import WorkloadSpec
from cmsim.workload.loops import whole
from cmsim.workload.ops import Programs


def programs(spec: WorkloadSpec, system: System, *, base: Path | None = None, loops: bool = False) -> Programs:
    """What every rank of ``system`` runs.

    spec   a workload of a scenario
    base   folder that relative paths in it start from
    loops  rows that come again and again may be laid out a few times only (``Programs.loop``)

    Raises InputError where the workload does not fit the system, and for a kind without programs.
    """
    execution = kinds.get(spec.kind).execution
    if not isinstance(execution, kinds.PlayedKind):
        raise InputError(f"a {spec.kind} has no programs: it is executed by itself")
    made: Programs = kinds.resolved(execution.programs)(spec, system, base)
    return made if loops else whole(made)
