"""The resolved plan of a run: in results, their summary and folder, and the table with --plan."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import api
from cmsim.cli.app import app
from cmsim.results import Results, flat_plan
from cmsim.scenario import load_scenario
from cmsim.workload import generate

SIZES = ("tp", "cp", "pp", "dp", "ep")
WORKLOADS = {
    "training": {
        **{"kind": "training", "model": "llama-3.1-8b", "sequence_length": 4096, "global_batch": 64, "micro_batch": 2},
        "parallel": {"tp": 2, "pp": 2},
    },
    "prefill": {"kind": "prefill", "model": "llama-3.1-8b", "prompt_tokens": 1024, "batch_per_accelerator": 3},
    "decode": {
        **{"kind": "decode", "model": "deepseek-r1", "context_tokens": 4096, "batch_per_accelerator": 32},
        "parallel": {"ep": "max", "attention": "dp"},
        "precision": {"weights": "fp8", "activations": "fp8"},
    },
    "sum": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6, "group": 4},
    "pairs": {"kind": "collective", "collective": "send_recv", "message_bytes": 1e6},
    "trace": {"kind": "trace", "path": "chakra/resnet50_ddp_rank0", "ranks": 8},
}


@pytest.fixture(scope="module")
def results() -> Results:
    others = {name: work for name, work in WORKLOADS.items() if name != "decode"}
    return Results.joined(
        [
            cmsim.run({"systems": ["hgx_h100"], "workloads": others}),
            cmsim.run({"systems": ["gb200_nvl72"], "workload": WORKLOADS["decode"]}),
        ]
    )


def plan(results, workload):
    (found,) = (result for result in results if result.workload == workload)
    sizes = {name: value for name, value in found.plan.items() if name != "memory_B"}
    return found, sizes


def test_sizes_that_were_left_open_are_there(results):
    _, sizes = plan(results, "training")
    # eight ranks over tp 2 x pp 2 leave dp 2; its 32 sequences come two at a time
    assert sizes == {"tp": 2, "cp": 1, "pp": 2, "dp": 2, "ep": 1, "sequences_per_rank": 32, "micro_batches": 16}
    _, sizes = plan(results, "prefill")
    assert sizes == {"tp": 1, "cp": 1, "pp": 1, "dp": 8, "ep": 1, "sequences_per_rank": 3, "micro_batches": 1}
    _, sizes = plan(results, "decode")
    assert sizes == {"tp": 1, "cp": 1, "pp": 1, "dp": 72, "ep": 72, "sequences_per_rank": 32, "micro_batches": 1}
    assert plan(results, "sum")[1] == {"ranks_in_group": 4, "groups": 2}
    assert plan(results, "pairs")[1] == {"ranks_in_group": 2, "groups": 4}
    assert plan(results, "trace")[1] == {}


@pytest.mark.parametrize("kind", ["training", "encoder"])
def test_graphs_have_one_too(kind, request):
    work = {"kind": kind, "model": "resnet50"}
    work |= {"global_batch": 64, "micro_batch": 4} if kind == "training" else {"batch_per_accelerator": 5}
    (result,) = cmsim.run({"systems": ["hgx_h100"], "workload": work})
    assert {name: result.plan[name] for name in SIZES} == {"tp": 1, "cp": 1, "pp": 1, "dp": 8, "ep": 1}
    assert result.plan["samples_per_rank"] == (8 if kind == "training" else 5)
    assert result.plan.get("micro_batches") == (2 if kind == "training" else None)
    assert sum(result.plan["memory_B"].values()) == pytest.approx(result.metric("memory_peak_B"))


def test_memory_is_that_of_the_fullest_rank_by_part(results):
    for workload in ("training", "prefill", "decode"):
        found, _ = plan(results, workload)
        assert sum(found.plan["memory_B"].values()) == pytest.approx(found.metric("memory_peak_B"))
    # 32 sequences of 4097 tokens, 61 layers, a latent of 512 and 64 of position, 2 bytes each
    assert plan(results, "decode")[0].plan["memory_B"]["cache"] == pytest.approx(32 * 4097 * 61 * 576 * 2)


def test_memory_is_of_one_rank_not_of_the_largest_parts_of_several():
    uneven = {"parallel": {"pp": 3}, "ranks": 6, "micro_batch": 4, "recompute": "full"}
    work = {**WORKLOADS["training"], **uneven}
    scenario = load_scenario({"systems": ["hgx_h100"], "workload": work})
    programs = generate.programs(scenario.runs[0].spec, api.system(scenario.runs[0]))
    parts = {name: value.tolist() for name, value in programs.footprint_B.items()}
    # weights are most on one stage, what the loss needs on another
    assert [max(range(3), key=parts[line].__getitem__) for line in ("weights", "logits")] == [0, 2]
    (result,) = cmsim.run(scenario)
    whole = [sum(stage) for stage in zip(*parts.values(), strict=True)]
    worst = whole.index(max(whole))
    assert result.plan["memory_B"] == {name: values[worst] for name, values in parts.items() if values[worst]}


def test_what_best_became_is_what_the_plan_says():
    work = {**WORKLOADS["training"], "parallel": {"tp": "best", "pp": 2}}
    (result,) = cmsim.run({"systems": ["hgx_h100"], "workload": work})
    assert result.plan["tp"] == result.chosen["parallel.tp"]
    assert result.plan["tp"] * result.plan["pp"] * result.plan["dp"] == result.ranks


def test_the_folder_keeps_it(results, tmp_path):
    again = Results.load(results.save(tmp_path / "out"))
    assert [one.plan for one in again] == [one.plan for one in results]
    entries = {one["workload"]: one for one in json.loads((tmp_path / "out/summary.json").read_text())["results"]}
    assert entries["training"]["plan"]["dp"] == 2 and "plan" not in entries["trace"]


def test_as_columns_it_is_flat(results):
    flat = flat_plan(plan(results, "training")[0])
    assert flat["memory_optimizer_B"] > flat["memory_activations_of_ffn_B"] > 0
    assert all(isinstance(value, int | float) for value in flat.values())


def test_the_table_has_it_where_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    file = tmp_path / "s.yaml"
    work = {**WORKLOADS["prefill"], "batch_per_accelerator": 8}
    sweep = {"workload.batch_per_accelerator": [8, 50000]}
    file.write_text(json.dumps({"systems": ["hgx_h100"], "workload": work, "sweep": sweep}))
    plain, asked = (CliRunner().invoke(app, ["run", str(file), *extra]).stdout for extra in ([], ["--plan"]))
    assert "prefill: plan" not in plain
    rows = [line.split() for line in asked.partition("prefill: plan")[2].splitlines() if line.startswith("hgx_h100")]
    assert rows[0][:9] == ["hgx_h100", "8", "1", "1", "1", "8", "1", "8", "1"]
    assert rows[1][:3] == ["hgx_h100", "50,000", "infeasible"]
    assert asked.count("16.1 GB") >= 1
    trace = tmp_path / "t.yaml"
    trace.write_text(json.dumps({"systems": ["hgx_h100"], "workload": WORKLOADS["trace"]}))
    assert "plan" not in CliRunner().invoke(app, ["run", str(trace), "--plan"]).stdout
