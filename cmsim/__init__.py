"""cmsim: performance, latency and energy of AI supernodes, from one scenario file."""

from cmsim.api import compare, run
from cmsim.errors import CmsimError
from cmsim.hardware import System, load_system
from cmsim.results import Results
from cmsim.scenario import Scenario, load_scenario
from cmsim.version import __version__

__all__ = ["CmsimError", "Results", "Scenario", "System", "__version__", "compare", "load_scenario", "load_system", "run"]
