"""A run of the kind: causes in a machine, draws of their failures, what the job makes of them, and what that says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import System
from cmsim.kinds import Executed
from cmsim.kinds.reliability import ReliabilityFacts, ReliabilitySpec
from cmsim.reliability import causes as causes_
from cmsim.reliability import checkpoint, draw, job, measure, replay
from cmsim.reliability import saving as saving_
from cmsim.reliability.causes import Cause
from cmsim.reliability.events import US_PER_S, Failures, to_us
from cmsim.reliability.outages import Crew, speeds
from cmsim.reliability.slowdown import JobSteps
from cmsim.results import Result
from cmsim.scenario import Run

DAY_S = 86400.0
_DAYS = 90.0
#: a job that is not done after so many times its work is said not to end; the first look, over what is expected
_MOST, _FIRST = 32.0, 1.5
#: progress under which a job is said never to end
_NEVER = 1e-4


def execute(
    run: Run, system: System, *, base: Path | None, progress: Callable[[float], None] | None = None
) -> Executed:
    """Draws a job under failures. Raises InfeasibleError for one that never ends, InputError for what is wrong."""
    spec = run.spec
    assert isinstance(spec, ReliabilitySpec)
    if run.faults and spec.training is None:
        raise InputError(f"{run.key}: faults slow a step: they go with `training`, whose step is simulated")
    crew = _crew(spec, system)
    took = saving_.written(spec, system, base)
    steps = None if spec.training is None else JobSteps(run, spec.training, base)
    source = _Replayed(spec, crew, run.seed, base) if spec.trace else _Drawn(spec, system, steps, run.seed, base)
    if progress is not None:
        progress(0.5)
    mtbf_s = source.mtbf_s
    kept, notes = saving_.saving(spec, took, mtbf_s=mtbf_s, window_s=source.window_s)
    expected = checkpoint.goodput(
        kept.interval_us / US_PER_S, took.stall_s, kept.start_us / US_PER_S + source.detect_s, mtbf_s
    )
    if took.stall_s >= mtbf_s or (expected < _NEVER and not spec.trace):
        raise InfeasibleError(
            f"{run.key}: never ends: the job stands {took.stall_s:.4g} s for a checkpoint and "
            f"{kept.start_us / US_PER_S:.4g} s to start again, and something fails every {mtbf_s:.4g} s"
        )
    lived = _live(spec, source, crew, kept, took, expected)
    lines = [*measure.told(lived.outcome, source.names), *notes, *source.notes(), *_unfinished(spec, lived.outcome)]
    if steps is not None:
        lines += _of_step(steps.result, system)
    return Executed(
        metrics=measure.metrics(lived.outcome, kept, took, spec, steps.result if steps else None),
        frames=measure.frames(lived.outcome, source.names, source.parts) if run.record == "full" else {},
        facts=ReliabilityFacts(
            runs=float(lived.outcome.clock.size),
            hosts=float(crew.hosts),
            spares=float(crew.spares),
            window_s=lived.window_s,
            checkpoint_B=took.size_B,
        ),
        breakdown=measure.breakdown(lived.outcome),
        notes=tuple(lines),
    )


def _crew(spec: ReliabilitySpec, system: System) -> Crew:
    """Hosts of a job. Raises InputError for more spares than it has hosts, and a replica larger than the job."""
    if spec.spares > system.nodes:
        message = f"got {spec.spares}; the job has {system.nodes} hosts. Allowed: 0 to {system.nodes}"
        raise InputError(Problem(message, key="spares"))
    if spec.elastic is None:
        return Crew(system.nodes, spec.spares)
    packages = spec.elastic.replica_accelerators
    if packages is None:
        if spec.training is None:
            raise InputError(Problem("required without `training`", key="elastic.replica_accelerators"))
        sizes = spec.training.parallel
        packages = -(-sizes.tp * sizes.cp * sizes.pp // system.ranks_per_package)
    if packages > system.packages:
        message = f"got {packages}; {system.name} has {system.packages} accelerators"
        raise InputError(Problem(message, key="elastic.replica_accelerators"))
    per_host = system.packages / system.nodes
    return Crew(system.nodes, spec.spares, packages / per_host, spec.elastic.least)


class _Drawn:
    """Failures by the laws of their parts."""

    def __init__(self, spec: ReliabilitySpec, system: System, steps: JobSteps | None, seed: int, base: Path | None):
        self.spec, self.seed = spec, seed
        self.causes = tuple(_simulated(one, steps) for one in causes_.counted(spec.failures, spec.causes, system, base))
        self.names: Sequence[str] = [one.name for one in self.causes]
        self.parts: Sequence[int] = [one.parts for one in self.causes]
        self.wide = np.array([one.wide for one in self.causes], np.bool_)
        self.window_s = (spec.work_days or spec.days or _DAYS) * DAY_S
        rates = self._rates()
        many = sum(rates)
        #: between failures that stop the job, and until one is noticed, means [s]
        self.mtbf_s = self.window_s / many if many else math.inf
        detects = sum(rate * one.detect_s for rate, one in zip(rates, self.causes, strict=True))
        self.detect_s = detects / many if many else 0.0
        self._assumed = 0 if spec.failures is None else causes_.assumed(spec.failures, base)

    def _rates(self) -> list[float]:
        """Failures of the window that stop the job, by cause, mean: by the law where it is exponential, else drawn."""
        if all(one.shape == 1 for one in self.causes):
            return [one.breaks * draw.expected(one, self.window_s) for one in self.causes]
        events = self.events(self.window_s)
        stops = np.bincount(events.cause[events.breaks], minlength=len(self.causes))
        return [float(count) / self.spec.runs for count in stops]

    def events(self, window_s: float) -> Failures:
        return draw.events(self.causes, runs=self.spec.runs, window_s=window_s, seed=self.seed)

    def notes(self) -> list[str]:
        if not self._assumed:
            return []
        return [f"{self._assumed} numbers of the failures {self.spec.failures} are assumed, with their ranges there"]


def _simulated(cause: Cause, steps: JobSteps | None) -> Cause:
    """A cause with its slow-down. Raises InputError where that needs a step and there is none."""
    if cause.fault is None:
        return cause
    if steps is None:
        message = "simulates a step, and needs `training`; or give slowdown"
        raise InputError(Problem(message, key=f"causes.{cause.name}.fault"))
    return causes_.slowed(cause, steps.slowdown(cause.fault))


class _Replayed:
    """Failures as they were recorded, on hosts of the job."""

    def __init__(self, spec: ReliabilitySpec, crew: Crew, seed: int, base: Path | None):
        assert spec.trace is not None
        away, last_s = replay.read(spec.trace, base)
        self.window_s = spec.days * DAY_S if spec.days else last_s
        self._events, self.names = replay.events(
            away,
            fleet=spec.trace.hosts or crew.hosts + crew.spares,
            hosts=crew.hosts,
            spares=crew.spares,
            window_s=self.window_s,
            seed=seed,
        )
        self.parts: Sequence[int] = [crew.hosts] * len(self.names)
        self.wide = np.zeros(len(self.names), np.bool_)
        many = int(self._events.breaks.sum())
        self.mtbf_s = self.window_s / many if many else math.inf
        self.detect_s = 0.0
        self._after = self.window_s > last_s

    def events(self, window_s: float) -> Failures:
        assert window_s == self.window_s
        return self._events

    def notes(self) -> list[str]:
        return ["the trace ends before `days` do: nothing fails after it"] if self._after else []


@dataclass(frozen=True)
class _Done:
    outcome: job.Outcome
    window_s: float


def _live(
    spec: ReliabilitySpec,
    source: _Drawn | _Replayed,
    crew: Crew,
    kept: job.Saving,
    took: saving_.SaveTimes,
    expected: float,
) -> _Done:
    """All draws to their end: of the clock, or of the job, looked for in ever longer windows."""
    far_us = int(to_us(took.write_s - took.near_s))

    def once(window_s: float, work_us: float) -> tuple[Failures, job.Outcome]:
        events = source.events(window_s)
        if far_us and source.wide.any():
            # what was in memory is gone: it is read from storage
            events = replace(events, ready_us=events.ready_us + far_us * source.wide[events.cause])
        found = speeds(events, crew)
        first = job.live(events, found, kept, wide=source.wide, work_us=work_us)
        if not work_us:
            return events, first
        ends = np.where(first.end < 0, events.window_us, first.end)
        return events, replace(job.live(events, found, kept, wide=source.wide, ends_us=ends), end=first.end)

    if spec.work_days is None:
        return _Done(once(source.window_s, 0.0)[1], source.window_s)
    work_s = spec.work_days * DAY_S
    window_s = min(work_s / max(expected, 1 / _MOST) * _FIRST, work_s * _MOST)
    while True:
        _, outcome = once(window_s, work_s * US_PER_S)
        if window_s >= work_s * _MOST or (outcome.end >= 0).all():
            return _Done(outcome, window_s)
        window_s = min(2 * window_s, work_s * _MOST)


def _of_step(step: Result, system: System) -> list[str]:
    """What is to be known of the step, and whether it takes the whole machine."""
    lines = [one for one in step.warnings if one not in system.notes]
    if step.accelerators < system.packages:
        lines.append(f"a step takes {step.accelerators} accelerators; parts of all {system.packages} fail")
    return lines


def _unfinished(spec: ReliabilitySpec, outcome: job.Outcome) -> list[str]:
    many = int((outcome.end < 0).sum()) if spec.work_days is not None else 0
    if not many:
        return []
    return [f"{many} of {outcome.end.size} runs do not end within {_MOST:g} times the work of the job"]
