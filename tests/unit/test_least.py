"""The least work of a question, worked out by hand from published sizes."""

from __future__ import annotations

import pytest

from cmsim import api
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.model import load_model

BOX = {"system": "hgx_h200"}
#: Llama 3.1 8B: 32 layers of 41.9 M (attention) and 176.2 M (FFN) parameters, head and table of 525.3 M each
LINEAR, HEAD = 32 * (41_943_040 + 176_160_768), 525_336_576
#: DeepSeek R1: 61 layers of attention, 3 dense FFNs, 58 layers of 256 experts of 44.0 M, 8 a token, one shared
ATTENTION, UP, EXPERT = 187_105_280, 16_777_216, 44_040_192


def least(workload, system=BOX):
    (one,) = load_scenario({"systems": [system], "workload": workload}).runs
    return generate.programs(one.spec, api.system(one)).least


def test_a_decode_step_of_a_dense_model():
    found = least({"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 2, "context_tokens": 1000})
    assert found.ranks == 8 and found.exchange_B == 0
    products = 2.0 * 16 * (LINEAR + HEAD)
    # two products of 32 heads of 128 over a thousand tokens, in 32 layers
    cores = 16 * 32 * 4 * 1000 * 32 * 128
    assert found.flops == {"bf16": pytest.approx(products + cores)}
    cache_B = 16 * 1000 * 131072
    rows_B = 16 * 4096 * 2
    assert found.bytes_B == pytest.approx(2 * (LINEAR + HEAD) + cache_B + rows_B)


def test_drafts_are_verified_and_count_no_further():
    work = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 2, "context_tokens": 1000}
    plain, drafted = least(work), least({**work, "speculative": {"draft_tokens": 2, "acceptance": 0.5}})
    assert drafted.flops == {"bf16": pytest.approx(3 * plain.flops["bf16"])}
    assert drafted.bytes_B - plain.bytes_B == pytest.approx(2 * 16 * 4096 * 2)


def test_a_prefill_counts_the_causal_half_and_one_head_a_prompt():
    found = least({"kind": "prefill", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "prompt_tokens": 1024})
    tokens = 8 * 1024
    cores = tokens * 32 * 4 * 512 * 32 * 128
    assert found.flops == {"bf16": pytest.approx(2.0 * (tokens * LINEAR + 8 * HEAD) + cores)}
    assert found.bytes_B == pytest.approx(2 * (LINEAR + HEAD) + tokens * (4096 * 2 + 131072))


@pytest.mark.parametrize("sequences", [1, 1024])
def test_experts_that_a_batch_reaches(sequences):
    """One token reaches its eight; a thousand reach all 256; each is read once over all ranks, in its own format."""
    system = {"system": "cloudmatrix384", "accelerators": 128}
    found = least(
        {
            "kind": "decode",
            "model": "deepseek-r1",
            "batch_per_accelerator": sequences / 128,
            "context_tokens": 4096,
            "precision": {"weights": "int8", "activations": "int8"},
            "parallel": {"ep": "max", "attention": "dp"},
        },
        system,
    )
    reached = 256 * (1 - (1 - 8 / 256) ** sequences)
    assert reached == pytest.approx(8 if sequences == 1 else 256)
    dense = load_model("deepseek-r1").dense_ffn_parameters
    linear = 61 * ATTENTION + 3 * dense + 58 * (1 + reached) * EXPERT
    plain = 58 * 7168 * 256 + 129280 * 7168
    cache_B = sequences * 4096 * 61 * 576 * 2
    assert found.bytes_B == pytest.approx(linear + 2 * plain + cache_B + sequences * 7168 * 2)
    used = 61 * (ATTENTION - UP) + 3 * dense + 58 * 9 * EXPERT
    # absorbed: 128 heads of 576 and 512 over the latents of 4,096 tokens, and what makes keys and values of them
    cores = 61 * (2 * 4096 * 128 * (576 + 512) + 2 * UP)
    assert found.flops["int8"] == pytest.approx(2.0 * sequences * used)
    assert found.flops["bf16"] == pytest.approx(sequences * (cores + 2.0 * plain))


def test_a_popular_expert_is_reached_first():
    work = {"kind": "decode", "model": "qwen3-235b-a22b", "batch_per_accelerator": 1, "context_tokens": 64}
    even, skewed = least(work), least({**work, "balance": {"model": "zipf", "zipf_exponent": 1.0}})
    assert skewed.bytes_B < even.bytes_B
    assert skewed.flops == even.flops


def test_a_training_step_is_three_passes_and_every_state_once():
    work = {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 1024, "global_batch": 8}
    found = least({**work, "recompute": "full", "parallel": {"tp": 2}})
    spec = load_model("llama-3.1-8b")
    assert found.flops == {"bf16": pytest.approx(8 * 1024 * spec.training_flops_per_token(1024))}
    weights = LINEAR + HEAD
    # gradient in fp32, master weight and two moments read and written, the working weight
    states_B = (weights + HEAD) * (4 + 2 * 12 + 2)
    assert found.bytes_B == pytest.approx(states_B + 2 * weights + 8 * 1024 * 4096 * 2)


def test_windows_count():
    work = {"kind": "decode", "model": "gpt-oss-20b", "batch_per_accelerator": 1}
    near, far = (least({**work, "context_tokens": length}) for length in (128, 100_000))
    spec = load_model("gpt-oss-20b")
    assert (spec.window, spec.window_layers) == (128, 12)
    # half of the layers see no more of the longer context
    assert far.bytes_B - near.bytes_B == pytest.approx(8 * (100_000 - 128) * spec.kv_bytes_per_token(2) / 2)


def test_a_graph_reads_its_weights_once_and_its_ranks_add_up_gradients():
    encoded = least({"kind": "encoder", "model": "resnet50", "batch_per_accelerator": 4})
    trained = least({"kind": "training", "model": "resnet50", "global_batch": 32})
    weights = 25.557e6
    # 4.09 GFLOP of multiplications and additions each, an image of 3 x 224 x 224
    assert encoded.flops["bf16"] == pytest.approx(32 * 2 * 4.09e9, rel=0.01)
    assert encoded.bytes_B == pytest.approx(2 * weights + 32 * 3 * 224 * 224 * 2, rel=0.01)
    assert encoded.exchange_B == 0
    # of the first layer nobody asks for the gradient of the image
    assert trained.flops["bf16"] == pytest.approx(3 * encoded.flops["bf16"], rel=0.02)
    assert trained.exchange_B == pytest.approx(2 * weights, rel=0.01)
    assert trained.bytes_B == pytest.approx(encoded.bytes_B + 30 * weights, rel=0.01)


def test_a_collective_and_a_trace_are_their_own_questions():
    assert least({"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6}) is None
    assert least({"kind": "trace", "path": "chakra/resnet50_ddp_rank0"}) is None
