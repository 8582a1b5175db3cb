"""What power and energy add to runs.

python benchmarks/energy.py steps [--without]    runs the headline's steps, without energy where asked
python benchmarks/energy.py day                  a service over a day; prints the seconds of its power at 1 s
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import cmsim
from cmsim import energy
from cmsim.serving.execute import _Found

ROOT = Path(__file__).resolve().parent.parent


def steps(*, without: bool) -> None:
    if without:
        energy.power_over_time = _nothing
    cmsim.run(ROOT / "scenarios" / "supernode_against_rack.yaml")


def _nothing(system: Any, ops: Any, links: Any, *, makespan_ps: int, repeat: Any = None) -> energy.Power:  # noqa: ARG001
    """The same watts all along: no run is looked at."""
    watts = np.ones((len(energy.COMPONENTS), 1))
    return energy.Power(np.array([0, makespan_ps]), watts, watts, watts)


def day() -> None:
    spent = []
    over_time = _Found.over_time

    def timed(found: _Found, seed: int) -> Any:
        start = time.process_time()
        curve = over_time(found, seed)
        assert curve is not None, "it is asked for"
        curve.metrics()
        spent.append(time.process_time() - start)
        print(f"{len(curve.power_W):,} steps of a second")
        return curve

    _Found.over_time = timed  # type: ignore[method-assign]
    set_ = {"workload.power.over_time.resolution_s": 1.0}
    cmsim.run(ROOT / "benchmarks" / "scenarios" / "service_day.yaml", set=set_)
    print(f"power over time {sum(spent):.3f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["day"]:
        day()
    else:
        steps(without="--without" in sys.argv)
