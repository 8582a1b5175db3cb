"""Runs each benchmark as processes of their own and says how long they took, against targets.

    python benchmarks/run.py [--runs N] [--only NAME] [--out FILE]

A process is what a user waits for: interpreter, imports and all. Each benchmark runs once to warm up, then several
times. Where a target is a ratio, both commands run in turn, so that a busy minute weighs on both. Prints a table and
writes docs/performance.md, which ends with NOTES.md from this folder.

Only the standard library is imported here: on Linux a process starts with the memory of the one that made it on its
record, so this one stays small.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "performance.md"
LIBRARIES = ("numpy", "scipy", "simpy", "networkx", "pydantic", "pandas", "pyarrow")
MB = 1e6


@dataclass(frozen=True)
class Benchmark:
    """A command and what it may cost.

    command   after the interpreter    target_s, target_MB  median wall time, largest peak memory
    target_ratio  median wall time over that of ``beside``
    prints    a pattern in the output whose first group is the time that ``target_s`` is about [s]; default: all of it
    """

    name: str
    what: str
    command: Sequence[str]
    target_s: float | None = None
    target_MB: float | None = None
    target_ratio: float | None = None
    beside: Sequence[str] = ()
    prints: str = ""


CMSIM_RUN = ("-m", "cmsim", "run")
BENCHMARKS = (
    Benchmark(
        "start",
        "one all-reduce on one box, over the imports that cmsim cannot do without",
        (*CMSIM_RUN, "benchmarks/scenarios/one_collective.yaml"),
        target_ratio=2.5,
        beside=("-c", "import numpy, simpy, networkx, pydantic, yaml, typer"),
    ),
    Benchmark(
        "headline",
        "`cmsim run scenarios/headline.yaml --quiet`: two systems, four workloads, 16 runs",
        (*CMSIM_RUN, "scenarios/headline.yaml", "--quiet"),
        target_s=4.0,
        target_MB=400,
    ),
    Benchmark(
        "training_16k",
        "`cmsim run scenarios/llama405b_16k.yaml`: a training step on 16,384 ranks",
        (*CMSIM_RUN, "scenarios/llama405b_16k.yaml"),
        target_s=3.0,
        target_MB=500,
    ),
    Benchmark(
        "training_1k",
        "`cmsim run benchmarks/scenarios/llama405b_1024.yaml`: the same on 1,024 ranks",
        (*CMSIM_RUN, "benchmarks/scenarios/llama405b_1024.yaml"),
        target_s=1.5,
    ),
    Benchmark(
        "pipeline_1024",
        "`cmsim run benchmarks/scenarios/pipeline_1024.yaml --quiet`: a pipeline of 16 with 1,024 micro-batches",
        (*CMSIM_RUN, "benchmarks/scenarios/pipeline_1024.yaml", "--quiet"),
        target_s=1.5,
        target_MB=200,
    ),
    Benchmark(
        "collectives",
        "`python benchmarks/collectives.py`: every algorithm on a million collectives, the best of each row; "
        "the target is about the pricing alone",
        ("benchmarks/collectives.py",),
        target_s=2.0,
        prints=r"rows: ([\d.]+) s",
    ),
    *(
        Benchmark(
            name,
            f"`cmsim run benchmarks/scenarios/{name}.yaml --quiet`: {what}",
            (*CMSIM_RUN, f"benchmarks/scenarios/{name}.yaml", "--quiet"),
            target_s=target_s,
            target_MB=target_MB,
        )
        for name, what, target_s, target_MB in (
            ("flow_all_to_all_384", "message by message, 384 ranks", 0.9, 150),
            ("flow_all_to_all_1024", "the same on 1,024 ranks", 2.0, 300),
            ("flow_all_reduce_384", "direct all-reduce on 384 ranks", 0.9, None),
            ("flow_ring_384", "ring all-reduce on 384 ranks, 766 rounds", 0.7, None),
            ("flow_faults_384", "all-to-all with one plane and three modules down, and the healthy run", 5.0, None),
            ("flow_skewed_320", "dispatch of drawn tokens, 320 ranks, no two blocks alike", 3.0, None),
        )
    ),
    Benchmark(
        "onnx_100k",
        "`python benchmarks/models.py`: an ONNX model of 100,000 nodes, read and priced; making it is not counted",
        ("benchmarks/models.py",),
        target_s=5.0,
        prints=r"together ([\d.]+) s",
    ),
    *(
        Benchmark(
            f"trace_{name}",
            f"`python benchmarks/traces.py {name}`: {what}",
            ("benchmarks/traces.py", name),
            target_s=target_s,
            target_MB=target_MB,
            prints=prints,
        )
        for name, what, target_s, target_MB, prints in (
            (
                "chakra",
                "what `trace info` tells of 400,000 Chakra nodes; time of 200,000",
                1.0,
                None,
                r"0 nodes: ([\d.]+)",
            ),
            ("kineto", "the same of 1 GB of Kineto's JSON; time of 90 MB", 1.0, 2000, r"90 MB: ([\d.]+)"),
            (
                "replay",
                "8 unlike ranks, a million ops, from columns to the end; time of 300,000",
                1.0,
                None,
                r"0 ops: ([\d.]+)",
            ),
            ("copies", "8 equal ranks over one; the target is the ratio", 1.3, None, r"take ([\d.]+)"),
        )
    ),
    *(
        Benchmark(
            f"predict_{kind}",
            f"`cmsim predict {kind}` on a million rows, Parquet in and out",
            ("benchmarks/predict.py", kind),
            target_s=3.0,
            prints=r"rows: ([\d.]+) s",
        )
        for kind in ("collective", "deepep", "moe_alltoall")
    ),
    *(
        Benchmark(
            f"steps_{name.replace(' ', '_')}",
            f"`python benchmarks/steps.py {name}`: {what}",
            ("benchmarks/steps.py", *name.split()),
            target_s=target_s,
            prints=prints,
        )
        for name, what, target_s, prints in (
            ("columns", "a million steps from a table, 2 us each", 2.0, r"rows: ([\d.]+) s"),
            ("one", "100,000 steps one at a time, 20 us each", 2.0, r"steps: ([\d.]+) s"),
            ("kept", "a table that is on disk", 0.1, r"kept: ([\d.]+) s"),
            *(
                (f"{kind} {system}", "the headline's table, made anew; the error is printed", None, r"in ([\d.]+) s")
                for kind in ("decode", "prefill")
                for system in ("cloudmatrix384", "gb200_nvl72")
            ),
        )
    ),
)


@dataclass(frozen=True)
class Measured:
    """One process. [s], [s], [MB]; ``printed_s`` is the time it reported itself."""

    wall_s: float
    cpu_s: float
    peak_MB: float
    printed_s: float


@dataclass(frozen=True)
class Line:
    """A benchmark with its runs, and those of the command beside it."""

    benchmark: Benchmark
    runs: list[Measured]
    beside: list[Measured]

    @property
    def ratio(self) -> float | None:
        if not self.beside:
            return None
        return median(run.wall_s for run in self.runs) / median(run.wall_s for run in self.beside)

    @property
    def timed_s(self) -> float:
        """What ``target_s`` is about."""
        return median(run.printed_s for run in self.runs)

    @property
    def peak_MB(self) -> float:
        return max(run.peak_MB for run in self.runs)

    def missed(self) -> list[str]:
        """What is over its target."""
        b = self.benchmark
        return [
            what
            for what, got, most in (
                ("ratio", self.ratio, b.target_ratio),
                ("time", self.timed_s, b.target_s),
                ("memory", self.peak_MB, b.target_MB),
            )
            if got is not None and most is not None and got > most
        ]


#: a user's modules are compiled once, by the run to warm up, whatever the shell that measures says
_ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def measure(command: Sequence[str], *, prints: str = "") -> Measured:
    """Run a command to its end. Exits with its errors where it fails."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=said, stderr=errors, env=_ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        errors.seek(0)
        text = said.read().decode()
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed ({process.returncode}):\n{errors.read().decode()}")
    found = re.search(prints, text) if prints else None
    if prints and not found:
        sys.exit(f"{' '.join(command)} printed nothing like {prints!r}:\n{text}")
    peak_B = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cpu_s = usage.ru_utime + usage.ru_stime
    return Measured(wall_s, cpu_s, peak_B / MB, float(found[1]) if found else wall_s)


def run(benchmark: Benchmark, runs: int) -> Line:
    """Warm up, then run in turn with the command beside it, if there is one."""
    ran: list[Measured] = []
    beside: list[Measured] = []
    for number in range(runs + 1):
        one = measure(benchmark.command, prints=benchmark.prints)
        other = measure(benchmark.beside) if benchmark.beside else None
        if number:
            ran.append(one)
            beside += [other] if other else []
    return Line(benchmark, ran, beside)


def rows(lines: Sequence[Line]) -> list[list[str]]:
    """The table: a head, then a row per benchmark (and one for the command beside it)."""
    out = [["benchmark", "wall [s]: min", "median", "max", "cpu [s]", "peak memory [MB]", "target", "met"]]
    for line in lines:
        b = line.benchmark
        targets = []
        if b.target_s is not None:
            targets.append(f"{b.target_s:g} s" + (f"; is {line.timed_s:.2f}" if b.prints else ""))
        if b.target_MB is not None:
            targets.append(f"{b.target_MB:g} MB")
        if line.ratio is not None and b.target_ratio is not None:
            targets.append(f"{b.target_ratio:g} times the imports; is {line.ratio:.2f}")
        missed = line.missed()
        out.append([b.name, *_figures(line.runs), ", ".join(targets), f"no: {', '.join(missed)}" if missed else "yes"])
        if line.beside:
            out.append([f"{b.name}: imports alone", *_figures(line.beside), "", ""])
    return out


def _figures(runs: Sequence[Measured]) -> list[str]:
    wall = [run.wall_s for run in runs]
    cpu_s, peak_MB = median(run.cpu_s for run in runs), max(run.peak_MB for run in runs)
    return [*(f"{value:.2f}" for value in (min(wall), median(wall), max(wall), cpu_s)), f"{peak_MB:.0f}"]


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Columns set apart by spaces."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def machine(load: float) -> list[tuple[str, str]]:
    """What the figures were taken on. ``load``: average of the minute before."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return [
        ("processor", f"{_processor()}, {cores} cores"),
        ("memory", f"{pages / 1e9:.0f} GB"),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("libraries", versions),
        ("cmsim", f"{importlib.metadata.version('cmsim')}, {_commit()}"),
        ("load before", f"{load:.1f} processes"),
        ("day", datetime.datetime.now(datetime.UTC).date().isoformat()),
    ]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    if found:
        return found[1].strip()
    asked = subprocess.run(
        ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
    ).stdout.strip() if sys.platform == "darwin" else ""  # fmt: skip
    return asked or platform.processor() or platform.machine()


def _commit() -> str:
    """The commit that is checked out, and whether the code differs from it."""
    try:
        asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        code = ["git", "status", "--porcelain", "--", "cmsim", "topologies", "workloads", "scenarios", "benchmarks"]
        changed = subprocess.run(code, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return "commit unknown"
    return f"commit {asked.stdout.strip()}" + (" with changes" if changed else "") if asked.stdout else "no commit"


def page(lines: Sequence[Line], runs: int, facts: Sequence[tuple[str, str]]) -> str:
    """docs/performance.md."""
    head, *body = rows(lines)
    table = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    notes = HERE / "NOTES.md"
    tried = notes.read_text(encoding="utf-8").strip() if notes.exists() else ""
    parts = [
        "<!-- Made by `make bench`; changes here are lost. -->",
        "# Performance",
        "How long cmsim takes and how much memory, as a user meets it: each figure is of a whole process, from the "
        f"interpreter's start to its end. One run to warm up, then {runs}. Of wall time the least, median and most "
        "stand here, of cpu time (all threads) the median, of memory the most of any run. Targets are about medians.",
        "\n".join(table),
        "\n".join(f"* **{line.benchmark.name}**: {line.benchmark.what}" for line in lines),
        "## The machine",
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]),
    ]
    if tried:
        parts += ["## What was tried", tried]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures cmsim as a user meets it: whole processes.")
    parser.add_argument("--runs", type=int, default=7, metavar="N", help="runs after the one to warm up; default 7")
    parser.add_argument("--only", choices=[b.name for b in BENCHMARKS], help="one benchmark; the page is left as it is")
    parser.add_argument("--out", type=Path, help="page to write; default docs/performance.md")
    asked = parser.parse_args()
    if asked.runs < 1:
        parser.error("--runs must be at least 1")
    if not hasattr(os, "wait4"):
        sys.exit("benchmarks need a system that counts the memory of a process (Linux, macOS)")
    load = os.getloadavg()[0]
    lines = []
    for benchmark in BENCHMARKS:
        if asked.only in (None, benchmark.name):
            print(f"{benchmark.name} ...", file=sys.stderr)
            lines.append(run(benchmark, asked.runs))
    print(aligned(rows(lines)))
    facts = machine(load)
    for name, value in facts:
        print(f"{name}: {value}")
    out = asked.out or (None if asked.only else PAGE)
    if out is not None:
        out.write_text(page(lines, asked.runs, facts), encoding="utf-8", newline="\n")
        print(f"wrote {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
