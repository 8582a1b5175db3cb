"""What a run says: metrics and frames, all from rows of attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim import cost, energy
from cmsim.arrays import Floats, Ints
from cmsim.kinds.jobs import JobsSpec
from cmsim.reliability.events import to_us
from cmsim.scheduling.asked import Submitted
from cmsim.scheduling.clockwork import Lived
from cmsim.scheduling.paces import Housed
from cmsim.scheduling.standing import Replicas
from cmsim.scheduling.state import END, ENDS, FAILURE, PREEMPTION, HallState

US = 1e6
#: stretches of the frame over time
_STRETCHES = 1000
#: jobs shorter than this do not count as slowed by a wait (Feitelson: bounded slowdown) [s]
_BOUND_S = 10.0


@dataclass(frozen=True)
class Attempts:
    """Rows of attempts, in the order of their ends. Times in us."""

    job: Ints
    machine: Ints
    domains: Ints
    packages: Ints
    start: Ints
    end: Ints
    kept: Ints
    slow: Floats
    why: Ints
    since: Ints
    watts: Floats

    @property
    def busy(self) -> Ints:
        """Accelerators times time. [us]"""
        return self.packages * (self.end - self.start)


@dataclass(frozen=True)
class Measures:
    """All that metrics and frames are made of.

    given, refused  jobs as submitted, and why one can never run; rows  those that were played
    """

    spec: JobsSpec
    houses: Sequence[Housed]
    given: Submitted
    refused: NDArray[Any]
    rows: Ints
    state: HallState
    lived: Lived
    services: Sequence[Replicas]

    @cached_property
    def attempts(self) -> Attempts:
        rows = self.state.history.attempts
        columns = [np.array(column) for column in zip(*rows, strict=True)] if rows else [np.zeros(0, np.int64)] * 10
        watts = np.array([pace.watts for pace in self.state.history.paces]).reshape(-1, 3)
        return Attempts(*(*columns, watts))

    @cached_property
    def of_jobs(self) -> NDArray[np.bool_]:
        """Which attempts are of jobs, not of services."""
        return self.attempts.job < self.count

    @property
    def count(self) -> int:
        return self.state.count

    @cached_property
    def again(self) -> tuple[Ints, Ints]:
        """Of each attempt: time in which it only started again [us], and how the one before it ended, -1 if none."""
        one = self.attempts
        order = np.lexsort((one.start, one.job))
        first = np.append(True, one.job[order][1:] != one.job[order][:-1])[: len(order)]
        before = np.where(first, -1, np.roll(one.why[order], 1))
        why = np.empty_like(before)
        why[order] = before
        restart = int(to_us(self.spec.restart_s))
        again = np.where((why >= 0) & self.of_jobs, np.minimum(one.end - one.start, restart), 0)
        return again, why

    def per_job(self, weights: NDArray[Any], some: NDArray[np.bool_] | None = None) -> Floats:
        """Sums over attempts of each job that was played."""
        taken = self.of_jobs if some is None else self.of_jobs & some
        return summed(self.attempts.job[taken], weights[taken], self.count)

    @cached_property
    def end(self) -> Ints:
        """Of each job that was played, when it ended; -1 if it did not. [us]"""
        out = np.full(self.count, -1)
        done = self.of_jobs & (self.attempts.why == END)
        out[self.attempts.job[done]] = self.attempts.end[done]
        return out

    @cached_property
    def joules(self) -> Floats:
        """Of each attempt, above machines that wait: low, middle, high. [J]"""
        out: Floats = self.attempts.busy[:, None] * self.attempts.watts / US
        return out

    @cached_property
    def packages(self) -> Ints:
        """Accelerators of each machine."""
        return np.array([house.system.packages for house in self.houses])

    @property
    def seconds(self) -> float:
        """Of the clock, at least a microsecond. [s]"""
        return max(self.lived.until, 1) / US

    def waits_s(self) -> Floats:
        """Of each job, in the queue. [s]"""
        one = self.attempts
        return self.per_job(one.start - one.since) / US

    def by_machine(self, weights: NDArray[Any], some: NDArray[np.bool_] | None = None) -> Floats:
        taken = slice(None) if some is None else some
        return summed(self.attempts.machine[taken], weights[taken], len(self.houses))

    def down(self) -> Floats:
        """By machine: accelerators that were away, times time. [us]"""
        out = np.zeros(len(self.houses))
        for machine, at, many in self.state.history.away:
            out[machine] += many * (self.lived.until - at)
        return out

    def queued(self) -> tuple[Ints, Ints]:
        """When the queue gets longer or shorter, and by how many. [us]"""
        one, mine = self.attempts, self.of_jobs
        waits = self.state.lineup.jobs()
        begin = np.concatenate([one.since[mine], np.array(self.state.since, np.int64)[waits]])
        return np.concatenate([begin, one.start[mine]]), np.repeat([1, -1], [len(begin), int(mine.sum())])


def metrics(of: Measures) -> dict[str, float | str]:
    """All that the run has."""
    return {**_of_jobs(of), **_shares(of), **_watts(of), **_money(of)}


def _of_jobs(of: Measures) -> dict[str, float | str]:
    done = of.end >= 0
    refused = len(of.given) - len(of.rows)
    out: dict[str, float | str] = {
        "jobs_done": float(done.sum()),
        "jobs_refused": float(refused),
        "jobs_left": float(of.count - done.sum()),
    }
    if done.any():
        jct = (of.end - of.state.book.jobs.submit_us)[done] / US
        for name, values in (("jct_s", jct), ("wait_s", of.waits_s()[done]), ("slowdown", slowdowns(of)[done])):
            out[f"{name}_mean"] = float(values.mean())
            out |= {f"{name}_p{q}": float(np.percentile(values, q)) for q in (50, 90, 99)}
    return out


def slowdowns(of: Measures) -> Floats:
    """Of each job: from submission to end over its time alone; at least 1, and 10 s are the least time. [1]"""
    jct = (of.end - of.state.book.jobs.submit_us) / US
    return np.maximum(jct / np.maximum(of.state.book.alone_us / US, _BOUND_S), 1.0)


def _shares(of: Measures) -> dict[str, float | str]:
    one, mine = of.attempts, of.of_jobs
    until = max(of.lived.until, 1)
    all_ = float(of.packages.sum()) * until
    again, before = of.again
    wall = one.end - one.start
    unkept = np.where(mine, np.maximum(wall - again - one.kept, 0), 0)
    lost = (one.packages * (wall - one.kept))[mine].sum()

    def by(why: int) -> float:
        undone = (one.packages * unkept)[one.why == why].sum()
        return float(undone + (one.packages * again)[before == why].sum()) / all_

    busy = one.busy
    of_jobs = max(float(busy[mine].sum()), 1.0)
    at, step = of.queued()
    free = sum(of.lived.free)
    out: dict[str, float | str] = {
        "utilization": float(busy.sum()) / all_,
        "useful_fraction": float((one.packages * one.kept)[mine].sum()) / all_,
        "lost_fraction": float(lost) / all_,
        "lost_failures_fraction": by(FAILURE),
        "lost_preemption_fraction": by(PREEMPTION),
        "service_fraction": float(busy[~mine].sum()) / all_,
        "down_fraction": float(of.down().sum()) / all_,
        "fragmentation_fraction": sum(of.lived.scattered) / free if free else 0.0,
        "across_fraction": float(busy[mine & (one.domains > 1)].sum()) / of_jobs,
        "slow_fraction": float((one.packages * one.kept * one.slow)[mine].sum()) / of_jobs,
        "preemptions": float((mine & (one.why == PREEMPTION)).sum()),
        "interruptions": float((mine & (one.why == FAILURE)).sum()),
        "queued_mean": float((step * (of.lived.until - at)).sum()) / until,
        "makespan_s": of.seconds,
    }
    asked = sum(service.asked_us(of.lived.until) for service in of.services)
    if asked:
        out["service_met_fraction"] = float(busy[~mine].sum()) / asked
    return out


def _watts(of: Measures) -> dict[str, float | str]:
    idle_W = np.array([house.idle_W for house in of.houses]).sum(axis=0)
    low, middle, high = (idle_W * of.seconds + of.joules.sum(axis=0)).tolist()
    one = of.attempts
    watts = one.packages * one.watts[:, 1]
    _, level = levels(np.concatenate([one.start, one.end]), np.concatenate([watts, -watts]))
    out: dict[str, float | str] = {
        "energy_J": middle,
        "energy_J_low": low,
        "energy_J_high": high,
        "power_avg_W": middle / of.seconds,
        "power_avg_W_low": low / of.seconds,
        "power_avg_W_high": high / of.seconds,
        "power_peak_W": float(idle_W[1] + level.max(initial=0.0)),
    }
    grams = [house.system.spec.facility.carbon_g_per_kWh for house in of.houses]
    if all(one is not None for one in grams):
        own = of_machines_J(of)
        out["carbon_g"] = sum(energy.carbon_g(float(J), g) for J, g in zip(own, grams, strict=True) if g is not None)
    return out


def of_machines_J(of: Measures) -> Floats:
    """Energy of each machine. [J]"""
    idle_J = np.array([house.idle_W[1] for house in of.houses]) * of.seconds
    out: Floats = idle_J + of.by_machine(of.joules[:, 1])
    return out


def rents(of: Measures) -> Floats:
    """Of each machine, NaN where its system file has none. [USD/h]"""
    return np.array([cost.rent(house.system)[0].get("cost_per_hour_USD", np.nan) for house in of.houses])


def _money(of: Measures) -> dict[str, float | str]:
    per_hour = float(rents(of).sum())
    if np.isnan(per_hour):
        return {}
    useful_h = float((of.attempts.packages * of.attempts.kept)[of.of_jobs].sum()) / US / 3600
    out: dict[str, float | str] = {"cost_per_hour_USD": per_hour, "cost_USD": per_hour * of.seconds / 3600}
    if useful_h:
        out["cost_per_useful_hour_USD"] = per_hour * of.seconds / 3600 / useful_h
    return out


# over time


def summed(of: Ints, values: NDArray[Any], many: int) -> Floats:
    """Sums of values by the number that each belongs to."""
    out = np.zeros(many)
    out += np.bincount(of, values.astype(np.float64), many)
    return out


def levels(at: Ints, step: NDArray[Any]) -> tuple[Ints, Floats]:
    """A sum over time: when it changes, and what it is from then on."""
    times, where = np.unique(at, return_inverse=True)
    return times, np.cumsum(np.bincount(where.reshape(-1), step, len(times)))


def means(edges: Floats, at: Ints, step: NDArray[Any]) -> Floats:
    """Mean of such a sum over each stretch between edges."""
    times, level = levels(at, step)
    if not len(times):
        return np.zeros(len(edges) - 1)
    sums = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(times))])
    last = np.searchsorted(times, edges, side="right") - 1
    inside = np.maximum(last, 0)
    area = np.where(last < 0, 0.0, sums[inside] + level[inside] * (edges - times[inside]))
    # sums of many numbers leave a little where there is nothing
    out: Floats = np.maximum(np.diff(area) / np.diff(edges), 0.0)
    return out


def frames(of: Measures) -> dict[str, Mapping[str, NDArray[Any]]]:
    """All of them, as the kind declares them."""
    return {
        "jobs": _jobs(of),
        "attempts": _attempts(of),
        "cluster": _cluster(of),
        "teams": _teams(of),
        "machines": _machines(of),
    }


def _text(values: Sequence[str], codes: Ints) -> NDArray[Any]:
    """Words by their numbers, -1 for none."""
    return np.array([*values, ""], dtype=object)[codes]


def _jobs(of: Measures) -> Mapping[str, NDArray[Any]]:
    one, given = of.attempts, of.given
    state = of.refused.copy()
    state[of.rows] = np.where(of.end >= 0, "done", "left")
    first, last = np.full(of.count, -1), np.full(of.count, -1)
    mine = np.flatnonzero(of.of_jobs)
    order = mine[np.argsort(one.start[mine], kind="stable")]
    last[one.job[order]] = order
    first[one.job[order[::-1]]] = order[::-1]
    wall = one.end - one.start

    def whole(values: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros(len(given))
        out[of.rows] = values
        return out

    def at(column: Ints, row: Ints) -> Ints:
        return column[row] if len(column) else row

    def counts(why: int) -> NDArray[Any]:
        return whole(of.per_job(one.why == why)).astype(np.int64)

    ran = first >= 0
    machine = np.full(len(given), -1)
    machine[of.rows] = np.where(ran, at(one.machine, last), -1)
    return {
        "job": np.arange(len(given)),
        "team": _text(list(of.spec.teams), given.team),
        "task": _text(list(of.spec.tasks), given.task),
        "priority": given.priority,
        "accelerators": given.packages,
        "state": state,
        "machine": _text([house.name for house in of.houses], machine),
        "domains": whole(np.where(ran, at(one.domains, last), 0)).astype(np.int64),
        "submit_s": given.submit_us / US,
        "start_s": whole(np.where(ran, at(one.start, first) / US, 0.0)),
        "end_s": whole(np.where(of.end >= 0, of.end / US, 0.0)),
        "wait_s": whole(of.waits_s()),
        "ran_s": whole(of.per_job(wall) / US),
        "lost_s": whole(of.per_job(wall - one.kept) / US),
        "alone_s": whole(of.state.book.alone_us / US),
        "starts": whole(np.array(of.state.starts, np.int64)).astype(np.int64),
        "preemptions": counts(PREEMPTION),
        "interruptions": counts(FAILURE),
        "energy_J": whole(of.per_job(of.joules[:, 1])),
    }


def _attempts(of: Measures) -> Mapping[str, NDArray[Any]]:
    one, mine = of.attempts, of.of_jobs
    order = np.lexsort((one.job, one.start))
    names = [service.name for service, _ in of.state.replica]
    service = np.where(mine, len(names), one.job - of.count)
    out: dict[str, NDArray[Any]] = {
        "job": np.where(mine, _numbers(of, one.job), 0),
        "service": _text(names, np.where(service == len(names), -1, service)),
        "machine": _text([house.name for house in of.houses], one.machine),
        "domains": one.domains,
        "accelerators": one.packages,
        "start_s": one.start / US,
        "end_s": one.end / US,
        "kept_s": one.kept / US,
        "ended_by": _text(ENDS, one.why),
    }
    return {name: column[order] for name, column in out.items()}


def _numbers(of: Measures, jobs: Ints) -> Ints:
    """Numbers of jobs as submitted."""
    if not of.count:
        return np.zeros(len(jobs), np.int64)
    out: Ints = of.rows[np.minimum(jobs, of.count - 1)]
    return out


def _cluster(of: Measures) -> Mapping[str, NDArray[Any]]:
    one = of.attempts
    edges = np.linspace(0, max(of.lived.until, 1), min(_STRETCHES, max(of.lived.until, 1)) + 1)
    at = np.concatenate([one.start, one.end])
    machine = np.tile(one.machine, 2)
    many = np.concatenate([one.packages, -one.packages])
    watts = np.concatenate([one.packages * one.watts[:, 1], -one.packages * one.watts[:, 1]])
    away = np.array(of.state.history.away, np.int64).reshape(-1, 3)
    parts = []
    for number, house in enumerate(of.houses):
        here, gone = machine == number, away[:, 0] == number
        parts.append(
            {
                "busy": means(edges, at[here], many[here]),
                "down": means(edges, away[gone, 1], away[gone, 2]),
                "queued": np.zeros(len(edges) - 1),
                "power_W": house.idle_W[1] + means(edges, at[here], watts[here]),
            }
        )
    whole = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
    whole["queued"] = means(edges, *of.queued())
    names = ["all", *(house.name for house in of.houses)]
    rows = len(edges) - 1
    return {
        "machine": np.repeat(np.array(names, dtype=object), rows),
        "start_s": np.tile(edges[:-1] / US, len(names)),
        "end_s": np.tile(edges[1:] / US, len(names)),
        **{name: np.concatenate([part[name] for part in (whole, *parts)]) for name in whole},
    }


def _teams(of: Measures) -> Mapping[str, NDArray[Any]]:
    one, jobs = of.attempts, of.state.book.jobs
    names = [*of.spec.teams, ""]
    # nobody is the last
    team = jobs.team % len(names)
    done = of.end >= 0
    jct = (of.end - jobs.submit_us) / US

    def sums(values: NDArray[Any]) -> Floats:
        return summed(team, values, len(names))

    def mean(values: NDArray[Any]) -> Floats:
        many = sums(done)
        none = np.zeros(len(names))
        out: Floats = np.divide(sums(np.where(done, values, 0.0)), many, out=none, where=many > 0)
        return out

    submitted = np.bincount(of.given.team % len(names), minlength=len(names))
    frame: dict[str, NDArray[Any]] = {
        "team": np.array(names, dtype=object),
        "jobs": submitted,
        "done": sums(done).astype(np.int64),
        "wait_s": mean(of.waits_s()),
        "jct_s": mean(jct),
        "slowdown": mean(slowdowns(of)),
        "busy_s": sums(of.per_job(one.busy) / US),
        "useful_s": sums(of.per_job(one.packages * one.kept) / US),
        "energy_J": sums(of.per_job(of.joules[:, 1])),
        "preemptions": sums(of.per_job(one.why == PREEMPTION)).astype(np.int64),
    }
    shown = submitted > 0
    return {name: column[shown] for name, column in frame.items()}


def _machines(of: Measures) -> Mapping[str, NDArray[Any]]:
    one, mine = of.attempts, of.of_jobs
    until = max(of.lived.until, 1)
    free = np.array(of.lived.free, np.float64)
    scattered = np.array(of.lived.scattered, np.float64)
    ended = np.bincount(one.machine[mine & (one.why == END)], minlength=len(of.houses))
    return {
        "machine": np.array([house.name for house in of.houses], dtype=object),
        "accelerators": of.packages,
        "jobs": ended,
        "utilization": of.by_machine(one.busy) / (of.packages * until),
        "fragmentation_fraction": np.divide(scattered, free, out=np.zeros(len(free)), where=free > 0),
        "down_fraction": of.down() / (of.packages * until),
        "busy_s": of.by_machine(one.busy) / US,
        "useful_s": of.by_machine(one.packages * one.kept, mine) / US,
        "energy_J": of.by_machine(of.joules[:, 1]),
        "idle_J": np.array([house.idle_W[1] for house in of.houses]) * of.seconds,
        "cost_USD": np.nan_to_num(rents(of)) * of.seconds / 3600,
    }


__all__ = ["Attempts", "Measures", "frames", "levels", "means", "metrics", "of_machines_J", "slowdowns"]
