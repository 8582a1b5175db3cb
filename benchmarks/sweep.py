"""A sweep into a folder, as `cmsim sweep` makes it, and the folder read as one frame.

    python benchmarks/sweep.py [SCENARIO] [--jobs N]

SCENARIO is a file in benchmarks/scenarios without its ending; default decode_10k. Prints how long the sweep took, and
the reading; exits with 1 where a point gave no result.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from cmsim import sweep

SCENARIOS = Path(__file__).resolve().parent / "scenarios"


def main() -> None:
    parser = argparse.ArgumentParser(description="Points of a scenario into a folder.")
    parser.add_argument("scenario", nargs="?", default="decode_10k", help="of benchmarks/scenarios")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default: as `cmsim sweep` has it")
    asked = parser.parse_args()
    begin_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = sweep.sweep(SCENARIOS / f"{asked.scenario}.yaml", out=Path(folder) / "points", jobs=asked.jobs)
        ran_s = time.perf_counter()
        points = len(found.metrics)
        read_s = time.perf_counter()
    print(f"{points} points: {ran_s - begin_s:.1f} s; read: {read_s - ran_s:.2f} s")
    if found.missing:
        sys.exit(f"{len(found.missing)} of {len(found.outcomes)} points gave no result")


if __name__ == "__main__":
    main()
