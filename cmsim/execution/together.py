"""Runs that differ in nothing but numbers of their workload, made together: planned, priced and played as one.

The one place where runs are grouped. What comes out of a group is what each gives by itself, byte for byte; who is not
made here, for whatever reason, is made alone, and then says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cmsim import engine, kinds, results
from cmsim.errors import CmsimError
from cmsim.execution import formats, played
from cmsim.execution.choice import result_of
from cmsim.execution.machines import Machines
from cmsim.execution.options import means_of, options_of
from cmsim.execution.played import Play
from cmsim.hardware import System
from cmsim.reading.look import one_look
from cmsim.results import Outcome, Result
from cmsim.scenario import Run
from cmsim.workload import Programs, generate

#: runs that are kept in full and made as one, at most: their frames are large
_FULL = 4


@dataclass(frozen=True)
class _Asked:
    """A run that may go with others; ``number``: among those that were asked for."""

    number: int
    run: Run
    system: System
    options: engine.Options

    def goes_with(self, other: _Asked) -> bool:
        alike = self.system is other.system and self.run.spec.kind == other.run.spec.kind
        return alike and self.options == other.options


@dataclass(frozen=True)
class _Made(_Asked):
    """The same with its programs, before it is planned."""

    programs: Programs


def outcomes_of(runs: Sequence[Run], machines: Machines, alone: Callable[[Run], Outcome]) -> Iterator[Outcome]:
    """What becomes of each of several runs, in their order. ``alone``: of one that is made by itself; it raises what
    is wrong with its input."""
    for one, found in zip(runs, results_of(runs, machines), strict=True):
        yield alone(one) if found is None else found


def results_of(runs: Sequence[Run], machines: Machines) -> list[Result | None]:
    """The result of each run; None of those that are to be made alone."""
    out: list[Result | None] = [None] * len(runs)
    if len(runs) < 2:
        return out
    with one_look():
        _fill(out, runs, machines)
    return out


def _fill(out: list[Result | None], runs: Sequence[Run], machines: Machines) -> None:
    groups: list[list[_Asked]] = []
    for number, one in enumerate(runs):
        asked = _asked(number, one, machines)
        if asked is None:
            continue
        # the last of them that it goes with
        group = next((some for some in reversed(groups) if asked.goes_with(some[0])), None)
        if group is None or (one.record == "full" and len(group) == _FULL):
            groups.append([asked])
        else:
            group.append(asked)
    for group in groups:
        if len(group) > 1:
            _fill_group(out, group, machines)


def _fill_group(out: list[Result | None], group: Sequence[_Asked], machines: Machines) -> None:
    """Programs may be large: those of one group alone are held."""
    made = [one for asked in group if (one := _made(asked, machines)) is not None]
    if made:
        for one, result in zip(made, _results(made, machines), strict=True):
            out[one.number] = result


def _asked(number: int, one: Run, machines: Machines) -> _Asked | None:
    """A run that may go with others; None where it has something that only it can tell of, or is refused."""
    if one.open or one.uncertainty is not None or one.network == "flow" or one.faults:
        return None
    if not isinstance(kinds.get(one.spec.kind).execution, kinds.PlayedKind) or means_of(one).of_ops:
        return None
    try:
        system = machines(one)
        formats.check(one.spec, system.accelerator)
        return _Asked(number, one, system, options_of(one, system))
    except CmsimError:
        return None


def _made(asked: _Asked, machines: Machines) -> _Made | None:
    try:
        programs = generate.programs(asked.run.spec, asked.system, base=machines.base, loops=True)
        engine.check_memory(programs, asked.system)
        return _Made(asked.number, asked.run, asked.system, asked.options, programs)
    except CmsimError:
        return None


def _results(group: Sequence[_Made], machines: Machines) -> list[Result | None]:
    if engine.fit([one.programs for one in group], group[0].options):
        try:
            return [*_as_one(group, machines)]
        except CmsimError:
            return [None] * len(group)
    return [_by_itself(one, machines) for one in group]


def _by_itself(made: _Made, machines: Machines) -> Result | None:
    try:
        went = engine.play_loops(engine.plan(made.programs, made.system, made.options))
        assert went is not None, "without a limit a plan is played to its end"
        return result_of(_play(made, *went, machines))
    except CmsimError:
        return None


def _as_one(group: Sequence[_Made], machines: Machines) -> list[Result]:
    first, programs = group[0], [one.programs for one in group]
    line = engine.lined_up(programs, first.system, first.options)
    if not len(line.joint):
        plays = [_play(one, plan, engine.play(plan), machines) for one, plan in zip(group, line.each, strict=True)]
        return [result_of(one) for one in plays]
    whole = engine.play(line.plan)
    parts = zip(group, line.each, line.apart(whole), strict=True)
    plays = [_play(one, plan, timeline, machines) for one, plan, timeline in parts]
    apart = {one.run.exclusive for one in group} == {True, False}
    if apart or any(one.run.record == "full" or played.only_time(one.run) for one in group):
        return [result_of(one) for one in plays]
    billed = plays[0].billed
    measured = played.measured_apart(line, whole, billed)
    return [results.check(played.result(one, own)) for one, own in zip(plays, measured, strict=True)]


def _play(made: _Made, plan: engine.Plan, timeline: engine.Timeline, machines: Machines) -> Play:
    return Play(made.run, made.system, made.programs, made.options, plan, timeline, machines.base)


__all__ = ["outcomes_of", "results_of"]
