"""Prompts worked on in the same step as sequences that decode."""

from __future__ import annotations

from typing import Any

import pytest

import cmsim


def step(model: str = "llama-3.1-8b", kind: str = "decode", count: int = 1, **keys: Any) -> cmsim.Result:
    system = {"system": "hgx_h100", "accelerators": count, "stack": "cuda_graph"}
    return cmsim.run({"systems": [system], "workload": {"kind": kind, "model": model, **keys}})[0]


SEQUENCES = {"batch_per_accelerator": 64, "context_tokens": 1000}


def test_weights_are_read_once_for_both():
    decode, prompt = step(**SEQUENCES), step(kind="prefill", batch_per_accelerator=1, prompt_tokens=512)
    mixed = step(**SEQUENCES, chunk={"tokens": 512})
    alone = decode.metrics["makespan_s"], prompt.metrics["makespan_s"]
    assert max(alone) < mixed.metrics["makespan_s"] < 0.9 * sum(alone)
    # the head works on one more token: the prompt's last
    heads = [one.columns["ops"]["flops"][list(one.columns["ops"]["op"]).index("head")] for one in (decode, mixed)]
    assert heads[1] / heads[0] == pytest.approx(65 / 64)
    # the chunk is in the cache
    cached_B = 512 * 2 * 8 * 128 * 2 * 32
    assert mixed.metrics["memory_peak_B"] - decode.metrics["memory_peak_B"] > cached_B
    # output tokens are those of the sequences
    assert mixed.metrics["tokens_per_s"] * mixed.metrics["makespan_s"] == pytest.approx(64)


def test_a_chunk_sees_what_is_cached_before_it():
    near, far = (step(**SEQUENCES, chunk={"tokens": 512, "cached_tokens": n}) for n in (0, 8192))
    assert far.metrics["makespan_s"] > 1.2 * near.metrics["makespan_s"]


def test_experts_work_on_both_and_drafts_on_sequences():
    keys: dict[str, Any] = {
        "model": "qwen3-30b-a3b",
        "count": 4,
        "parallel": {"ep": 4, "attention": "dp"},
        "balance": {"model": "balanced"},
        "speculative": {"acceptance": 0.7},
        "batch_per_accelerator": 16,
        "context_tokens": 512,
    }

    def flops(**more: Any) -> list[float]:
        ops = step(**keys, **more).columns["ops"]
        return [float(work) for work, name in zip(ops["flops"], ops["op"], strict=True) if name == "expert up"]

    plain, mixed = flops(), flops(chunk={"tokens": 96})
    assert mixed[0] == pytest.approx(plain[0] * (32 + 96) / 32)
    assert mixed[-1] == pytest.approx(plain[-1])


def test_layers_with_a_state_refuse():
    (one,) = cmsim.run(
        {
            "systems": [{"system": "hgx_h100", "accelerators": 1}],
            "workload": {"kind": "decode", "model": "nemotron-3-nano", **SEQUENCES, "chunk": {"tokens": 8}},
        }
    ).missing
    assert "layers with a state" in repr(one)
