"""What follows from failures whatever the job does: when it may run at all, and how fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmsim.reliability.events import Failures, Floats, Ints


@dataclass(frozen=True)
class Crew:
    """Hosts of a job: those it needs, those that stand by, and how small it may become.

    replica_hosts   of the least part that it gives up, 0 where it cannot shrink    least  share of it that still runs
    """

    hosts: int
    spares: int = 0
    replica_hosts: float = 0.0
    least: float = 1.0

    def speed(self, away: Ints) -> Floats:
        """Speed with so many hosts away, of all hosts' speed; 0: it waits. Replicas that are hit are given up whole."""
        missing = np.maximum(away - self.spares, 0)
        if not self.replica_hosts:
            return np.where(missing == 0, 1.0, 0.0)
        replicas = self.hosts / self.replica_hosts
        left = np.maximum(replicas - np.ceil(missing / self.replica_hosts), 0.0)
        return np.where(left >= self.least * replicas - 1e-9, left / replicas, 0.0)


@dataclass(frozen=True)
class Speeds:
    """Stretches of the axis on which the job does not have its whole speed, in order, none over another.

    start, end   on the axis of all draws [us]    speed   of the whole; 0: it waits for hosts
    """

    start: Ints
    end: Ints
    speed: Floats


def speeds(events: Failures, crew: Crew) -> Speeds:
    """Of hosts that are missing and of what is slow, together: speeds multiply."""
    span = events.span_us
    base = events.run * span
    begin, end = base + events.start_us, base + events.until_us
    where, away = _level(begin, end, events.hosts)
    changes = [(where, np.log(np.maximum(crew.speed(away), _WAITS)))]
    slow = events.slows > 1
    for factor in np.unique(events.slows[slow]).tolist():
        # several that are slow at once are as one: the worst port sets the pace
        mine = events.slows == factor
        where, many = _level(begin[mine], end[mine], np.ones(int(mine.sum()), np.int64))
        changes.append((where, np.where(many > 0, -np.log(factor), 0.0)))
    at = np.concatenate([where for where, _ in changes])
    step = np.concatenate([np.diff(level, prepend=0.0) for _, level in changes])
    order = np.argsort(at, kind="stable")
    at, level = at[order], np.cumsum(step[order])
    last = np.append(at[1:] != at[:-1], True) if len(at) else np.zeros(0, np.bool_)
    at, level = at[last], level[last]
    speed = np.where(level < _STANDS, 0.0, np.where(np.abs(level) < _WHOLE, 1.0, np.exp(level)))
    ends = np.append(at[1:], at[-1:])
    part = (speed < 1) & (ends > at)
    return Speeds(at[part], ends[part], speed[part])


#: the speed of a job that waits, so small that no slow one comes near; logarithms by which it is known, and a whole one
_WAITS = 1e-100
_STANDS = -200.0
_WHOLE = 1e-9


def _level(begin: Ints, end: Ints, amount: Ints) -> tuple[Ints, Ints]:
    """Sum over time of amounts that are there from begin to end: times of change, and the level from each on."""
    some = amount > 0
    at = np.concatenate([begin[some], end[some]])
    order = np.argsort(at, kind="stable")
    at = at[order]
    level = np.cumsum(np.concatenate([amount[some], -amount[some]])[order])
    last = np.append(at[1:] != at[:-1], True) if len(at) else np.zeros(0, np.bool_)
    return at[last], level[last]


def waits_until(speeds_: Speeds, at: Ints) -> Ints:
    """On the axis: until when a job that stops then waits for hosts; the time itself where it need not. [us]"""
    stands = speeds_.speed == 0
    start, end = speeds_.start[stands], speeds_.end[stands]
    if not len(start):
        return at
    # stretches without hosts that follow each other are one
    joined = np.append(False, start[1:] == end[:-1])
    first = np.flatnonzero(~joined)
    start, end = start[first], end[np.append(first[1:] - 1, len(end) - 1)]
    found = np.searchsorted(start, at, side="right") - 1
    inside = (found >= 0) & (at < end[found])
    return np.where(inside, end[found], at)
