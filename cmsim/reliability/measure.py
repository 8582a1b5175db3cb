"""Metrics and frames of all draws of a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.kinds import Metrics
from cmsim.kinds.reliability import ReliabilitySpec
from cmsim.reliability.events import US_PER_S
from cmsim.reliability.job import Outcome, Saving
from cmsim.reliability.saving import SaveTimes
from cmsim.results import Result

_ENDS = (5, 50, 95)
#: causes that are named, and the share from which they are
_NAMED, _SHARE = 5, 0.01


def metrics(found: Outcome, kept: Saving, took: SaveTimes, spec: ReliabilitySpec, step: Result | None) -> Metrics:
    """As the kind declares them; shares are of the clocks of all draws together."""
    clock = float(found.clock.sum())
    goodput = float(found.useful.sum()) / clock
    of_each = found.useful / found.clock
    many = int(found.breaks.sum())
    out: Metrics = {
        "goodput_fraction": goodput,
        **{f"goodput_fraction_p{q}": float(np.quantile(of_each, q / 100)) for q in _ENDS},
        "availability": 1 - float(found.down.sum()) / clock,
        **({"mtbf_s": clock / many / US_PER_S} if many else {}),
        "interruptions": many / found.breaks.size,
        "checkpoint_interval_s": kept.interval_us / US_PER_S,
        "checkpoint_stall_s": took.stall_s,
        "checkpoint_write_s": took.write_s,
        "checkpoint_fraction": float(found.stood.sum()) / clock,
        "lost_fraction": float(found.lost.sum()) / clock,
        "down_fraction": float(found.down.sum()) / clock,
        "slow_fraction": float(found.slow.sum()) / clock,
    }
    if spec.work_days is not None:
        out |= _run_times(found)
    if step is not None:
        out |= _of_step(step, goodput)
    return {**out, "makespan_s": clock / found.clock.size / US_PER_S}


def _run_times(found: Outcome) -> Metrics:
    """Of the runs that end; in percentiles the others are longer than all, and one that falls on them is left out."""
    done = found.end >= 0
    out: Metrics = {"finished_fraction": float(done.mean())}
    if done.any():
        out["run_time_s"] = float(found.end[done].mean()) / US_PER_S
    ordered = np.sort(found.end[done]) / US_PER_S
    for q in _ENDS:
        at = q / 100 * (found.end.size - 1)
        if np.ceil(at) < len(ordered):
            out[f"run_time_s_p{q}"] = float(np.interp(at, np.arange(len(ordered)), ordered))
    return out


def _of_step(step: Result, goodput: float) -> Metrics:
    out: Metrics = {"step_time_s": step.metrics["step_time_s"]}
    if "fault_slowdown" in step.metrics:
        out["fault_slowdown"] = step.metrics["fault_slowdown"]
    for name in ("tokens_per_s", "tokens_per_s_per_accelerator"):
        if name in step.metrics:
            out[name] = float(step.metrics[name]) * goodput
    return out


def breakdown(found: Outcome) -> dict[str, float]:
    """Where the clock of a run goes, mean. [s]"""
    parts = {
        "useful_s": found.useful,
        "slow_s": found.slow,
        "checkpoint_s": found.stood,
        "lost_s": found.lost,
        "down_s": found.down,
    }
    return {name: float(column.sum()) / column.size / US_PER_S for name, column in parts.items()}


def told(found: Outcome, names: Sequence[str]) -> list[str]:
    """What stops the job, in a sentence."""
    whole = int(found.breaks_of.sum())
    if not whole:
        return ["nothing stops the job"]
    order = np.argsort(-found.breaks_of, kind="stable")[:_NAMED].tolist()
    shares = [(names[i], found.breaks_of[i] / whole) for i in order]
    return ["stopped by: " + ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= _SHARE)]


def frames(found: Outcome, names: Sequence[str], parts: Sequence[int]) -> dict[str, dict[str, NDArray[Any]]]:
    """Rows by cause, and by draw."""
    runs = found.clock.size
    whole = max(int(found.breaks_of.sum()), 1)
    return {
        "causes": {
            "cause": np.array(names, dtype=object),
            "parts": np.array(parts, np.int64),
            "failures": found.failures_of / runs,
            "interruptions": found.breaks_of / runs,
            "share": found.breaks_of / whole,
            "down_s": found.down_of / runs / US_PER_S,
            "lost_s": found.lost_of / runs / US_PER_S,
        },
        "runs": {
            "draw": np.arange(runs),
            "clock_s": found.clock / US_PER_S,
            "goodput_fraction": found.useful / found.clock,
            "availability": 1 - found.down / found.clock,
            "interruptions": found.breaks,
            "checkpoint_s": found.stood / US_PER_S,
            "lost_s": found.lost / US_PER_S,
            "down_s": found.down / US_PER_S,
            "slow_s": found.slow / US_PER_S,
            "run_time_s": np.maximum(found.end, 0) / US_PER_S,
        },
    }
