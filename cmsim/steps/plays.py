"""Points of a table, played: a run at a point in, one row of numbers out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from cmsim.api import Machines
from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError
from cmsim.results import Failed, Infeasible, Outcome, Result
from cmsim.scenario import Open, Run
from cmsim.steps.axes import Axis
from cmsim.steps.cells import Point

#: columns of a row; joules are of the facility, PUE included, in the middle and at both ends of the band of power
COLUMNS = ("seconds", "joules", "joules_low", "joules_high", "memory_B")
Evaluate = Callable[[Run, Machines], Outcome]

#: what does not fit is played on the same machine with memory enough: boxes that reach over the edge need corners
_MEMORY_KEY, _ENOUGH_GB = "accelerator.memory_GB", 1e9


class Plays:
    """Plays points of a plan. ``names``: of each point, the name of its bound and what most of its time went to."""

    def __init__(self, run: Run, axes: Sequence[Axis], machines: Machines, evaluate: Evaluate):
        self.run, self.axes, self.machines, self.evaluate = run, tuple(axes), machines, evaluate
        self.room_B = float(machines(run).rank_memory_B)
        self.names: dict[Point, tuple[str, str]] = {}
        self.refused: InfeasibleError | None = None

    def __call__(self, point: Point) -> Floats:
        """Seconds, joules and memory of one step; nothing but nan where no plan is possible, whatever the memory.

        Raises InputError for a key or value that the workload does not take, FailedError for a run that fails.
        """
        run = self.at(point)
        became = self.evaluate(run, self.machines)
        if isinstance(became, Infeasible) and became.budget:
            became = self.evaluate(_with_memory(run), self.machines)
        if isinstance(became, Failed):
            raise became.error()
        if isinstance(became, Infeasible):
            self.refused = self.refused or InfeasibleError(f"{became.run}: {became.message}", became.budget)
            self.names[point] = ("none", "none")
            return np.full(len(COLUMNS), np.nan)
        self.names[point] = (str(became.bound["name"]), became.limiter)
        return _row(became)

    def at(self, point: Point) -> Run:
        """The run at a point."""
        run = self.run
        for axis, units in zip(self.axes, point, strict=True):
            run = dataclasses.replace(run, open=(Open(axis.path, None),)).at(axis.value(units))
        # frames are not looked at
        return dataclasses.replace(run, record="summary")


def _row(result: Result) -> Floats:
    of = result.metrics
    joules = of["energy_J"]
    ends = (of.get("energy_J_low", joules), of.get("energy_J_high", joules))
    steps = getattr(result.facts, "steps", 1.0)
    costs = [float(value) / steps for value in (of["makespan_s"], joules, *ends)]
    return np.array([*costs, float(of.get("memory_peak_B", 0.0))])


def _with_memory(run: Run) -> Run:
    entry = run.system.model_copy(update={"set": {**run.system.set, _MEMORY_KEY: _ENOUGH_GB}})
    return dataclasses.replace(run, system=entry)
