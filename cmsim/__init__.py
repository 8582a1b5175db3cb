"""cmsim: performance, latency and energy of AI supernodes, from one scenario file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmsim.api import compare, run
from cmsim.errors import CmsimError
from cmsim.hardware import System, load_system
from cmsim.results import Results
from cmsim.scenario import Scenario, load_scenario
from cmsim.version import __version__

if TYPE_CHECKING:
    from cmsim.validation import Report


def validate(areas: list[str] | None = None) -> Report:
    """Predictions against published and measured numbers, by area (default: all)."""
    from cmsim import validation

    return validation.validate(areas)


__all__ = [
    "CmsimError",
    "Results",
    "Scenario",
    "System",
    "__version__",
    "compare",
    "load_scenario",
    "load_system",
    "run",
    "validate",
]
