"""Programs on a system: folded, priced, played on SimPy, recorded."""

from __future__ import annotations

from cmsim.engine.fold import Folding, fold, members
from cmsim.engine.plan import Call, Options, Perturbation, Plan, check_memory, memory_B, plan
from cmsim.engine.play import Timeline, play

__all__ = [
    "Call",
    "Folding",
    "Options",
    "Perturbation",
    "Plan",
    "Timeline",
    "check_memory",
    "fold",
    "members",
    "memory_B",
    "plan",
    "play",
]
