"""Launch commands and files of services with traps of their own: what is read of them, and what is refused."""

from __future__ import annotations

import json

import pytest
import yaml

from cmsim.errors import InputError
from cmsim.launch import Reader, explained, scenario_of


@pytest.fixture
def plans(tmp_path):
    def read(text, name="serve.sh", **beside):
        for other, content in beside.items():
            (tmp_path / other.replace("__", ".")).write_text(content)
        path = tmp_path / name
        path.write_text(text)
        return Reader(path).plans()

    return read


@pytest.fixture
def read(plans):
    def one(text, name="serve.sh", **beside):
        return explained(plans(text, name, **beside))

    return one


def has(got, **want):
    assert {key: got.get(key) for key in want} == want


# vLLM


def test_a_config_behind_an_equals_sign_is_not_read_and_said(read):
    flags = "max-num-seqs: 512\ntensor-parallel-size: 8\n"
    got = read("vllm serve Qwen/Qwen3-8B --config=a.yaml -tp=2\n", a__yaml=flags)
    has(got, tp=2, files=["serve.sh"])
    assert any("is not read" in one for one in got["warn"])
    has(read("vllm serve Qwen/Qwen3-8B --config a.yaml -tp=2\n", a__yaml=flags), tp=2, max_num_seqs=512)


def test_a_switch_that_is_off_in_a_config_has_no_effect(read):
    got = read("vllm serve Qwen/Qwen3-8B --config a.yaml\n", a__yaml="enable-prefix-caching: false\n")
    has(got, prefix_caching=True)
    assert any("no effect" in one for one in got["warn"])


@pytest.mark.parametrize(("text", "tokens"), [("4k", 4000), ("4K", 4096), ("1.5k", 1500), ("2048", 2048)])
def test_letters_behind_numbers(read, text, tokens):
    has(read(f"vllm serve m/x --max-num-batched-tokens {text}\n"), max_num_batched_tokens=tokens)


@pytest.mark.parametrize("text", ["many", "1.5K", "0", "-3", "1e999", "$TP", "''", "$(nvidia-smi -L | wc -l)"])
def test_sizes_that_are_none_are_refused(plans, text):
    [plan] = plans(f"vllm serve m/x --tensor-parallel-size {text}\n")
    assert any("tensor-parallel-size" in str(one) for one in plan.problems)
    with pytest.raises(InputError):
        scenario_of(plan, system="hgx_h100", model_name="m.json")


@pytest.mark.parametrize(
    ("words", "seqs", "tokens"),
    [
        ("H200 node", 1024, 8192),
        ("B200 node", 1024, 16384),
        ("A100 node", 256, 2048),
        ("GB300 NVL72", 1024, 16384),
        ("a desk", None, None),
    ],
)
def test_defaults_follow_the_memory_of_the_device(read, words, seqs, tokens):
    got = read(f"# {words}\nvllm serve m/x\n")
    has(got, max_num_seqs=seqs, max_num_batched_tokens=tokens)
    assert ("max_num_seqs" in got["defaults"]) == (seqs is not None)


def test_defaults_double_for_throughput_and_shrink_for_small_steps(read):
    got = read("# H100\nvllm serve m/x --performance-mode throughput\n")
    has(got, max_num_seqs=2048, max_num_batched_tokens=16384, unread=["--performance-mode"])
    got = read("# H100\nvllm serve deepseek-ai/DeepSeek-V3 -dp 8 -ep --all2all-backend deepep_low_latency\n")
    has(got, max_num_batched_tokens=256, max_num_seqs=256)


def test_experts_of_data_parallel_ranks_are_shared(read):
    has(read("vllm serve Qwen/Qwen3-30B-A3B -tp 2 -dp 4\n"), attention_dp=4, ep=1, expert_tp=8)
    has(read("vllm serve Qwen/Qwen3-30B-A3B -tp 2 -dp 4 -ep\n"), attention_dp=4, ep=8, expert_tp=1)
    has(read("vllm serve Qwen/Qwen3-32B -tp 2 -dp 4\n"), attention_dp=None, ep=None, accelerators_used=8)


def test_further_nodes_of_one_engine_are_not_counted_again(read):
    text = "for r in 0 1 2 3; do\n  ssh n$r vllm serve Qwen/Qwen3-30B-A3B -dp 16 -dpl 4 -ep $([ $r -gt 0 ] && "
    text += "echo --headless) --data-parallel-start-rank $((4 * r)) &\ndone\n"
    has(read(text), dp=16, nodes=4, accelerators_per_node=4, accelerators_used=16, replicas=None)


def test_copies_on_other_devices_are_replicas(read):
    text = "for i in 0 1 2; do CUDA_VISIBLE_DEVICES=$((2*i)),$((2*i+1)) vllm serve m/x -tp 2 --port 800$i & done\n"
    has(read(text), replicas=3, tp=2, accelerators_used=6)


def test_fewer_devices_than_are_asked_for_are_said(read):
    got = read("CUDA_VISIBLE_DEVICES=0,1 vllm serve m/x -tp 4\n")
    assert any("2 can be seen" in one for one in got["warn"])


def test_roles_by_the_connector(read):
    serve = 'vllm serve m/x -tp {} --kv-transfer-config \'{{"kv_connector":"P2pNcclConnector","kv_role":"{}"}}\' &\n'
    got = read(serve.format(1, "kv_producer") * 3 + serve.format(4, "kv_consumer"))
    split = got["disaggregated"]
    assert split["transfer"] == "p2p_nccl"
    assert (split["prefill"]["instances"], split["prefill"]["tp"]) == (3, 1)
    assert (split["decode"]["instances"], split["decode"]["tp"]) == (1, 4)
    has(got, accelerators_used=7)


def test_old_releases_have_other_defaults(read):
    got = read(
        "python -m vllm.entrypoints.openai.api_server --model m/x --use-v2-block-manager --num-scheduler-steps 8\n"
    )
    has(got, prefix_caching=False, chunked_prefill=False, max_num_seqs=256)
    assert set(got["deprecated"]) == {"--use-v2-block-manager", "--num-scheduler-steps"}
    assert "0.6" in got["tool_version_basis"]


def test_flags_of_no_version_are_unknown(read):
    got = read("vllm serve m/x --max-batched-tokens 5 --turbo\n")
    assert got["unknown"] == ["--max-batched-tokens", "--turbo"]
    assert any("did you mean max-num-batched-tokens" in one for one in got["warn"])


def test_a_later_flag_counts_and_a_name_may_be_cut_short(read):
    got = read("vllm serve m/x --max-num-seqs 8 --gpu-memory-util 0.5 --max-num-seqs 16\n")
    has(got, max_num_seqs=16, gpu_memory_fraction=0.5)
    assert any("twice" in one for one in got["warn"])


@pytest.mark.parametrize(
    ("said", "want"),
    [
        ({"method": "ngram"}, {"method": "ngram", "draft_tokens": 4}),
        ({"model": "x/EAGLE3-l"}, {"method": "eagle3", "draft_tokens": 4, "draft_model": "x/EAGLE3-l"}),
        ({"model": "x/small"}, {"method": "draft_model", "draft_tokens": 4, "draft_model": "x/small"}),
    ],
)
def test_speculation(read, said, want):
    text = json.dumps({**said, "num_speculative_tokens": 4})
    has(read(f"vllm serve m/x --speculative_config='{text}'\n"), speculative=want)


def test_speculation_that_is_no_json_is_refused(plans):
    [plan] = plans("vllm serve m/x --speculative-config '{broken'\n")
    assert any("JSON" in str(one) for one in plan.problems)


# SGLang


def test_attention_groups_have_two_spellings(read):
    old = read(
        "python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8 --dp 4 --enable-dp-attention\n"
    )
    new = read("python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8 --attn-dp-size 4\n")
    for got in (old, new):
        has(got, tp=8, dp=1, attention_dp=4, attention_tp=2, accelerators_used=8)
    assert old["deprecated"] == ["--enable-dp-attention"]
    assert "deprecated" not in new


def test_speculation_of_which_nothing_is_said(read):
    got = read("python -m sglang.launch_server --model-path Qwen/Qwen3-8B --speculative-algorithm NEXTN\n")
    has(got, max_num_seqs=48)
    assert got["speculative"] == {"method": "eagle", "draft_tokens": 3, "verify_tokens": 4, "topk": 1, "steps": 3}
    got = read("python -m sglang.launch_server --model-path meta-llama/Llama-3.1-8B --speculative-algo EAGLE3\n")
    assert got["speculative"] == {"method": "eagle3", "draft_tokens": 7, "verify_tokens": 8, "topk": 4, "steps": 5}


def test_chunks_by_the_memory_of_the_device_are_shared_by_groups(read):
    text = "# {}\npython -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 8 --attn-dp-size 8\n"
    has(read(text.format("H200")), prefill_chunk=1024, prefill_chunk_scope="per_dp_rank")
    has(read(text.format("B200")), prefill_chunk=2048)


def test_groups_that_do_not_divide_are_refused(plans):
    [plan] = plans("python -m sglang.launch_server --model-path m/x --tp 8 --attn-dp-size 3\n")
    assert any("do not divide" in str(one) for one in plan.problems)


# TensorRT-LLM


def test_the_file_counts_more_than_the_command(read):
    got = read("trtllm-serve m/x --tp_size 2 --max_batch_size 8 --config o.yaml\n", o__yaml="max_batch_size: 16\n")
    has(got, max_num_seqs=16, tp=2)


def test_options_alone(read):
    got = read("tensor_parallel_size: 4\nkv_cache_config: {dtype: fp8}\nmystery: 1\n", "o.yaml")
    has(got, tool="trtllm-serve", tp=4, kv_cache_dtype="fp8", unknown=["mystery"], model=None)


# containers and their like


def test_kubernetes_puts_variables_in_and_counts_replicas(read):
    text = """
kind: Deployment
spec:
  replicas: 3
  template:
    spec:
      nodeSelector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}
      containers:
      - image: vllm/vllm-openai:v0.11.0
        args: [--model, m/x, --tensor-parallel-size, $(TP), --max-num-seqs=9]
        env: [{name: TP, value: "2"}, {name: T, valueFrom: {secretKeyRef: {name: a, key: b}}}]
---
kind: Service
spec: {ports: [{port: 80}]}
"""
    got = read(text, "d.yaml")
    has(got, tp=2, replicas=3, accelerators_used=6, max_num_seqs=9, model="m/x", max_num_batched_tokens=8192)
    assert got["tool_version_basis"] == "vLLM 0.11.0 (image tag)"


def test_compose_fills_in_defaults(read):
    text = """
services:
  llm:
    image: vllm/vllm-openai:latest
    command: >
      --model ${MODEL:-m/x} --tensor-parallel-size ${TP:-4} --served-model-name "a b"
    environment: [NCCL_ALGO=Ring]
    deploy: {replicas: 2}
"""
    got = read(text, "c.yaml")
    has(got, model="m/x", tp=4, replicas=2, unread=["NCCL_ALGO"], ignored=["--served-model-name"])
    assert got["assume"]


def test_a_group_of_nodes_is_one_engine(read):
    words = (
        "[python3, -m, sglang.launch_server, --model-path, m/x, --tp, '16', --nnodes, $(LWS_GROUP_SIZE), --node-rank, "
    )
    words += "$(LWS_WORKER_INDEX)]"
    node = f"{{spec: {{containers: [{{image: lmsysorg/sglang, command: {words}}}]}}}}"
    text = "kind: LeaderWorkerSet\nspec:\n  replicas: 2\n  leaderWorkerTemplate:\n    size: 2\n"
    text += f"    leaderTemplate: {node}\n"
    has(read(text + f"    workerTemplate: {node}\n", "l.yaml"), nodes=2, replicas=2, accelerators_used=32)


def test_roles_of_a_graph_of_workers(read):
    def worker(role, copies, tp):
        args = f"[--model, m/x, --tensor-parallel-size, '{tp}']"
        inner = f"{{image: a/vllm-runtime:0.6.0, command: [python3, -m, dynamo.vllm], args: {args}}}"
        return (
            f"    W{role}: {{subComponentType: {role}, replicas: {copies}, extraPodSpec: {{mainContainer: {inner}}}}}\n"
        )

    text = "kind: DynamoGraphDeployment\nspec:\n  services:\n" + worker("prefill", 2, 2) + worker("decode", 1, 4)
    got = read(text, "g.yaml")
    has(got, tool="dynamo", engine="vllm", accelerators_used=8)
    assert got["disaggregated"]["prefill"]["instances"] == 2
    assert got["disaggregated"]["decode"]["tp"] == 4
    assert got["disaggregated"]["transfer"] == got["defaults"]["disaggregated.transfer"] == "nixl"


def test_a_text_of_a_task_is_a_script(read):
    text = "resources: {accelerators: 'H100:8'}\nenvs: {TP: '4'}\nrun: |\n  vllm serve m/x \\\n    -tp $TP\n"
    has(read(text, "t.yaml"), tp=4, nodes=1, accelerators_per_node=8)


def test_flags_as_keys_of_a_chart(read):
    text = "servingEngineSpec:\n  modelSpec:\n  - {name: a, modelURL: m/x, replicaCount: 2, vllmConfig: "
    text += "{tensorParallelSize: 2, enableChunkedPrefill: false, extraArgs: [--max-num-seqs, '5']}}\n"
    has(read(text, "v.yaml"), tp=2, replicas=2, chunked_prefill=False, max_num_seqs=5)


def test_flags_of_docker_are_none_of_the_server(read):
    front = "docker run --rm --gpus all -p 8000:8000 --name vllm -e NCCL_ALGO=Ring"
    text = f"{front} vllm/vllm-openai:v0.12.0 --model m/x -tp 2\n"
    has(read(text), tp=2, ignored=["docker flags"], unread=["NCCL_ALGO"], model="m/x")
    got = read(f"{front} vllm/vllm-openai:v0.12.0 bash -c 'pip list; vllm serve m/x -tp 2'\n")
    has(got, tp=2, ignored=["docker flags"], unread=["NCCL_ALGO"], tool_version_basis="vLLM 0.12.0 (image tag)")


# MindIE


def mindie(**changes):
    model = {"modelWeightPath": "/w/Qwen3-32B", "worldSize": 4, **changes}
    config = {
        "BackendConfig": {
            "npuDeviceIds": [[0, 1, 2, 3]],
            "ModelDeployConfig": {"ModelConfig": [model]},
            "ScheduleConfig": {},
        }
    }
    return yaml.safe_dump(config)


def test_mindie_splits_prompts_only_with_both_settings(read):
    got = read(mindie(plugin_params='{"plugin_type":"splitfuse"}'), "config.yaml")
    has(got, chunked_prefill=False, tp=4, max_num_seqs=200)
    assert any("templateType" in one for one in got["warn"])


def test_mindie_sizes_that_do_not_multiply_to_the_devices_are_refused(plans):
    [plan] = plans(mindie(dp=2, tp=4), "config.yaml")
    assert any("devices" in str(one) for one in plan.problems)


# clients


def test_spread_means_other_things_to_other_clients(read):
    got = read("vllm bench serve --random-input-len 1000 --random-range-ratio 0.5 --num-prompts 9\n")
    has(got, isl=1000, isl_range=[500, 1500], osl=128, osl_range=[64, 192], isl_mean=None)
    text = "python -m sglang.bench_serving --dataset-name random --random-input-len 1000 --random-range-ratio 0.5\n"
    has(read(text), isl=1000, isl_range=[500, 1000], isl_mean=750.0, osl=1024, num_prompts=1000)


def test_prompts_that_are_counted_and_prompts_that_are_kept(read):
    got = read("genai-perf profile -m x --num-prompts 50 --request-rate 3\n")
    has(got, distinct_prompts=50, num_prompts=10, isl=550, request_rate=3, concurrency=None)


def test_runs_that_are_no_grid_are_listed_one_by_one(read):
    text = "vllm bench serve --input-len 1 --max-concurrency 2\nvllm bench serve --input-len 3 --max-concurrency 4\n"
    got = read(text + "vllm bench serve --input-len 5 --max-concurrency 2\n")
    has(got, isl=[1, 3, 5], concurrency=[2, 4, 2], sweep={"runs": 3})


def test_a_client_alone_makes_no_scenario(plans):
    [plan] = plans("vllm bench serve --model m/x\n")
    with pytest.raises(InputError, match="starts no server"):
        scenario_of(plan, system="hgx_h100", model_name="m.json")


# scenarios


def test_a_scenario_says_what_no_key_expresses(plans):
    [plan] = plans(
        "# 8x H100\nvllm serve meta-llama/Llama-3.1-70B-Instruct -tp 8 --async-scheduling --quantization fp8\n"
    )
    written = scenario_of(plan, system=None, model_name="m.json")
    head, _, body = written.scenario.partition("name:")
    assert "--async-scheduling" in head
    assert "lengths" in body or "there are no workloads" in head or "no workloads of kind serving" in head
    workload = yaml.safe_load("name:" + body)["workload"]
    assert workload["model"] == "llama-3.1-70b"
    assert workload["parallel"] == {"tp": 8}
    assert workload["precision"]["weights"] == "fp8"


def test_each_server_has_its_own_load(read):
    text = (
        "for m in a/x b/y; do vllm serve $m & vllm bench serve --model $m --input-len ${#m}0 --request-rate 1; done\n"
    )
    got = read(text.replace("b/y", "b/yy"))
    assert [case["workload"]["isl"] for case in got["cases"]] == [30, 40]


@pytest.mark.parametrize(
    "text",
    [
        "python3 -m vllm.entrypoints.cli.main serve m/x -tp 2",
        "uv run vllm serve m/x -tp 2",
        "nohup timeout 60 numactl -N 0 vllm serve m/x -tp 2 &",
        "tmux new -d -s a 'vllm serve m/x -tp 2'",
        "screen -dmS a vllm serve m/x -tp 2",
        "docker exec box bash -lc 'cd /w && vllm serve m/x -tp 2'",
        "CMD='vllm serve m/x'; eval \"$CMD -tp 2\"",
        "bash <<'E'\nvllm serve m/x -tp 2\nE",
        "kubectl exec pod -- vllm serve m/x -tp 2",
        "python -m vllm.entrypoints.openai.api_server --model=m/x --tensor_parallel_size=2",
        "vllm serve --trust-remote-code m/x -tp 2",
    ],
)
def test_a_server_is_found_behind_whatever_starts_it(read, text):
    got = read(f"#!/bin/bash\npkill -f 'vllm serve' || true\n{text}\n")
    has(got, model="m/x", tp=2, accelerators_used=2, replicas=None)


def test_a_connector_of_one_server_is_a_cache_and_not_read(read):
    got = read('vllm serve m/x --kv-transfer-config \'{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}\'\n')
    has(got, disaggregated=None, unread=["--kv-transfer-config"])


def test_roles_by_the_ports_of_a_proxy(read):
    serve = (
        'vllm serve m/x --port {} --kv-transfer-config \'{{"kv_connector":"NixlConnector","kv_role":"kv_both"}}\' &\n'
    )
    text = serve.format(81) + serve.format(82) + serve.format(91)
    text += "vllm-router --prefill http://a:81 --prefill http://a:82 --decode http://a:91\n"
    split = read(text)["disaggregated"]
    assert [split[role]["instances"] for role in ("prefill", "decode")] == [2, 1]


def test_halves_of_a_batch_that_overlap_are_two(plans):
    [plan] = plans("# 8x H100\nvllm serve deepseek-ai/DeepSeek-V3 -dp 8 -ep --enable-dbo\n")
    assert scenario_of(plan, system=None, model_name="m.json").workload["microbatches"] == 2


def test_replicas_behind_a_router_of_the_same_command(read):
    text = (
        "python -m sglang_router.launch_server --model-path Qwen/Qwen3-32B --tp 2 --dp-size 4 --router-policy random\n"
    )
    has(read(text), tool="sglang", tp=2, dp=4, attention_dp=None, accelerators_used=8, ignored=["--router-policy"])


def test_roles_whose_settings_are_in_files(read):
    start = "python3 -m dynamo.trtllm --model-path openai/gpt-oss-120b "
    start += "--disaggregation-mode {} --extra-engine-args {}.yaml\n"
    text = start.format("prefill", "p") + start.format("decode", "d")
    prefill = "max_batch_size: 4\ncache_transceiver_config: {backend: ucx}\n"
    decode = "tensor_parallel_size: 4\nmoe_expert_parallel_size: 2\ncache_transceiver_config: {backend: ucx}\n"
    got = read(text, p__yaml=prefill, d__yaml=decode)
    has(got, tool="dynamo", engine="trtllm", accelerators_used=5, files=["serve.sh", "p.yaml", "d.yaml"])
    split = got["disaggregated"]
    assert (split["transfer"], split["prefill"]["max_num_seqs"]) == ("ucx", 4)
    assert (split["decode"]["ep"], split["decode"]["expert_tp"]) == (2, 2)
