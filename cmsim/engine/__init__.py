"""Programs on a system: folded, priced, played on SimPy, recorded."""

from __future__ import annotations

from cmsim.engine.bound import memory_drawn, run_bound
from cmsim.engine.calls import Call
from cmsim.engine.fold import Folding, fold, members
from cmsim.engine.impact import Impact, Saturated, impact
from cmsim.engine.many import Line, fit, lined_up, plans
from cmsim.engine.memory import check_memory, fullest_B, memory_B
from cmsim.engine.perturb import Jitter, Perturbation
from cmsim.engine.plan import Fault, Options, Plan, hold_s, plan, plan_together
from cmsim.engine.play import least_ps, play, play_within
from cmsim.engine.session import Recorder, Session
from cmsim.engine.steady import play_loops
from cmsim.engine.timeline import Timeline
from cmsim.engine.unrolled import whole, whole_columns

__all__ = [
    "Call",
    "Fault",
    "Folding",
    "Impact",
    "Jitter",
    "Line",
    "Options",
    "Perturbation",
    "Plan",
    "Recorder",
    "Saturated",
    "Session",
    "Timeline",
    "check_memory",
    "fit",
    "fold",
    "fullest_B",
    "hold_s",
    "impact",
    "least_ps",
    "lined_up",
    "members",
    "memory_B",
    "memory_drawn",
    "plan",
    "plan_together",
    "plans",
    "play",
    "play_loops",
    "play_within",
    "run_bound",
    "whole",
    "whole_columns",
]
