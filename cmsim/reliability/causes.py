"""Rates of parts: a file of ``topologies/failures`` under what a scenario says, counted in a machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from cmsim import reading
from cmsim.errors import InputError, Problem
from cmsim.hardware import System, board_watts
from cmsim.hardware.specs import Assumed, Sources
from cmsim.kinds.reliability import CauseSpec
from cmsim.topology import powered, wiring

FOLDER = "topologies/failures"
HOUR_S = 3600.0
_FIT_HOURS = 1e9


class FailuresSpec(reading.Spec):
    """Failures of a fleet: ``topologies/failures/NAME.yaml``."""

    name: str
    description: str
    aliases: tuple[str, ...] = Field(default=(), description="other names")
    licence: str = Field(description="of what it was taken from")
    causes: dict[str, CauseSpec] = Field(description="by name; scenarios change keys of them")
    sources: Sources


@dataclass(frozen=True)
class Cause:
    """A cause in a machine.

    parts       how many fail of themselves    scale_s, shape, age_s  of the Weibull law of their lives [s]
    hosts       that one failure takes         repair_h  until they are there again, or whole
    breaks      share of failures that stop the job    slowdown, fault  of the others, None where it is to be simulated
    outlived    whether what is in memory of hosts is lost
    """

    name: str
    parts: int
    scale_s: float
    shape: float
    age_s: float
    detect_s: float
    repair_h: float
    breaks: float
    hosts: int
    wide: bool
    slowdown: float
    fault: str | None


def load(name: str, base: Path | None = None) -> FailuresSpec:
    """A file of failures by name or path. Raises InputError with file, line and key."""
    document = reading.read_yaml(reading.find(name, FOLDER, "failures", base=base))
    return reading.validate(FailuresSpec, document)


def assumed(name: str, base: Path | None = None) -> int:
    """How many numbers of a file nobody printed."""
    return sum(isinstance(source, Assumed) for source in load(name, base).sources.values())


def counted(
    failures: str | None, changes: Mapping[str, CauseSpec], system: System, base: Path | None = None
) -> tuple[Cause, ...]:
    """Causes of a scenario in a machine, those of its file first. Raises InputError for one that says too little."""
    said = {} if failures is None else dict(load(failures, base).causes)
    for name, change in changes.items():
        said[name] = _laid(said[name], change) if name in said else change
    there = _PartCounts(system)
    problems, out = [], []
    for name, spec in said.items():
        lacks = "part" if spec.part is None else "FIT" if spec.FIT is None and spec.mtbf_h is None else ""
        if lacks:
            problems.append(Problem("the key is required", key=f"causes.{name}.{lacks}"))
        elif spec.breaks < 1 and spec.slowdown is None and spec.fault is None:
            message = f"{1 - spec.breaks:.0%} of its failures do not stop the job: by how much do they slow it? Give "
            problems.append(Problem(f"{message}slowdown, or fault to have it simulated", key=f"causes.{name}"))
        else:
            out.append(_cause(name, spec, there))
    if problems:
        raise InputError(problems)
    return tuple(out)


def _laid(under: CauseSpec, over: CauseSpec) -> CauseSpec:
    """Keys of one cause over those of another; either way of saying a rate replaces the other."""
    said = over.model_dump(exclude_unset=True)
    kept = under.model_dump(exclude_unset=True)
    if said.keys() & {"FIT", "mtbf_h"}:
        kept = {key: value for key, value in kept.items() if key not in ("FIT", "mtbf_h")}
    if said.keys() & {"slowdown", "fault"}:
        kept = {key: value for key, value in kept.items() if key not in ("slowdown", "fault")}
    return CauseSpec.model_validate({**kept, **said})


def _cause(name: str, spec: CauseSpec, there: _PartCounts) -> Cause:
    assert spec.part is not None
    mean_h = spec.mtbf_h if spec.mtbf_h is not None else _FIT_HOURS / spec.FIT if spec.FIT else math.inf
    return Cause(
        name=name,
        parts=there.of(spec.part),
        # the mean of the law is scale x gamma(1 + 1/shape)
        scale_s=mean_h * HOUR_S / math.gamma(1 + 1 / spec.shape),
        shape=spec.shape,
        age_s=spec.age_days * 24 * HOUR_S,
        detect_s=spec.detect_s,
        repair_h=spec.repair_h,
        breaks=spec.breaks,
        hosts=there.hosts(spec.takes),
        wide=spec.takes in ("rack", "domain"),
        slowdown=spec.slowdown if spec.slowdown is not None else 1.0,
        fault=spec.fault if spec.slowdown is None and spec.breaks < 1 else None,
    )


def slowed(cause: Cause, slowdown: float) -> Cause:
    """The same with the slow-down that was simulated."""
    return replace(cause, slowdown=slowdown, fault=None)


class _PartCounts:
    """How many parts of each kind a machine has."""

    def __init__(self, system: System):
        own = wiring(system).parts(system, system.spec.scale_up)
        all_ = powered(system, board_watts(system.accelerator), chips=own.switch_chips, modules=own.modules)
        racks_per_domain = system.spec.compute_racks or system.spec.racks
        per_domain = system.spec.accelerators // system.spec.node.accelerators
        self.per_rack = max(1, min(round(per_domain / racks_per_domain), system.nodes))
        self.per_domain = min(per_domain, system.nodes)
        self._parts = {
            "accelerator": system.packages,
            "host": system.nodes,
            "nic": system.packages,
            "switch_chip": round(own.switch_chips),
            "scale_up_module": round(own.modules),
            # a job within one domain has nothing to do with what is outside
            "scale_out_module": round(all_.outer_modules) if system.domains > 1 else 0,
            "scale_out_switch": round(all_.outer_switches) if system.domains > 1 else 0,
            "rack": -(-system.nodes // self.per_rack),
            "domain": system.domains,
            "job": 1,
        }

    def of(self, part: str) -> int:
        return self._parts[part]

    def hosts(self, takes: str) -> int:
        """Hosts that leave together."""
        return {"nothing": 0, "host": 1, "rack": self.per_rack, "domain": self.per_domain}[takes]
