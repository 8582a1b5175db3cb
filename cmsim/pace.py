"""Race to idle, or slow and steady: what a run with a deadline takes at each clock, and what waiting takes behind it.

    E(f) = times x E_run(f) + waiting x (deadline - times x t(f))

E_run and t are of runs that are simulated at the clock f; what waits is idle, or asleep. Arithmetic takes 1/f the time
and f^2 the energy, what is always on takes its watts for as long as it runs: below some clock a slower run takes more.
Left out: energy and time of going to sleep and of waking up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cmsim import api, energy
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.execution import Machines
from cmsim.kinds.parts import PowerSpec
from cmsim.results import Result
from cmsim.scenario import Run

#: clocks that are tried, and halvings between them for the lowest that keeps the deadline
CLOCKS, _HALVINGS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), 6
#: a deadline that nobody gives, over the time at full clock
_USUAL = 1.5


@dataclass(frozen=True)
class Paced:
    """A run at a clock, until the deadline.

    took_s     of all its repetitions [s]    run_J  what they take, of the facility [J]
    idle_J, asleep_J  with waiting idle, or asleep, until the deadline [J]; None where the deadline is missed
    """

    clock: float
    took_s: float
    run_J: float
    idle_J: float | None
    asleep_J: float | None


@dataclass(frozen=True)
class Paces:
    """Every clock that was tried, from the full one down, and what is best.

    sleeps  whether a state below idle is known of the accelerator
    """

    run: str
    deadline_s: float
    times: int
    paced: tuple[Paced, ...]
    sleeps: bool

    @property
    def race(self) -> Paced:
        """At full clock."""
        return self.paced[0]

    @property
    def steady(self) -> Paced:
        """At the lowest clock that keeps the deadline."""
        return [one for one in self.paced if one.idle_J is not None][-1]

    @property
    def best(self) -> Paced:
        """With the least energy, waiting as deep as is known."""
        return min((one for one in self.paced if one.asleep_J is not None), key=lambda one: one.asleep_J or 0.0)

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "run": self.run,
            "deadline_s": self.deadline_s,
            "times": self.times,
            "sleeps": self.sleeps,
            "clocks": [vars(one) for one in self.paced],
            "race": vars(self.race),
            "steady": vars(self.steady),
            "best": vars(self.best),
        }


def pace(one: Run, machines: Machines, *, deadline_s: float | None = None, times: int = 1) -> Paces:
    """A run at full clock and at lower ones, repeated and then waiting until a deadline.

    deadline_s: for all repetitions [s]; default: half as much again as they take at full clock

    Raises InfeasibleError where the deadline is missed at full clock or the run is none, InputError for a kind of
    workload that has no clock.
    """
    if "power" not in type(one.spec).model_fields:
        raise InputError(
            Problem(f"the kind {one.spec.kind} has no `power.clock`, by which it would be slowed", key=one.key)
        )
    held = getattr(one.spec, "power", None) or PowerSpec()

    def at(clock: float) -> Result:
        spec = one.spec.model_copy(update={"power": held.model_copy(update={"clock": clock, "over_time": None})})
        became = api.evaluate(replace(one, spec=spec, record="summary"), machines)
        if not isinstance(became, Result):
            raise became.error()
        return became

    full = at(1.0)
    took_s = times * full.metric("makespan_s")
    deadline_s = _USUAL * took_s if deadline_s is None else deadline_s
    if took_s > deadline_s:
        message = f"got {deadline_s:g} s; at full clock {times} of {one.key} take {took_s:.4g} s"
        raise InfeasibleError(Problem(message, key="--deadline"))
    system = replace(machines(one), packages=full.accelerators)
    idle_W, asleep_W = (energy.waiting_W(system, state)[1] for state in ("idle", "asleep"))

    def paced(clock: float, result: Result) -> Paced:
        took_s, run_J = (times * result.metric(name) for name in ("makespan_s", "energy_J"))
        left_s = deadline_s - took_s
        rests = (run_J + idle_W * left_s, run_J + asleep_W * left_s) if left_s >= 0 else (None, None)
        return Paced(clock, took_s, run_J, *rests)

    found = {1.0: paced(1.0, full), **{clock: paced(clock, at(clock)) for clock in CLOCKS[1:]}}
    found |= _lowest(found, lambda clock: paced(clock, at(clock)))
    ordered = tuple(found[clock] for clock in sorted(found, reverse=True))
    return Paces(one.key, deadline_s, times, ordered, system.accelerator.power.sleep_W is not None)


def _lowest(found: dict[float, Paced], at: Callable[[float], Paced]) -> dict[float, Paced]:
    """The lowest clock that keeps the deadline, between two that were tried; none where the lowest of all does."""
    keeps = min(clock for clock, one in found.items() if one.idle_J is not None)
    misses = max((clock for clock in found if clock < keeps), default=None)
    if misses is None:
        return {}
    best: dict[float, Paced] = {}
    for _ in range(_HALVINGS):
        middle = (keeps + misses) / 2
        tried = at(middle)
        if tried.idle_J is None:
            misses = middle
        else:
            keeps, best = middle, {middle: tried}
    return best


__all__ = ["CLOCKS", "Paced", "Paces", "pace"]
