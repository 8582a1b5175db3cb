"""Where things stand in a scenario's file: what keeps a run from being played names the line of its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmsim.errors import CmsimError, InfeasibleError, Problem

if TYPE_CHECKING:
    from cmsim.reading import Path_
    from cmsim.results import Infeasible
    from cmsim.scenario import Run, Scenario

#: what a memory that is too small is filled by first, as far as a workload has the key
_BATCHES = ("batch_per_accelerator", "micro_batch")
_KEY = re.compile(r"([a-z_]+(?:\.[a-z_]+)*): ")


class ScenarioLines:
    """The scenario's file by keys."""

    def __init__(self, scenario: Scenario):
        from cmsim.reading import read_yaml

        self.scenario = scenario
        self.document = read_yaml(Path(scenario.file)) if scenario.file else None

    def problems(self, error: CmsimError, path: Path_, one: Run) -> list[Problem]:
        """What is wrong with a run, each at its key below ``path``; what names a file stays where it is."""
        key = self._filling(one, error.budget) if isinstance(error, InfeasibleError) else ""
        return [
            problem if problem.file else self._at(one, path, problem.key or key, f"{problem.message} ({one.key})")
            for problem in error.problems
        ]

    def of(self, missing: Infeasible, one: Run) -> str:
        """``FILE:LINE`` of the key that keeps a run from being possible; empty where it is not known."""
        found = _KEY.match(missing.message)
        known = found is not None and found[1].partition(".")[0] in type(one.spec).model_fields
        key = found[1] if found and known else self._filling(one, missing.data)
        at = self._at(one, self.workload(one), key, "") if key else Problem("")
        return f"{at.file}:{at.line}" if at.file and at.line is not None else ""

    def system(self, one: Run) -> Path_:
        return ("systems", one.identity.entry.number)

    def workload(self, one: Run) -> Path_:
        short = self.document is not None and "workload" in self.document.data
        return ("workload",) if short else ("workloads", one.workload)

    def faults(self, one: Run) -> Path_:
        everywhere = self.document is not None and "faults" in self.document.data
        return ("faults",) if everywhere else self.system(one)

    def report(self, problem: Problem) -> Problem:
        """What is wrong with a key of the scenario itself, at its line."""
        from cmsim.reading import parts_of

        if self.document is None or problem.file:
            return problem
        path = tuple(parts_of(problem.key))
        return Problem(problem.message, self.document.file, self.document.line(path), problem.key)

    def _filling(self, one: Run, budget: Mapping[str, Any]) -> str:
        """The key of what fills the memory, of a budget of memory."""
        fields = type(one.spec).model_fields if budget.get("what") == "memory" else {}
        return next((key for key in _BATCHES if key in fields), "")

    def _at(self, one: Run, path: Path_, key: str, message: str) -> Problem:
        from cmsim.reading import SET_OVER, dotted, parts_of

        parts = tuple(parts_of(key)) if key else ()
        if self.document is None:
            return Problem(message, key=key)
        for place in (self._swept(one, key), *self._of_system(one, path, parts)):
            if place in self.document.lines:
                return self.document.problem(place, message)
        problem = self.document.problem((*path, *parts), message)
        there, here = _value(self.document.data, (*path, *parts)), _value(one.spec.model_dump(), parts)
        if path == self.workload(one) and parts and there is not None and there != here and not isinstance(here, dict):
            return Problem(message + SET_OVER, problem.file, None, dotted((*path, *parts)))
        return problem

    def _swept(self, one: Run, key: str) -> Path_:
        """Where a swept value stands; nowhere for one that is not."""
        from cmsim.scenario import whole_key

        sweep = self.document.data.get("sweep") if self.document is not None else None
        wanted = f"workloads.{one.workload}.{key}"
        sweep = sweep if isinstance(sweep, dict) else {}
        places: list[Path_] = [("sweep", name) for name in sweep]
        zipped = sweep.get("zip", [])
        groups = [("sweep", "zip", i) for i in range(len(zipped))] if isinstance(zipped, list) else [("sweep", "zip")]
        for place, group in zip(groups, zipped if isinstance(zipped, list) else [zipped], strict=True):
            places += [(*place, name) for name in (group if isinstance(group, dict) else ())]
        given = [place for place in places if whole_key(self.scenario.data, str(place[-1])) == wanted]
        return given[0] if given else ("sweep", key, "")

    def _of_system(self, one: Run, path: Path_, parts: Path_) -> list[Path_]:
        """Where a key of a workload stands that is another for this system."""
        names = [name for name in (one.system.name, one.system.system) if name]
        return [(*path, "per_system", name, *parts) for name in names] if parts else []


def _value(data: Any, path: Path_) -> Any:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data
