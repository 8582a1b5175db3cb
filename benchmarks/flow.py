"""Collectives played message by message: whole-process seconds and peak memory.

python benchmarks/flow.py [CASE ...]       run each case in a process of its own, print what it took and its target
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cmsim.flow import FlowResult, Software, all_to_all_v, collective_time
from cmsim.hardware import System, load_system

ROOT = Path(__file__).resolve().parent.parent

#: what a case may take: seconds and MB of the whole process, where a target is set
TARGETS: dict[str, tuple[float | None, float | None]] = {
    "all_to_all_384": (0.9, 150),
    "all_to_all_1024": (2.0, 300),
    "all_reduce_384": (0.9, None),
    "ring_384": (0.7, None),
    "faults_384": (5.0, None),
    "skewed_320": (3.0, None),
    "hashed_384": (None, None),
    "pairwise_384": (None, None),
}


def clos(accelerators: int) -> System:
    """The multi-plane fabric with one rank per package; larger ones have more nodes under the same second tier."""
    larger = {"accelerators": accelerators} if accelerators > 384 else {}
    return load_system("cloudmatrix384", rank="package", accelerators=accelerators, set=larger)


def play(case: str) -> FlowResult:
    """One case."""
    library = Software()
    size_B = 1e9
    if case == "skewed_320":
        import numpy as np

        matrix = np.random.default_rng(0).gamma(0.5, 1e6, (320, 320))
        return all_to_all_v(clos(384), matrix, library=library)
    if case == "all_reduce_384":
        return collective_time(clos(384), "all_reduce", algorithm="two_shot", size_B=size_B, library=library)
    if case == "ring_384":
        return collective_time(clos(384), "all_reduce", algorithm="ring", size_B=size_B, library=library)
    if case == "pairwise_384":
        return collective_time(clos(384), "all_to_all", algorithm="pairwise", size_B=size_B, library=library)
    faults = ("accelerator/3/plane/2", "module/7/1/3", "module/8/1/3", "module/20/5/2")
    return collective_time(
        clos(int(case.rpartition("_")[2])),
        "all_to_all",
        algorithm="direct",
        size_B=size_B,
        library=library,
        faults=faults if case == "faults_384" else (),
        routing="hashed" if case == "hashed_384" else "sprayed",
    )


def measure(case: str) -> tuple[float, float, str]:
    """Seconds and peak MB of a process that plays a case and nothing else, and what it says."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--one", case], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read().strip()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{case} failed")
    return wall_s, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6, said


def main() -> None:
    parser = argparse.ArgumentParser(description="Collectives played message by message: seconds, peak memory.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(TARGETS)}; default all")
    parser.add_argument("--runs", type=int, default=3, help="processes for each case; the median counts")
    parser.add_argument("--one", metavar="CASE", help="play one case in this process")
    asked = parser.parse_args()
    if asked.one:
        got = play(asked.one)
        print(f"{got.time_s * 1e6:.1f} us, {got.ratio:.3f} times the bound")
        return
    for case in asked.cases or TARGETS:
        if case not in TARGETS:
            parser.error(f"no case '{case}'; there are {', '.join(TARGETS)}")
        runs = [measure(case) for _ in range(asked.runs)]
        wall_s, peak_MB = statistics.median(run[0] for run in runs), max(run[1] for run in runs)
        most_s, most_MB = TARGETS[case]
        target = ", ".join(f"{most:g} {unit}" for most, unit in ((most_s, "s"), (most_MB, "MB")) if most is not None)
        missed = (most_s is not None and wall_s > most_s) or (most_MB is not None and peak_MB > most_MB)
        verdict = f"target {target}: {'MISSED' if missed else 'met'}" if target else "no target"
        print(f"{case:16} {wall_s:6.2f} s {peak_MB:6.0f} MB   {verdict:32} {runs[0][2]}")


if __name__ == "__main__":
    main()
