"""Recorded traces on systems: what waits for what, what is scaled by how much, what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cmsim
from cmsim.errors import InfeasibleError, InputError
from cmsim.results import Result

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(p.name for p in (ROOT / "workloads" / "traces" / "chakra").iterdir() if p.is_dir())
RESNET = "resnet50_ddp_rank0"


def replay(name: str, ranks: int = 8, system: str = "hgx_a100", fold: bool = True, **more: Any) -> Result:
    workload = {"kind": "trace", "path": f"chakra/{name}", "ranks": ranks, **more}
    (one,) = cmsim.run({"systems": [system], "workload": workload, "fold": fold})
    return one


def rows(result: Result) -> dict[str, np.ndarray]:
    return {key: np.asarray(column) for key, column in result.columns["ops"].items()}


@pytest.mark.parametrize("ranks", [2, 8])
def test_all_reduces_start_when_the_kernels_before_them_have_ended(ranks: int) -> None:
    result = replay(RESNET, ranks)
    ops = rows(result)
    assert set(ops["rank_class"]) == {0} and set(ops["multiplicity"]) == {ranks}
    kernel, collective = ops["kind"] == "compute", ops["kind"] == "collective"
    length_s = (ops["end_ps"] - ops["start_ps"])[kernel].sum() * 1e-12
    assert length_s == pytest.approx(0.292828)
    assert length_s < result.metrics["makespan_s"] < 1.02 * length_s
    assert collective.sum() == 7
    for row in np.flatnonzero(collective):  # rows of a program stand in launch order
        assert ops["start_ps"][row] >= ops["end_ps"][:row][kernel[:row]].max()
    reduces = np.flatnonzero(collective & (ops["bytes_B"] > 1e6))
    # gradients exist in the backward pass only: it starts after about a third of the kernels' time
    assert ops["start_ps"][reduces].min() > 0.25 * ops["end_ps"].max()


def test_folded_equals_unfolded() -> None:
    folded, unfolded = replay(RESNET), replay(RESNET, fold=False)
    assert folded.metrics["makespan_s"] == unfolded.metrics["makespan_s"]


@pytest.mark.parametrize("name", FOLDERS)
def test_every_sample_plays_to_its_end(name: str) -> None:
    result = replay(name)
    assert result.metrics["makespan_s"] > 0
    assert np.isfinite(rows(result)["end_ps"]).all()


@pytest.mark.parametrize(
    ("system", "matrix", "memory"),
    [("cloudmatrix384", 312 / 376, 2039 / 1600), ("gb200_nvl72", 312 / 2500, 2039 / 8000)],
)
def test_scaled_times(system: str, matrix: float, memory: float) -> None:
    def sums(result: Result) -> list[float]:
        ops = rows(result)
        length_ms = (ops["end_ps"] - ops["start_ps"]) * 1e-9
        pick = [ops["kernel"] == "gemm", ops["kernel"] == "generic", ops["kind"] == "host"]
        return [float(length_ms[mask].sum()) for mask in pick]

    there = sums(replay(RESNET, 64, system))
    result = replay(RESNET, 64, system, compute="scaled", recorded_on="a100_sxm")
    here = sums(result)
    assert there == pytest.approx([161.536, 131.292, 52.252])
    assert here == pytest.approx([there[0] * matrix, there[1] * memory, there[2]], rel=1e-6)
    assert result.metrics["makespan_s"] * 1e3 >= max(here[0] + here[1], here[2])
    said = " ".join(result.warnings)
    assert "1 of 64 ranks have a file (0); the other 63 run copies" in said
    assert "scaled from one a100_sxm to one rank: 55% of them are of matrix kernels" in said
    assert "45% of others" in said


def test_what_is_said_of_times() -> None:
    assert any(note.startswith("kernel times are as recorded") for note in replay(RESNET).warnings)
    generated = replay("stg_merged_two_jobs_8npus", compute="scaled", recorded_on="a100_sxm").warnings
    assert any(note.startswith("the trace has no recorded kernel times") for note in generated)
    assert any("kernels without a recorded time priced by the roofline" in note for note in generated)


def test_the_share_counts_ranks_not_programs() -> None:
    from cmsim.kinds.trace import TraceSpec
    from cmsim.workload.generate.replay import _times
    from cmsim.workload.ops import ProgramBuilder, assemble

    builders = [ProgramBuilder(), ProgramBuilder()]
    builders[0].compute("a", stream="compute", kernel="gemm", recorded_s=1.0)
    builders[1].compute("b", stream="compute", kernel="generic", recorded_s=1.0)
    made = assemble(builders, program=np.array([0, 0, 0, 1]), groups={})
    spec = TraceSpec(kind="trace", path="x", compute="scaled", recorded_on="there")
    assert "75% of them are of matrix kernels" in _times(made, spec)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="scaled needs the accelerator"):
        replay(RESNET, compute="scaled")
    with pytest.raises(InfeasibleError, match="has 8 ranks"):
        replay(RESNET, 10_000)
    with pytest.raises(InputError, match="no such trace"):
        replay("absent")


def test_the_scenario_runs() -> None:
    results = cmsim.run(ROOT / "scenarios" / "trace_replay.yaml")
    assert {result.ranks for result in results} == {8}
    as_recorded = [result.recorded["step"] for result in results if result.workload == "as-recorded"]
    # what communication took is in it, so no fabric changes it
    assert len({step["simulated_s"] for step in as_recorded}) == 1
    projected = {result.system: result for result in results if result.workload == "projected"}
    kernels = {name: result.recorded["compute"]["simulated_s"] for name, result in projected.items()}
    assert kernels["gb200_nvl72"] < kernels["hgx_a100"] < as_recorded[0]["recorded_s"]
    # the host launches no faster on a faster device
    assert {result.limiter for result in projected.values()} == {"host"}


def test_rates_of_a_replay_are_of_what_a_rank_was_recorded_to_do() -> None:
    """Eight copies of a step do eight steps at once; many ranks and few are held against each other by that."""

    def found(ranks: int, **keys: object) -> dict[str, float | str]:
        workload = {"kind": "trace", "path": "chakra/resnet50_ddp_rank0", "ranks": ranks, **keys}
        return dict(cmsim.run({"systems": ["hgx_a100"], "workload": workload})[0].metrics)

    one, eight = found(1), found(8)
    for metrics, ranks in ((one, 1), (eight, 8)):
        assert metrics["rank_steps_per_s"] == ranks / float(metrics["makespan_s"])
    assert float(eight["rank_steps_per_s"]) > 7 * float(one["rank_steps_per_s"])
    # 32 images a rank, by the shapes of the recorded convolutions
    images = found(8, samples_per_rank=32)
    assert images["samples_per_s"] == 8 * 32 / float(images["makespan_s"])
    assert float(images["energy_per_sample_J"]) * float(images["samples_per_s"]) == pytest.approx(
        float(images["power_avg_W"])
    )
    assert "rank_steps_per_s" not in images
