"""What a search of a service found: every plan that may go, those served, where pools can be run, and their folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim.arrays import Columns, Floats, Ints
from cmsim.kinds.serving import SloSpec
from cmsim.results import Result, Results
from cmsim.search import folder as keeping
from cmsim.search.folder import PLANS
from cmsim.search.found import Counts, Objective
from cmsim.serving.least import LeastMachine
from cmsim.version import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

#: what a folder says it is of, and the file of points at which pools can be run
KIND, POINTS = "serving", "points.parquet"

OBJECTIVES = {
    one.name: one
    for one in (
        Objective(
            "tokens_per_s_per_accelerator", "output_tokens_per_s_per_accelerator", True, "tokens/s per accelerator"
        ),
        Objective("tokens_per_joule", "tokens_per_J", True, "tokens over facility energy"),
        Objective("dollars_per_token", "cost_per_Mtoken_USD", False, "rent of a million tokens"),
        Objective("accelerators", "accelerators", False, "fewest accelerators"),
    )
}


def kept(one: Result, slo: SloSpec | None) -> bool:
    """Whether a run keeps up, and what is promised."""
    if one.metrics.get("stable") == "no":
        return False
    return slo is None or float(one.metrics.get("slo_attainment", 0.0)) >= slo.attainment


def missed(one: Result, slo: SloSpec | None) -> float:
    """The larger of both times over what is promised, at the percentile that is nearest above the promised share;
    not a number where a run has none. Above 1 it is missed."""
    if slo is None:
        return 0.0
    percent = next((q for q in (50, 90, 95, 99) if q >= 100 * slo.attainment - 1e-9), 99)
    times = [one.metrics.get(f"{name}_s_p{percent}", float("nan")) for name in ("ttft", "tpot")]
    first, token = (float(value) for value in times)
    return max(first / slo.ttft_s, 0.0 if token != token else token / slo.tpot_s) if first == first else float("nan")


@dataclass(frozen=True)
class ServiceResult:
    """What a search of a service found.

    question    workload and system    axes  values of every key that was varied
    counts      of plans    table  columns of plans that may go, those that keep the promise as priced first
    points      where pools can be run, whatever the load: tokens/s of a user, per accelerator, per megawatt
    results     of what was served, the best first
    given       label of the plan as the scenario has it, "" where that does not run, and why in ``given_why``
    slo         what is promised    rate_per_s  that comes, or of a closed loop is served    least  a perfect system
    """

    question: str
    objective: Objective
    axes: Mapping[str, Sequence[Any]]
    counts: Counts
    table: Columns
    points: Columns
    results: Results
    slo: SloSpec | None = None
    rate_per_s: float = 0.0
    least: LeastMachine | None = None
    given: str = ""
    given_why: str = ""
    system: str = ""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def best(self) -> Result:
        return self.results.results[0]

    @property
    def runner_up(self) -> Result | None:
        """The best of those that are another plan than the winner; None where only one was served."""
        return self.results.results[1] if len(self.results.results) > 1 else None

    def score(self, one: Result) -> float:
        return score(one, self.objective)

    def kept(self, one: Result) -> bool:
        """Whether a run keeps up, and what is promised."""
        return kept(one, self.slo)

    @property
    def gap(self) -> float:
        """Accelerators of the winner over those of a perfect system. [1]"""
        return self.best.accelerators / self.least.accelerators if self.least is not None else float("nan")

    @cached_property
    def priced_error(self) -> Floats:
        """Priced over served time of a token, less 1, of every plan that has both, shape (served,). [1]"""
        both = np.isfinite(self.table["served_token_s"]) & (self.table["served_token_s"] > 0)
        error: Floats = self.table["token_s"][both] / self.table["served_token_s"][both] - 1.0
        return error

    def front(self, of: str = "each") -> Ints:
        """Rows of points that no other beats in both, tokens/s of a user and ``of`` (each accelerator, or megawatt);
        the quickest first."""
        user, gives = self.points["user"], self.points[of]
        rows = np.lexsort((-gives, -user))
        most = np.maximum.accumulate(np.append(-np.inf, gives[rows]))[:-1]
        out: Ints = rows[gives[rows] > most]
        return out

    def plan_of(self, one: Result) -> dict[str, Any]:
        """Values of the axes' keys of a plan that was served."""
        return {key.split(".", 2)[2]: value for key, value in one.point.items() if key.startswith("workloads.")}

    @property
    def plans(self) -> pd.DataFrame:
        """The table, as a frame."""
        import pandas as pd

        return pd.DataFrame(dict(self.table))

    def data(self) -> dict[str, Any]:
        """What ``search.json`` says."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "question": self.question,
            "system": self.system,
            "objective": self.objective.name,
            "axes": {key: list(values) for key, values in self.axes.items()},
            "counts": self.counts.data(),
            "slo": None if self.slo is None else self.slo.model_dump(),
            "rate_per_s": self.rate_per_s,
            "least": None if self.least is None else asdict(self.least),
            "given": self.given,
            "given_why": self.given_why,
            "notes": list(self.notes),
            "order": [one.run for one in self.results.results],
        }

    def save(self, folder: Path) -> None:
        """Write tables, results and the document; of these the document comes last."""
        keeping.save(folder, {PLANS: self.table, POINTS: self.points}, self.results, self.data())

    @classmethod
    def load(cls, folder: str | Path) -> ServiceResult:
        """What `save` wrote. Raises InputError for a folder that is none of a search of a service."""
        said, (plans, points), results = keeping.load(Path(folder), (PLANS, POINTS), KIND)
        names = ("question", "system", "rate_per_s", "given", "given_why")
        return cls(
            objective=OBJECTIVES[said["objective"]],
            axes=said["axes"],
            counts=Counts(**said["counts"]),
            table=plans,
            points=points,
            results=results,
            slo=None if said["slo"] is None else SloSpec.model_validate(said["slo"]),
            least=None if said["least"] is None else LeastMachine(**said["least"]),
            notes=tuple(said["notes"]),
            **{name: said[name] for name in names},
        )


def score(one: Result, objective: Objective) -> float:
    """What an objective comes to in a run, less is better."""
    value = float(one.accelerators if objective.metric == "accelerators" else one.metric(objective.metric))
    return -value if objective.more else value
