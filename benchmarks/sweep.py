"""A sweep into a store of results: ten thousand decode points over all cores, written as they come, read as one frame.

    python benchmarks/sweep.py [--jobs N]

Prints how long the runs took, and the reading; exits with 1 where a point gave no result.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from cmsim import api
from cmsim.results import Store
from cmsim.scenario import load_scenario

SCENARIO = Path(__file__).resolve().parent / "scenarios" / "decode_10k.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description="Ten thousand decode points into a store.")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default: as `cmsim run` has it")
    asked = parser.parse_args()
    begin_s = time.perf_counter()
    scenario = load_scenario(SCENARIO)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        points = sum(1 for _ in api.outcomes(scenario, store=store, jobs=asked.jobs))
        ran_s = time.perf_counter()
        frame = store.metrics()
        read_s = time.perf_counter()
        parts = len(list((store.folder / "runs").iterdir()))
    print(f"{points} points in {parts} parts: {ran_s - begin_s:.1f} s; read: {read_s - ran_s:.2f} s")
    if points != len(scenario.runs) or (frame["outcome"] != "result").any():
        sys.exit(f"{(frame['outcome'] != 'result').sum()} of {points} points gave no result")


if __name__ == "__main__":
    main()
