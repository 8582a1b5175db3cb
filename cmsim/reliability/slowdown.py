"""The step of a job, simulated: with the faults that a scenario has all along, and with one that comes and goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cmsim import api
from cmsim.execution import Machines
from cmsim.kinds.training import TrainingSpec
from cmsim.results import Result
from cmsim.scenario import FaultSpec, Run


class JobSteps:
    """JobSteps of the training workload inside a run. Raises what its runs raise."""

    def __init__(self, run: Run, training: TrainingSpec, base: Path | None):
        self._run = replace(run, spec=training, open=(), of=None, record="summary")
        self._machines = Machines(base)
        self.result = self._played()

    def _played(self, *more: FaultSpec) -> Result:
        faults = (*self._run.faults, *more)
        network = "flow" if faults else self._run.network
        one = replace(self._run, faults=faults, network=network)
        became = api.evaluate(one, self._machines)
        if not isinstance(became, Result):
            raise became.error()
        return became

    def slowdown(self, part: str) -> float:
        """Time of a step with one more part down, over that without. [1]"""
        with_it = float(self._played(FaultSpec(part=part)).metrics["fault_slowdown"])
        return max(with_it / float(self.result.metrics.get("fault_slowdown", 1.0)), 1.0)
