"""What no software could beat: a bound of the question where its least work is known, of the ops as they stand else.

Source: Williams, Waterman and Patterson, Commun. ACM 52(4), 65-76, 2009, doi:10.1145/1498765.1498785; bytes of
collectives as in cmsim.collectives.wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.engine.plan import Plan, on_vector, peak_FLOPps, rates
from cmsim.engine.timeline import Timeline
from cmsim.units import PS_PER_S
from cmsim.workload.loops import times
from cmsim.workload.ops import COMPUTE, RECV, SEND, Least


def run_bound(plan: Plan, timeline: Timeline, *, beside_s: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The largest of a few times that no run can be shorter than, and its share of the makespan.

    Of a workload whose least work is known (`cmsim.workload.ops.Least`), over all its ranks together, so that every
    plan of one question on one machine has the same bound:

    compute    FLOPs over the peaks of their formats
    HBM        bytes over memory bandwidth at line rate
    port       bytes that ranks which share the work must exchange, over one rank's port and NIC

    Of a collective, and of a trace, whose plan is given, for the rank class with most:

    compute    FLOPs over peak, of the matrix or the vector engine or of one stream, whichever is longest. An op
               of a trace that was recorded without FLOPs counts as long as it took.
    HBM        bytes over memory bandwidth at line rate
    port, NIC, bisection   bytes that communication must move, over each level it crosses

    beside_s: other bounds of the same run by name, for the largest to be taken [s]

    Returns ``name``, ``time_s`` and ``fraction`` of the makespan. Assumes peak rates and perfect overlap.
    """
    least = plan.programs.least
    times_s = _of_ops(plan) if least is None else _of_question(plan, least)
    for key, time_s in (beside_s or {}).items():
        times_s[key] = max(times_s.get(key, 0.0), time_s)
    name = max(times_s, key=lambda key: times_s[key])
    makespan_s = timeline.makespan_ps / PS_PER_S
    return {"name": name, "time_s": times_s[name], "fraction": times_s[name] / makespan_s if makespan_s else 0.0}


def memory_drawn(plan: Plan, timeline: Timeline) -> float:
    """What the kernels of the rank class with most move, over what its memory could in the time of the run. [1]"""
    if plan.programs.least is None or not timeline.makespan_ps:
        return 0.0
    ops = plan.programs.ops
    moved_B = np.where(ops.kind == COMPUTE, ops.bytes_B, 0.0) * times(plan.programs)
    most_s = (
        max(float(moved_B[plan.rows_of(i)].sum()) * min(float(plan.factor[i]), 1.0) for i in range(plan.classes))
        / plan.system.rank_memory_Bps
    )
    return most_s * PS_PER_S / timeline.makespan_ps


def _of_question(plan: Plan, least: Least) -> dict[str, float]:
    factor = np.ones(max(least.ranks, plan.programs.ranks))
    factor[: plan.programs.ranks] = plan.factor[plan.folding.rank_class]
    # a rank made faster on purpose has a peak to match
    speed = 1.0 / np.minimum(factor, 1.0)
    at_once, one = float(speed.sum()), float(speed.max())
    peak = rates(plan.system).peak_FLOPps
    flops_s = sum(flops / peak[precision] for precision, flops in least.flops.items())
    memory_s = least.bytes_B / plan.system.rank_memory_Bps
    levels = plan.fabric
    way_Bps = levels.port_Bps + (levels.nic_Bps if least.ranks > levels.ranks_per_domain else 0.0)
    # either ranks exchange something, or one of them does everything
    exchanged_s = min(least.exchange_B / way_Bps, max(flops_s, memory_s) / one)
    return {"compute": flops_s / at_once, "HBM": memory_s / at_once, "port": exchanged_s}


def _of_ops(plan: Plan) -> dict[str, float]:
    ops = plan.programs.ops
    peak = peak_FLOPps(plan.programs.ops, plan.system)
    flops_s = np.divide(ops.flops, peak, out=np.zeros(len(ops)), where=peak > 0)
    memory_s = np.where(ops.kind == COMPUTE, ops.bytes_B / plan.system.rank_memory_Bps, 0.0)
    vector = on_vector(plan.programs.ops)
    unknown = without_work(plan)
    recorded = ~np.isnan(ops.recorded_s)
    # the number -1, of what is no call, finds the zeros of the last row
    levels_s = np.array([*(call.bound for call in plan.calls), (0.0, 0.0, 0.0)])
    best = dict.fromkeys(("compute", "HBM", "port", "NIC", "bisection"), 0.0)
    for rank_class in range(plan.classes):
        rows = plan.rows_of(rank_class)
        hold_s = plan.hold_ps[rank_class] / PS_PER_S
        # a rank made faster on purpose has a peak to match; a recorded time beats a peak it contradicts
        limit_s = np.where(recorded[rows], hold_s, np.inf)
        factor = min(float(plan.factor[rank_class]), 1.0)
        busy_s = np.minimum(flops_s[rows] * factor, limit_s)
        streams_s = np.bincount(ops.stream[rows], np.where(unknown[rows], hold_s, busy_s))
        engines_s = np.bincount(vector[rows], busy_s)
        best["compute"] = max(best["compute"], float(streams_s.max(initial=0)), float(engines_s.max(initial=0)))
        best["HBM"] = max(best["HBM"], float(np.minimum(memory_s[rows] * factor, limit_s).sum()))
        call, kind = plan.call[rank_class], ops.kind[rows]
        for name, moves_s in zip(("port", "NIC", "bisection"), levels_s[call].T, strict=True):
            # links are full duplex: what is sent and what is received pass at once
            for other in (RECV, SEND):
                best[name] = max(best[name], float(moves_s[kind != other].sum()))
    return best


def without_work(plan: Plan) -> NDArray[np.bool_]:
    """Ops of a trace of which only the time is known, shape (rows,)."""
    ops = plan.programs.ops
    out: NDArray[np.bool_] = (ops.kind == COMPUTE) & ~np.isnan(ops.recorded_s) & (ops.flops == 0) & (ops.bytes_B == 0)
    return out
