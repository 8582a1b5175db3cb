"""Tables of steps: how long they take to make, what they err by, and what a step from them costs.

    python benchmarks/steps.py decode|prefill SYSTEM [ROWS]    makes one of the headline's tables, and states its error;
                                                               then of so many points more, drawn by chance and played
    python benchmarks/steps.py dense [ROWS]                    the same of a dense model
    python benchmarks/steps.py columns|one [ROWS]              prints seconds of all, in columns or one at a time
    python benchmarks/steps.py kept                            prints the seconds of a table that is on disk

Nothing is kept between runs of this page.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cmsim import api, steps
from cmsim.arrays import Floats
from cmsim.scenario import Run, load_scenario
from cmsim.steps import make
from cmsim.steps.plays import Plays

ROOT = Path(__file__).resolve().parent.parent
DENSE = {
    "systems": [{"system": "cloudmatrix384", "accelerators": 8}],
    "workload": {
        "kind": "decode",
        "model": "qwen3-32b",
        "batch_per_accelerator": 8,
        "context_tokens": 4096,
        "parallel": {"tp": 4},
    },
}


def of_headline(kind: str, system: str, rows: int = 0) -> None:
    scenario = load_scenario(ROOT / "scenarios" / "supernode_against_rack.yaml")
    run = next(run for run in scenario.runs if run.workload == kind and run.system.label == system)
    machines = api.Machines(scenario.base)
    start = time.process_time()
    table = steps.table(run, machines=machines, folder=None)
    stated(f"{kind}, {system}", table, time.process_time() - start)
    drawn(table, run, machines, rows)


def stated(what: str, table: steps.Table, took_s: float) -> None:
    print(f"{what}: {table.played} points in {took_s:.1f} s of cpu, {errors(table.errors)}")
    for note in table.notes:
        print(note)


def errors(found: Floats) -> str:
    spread = f"median {np.median(found):.2%}, p90 {np.quantile(found, 0.9):.2%}, max {found.max():.2%}"
    return f"error {spread} of {len(found)} others"


def drawn(table: steps.Table, run: Run, machines: api.Machines, rows: int) -> None:
    """Compares points that nothing was cut for, evenly by the logs of the axes."""
    rng = np.random.default_rng(1)
    plans = [Plays(one, table.axes, machines, api.evaluate) for one in api.candidates(run, machines)]
    found: list[float] = []
    while len(found) < rows:
        point = tuple(round(axis.low * (axis.high / axis.low) ** rng.random()) for axis in table.axes)
        fit = [row for plays in plans if (row := plays(point))[-1] <= plays.room_B]
        if fit:
            seconds, joules, *_ = min(fit, key=lambda row: float(row[0]))
            told = table.at(*point)
            found.append(max(abs(told.seconds / seconds - 1), abs(told.joules / joules - 1)))
    if found:
        print(f"drawn by chance: {errors(np.array(found))}")


def of_dense(rows: int = 0) -> None:
    start = time.process_time()
    table = dense(None)
    stated("dense decode", table, time.process_time() - start)
    drawn(table, load_scenario(DENSE).runs[0], api.Machines(), rows)


def dense(folder: str | None) -> steps.Table:
    run, machines = load_scenario(DENSE).runs[0], api.Machines()
    return steps.table(run, steps.of_inference(run, machines, things=(1, 64)), machines=machines, folder=folder)


def columns(rows: int) -> None:
    table = dense(None)
    rng = np.random.default_rng(1)
    asked = {"sequences": rng.integers(1, 65, rows), "context_tokens": rng.uniform(1024, 8192, rows)}
    start = time.perf_counter()
    table.step_s(asked)
    took_s = time.perf_counter() - start
    print(f"{rows} rows: {took_s:.3f} s, {took_s / rows * 1e6:.3f} us a step")


def one(rows: int) -> None:
    table = dense(None)
    rng = np.random.default_rng(1)
    asked = list(zip(rng.integers(1, 65, rows).tolist(), rng.uniform(1024, 8192, rows).tolist(), strict=True))
    at = table.at
    at(*asked[0])
    start = time.perf_counter()
    for held, tokens in asked:
        at(held, tokens)
    took_s = time.perf_counter() - start
    print(f"{rows} steps: {took_s:.3f} s, {took_s / rows * 1e6:.3f} us a step")


def kept() -> None:
    with tempfile.TemporaryDirectory() as folder:
        dense(folder)
        make.forget()
        start = time.perf_counter()
        dense(folder)
        print(f"kept: {time.perf_counter() - start:.3f} s")


def main() -> None:
    what, *more = sys.argv[1:]
    if what == "dense":
        of_dense(*map(int, more))
    elif what == "kept":
        kept()
    elif what in ("columns", "one"):
        rows = int(more[0]) if more else {"columns": 1_000_000, "one": 100_000}[what]
        (columns if what == "columns" else one)(rows)
    else:
        of_headline(what, more[0], *map(int, more[1:]))


if __name__ == "__main__":
    main()
