"""Recorded steps replayed: as recorded within 2 %, with simulated communication within 10 %."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import cmsim
from cmsim.scenario import load_scenario

TRACES = Path(__file__).resolve().parents[2].parent / "shared" / "traces"
SHARED = TRACES / "kineto"
CUT = Path(__file__).parents[1] / "cases" / "kineto" / "recommender_200ms.json.gz"
here = pytest.mark.skipif(not SHARED.is_dir(), reason="the collected traces are not beside this checkout")


def steps(path: Path | str, system: str, *, ranks: int | None = None, **keys: str) -> tuple[float, float]:
    """Recorded and simulated step of a trace. [s]"""
    workload = {"kind": "trace", "path": str(path), **({"ranks": ranks} if ranks else {}), **keys}
    (result,) = cmsim.run(load_scenario({"name": "replay", "systems": [system], "workload": workload}))
    step = result.recorded["step"]
    assert step["simulated_s"] * result.facts.steps == pytest.approx(result.metric("makespan_s"), rel=1e-12)
    return step["recorded_s"], step["simulated_s"]


#: file, system nearest to its own, ranks of the job
FILES = [
    ("dlrm_8gpu", "hgx_a100", None),
    ("resnet_ddp_nccl_args_rank0.json.gz", "hgx_a100", None),
    # no collectives in it that say what they move: its own communication kernels keep their recorded times
    ("deepseek_train_ep64.json.gz", {"system": "hgx_h800", "domains": 8}, 64),
    ("recsys_world128/sampled_rank-0.json.gz", {"system": "hgx_a100", "domains": 16}, 128),
    ("recsys_world128/sampled_rank-1.json.gz", {"system": "hgx_a100", "domains": 16}, 128),
    # copies and kernels that wait for ranks without a file
    ("recommender_16gpu_rank0.json.gz", {"system": "hgx_a100", "domains": 2}, None),
]


@here
@pytest.mark.parametrize(("name", "system", "ranks"), FILES, ids=[name for name, *_ in FILES])
def test_as_recorded(name, system, ranks):
    recorded_s, simulated_s = steps(SHARED / name, system, ranks=ranks, collectives="recorded")
    assert simulated_s == pytest.approx(recorded_s, rel=0.02)


def without(events: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """A recording that lacks something, as recordings do."""
    device = ("kernel", "gpu_memcpy", "gpu_memset")
    if what == "runtime":
        return [one for one in events if one["cat"] != "cuda_runtime"]
    if what == "every other launch":
        return [one for i, one in enumerate(events) if one["cat"] != "cuda_runtime" or i % 2]
    if what == "waits":
        return [one for one in events if "ync" not in one["name"] and "WaitEvent" not in one["name"]]
    if what == "every third kernel":
        return [one for i, one in enumerate(events) if one["cat"] not in device or i % 3]
    if what == "ends":  # kernels run on while the next of their stream began
        return [{**one, "dur": one["dur"] * 1.5 + 3} if one["cat"] in device else one for one in events]
    first = min(one["ts"] for one in events)
    return [one for one in events if first + 30e3 <= one["ts"] <= first + 120e3] if what == "both ends" else events


@pytest.mark.parametrize(
    "what", ["nothing", "runtime", "every other launch", "waits", "every third kernel", "ends", "both ends"]
)
def test_as_recorded_whatever_a_file_lacks(tmp_path, what):
    said = json.loads(gzip.decompress(CUT.read_bytes()))
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({**said, "traceEvents": without(said["traceEvents"], what)}))
    recorded_s, simulated_s = steps(path, {"system": "hgx_a100", "domains": 2}, collectives="recorded")
    assert simulated_s == pytest.approx(recorded_s, rel=0.005)


#: whose files hold less than the recorded step, and how the run says so
SHORT = [
    ("ascend/older_schema_16npu", {"system": "atlas_800_a2", "domains": 2}, "the recorded step 295.129 ms (-8.1 %)"),
    ("aicb/A100_example_measured.csv.gz", "hgx_a100", "the recorded step 15256.072 ms (-31.1 %)"),
]


@here
@pytest.mark.parametrize(("name", "system", "said"), SHORT, ids=[name for name, *_ in SHORT])
def test_what_is_not_in_the_file_is_told(name, system, said):
    workload = {"kind": "trace", "path": str(TRACES / name), "collectives": "recorded"}
    (result,) = cmsim.run(load_scenario({"name": "replay", "systems": [system], "workload": workload}))
    (told,) = [text for text in result.warnings if "with everything as recorded" in text]
    assert told.startswith("warning: ") and said in told and told.endswith("the rest is not in the file")


#: a rank other than 0 by itself is left out: copies of it would stand for rank 0
WHOLE = [one for one in FILES if "rank-1" not in one[0]]


@here
@pytest.mark.parametrize(("name", "system", "ranks"), WHOLE, ids=[name for name, *_ in WHOLE])
def test_with_simulated_communication(name, system, ranks):
    recorded_s, simulated_s = steps(SHARED / name, system, ranks=ranks)
    assert simulated_s == pytest.approx(recorded_s, rel=0.10)


@here
def test_who_waits_for_whom_is_in_the_clocks():
    """Eight ranks of one step: most of the time in collectives is waiting for the last rank, and is found again."""
    workload = {"kind": "trace", "path": str(SHARED / "dlrm_8gpu")}
    (result,) = cmsim.run(load_scenario({"name": "dlrm", "systems": ["hgx_a100"], "workload": workload}))
    of = result.recorded["collective"]
    assert of["simulated_s"] == pytest.approx(of["recorded_s"], rel=0.05)


def test_shipped_samples():
    for path, system in (("kineto/dlrm_8gpu", "hgx_a100"), ("ascend/alexnet_ddp_level1", "atlas_800_a2")):
        recorded_s, simulated_s = steps(path, system, ranks=8, collectives="recorded")
        assert simulated_s == pytest.approx(recorded_s, rel=0.02)


def test_a_generated_workload_of_another_simulator_runs_end_to_end():
    """Nine thousand ranks, 1,789 layers: its compute is the file's, to the nanosecond."""
    (result,) = cmsim.run("simai_9216")
    assert result.ranks == 9216
    ops = result.ops
    stream = ops[(ops["stream"] == "compute") & (ops["kind"] == "compute")]
    assert (stream["end_ps"] - stream["start_ps"]).sum() == 4_542_795_477 * 1000
    exposed = {name: row["simulated_s"] for name, row in result.recorded.items() if name.startswith("exposed_comm ")}
    assert sum(exposed.values()) == pytest.approx(result.metric("exposed_comm_s"), rel=1e-9)
    assert max(exposed, key=exposed.__getitem__) == "exposed_comm ep"
