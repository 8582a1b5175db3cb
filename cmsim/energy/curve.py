"""Power over time as a grid and its supplies see it: a run again and again, or a service, on many machines that do not
start at once.

Every machine waits until it starts, and then does what the one that was simulated did; sums are exact means over each
step of time. What nobody staggers starts at once, and its swings add up; what starts apart evens out.

Leaves out: what differs between machines (jitter, temperature), capacitors and batteries, and times of meters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from cmsim.arrays import Columns, Floats, spectrum
from cmsim.energy.power import LINKS, OPS, Power, power_over_time
from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.units import PS_PER_S

#: what accelerators do that have nothing to do
State = Literal["active", "idle", "asleep"]
#: samples of a curve, and samples over all machines, at most
_MOST, _MOST_IN_ALL = 2_000_000, 1_000_000_000
#: a run is repeated so often where nobody says how long, and at least for so many samples
_RUNS, _SAMPLES = 20, 600


@dataclass(frozen=True)
class Course:
    """What one machine draws from its start: mean power between edges. [s], [W]

    repeats  whether it begins again at its end, without a pause; else it waits from then on
    waits_W  what it draws before its start, and after its end
    """

    edges_s: Floats
    power_W: Floats
    waits_W: float
    repeats: bool

    @classmethod
    def of(cls, power: Power, system: System) -> Course:
        """A run of a machine, over and over."""
        edges_s = (power.edges_ps - power.edges_ps[0]) / PS_PER_S
        return cls(edges_s, power.middle_W.sum(axis=0), waiting_W(system)[1], repeats=True)

    @property
    def length_s(self) -> float:
        return float(self.edges_s[-1])

    @cached_property
    def _until_J(self) -> Floats:
        """Energy from its start to each edge, the same for every machine. [J]"""
        return np.concatenate([[0.0], np.cumsum(self.power_W * np.diff(self.edges_s))])

    def joules(self, at_s: Floats) -> Floats:
        """Energy from time 0 on of a machine that starts then, at times before and after it. [J]"""
        until_J, since_s = self._until_J, np.maximum(at_s, 0.0)
        before_J = np.minimum(at_s, 0.0) * self.waits_W
        if self.repeats:
            times, rest_s = np.divmod(since_s, self.length_s)
            out: Floats = before_J + times * until_J[-1] + np.interp(rest_s, self.edges_s, until_J)
            return out
        after_J = np.maximum(since_s - self.length_s, 0.0) * self.waits_W
        once: Floats = before_J + np.interp(since_s, self.edges_s, until_J) + after_J
        return once


@dataclass(frozen=True)
class PowerCurve:
    """Mean power of all machines over even steps of time, and the step from which on all of them are at work. [W]"""

    step_s: float
    power_W: Floats
    steady: int

    def columns(self) -> Columns:
        """One row per step: start_s and power_W."""
        return {"start_s": np.arange(len(self.power_W)) * self.step_s, "power_W": self.power_W}

    def metrics(self) -> dict[str, float]:
        """How power moves. The ramp is of the whole curve, starts too; all others are of its steady part.

        power_p5_W, power_p95_W    percentiles of the steps
        power_swing_W              between these two
        power_ramp_W_per_s         the steepest change from one step to the next
        power_swing_Hz             the frequency that swings most, and power_at_Hz_W how far up and down
        """
        steady_W = self.power_W[self.steady :]
        low, high = np.percentile(steady_W, [5, 95]).tolist()
        ramp = float(np.abs(np.diff(self.power_W)).max(initial=0.0)) / self.step_s
        hertz, swings_W = spectrum(steady_W, self.step_s)
        most = int(np.argmax(swings_W)) if len(swings_W) else 0
        return {
            "power_p5_W": low,
            "power_p95_W": high,
            "power_swing_W": high - low,
            "power_ramp_W_per_s": ramp,
            "power_swing_Hz": float(hertz[most]) if len(hertz) else 0.0,
            "power_at_Hz_W": float(swings_W[most]) if len(swings_W) else 0.0,
        }


def curve(
    course: Course,
    *,
    resolution_s: float,
    machines: int = 1,
    spread_s: float = 0.0,
    seconds: float | None = None,
    seed: int,
) -> PowerCurve:
    """The sum over machines that do the same, each started at a time drawn evenly from ``spread_s`` by the seed.

    resolution_s: step of time [s]    seconds: length; default: 20 runs, or one service, behind the last start [s]

    Raises InputError for more steps than there may be, and for a curve that ends before all have started.
    """
    last_s = spread_s if machines > 1 else 0.0
    if seconds is None:
        usual_s = max(_RUNS * course.length_s, _SAMPLES * resolution_s) if course.repeats else course.length_s
        seconds = last_s + min(usual_s, _MOST * resolution_s / 2)
    # what is over a whole number of steps by a rounding error is no step
    count = max(int(np.ceil(seconds / resolution_s * (1 - 1e-12))), 1)
    if count > _MOST or count * machines > _MOST_IN_ALL:
        message = (
            f"got {count:,} steps of {resolution_s:g} s on {machines:,} machines. Allowed: {_MOST:,} steps, "
            f"{_MOST_IN_ALL:,} over all machines"
        )
        raise InputError(Problem(message, key="power.over_time.resolution_s"))
    steady = int(np.ceil(last_s / resolution_s))
    if steady >= count:
        message = f"got {seconds:g}; allowed: more than spread_s ({spread_s:g}), when the last machine starts"
        raise InputError(Problem(message, key="power.over_time.seconds"))
    if count - steady < 2:
        message = (
            f"got {resolution_s:g}: once all machines are at work there is one step, which has no swing. "
            f"Allowed: at most {(seconds - last_s) / 2:.3g}"
        )
        raise InputError(Problem(message, key="power.over_time.resolution_s"))
    starts_s = np.random.default_rng(seed).uniform(0.0, spread_s, machines) if last_s else np.zeros(1)
    at_s = np.arange(count + 1) * resolution_s
    joules = np.zeros(count + 1)
    for start_s in starts_s.tolist():
        joules += course.joules(at_s - start_s)
    if not last_s:  # all the same
        joules *= machines
    return PowerCurve(resolution_s, np.diff(joules) / resolution_s, steady)


def waiting_W(system: System, state: State = "idle") -> tuple[float, float, float]:
    """Facility power of a machine whose accelerators have nothing to do: the least, the middle, the most. [W]

    state: active, contexts there and clocks up; idle; asleep, contexts gone, which is idle where nothing lower is known
    """
    power = system.accelerator.power
    at_rest_W = {"active": power.active_W, "idle": power.idle_W, "asleep": power.sleep_W or power.idle_W}[state]
    chip = system.accelerator.model_copy(update={"power": power.model_copy(update={"idle_W": at_rest_W})})
    none = {name: np.zeros(0) for name in (*OPS, *LINKS)}
    found = power_over_time(replace(system, accelerator=chip), none, none, makespan_ps=PS_PER_S)
    low, middle, high = (float(one.sum(axis=0).mean()) for one in (found.low_W, found.middle_W, found.high_W))
    return low, middle, high
