"""What training frameworks add to a step: energy in long work, launches, costs of experts; stacks by kind."""

from __future__ import annotations

import numpy as np
import pytest

import cmsim
from cmsim import compute
from cmsim.hardware import load_accelerator, load_stack, load_system

GENERATIONS = ("megatron_fused", "megatron_graphed", "megatron_launched", "megatron_eager")


def step(system="hgx_h100", model="llama-3.1-8b", **keys):
    entry = {"system": system, "accelerators": 8, **keys.pop("entry", {})}
    workload = {"kind": "training", "model": model, "sequence_length": 4096, "global_batch": 16, **keys}
    return cmsim.run({"systems": [entry], "workload": workload})[0]


def seconds(**keys):
    return step(**keys).metric("step_time_s")


def test_long_work_takes_no_more_energy_than_the_limit_leaves():
    watts = {"memory_Bps": 1e12, "memory_W": 85.0, "room_W": 500.0}
    # 1,000 J of arithmetic, and 1,000 J with 100 J of 1e12 bytes at 0.85 of the bandwidth
    found = compute.energy_bound_s(np.full(3, 1e15), np.array([0.0, 1e12, 1e12]), np.array([1.0, 1.0, 0.0]), **watts)
    assert found.tolist() == pytest.approx([2.0, 2.2, 0.0])


def test_no_step_is_faster_than_its_products_energy_allows():
    chip = load_accelerator("h100_sxm")
    result = step(parallel={"tp": 1}, entry={"set": {"accelerator.memory_GB": 1000}})
    products = result.ops[result.ops.kernel == "gemm"]
    room_W = chip.power.max_W - chip.power.active_W
    least_s = products.flops.sum() * chip.power.pJ_per_FLOP["bf16"] * 1e-12 / room_W
    took_s = (products.end_ps - products.start_ps).sum() * 1e-12
    assert least_s <= took_s < 1.2 * least_s


def test_one_silicon_on_boards_of_different_limits_takes_times_as_their_watts():
    plan = {"model": "llama-3.1-405b", "parallel": {"tp": 8}, "global_batch": 1}
    set_ = {"accelerator.memory_GB": 1e4}
    low, high = (
        seconds(**plan, system="hgx_b200", entry={"set": {**set_, "accelerator.power.max_W": w}}) for w in (1000, 1200)
    )
    assert 1.05 < low / high < 1.2
    free = seconds(**plan, system="hgx_b200", entry={"set": {**set_, "stack.sustained": False}})
    assert free < high


def test_a_system_runs_training_on_a_stack_of_its_own():
    assert load_system("hgx_h100").stack.name == load_system("hgx_h100", kind="encoder").stack.name == "cuda_graph"
    assert load_system("hgx_h100", kind="training").stack.name == "megatron_graphed"
    assert load_system("hgx_h100", kind="training", stack="cuda_graph").stack.name == "cuda_graph"


def test_both_stacks_of_one_system_are_in_the_manifest():
    decode = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "context_tokens": 16}
    training = {
        "kind": "training",
        "model": "llama-3.1-8b",
        "sequence_length": 128,
        "global_batch": 8,
        "parallel": {"tp": 8},
    }
    done = cmsim.run({"systems": [{"system": "hgx_h100"}], "workloads": {"one": decode, "other": training}})
    files = " ".join(done.manifest["systems"]["hgx_h100"]["files"])
    assert "cuda_graph" in files and "megatron_graphed" in files


MIXTURE = {"model": "qwen3-30b-a3b", "parallel": {"ep": 8}, "entry": {"set": {"accelerator.memory_GB": 1e4}}}


def mixture_s(system, stack, recipe):
    precision = {"recipe": recipe} if recipe else {"weights": "bf16", "activations": "bf16"}
    entry = {"stack": stack, **MIXTURE["entry"]}
    return seconds(**MIXTURE | {"entry": entry}, system=system, precision=precision)


def test_each_generation_of_a_framework_is_faster_with_experts_than_the_one_before():
    times = [mixture_s("gb200_nvl72", name, "mxfp8") for name in GENERATIONS]
    assert times == sorted(times)
    assert times[2] > 1.2 * times[0]
    assert times[-1] > times[2]


@pytest.mark.parametrize(
    ("system", "recipe", "fused"),
    [
        ("gb200_nvl72", "mxfp8", True),
        ("gb200_nvl72", "current", False),
        ("gb200_nvl72", None, False),
        ("hgx_h100", "block", False),
    ],
)
def test_experts_are_fused_where_there_is_such_a_kernel(system, recipe, fused):
    newest, before = (mixture_s(system, name, recipe) for name in ("megatron_fused", "megatron_graphed"))
    assert (newest < 0.95 * before) if fused else newest == before


def test_a_pass_takes_no_less_than_its_launches():
    each_us = load_stack("megatron_eager").training.kernel_us
    small = {"sequence_length": 128, "global_batch": 64, "parallel": {"tp": 8}, "recompute": "none"}
    graphs, launched = (step(**small, entry={"stack": name}) for name in ("megatron_fused", "megatron_eager"))
    passes = launched.ops[launched.ops.op == "launches"]
    kernels = (launched.ops.kind == "compute").sum() - 1  # the optimizer is no pass
    assert (passes.end_ps - passes.start_ps).sum() == pytest.approx(kernels * each_us * 1e6, rel=1e-3)
    assert launched.metric("step_time_s") > kernels * each_us * 1e-6 > 2 * graphs.metric("step_time_s")
    # where the device is the slower, it hides them
    large = {"sequence_length": 8192, "global_batch": 64, "parallel": {"tp": 8}, "recompute": "none", "micro_batch": 8}
    assert seconds(**large, entry={"stack": "megatron_eager"}) == pytest.approx(
        seconds(**large, entry={"stack": "megatron_launched"}), rel=2e-3
    )


def test_launches_do_not_keep_a_steady_part_from_recurring():
    plan = {"parallel": {"pp": 4, "tp": 2}, "global_batch": 256, "entry": {"stack": "megatron_eager"}}
    assert seconds(**plan) > 0


def test_weights_gathered_in_turn_are_exposed():
    plan = {"zero_stage": 3, "entry": {"set": {"accelerator.memory_GB": 1e4}}}
    ahead = seconds(**plan)
    turn = seconds(zero_stage=3, entry={"set": {"accelerator.memory_GB": 1e4, "stack.training.prefetch": False}})
    result = step(zero_stage=3, entry={"set": {"accelerator.memory_GB": 1e4, "stack.training.prefetch": False}})
    moved = result.ops[result.ops.op.str.startswith("gather weights")]
    layers = 32
    assert set(moved.op) == {"gather weights", "gather weights backward"}
    # two gatherings of each layer, and one scattering of its gradients
    assert len(moved) == 2 * 3 * layers
    assert turn > 1.02 * ahead


def test_gradients_are_added_by_products_or_by_kernels_of_their_own():
    plan = {"micro_batch": 1, "global_batch": 32, "entry": {"set": {"accelerator.memory_GB": 1e4}}}
    fused = step(**plan)
    apart = step(
        **plan | {"entry": {"set": {"accelerator.memory_GB": 1e4, "stack.training.fused_accumulation": False}}}
    )
    added = apart.ops[apart.ops.op.str.endswith(" added")]
    assert not fused.ops.op.str.endswith(" added").any()
    # of every weight that a product makes a gradient of: it, and the sum read and written in 32 bits
    wgrads = apart.ops.op.str.endswith(" wgrad").sum()
    assert len(added) == wgrads > 0
    assert apart.metric("step_time_s") > fused.metric("step_time_s")


def test_scores_through_memory_are_counted():
    plan = {"parallel": {"tp": 8}, "recompute": "none"}
    fused, apart = step(**plan), step(**plan, entry={"set": {"stack.training.scores_moved": 8}})

    def bytes_B(result, name):
        found = result.ops[result.ops.op == name].bytes_B
        return found.iloc[0]

    # 4 of 32 heads, 4,096 x 4,096 scores of 2 bytes, 8 times
    assert bytes_B(apart, "attention") - bytes_B(fused, "attention") == pytest.approx(8 * 4 * 4096**2 * 2)
    assert bytes_B(apart, "attention backward") > 2 * 8 * 4 * 4096**2 * 2
