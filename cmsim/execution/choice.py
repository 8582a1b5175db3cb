"""Which of the values that a scenario leaves open is best, and the result of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cmsim import kinds, results
from cmsim.errors import InfeasibleError
from cmsim.execution import itself, played
from cmsim.execution.machines import Machines
from cmsim.execution.options import means_of
from cmsim.execution.played import Play
from cmsim.hardware import System
from cmsim.results import Result
from cmsim.scenario import Run
from cmsim.units import to_s
from cmsim.workload import Programs

Progress = Callable[[float], None]


def result_of(tried: Play | Result) -> Result:
    """The result of a run: recorded and measured now where it was only played; checked."""
    if isinstance(tried, Result):
        return results.check(tried)
    return played.whole(results.check(played.result(tried)), tried)


def candidates(one: Run, machines: Machines) -> Iterator[Run]:
    """The runs among which `best` chooses, in the order in which they are tried; one that leaves nothing open itself.

    Parameters
    ----------
    one
        A run of a scenario.
    machines
        Its systems.

    Yields
    ------
    Run
        One that leaves nothing open.

    Raises
    ------
    InputError
        For values that do not go together.
    """
    if not one.open:
        yield one
        return
    key = one.open[0]
    values = key.values
    if values is None:
        from cmsim.workload.generate.choices import sizes

        values = tuple(sizes(key.key, one.spec, machines(one), base=machines.base))
    for value in values:
        yield from candidates(one.at(value), machines)


def best(one: Run, machines: Machines, progress: Progress | None = None) -> Play | Result:
    """The candidate whose metric is best, the first of equals. Raises InfeasibleError where none is possible.

    Losers are played no longer than they could still win, and nothing is recorded of them.
    """
    found: Play | Result | None = None
    score = 0.0
    refused: list[tuple[Run, InfeasibleError]] = []
    for candidate in candidates(one, machines):
        limit = None
        if found is not None and results.follows_time(one.spec.kind, one.of):
            limit = functools.partial(_time_to_beat, candidate, machines(candidate), score)
        try:
            tried = attempt(candidate, machines(candidate), machines.base, limit=limit, progress=progress)
        except InfeasibleError as error:
            refused.append((candidate, error))
            continue
        if tried is None or not one.open:
            found = found or tried
            continue
        metric, value = _score(candidate, tried)
        more = kinds.get(one.spec.kind).more_is_better(metric)
        if found is None or (value > score if more else value < score):
            found, score = tried, value
    if found is None:
        raise _nearest(refused)
    return found


def decided(one: Run, machines: Machines) -> Run:
    """The run with all keys decided. Raises InputError for a kind without programs."""
    means_of(one)
    found = best(one, machines)
    assert isinstance(found, Play), "a kind with programs is played"
    return found.run


def attempt(
    one: Run,
    system: System,
    base: Path | None,
    *,
    limit: Callable[[Programs], float] | None = None,
    progress: Progress | None = None,
) -> Play | Result | None:
    """A run that leaves nothing open, as its kind is executed; None where it takes longer than ``limit``. [s]"""
    execution = kinds.get(one.spec.kind).execution
    if isinstance(execution, kinds.Itself):
        return itself.result(one, system, base, execution, progress=progress)
    return played.play(one, system, base, limit=limit, progress=progress)


def _score(one: Run, tried: Play | Result) -> tuple[str, float]:
    """The metric that decides, and what the candidate gives."""
    kind = one.spec.kind
    if isinstance(tried, Play) and results.follows_time(kind, one.of):
        found = played.rates(one, tried.billed, tried.programs, to_s(tried.timeline.makespan_ps))
        return results.decisive(kind, found, one.of)
    result = result_of(tried)
    numbers = {name: value for name, value in result.metrics.items() if not isinstance(value, str)}
    name = one.of or results.decisive(kind, numbers, None)[0]
    return name, result.metric(name)


def _time_to_beat(one: Run, system: System, score: float, programs: Programs) -> float:
    """How long a run may take to be better than a score: rates go with one over time, times with time. [s]"""
    in_a_second = played.rates(one, played.billed(one, system, programs), programs, 1.0)
    metric, value = results.decisive(one.spec.kind, in_a_second, one.of)
    # one part in a million more, so that what is as good to the last digit is played to its end
    more = kinds.get(one.spec.kind).more_is_better(metric)
    return (value / score if more else score / value) * (1 + 1e-6)


def _nearest(refused: Sequence[tuple[Run, InfeasibleError]]) -> InfeasibleError:
    """Of several refusals the one that is nearest to fitting; where none has a budget, the first."""

    def excess(at: int) -> tuple[float, int]:
        budget = refused[at][1].budget
        return (budget["needed_B"] / budget["available_B"] if "needed_B" in budget else math.inf), at

    candidate, error = refused[min(range(len(refused)), key=excess)]
    if not candidate.chosen:
        return error
    tried = ", ".join(f"{key} {value}" for key, value in candidate.chosen.items())
    return InfeasibleError(f"none of {len(refused)} choices is possible; nearest with {tried}: {error}", error.budget)
