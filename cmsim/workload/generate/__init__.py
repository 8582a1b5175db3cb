"""Programs of a scenario's workload on a system: one page per kind, imported when it is used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from cmsim.hardware import System
from cmsim.workload.ops import Programs

#: scenario ``kind`` -> module of this room and its function; a new kind is a page and a line
KINDS: dict[str, tuple[str, str]] = {
    "collective": ("collective", "programs"),
    "trace": ("replay", "programs"),
    "training": ("training", "programs"),
    "prefill": ("inference", "prefill"),
    "decode": ("inference", "decode"),
}


def programs(spec: Any, system: System, *, base: Path | None = None) -> Programs:
    """What every rank of ``system`` runs.

    spec   a workload of a scenario (``cmsim.scenario.WorkloadSpec``)
    base   folder that relative paths in it start from

    Raises InputError where the workload does not fit the system.
    """
    module, function = KINDS[spec.kind]
    made: Programs = getattr(importlib.import_module(f"{__name__}.{module}"), function)(spec, system, base)
    return made
