"""Plans as scenarios: keys that this version has are used, others are said to be missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Literal

import pytest
import yaml
from pydantic import BaseModel, create_model

from cmsim.launch import Reader, scenario_of, spec_keys

HEAD = "# 4 nodes of 8 H100\ntorchrun --nproc_per_node 8 --nnodes 4 pretrain_gpt.py --num-layers 32 --hidden-size 4096 "
HEAD += "--num-attention-heads 32 --seq-length 4096 --micro-batch-size 1 --global-batch-size 64 --bf16 "
HEAD += "--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 "

Parallel = create_model(
    "Parallel",
    virtual_stages=(int, 1),
    expert_tp=(int, 1),
    stage_layers=(list[int], []),
    cp_comm_type=(str, ""),
    cp_a2a=(int | None, None),
)
Precision = create_model("Precision", recipe=(Literal["current", "delayed", "block"] | None, None))
Lora = create_model("Lora", rank=(int, 1), targets=(list[Literal["linear_qkv", "linear_proj"]], []))
Full = create_model(
    "Full",
    parallel=(Parallel, None),
    precision=(Precision, None),
    schedule=(Literal["auto", "1f1b", "interleaved", "zb_v", "dualpipe"], "auto"),
    recompute=(Literal["none", "selective", "full"] | list[Literal["core_attn", "mlp"]], "none"),
    tp_overlap=(Literal["none", "bulk", "pipelined"], "none"),
    fsdp=(Literal["none", "full", "hybrid"], "none"),
    fsdp_shards=(int | None, None),
    reshard_after_forward=(bool, True),
    lora=(Lora | None, None),
    offload=(dict, {}),
    capacity_factor=(float | None, None),
    mtp_layers=(int, 0),
)


class Nothing(BaseModel):
    """A version with none of the newer keys."""


@pytest.fixture
def write(tmp_path, monkeypatch):
    def _write(text: str, spec: type = Full, name: str = "a.sh"):
        monkeypatch.setattr(spec_keys.kinds, "get", lambda _: SimpleNamespace(spec=spec))
        (tmp_path / name).write_text(text)
        [plan] = Reader(tmp_path / name).plans()
        written = scenario_of(plan, system="hgx_h100", model_name="m.json")
        return yaml.safe_load(written.scenario)["workload"], written.notes

    return _write


@pytest.mark.parametrize(
    ("more", "want"),
    [
        ("--num-layers-per-virtual-pipeline-stage 4", {"schedule": "interleaved"}),
        ("--sequence-parallel", {"tp_overlap": "bulk"}),
        ("--sequence-parallel --tp-comm-overlap", {"tp_overlap": "pipelined"}),
        ("--recompute-granularity selective --recompute-modules mlp core_attn", {"recompute": ["mlp", "core_attn"]}),
        ("--recompute-activations", {"recompute": ["core_attn"]}),
        ("--fp8-format hybrid", {"precision": {"recipe": "delayed", "weights": "bf16", "activations": "fp8"}}),
        (
            "--fp8-format hybrid --fp8-recipe blockwise --fp8-param-gather",
            {"precision": {"recipe": "block", "weights": "fp8", "activations": "fp8"}},
        ),
        ("--use-torch-fsdp2", {"zero_stage": 3, "fsdp": "full"}),
        ("--optimizer-cpu-offload", {"offload": {"optimizer": True}}),
        ("--cpu-offloading-num-layers 4", {"offload": {"activations": 0.25}}),
        ("--num-experts 8 --moe-expert-capacity-factor 1.5", {"capacity_factor": 1.5}),
        ("--mtp-num-layers 1", {"mtp_layers": 1}),
        (
            "--lora-r 8 --lora-target-modules linear_qkv other --use-mc2",
            {"lora": {"rank": 8, "targets": ["linear_qkv"]}},
        ),
    ],
)
def test_keys_that_are_there_are_used(write, more, want):
    workload, _ = write(HEAD + more)
    assert {key: workload.get(key) for key in want} == want


@pytest.mark.parametrize(
    ("more", "want"),
    [
        ("--num-virtual-stages-per-pipeline-rank 4", {"virtual_stages": 4}),
        ("--num-experts 8 --expert-model-parallel-size 4", {"ep": 4, "expert_tp": 2}),
        ("--context-parallel-size 2", {"cp_comm_type": "p2p"}),
        ("--context-parallel-size 2 --cp-comm-type a2a", {"cp_comm_type": "a2a"}),
        (
            "--context-parallel-size 4 --cp-comm-type a2a+p2p --hierarchical-context-parallel-sizes 2 2",
            {"cp_comm_type": "a2a+p2p", "cp_a2a": 2},
        ),
        ("--decoder-last-pipeline-num-layers 15", {"stage_layers": [17, 15]}),
        (
            "--num-layers 30 --account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split",
            {"stage_layers": [15, 15]},
        ),
        ("--noop-layers 30,31 --use-mc2", {"stage_layers": [16, 14]}),
        (
            "--pipeline-model-parallel-layout 'Et*10|t*10|t*6|t*6L'",
            {"stage_layers": [10, 10, 6, 6], "virtual_stages": 2},
        ),
    ],
)
def test_parallel_keys(write, more, want):
    workload, _ = write(HEAD + more)
    assert {key: workload["parallel"].get(key) for key in want} == want


def test_keys_that_are_not_there_are_said_to_be_missing(write):
    more = "--num-virtual-stages-per-pipeline-rank 4 --sequence-parallel --tp-comm-overlap --fp8-format hybrid "
    more += "--optimizer-cpu-offload --num-experts 8 --recompute-granularity selective --recompute-modules mlp"
    workload, notes = write(HEAD + more, Nothing)
    assert set(workload) & {"schedule", "tp_overlap", "offload"} == set()
    said = "\n".join(notes)
    for what in ("virtual_stages 4", "interleaved_1f1b", "tp_overlap", "scaling delayed", "offload", "mlp"):
        assert what in said


def test_bidirectional_pipelines_are_the_nearest(write):
    workload, notes = write(
        HEAD + "--schedules-method dualpipev --moe-fb-overlap --num-experts 8 --expert-model-parallel-size 2"
    )
    assert workload["schedule"] == "zb_v"
    assert "overlap_experts" not in workload
    assert any("is played as zb_v" in note for note in notes)


def test_sharding_of_torchtitan(write):
    text = '# 64 H100 GPUs\n[model]\nname = "llama3"\nflavor = "8B"\n[training]\nlocal_batch_size = 8\n[parallelism]\n'
    workload, _ = write(text + "data_parallel_replicate_degree = 2\n", name="t.toml")
    assert (workload["zero_stage"], workload["fsdp"], workload["fsdp_shards"]) == (3, "hybrid", 32)
    workload, _ = write(text + "pipeline_parallel_degree = 2\n", name="t.toml")
    assert (workload["zero_stage"], workload["fsdp"], workload["reshard_after_forward"]) == (3, "full", False)
    workload, _ = write(text + "pipeline_parallel_degree = 2\n", Nothing, name="t.toml")
    assert workload["zero_stage"] == 2
