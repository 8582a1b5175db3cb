"""What a scenario says to the planner."""

from __future__ import annotations

from typing import Any

from cmsim import engine, kinds
from cmsim.errors import InputError
from cmsim.execution.means import Means
from cmsim.hardware import System
from cmsim.scenario import Run
from cmsim.topology import drawn
from cmsim.units import to_ps


def options_of(one: Run, system: System) -> engine.Options:
    """What a scenario says to the planner.

    Parameters
    ----------
    one
        A run of a scenario.
    system
        Where it runs.

    Returns
    -------
    Options
        Of the engine: folding, network, faults, jitter, library and seed.
    """
    fields: dict[str, Any] = {
        "fold": one.fold,
        "host_idle": _host_idle(kinds.get(one.spec.kind).host, system),
        "perturb": {rank: engine.Perturbation(**change.model_dump()) for rank, change in one.perturb.items()},
        "jitter": engine.Jitter(**one.jitter.model_dump()) if one.jitter is not None else None,
        "network": one.network,
        "routing": one.routing,
        "seed": one.seed,
        "faults": [
            engine.Fault(
                fault.part if fault.share == 1 else drawn(fault.part, fault.share, one.seed),
                fault.left,
                int(to_ps(fault.from_s)),
                None if fault.until_s is None else int(to_ps(fault.until_s)),
            )
            for fault in one.faults
        ],
    }
    return engine.Options(**fields | means_of(one).options(one.spec, system))


def means_of(one: Run) -> Means:
    """What the kind of a run changes of planning and measuring. Raises InputError for a kind without programs."""
    execution = kinds.get(one.spec.kind).execution
    if not isinstance(execution, kinds.PlayedKind):
        raise InputError(f"a {one.spec.kind} has no programs: it is executed by itself")
    means: Means = kinds.resolved(execution.means)()
    return means


def _host_idle(host: str, system: System) -> float:
    """How much longer ops of a class of workloads take where the device waits for its host. [1]"""
    its = system.stack.host
    # launched one by one, ops show by themselves where the device waits for the host
    if its.launch == "eager":
        return 0.0
    return {"bulk": its.idle_bulk, "decode": its.idle_decode}.get(host, 0.0)
