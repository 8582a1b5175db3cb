"""Rows of tables of served models as services: forms, plans, rules, and what is said of them."""

from __future__ import annotations

import csv
import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from cmsim import api, reading
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.published import SERVICE_FORMS, predict_serving, service_form_of
from cmsim.published.service_row import serving_file
from cmsim.workload.model import parse_model

ROW = {
    "id": "a-1", "silicon_data_source": "source_file=x.csv; silicon_concurrency=16", "backend": "trtllm",
    "backend_version": "1.2.0", "model_path": "deepseek-ai/DeepSeek-R1", "system": "h200_sxm", "precision": "fp8",
    "mode": "agg", "isl": "1024", "osl": "1024", "gemm_quant_mode": "fp8", "moe_quant_mode": "fp8",
    "batch_size": "16.0", "tp_size": "8.0", "pp_size": "1.0", "attention_dp_size": "1.0", "moe_tp_size": "1.0",
    "moe_ep_size": "8.0",
}  # fmt: skip
NIGHT = {
    "file": "x/Qwen3-32B-A2.yaml", "case": "Qwen3-32B", "bench": "perf", "model": "vllm-ascend/Qwen3-32B-W8A8",
    "tp": "4", "dp": "", "pp": "", "ep": "", "max_num_seqs": "", "max_batched": "40960", "spec": "", "quant": "ascend",
    "dataset": "vllm-ascend/GSM8K_prefix90_in65536_bs100", "num_prompts": "80", "max_out": "1024", "concurrency": "20",
    "request_rate": "0.0", "baseline_output_tok_s": "100",
}  # fmt: skip


def case(**change):
    return SERVICE_FORMS["aiconfigurator"].case({**ROW, **change})


def plan(**change):
    return case(**change).scenario["workload"]["parallel"]


def test_a_row_becomes_the_service_that_it_describes():
    one = case()
    (entry,) = one.scenario["systems"]
    assert entry == {"system": "hgx_h200", "accelerators": 8, "stack": "tensorrt_llm"}
    workload = one.scenario["workload"]
    assert workload["arrivals"] == {"process": "closed", "concurrency": 16}
    assert workload["lengths"] == {"prompt_tokens": 1024, "output_tokens": 1024, "least": 0.8}
    assert (workload["model"], workload["accelerators"]) == ("deepseek-r1", 8)
    assert {name: workload["parallel"][name] for name in ("tp", "dp", "ep")} == {"tp": 8, "dp": 1, "ep": 8}
    assert workload["precision"]["weights"] == "fp8" and workload["batching"]["sequences"] == 16
    assert "InferenceX draws lengths" in one.note and not one.reason


def test_sizes_that_hold_concurrency_and_that_are_missing():
    assert (plan(tp_size="64")["tp"], plan(tp_size="16", moe_ep_size="4")["tp"]) == (8, 4)
    of_data = plan(tp_size="1", attention_dp_size="64")
    assert (of_data["tp"], of_data["dp"], of_data["attention"]) == (1, 8, "dp")
    assert plan(tp_size="1", attention_dp_size="", batch_size="2")["dp"] == 8, "16 users over batches of 2"
    assert plan(tp_size="2", attention_dp_size="", batch_size="16")["dp"] == 4, "experts' ranks over those of attention"
    assert plan(model_path="meta-llama/Llama-3.1-8B", tp_size="2", moe_tp_size="2", moe_ep_size="1")["tp"] == 2
    assert "ep" not in plan(model_path="meta-llama/Llama-3.1-8B"), "a dense model has no experts"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"tp_size": "64", "moe_tp_size": "8"}, (8, 1, 8)),
        ({"tp_size": "16", "moe_tp_size": "4", "moe_ep_size": "4"}, (4, 1, 4)),
        ({"tp_size": "1", "attention_dp_size": "64", "moe_tp_size": "8"}, (1, 8, 8)),
        ({"tp_size": "4", "moe_tp_size": "2", "moe_ep_size": "2", "id": "b200_c4_tp2_0_ep2_0_9"}, (2, 1, 2)),
        ({"tp_size": "4", "moe_tp_size": "2", "moe_ep_size": "2", "id": "h100_c32_tp4_epnone_28"}, (4, 1, 2)),
    ],
)
def test_sizes_of_a_recipe_in_the_columns_of_experts(change, found):
    """Eight by eight is a node whose attention and experts are split over all of it, not eight nodes."""
    got = plan(**change)
    assert (got["tp"], got["dp"], got["ep"]) == found
    assert ("expert_tp" in got) == (found == (4, 1, 2))


OWN = {"silicon_data_source": "source_file=aic-auto-gap-analysis/x.csv; silicon_concurrency=16", "isl": "2048"}


@pytest.mark.parametrize(
    ("change", "stack", "found"),
    [
        ({**OWN}, "tensorrt_llm_default", {"step_tokens": 16 + 2048 + 1500, "whole_prompts": True}),
        ({**OWN, "backend": "sglang", "backend_version": "0.5.1.post1"}, "sglang_default", {"whole_prompts": True}),
        ({**OWN, "backend": "sglang", "backend_version": "0.5.6.post2"}, "sglang_mixed", {"step_tokens": 3564}),
        ({"backend": "sglang", "system": "b200_sxm"}, "sglang_served", {"poll_steps": 30, "step_tokens": 32768}),
        (
            {"backend": "sglang", "system": "b200_sxm", "silicon_data_source": "silicon_concurrency=8; x"},
            "sglang_served",
            {"poll_steps": 10},
        ),
        ({"backend": "sglang"}, "sglang_served", {"step_tokens": 32768}),
        ({"model_path": "llama/Llama-3.1-70B", "tp_size": "4.0"}, "tensorrt_llm", {"gather_steps": 20}),
        ({"model_path": "llama/Llama-3.1-70B"}, "tensorrt_llm", {"step_tokens": 16384, "whole_prompts": True}),
    ],
)
def test_engines_are_run_as_their_recipes_say(change, stack, found):
    one = case(**change)
    batching = one.scenario["workload"]["batching"]
    assert {name: batching.get(name) for name in found} == found
    assert one.scenario["systems"][0]["stack"] == stack
    gates = {"poll_steps", "gather_steps"}
    assert set(batching) & gates == set(found) & gates, "nobody else waits"


def test_experts_alone_are_in_four_bits():
    precision = case(model_path="openai/gpt-oss-120b").scenario["workload"]["precision"]
    assert precision["weights"] == "bf16" and precision["experts"] == "fp4"


def test_pools_apart():
    pools = {f"{name}_{key}": value for name in ("prefill", "decode") for key, value in (
        ("tp_size", "8.0"), ("pp_size", "1"), ("attention_dp_size", "1"), ("moe_tp_size", "1"), ("moe_ep_size", "8"),
    )}  # fmt: skip
    one = case(**pools, mode="disagg", decode_num_workers="9", prefill_num_workers="")
    workload = one.scenario["workload"]
    assert (workload["prefill"]["replicas"], workload["decode"]["replicas"]) == (1, 9)
    assert workload["decode"]["accelerators"] == 8 and workload["decode"]["parallel"]["ep"] == 8
    assert one.scenario["systems"][0]["domains"] == 10
    assert "prefill.replicas 1 (not in the row)" in one.taken


def test_what_is_not_known_is_said():
    assert "no model known" in case(model_path="nobody/Nothing-7B").reason
    assert "no system known" in case(system="abacus").reason
    assert "pipeline stages" in case(pp_size="2").reason
    assert "neither a concurrency nor a batch" in case(silicon_data_source="", batch_size="").reason
    odd = case(gemm_quant_mode="int3", precision="int3", backend="another")
    assert odd.scenario["workload"]["precision"]["weights"] == "bf16" and "stack" not in odd.scenario["systems"][0]
    assert any("the format is not known here" in one for one in odd.taken)
    doubtful = case(isl="4000", osl="1000")
    assert doubtful.scenario is not None and "lengths of another kind" in doubtful.note


def test_nightly_rows():
    form = SERVICE_FORMS["nightly"]
    one = form.case(NIGHT)
    workload = one.scenario["workload"]
    assert one.scenario["systems"][0]["system"] == "atlas_800_a2" and workload["accelerators"] == 4
    assert workload["lengths"] == {"prompt_tokens": 65536, "output_tokens": 1024, "shared": 0.9}
    assert workload["arrivals"] == {"process": "closed", "concurrency": 20, "requests": 80}
    assert workload["precision"]["weights"] == "int8"
    other = form.case({**NIGHT, "file": "x.yaml", "spec": "mtp", "tp": "8", "dp": "2", "request_rate": "0.5"})
    assert other.scenario["systems"][0] == {"system": "cloudmatrix384", "accelerators": 8, "stack": "ascend_served"}
    assert other.scenario["workload"]["arrivals"]["rate_per_s"] == 0.5 and not other.unsaid
    assert other.scenario["workload"]["speculative"] == {"draft_tokens": 3, "acceptance": [0.86, 0.73, 0.67]}
    mixture = {
        **NIGHT,
        "model": "Eco-Tech/Qwen3.5-122B-A10B-w8a8-mtp",
        "case": "Qwen3.5-122B",
        "spec": "mtp",
        "dp": "2",
    }
    for ep, plan in (("1.0", {"tp": 4, "dp": 2, "ep": 8}), ("", {"tp": 4, "dp": 2, "expert_tp": 8})):
        one = form.case({**mixture, "ep": ep})
        assert one.scenario["workload"]["parallel"] == plan, "experts are spread, or cut where no flag spreads them"
        assert one.scenario["systems"][0]["stack"] == "ascend_served_drafts"
    block = form.case({**NIGHT, "model": "Eco-Tech/Kimi-K2.6-w4a8", "ep": "1.0"}).scenario["workload"]
    assert block["speculative"]["at_once"] and block["precision"] == {
        "weights": "int8",
        "activations": "int8",
        "experts": "fp4",
    }
    assert "310P" in form.case({**NIGHT, "file": "Qwen3-14B-310p.yaml"}).reason
    assert "no length of prompts" in form.case({**NIGHT, "dataset": "GSM8K"}).reason


ALL_AT_ONCE = {
    "id": "t-1", "system": "H100 (DGX class)", "model": "Llama 3.3 70B", "n_accelerators": "2", "precision": "FP8",
    "tp": "2", "pp": "", "ep": "", "metric": "output_tokens_per_sec_total", "value": "4205", "unit": "tokens/s",
    "conditions": "TensorRT-LLM v1.0 trtllm-bench, offline max throughput, ISL 1000 OSL 1000, synthetic fixed length",
}  # fmt: skip


def test_rows_of_requests_that_are_there_at_once():
    form = service_form_of(list(ALL_AT_ONCE))
    one = form.case(ALL_AT_ONCE)
    assert one.scenario["systems"] == [{"system": "hgx_h100", "accelerators": 2, "stack": "tensorrt_llm"}]
    workload = one.scenario["workload"]
    assert workload["arrivals"] == {"process": "closed", "concurrency": 3000, "requests": 3000}
    assert workload["parallel"] == {"tp": 2, "dp": 1} and workload["precision"]["kv_cache"] == "fp8"
    batching = workload["batching"]
    # 0.95 of 2 x 80 GiB less 70.55 GB is 96.2 GB: 293.7 requests of 2,000 tokens of 163,840 B, in multiples of 128
    assert (batching["sequences"], batching["step_tokens"]) == (384, 2048)
    assert batching["whole_answers"] and batching["whole_prompts"]
    apart = {**ALL_AT_ONCE, "model": "Llama 4 Maverick", "n_accelerators": "8", "tp": "8"}
    apart["conditions"] += "; attention DP enabled"
    workload = form.case(apart).scenario["workload"]
    assert workload["parallel"] == {"tp": 1, "dp": 8, "ep": 8, "attention": "dp"}
    assert workload["precision"]["kv_cache"] == "bf16"
    assert "pipeline stages" in form.case({**ALL_AT_ONCE, "pp": "2"}).reason
    assert "all there at once" in form.case({**ALL_AT_ONCE, "metric": "median_itl"}).reason
    assert "no number format" in form.case({**ALL_AT_ONCE, "precision": "INT3"}).reason
    assert form.measured(ALL_AT_ONCE).output_tokens_per_s == 4205


def test_most_rows_that_ship_run():
    tables = (("serving_measured.csv", 0.0), ("ascend_serving_ci.csv", 0.1), ("serving_throughput.csv", 0.0))
    for table, most_without in tables:
        with (reading.DATA / "workloads/reference" / table).open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        form = service_form_of(list(rows[0]))
        reasons = [form.case(row).reason for row in rows]
        assert sum(map(bool, reasons)) <= most_without * len(rows), set(reasons)


def test_a_table_is_predicted_row_by_row(tmp_path):
    small = {**ROW, "model_path": "Llama-3.1-8B", "tp_size": "1", "moe_ep_size": "1", "isl": "128", "osl": "16"}
    small["silicon_data_source"] = "silicon_concurrency=2"
    table, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    pd.DataFrame([small, {**small, "system": "abacus"}, small]).to_csv(table, index=False)
    done = CliRunner().invoke(app, ["predict", "serving", str(table), "--out", str(out), "--jobs", "1"])
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(out)
    assert list(frame["id"]) == ["a-1"] * 3 and frame["predicted_tpot_ms"].notna().tolist() == [True, False, True]
    first, _, third = frame.to_dict("records")
    assert first["predicted_ttft_ms"] == third["predicted_ttft_ms"] > first["predicted_tpot_ms"] > 0
    # two users of 12.8 to 16 tokens each: Little's law of the closed loop, ends of the run apart
    e2e_s = (first["predicted_ttft_ms"] + 13.4 * first["predicted_tpot_ms"]) / 1e3
    assert first["predicted_output_tokens_per_s"] == pytest.approx(2 * 14.4 / e2e_s, rel=0.1)
    assert "no system known" in frame["note"][1]


def test_a_table_of_no_form(tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="no such column"):
        predict_serving(table)


def test_names_and_rules_are_of_what_there_is():
    for line in serving_file().models:
        if line.config:
            model = parse_model(json.dumps(line.config), name=line.match, file="")
            # of a name that says billions of parameters
            if said := re.search(r"(?<!x)(?<!\d)(\d+)b", line.match):
                assert model.total_parameters == pytest.approx(float(said[1]) * 1e9, rel=0.09), line.match
    for rule in (*serving_file().aiconfigurator, *serving_file().nightly, *serving_file().throughput):
        assert rule.why or rule.left_out or rule.ttft_left_out, rule
        if "stack" in rule.set:
            assert rule.set["stack"] in reading.builtin_files("topologies/stacks")


def test_prompts_that_begin_alike_are_computed_once():
    found = {}
    for shared in (0.0, 0.75):
        workload = {
            "kind": "serving", "model": "llama-3.1-8b",
            "arrivals": {"process": "closed", "concurrency": 1, "requests": 4},
            "lengths": {"prompt_tokens": 2048, "output_tokens": 2, "shared": shared},
            "batching": {"prefix_share": 0.2, "sequences": 1},
        }  # fmt: skip
        (one,) = api.run({"systems": [{"system": "hgx_h100", "accelerators": 1}], "workload": workload}).outcomes
        found[shared] = one.metrics
    assert found[0.75]["prefix_hit_fraction"] == pytest.approx(0.75)  # of blocks that prompts share, the first has none
    assert found[0.75]["ttft_s_p50"] < 0.6 * found[0.0]["ttft_s_p50"]
