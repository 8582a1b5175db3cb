"""Failures of many draws of one job, in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import InputError, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

US_PER_S = 1_000_000
#: room for the clocks of all draws on one axis, one behind the other
_AXIS_US = 1 << 62


def to_us(seconds: Any) -> Any:
    """Whole microseconds of seconds."""
    return np.rint(np.asarray(seconds, np.float64) * US_PER_S).astype(np.int64)


@dataclass(frozen=True)
class Failures:
    """Failures, sorted by draw and time.

    runs, window_us   draws, and how long each is looked at [us]
    run, start_us     whose draw it is, when it happens    ready_us  from when the job may start again, hosts apart
    until_us          when what was taken is there again, or what was slow is whole
    cause             number of its cause    breaks  whether the job stops
    hosts             that are away from start to until    slows  by what the time of a step grows meanwhile, 1: none
    """

    runs: int
    window_us: int
    run: Ints
    start_us: Ints
    ready_us: Ints
    until_us: Ints
    cause: Ints
    breaks: Flags
    hosts: Ints
    slows: Floats

    @property
    def span_us(self) -> int:
        """Distance of two draws on one axis: none reaches into the next. Raises InputError where there is no room."""
        longest = max(self.window_us, *(int(one.max(initial=0)) for one in (self.ready_us, self.until_us)))
        span = 2 * longest + 2
        if span * self.runs >= _AXIS_US:
            most = _AXIS_US // span
            raise InputError(Problem(f"got {self.runs}; of a window this long up to {most}", key="runs"))
        return span

    def taken(self, rows: Any) -> Failures:
        """Some rows, in their order."""
        columns = ("run", "start_us", "ready_us", "until_us", "cause", "breaks", "hosts", "slows")
        return Failures(self.runs, self.window_us, *(getattr(self, name)[rows] for name in columns))
