"""What became of a run: a result, or why there is none."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cmsim import markup
from cmsim.errors import CmsimError, FailedError, InfeasibleError
from cmsim.identity import Entry, Point
from cmsim.results.result import Result, identity_data, identity_of

#: of a reason, how much a line in a list of runs has room for [characters]
_SHORT = 160


@dataclass(frozen=True)
class Missing:
    """A run that gave no result.

    run, workload, system  as of a Result, but that the system is called as the scenario calls it
    kind                   of the workload
    message                why
    entry, point           as of a Result
    """

    #: how summaries and tables call it
    outcome: ClassVar[str] = ""

    run: str
    workload: str
    system: str
    kind: str
    message: str
    entry: Entry | None = None
    point: Point = field(default_factory=dict)

    def __repr__(self) -> str:
        said = textwrap.shorten(f"{self.run}: {self.message}", _SHORT, placeholder=" ...")
        return f"<{type(self).__name__} {said}>"

    def _repr_html_(self) -> str:
        rows = {"outcome": self.outcome, "why": self.message}
        return markup.table(list(rows.items()), title=self.run, align="left")

    @property
    def data(self) -> Mapping[str, Any]:
        """What is needed and what is there; empty where the message says it all."""
        return {}

    def error(self) -> CmsimError:
        """What to raise where somebody asks for the result that is not there."""
        return FailedError(f"{self.run}: {self.message}")


@dataclass(frozen=True, repr=False)
class Infeasible(Missing):
    """A run that no plan makes possible here, with its ``budget``: of memory ``what``, ``of`` (a die or package),
    ``needed_B``, ``available_B``, ``parts_B``; of a plan that is none, empty."""

    outcome: ClassVar[str] = "infeasible"

    budget: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Mapping[str, Any]:
        return self.budget

    def error(self) -> CmsimError:
        return InfeasibleError(f"{self.run}: {self.message}", self.budget)


@dataclass(frozen=True, repr=False)
class Failed(Missing):
    """A run that was played and gave nothing to trust."""

    outcome: ClassVar[str] = "failed"


#: what became of a run
Outcome = Result | Infeasible | Failed


def became(one: Outcome) -> str:
    """What became of a run in a word: result, infeasible or failed."""
    return "result" if isinstance(one, Result) else one.outcome


def entry(one: Outcome) -> dict[str, Any]:
    """A run in ``outcomes`` of ``summary.json``."""
    if isinstance(one, Result):
        return {"run": one.run, "workload": one.workload, "system": one.system, "outcome": "result"}
    return {
        "run": one.run,
        "workload": one.workload,
        "system": one.system,
        **identity_data(one.entry, one.point),
        "kind": one.kind,
        "outcome": one.outcome,
        "message": one.message,
        "budget": dict(one.data),
    }


def missing_of(data: Mapping[str, Any]) -> Infeasible | Failed:
    """An entry of ``outcomes`` that is no result, read back. Raises KeyError for one that is none of ours."""
    said: dict[str, Any] = {key: str(data[key]) for key in ("run", "workload", "system", "kind", "message")}
    said |= identity_of(data)
    if data["outcome"] == Failed.outcome:
        return Failed(**said)
    if data["outcome"] == Infeasible.outcome:
        return Infeasible(**said, budget=dict(data["budget"]))
    raise KeyError(data["outcome"])
