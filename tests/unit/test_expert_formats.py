"""Experts in a format of their own, beside attention in another."""

from __future__ import annotations

from typing import Any

import pytest

from cmsim.hardware import load_system
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.parts import InferencePrecisionSpec, PrecisionSpec
from cmsim.workload.generate import inference, least
from cmsim.workload.generate.formats import formats as forms
from cmsim.workload.generate.formats import of_experts
from cmsim.workload.model import load_model
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
    assert made["expert up"] == made["shared expert up"] == made["q up"] == "fp8_block"
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
    assert made["q up"] == made["ffn up"] == "fp8_block"
    weights = [float(one.footprint_B["weights"][0]) for one in (plain, apart, all_four)]
    assert weights[0] > 1.5 * weights[1] > weights[2]
    assert plain.least.bytes_B > apart.least.bytes_B > all_four.least.bytes_B
    assert apart.least.flops["fp4"] == pytest.approx(plain.least.flops["fp8_block"] - apart.least.flops["fp8_block"])


def test_weights_with_a_scale_for_each_block_are_multiplied_block_by_block():
    """By stacks whose products of one scale a tensor are quicker; other formats have no blocks."""
    model = load_model("deepseek-r1")
    assert model.stored is not None and model.stored.blocks
    eight, whole = (PrecisionSpec(weights=name, activations=name) for name in ("fp8", "int8"))
    assert forms(eight, model.stored).gemm == of_experts(eight, model.stored).gemm == "fp8_block"
    assert (forms(eight).gemm, forms(whole, model.stored).gemm) == ("fp8", "int8")


def test_a_copy_of_the_weights_has_experts_in_their_format():
    model = load_model("deepseek-r1")
    eight = InferencePrecisionSpec(weights="fp8", activations="fp8")
    four = eight.model_copy(update={"experts": "fp4"})
    experts = model.moe_layers * (model.experts * model.expert_parameters + model.shared_parameters)
    assert least.held_B(model, eight) == model.total_parameters
    assert least.held_B(model, eight) - least.held_B(model, four) == pytest.approx(experts / 2)
