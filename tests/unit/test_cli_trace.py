"""``cmsim trace`` and ``cmsim export`` as a user has them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app, main
from cmsim.errors import InputError
from cmsim.scenario import load_scenario

TRACES = Path(__file__).resolve().parents[2] / "workloads" / "traces"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "traces"
TRUTH = json.loads((SHARED / "TRUTH.json").read_text()) if (SHARED / "TRUTH.json").is_file() else {}
#: counted by another tool, which counts other operations as products
NOT_OURS = {"onnx_tool_macs"}

DECODE = """
name: small
systems: [{system: hgx_h100, domains: 2, stack: cuda_graph}]
workload:
  kind: decode
  model: llama-3.1-8b
  batch_per_accelerator: 8
  context_tokens: 1024
  parallel: {tp: 4}
  precision: {weights: bf16, activations: bf16, kv_cache: bf16}
"""


def call(*args: object) -> str:
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(capsys, monkeypatch, *args: object) -> str:
    monkeypatch.setattr("sys.argv", ["cmsim", *map(str, args)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def info(path: object) -> dict:
    return json.loads(call("trace", "info", path, "--json"))


@pytest.mark.skipif(not TRUTH, reason="the collected traces are not beside this checkout")
@pytest.mark.parametrize("name", [name for name in TRUTH if not name.startswith("_")])
def test_counts_of_every_file_are_the_true_ones(name):
    counts = info(SHARED / name)["counts"]
    for key, value in TRUTH[name].items():
        if key not in NOT_OURS:
            assert counts[key] == value, key


@pytest.mark.skipif(not TRUTH, reason="the collected traces are not beside this checkout")
@pytest.mark.parametrize("name", TRUTH.get("_sets", {}))
def test_counts_of_sets_are_the_true_ones(name):
    counts = info(SHARED / name)["counts"]
    assert {key: counts[key] for key in TRUTH["_sets"][name]} == TRUTH["_sets"][name]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "kineto/dlrm_8gpu",
            ("ranks recorded", "critical path", "exposed communication", "all_to_all", "communicator"),
        ),
        ("ascend/alexnet_ddp_level1", ("ranks recorded", "all_reduce", "kernel")),
        ("simai/workload_analytical_9216gpu_moe.txt.gz", ("simai-workload", "1 of 9,216", "dp_ep", "note:")),
        ("chakra/ring_allreduce_8npus_1MB", ("send", "recv", "14.7 MB")),
        ("goal/blocking.goal", ("goal-text", "send")),
        ("aicb/A100_example_measured.csv.gz", ("aicb-csv", "8,538")),
        ("pytorch_et/dlrm_8gpu/dlrm_eg_0.json.gz", ("pytorch-et-json", "1,675")),
        ("azure/AzureLLMInferenceTrace_code.csv.gz", ("azure-llm-2023", "18,059,974")),
        ("onnx/light_resnet50.onnx", ("operator", "Conv")),
    ],
)
def test_what_people_see(name, says):
    shown = call("trace", "info", name)
    for text in says:
        assert text in shown, text


def test_several_files_at_once():
    both = json.loads(call("trace", "info", "goal/blocking.goal", "chakra/ring_allreduce_8npus_1MB", "--json"))
    assert [one["counts"]["format"] for one in both] == ["goal-text", "chakra-et"]


def test_convert_and_read_back(tmp_path):
    out = tmp_path / "dlrm.parquet"
    call("trace", "convert", "kineto/dlrm_8gpu", "--out", out)
    before, after = info("kineto/dlrm_8gpu")["trace"], info(out)["trace"]
    assert after.pop("format") == "kineto" == before.pop("format")
    assert after.pop("source") != before.pop("source")
    assert after == before


def test_export_then_import_gives_the_same_ops_groups_and_makespan(tmp_path):
    scenario = tmp_path / "decode.yaml"
    scenario.write_text(DECODE)
    call("export", "chakra", scenario, "--out", tmp_path / "et")
    (one,) = cmsim.run(scenario)
    again = {"name": "again", "systems": [{"system": "hgx_h100", "domains": 2}]}
    (two,) = cmsim.run(load_scenario({**again, "workload": {"kind": "trace", "path": str(tmp_path / "et")}}))
    assert two.metric("makespan_s") == one.metric("makespan_s")
    columns = ["op", "kind", "start_ps", "end_ps", "flops", "bytes_B", "kernel", "multiplicity"]
    order = ["rank_class", "start_ps", "end_ps", "op"]
    mine, other = (r.ops.sort_values(order).reset_index(drop=True)[columns] for r in (one, two))
    assert mine.equals(other)


def test_a_run_of_several_must_be_named(tmp_path, capsys, monkeypatch):
    said = refused(capsys, monkeypatch, "export", "chakra", "headline", "--out", tmp_path / "x")
    assert "--run says which" in said and "training/gb200_nvl72" in said
    said = refused(capsys, monkeypatch, "export", "chakra", "headline", "--out", tmp_path / "x", "--run", "trainin")
    assert "no run 'trainin'" in said
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("cut.json", b'{"schemaVersion": 1, "traceEvents": [{"ph": "X", "cat": "kernel", "name": ', "byte"),
        ("words.txt", b"hello, world\n", "no known form"),
        ("empty.et", b"", "is empty"),
        ("cut.et", b"\x40\x08\x01", "cut short"),
        ("bomb.json.gz", gzip.compress(b"[" * 30_000_000), ""),
        ("half.csv", b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,12\n", ":2"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, capsys, monkeypatch, name, data, says):
    (tmp_path / name).write_bytes(data)
    said = refused(capsys, monkeypatch, "trace", "info", tmp_path / name)
    assert name in said and says in said


def test_a_folder_of_several_says_what_it_holds(tmp_path, capsys, monkeypatch):
    for name in ("b.csv", "a.csv", "d.csv", "c.csv"):
        (tmp_path / name).write_text("x,y\n")
    said = refused(capsys, monkeypatch, "trace", "info", tmp_path)
    assert "the folder holds a.csv, b.csv, c.csv and 1 more: name one" in said
    (tmp_path / "none").mkdir()
    assert "the folder is empty" in refused(capsys, monkeypatch, "trace", "info", tmp_path / "none")


def test_expanded_size_is_limited(tmp_path, capsys, monkeypatch):
    path = tmp_path / "big.csv.gz"
    path.write_bytes(
        gzip.compress(b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + b"2023-11-16 18:17:03.9,1,1\n" * 100_000)
    )
    assert info(path)["counts"]["requests"] == 100_000
    said = refused(capsys, monkeypatch, "trace", "info", path, "--limit", "0.001")
    assert "big.csv.gz" in said and "1000000" in said.replace(",", "")


def test_a_format_that_there_is_not(capsys, monkeypatch):
    said = refused(capsys, monkeypatch, "trace", "info", "goal/blocking.goal", "--format", "goall")
    assert "Did you mean 'goal'?" in said


def test_a_trace_that_there_is_not(tmp_path, capsys, monkeypatch):
    assert "no such" in refused(capsys, monkeypatch, "trace", "convert", "none/there", "--out", tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"compute": "scaled"}, "recorded_on"),
        ({"compute": "scaled", "recorded_on": "v100_sxm2", "collectives": "recorded"}, "collectives"),
        ({"placement": "somewhere"}, "placement: got 'somewhere'"),
        ({"path": "kineto/none"}, "Built in: aicb/"),
        ({"format": "kinetto"}, "Did you mean 'kineto'?"),
    ],
)
def test_wrong_keys_of_a_replay(keys, says):
    workload = {"kind": "trace", "path": "kineto/dlrm_8gpu", "ranks": 8, **keys}
    with pytest.raises(InputError) as error:
        cmsim.run(load_scenario({"name": "x", "systems": ["hgx_a100"], "workload": workload}))
    assert says in str(error.value)


def test_places_from_a_file(tmp_path):
    """Neighbours in the job stand in different boxes: what tensor parallelism exchanges leaves the box."""
    (tmp_path / "places.json").write_text(json.dumps([rank // 2 + 8 * (rank % 2) for rank in range(16)]))
    found = {}
    for name, placement in {"near": "contiguous", "far": str(tmp_path / "places.json")}.items():
        path = "simai/L7B-M1-C04_Llama7B_megatron_tp2_pp1_mbs1_A100.txt"
        workload = {"kind": "trace", "path": path, "ranks": 16, "placement": placement}
        systems = [{"system": "hgx_h100", "domains": 2}]
        (found[name],) = cmsim.run(load_scenario({"name": name, "systems": systems, "workload": workload}))
    assert found["far"].metric("exposed_comm_s") > 1.5 * found["near"].metric("exposed_comm_s")


def test_the_table_beside_the_recording():
    shown = call("run", "trace_replay")
    assert "projected: recorded and simulated" in shown
    for word in ("step", "compute", "exposed comm", "idle", "energy", "change"):
        assert word in shown


def test_time_without_a_cause_is_told_above_the_table(tmp_path):
    trace = Path(__file__).parents[1] / "cases" / "kineto" / "recommender_200ms.json.gz"
    text = f"{{name: cut, systems: [{{system: hgx_a100, domains: 2}}], workload: {{kind: trace, path: {trace}}}}}"
    (tmp_path / "s.yaml").write_text(text)
    above, _, below = call("run", tmp_path / "s.yaml").partition("makespan")
    assert "- warning: " in above and "gaps without a cause in the file" in above
    assert "gaps without" not in below and "waits for the device" in below


def test_formats_are_listed():
    rows = json.loads(call("list", "formats", "--json"))["formats"]
    names = [row["name"] for row in rows]
    assert {"chakra", "kineto", "ascend", "goal", "aicb", "astra", "pytorch_et", "cmsim", "mooncake"} <= set(names)
    assert all(row["description"] for row in rows)


def test_neither_hash_seed_nor_order_of_files_changes_a_result(tmp_path):
    """The same scenario, the same bytes: in processes of other hash seeds, from folders filled in another order."""
    names = sorted((TRACES / "kineto" / "dlrm_8gpu").iterdir())
    scenario = "{{name: same, systems: [hgx_a100], workload: {{kind: trace, path: {}, ranks: 8}}}}"
    said = []
    for number, order in enumerate((names, names[::-1])):
        folder = tmp_path / f"turn{number}" / "profiles"
        folder.mkdir(parents=True)
        for name in order:
            (folder / name.name).write_bytes(name.read_bytes())
        (folder.parent / "same.yaml").write_text(scenario.format("profiles"))
        for seed in ("1", "2"):
            command = [sys.executable, "-m", "cmsim", "run", "same.yaml", "--json", "--quiet"]
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            done = subprocess.run(
                command, cwd=folder.parent, env=environment, capture_output=True, text=True, check=True
            )
            said.append(done.stdout)
    assert len(said[0]) > 1000
    assert len(set(said)) == 1
