"""cmsim: performance, latency and energy of AI supernodes, from one scenario file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmsim.errors import CmsimError
from cmsim.version import __version__

if TYPE_CHECKING:
    from cmsim.api import compare, run
    from cmsim.hardware import System, load_system
    from cmsim.results import Results
    from cmsim.scenario import Scenario, load_scenario
    from cmsim.validation import validate

#: where each public name lives; rooms are opened when a name is used, so that `import cmsim` costs nothing
_HOMES = {
    "Results": "cmsim.results",
    "Scenario": "cmsim.scenario",
    "System": "cmsim.hardware",
    "compare": "cmsim.api",
    "load_scenario": "cmsim.scenario",
    "load_system": "cmsim.hardware",
    "run": "cmsim.api",
    "validate": "cmsim.validation",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cmsim' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


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
