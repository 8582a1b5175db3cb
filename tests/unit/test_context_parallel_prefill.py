"""Prompts shared by ranks: each works on its part of the tokens, and gathers the keys and values of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmsim.hardware import load_system
from cmsim.kinds.prefill import PrefillSpec
from cmsim.workload.generate import inference
from cmsim.workload.ops import Programs


def prefill(model: str = "llama-3.1-8b", **parallel: Any) -> Programs:
    spec = PrefillSpec(
        kind="prefill", model=model, batch_per_accelerator=0.25, prompt_tokens=8192, parallel=parallel,
        balance={"model": "balanced"},
    )  # fmt: skip
    return inference.prefill(spec, load_system("hgx_h100", accelerators=4))


def flops(made: Programs, name: str = "") -> float:
    names = np.array(made.ops.names)[made.ops.name_id]
    return float(made.ops.flops[(names == name) if name else names != ""].sum())


@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v2"])
def test_work_is_shared_out(model: str):
    one, four = prefill(model, tp=1, cp=1, attention="dp"), prefill(model, tp=1, cp=4, attention="dp")
    assert four.least == one.least
    assert flops(four, "attention") == pytest.approx(flops(one, "attention") / 4)
    assert flops(four, "attention out") == pytest.approx(flops(one, "attention out") / 4)
    # keys and values of latents are made of all that is gathered
    assert flops(four, "k, v up") == flops(one, "k, v up")
    assert four.footprint_B["cache"][0] == pytest.approx(one.footprint_B["cache"][0] / 4)


def test_keys_and_values_are_gathered():
    ops = prefill(tp=2, cp=2).ops
    gathers = np.array(ops.names)[ops.name_id] == "cp gather"
    assert gathers.sum() == 32
    # 8,192 tokens of four heads' keys and values, 128 wide, 2 B each
    assert set(ops.bytes_B[gathers].tolist()) == {8192 * 4 * 2 * 128 * 2.0}
