"""Experts in a format of their own, beside attention in another."""

from __future__ import annotations

from typing import Any

import pytest

from cmsim.hardware import load_system
from cmsim.kinds.decode import DecodeSpec
from cmsim.workload.generate import inference
from cmsim.workload.ops import Programs

FP8 = {"weights": "fp8", "activations": "fp8"}


def programs(**precision: str) -> Programs:
    spec = DecodeSpec(
        kind="decode",
        model="deepseek-r1",
        batch_per_accelerator=16.0,
        context_tokens=2000,
        parallel={"ep": 8, "attention": "dp"},
        precision=precision,
    )
    return inference.decode(spec, load_system("gb200_nvl72", accelerators=8))


def formats(made: Programs) -> dict[str, Any]:
    ops = made.ops
    return {
        ops.names[name]: ops.precisions[precision]
        for name, precision in zip(ops.name_id.tolist(), ops.precision.tolist(), strict=True)
        if precision >= 0
    }


def test_what_is_not_said_is_as_the_rest():
    made = formats(programs(**FP8))
    assert made["expert up"] == made["shared expert up"] == made["q up"] == "fp8"
    both = programs(**FP8, experts="fp8", expert_activations="fp8")
    assert both.footprint_B["weights"] == programs(**FP8).footprint_B["weights"]
    assert both.least == programs(**FP8).least


def test_experts_have_their_own_products_weights_and_messages():
    plain, apart, all_four = (
        programs(**FP8),
        programs(**FP8, experts="fp4", expert_activations="fp4"),
        programs(weights="fp4", activations="fp4"),
    )
    made = formats(apart)
    assert made["expert up"] == made["shared expert up"] == "fp4"
    assert made["q up"] == made["ffn up"] == "fp8"
    weights = [float(one.footprint_B["weights"][0]) for one in (plain, apart, all_four)]
    assert weights[0] > 1.5 * weights[1] > weights[2]
    assert plain.least.bytes_B > apart.least.bytes_B > all_four.least.bytes_B
    assert apart.least.flops["fp4"] == pytest.approx(plain.least.flops["fp8"] - apart.least.flops["fp8"])
