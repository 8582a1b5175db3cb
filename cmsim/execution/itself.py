"""Runs of kinds that execute themselves: their function, and a result of what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cmsim import kinds
from cmsim.errors import InputError
from cmsim.execution import money
from cmsim.execution.played import machine_facts
from cmsim.hardware import System
from cmsim.kinds import Executed, Itself
from cmsim.results import Result
from cmsim.scenario import Run

#: keys of a scenario that change what happens in a run
_OF_SCENARIO = ("faults", "perturb", "jitter", "exclusive")


def result(
    one: Run, system: System, base: Path | None, how: Itself, *, progress: Callable[[float], None] | None = None
) -> Result:
    """What a kind's own function makes of a run. Raises what that raises, and InputError for what it does not heed."""
    ignored = [key for key in _OF_SCENARIO if getattr(one, key) and key not in how.heeds]
    if ignored:
        raise InputError(f"{one.key}: a {one.spec.kind} does not act on `{ignored[0]}`. Leave it out.")
    done: Executed = kinds.resolved(how.execute)(one, system, base=base, progress=progress)
    accelerators = system.packages if done.accelerators is None else done.accelerators
    billed = replace(system, packages=accelerators)
    found = Result(
        run=one.key,
        workload=one.workload,
        system=system.name,
        accelerators=accelerators,
        ranks=system.ranks if done.ranks is None else done.ranks,
        metrics=done.metrics,
        bound=done.bound,
        limiter=done.limiter,
        breakdown=done.breakdown,
        warnings=(*system.notes, *done.notes),
        facts=done.facts,
        machine=machine_facts(billed),
        columns=done.frames if one.record == "full" else {},
        kind=one.spec.kind,
        chosen=dict(one.chosen),
        entry=one.identity.entry,
        point=dict(one.point),
        plan=done.plan,
        record=one.record,
    )
    return money.priced(found, one, billed, base)
