"""Large traces, made first and not timed: reading, counting and replaying them.

    python benchmarks/traces.py chakra|kineto|replay|copies

chakra   `cmsim trace info` of a Chakra file of 400,000 nodes: nodes a second
kineto   the same of a Kineto file of 1 GB: megabytes a second, and what the process takes
replay   a trace of 8 ranks, 1,000,000 ops, no two ranks alike: from columns to the end of the run
copies   the same of 8 equal ranks, over one rank
"""

from __future__ import annotations

import gzip
import itertools
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TRACES = ROOT / "workloads" / "traces"
NODES, KINETO_B = 400_000, 10**9
OPS, RANKS = 1_000_000, 8


def chakra() -> None:
    """Time of counting 200,000 nodes."""
    from google.protobuf.internal.encoder import _VarintBytes

    from cmsim.traces.chakra import chakra_pb2
    from cmsim.traces.chakra.wire import message_offsets

    pb: Any = chakra_pb2
    sample = (TRACES / "chakra" / "stg_merged_two_jobs_8npus" / "mergedAB.0.et").read_bytes()
    offsets, _ = message_offsets(sample)
    bounds = [*offsets.tolist(), len(sample)]
    messages = [sample[a:b] for a, b in itertools.pairwise(bounds)]
    nodes = [pb.Node.FromString(one[_head(one) :]) for one in messages[1:]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.0.et"
        with path.open("wb") as file:
            file.write(messages[0])
            for number in range(NODES):
                turn, which = divmod(number, len(nodes))
                made = pb.Node()
                made.CopyFrom(nodes[which])
                made.id += 1000 * turn
                for deps in (made.ctrl_deps, made.data_deps):
                    deps[:] = [dep + 1000 * turn for dep in deps]
                data = made.SerializeToString()
                file.write(_VarintBytes(len(data)) + data)
        start_s = time.perf_counter()
        from cmsim.describe import describe

        counts = describe(path)["counts"]
        took_s = time.perf_counter() - start_s
    assert counts["nodes"] == NODES
    print(f"{NODES / took_s:,.0f} nodes/s; 200,000 nodes: {took_s * 200_000 / NODES:.3f} s")


def _head(message: bytes) -> int:
    """Bytes of the length in front."""
    return next(i for i, byte in enumerate(message) if byte < 0x80) + 1


def kineto() -> None:
    """Time of counting 90 MB of JSON."""
    sample = gzip.decompress((TRACES / "kineto" / "dlrm_8gpu" / "worker0.pt.trace.json.gz").read_bytes()).decode()
    start = sample.index('"traceEvents": [') + len('"traceEvents": [')
    end = sample.rindex("]")
    events = sample[start:end].strip()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.json"
        with path.open("w") as file:
            file.write(sample[:start])
            turn = 0
            while file.tell() < KINETO_B:
                file.write((",\n" if turn else "") + _later(events, 500_000 * turn))
                turn += 1
            file.write(sample[end:])
        size_B = path.stat().st_size
        start_s = time.perf_counter()
        from cmsim.describe import describe

        counts = describe(path)["counts"]
        took_s = time.perf_counter() - start_s
    assert counts["events"] > 1_000_000
    print(f"{size_B / took_s / 1e6:.0f} MB/s of {size_B / 1e6:.0f} MB; 90 MB: {took_s * 90e6 / size_B:.3f} s")


def _later(events: str, by_us: int) -> str:
    return re.sub(r'"ts": (\d+)', lambda found: f'"ts": {int(found[1]) + by_us}', events)


def recorded(ops: int, rank: int, seed: int) -> Any:
    """A profile as they are: the host launches a kernel each time, every fiftieth is a collective."""
    from cmsim.traces.recorded import rank_trace
    from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST

    draw = np.random.default_rng(seed)
    half = ops // 2
    kind = np.tile([HOST, COMPUTE], half)
    talks = np.zeros(ops, bool)
    talks[99::100] = True
    kind[talks] = COLLECTIVE
    return rank_trace(
        rank,
        name=["launch", "kernel"] * half,
        kind=kind,
        stream=np.where(talks, "comm", np.where(kind == HOST, "host", "stream 7")).tolist(),
        duration_us=draw.uniform(1, 5, ops),
        kernel=np.where(kind == COMPUTE, "generic", "").tolist(),
        collective=np.where(talks, "all_reduce", "").tolist(),
        group=np.where(talks, 0, -1),
        bytes_B=np.where(talks, 1e6, 0.0),
        deps=(np.arange(1, ops, 2), np.arange(0, ops, 2)),
    )


def _played_s(ranks: dict[int, Any]) -> float:
    from cmsim.engine import Options, plan, play
    from cmsim.hardware import load_system
    from cmsim.traces.lower import lower
    from cmsim.traces.recorded import Communicator, Trace

    trace = Trace("made", "made", ranks, communicators=(Communicator("all"),), world_size=len(ranks))
    system = load_system("hgx_h100")
    start_s = time.perf_counter()
    play(plan(lower(trace), system, Options()))
    return time.perf_counter() - start_s


def replay() -> None:
    """Time of replaying 300,000 ops of a trace that does not fold."""
    each = OPS // RANKS
    took_s = _played_s({rank: recorded(each, rank, rank) for rank in range(RANKS)})
    print(f"{OPS / took_s:,.0f} ops/s; 300,000 ops: {took_s * 300_000 / OPS:.3f} s")


def copies() -> None:
    """How much longer eight equal ranks take than one."""
    one = recorded(OPS // RANKS, 0, 0)
    _played_s({0: one})
    alone_s = min(_played_s({0: one}) for _ in range(3))
    eight_s = min(_played_s(dict.fromkeys(range(RANKS), one)) for _ in range(3))
    print(f"8 equal ranks take {eight_s / alone_s:.2f} s for every second of one rank")


if __name__ == "__main__":
    {"chakra": chakra, "kineto": kineto, "replay": replay, "copies": copies}[sys.argv[1]]()
