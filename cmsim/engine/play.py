"""Playing a plan by itself: a session with one launch, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import simpy

from cmsim import collector
from cmsim.engine.plan import Plan
from cmsim.engine.session import Session
from cmsim.engine.timeline import Timeline
from cmsim.network import NETWORKS
from cmsim.units import CLOCK_PS, on_clock
from cmsim.workload.loops import times

#: SimPy events between two reports of progress
_PROGRESS_EVERY = 4096


def play(plan: Plan, network: str | None = None, *, progress: Callable[[float], None] | None = None) -> Timeline:
    """Run a plan, rows as they are laid out. Raises FailedError where ranks wait for each other for ever.

    network: ideal or fluid, default what was planned for; links can be played as links only
    progress: called now and then with the share of ops that have ended, 0 to 1
    """
    timeline = _played(plan, network or plan.network, progress, None)
    assert timeline is not None, "without a limit a plan is played to its end"
    return timeline


def play_within(
    plan: Plan, limit_ps: int | None, *, progress: Callable[[float], None] | None = None
) -> Timeline | None:
    """As `play`, but None for a plan that takes longer than ``limit_ps``, as soon as that is known.

    A stream takes at least its local work, which is known before anything is played. [ps]
    """
    if limit_ps is not None and least_ps(plan) > limit_ps:
        return None
    return _played(plan, plan.network, progress, limit_ps)


def least_ps(plan: Plan) -> int:
    """The longest local work of any stream: no plan ends before it. [ps]"""
    most, comes = 0, times(plan.programs)
    for rank_class in range(plan.classes):
        rows = plan.rows_of(rank_class)
        stream = plan.programs.ops.stream[rows]
        if len(stream):
            most = max(most, int(np.bincount(stream, weights=plan.hold_ps[rank_class] * comes[rows]).max()))
    return most


def _played(
    plan: Plan, network: str, progress: Callable[[float], None] | None, limit_ps: int | None
) -> Timeline | None:
    """Play to the end; None where that lies beyond the limit."""
    env = simpy.Environment(initial_time=0)
    session = Session(env, NETWORKS[network](env, (), plan.resources.changes_ps))
    with collector.paused():  # events come and go by the million: looking for cycles costs up to a fifth of a run
        ended = session.launch(plan)
        _drain(env, session, progress, limit_ps)
    if ended.triggered:
        return cast(Timeline, ended.value)
    session.check()
    return None  # the rest lies beyond the limit


def _drain(
    env: simpy.Environment, session: Session, progress: Callable[[float], None] | None, limit_ps: int | None
) -> None:
    """Run until nothing is left to happen, or past the limit."""
    if limit_ps is not None:
        env.run(until=min(limit_ps + 1, CLOCK_PS))
        return
    while (at := env.peek()) <= CLOCK_PS:
        for _ in range(_PROGRESS_EVERY):
            env.step()
            if not env.peek() <= CLOCK_PS:
                break
        if progress is not None:
            progress(session.share)
    if at != simpy.core.Infinity:
        on_clock(at)
