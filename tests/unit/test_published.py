"""Rows of published tables as scenarios: forms, names, what is completed, and what is said of it."""

from __future__ import annotations

import csv
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from cmsim import api, reading
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.graphs.load import load_any
from cmsim.hardware import load_system
from cmsim.published import FORMS, Case, RowPlan, form_of, play, play_all, predict_training
from cmsim.published import build as building
from cmsim.published.names import RecipeRule, names, recipes

STEP = {
    "id": "mbridge-9001", "system": "DGX-GB200", "model": "LLAMA3.1_405B", "n_accelerators": "128",
    "precision": "FP8-CS", "tp": "4", "pp": "8.0", "cp": "1", "ep": "", "dp": "4", "vpp": "4", "micro_batch": "1",
    "global_batch": "64", "seq_len": "8192", "metric": "step_time", "value": "9.3", "unit": "s",
    "conditions": "FSDP=0", "source": "github.com/NVIDIA-NeMo/Megatron-Bridge @067f987d",
    "where": "25.09 NeMo Container", "confidence": "published",
}  # fmt: skip
SMALL = {
    **STEP, "model": "Llama 3.1 8b", "n_accelerators": "8", "tp": "1", "pp": "1", "dp": "8", "vpp": "",
    "global_batch": "8",
}  # fmt: skip


def steps(**change):
    return FORMS["steps"].case({**STEP, **change})


def test_a_row_becomes_the_run_that_it_describes():
    case = steps()
    (entry,) = case.scenario["systems"]
    assert entry.pop("stack", "").startswith("megatron_")
    assert entry == {"system": "gb200_nvl72", "domains": 2, "set": {"accelerators": 64}}
    workload = case.scenario["workload"]
    assert (workload["kind"], workload["model"]) == ("training", "llama-3.1-405b")
    assert (workload["sequence_length"], workload["global_batch"], workload["micro_batch"]) == (8192, 64, 1)
    parallel = workload["parallel"]
    assert {key: parallel[key] for key in ("tp", "pp", "cp", "dp")} == {"tp": 4, "pp": 8, "cp": 1, "dp": 4}
    assert "ep" not in parallel, "a dense model has no experts"
    precision = workload["precision"]
    assert precision["gradients"] == "bf16"
    assert precision.get("recipe", "current") == "current" and precision.get("weights", "fp8") == "fp8"
    assert workload["recompute"] == "none" and not case.taken
    assert "64 of 72" in case.note and "grad_reduce_in_fp32" in case.note


def test_what_the_source_documents_stands_for_what_the_row_leaves_out():
    case = steps(
        id="megatron-sc21-76.1B-x", model="GPT 76.1B (heads 80, hidden 10240, layers 60)",
        system="Selene DGX A100 80GB", n_accelerators="1024", precision="FP16 mixed", tp="8", pp="4",
        dp="32", vpp="", micro_batch="", source="", where="",
    )  # fmt: skip
    workload = case.scenario["workload"]
    assert (workload["micro_batch"], workload["recompute"], workload["zero_stage"]) == (2, "full", 0)
    assert workload["model"]["n_embd"] == 10240 and workload["model"]["vocab_size"] == 51200
    assert not case.taken and "run_table_1.sh" in case.note
    said = (*case.unsaid, str(workload))
    assert any("virtual_stages" in one for one in said), "set, or said not to be expressed"


def test_a_detail_that_nobody_states_is_said_to_be_taken():
    case = steps(id="other-1", source="a page", micro_batch="")
    assert case.scenario["workload"]["micro_batch"] == 1
    assert "taken: micro_batch 1" in case.note and "recompute selective" in case.note


def test_keys_that_are_not_there_are_said_and_left_out():
    plan = RowPlan("A100", "Llama 3.1 8b", "BF16", 8, {"parallel.nonsense": 3, "sequence_length": 64})
    case = building.build(plan, {}, ())
    assert "nonsense" not in str(case.scenario) and case.unsaid == ("parallel.nonsense 3",)
    assert (
        building.has_key("parallel.tp")
        and building.has_key("precision.gradients")
        and not building.has_key("parallel.tp.x")
    )


def test_the_software_of_a_row_is_a_rule_and_said_where_there_is_no_such_stack():
    plan = RowPlan("H100", "Llama 3.1 8b", "BF16", 8, {"sequence_length": 64})
    for stack, there in (("cuda_eager", True), ("cuda_of_tomorrow", False)):
        rule = RecipeRule(of={"where": "25.09"}, set={"stack": stack}, why="the container")
        case = building.build(plan, {"where": "25.09 NeMo"}, (rule,))
        assert (case.scenario["systems"][0].get("stack") == stack) == there
        assert (f"stack {stack}" in case.unsaid) != there
        assert "stack" not in building.build(plan, {"where": "26.02"}, (rule,)).scenario["systems"][0]


def test_what_the_rows_own_source_prints_stands_over_the_table():
    """A log's plan over that of a configuration of the same name; its batches a second as the time of one."""
    row = {
        "dir": "Dell/results/1xXE9680Lx8H200-SXM-141GB/llama2_70b_lora", "gbs": "8.0", "seq": "", "chip": "H200",
        "median_throughput_samples_s": "3.1482", "n_gpus": "8", "plan_tp_pp_cp_dp_microbatches": "1/1/2/4/2",
        "config_files": "config_1x8x2xtp1pp1cp2.sh",
    }  # fmt: skip
    form = FORMS["mlperf"]
    workload = form.case(row).scenario["workload"]
    assert (workload["parallel"]["tp"], workload["parallel"]["cp"]) == (2, 1)
    assert "plan_tp_pp_cp_dp_microbatches 2/1/1/4/2" in form.case(row).note
    assert form.measured_step_s(row, 0.0) == 3.1482
    rate = {**row, "dir": row["dir"].replace("9680L", "9680"), "median_throughput_samples_s": "2.5548"}
    assert form.measured_step_s(rate, 0.0) == pytest.approx(8 / 2.5548, rel=1e-4)
    other = {**row, "dir": "elsewhere/llama2_70b_lora"}
    assert form.case(other).scenario["workload"]["parallel"]["tp"] == 1 and "plan_tp" not in form.case(other).note


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tp": ""}, "no parallel plan"),
        ({"tp": "two"}, "tp: got 'two'"),
        ({"tp": "1.5"}, "a whole number"),
        ({"global_batch": ""}, "no global_batch"),
        ({"seq_len": "inf"}, "seq_len"),
        ({"model": "Gargantua 3T"}, "no model known"),
        ({"model": "Nemotron_3_Super"}, "latent space"),
        ({"system": "abacus"}, "no system known"),
        ({"system": "DGX-B300"}, "B300"),
        ({"precision": ""}, "no number format"),
        ({"n_accelerators": "100"}, "128 ranks on 100 accelerators"),
        ({"n_accelerators": "100", "dp": ""}, "do not fill domains"),
        ({"metric": "time_to_train"}, "not a step"),
        ({"model": "LLAMA3 70B", "conditions": "SFT"}, "fine-tuning"),
        ({"model": "Llama 3.1 405b (proxy, layers 8)"}, "not the model"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_become_a_run_says_why(change, says):
    case = steps(**change)
    assert case.scenario is None and says in case.note


def test_forms_are_told_by_their_columns(shared):
    files = {
        "steps": "validation_training", "vtrain": "training_vtrain", "mosaic": "training_mosaic",
        "mindspeed": "training_mindspeed_910b", "mlperf": "training_mlperf51", "simumax": "training_simumax_b200",
    }  # fmt: skip
    assert list(files) == list(FORMS)
    for name, file in files.items():
        for folder in (shared / "reference", reading.DATA / "workloads" / "reference"):
            path = (
                folder
                / f"{file if folder.parent == shared else file.replace('validation_training', 'training_steps')}.csv"
            )
            with path.open(newline="") as lines:
                rows = list(csv.DictReader(lines))
            form = form_of(list(rows[0]), str(path))
            assert form.name == name
            cases = [form.case(row) for row in rows]
            assert all(case.scenario is not None or case.reason for case in cases)
            assert sum(case.scenario is not None for case in cases) > 0.15 * len(cases)


def test_a_table_of_no_form_is_refused_with_what_it_lacks(tmp_path):
    (tmp_path / "rows.csv").write_text("id,system,modell\n1,2,3\n")
    with pytest.raises(InputError, match="model: no such column, of the form 'steps'"):
        predict_training(tmp_path / "rows.csv")


def test_predict_writes_a_row_for_each_row(tmp_path):
    rows = [SMALL, {**SMALL, "tp": ""}, SMALL, {**SMALL, "dp": "4"}]
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    out = tmp_path / "out.csv"
    said = CliRunner().invoke(app, ["predict", "training", str(tmp_path / "rows.csv"), "--out", str(out)])
    assert said.exit_code == 0, said.output
    frame = pd.read_csv(out)
    assert list(frame["id"]) == [STEP["id"]] * 4 and list(frame.columns[-4:]) == [
        "predicted_step_time_s", "predicted_tokens_per_s_per_accelerator", "predicted_memory_GiB", "note",
    ]  # fmt: skip
    done = frame["predicted_step_time_s"].notna()
    assert done.tolist() == [True, False, True, False]
    assert frame["note"].notna().all() and "4 ranks on 8" in frame["note"][3]
    first = frame.iloc[0]
    assert first["predicted_tokens_per_s_per_accelerator"] == pytest.approx(
        8 * 8192 / 8 / first["predicted_step_time_s"], rel=1e-6
    )
    assert 10 < first["predicted_memory_GiB"] < 200
    assert "2 of them predicted" in said.output
    wrong = CliRunner().invoke(app, ["predict", "training", str(out), "--out", str(out), "--system", "hgx_h100"])
    assert wrong.exit_code == 2 and "--system" in wrong.output


def test_equal_rows_are_played_once(monkeypatch):
    asked = []
    real = api.run
    monkeypatch.setattr(api, "run", lambda scenario, **more: (asked.append(scenario), real(scenario, **more))[1])
    cases = [FORMS["steps"].case(row) for row in (SMALL, SMALL, {**SMALL, "tp": ""}, {**SMALL, "metric": "mfu"})]
    played = play_all(cases)
    assert len(asked) == 1
    assert played[0] == played[1] == played[3] and played[2].reason


def test_a_run_that_does_not_fit_is_played_and_says_so():
    played = play(steps(system="DGX-H100", n_accelerators="8", tp="1", pp="1", dp="8", vpp="", global_batch="8"))
    assert played.step_time_s is not None and "does not fit" in played.notes[0]


def test_a_key_that_is_refused_may_be_dropped_and_is_said():
    scenario = FORMS["steps"].case(SMALL).scenario
    bad = {**scenario, "workload": {**scenario["workload"], "zero_stage": 9}}
    assert "refused" in play(Case(bad)).reason
    played = play(Case(bad, extras=("zero_stage",)))
    assert played.step_time_s is not None and "without zero_stage 9" in played.notes[0]


def test_names_lead_somewhere():
    known = names()
    models = reading.builtin_files("workloads/models", "*.json")
    for line in (*known.models, *known.machines, *known.sizes, *known.formats):
        re.compile(line.match)
    for line in known.models:
        assert line.why or line.config or line.model in models
    for line in known.machines:
        assert line.why or load_system(line.system)
    # the first that is found counts: none hides another
    assert FORMS["steps"].case({**SMALL, "model": "Llama 3.1 70b"}).scenario["workload"]["model"] == "llama-3.1-70b"


def test_rules_set_keys_that_are_known():
    contract = {
        "parallel.virtual_stages", "parallel.expert_tp", "schedule", "tp_overlap", "fsdp", "capacity_factor",
        "mtp_layers", "precision.recipe", "balance.model", "recompute", "stack", "parallel.cp_comm_type",
    }  # fmt: skip
    for form in FORMS:
        for rule in getattr(recipes(), form):
            assert rule.left_out or rule.why
            for key in rule.set:
                assert key in contract or building.has_key(key), key


def test_mpt_models_have_the_parameters_of_the_table(tmp_path):
    import json

    with (reading.DATA / "workloads/reference/training_mosaic.csv").open(newline="") as lines:
        sizes = {(row["Model"], row["NumParams"], row["SeqLen (T)"]): row for row in csv.DictReader(lines)}
    assert len(sizes) > 50
    for row in sizes.values():
        config = FORMS["mosaic"].case(row).scenario["workload"]["model"]
        (tmp_path / "one.json").write_text(json.dumps(config))
        assert load_any(tmp_path / "one.json").total_parameters == int(row["NumParams"])
