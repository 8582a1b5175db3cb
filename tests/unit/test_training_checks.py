"""Check values of training that nothing else holds: FLOPs of a recomputed step, days, utilisation."""

from __future__ import annotations

import json

import pytest

import cmsim
from cmsim.units import TERA
from cmsim.workload.model import load_model, parse_model


def gpt3(**keys: object) -> cmsim.Result:
    """One micro-batch of GPT-3 175B through two stages of eight ranks."""
    workload = {
        "kind": "training",
        "model": "gpt3-175b",
        "sequence_length": 2048,
        "global_batch": 2,
        "parallel": {"tp": 8, "pp": 8},
        **keys,
    }
    systems = [{"system": "hgx_a100", "domains": 8, "set": {"accelerator.memory_GB": 1000}}]
    return cmsim.run({"systems": systems, "workload": workload})[0]


def test_hardware_flops_with_full_recomputation() -> None:
    """T01: 96 B s l h^2 (1 + s/6h + V/16lh), with the whole square of attention; of the causal half less by half of it.

    The head is not computed again (T01 counts it three times too), table and vocabulary as in the model's file.
    """
    B, s, L, h = 1536, 2048, 96, 12288
    V = load_model("gpt3-175b").vocab
    paper = 96 * B * s * L * h**2 * (1 + s / (6 * h) + V / (16 * L * h))
    causal_less = 96 * B * s * L * h**2 * (s / (12 * h))
    facts = gpt3(recompute="full").facts
    assert facts.hardware_flops_per_token * B * s == pytest.approx(paper - causal_less, rel=2e-3)


def test_utilisation_is_model_flops_over_the_peak() -> None:
    """As T34: tokens/s x FLOPs of a token over accelerators and their peak."""
    run = gpt3()
    each = float(run.metrics["tokens_per_s_per_accelerator"])
    mfu = each * run.facts.model_flops_per_token / run.facts.peak_FLOPps
    assert run.metrics["mfu"] == pytest.approx(mfu, rel=1e-12)
    assert run.facts.peak_FLOPps == 312 * TERA


@pytest.mark.parametrize(
    ("sizes", "parameters", "tokens", "accelerators", "TFLOPps", "days"),
    [
        pytest.param((12288, 96, 96), 175e9, 300e9, 1024, 140, 33.9084201, id="T03"),
        pytest.param((25600, 160, 128), 1008e9, 450e9, 3072, 163, 83.8765337, id="T04"),
    ],
)
def test_days_of_a_training(sizes, parameters, tokens, accelerators, TFLOPps, days) -> None:
    """8 T P / (n X) with full recomputation: what products with weights take, four passes of 2 FLOPs a parameter."""
    hidden, heads, layers = sizes
    config = {"model_type": "gpt2", "n_embd": hidden, "n_head": heads, "n_layer": layers, "vocab_size": 51200}
    model = parse_model(json.dumps({**config, "n_positions": 2048}), name="padded", file="padded.json")
    # attention goes as the length: without it, the line to no length at all
    weights = 2 * model.training_flops_per_token(1024) - model.training_flops_per_token(2048)
    found = tokens * weights * 8 / 6 / (accelerators * TFLOPps * TERA) / 86400
    assert 8 * tokens * parameters / (accelerators * TFLOPps * TERA) / 86400 == pytest.approx(days, rel=1e-6)
    assert found == pytest.approx(days, rel=0.01)


def test_attention_recomputed_alone() -> None:
    """T32: 4 b s^2 h FLOPs a layer beside 72 b s h^2 (1 + s/6h), 0.90 %; causal, half of them. T33, s/6h of the paper,
    is three times as much over the products with weights alone."""
    s, h, layers = 2048, 12288, 96
    extra = 4 * s * h / (72 * h**2 * (1 + s / (6 * h)))
    assert 100 * extra == pytest.approx(0.900900901, rel=1e-6)
    assert 100 * 3 * extra * (1 + s / (6 * h)) == pytest.approx(2.77777778, rel=1e-6)
    again, once = (gpt3(recompute=how).facts.hardware_flops_per_token for how in (["core_attn"], "none"))
    assert again - once == pytest.approx(layers * 4 * s * h / 2, rel=1e-3)


def test_tokens_of_a_day() -> None:
    """T35: a batch over the time of a step, 272.80 billion tokens a day."""
    assert 15_360 * 4096 / 19.926 * 86400 == pytest.approx(272.80026e9, rel=1e-6)
    run = gpt3()
    assert run.metrics["tokens_per_s"] * run.metrics["step_time_s"] == pytest.approx(2 * 2048, rel=1e-9)
