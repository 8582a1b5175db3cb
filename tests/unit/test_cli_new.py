"""``cmsim new``: what it writes, says, and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cmsim.cli.app import app

CASES = Path(__file__).parents[1] / "cases" / "launch" / "training"


@pytest.fixture
def new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _new(*args: str):
        return CliRunner().invoke(app, ["new", "--from", *args])

    return _new


def test_explain_prints_yaml_and_writes_nothing(new, tmp_path):
    done = new(str(CASES / "01.sh"), "--explain")
    assert done.exit_code == 0
    said = yaml.safe_load(done.stdout)
    assert (said["tool"], said["tp"], said["global_batch"]) == ("megatron-lm", 4, 512)
    assert "--tp-comm-overlap" in said["unread"]
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_is_written_that_runs(new, tmp_path):
    text = """# one node of 8 H100
torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 4 --hidden-size 1024 --num-attention-heads 16 --swiglu \\
  --ffn-hidden-size 2816 --seq-length 1024 --micro-batch-size 1 --global-batch-size 8 --bf16 --vocab-size 32000 \\
  --tensor-model-parallel-size 2 --use-distributed-optimizer --cross-entropy-loss-fusion
"""
    (tmp_path / "small.sh").write_text(text)
    done = new("small.sh")
    assert done.exit_code == 0, done.output
    assert "--cross-entropy-loss-fusion touch performance" in done.stderr
    scenario = yaml.safe_load((tmp_path / "small.scenario.yaml").read_text())
    assert scenario["systems"] == [{"system": "hgx_h100"}]
    assert scenario["workload"]["parallel"] == {"tp": 2, "dp": 4, "sequence_parallel": False}
    model = json.loads((tmp_path / "small.model.json").read_text())
    assert (model["model_type"], model["num_hidden_layers"], model["intermediate_size"]) == ("llama", 4, 2816)
    ran = CliRunner().invoke(app, ["run", "small.scenario.yaml", "--json"])
    assert ran.exit_code == 0, ran.output
    again = new("small.sh")
    assert again.exit_code == 2
    assert "--force writes over it" in again.stderr
    assert new("small.sh", "--force").exit_code == 0


def test_a_system_that_nobody_names_is_to_be_filled_in(new, tmp_path):
    assert new(str(CASES / "02.sh"), "--out", "a/b.yaml").exit_code == 0
    assert yaml.safe_load((tmp_path / "a" / "b.yaml").read_text())["systems"] == [{"system": "SYSTEM"}]
    assert (tmp_path / "a" / "b.model.json").is_file()
    done = CliRunner().invoke(app, ["check", "a/b.yaml"])
    assert done.exit_code == 2
    assert "SYSTEM" in done.stderr
    assert new(str(CASES / "02.sh"), "--system", "h100").exit_code == 0
    assert new(str(CASES / "02.sh"), "--system", "hgx_h1000", "--force").exit_code == 2


def test_which_of_several_jobs(new, tmp_path):
    line = "torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 4 --hidden-size 1024 --num-attention-heads 16 "
    line += "--seq-length 1024 --micro-batch-size 1 --bf16 --tensor-model-parallel-size $tp"
    (tmp_path / "two.sh").write_text(f"for tp in 1 2; do {line}; done")
    done = new("two.sh", "--system", "hgx_h100")
    assert done.exit_code == 2
    assert "--case says which: 1, 2" in done.stderr
    assert new("two.sh", "--system", "hgx_h100", "--case", "2").exit_code == 0
    assert "tp: 2" in (tmp_path / "two.scenario.yaml").read_text()
    assert new("two.sh", "--case", "3", "--force").exit_code == 2


def test_arguments_and_variables(new, tmp_path):
    line = "torchrun --nproc_per_node 8 pretrain_gpt.py --tensor-model-parallel-size ${TP:-1} --num-layers ${1:-2}"
    (tmp_path / "a.sh").write_text(line)
    done = new("a.sh", "--explain", "--arg", "7", "--env", "TP=4")
    said = yaml.safe_load(done.stdout)
    assert (said["tp"], said["model_dims"]["layers"]) == (4, 7)
    assert new("a.sh", "--explain", "--env", "TP").exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("torchrun --nproc_per_node 8 pretrain_gpt.py --tensor-model-parallel-size 3", "a.sh:1: dp: 8 accelerators"),
        ("echo 'x", "a.sh:1: a quote ' is not closed"),
        ("echo x", "starts no program"),
    ],
)
def test_what_cannot_be_is_an_error_with_its_place(new, tmp_path, text, says):
    (tmp_path / "a.sh").write_text(text)
    for more in ([], ["--explain"]):
        done = new("a.sh", *more)
        assert done.exit_code == 2
        assert says in done.stderr.replace("error: a.sh: dp", "error: a.sh:1: dp")
    assert new("none.sh").exit_code == 2


def test_a_service_is_explained_as_its_truth_is_written(new):
    case = CASES.parent / "serving" / "12.yaml"
    done = new(str(case), "--explain")
    assert done.exit_code == 0
    want = yaml.safe_load(case.with_name("12.truth.yaml").read_text())
    got = yaml.safe_load(done.stdout)
    assert {key: got[key] for key in ("speculative", "disaggregated", "workload")} == {
        key: want[key] for key in ("speculative", "disaggregated", "workload")
    }


def test_one_of_several_services_is_written_as_a_scenario(new, tmp_path):
    case = str(CASES.parent / "serving" / "19.yaml")
    assert new(case).exit_code != 0  # which of them?
    done = new(case, "--case", "Qwen3-30B-A3B-W8A8-eager", "--out", "eager.yaml")
    assert done.exit_code == 0
    text = (tmp_path / "eager.yaml").read_text()
    assert "--enforce-eager" in text
    workload = yaml.safe_load(text)["workload"]
    assert workload["model"] == "qwen3-30b-a3b"
    assert workload["precision"]["weights"] == "int8"
