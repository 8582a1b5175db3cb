"""Check values of training that nothing else holds: FLOPs of a recomputed step, utilisation."""

from __future__ import annotations

import pytest

import cmsim
from cmsim.units import TERA
from cmsim.workload.model import load_model


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
