"""A kind of workload from another package, executed by itself: customers in line for a machine (M/M/1).

It has no ops and no power. What it says on this page is all that cmsim knows of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from cmsim.errors import InfeasibleError
from cmsim.hardware import System
from cmsim.kinds import PER, Executed, Facts, Frame, Itself, Kind, Metric
from cmsim.kinds.parts import WorkloadSpec
from cmsim.scenario import Run
from cmsim.units import to_ps


class LineSpec(WorkloadSpec):
    """Customers in line, served one by one."""

    kind: Literal["line"]
    arrivals_per_s: PositiveFloat = Field(description="customers that come, at random")
    served_per_s: PositiveFloat = Field(description="customers that one accelerator serves")
    customers: PositiveInt = Field(default=1000, description="of a run")


@dataclass(frozen=True)
class LineFacts(Facts):
    """served_per_s: by all accelerators"""

    served_per_s: float


def execute(
    run: Run, system: System, *, base: Path | None, progress: Callable[[float], None] | None = None
) -> Executed:
    spec = run.spec
    assert isinstance(spec, LineSpec)
    served_per_s = spec.served_per_s * system.packages
    if spec.arrivals_per_s >= served_per_s:
        raise InfeasibleError(f"{spec.arrivals_per_s:g} come in a second, {served_per_s:g} can be served")
    draw = np.random.default_rng(run.seed)
    comes = np.cumsum(draw.exponential(1 / spec.arrivals_per_s, spec.customers))
    work = draw.exponential(1 / served_per_s, spec.customers)
    done = np.cumsum(work)
    ends = done + np.maximum.accumulate(comes - (done - work))
    served = np.maximum(ends - work, comes)
    return Executed(
        metrics={
            "wait_s": float((served - comes).mean()),
            "customers_per_s": spec.customers / float(ends[-1]),
            "busy_fraction": float(work.sum() / ends[-1]),
            "makespan_s": float(ends[-1]),
        },
        frames={
            "customers": {
                "comes_ps": to_ps(comes).astype(np.int64),
                "served_ps": to_ps(served).astype(np.int64),
                "leaves_ps": to_ps(ends).astype(np.int64),
            }
        },
        facts=LineFacts(served_per_s),
        ranks=1,
        notes=("customers come at random",),
    )


KIND = Kind(
    name="line",
    spec=LineSpec,
    execution=Itself("cmsim_line:execute"),
    facts=LineFacts,
    metrics=(
        Metric("wait_s", "s", "less", "until a customer is served, mean"),
        Metric("customers_per_s", "customers/s", "more", "customers over time"),
        Metric("busy_fraction", "1", "", "share of the time in which somebody is served"),
        Metric("makespan_s", "s", "less", "until the last has left"),
    ),
    frames=(
        Frame(
            "customers",
            {"comes_ps": "into the line [ps]", "served_ps": "begin [ps]", "leaves_ps": "end [ps]"},
            "one row per customer, in the order in which they come",
        ),
    ),
    decisive=("wait_s",),
    table=("wait_s", "customers_per_s", PER, "busy_fraction"),
    headline=("wait_s", "customers_per_s", "makespan_s"),
    rates=("customers_per_s",),
    latency=("wait_s", "a customer"),
    figure=("customers_per_s", "wait_s"),
)
