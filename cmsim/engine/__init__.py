"""Programs on a system: folded, priced, played on SimPy, recorded."""

from __future__ import annotations

from cmsim.engine.calls import Call
from cmsim.engine.fold import Folding, fold, members
from cmsim.engine.memory import check_memory, memory_B
from cmsim.engine.plan import Options, Perturbation, Plan, plan
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
