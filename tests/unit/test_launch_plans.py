"""Plans of launch files: each tool's vocabulary, its defaults, its traps, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cmsim.errors import InputError
from cmsim.launch import Reader, explained, scenario_of
from cmsim.launch.plan import LaunchPlan
from cmsim.launch.tools.megatron import layout_pieces
from cmsim.launch.vocabulary import data, vocabulary

HEAD = "torchrun --nproc_per_node 8 --nnodes {nodes} pretrain_gpt.py "
BASE = (
    "--num-layers 32 --hidden-size 4096 --num-attention-heads 32 --seq-length 4096 --micro-batch-size 1 "
    "--global-batch-size 64 --bf16 --tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 "
)


@pytest.fixture
def read(tmp_path):
    """Plans of a text, as a file of that name; others beside it."""

    def _read(text: str, name: str = "run.sh", args=(), given=None, **others: str) -> list[LaunchPlan]:
        (tmp_path / name).write_text(text)
        for other, content in others.items():
            (tmp_path / other.replace("__", ".")).write_text(content)
        return Reader(tmp_path / name, args=args, given=given).plans()

    return _read


def megatron(read, more: str = "", nodes: int = 4, base: str = BASE) -> LaunchPlan:
    [plan] = read(HEAD.format(nodes=nodes) + base + more)
    return plan


def said(plan: LaunchPlan) -> str:
    return "\n".join(map(str, plan.problems))


# Megatron-LM


@pytest.mark.parametrize(
    ("more", "want"),
    [
        (
            "",
            {"tp": 2, "pp": 2, "dp": 8, "schedule": "1f1b", "zero": 0, "recompute": "none", "sequence_parallel": False},
        ),
        ("--sequence-parallel", {"sequence_parallel": True}),
        ("--tensor-model-parallel 4", {"tp": 4, "dp": 4}),
        ("--tensor_model_parallel_size=8", {"tp": 8}),
        ("--recompute-activations", {"recompute": {"granularity": "selective", "modules": ["core_attn"]}}),
        (
            "--recompute-granularity full --recompute-method uniform",
            {"recompute": {"granularity": "full", "method": "uniform", "num_layers": 1}},
        ),
        ("--checkpoint-activations", {"recompute": {"granularity": "full", "method": "uniform", "num_layers": 1}}),
        ("--use-distributed-optimizer", {"zero": 1}),
        ("--use-torch-fsdp2", {"zero": 3}),
        ("--use-torch-fsdp2 --torch-fsdp2-no-reshard-after-forward", {"zero": 2}),
        ("--use-megatron-fsdp", {"zero": 3, "fsdp": {"implementation": "megatron", "strategy": "optim_grads_params"}}),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads", {"zero": 2}),
        ("--fp8-format e4m3", {"precision": "fp8", "fp8": {"format": "e4m3", "recipe": "delayed"}}),
        ("--fp8-format hybrid --fp8-recipe mxfp8", {"fp8": {"format": "hybrid", "recipe": "mxfp8"}}),
        ("--fp4-format e2m1", {"precision": "nvfp4"}),
        ("--num-virtual-stages-per-pipeline-rank 4", {"virtual_stages": 4, "schedule": "interleaved_1f1b"}),
        ("--num-layers-per-virtual-pipeline-stage 2", {"virtual_stages": 8}),
        ("--pipeline-model-parallel-layout 'Et*7|(t*8|)*2t*9L'", {"virtual_stages": 2, "stage_layers": [15, 17]}),
        ("--num-experts 64 --expert-model-parallel-size 8", {"ep": 8, "expert_tp": 2, "expert_dp": 1}),
        (
            "--num-experts 64 --expert-model-parallel-size 8 --expert-tensor-parallel-size 1",
            {"expert_tp": 1, "expert_dp": 2},
        ),
        ("--context-parallel-size 2", {"cp": 2, "dp": 4}),
        ("--optimizer-cpu-offload", {"offload": {"optimizer": True}}),
        ("--seq-length 8192 --seq-length 2048", {"seq_len": 2048}),
        ("--moe-expert-capacity-factor 1.25", {"capacity_factor": 1.25}),
    ],
)
def test_megatron(read, more, want):
    plan = megatron(read, more)
    assert {key: getattr(plan, key) for key in want} == want
    assert not plan.problems
    assert not plan.unknown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--tensor-model-parallel-size 3", "nearest: 30 or 36 accelerators"),
        ("--global-batch-size 60", "nearest: 56 or 64"),
        ("--num-experts 6 --expert-model-parallel-size 4", "6 experts do not divide over ep = 4; nearest: 3 or 6"),
        ("--num-layers 31", "31 layers do not divide over pp x virtual stages = 2 x 1"),
        ("--num-layers-per-virtual-pipeline-stage 3", "do not divide by 3"),
        ("--seq-length 4098 --context-parallel-size 2", "does not divide over 2 x cp"),
        ("--num-attention-heads 33", "33 heads do not divide over tp = 2"),
        ("--fp16", "contradicts bf16"),
        ("--recompute-activations --recompute-granularity full", "contradicts --recompute-granularity full"),
        ("--num-virtual-stages-per-pipeline-rank 2 --num-layers-per-virtual-pipeline-stage 4", "contradicts"),
        ("--micro-batch-size two", "got 'two'; allowed: a whole number"),
        ("--micro-batch-size $(nvidia-smi -L | wc -l)", "only known when the script runs"),
        ("--recompute-granularity some", "allowed: full, selective"),
        ("--pipeline-model-parallel-layout 'E|t|L'", "allowed: a multiple of pp = 2"),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy all", "allowed: no_shard"),
    ],
)
def test_plans_that_cannot_be_are_named_with_the_rule(read, more, message):
    plan = megatron(read, more)
    assert message in said(plan)
    assert "run.sh:1" in said(plan) or "no multiple" in said(plan)
    with pytest.raises(InputError):
        scenario_of(plan, system="hgx_h100", model_name="m.json")


def test_unknown_flags_are_named_with_the_nearest(read):
    plan = megatron(read, "--moe-turbo-dispatch 3 --recompute-granulaty full")
    assert plan.unknown == ["--moe-turbo-dispatch", "--recompute-granulaty"]
    assert any("did you mean recompute-granularity?" in one for one in plan.warn)


def test_a_flag_twice_is_named(read):
    plan = megatron(read, "--micro-batch-size 2")
    assert plan.micro_batch == 2
    assert any("stands twice (1, then 2" in one for one in plan.warn)


def test_a_broken_continuation_is_named(read):
    [plan] = read(HEAD.format(nodes=4) + BASE + "\\ \n  --sequence-parallel\n")
    assert plan.sequence_parallel is False
    assert any("--sequence-parallel" in one and "does not go on" in one for one in plan.warn)


def test_layouts():
    assert layout_pieces("Et*3|(tt|)*29m|L") == [3, *[2] * 29, 0, 0]
    assert layout_pieces("E|(t|)*2(tt|mL)*1") == [0, 1, 1, 2, 0]
    assert layout_pieces("E|x|L") is None
    assert layout_pieces("((((t)*9999)*9999)*9999)*9999") is None


# launchers and shells


@pytest.mark.parametrize(
    ("text", "world"),
    [
        ("srun -N 4 --ntasks-per-node=8 python pretrain_gpt.py ", 32),
        ("srun -N4 --gres=gpu:h100:8 python -u x/pretrain_gpt.py ", 32),
        ("#SBATCH --nodes=4\n#SBATCH --gpus-per-node=8\nsrun python pretrain_gpt.py ", 32),
        ("mpirun -np 32 -N 8 --hostfile h -x PATH python pretrain_gpt.py ", 32),
        ("mpirun -n 32 --map-by ppr:8:node python pretrain_gpt.py ", 32),
        ("python -m torch.distributed.run --nnodes=4 --nproc_per_node=8 pretrain_gpt.py ", 32),
        ("python3 -m torch.distributed.launch --nnodes 1:4 --nproc_per_node 8 pretrain_gpt.py ", 32),
        ("docker run --gpus all -e A=1 img:tag torchrun --nnodes=4 --nproc-per-node 8 pretrain_gpt.py ", 32),
        ("numactl -N 0 env A=B timeout 3h torchrun --nnodes=4 --nproc-per-node 8 pretrain_gpt.py ", 32),
        ("nsys profile -t cuda -o x torchrun --nnodes=4 --nproc-per-node 8 pretrain_gpt.py ", 32),
        ("# 4 nodes of 8 H100\npython pretrain_gpt.py ", 32),
        ("# needs 32 H100\npython pretrain_gpt.py ", 32),
        ("torchrun --nproc_per_node 8 pretrain_gpt.py ", 8),
    ],
)
def test_sizes_of_launchers(read, text, world):
    [plan] = read(text + BASE)
    assert plan.accelerators_used == world


def test_scripts_within_scripts(read):
    text = f"""#SBATCH --nodes=4
export N=8
srun --container-image x bash -c "
  export Y=1
  torchrun --nnodes=\\$SLURM_NNODES --nproc-per-node=\\$N pretrain_gpt.py {BASE} 2>&1 | tee log"
"""
    [plan] = read(text)
    assert plan.accelerators_per_node == 8
    inner = f"cd /w && torchrun --nnodes=4 --nproc-per-node=8 --node_rank=$i pretrain_gpt.py {BASE}"
    hosts = f'for h in a b c d; do ssh $h "{inner}" & done'
    [plan] = read(hosts)
    assert plan.accelerators_used == 32
    [plan] = read("bash inner.sh 4", inner__sh="torchrun --nnodes=$1 --nproc-per-node=8 pretrain_gpt.py " + BASE)
    assert (plan.accelerators_used, plan.files) == (32, ["run.sh", "inner.sh"])
    [plan] = read(
        f"cat <<'EOT' | sbatch\n#!/bin/bash\ntorchrun --nnodes=4 --nproc-per-node=8 pretrain_gpt.py {BASE}\nEOT\n"
    )
    assert plan.accelerators_used == 32


def test_files_of_containers(read):
    text = f"""
kind: PyTorchJob
spec:
  containers:
    - env: [{{name: NCCL_ALGO, value: Ring}}, {{name: TP, value: "4"}}]
      command: [bash, -c]
      args:
        - torchrun --nnodes=4 --nproc_per_node=8 pretrain_gpt.py {BASE} --tensor-model-parallel-size $TP
"""
    [plan] = read(text, "job.yaml")
    assert (plan.tp, plan.accelerators_used, plan.unread) == (4, 32, ["NCCL_ALGO"])


def test_arguments_and_environment_of_the_script(read):
    text = 'TP=${TP:-2}; if [ "$1" = big ]; then L=64; else L=32; fi; ' + HEAD.format(nodes=4) + BASE
    text += "--num-layers $L --tensor-model-parallel-size $TP"
    [plan] = read(text)
    assert (plan.tp, plan.model_dims["layers"]) == (2, 32)
    assert "no environment variable" in plan.assume
    [plan] = read(text, args=("big",), given={"TP": "4"})
    assert (plan.tp, plan.model_dims["layers"]) == (4, 64)


def test_several_jobs_are_cases(read):
    text = "for tp in 1 2 4; do " + HEAD.format(nodes=4) + BASE + "--tensor-model-parallel-size $tp; done"
    plans = read(text)
    out = explained(plans)
    assert [case["tp"] for case in out["cases"]] == [1, 2, 4]
    assert (out["pp"], out["tool"]) == (2, "megatron-lm")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.sh", "echo hello", "starts no program"),
        ("a.sh", "ls -l; nginx -c x", "starts ls, nginx; known are training jobs of"),
        (
            "a.sh",
            'if [ -z "$1" ]; then exit 1; fi\ntorchrun pretrain_gpt.py',
            "ends on line 1; give its arguments with --arg",
        ),
        ("a.sh", "torchrun 'x", "a quote ' is not closed"),
        ("a.yaml", "a: 1", "has the keys a, which are of no tool"),
        ("a.yaml", "- 1", "expected keys and values"),
        ("a.yaml", "a: [1", "not valid YAML"),
        ("a.toml", "a = ", "not valid TOML"),
        ("a.json", '{"a": }', "not valid JSON"),
        ("a.py", "def f(:", "is not Python"),
        ("a.py", "x = 1", "imports no training tool"),
        ("a.py", "import megatron.bridge", "makes no configuration"),
        ("a.sh", "a\0b", "null bytes"),
    ],
)
def test_files_that_say_nothing_are_refused(read, name, text, message):
    with pytest.raises(InputError) as error:
        read(text, name)
    assert message in str(error.value)
    assert name in str(error.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.sh"):
        Reader(tmp_path / "none.sh")
    (tmp_path / "b.sh").write_bytes(b"\xff\xfe\x00\x01" * 100)
    with pytest.raises(InputError, match="UTF-8"):
        Reader(tmp_path / "b.sh")
    (tmp_path / "c.sh").write_text("x" * 2**21)
    with pytest.raises(InputError):
        Reader(tmp_path / "c.sh")


@pytest.mark.parametrize(
    ("text", "nodes", "each", "world"),
    [
        ("16 nodes of 8 H100", 16, 8, 128),
        ("64 H100 GPUs (8 nodes)", 8, 8, 64),
        ("8x H200", None, None, 8),
        ("GB200 (4 GPUs per tray), 64 GPUs", 16, 4, 64),
        ("2 nodes, 8x MI300X each", 2, 8, 16),
        ("8x MI300X, 2 nodes", 2, 8, 16),
        ("1,024 A100", None, None, 1024),
        ("4 nodes x 8 A100-80G", 4, 8, 32),
        ("512 B200 (64 nodes of 8)", 64, 8, 512),
        ("H100 x 64", None, None, 64),
        ("32 H800 nodes", 32, None, None),
        ("256 dies, 16 per node", 16, 16, 256),
        ("two H100 nodes", 2, None, None),
        ("8 GPUs/node, 4 nodes H100", 4, 8, 32),
        ("8 x H100 per node; 16 nodes", 16, 8, 128),
        ("a 70B on 16x8 H100", 16, 8, 128),
        ("version 2.5 of the script, 80 GB", None, None, None),
    ],
)
def test_counts_in_words(text, nodes, each, world):
    from cmsim.launch import guesses
    from cmsim.launch.sizes import JobSizes, of_words

    sizes = JobSizes()
    found = guesses.system_of([(text, "comment")], "megatron-lm")
    of_words(text, sizes, guesses.chips(), "comment", found[0]["per_node"] if found else 0)
    sizes.settle()
    assert (sizes.nodes, sizes.per_node, sizes.world) == (nodes, each, world)


# the others


def test_mindspeed(read):
    text = (
        HEAD.format(nodes=2)
        + BASE
        + "--swap-optimizer --noop-layers 30,31 --lora-r 16 --lora-target-modules linear_qkv linear_proj"
    )
    [plan] = read(text)
    assert plan.tool == "mindspeed-llm"
    assert plan.model_dims["layers"] == 30
    assert plan.model_dims["layers_padded"] == 32
    assert plan.lora == {"rank": 16, "targets": ["linear_qkv", "linear_proj"]}
    assert plan.unread == ["--swap-optimizer"]
    [plan] = read(text + " --num-layer-list 15,17")
    assert plan.stage_layers == [15, 17]
    [plan] = read(text + " --num-layer-list 15,15")
    assert "allowed: 2 numbers" in said(plan)


def test_bridge_commands(read):
    text = (
        "torchrun --nproc_per_node=8 --nnodes=8 scripts/performance/run_recipe.py --recipe llama31_70b_pretrain_config "
        "model.tensor_model_parallel_size=4 model.pipeline_model_parallel_size=4 model.context_parallel_size=2 "
        "model.virtual_pipeline_model_parallel_size=5 train.global_batch_size=128 train.micro_batch_size=1 "
        "model.seq_length=8192 mixed_precision=bf16_with_mxfp8_mixed model.recompute_granularity=null "
        "ddp.overlap_grad_reduce=true"
    )
    [plan] = read(text)
    assert (plan.tool, plan.model, plan.tp, plan.pp, plan.cp, plan.dp) == ("megatron-bridge", "llama31_70b", 4, 4, 2, 2)
    assert (plan.virtual_stages, plan.fp8, plan.recompute) == (5, {"recipe": "mxfp8"}, "none")
    assert plan.unread == ["overlap_grad_reduce"]
    [plan] = read(
        "python setup_experiment.py -m llama31_405b -g h100 -ng 512 -gn 8 -c fp8_cs -tp 8 -pp 8 -cp 2 "
        "-vp None -mb 1 -gb 256"
    )
    assert (plan.nodes, plan.dp, plan.virtual_stages, plan.system_name) == (64, 4, 1, "hgx_h100")


def test_bridge_recipes(read):
    text = """
'''Two plans on 64 H100 (8 nodes of 8).'''
from megatron.bridge.recipes.qwen import qwen3_30b_a3b_pretrain_config
SIZES = {"small": (1, 2), "large": (2, 4)}
def _common(cfg, size):
    tp, pp = SIZES[size]
    cfg.model.tensor_model_parallel_size = tp
    cfg.model.pipeline_model_parallel_size = pp
    for key, value in {"expert_model_parallel_size": 8, "expert_tensor_parallel_size": 1}.items():
        setattr(cfg.model, key, value)
    cfg.train.global_batch_size = 64 * (2 if size == "large" else 1)
    cfg.train.micro_batch_size = 1
    return cfg
def small():
    return _common(qwen3_30b_a3b_pretrain_config(), "small")
def large():
    cfg = _common(qwen3_30b_a3b_pretrain_config(), "large")
    cfg.model.recompute_granularity = "full"
    cfg.made_up_thing = 1
    return cfg
"""
    plans = read(text, "r.py")
    assert [(p.details["name"], p.tp, p.pp, p.dp, p.ep, p.expert_tp, p.global_batch) for p in plans] == [
        ("small", 1, 2, 32, 8, 1, 64),
        ("large", 2, 4, 8, 8, 1, 128),
    ]
    assert plans[1].recompute == {"granularity": "full"}
    assert plans[1].unknown == ["made_up_thing"]
    assert plans[0].model_guess == "Qwen/Qwen3-30B-A3B"


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        (
            "tensor_parallel_degree = 8",
            {"tp": 8, "dp": 8, "zero": 3, "micro_batch": 8, "global_batch": 64, "schedule": "none"},
        ),
        (
            "data_parallel_replicate_degree = 2",
            {"dp": 64, "fsdp": {"shard": 32, "replicate": 2, "reshard_after_forward": "default"}},
        ),
        ('fsdp_reshard_after_forward = "never"', {"zero": 2}),
        (
            'pipeline_parallel_degree = 4\npipeline_parallel_schedule = "1F1B"',
            {"schedule": "1f1b", "virtual_stages": 1, "micro_batches": 8},
        ),
        (
            'pipeline_parallel_degree = 4\npipeline_parallel_schedule = "ZBVZeroBubble"',
            {"schedule": "zb_v", "virtual_stages": 2},
        ),
        ("expert_parallel_degree = 8", {"ep": 8, "expert_tp": 1, "expert_dp": 8}),
    ],
)
def test_torchtitan(read, keys, want):
    text = '# 64 H100 GPUs (8 nodes)\n[model]\nname = "llama3"\nflavor = "8B"\n[training]\nlocal_batch_size = 8\n'
    text += f"[parallelism]\n{keys}\n"
    [plan] = read(text, "t.toml")
    assert plan.recompute == {"granularity": "selective", "method": "2"}
    assert {key: getattr(plan, key) for key in want} == want
    assert not plan.problems


def test_torchtitan_command_lines(read):
    text = (
        "torchrun --nnodes=4 --nproc_per_node=8 -m torchtitan.train {more} --parallelism.tensor_parallel_degree 8 "
        "--training.seq-len=16384 --training.local_batch_size 2 --training.num_tokens_per_train_step 1048576 "
        "--activation_checkpoint.mode none --compile.enable --checkpoint.no-enable"
    )
    [plan] = read(text.format(more="--module llama3 --config llama3_70b"))
    assert (plan.model, plan.tp, plan.dp, plan.global_batch, plan.grad_accumulation) == ("llama3_70b", 8, 4, 64, 8)
    assert (plan.unread, plan.ignored, plan.recompute) == (["--compile.enable"], ["--checkpoint.no-enable"], "none")
    toml = '[model]\nname = "llama3"\n[training]\nseq_len = 2048\n[parallelism]\ntensor_parallel_degree = 2\n'
    [plan] = read(text.format(more="--job.config_file ./cfg.toml"), cfg__toml=toml)
    assert (plan.tp, plan.seq_len, plan.files) == (8, 16384, ["run.sh", "cfg.toml"])
    [plan] = read(text.format(more="--job.config_file /opt/gone.toml"))
    assert any("gone.toml' is not there" in one for one in plan.warn)


def test_torchtitan_python(read):
    text = """
# 128 H100 GPUs
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.trainer import Trainer
def _sizes(tp, pp=1):
    return ParallelismConfig(tensor_parallel_degree=tp, pipeline_parallel_degree=pp)
def llama3_70b() -> Trainer.Config:
    return Trainer.Config(training=TrainingConfig(local_batch_size=8, seq_len=8192), parallelism=_sizes(8))
def llama3_405b():
    c = llama3_70b()
    c.parallelism = _sizes(8, pp=4)
    return c
"""
    plans = read(text, "c.py")
    assert [(p.model, p.tp, p.pp, p.dp) for p in plans] == [("llama3_70b", 8, 1, 16), ("llama3_405b", 8, 4, 4)]


def test_deepspeed(read):
    config = {"train_batch_size": "auto", "zero_optimization": {"stage": 2, "warp": 1}, "bf16": {"enabled": True}}
    text = "deepspeed --num_nodes 2 --num_gpus=8 train.py --deepspeed ds.json --per_device_train_batch_size 4 "
    text += "--gradient_accumulation_steps 2 --model_name_or_path meta-llama/Llama-3.1-8B --gradient_checkpointing True"
    [plan] = read(text, ds__json=json.dumps(config))
    assert (plan.tool, plan.dp, plan.micro_batch, plan.grad_accumulation, plan.global_batch) == (
        "deepspeed",
        16,
        4,
        2,
        128,
    )
    assert (plan.zero, plan.precision, plan.recompute) == (2, "bf16", {"granularity": "full"})
    assert plan.unknown == ["warp"]
    config |= {"train_batch_size": 100, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2}
    [plan] = read(
        "deepspeed --num_nodes 2 --num_gpus=8 train.py --deepspeed_config ds.json", ds__json=json.dumps(config)
    )
    assert "is not micro-batch x accumulation x dp = 4 x 2 x 16 = 128" in said(plan)


def test_deepspeed_with_megatron(read):
    text = """
TP=2; PP=2
cat <<EOT > ds.json
{"train_batch_size": $((64*4)), "train_micro_batch_size_per_gpu": 4,
"zero_optimization": {"stage": ${ZERO:-1}}, "bf16": {"enabled": true}}
EOT
args="--deepspeed --deepspeed_config=ds.json --zero-stage=1 --deepspeed-activation-checkpointing"
deepspeed --num_nodes 4 --num_gpus 8 pretrain_gpt.py \\
  --tensor-model-parallel-size $TP --pipeline-model-parallel-size $PP \\
  --num-layers 32 --hidden-size 4096 --num-attention-heads 32 --num-key-value-heads 8 --seq-length 4096 \\
  --micro-batch-size 4 --global-batch-size 256 --bf16 $args
"""
    [plan] = read(text)
    assert (plan.tool, plan.dp, plan.zero, plan.global_batch) == ("megatron-deepspeed", 8, 1, 256)
    assert plan.recompute["granularity"] == "full"
    assert plan.model_dims["kv_groups"] == 8


def test_primus(read):
    text = """
# 1 node, 8x MI300X
modules:
  pre_trainer:
    framework: megatron
    config: pre_trainer.yaml
    model: ${PRIMUS_MODEL:mixtral_8x7B_v0.1}.yaml
    overrides: &over
      micro_batch_size: 2
      global_batch_size: ${PRIMUS_GBS:256}
      seq_length: ${PRIMUS_SEQ:4096}
      expert_model_parallel_size: ${PRIMUS_EP:8}
      use_distributed_optimizer: true
      overlap_grad_reduce: true
      gradient_accumulation_fusion: false
      recompute_granularity: null
      made_up: 3
"""
    [plan] = read(text, "p.yaml")
    assert (plan.tool, plan.dp, plan.ep, plan.global_batch, plan.zero) == ("primus", 8, 8, 256, 1)
    assert plan.unread == ["overlap_grad_reduce", "gradient_accumulation_fusion"]
    assert plan.model_guess == "mistralai/Mixtral-8x7B-v0.1"
    assert plan.unknown == ["made_up"]
    assert any("p.yaml:17: made_up is unknown" in one for one in plan.warn)
    [plan] = read(text, "p.yaml", given={"PRIMUS_GBS": "512"})
    assert plan.global_batch == 512


def test_primus_around_torchtitan(read):
    text = """
# 8x MI300X, 2 nodes
modules:
  pre_trainer:
    framework: torchtitan
    model: llama3.1_70B.yaml
    overrides:
      training: {local_batch_size: 4, seq_len: 8192}
      activation_checkpoint: {mode: full}
      primus_turbo: {enable_primus_turbo: true}
"""
    [plan] = read(text, "p.yaml")
    assert (plan.tool, plan.model, plan.dp, plan.global_batch) == ("primus", "llama3.1_70B", 16, 64)
    assert (plan.recompute, plan.unread) == ({"granularity": "full"}, ["enable_primus_turbo"])


def test_mindformers(read):
    text = """
trainer: {type: x, model_name: qwen3_30b}
runner_config: {batch_size: 2, gradient_accumulation_steps: 4}
_moe: &moe {expert_num: 128, num_experts_chosen: 8, moe_intermediate_size: 768}
moe_config: {<<: *moe, capacity_factor: 1.1}
parallel_config: {data_parallel: 8, model_parallel: 2, pipeline_stage: 1, expert_parallel: 4, use_seq_parallel: True}
recompute_config: {recompute: [2, 1], select_recompute: False}
model: {model_config: {num_layers: 48, hidden_size: 2048, num_heads: 32, n_kv_heads: 4, seq_length: 4096,
  compute_dtype: float16}}
"""
    [plan] = read(text, "m.yaml")
    assert (plan.tp, plan.dp, plan.ep, plan.accelerators_used, plan.global_batch) == (2, 8, 4, 16, 64)
    assert (plan.precision, plan.recompute) == ("fp16", {"granularity": "full", "layers_of_stages": [2, 1]})
    assert plan.model_dims["experts"] == 128
    [plan] = read(
        "bash scripts/msrun_launcher.sh 'run_mindformer.py --config m.yaml --run_mode train' 16", m__yaml=text
    )
    assert (plan.tool, plan.tp) == ("mindformers", 2)


# data


@pytest.mark.parametrize("name", data("programs")["tools"])
def test_tables_say_each_name_once(name):
    loaded = data(name)
    seen: dict[str, str] = {}
    for table in ("plan", "model", "old"):
        for flag in loaded.get(table) or {}:
            assert seen.setdefault(str(flag), table) == table, flag
    assert vocabulary(name).tool
    assert loaded["sources"]


def test_systems_and_models_of_tables_are_there():
    from cmsim.hardware import load_system
    from cmsim.workload.model import load_model

    for word in data("systems")["words"]:
        assert not word["system"] or load_system(word["system"]).ranks
    for known in data("models")["models"]:
        if known.get("model"):
            model = load_model(known["model"])
            dims: list[Any] = [model.layers, model.hidden, model.heads]
            assert dims == known["dims"][:3], known["guess"]
            assert model.vocab == known["vocab"], known["guess"]


def test_models_that_are_written_are_the_known_ones(tmp_path):
    """The sizes of a table's model, written as a file, have as many parameters as the built-in file."""
    from cmsim.launch.model_file import config
    from cmsim.workload.model import load_model

    for known in data("models")["models"]:
        plan = LaunchPlan(details={"known": known})
        made, _ = config(plan)
        path = tmp_path / "m.json"
        path.write_text(json.dumps(made))
        total = load_model(str(path)).total_parameters
        if known.get("model") and not known["model"].startswith(("gpt-oss", "gpt3")):
            assert total == pytest.approx(load_model(known["model"]).total_parameters, rel=2e-3), known["guess"]
        assert total > 1e9


def test_only_the_folder_of_the_file_is_read(tmp_path):
    inner = tmp_path / "in"
    inner.mkdir()
    (tmp_path / "secret.json").write_text('{"zero_optimization": {"stage": 3}}')
    (inner / "run.sh").write_text("deepspeed --num_gpus 8 train.py --deepspeed_config ../secret.json")
    [plan] = Reader(Path(inner / "run.sh")).plans()
    assert plan.zero == 0
    assert any("is not there" in one for one in plan.warn)
