"""Points of a space that is too large to list, drawn where earlier ones were good (Optuna, tree of Parzen estimators).

What is drawn follows from the seed and from what became of the points before, so that a study that was ended goes on
by being drawn again: points that the folder has are told, not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmsim import api, kinds
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.execution import Machines
from cmsim.results import Infeasible, Outcome, Result, Results, Store, became, decisive, settle
from cmsim.scenario import Record, Run, Scenario, SweepSpace, load_space
from cmsim.sweep.folder import alone, check
from cmsim.sweep.points import point
from cmsim.sweep.standing import Progress, Standing

#: draws of points that were drawn before, or that conditions leave out, in a row, after which there are no others
_IN_VAIN = 100


def study(
    scenario: str | Path | Mapping[str, Any],
    *,
    trials: int,
    out: str | Path,
    objective: str | None = None,
    set: Mapping[str, Any] | None = None,
    record: Record = "summary",
    resume: bool = False,
    progress: Progress | None = None,
    allow_policies: bool = False,
) -> Results:
    """So many points of a sweep, each drawn where a metric promises to be best.

    Parameters
    ----------
    scenario
        With one workload on one system, and a sweep of any size.
    trials
        Different points to run.
    out, set, record, resume, progress, allow_policies
        As of `sweep`.
    objective
        Metric that decides; default: the one that `best` takes for this kind of workload.

    Returns
    -------
    Results
        Of the points in the order in which they were drawn.

    Raises
    ------
    InputError
        As `sweep`; also without Optuna, for several workloads or systems, and for a metric that runs do not have.
    """
    try:
        import optuna
    except ImportError:
        raise InputError(Problem("needs the package optuna: pip install 'cmsim[optuna]'", "--trials")) from None
    space = load_space(scenario, set=set)
    begin = _checked(space)
    first = begin.runs[0]
    kind = kinds.get(first.spec.kind)
    if objective is not None and objective not in kind.deciding:
        raise InputError(f"--objective: got '{objective}'. {did_you_mean(objective, kind.deciding)}")
    more = kind.more_is_better(objective or kind.decisive[0])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=first.seed)
    drawn = optuna.create_study(direction="maximize" if more else "minimize", sampler=sampler)
    machines = Machines(begin.base)
    api.check_asked(begin, machines)
    folder, in_vain = Path(out).absolute(), 0
    order: dict[str, None] = {}
    with alone(folder), Store(folder, sole=True) as store:
        found = store.outcomes()
        check(folder, found.keys(), None, resume=resume)
        known = dict(zip(found, store.results(list(found)), strict=True))
        standing = Standing(trials, found=len(found))
        while len(order) < trials and in_vain < _IN_VAIN:
            trial = drawn.ask()
            where = _point(space, trial)
            if not all(one.holds(where) for one in space.swept.where):
                trial.set_constraint("over", 1.0)
                drawn.tell(trial, 0.0)
                in_vain += 1
                continue
            loaded = space.at(where).recorded(record)
            if allow_policies:
                loaded = loaded.allowing_policies()
            (digest,) = api.digests(loaded, machines)
            in_vain = in_vain + 1 if digest in order else 0
            if digest not in known:
                known[digest] = point(machines.base, loaded.runs[0])
                store.add(known[digest], digest)
            outcome = known[digest]
            if digest not in order:
                order[digest] = None
                standing.count(became(outcome))
                if progress is not None:
                    progress(standing)
            trial.set_constraint("over", _over(outcome))
            drawn.tell(trial, _score(first, outcome, objective) if isinstance(outcome, Result) else 0.0)
        check(folder, found.keys(), order, resume=resume)
        settle(store, list(order), space.data, api.manifest(begin, machines.loaded()))
    return Results.load(folder)


def _checked(space: SweepSpace) -> Scenario:
    """The scenario at the first point. Raises InputError for several runs at a point, or none to draw from."""
    problem = space.document.problem
    if not space.swept.axes:
        raise InputError(problem((), "has no `sweep` to draw from"))
    for section in ("workloads", "systems"):
        names = list(space.data[section])
        if len(names) != 1:
            said = ", ".join(str(name) for name in names)
            raise InputError(problem((section,), f"points are drawn for one of them, got {said}. Leave one with --set"))
    first = {key: value for axis in space.swept.axes for key, value in zip(axis.keys, axis.rows[0], strict=True)}
    return space.at(first)


def _score(one: Run, result: Result, objective: str | None) -> float:
    """The metric that decides. Raises InputError where there is none of that name, or it is no number."""
    numbers = {name: value for name, value in result.metrics.items() if not isinstance(value, str)}
    return decisive(one.spec.kind, numbers, objective)[1]


def _over(outcome: Outcome) -> float:
    """By how much a point is impossible: memory that is missing over memory that is there; below 0 where it is not."""
    if isinstance(outcome, Result):
        return -1.0
    budget = outcome.budget if isinstance(outcome, Infeasible) else {}
    return budget["needed_B"] / budget["available_B"] - 1 if "needed_B" in budget else 1.0


def _point(space: SweepSpace, trial: Any) -> dict[str, Any]:
    """A point as it is drawn: of numbers in order by their place, of words as choices."""
    out: dict[str, Any] = {}
    for axis in space.swept.axes:
        name, last = ", ".join(axis.keys), len(axis.rows) - 1
        numbers = [row[0] for row in axis.rows if isinstance(row[0], int | float) and not isinstance(row[0], bool)]
        in_order = len(numbers) == len(axis.rows) and numbers in (sorted(numbers), sorted(numbers, reverse=True))
        at = trial.suggest_int(name, 0, last) if in_order else trial.suggest_categorical(name, range(last + 1))
        out.update(zip(axis.keys, axis.rows[at], strict=True))
    return out


__all__ = ["study"]
