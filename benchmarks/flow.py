"""Collectives played message by message: whole-process seconds and peak memory; and a comparison with ASTRA-sim.

python benchmarks/flow.py [CASE ...]       run each case in a process of its own, print what it took and its target
python benchmarks/flow.py --astra TABLE    write docs/astra_sim.md from a table of ASTRA-sim's analytical backends
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cmsim.collectives import candidates
from cmsim.flow import FlowResult, Software, all_to_all_v, collective_time, rounds
from cmsim.hardware import System, load_system

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "astra_sim.md"

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


# --- ASTRA-sim ---------------------------------------------------------------------------------------------------

#: link bandwidths of the table are in GiB/s
GIB = 2**30
#: the backend's memory of 1,600 GB/s is read twice and written once for each byte added
GAMMA_S_PER_B = 3 / 1600e9
#: names of the table, where ours differ
ALGORITHMS = {
    ("all_reduce", "direct"): "two_shot",
    ("all_reduce", "halvingDoubling"): "halving_doubling",
}


@dataclass(frozen=True)
class Row:
    """A row of the table beside what flow says. [ns]

    explained_ns  flow with the backend's known differences put in: a second transmission at the switch, arithmetic,
                  whole nanoseconds per message
    """

    topology: str
    ranks: int
    bandwidth_GiBps: float
    collective: str
    algorithm: str
    chunks: int
    message_B: int
    backend_ns: float
    flow_ns: float
    bound_ns: float
    explained_ns: float


def astra_system(row: Mapping[str, str]) -> System:
    """A fabric like that of a row: one switch chip, or a link for every pair, at the row's rate and latency."""
    power = {"chip_static_W": 0, "chip_dynamic_W": 0}
    link = {"link_GBps": float(row["bandwidth_GBps"]) * GIB / 1e9, "power": power}
    latency_us = float(row["latency_ns"]) / 1e3
    if row["topology"] == "Switch":
        link |= {"wiring": "switch", "switches": 1, "links_per_accelerator": 1, "in_network_reduction": False}
        # a link up and a link down
        link |= {"domain_us": 2 * latency_us, "switch_us": latency_us}
    else:
        link |= {"wiring": "full_mesh", "domain_us": latency_us}
    ranks = {"accelerators": int(row["n_npus"]), "node.accelerators": 1}
    return load_system("hgx_h100", set={**ranks, "scale_up": link})


def added_B(collective: str, algorithm: str, ranks: int, size_B: float) -> float:
    """Bytes whose addition the backend waits for: the last block of a direct exchange, all but the first message of
    recursive halving, every block of a ring. [B]"""
    if collective not in ("all_reduce", "reduce_scatter"):
        return 0.0
    if algorithm == "ring":
        return size_B * (ranks - 1) / ranks
    return size_B / ranks if algorithm != "halving_doubling" else size_B * (0.5 - 1 / ranks)


def astra_rows(table: Iterable[Mapping[str, str]]) -> list[Row]:
    """Every row of the contention-aware backend."""
    out = []
    for row in table:
        if row["backend"] != "congestion_aware":
            continue
        system = astra_system(row)
        ranks, collective, chunks = system.ranks, row["collective"], int(row["chunks"])
        name = ALGORITHMS.get((collective, row["algorithm"]), row["algorithm"])
        # chunks follow one another; an all-gather is counted per rank
        size_B = float(row["message_bytes"]) * (ranks if collective == "all_gather" else 1) / chunks
        got = collective_time(system, collective, algorithm=name, size_B=size_B, library=Software())
        (algorithm,) = (one for one in candidates(collective) if one.name == name)
        byte_ns = 1e9 / (float(row["bandwidth_GBps"]) * GIB)
        extra_ns = 0.0
        for one in rounds(algorithm, ranks, size_B):
            message_ns = float(one.size_B.max()) * byte_ns
            one_link = row["topology"] == "FullyConnected"
            in_series = 1 if one_link else len(one.src) // ranks + 1
            # the switch sends the last message once more; all times are cut to whole nanoseconds
            extra_ns += one.times * (0.0 if one_link else message_ns)
            extra_ns -= one.times * in_series * (message_ns - math.floor(message_ns))
        extra_ns += added_B(collective, name, ranks, size_B) * GAMMA_S_PER_B * 1e9
        out.append(
            Row(
                topology=row["topology"],
                ranks=ranks,
                bandwidth_GiBps=float(row["bandwidth_GBps"]),
                collective=collective,
                algorithm=row["algorithm"],
                chunks=chunks,
                message_B=int(row["message_bytes"]),
                backend_ns=float(row["simulated_ns"]),
                flow_ns=got.time_s * chunks * 1e9,
                bound_ns=got.bound_s.time_s * chunks * 1e9,
                explained_ns=(got.time_s * 1e9 + extra_ns) * chunks,
            )
        )
    return out


def astra_page(rows: list[Row]) -> str:
    """docs/astra_sim.md: by kind of row how far apart the two are, and every row that differs by more than 3 %."""
    kinds: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row.topology, row.collective, row.algorithm), []).append(row)
    lines = [
        "| topology | collective | algorithm | rows | flow over backend: least | median | most "
        "| with (a) to (c): least | most |",
        "|---" * 9 + "|",
    ]
    for (topology, collective, name), some in kinds.items():
        plain = [row.flow_ns / row.backend_ns for row in some]
        full = [row.explained_ns / row.backend_ns for row in some]
        figures = (min(plain), statistics.median(plain), max(plain), min(full), max(full))
        cells = " | ".join(f"{value:.3f}" for value in figures)
        lines.append(f"| {topology} | {collective} | {name} | {len(some)} | {cells} |")
    far = [row for row in rows if abs(row.flow_ns / row.backend_ns - 1) > 0.03]
    detail = [
        "| topology | ranks | GiB/s | collective | algorithm | chunks | bytes | backend [ns] | flow [ns] | flow over "
        "backend | with (a) to (c) | bound over flow |",
        "|---" * 12 + "|",
    ]
    for row in far:
        detail.append(
            f"| {row.topology} | {row.ranks} | {row.bandwidth_GiBps:g} | {row.collective} | {row.algorithm} "
            f"| {row.chunks} | {row.message_B} | {row.backend_ns:.0f} | {row.flow_ns:.0f} "
            f"| {row.flow_ns / row.backend_ns:.3f} | {row.explained_ns / row.backend_ns:.3f} "
            f"| {row.bound_ns / row.flow_ns:.3f} |"
        )
    worst = max(abs(row.explained_ns / row.backend_ns - 1) for row in rows)
    return ASTRA_TEXT.format(
        rows=len(rows), worst=f"{worst:.1%}", far=len(far), kinds="\n".join(lines), detail="\n".join(detail)
    )


ASTRA_TEXT = """<!-- Made by `python benchmarks/flow.py --astra TABLE`; changes here are lost. -->
# Flow beside ASTRA-sim

{rows} runs of ASTRA-sim's contention-aware analytical backend against `flow` on the same topology: one switch, or a
link between every two ranks. Latency is 500 ns a link; link rates are in GiB/s; an all-gather is counted per rank;
several chunks are taken to follow one another. Flow never goes below its bound. Three things differ, and the last
columns put them into flow's figure to see whether anything else does:

* (a) The backend's switch takes a message in before it sends it on; flow cuts through. That adds the time of one
  message to every round through a switch: little where a rank sends hundreds of messages at once, as long again as
  the round where it sends one (rings, halving and doubling).
* (b) The backend charges arithmetic, three accesses to a memory of 1,600 GB/s for a byte: for every block of a ring,
  for the last block of a direct exchange, for all but the first message of recursive halving. These figures of flow
  leave it out (`Software.gamma_s_per_B` puts in what the formulas charge).
* (c) The backend cuts the time of every message to whole nanoseconds: 6.4 ns become 6 where 384 ranks share 1 MiB, and
  1.6 become 1 in four chunks. There flow stands above the backend.

With them the largest difference is {worst}, in exchanges of half a microsecond, to which the backend adds 20 ns.

{kinds}

## The {far} rows that differ by more than 3 %

{detail}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Collectives played message by message: seconds, peak memory.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(TARGETS)}; default all")
    parser.add_argument("--runs", type=int, default=3, help="processes for each case; the median counts")
    parser.add_argument("--one", metavar="CASE", help="play one case in this process")
    parser.add_argument("--astra", metavar="TABLE", type=Path, help="write docs/astra_sim.md")
    asked = parser.parse_args()
    if asked.one:
        got = play(asked.one)
        print(f"{got.time_s * 1e6:.1f} us, {got.ratio:.3f} times the bound")
        return
    if asked.astra:
        with asked.astra.open(encoding="utf-8", newline="") as lines:
            PAGE.write_text(astra_page(astra_rows(csv.DictReader(lines))), encoding="utf-8", newline="\n")
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
