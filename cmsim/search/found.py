"""What a search found: every plan in columns, those simulated, who won and by what, and the folder it is kept in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim.arrays import Columns, Floats, Ints
from cmsim.results import Result, Results
from cmsim.search import folder as keeping
from cmsim.search.folder import PLANS
from cmsim.search.space import GOES, Space
from cmsim.version import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

#: plans are told apart by these beside their keys
_OWN = ("outcome", "memory_B", "headroom_B", "priced_s", "bound_s", "simulated_s", "run")


@dataclass(frozen=True)
class Objective:
    """What is asked for: a metric of runs, and whether more of it is better."""

    name: str
    metric: str
    more: bool
    what: str


OBJECTIVES = {
    one.name: one
    for one in (
        Objective("step_time", "step_time_s", False, "time of a step"),
        Objective("tokens_per_joule", "tokens_per_J", True, "tokens over facility energy"),
        Objective("dollars_per_token", "cost_per_Mtoken_USD", False, "rent of a million tokens"),
    )
}


@dataclass(frozen=True)
class Counts:
    """How many plans became what; all of them together are ``plans``.

    refused    by reason    priced  those that go    simulated  of them
    pruned     of the others, those whose bound is no better than the best that was simulated
    left       the rest: priced worse than those simulated, yet not excluded by their bound
    unfit      priced, and refused when they were made whole
    """

    plans: int
    refused: Mapping[str, int]
    priced: int
    simulated: int
    pruned: int
    left: int
    unfit: int = 0

    def data(self) -> dict[str, Any]:
        return {**self.__dict__, "refused": dict(self.refused)}


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    question    workload and system    axes  values of every key that was varied
    counts      of plans    table  columns of plans that fit the shape of the question, those that go first by priced
                time    results  of what was simulated, the best first
    given       label of the plan as the scenario has it, "" where that does not run, and why in ``given_why``
    least_s     no plan of any space is sooner: the bound of the question [s]
    bound_s     no plan of this space is sooner [s]
    """

    question: str
    objective: Objective
    axes: Mapping[str, Sequence[Any]]
    counts: Counts
    table: Columns
    results: Results
    given: str = ""
    given_why: str = ""
    least_s: float = 0.0
    bound_s: float = 0.0
    tokens: float = 0.0
    accelerators: int = 0
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def best(self) -> Result:
        return self.results.results[0]

    @property
    def runner_up(self) -> Result | None:
        """The best of those that are another plan than the winner; None where only one was simulated."""
        return self.results.results[1] if len(self.results.results) > 1 else None

    def score(self, one: Result) -> float:
        return float(one.metric(self.objective.metric))

    @property
    def gap(self) -> float:
        """By how much the winner's step is longer than the bound of the space. [1]"""
        return float(self.best.metric("step_time_s") / self.bound_s - 1.0)

    @cached_property
    def priced_error(self) -> Floats:
        """Priced over simulated time of a step, less 1, of every plan that has both, shape (simulated,). [1]"""
        both = np.isfinite(self.table["simulated_s"]) & np.isfinite(self.table["priced_s"])
        error: Floats = self.table["priced_s"][both] / self.table["simulated_s"][both] - 1.0
        return error

    @cached_property
    def expected_s(self) -> Floats:
        """Time of a step of every plan: as simulated, else as priced times what simulated ones took over that in the
        median; NaN where it does not fit. [s]"""
        known = np.isfinite(self.table["simulated_s"])
        factor = 1.0 / (1.0 + float(np.median(self.priced_error))) if len(self.priced_error) else 1.0
        out: Floats = np.where(known, self.table["simulated_s"], self.table["priced_s"] * factor)
        return out

    def in_order(self) -> tuple[int, int]:
        """Of pairs of simulated plans, how many pricing put in the right order; and pairs. [1]"""
        both = np.isfinite(self.table["simulated_s"]) & np.isfinite(self.table["priced_s"])
        priced, real = self.table["priced_s"][both], self.table["simulated_s"][both]
        a, b = np.triu_indices(len(priced), 1)
        right = (priced[a] - priced[b]) * (real[a] - real[b]) >= 0
        return int(right.sum()), len(a)

    def front(self) -> Ints:
        """Rows of plans that no other beats in both, time of a step and memory left; the soonest first."""
        time_s = self.expected_s
        rows = np.flatnonzero(np.isfinite(time_s))
        rows = rows[np.lexsort((-self.table["headroom_B"][rows], time_s[rows]))]
        most = np.maximum.accumulate(np.append(-np.inf, self.table["headroom_B"][rows]))[:-1]
        out: Ints = rows[self.table["headroom_B"][rows] > most]
        return out

    def terms(self) -> list[tuple[str, float, float]]:
        """Parts of a step of the winner and of the runner-up that differ most, first those. [s]"""
        other = self.runner_up
        if other is None:
            return []
        names = dict.fromkeys([*self.best.breakdown, *other.breakdown])
        rows = [(name, self.best.breakdown.get(name, 0.0), other.breakdown.get(name, 0.0)) for name in names]
        return sorted(rows, key=lambda row: -abs(row[1] - row[2]))

    def plan_of(self, one: Result) -> dict[str, Any]:
        """Values of the axes' keys of a simulated plan."""
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
            "question": self.question,
            "objective": self.objective.name,
            "axes": {key: list(values) for key, values in self.axes.items()},
            "counts": self.counts.data(),
            "given": self.given,
            "given_why": self.given_why,
            "least_s": self.least_s,
            "bound_s": self.bound_s,
            "tokens": self.tokens,
            "accelerators": self.accelerators,
            "notes": list(self.notes),
            "order": [one.run for one in self.results.results],
        }

    def save(self, folder: Path) -> None:
        """Write table, results and the document; of these the document comes last."""
        keeping.save(folder, {PLANS: self.table}, self.results, self.data())

    @classmethod
    def load(cls, folder: str | Path) -> SearchResult:
        """What `save` wrote. Raises InputError for a folder that is none of a search."""
        said, (table,), results = keeping.load(Path(folder), (PLANS,))
        kept = ("question", "given", "given_why", "least_s", "bound_s", "tokens", "accelerators")
        return cls(
            objective=OBJECTIVES[said["objective"]],
            axes=said["axes"],
            counts=Counts(**said["counts"]),
            table=table,
            results=results,
            notes=tuple(said["notes"]),
            **{name: said[name] for name in kept},
        )


def table_of(space: Space, *, simulated: Mapping[tuple[int, int], Result]) -> dict[str, Any]:
    """Plans that fit the shape of the question, in columns: those that go by priced time, then those without room.

    simulated: by block and flat place in it
    """
    memory = space.code("does not fit the memory")
    places, outcome = [], []
    for number, block in enumerate(space.blocks):
        flat = block.reason.ravel()
        for its in (GOES, memory):
            at = np.flatnonzero(flat == its)
            places.append(np.stack([np.full(len(at), number), at]))
            outcome.append(np.full(len(at), its))
    where = np.concatenate(places, axis=1) if places else np.zeros((2, 0), np.int64)
    code = np.concatenate(outcome) if outcome else np.zeros(0, np.int64)
    own = {name: _gathered(space, where, name) for name in ("memory_B", "time_s", "bound_s")}
    # the order is the same wherever the search is run: by price, then by place
    order = np.lexsort((np.arange(len(code)), np.nan_to_num(own["time_s"], nan=np.inf), code != GOES))
    where, code = where[:, order], code[order]
    own = {name: column[order] for name, column in own.items()}
    out: dict[str, Any] = dict(_keys(space, where))
    runs = np.array([""] * len(code), dtype=object)
    seconds = np.full(len(code), np.nan)
    outcomes = np.where(code == GOES, "priced", "memory").astype(object)
    if simulated:
        row_of = {(int(b), int(at)): row for row, (b, at) in enumerate(where.T.tolist())}
        for place, result in simulated.items():
            row = row_of[place]
            runs[row], seconds[row], outcomes[row] = result.run, result.metric("step_time_s"), "simulated"
    room_B = space.asked.system.rank_memory_B
    mine = (outcomes, own["memory_B"], room_B - own["memory_B"], own["time_s"], own["bound_s"], seconds, runs)
    return {**out, **dict(zip(_OWN, mine, strict=True))}


def _gathered(space: Space, where: Ints, name: str) -> Floats:
    out = np.full(where.shape[1], np.nan)
    for number, block in enumerate(space.blocks):
        rows = where[0] == number
        column = getattr(block, name).ravel()
        out[rows] = column[where[1][rows]] if len(column) else np.nan
    return out


def _keys(space: Space, where: Ints) -> dict[str, Any]:
    """A column for every key."""
    shape = len(space.passes), len(space.orders), len(space.steps)
    p, o, s = np.unravel_index(where[1], shape) if where.size else (where[1],) * 3
    out: dict[str, Any] = {}
    layouts = [{**block.values, "parallel.dp": block.planned.layout.dp} for block in space.blocks]
    for cases, at in ((layouts, where[0]), (space.passes, p), (space.orders, o), (space.steps, s)):
        for key in cases[0] if cases else ():
            values = [" ".join(case[key]) if isinstance(case[key], tuple) else case[key] for case in cases]
            out[key] = np.array(values, dtype=object if len({type(one) for one in values}) > 1 else None)[at]
    return {key: out[key] for key in space.values if key in out}
