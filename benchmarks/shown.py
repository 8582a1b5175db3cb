"""What is made of results for people: a report, a figure and a trace.

    python benchmarks/shown.py {report,timeline,perfetto}

report    `cmsim report` of five folders of results; prints its time, and exits with 1 where the page is over 5 MB
timeline  the figure of a run of 100,000 ops    perfetto  the trace of one of 500,000, a million events

Making what is shown is not counted. Long runs are a decode step of 1,595 ops, over and over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import cmsim
from cmsim.results import Result

MOST_MB = 5.0
STEP = Path(__file__).resolve().parent / "scenarios" / "decode_10k.yaml"


def long(ops: int) -> cmsim.Results:
    """A run of so many ops, with the ops frame alone."""
    run = cmsim.run(STEP, set={"sweep": {}}, record="full")
    one = run.results[0]
    assert isinstance(one, Result)
    frame, length_ps = one.columns["ops"], round(one.metric("makespan_s") * 1e12)
    times = -(-ops // len(frame["op"]))
    columns = {name: np.tile(column, times) for name, column in frame.items()}
    for name in ("start_ps", "end_ps"):
        columns[name] = columns[name] + np.repeat(np.arange(times) * length_ps, len(frame["op"]))
    metrics = {**one.metrics, "makespan_s": one.metric("makespan_s") * times}
    return replace(run, outcomes=(replace(one, columns={**one.columns, "ops": columns}, metrics=metrics),))


def report(folder: Path) -> None:
    names = []
    for batch in (8, 16, 32, 64, 96):
        names.append(str(folder / f"batch{batch}"))
        cmsim.run(STEP, set={"sweep": {}, "workload.batch_per_accelerator": batch}, record="full", out=names[-1])
    begin_s, page = time.perf_counter(), folder / "report.html"
    subprocess.run([sys.executable, "-m", "cmsim", "report", *names, "-o", str(page)], check=True, capture_output=True)
    took_s, size_MB = time.perf_counter() - begin_s, page.stat().st_size / 1e6
    print(f"report: {took_s:.2f} s, {size_MB:.2f} MB")
    if size_MB > MOST_MB:
        sys.exit(f"the page is over {MOST_MB:g} MB")


def timeline(folder: Path) -> None:
    results = long(100_000)
    begin_s = time.perf_counter()
    from cmsim.plots import save, timeline

    save(timeline.draw(results), folder / "timeline.png")
    print(f"timeline: {time.perf_counter() - begin_s:.2f} s")


def perfetto(folder: Path) -> None:
    from cmsim.export import write_perfetto

    results = long(500_000)
    begin_s = time.perf_counter()
    path = write_perfetto(results, folder / "run.pftrace")
    print(f"perfetto: {time.perf_counter() - begin_s:.2f} s, {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description="A report, a figure and a trace.")
    parser.add_argument("what", choices=("report", "timeline", "perfetto"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"report": report, "timeline": timeline, "perfetto": perfetto}[asked.what](Path(folder))


if __name__ == "__main__":
    main()
