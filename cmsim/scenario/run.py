"""A run: one workload on one system at one sweep point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cmsim.cost import CarbonSpec, CostSpec
from cmsim.identity import Identity, Point
from cmsim.kinds.parts import WorkloadSpec
from cmsim.scenario import best
from cmsim.scenario.best import Open
from cmsim.scenario.schema import FaultSpec, JitterSpec, PerturbSpec, Record, SystemEntry, UncertaintySpec


@dataclass(frozen=True)
class Run:
    """One workload on one system at one sweep point."""

    identity: Identity
    spec: WorkloadSpec
    system: SystemEntry
    network: str
    routing: str
    faults: tuple[FaultSpec, ...]
    fold: bool
    perturb: Mapping[int, PerturbSpec]
    jitter: JitterSpec | None
    seed: int
    #: keys that `best` leaves open, the metric that decides (None: the kind's own), and what those before became
    open: tuple[Open, ...] = ()
    of: str | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)
    #: whether the job has the machine to itself, so that it pays for what it leaves idle
    exclusive: bool = False
    #: what is kept of it
    record: Record = "full"
    #: whether a program that the scenario names may be run
    allow_policies: bool = False
    #: what money and carbon are made of, and how intervals are drawn; None where nobody asks
    cost: CostSpec | None = None
    carbon: CarbonSpec | None = None
    uncertainty: UncertaintySpec | None = None

    @property
    def key(self) -> str:
        """What it is called; no other run of its scenario is called so."""
        return self.identity.label

    @property
    def workload(self) -> str:
        return self.identity.workload

    @property
    def point(self) -> Point:
        """Swept key -> value, as far as it concerns this run."""
        return self.identity.point

    @property
    def of_owner(self) -> bool:
        """Whether the scenario says what money or carbon are made of; else rent and the system's intensity count."""
        return (self.cost, self.carbon) != (None, None)

    def at(self, value: Any) -> Run:
        """The run with its first open key decided."""
        key, *rest = self.open
        decided = replace(self, open=tuple(rest), chosen={**self.chosen, key.key: value})
        if key.of_system:
            return replace(decided, system=best.put(self.system, key.path, value))
        return replace(decided, spec=best.put(self.spec, key.path, value))

    @property
    def system_key(self) -> str:
        """Runs with equal keys run on the same system; its file may give kinds of workloads stacks of their own."""
        return f"{self.spec.kind} {self.system.model_dump_json()}"
