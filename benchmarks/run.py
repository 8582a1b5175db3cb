"""Runs each benchmark as processes of their own and says how long they took, against targets.

    python benchmarks/run.py [--runs N] [--only NAME] [--out FILE] [--pages]

A process is what a user waits for: interpreter, imports and all. Each benchmark runs once to warm up, then several
times. Where a target is a ratio, both commands run in turn, so that a busy minute weighs on both. Prints a table and
writes docs/performance.md, five lines for each group of benchmarks, and the folder beside it: the commands, and what
was tried, from NOTES.md in this folder. ``--pages`` writes that folder alone.

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
    target_ratio  median wall time over that of ``beside``, which is called ``beside_is``
    prints    a pattern in the output whose first group is the time that ``target_s`` is about [s]; default: all of it
    prepare   a command that makes what the benchmark reads, before it; not measured
    """

    name: str
    what: str
    command: Sequence[str]
    target_s: float | None = None
    target_MB: float | None = None
    target_ratio: float | None = None
    beside: Sequence[str] = ()
    beside_is: str = "the imports"
    prints: str = ""
    group: str = "runs"
    prepare: Sequence[str] = ()


#: groups in the order of the page, with what they are about
GROUPS = {
    "runs": (
        "Whole runs",
        "start of the program, scenarios from file to table, collectives priced in columns",
    ),
    "flow": ("Collectives message by message", "`network: flow`: every message on the links that it crosses"),
    "files": ("Models and traces", "what other tools leave, read, counted, priced and replayed"),
    "tables": ("Tables of predictions", "`cmsim predict` on a million rows, Parquet in and out"),
}
CMSIM_RUN = ("-m", "cmsim", "run")
BENCHMARKS = (
    Benchmark(
        "start",
        "one all-reduce on one box, over the imports that cmsim cannot do without",
        (*CMSIM_RUN, "benchmarks/scenarios/one_collective.yaml"),
        target_ratio=1.7,
        beside=("-c", "import numpy, simpy, networkx, pydantic, yaml, typer"),
    ),
    Benchmark("help", "`cmsim --help`", ("-m", "cmsim", "--help"), target_s=0.25),
    Benchmark(
        "headline",
        "`cmsim run scenarios/headline.yaml --quiet`: two systems, two services and four workloads, 20 runs; "
        "the target is older than the services",
        (*CMSIM_RUN, "scenarios/headline.yaml", "--quiet"),
        target_s=1.9,
        target_MB=250,
    ),
    Benchmark(
        "headline_steps",
        "`cmsim run scenarios/supernode_against_rack.yaml --quiet`: the same without services, 16 runs",
        (*CMSIM_RUN, "scenarios/supernode_against_rack.yaml", "--quiet"),
        target_s=1.9,
        target_MB=250,
    ),
    Benchmark(
        "energy",
        "steps of the headline, over the same with power left out",
        ("benchmarks/energy.py", "steps"),
        target_ratio=1.1,
        beside=("benchmarks/energy.py", "steps", "--without"),
        beside_is="without energy",
    ),
    Benchmark(
        "power_day",
        "`python benchmarks/energy.py day`: power of a service over a day at 1 s, beyond the service",
        ("benchmarks/energy.py", "day"),
        target_s=5.0,
        prints=r"power over time ([\d.]+) s",
    ),
    *(
        Benchmark(name, f"`cmsim run {path}`: {what}", (*CMSIM_RUN, path), target_s=target_s, target_MB=target_MB)
        for name, path, what, target_s, target_MB in (
            ("training_64", "benchmarks/scenarios/gpt3_64.yaml", "a step of GPT-3 175B on 64 ranks", 0.7, 120),
            ("training_1k", "benchmarks/scenarios/llama405b_1024.yaml", "one of a 405B model on 1,024", 1.5, None),
            ("training_16k", "scenarios/llama405b_16k.yaml", "the same on 16,384", 1.5, 150),
            (
                "training_16k_interleaved",
                "benchmarks/scenarios/llama405b_16k_interleaved.yaml",
                "the same in 8 virtual stages a rank",
                1.2,
                150,
            ),
            (
                "training_dsv3_2k",
                "benchmarks/scenarios/dsv3_2048_dualpipe.yaml",
                "a step of DeepSeek-V3 on 2,048, DualPipe",
                3.0,
                None,
            ),
            ("training_98k", "benchmarks/scenarios/llama405b_98k.yaml", "on 98,304", 1.2, 250),
            ("training_1m", "benchmarks/scenarios/llama405b_1m.yaml", "on 1,048,576", 6.0, 600),
            ("simai_9216", "scenarios/simai_9216.yaml", "a file of SimAI's for 9,216 GPUs", 0.45, None),
        )
    ),
    Benchmark(
        "pipeline_1024",
        "`cmsim run benchmarks/scenarios/pipeline_1024.yaml --quiet`: a pipeline of 16 with 1,024 micro-batches",
        (*CMSIM_RUN, "benchmarks/scenarios/pipeline_1024.yaml", "--quiet"),
        target_s=1.5,
        target_MB=200,
    ),
    *(
        Benchmark(
            name,
            f"`python benchmarks/sweep.py {name}`: {what}, `record: summary`, into a folder over all cores; memory is "
            "that of the largest process",
            ("benchmarks/sweep.py", name),
            target_s=10.0,
            target_MB=300,
        )
        for name, what in (
            ("collective_10k", "10,000 all-reduces, 2,500 sizes by four algorithms"),
            ("decode_10k", "10,000 decode points, batches by contexts"),
        )
    ),
    Benchmark(
        "decode_500",
        "`python benchmarks/sweep.py decode_500`: 500 decode points of two micro-batches, over all cores; the ratio is "
        "that of two cores to one",
        ("benchmarks/sweep.py", "decode_500"),
        target_s=20.0,
        target_ratio=0.556,
        beside=("benchmarks/sweep.py", "decode_500", "--jobs", "1"),
        beside_is="on one core",
    ),
    *(
        Benchmark(
            name, f"`python benchmarks/shown.py {name}`: {what}", ("benchmarks/shown.py", name), target_s, prints=prints
        )
        for name, what, target_s, prints in (
            ("report", "`cmsim report` of five folders of results, at most 5 MB", 6.0, r"report: ([\d.]+) s"),
            ("timeline", "the figure of a run of 100,000 ops", 3.0, r"timeline: ([\d.]+) s"),
            ("perfetto", "the trace of a run, a million events", 5.0, r"perfetto: ([\d.]+) s"),
        )
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
            ("service_100", "a hundred requests on one server", 1.5, 150),
            ("service_azure", "8,819 requests of a trace, on 384 packages in two pools", 6.0, 300),
            ("service_mooncake", "12,031 requests of a trace, with what prompts share, on the same", 6.0, 400),
            ("service_day", "537,600 requests on 16 replicas", 60.0, 2000),
            ("service_1m", "a million requests on 8 replicas", 60.0, 2000),
            ("service_goodput", "goodput by bisection, 5,000 requests a run", 40.0, 500),
        )
    ),
    Benchmark(
        "service",
        "`cmsim run scenarios/service.yaml --quiet`: two systems, two promises, the highest rate at which each is kept",
        (*CMSIM_RUN, "scenarios/service.yaml", "--quiet"),
        target_MB=500,
    ),
    Benchmark(
        "service_failures",
        "`cmsim run scenarios/failing_service.yaml --quiet`: two systems, three failures under load",
        (*CMSIM_RUN, "scenarios/failing_service.yaml", "--quiet"),
        target_MB=500,
    ),
    Benchmark(
        "failures_90_days",
        "`cmsim run benchmarks/scenarios/failures_90_days.yaml --quiet`: 1,000 draws of 90 days of 16,384 accelerators",
        (*CMSIM_RUN, "benchmarks/scenarios/failures_90_days.yaml", "--quiet"),
        target_s=2.0,
        target_MB=600,
    ),
    Benchmark(
        "jobs_100k",
        "`cmsim run benchmarks/scenarios/jobs_100k.yaml --quiet`: 100,000 jobs on four supernodes, twice what they "
        "can do: a queue of up to 50,000",
        (*CMSIM_RUN, "benchmarks/scenarios/jobs_100k.yaml", "--quiet"),
        target_s=60.0,
        target_MB=1000,
    ),
    Benchmark(
        "draws_10k",
        "`python benchmarks/draws.py`: intervals and probabilities of two machines, 10,000 draws of 104 assumptions",
        ("benchmarks/draws.py",),
        target_s=2.0,
        prints=r"verdict: ([\d.]+) s",
    ),
    Benchmark(
        "gpt3_search",
        "`cmsim search benchmarks/scenarios/gpt3_search.yaml --quiet`: every plan of GPT-3 175B on 512 accelerators, "
        "the best simulated",
        ("-m", "cmsim", "search", "benchmarks/scenarios/gpt3_search.yaml", "--quiet"),
        target_s=20.0,
    ),
    Benchmark(
        "service_search",
        "`cmsim search benchmarks/scenarios/service_search.yaml --quiet`: plans of a service in two pools, 256 served",
        ("-m", "cmsim", "search", "benchmarks/scenarios/service_search.yaml", "--quiet"),
        target_s=600.0,
        target_MB=500,
    ),
    Benchmark(
        "search_price",
        "`python benchmarks/search.py`: the closed form of a step over columns of plans; the target is about 300,000",
        ("benchmarks/search.py",),
        target_s=1.0,
        prints=r"300,000 plans: ([\d.]+) s",
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
            group="flow",
            prepare=prepare,
        )
        for name, what, target_s, target_MB, *prepare in (
            ("flow_all_to_all_384", "message by message, 384 ranks", 0.9, 150),
            ("flow_all_to_all_1024", "the same on 1,024 ranks", 2.0, 300),
            ("flow_all_reduce_384", "direct all-reduce on 384 ranks", 0.9, None),
            ("flow_ring_384", "ring all-reduce on 384 ranks, 766 rounds", 0.7, None),
            (
                "flow_ring_1024",
                "ring all-reduce on 1,024 ranks of an ASTRA-sim network file, 2,046 rounds",
                0.8,
                150,
            ),
            ("flow_faults_384", "all-to-all with one plane and three modules down, and the healthy run", 5.0, None),
            ("flow_skewed_320", "dispatch of drawn tokens, 320 ranks, no two blocks alike", 3.0, None),
            (
                "flow_random_1024",
                "all-to-all of a random matrix, 1,024 ranks, a million unlike messages; drawing it is not counted",
                1.5,
                300,
                "benchmarks/matrix.py",
            ),
        )
    ),
    Benchmark(
        "onnx_100k",
        "`python benchmarks/models.py`: an ONNX model of 100,000 nodes, read and priced; making it is not counted",
        ("benchmarks/models.py",),
        target_s=5.0,
        prints=r"together ([\d.]+) s",
        group="files",
    ),
    *(
        Benchmark(
            f"trace_{name}",
            f"`python benchmarks/traces.py {name}`: {what}",
            ("benchmarks/traces.py", name),
            target_s=target_s,
            target_MB=target_MB,
            prints=prints,
            group="files",
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
            group="tables",
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
    if benchmark.prepare:
        measure(benchmark.prepare)
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
            targets.append(f"{b.target_ratio:g} times {b.beside_is}; is {line.ratio:.2f}")
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


MADE_BY = "<!-- Made by `make bench`; changes here are lost. -->"


def page(lines: Sequence[Line], runs: int, facts: Sequence[tuple[str, str]]) -> str:
    """docs/performance.md."""
    head, *body = rows(lines)
    table = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    parts = [
        MADE_BY,
        "# Performance",
        "How long cmsim takes and how much memory, as a user meets it: each figure is of a whole process, from the "
        f"interpreter's start to its end. One run to warm up, then {runs}. Of wall time the least, median and most "
        "stand here, of cpu time (all threads) the median, of memory the most of any run. Targets are about medians. "
        "[What each benchmark runs](performance/commands.md)",
        "\n".join(table),
    ]
    for group, (title, what) in GROUPS.items():
        some = [line for line in lines if line.benchmark.group == group]
        if some:
            parts += [f"## {title}", "\n".join(f"- **{word}:** {text}" for word, text in _five(group, what, some))]
    parts += ["## The machine", "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)])]
    return "\n\n".join(parts) + "\n"


def _five(group: str, what: str, lines: Sequence[Line]) -> list[tuple[str, str]]:
    """What a group is about, its times, memory and targets, and where to read what was tried."""
    wall_s = {line.benchmark.name: median(run.wall_s for run in line.runs) for line in lines}
    quick, slow = min(wall_s, key=wall_s.__getitem__), max(wall_s, key=wall_s.__getitem__)
    most = max(lines, key=lambda line: line.peak_MB)
    missed = [f"{line.benchmark.name} ({', '.join(line.missed())})" for line in lines if line.missed()]
    targets = f"missed by {', '.join(missed)}" if missed else "all met"
    tried = f"[what gained how much](performance/{group}.md)" if group in notes() else "nothing noted"
    return [
        ("About", f"{what}; {', '.join(f'`{name}`' for name in wall_s)}."),
        ("Time", f"medians from {wall_s[quick]:.2f} s ({quick}) to {wall_s[slow]:.2f} s ({slow})."),
        ("Memory", f"at most {most.peak_MB:.0f} MB ({most.benchmark.name})."),
        ("Targets", f"{targets}, of {len(lines)} benchmarks."),
        ("Tried", f"{tried}."),
    ]


def notes() -> dict[str, tuple[str, str]]:
    """Sections of NOTES.md, by the group that their heading names: title and text. Exits for a group there is not."""
    text = (HERE / "NOTES.md").read_text(encoding="utf-8")
    found: dict[str, tuple[str, str]] = {}
    for heading, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.M | re.S):
        group, _, title = heading.partition(": ")
        if group not in GROUPS or not title:
            sys.exit(f"NOTES.md: a heading is '## group: title' with a group of {', '.join(GROUPS)}, not '{heading}'")
        found[group] = (title, body.strip())
    return found


def pages() -> dict[str, str]:
    """What docs/performance.md links to, by file name; none of it is measured."""
    commands = [MADE_BY, "# What each benchmark runs", "Figures stand in [performance](../performance.md)."]
    for group, (title, _) in GROUPS.items():
        some = [f"* **{one.name}**: {one.what}" for one in BENCHMARKS if one.group == group]
        commands += [f"## {title}", "\n".join(some)]
    found = {"commands.md": "\n\n".join(commands) + "\n"}
    for group, (title, text) in notes().items():
        found[f"{group}.md"] = "\n\n".join((MADE_BY, f"# {title}", text)) + "\n"
    return found


def write_pages(folder: Path) -> None:
    """The pages beside docs/performance.md; those that nothing says any more are removed."""
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    for old in folder.glob("*.md"):
        if old.name not in pages():
            old.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures cmsim as a user meets it: whole processes.")
    parser.add_argument("--runs", type=int, default=7, metavar="N", help="runs after the one to warm up; default 7")
    parser.add_argument("--only", choices=[b.name for b in BENCHMARKS], help="one benchmark; the page is left as it is")
    parser.add_argument("--out", type=Path, help="page to write; default docs/performance.md")
    parser.add_argument("--pages", action="store_true", help="measure nothing; write docs/performance/ alone")
    asked = parser.parse_args()
    if asked.pages:
        write_pages(PAGE.with_suffix(""))
        return
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
        if out == PAGE:
            write_pages(PAGE.with_suffix(""))
        print(f"wrote {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
