"""Memory of training and serving. Rows T.. are check values of the model page."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.workload import memory
from cmsim.workload.model import load_model

GPT3 = {"sequence": 2048, "batch": 1, "hidden": 12288, "ffn": 4 * 12288, "heads": 96}


@pytest.mark.parametrize(
    ("given", "expected_B"),
    [
        pytest.param({}, 2.86890394e9, id="T12"),
        pytest.param({"tp": 8}, 578_813_952, id="T13"),
        pytest.param({"tp": 8, "sequence_parallel": True}, 358_612_992, id="T14"),
        pytest.param({"tp": 8, "sequence_parallel": True, "recompute": "selective"}, 106_954_752, id="T15"),
        pytest.param({"tp": 8, "sequence_parallel": True, "scores_stored": False}, 106_954_752, id="T15-fused"),
        pytest.param({"recompute": "full"}, 50_331_648, id="T16"),
        pytest.param({"recompute": "full", "tp": 8}, 50_331_648, id="T16-tp"),
        pytest.param({"recompute": "full", "tp": 8, "sequence_parallel": True}, 50_331_648 / 8, id="T16-sp"),
    ],
)
def test_activations_of_a_layer(given, expected_B):
    assert memory.activation_B(**GPT3, **given) == pytest.approx(expected_B, rel=1e-6)


def test_a_gate_keeps_one_more_vector():
    plain = memory.activation_B(**GPT3, recompute="selective")
    gated = memory.activation_B(**GPT3, recompute="selective", gated=True)
    assert gated - plain == 2048 * 2 * 4 * 12288


def test_experts_keep_a_copy_of_each_token():
    one = memory.activation_B(**GPT3, recompute="selective")
    three = memory.activation_B(**GPT3, recompute="selective", ffn_copies=3)
    assert three - one == 2 * 2048 * (2 * 12288 + 4 * GPT3["ffn"])


@pytest.mark.parametrize(
    ("stage", "expected_GB"),
    [
        pytest.param(0, 120, id="T18"),
        pytest.param(1, 31.40625, id="T19"),
        pytest.param(2, 16.640625, id="T20"),
        pytest.param(3, 1.875, id="T21"),
    ],
)
def test_zero_states(stage, expected_GB):
    assert 7.5 * memory.state_B_per_parameter(stage=stage, shards=64) == pytest.approx(expected_GB, rel=1e-9)


def test_fp32_gradients_T22_T23():
    assert memory.state_B_per_parameter(gradient_bytes=4) == 18
    assert memory.state_B_per_parameter(stage=1, shards=8, gradient_bytes=4) == 7.5
    assert memory.state_B_per_parameter(stage=1, shards=np.array([1, 8]), gradient_bytes=4).tolist() == [18, 7.5]


def test_an_unknown_stage():
    with pytest.raises(InputError, match="got ZeRO stage 4"):
        memory.state_B_per_parameter(stage=4)


def test_logits():
    assert memory.logits_B(4096, 1, 128256, tp=8) == 4096 * 128256 / 8 * 6


def test_cache_splits_by_heads_until_one_is_left():
    per_token = load_model("llama-3.1-405b").kv_bytes_per_token(2)
    whole = memory.kv_cache_B(per_token, 4096)
    assert whole == 4096 * 516096
    assert memory.kv_cache_B(per_token, 4096, tp=8, kv_heads=8) == whole / 8
    assert memory.kv_cache_B(per_token, 4096, tp=16, kv_heads=8) == whole / 8
    assert memory.kv_cache_B(per_token, 4096, tp=8, kv_heads=1) == whole
    assert memory.kv_cache_B(per_token, 4090, block_tokens=16) == whole
