"""A recorded trace on another machine: what becomes of recorded times, and the replay beside the recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim import results
from cmsim.execution.means import Means
from cmsim.hardware import System, load_accelerator
from cmsim.kinds.trace import TraceFacts, TraceSpec

#: classes of ops that meet others
_TALKS = ("collective", "send_recv")


class ReplayMeans(Means):
    of_ops = True

    def options(self, spec: TraceSpec, system: System) -> dict[str, Any]:
        if spec.compute == "recorded" or spec.recorded_on is None:
            return {"recorded": spec.compute}
        return {"recorded": spec.compute, "recorded_scale": _roofline_ratio(spec.recorded_on, system)}

    def recorded(
        self,
        spec: TraceSpec,
        facts: TraceFacts,
        ops: Mapping[str, NDArray[np.generic]],
        *,
        makespan_s: float,
        exposed_comm_s: float,
    ) -> dict[str, dict[str, float]]:
        replayed = _as_replayed(spec, facts)
        of_all = results.beside_recorded(replayed, ops, makespan_s=makespan_s, exposed_comm_s=exposed_comm_s)
        return {name: {key: time_s / facts.steps for key, time_s in row.items()} for name, row in of_all.items()}


def _as_replayed(spec: TraceSpec, facts: TraceFacts) -> TraceFacts:
    """Recorded times by class as the replay has them: communication that takes its recorded time is work there."""
    if spec.collectives == "modelled":
        return facts
    of_class = facts.recorded_class_s
    of_device = sum(of_class.get(name, 0.0) for name in ("compute", *_TALKS))
    kept = {name: time_s for name, time_s in of_class.items() if name not in _TALKS}
    return replace(facts, recorded_class_s=kept | {"compute": of_device})


def _roofline_ratio(recorded_on: str, system: System) -> tuple[float, float]:
    """Time on ``system`` over time on the recorded accelerator: of matrix kernels, by 16-bit peaks; of the others, by
    memory bandwidth. One recorded accelerator becomes one rank."""
    there = load_accelerator(recorded_on)
    # the first of the two that a part has: of 16 bits they are alike
    its, ours = (
        next(name for name in ("bf16", "fp16") if name in part.peak_TFLOPps) for part in (there, system.accelerator)
    )
    matrix = there.peak_TFLOPps[its] * 1e12 / system.rank_peak_FLOPps(ours)
    return matrix, there.memory_GBps * 1e9 / system.rank_memory_Bps
