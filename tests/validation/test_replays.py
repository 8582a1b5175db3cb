"""Recorded steps replayed: as recorded within 2 %, with simulated communication within 10 %."""

from __future__ import annotations

from pathlib import Path

import pytest

import cmsim
from cmsim.scenario import load_scenario

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "traces" / "kineto"
here = pytest.mark.skipif(not SHARED.is_dir(), reason="the collected traces are not beside this checkout")


def steps(path: Path | str, system: str, *, ranks: int | None = None, **keys: str) -> tuple[float, float]:
    """Recorded and simulated step of a trace. [s]"""
    workload = {"kind": "trace", "path": str(path), **({"ranks": ranks} if ranks else {}), **keys}
    (result,) = cmsim.run(load_scenario({"name": "replay", "systems": [system], "workload": workload}))
    step = result.recorded["step"]
    assert step["simulated_s"] == result.metric("makespan_s")
    return step["recorded_s"], step["simulated_s"]


#: file, system nearest to its own, ranks of the job
FILES = [
    ("dlrm_8gpu", "hgx_a100", None),
    ("resnet_ddp_nccl_args_rank0.json.gz", "hgx_a100", None),
    # no collectives in it that say what they move: its own communication kernels keep their recorded times
    ("deepseek_train_ep64.json.gz", {"system": "hgx_h800", "domains": 8}, 64),
    ("recsys_world128/sampled_rank-0.json.gz", {"system": "hgx_a100", "domains": 16}, 128),
    ("recsys_world128/sampled_rank-1.json.gz", {"system": "hgx_a100", "domains": 16}, 128),
]


@here
@pytest.mark.parametrize(("name", "system", "ranks"), FILES, ids=[name for name, *_ in FILES])
def test_as_recorded(name, system, ranks):
    recorded_s, simulated_s = steps(SHARED / name, system, ranks=ranks, collectives="recorded")
    assert simulated_s == pytest.approx(recorded_s, rel=0.02)


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
