"""A core whose rate may change while it works: work to be done instead of a time to be held.

Streams of one rank each have its core to themselves, as in holds: the rate applies to all work on it alike, and nothing
is shared.
"""

from __future__ import annotations

import math

import simpy

from cmsim.network.fire import fire


class _Work:
    """Work in progress; ``version`` outdates timers set for earlier rates."""

    __slots__ = ("event", "left_ps", "since_ps", "version")

    def __init__(self, work_ps: int, event: simpy.Event):
        self.left_ps: float = work_ps
        self.event = event
        self.since_ps = 0
        self.version = 0


class Core:
    """Work, and the rate at which it advances: 1 is the rate that its times are for, at 0 it stands still."""

    def __init__(self, env: simpy.Environment, rate: float = 1.0):
        self._env = env
        self._rate = rate
        self._on: dict[_Work, None] = {}

    def run(self, work_ps: int, delay_ps: int = 0) -> simpy.Event:
        """Fires when the work is done; it begins ``delay_ps`` from now."""
        work = _Work(work_ps, self._env.event())
        if delay_ps:
            self._env.timeout(delay_ps).callbacks.append(lambda _: self._start(work))
        else:
            self._start(work)
        return work.event

    @property
    def still(self) -> bool:
        """There is work, and it does not advance."""
        return bool(self._on) and not self._rate

    def set_rate(self, rate: float) -> None:
        """From now on; what runs keeps what is done. [1]"""
        now = self._now()
        for work in self._on:
            passed_ps = now - work.since_ps
            # at full rate whole numbers stay whole
            work.left_ps = max(work.left_ps - (passed_ps if self._rate == 1.0 else passed_ps * self._rate), 0)
            work.since_ps = now
        self._rate = rate
        for work in self._on:
            self._set(work)

    def _start(self, work: _Work) -> None:
        work.since_ps = self._now()
        self._on[work] = None
        self._set(work)

    def _set(self, work: _Work) -> None:
        work.version += 1
        version = work.version
        if work.left_ps and not self._rate:
            return
        left_ps = math.ceil(work.left_ps if self._rate == 1.0 or not work.left_ps else work.left_ps / self._rate)
        self._env.timeout(left_ps).callbacks.append(lambda _: self._finish(work, version))

    def _finish(self, work: _Work, version: int) -> None:
        if version == work.version:
            del self._on[work]
            fire(work.event)

    def _now(self) -> int:
        return self._env.now  # type: ignore[return-value]  # whole picoseconds: every delay is a whole number
