"""Programs of a scenario's workload on a system: one page per kind, imported when it is used."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.workload.loops import whole
from cmsim.workload.model import ModelSpec, load_model
from cmsim.workload.ops import Programs

#: scenario ``kind`` -> module of this room and its function; a new kind is a page and a line
KINDS: dict[str, tuple[str, str]] = {
    "collective": ("collective", "programs"),
    "trace": ("replay", "programs"),
    # of decoders and of graphs: the model tells which
    "training": ("graph", "training"),
    "prefill": ("inference", "prefill"),
    "decode": ("inference", "decode"),
    "encoder": ("graph", "encoder"),
}


def programs(spec: Any, system: System, *, base: Path | None = None, loops: bool = False) -> Programs:
    """What every rank of ``system`` runs.

    spec   a workload of a scenario (``cmsim.scenario.WorkloadSpec``)
    base   folder that relative paths in it start from
    loops  rows that come again and again may be laid out a few times only (``Programs.loop``)

    Raises InputError where the workload does not fit the system.
    """
    module, function = KINDS[spec.kind]
    model = _transformer(spec, base)
    if model is not None and model.encoder:
        raise InputError(
            Problem(f"{model.name} is an encoder, which has no {spec.kind}: run it with kind encoder", key="model")
        )
    made: Programs = getattr(importlib.import_module(f"{__name__}.{module}"), function)(spec, system, base)
    made = made if loops else whole(made)
    return replace(made, notes=(*made.notes, model.window_note)) if model is not None and model.window_note else made


def _transformer(spec: Any, base: Path | None) -> ModelSpec | None:
    """The decoder that a workload runs, where it runs one."""
    return load_model(spec.model, base=base) if spec.kind in ("prefill", "decode") else None
