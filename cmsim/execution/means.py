"""What a kind with programs may change of planning and measuring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim import engine
from cmsim.hardware import System
from cmsim.kinds import Facts
from cmsim.workload import Programs


class Means:
    """Changes nothing; a kind that does names a class of its own, of which a run makes one.

    spec, facts  of the workload, of the classes that its kind declares
    """

    #: whether ``recorded`` looks at the ops of a run
    of_ops = False

    def options(self, _spec: Any, _system: System) -> dict[str, Any]:
        """Fields of `engine.Options` that the workload sets."""
        return {}

    def facts(self, _spec: Any, facts: Any) -> Facts:
        """Facts with what is known of them only beside a machine."""
        known: Facts = facts
        return known

    def algorithm(self, _plan: engine.Plan) -> str:
        """Of the call that is timed; "" where none is."""
        return ""

    def bounds_s(self, _spec: Any, _system: System, _programs: Programs, _plan: engine.Plan) -> dict[str, float]:
        """What no algorithm can beat, by what bounds it. [s]"""
        return {}

    def beside_s(self, _bounds_s: Mapping[str, float], _facts: Any) -> dict[str, float]:
        """The same of the whole run, under the names that a run's bound has. [s]"""
        return {}

    def recorded(
        self,
        _spec: Any,
        _facts: Any,
        _ops: Mapping[str, NDArray[np.generic]],
        *,
        makespan_s: float,  # noqa: ARG002
        exposed_comm_s: float,  # noqa: ARG002
    ) -> dict[str, dict[str, float]]:
        """By class of op: recorded and simulated time, where something was recorded. [s]"""
        return {}
