"""Jobs as columns: listed by hand, recorded, or drawn; in the order of their submission."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import reading
from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem
from cmsim.jobs import Jobs, load_jobs
from cmsim.kinds.jobs import JobsSpec
from cmsim.kinds.submitting import JobArrivalsSpec, JobSpec, JobTraceSpec, LengthSpec
from cmsim.reliability.events import to_us
from cmsim.scheduling.hall import numbered

HOUR_S, DAY_S, HOURS = 3600.0, 86400.0, 24
#: jobs of one run, so that columns of them fit the memory of a laptop
_MOST = 10_000_000
#: packages that anybody asks for
_LARGEST = 2**22


@dataclass(frozen=True)
class Submitted:
    """One row per job, in the order of submission.

    submit_us  when    packages  accelerators, all at once    work_us  on the reference; 0 where steps are given
    steps      of its task, 0 where work is given    team, task, only  numbers, -1: none, any machine    priority
    """

    submit_us: Ints
    packages: Ints
    work_us: Ints
    steps: Ints
    team: Ints
    task: Ints
    only: Ints
    priority: Ints

    def __len__(self) -> int:
        return len(self.submit_us)

    def taken(self, rows: Any) -> Submitted:
        """Some of them, in that order."""
        return Submitted(*(getattr(self, one.name)[rows] for one in fields(self)))


@dataclass(frozen=True)
class _Names:
    """Numbers of what a scenario has names for."""

    teams: Mapping[str, int]
    tasks: Mapping[str, int]
    machines: Sequence[str]

    def machine(self, name: str | None, key: str) -> int:
        return -1 if name is None else numbered(self.machines, name, key)


def submitted(
    spec: JobsSpec, machines: Sequence[str], *, seed: int, base: Path | None
) -> tuple[Submitted, tuple[str, ...]]:
    """All jobs of a scenario, and what to say of them. Raises InputError with file and place."""
    teams, tasks = ({name: i for i, name in enumerate(known)} for known in (spec.teams, spec.tasks))
    names = _Names(teams, tasks, machines)
    parts, notes = [_listed(spec.jobs, names)], []
    if spec.trace is not None:
        found, said = _recorded(spec.trace, names, np.random.default_rng([seed, 1]), base)
        parts.append(found)
        notes += said
    if spec.arrivals is not None:
        parts.append(_drawn(spec.arrivals, names, np.random.default_rng([seed, 2])))
    one = Submitted(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Submitted)))
    return one.taken(np.argsort(one.submit_us, kind="stable")), tuple(notes)


def _listed(jobs: Sequence[JobSpec], names: _Names) -> Submitted:
    def column(of: Callable[[JobSpec], Any]) -> Ints:
        return np.array([of(job) for job in jobs], np.int64)

    only = [names.machine(job.machine, f"jobs[{i}].machine") for i, job in enumerate(jobs)]
    return Submitted(
        submit_us=to_us([job.at_s for job in jobs]),
        packages=column(lambda job: job.accelerators),
        work_us=np.maximum(to_us([job.seconds or 0.0 for job in jobs]), [job.steps is None for job in jobs]),
        steps=column(lambda job: job.steps or 0),
        team=column(lambda job: -1 if job.team is None else names.teams[job.team]),
        task=column(lambda job: -1 if job.task is None else names.tasks[job.task]),
        only=np.array(only, np.int64),
        priority=column(lambda job: job.priority),
    )


# as recorded


def _recorded(
    spec: JobTraceSpec, names: _Names, random: np.random.Generator, base: Path | None
) -> tuple[Submitted, list[str]]:
    path = reading.locate(spec.path, base=base, built_in=("workloads/jobs", ""))
    if path is None:
        raise InputError(Problem(f"no such file: {spec.path}", key="trace.path"))
    found = load_jobs(path, format=spec.format)
    # who was there before the trace began, or has no submission, comes when it started, at the earliest at 0
    submit_s = np.where(np.isnan(found.submit_s), found.start_s, found.submit_s)
    late = int((np.isnan(found.submit_s) & ~np.isnan(found.start_s)).sum())
    usable = (found.gpus > 0) & (found.gpus <= _LARGEST) & ~np.isnan(found.duration_s) & ~np.isnan(submit_s)
    if not usable.any():
        message = f"of {len(found)} jobs ({found.format}) none has a submission, accelerators and a length"
        raise InputError(Problem(message, str(path), key="trace"))
    rows = np.flatnonzero(usable)
    submit_s = np.maximum(submit_s[rows], 0.0)
    rows, submit_s = (one[np.argsort(submit_s, kind="stable")] for one in (rows, submit_s))
    rows, submit_s = rows[: spec.jobs], submit_s[: spec.jobs]
    gpus = found.gpus[rows]
    one = Submitted(
        submit_us=to_us((submit_s - submit_s[0]) / spec.faster),
        packages=np.ceil(gpus).astype(np.int64),
        work_us=np.maximum(to_us(found.duration_s[rows]), 1),
        steps=np.zeros(len(rows), np.int64),
        only=_machines_of(found, spec, names)[rows],
        **_mixed(spec, len(rows), names, random),
    )
    return one, _said_of(found, len(usable) - int(usable.sum()), late, int((gpus % 1 > 0).sum()), len(rows), spec)


def _machines_of(found: Jobs, spec: JobTraceSpec, names: _Names) -> Ints:
    """By job: the one machine that it may run on, -1 for any."""
    unknown = [kind for kind in spec.machines if kind not in found.gpu_types]
    if unknown:
        message = f"the trace has no accelerators {unknown[0]!r}. It has: {', '.join(found.gpu_types) or 'none named'}"
        raise InputError(Problem(message, key="trace.machines"))
    of = [names.machine(spec.machines.get(kind), f"trace.machines.{kind}") for kind in found.gpu_types]
    return np.array([*of, -1], np.int64)[found.gpu_type]


def _said_of(found: Jobs, left_out: int, late: int, parts: int, count: int, spec: JobTraceSpec) -> list[str]:
    said = [f"{note} (jobs of {found.format})" for note in found.notes]
    if left_out:
        said.append(
            f"{left_out:,} of {len(found):,} recorded jobs are left out: no accelerators, no length or no submission"
        )
    if late:
        said.append(f"{late:,} recorded jobs have no submission: they come when they started")
    if parts:
        said.append(f"{parts:,} of {count:,} jobs ask for a part of an accelerator: each has a whole one")
    if (found.gpu_type >= 0).any() and not spec.machines:
        said.append("types of accelerators that recorded jobs ask for are not heeded; `trace.machines` says where to")
    return said


# drawn


def _drawn(spec: JobArrivalsSpec, names: _Names, random: np.random.Generator) -> Submitted:
    submit_s = arrivals_s(spec, random)
    count = len(submit_s)
    sizes = list(spec.sizes)
    return Submitted(
        submit_us=to_us(submit_s),
        packages=np.array(sizes, np.int64)[_picked(list(spec.sizes.values()), count, random)],
        work_us=np.maximum(to_us(lengths_s(spec.length, count, random)), 1),
        steps=np.zeros(count, np.int64),
        only=np.full(count, -1),
        **_mixed(spec, count, names, random),
    )


def arrivals_s(spec: JobArrivalsSpec, random: np.random.Generator) -> Floats:
    """When jobs come: a Poisson process whose rate is that of each hour of the day. [s]

    Points of a process of rate 1 are put where the sum of rates is theirs. Raises InputError for more than there is
    room for.
    """
    by_hour = spec.per_hour if isinstance(spec.per_hour, list) else [spec.per_hour] * HOURS
    hours = math.ceil(spec.days * HOURS)
    ends_h = np.minimum(np.arange(hours + 1.0), spec.days * HOURS)
    sums = np.concatenate([[0.0], np.cumsum(np.resize(by_hour, hours) * np.diff(ends_h))])
    if sums[-1] > _MOST:
        raise InputError(Problem(f"asks for {sums[-1]:.3g} jobs; up to {_MOST:,}", key="arrivals.per_hour"))
    count = int(random.poisson(sums[-1]))
    at = np.sort(random.random(count)) * sums[-1]
    # the last edge at or below a point: an hour without jobs, where the sum does not rise, has none
    first = np.searchsorted(sums, at, side="right") - 1
    step = np.diff(sums)[first]
    out: Floats = (ends_h[first] + (at - sums[first]) / step * np.diff(ends_h)[first]) * HOUR_S
    return out


def lengths_s(spec: LengthSpec, count: int, random: np.random.Generator) -> Floats:
    """How long jobs run, drawn. [s]"""
    if spec.law == "lognormal":
        assert spec.median_s is not None
        found = spec.median_s * np.exp(spec.sigma * random.standard_normal(count))
    else:
        assert spec.mean_s is not None
        found = spec.mean_s * (random.standard_exponential(count) if spec.law == "exponential" else np.ones(count))
    out: Floats = np.minimum(found, math.inf if spec.most_s is None else spec.most_s)
    return out


def _picked(shares: Sequence[float], count: int, random: np.random.Generator) -> Ints:
    """By job: the number of one of several, drawn by their shares; those beyond together 1 are one more."""
    ends = np.cumsum(shares)
    ends[-1] = 1.0 if abs(ends[-1] - 1) < 1e-6 else ends[-1]
    return np.searchsorted(ends, random.random(count), side="right")


def _mixed(
    spec: JobTraceSpec | JobArrivalsSpec, count: int, names: _Names, random: np.random.Generator
) -> dict[str, Ints]:
    """team, task and priority of jobs, drawn."""

    def drawn(shares: Mapping[Any, float], values: Sequence[int], rest: int) -> Ints:
        if not shares:
            return np.full(count, rest)
        return np.array([*values, rest], np.int64)[_picked(list(shares.values()), count, random)]

    return {
        "team": drawn(spec.teams, [names.teams[one] for one in spec.teams], -1),
        "task": drawn(spec.tasks, [names.tasks[one] for one in spec.tasks], -1),
        "priority": drawn(spec.priorities, list(spec.priorities), 0),
    }


__all__ = ["DAY_S", "HOUR_S", "Submitted", "arrivals_s", "lengths_s", "submitted"]
