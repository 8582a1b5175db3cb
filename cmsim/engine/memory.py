"""Whether a workload fits the memory of its ranks."""

from __future__ import annotations

import numpy as np

from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError
from cmsim.hardware import System
from cmsim.units import GB
from cmsim.workload.ops import Programs

#: parts of a budget that its message names
_NAMED = 4


def memory_B(programs: Programs) -> Floats:
    """Memory one rank of each program needs, shape (programs,). [B]"""
    total = np.zeros(len(programs.program_ptr) - 1)
    for part in programs.footprint_B.values():
        total = total + part
    return total


def fullest_B(programs: Programs) -> dict[str, float]:
    """Memory by what for, of a rank of the program that needs most; empty where no program says. [B]"""
    need = memory_B(programs)
    if not programs.footprint_B or not len(need):
        return {}
    worst = int(np.argmax(need))
    return {key: float(value[worst]) for key, value in programs.footprint_B.items() if value[worst]}


def _largest(parts_B: dict[str, float]) -> dict[str, float]:
    """As many parts as a sentence bears, the rest as one. [B]"""
    if len(parts_B) <= _NAMED + 1:
        return parts_B
    named = sorted(parts_B, key=lambda part: -parts_B[part])[:_NAMED]
    rest = sum(value for part, value in parts_B.items() if part not in named)
    return {**{part: parts_B[part] for part in named}, "others": rest}


def check_memory(programs: Programs, system: System) -> None:
    """Raises InfeasibleError, with the budget, where a rank's weights, states, activations and cache exceed memory."""
    need = memory_B(programs)
    if not len(need) or need.max() <= system.rank_memory_B:
        return
    parts_B = fullest_B(programs)
    parts = ", ".join(f"{key} {value / GB:.1f}" for key, value in _largest(parts_B).items())
    raise InfeasibleError(
        f"the model does not fit: a rank needs {need.max() / GB:.1f} GB ({parts}); a {system.spec.rank} of "
        f"{system.name} has {system.rank_memory_B / GB:.1f} GB. Spread it over more ranks, or make batch or "
        "precision smaller.",
        budget={
            "what": "memory",
            "of": system.spec.rank,
            "needed_B": float(need.max()),
            "available_B": float(system.rank_memory_B),
            "parts_B": parts_B,
        },
    )
