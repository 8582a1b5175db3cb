"""What to change in a plan that does not fit."""

from __future__ import annotations

from pathlib import Path

from cmsim.errors import InfeasibleError
from cmsim.hardware import System
from cmsim.kinds.training import TrainingSpec
from cmsim.scenario import Run
from cmsim.units import GB
from cmsim.workload.generate import fitting
from cmsim.workload.generate.choices import is_decoder


def told(error: InfeasibleError, one: Run, system: System, base: Path | None) -> InfeasibleError:
    """The error with the nearest plan that fits, in words and in its budget; of what is no training step, as it is.

    In the budget ``nearest`` has ``changes`` (dotted key of the workload -> value) and ``needed_B``.
    """
    if not isinstance(one.spec, TrainingSpec) or error.budget.get("what") != "memory":
        return error
    if not is_decoder(one.spec, base):
        return error
    found = fitting.nearest(one.spec, system, base)
    if found is None:
        return InfeasibleError(f"{error} No change of a few keys makes it fit these ranks.", error.budget)
    words = ", ".join(f"{key}: {str(value).lower()}" for key, value in found.changes.items())
    return InfeasibleError(
        f"{error} Nearest plan that fits: {words} ({found.needed_B / GB:.1f} GB).",
        {**error.budget, "nearest": {"changes": dict(found.changes), "needed_B": found.needed_B}},
    )
