"""Checkpoints of a scenario: how large, how long, how often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.reliability import CheckpointSpec, ReliabilitySpec
from cmsim.reliability.checkpoint import daly_s, young_s
from cmsim.reliability.events import to_us
from cmsim.reliability.job import Saving
from cmsim.units import GB, GIGA
from cmsim.workload.model import load_model


@dataclass(frozen=True)
class SaveTimes:
    """size_B  of all ranks together, None where only times are given    write_s  to storage, and back from there
    stall_s  the job stands for one    near_s  to read one that is not in storage"""

    size_B: float | None
    write_s: float
    stall_s: float
    near_s: float


def written(spec: ReliabilitySpec, system: System, base: Path | None) -> SaveTimes:
    """Times of a checkpoint: bytes over what storage, NICs or links to hosts carry, all ranks sharing the work.

    Raises InputError where neither sizes nor times are given.
    """
    said = spec.checkpoint
    size_B = _size_B(spec, base)
    nics_Bps = system.packages * system.spec.scale_out.nic_GBps * GIGA
    nics_Bps *= system.stack.collectives.scale_out_efficiency
    write_s = said.write_s
    if write_s is None:
        storage_Bps = math.inf if said.storage_GBps is None else said.storage_GBps * GIGA
        write_s = _known(size_B, "write_s") / min(storage_Bps, nics_Bps)
    stall_s = said.stall_s
    if stall_s is None:
        stall_s = write_s if said.mode == "synchronous" else _copy_s(said, size_B, system, nics_Bps)
    return SaveTimes(size_B, write_s, stall_s, stall_s if said.mode == "in_memory" else write_s)


def _copy_s(said: CheckpointSpec, size_B: float | None, system: System, nics_Bps: float) -> float:
    """Until the job goes on: a copy to memory of its own host, or of another one."""
    if said.mode == "in_memory":
        return _known(size_B, "stall_s") / nics_Bps
    link_GBps = system.accelerator.host_GBps
    if link_GBps is None:
        message = f"required: {system.accelerator.name} does not say what a copy to its host reaches (host_GBps)"
        raise InputError(Problem(message, key="checkpoint.stall_s"))
    return _known(size_B, "stall_s") / (system.packages * link_GBps * GIGA)


def _size_B(spec: ReliabilitySpec, base: Path | None) -> float | None:
    if spec.checkpoint.size_GB is not None:
        return spec.checkpoint.size_GB * GB
    if spec.training is None:
        return None
    return spec.checkpoint.bytes_per_parameter * load_model(spec.training.model, base=base).total_parameters


def _known(size_B: float | None, key: str) -> float:
    if size_B is None:
        message = "one of size_GB, training (whose model has a size) and the times of a checkpoint is required"
        raise InputError(Problem(message, key=f"checkpoint.{key}"))
    return size_B


def saving(spec: ReliabilitySpec, took: SaveTimes, *, mtbf_s: float, window_s: float) -> tuple[Saving, tuple[str, ...]]:
    """How a job saves, and what was decided for the user. Raises InputError for an interval shorter than a write."""
    said, notes = spec.checkpoint, []
    asked = said.interval_s
    if isinstance(asked, str):
        best = daly_s if asked == "daly" else young_s
        # nothing that fails, or nothing to wait for
        interval_s = best(took.stall_s, mtbf_s) if math.isfinite(mtbf_s) else window_s
        interval_s = max(min(interval_s, window_s), _LEAST_S)
    else:
        interval_s = asked
    every = said.stored_every if said.mode == "in_memory" else 1
    if said.mode == "asynchronous" and interval_s + took.stall_s < took.write_s:
        if not isinstance(asked, str):
            message = f"got {asked:g}; one is in storage after {took.write_s:.4g} s, before the next may begin"
            raise InputError(Problem(message, key="checkpoint.interval_s"))
        interval_s = took.write_s - took.stall_s
        notes.append(f"a checkpoint every {interval_s:.4g} s, as soon as the one before is in storage")
    if said.mode == "in_memory" and (least := math.ceil(took.write_s / (interval_s + took.stall_s))) > every:
        notes.append(f"one checkpoint in {least} is stored, as soon as the one before is in storage")
        every = least
    lag_s = took.write_s if said.mode == "asynchronous" else 0.0
    made = Saving(
        interval_us=max(int(to_us(interval_s)), 1),
        stall_us=int(to_us(took.stall_s)),
        lag_us=int(to_us(lag_s)),
        start_us=int(to_us(spec.restart_s + took.near_s)),
        in_memory=said.mode == "in_memory",
        stored_every=every,
    )
    return made, tuple(notes)


#: work between checkpoints that cost nothing
_LEAST_S = 1.0
