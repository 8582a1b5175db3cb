"""What serving engines add to a step: host time before it or beside it, samplers that sort, rows of experts moved."""

from __future__ import annotations

from typing import Any

import pytest

import cmsim
from cmsim.hardware import load_stack, load_system
from cmsim.serving.plans import _on_its_stack
from cmsim.workload import moe

MODEL = "llama-3.1-8b"


def step(stack: dict[str, Any] | None = None, *, base: str = "cuda_graph", count: int = 1, **keys: Any) -> cmsim.Result:
    of = {f"stack.steps.{key}": value for key, value in (stack or {}).items()}
    workload = {"kind": "decode", "model": MODEL, "batch_per_accelerator": 32, "context_tokens": 512, **keys}
    system = {"system": "hgx_h100", "accelerators": count, "stack": base, "set": of}
    return cmsim.run({"systems": [system], "workload": workload})[0]


@pytest.fixture(scope="module")
def bare() -> cmsim.Result:
    return step()


def test_a_host_in_turn_is_added(bare: cmsim.Result):
    waited = step({"host_us": 900, "sequence_us": 10, "overlapped": False})
    assert waited.metrics["makespan_s"] - bare.metrics["makespan_s"] == pytest.approx(900e-6 + 32 * 10e-6)
    assert waited.breakdown["host_s"] == pytest.approx(1220e-6)
    # the device waits: it draws less
    assert waited.metrics["power_avg_W"] < bare.metrics["power_avg_W"]


def test_a_host_beside_the_device_is_a_floor(bare: cmsim.Result):
    short = step({"host_us": 900})
    assert short.metrics["makespan_s"] == bare.metrics["makespan_s"]
    assert step({"host_us": 50000}).metrics["makespan_s"] == pytest.approx(0.05)


def test_a_sampler_keeps_the_device_at_work(bare: cmsim.Result):
    sorted_ = step({"sampling_MB": 120})
    added_s = 32 * 120e6 / (3350e9 * 0.6)
    assert sorted_.metrics["makespan_s"] - bare.metrics["makespan_s"] == pytest.approx(added_s, rel=1e-3)
    assert sorted_.metrics["power_avg_W"] > 0.9 * bare.metrics["power_avg_W"]


def test_rows_of_experts_are_moved_where_they_are_cast():
    mixture = {"model": "qwen3-30b-a3b", "batch_per_accelerator": 2}
    spread = {"tp": 2, "ep": 2}
    cast = {"weights": "fp8", "activations": "fp8"}
    of = {"cast_experts.padded_rows": 128, "cast_experts.moved": 8}

    def longer_s(parallel: dict[str, int], **precision: str) -> float:
        keys = {**mixture, "parallel": parallel, "precision": precision, "count": 2}
        made = [step(one, **keys).metrics["makespan_s"] for one in (of, None)]
        return made[0] - made[1]

    assert longer_s(spread) == 0
    # 48 layers, 64 experts on a rank, some of 4 tokens of 8 experts
    assert longer_s(spread, **cast) > 48 * 8 * (64 * 128 + 16) * 2048 * 2 / 3350e9
    # ranks that share all experts have kernels that read rows where they lie
    assert longer_s({"tp": 2, "expert_tp": 2}, **cast) == 0


def test_the_stack_of_a_machine_goes_by_the_kind_of_workload():
    assert load_system("hgx_h100", kind="decode").stack.name == "vllm_0_11"
    assert load_system("hgx_h100", kind="serving").stack.name == "vllm_0_11"
    assert load_system("gb200_nvl72", kind="serving").stack.name == "tensorrt_llm"
    assert load_system("cloudmatrix384", kind="serving").stack.name == "cann_graph"
    assert load_system("hgx_h100").stack.name == "cuda_graph"
    assert load_stack("sglang_0_4").steps.overlapped
    assert load_stack("sglang_0_4").steps.cast_experts == load_stack("vllm_0_11").steps.cast_experts


def test_the_busiest_rank_reaches_more_experts():
    few = {"experts": 128, "top_k": 8, "tokens": 8}
    mean = float(moe.experts_touched(16, **few))
    assert moe.busiest_touched(16, ranks=1, **few) == mean
    # 400 draws: 9.26 on 8 ranks, 15.7 of 32 on 4
    assert moe.busiest_touched(16, ranks=8, **few) == pytest.approx(9.26, rel=0.03)
    assert moe.busiest_touched(32, ranks=4, **few) == pytest.approx(15.72, rel=0.03)
    assert moe.busiest_touched(16, ranks=8, experts=128, top_k=8, tokens=1e6) == 16


def test_steps_of_a_service_are_played_on_its_stack():
    one = cmsim.load_scenario(
        {
            "systems": [{"system": "hgx_h100", "accelerators": 1}],
            "workload": {
                "kind": "serving",
                "model": MODEL,
                "arrivals": {"process": "poisson", "rate_per_s": 1.0},
                "lengths": {"prompt_tokens": 8, "output_tokens": 8},
            },
        }
    ).runs[0]
    system = load_system("hgx_h100", kind=one.spec.kind)
    assert _on_its_stack(one, system).system.stack == system.stack.name == "vllm_0_11"


def on_supernode(batch: float, microbatches: int, of: dict[str, Any] | None = None) -> cmsim.Result:
    workload = {
        "kind": "decode",
        "model": "deepseek-r1",
        "batch_per_accelerator": batch,
        "context_tokens": 4096,
        "parallel": {"ep": 320, "attention": "dp"},
        "precision": {"weights": "int8", "activations": "int8"},
        "speculative": {"draft_tokens": 1, "acceptance": 0.7},
        "microbatches": microbatches,
    }
    entry = {"system": "cloudmatrix384", "accelerators": 160, "set": of or {}}
    return cmsim.run({"systems": [entry], "workload": workload})[0]


def test_micro_batches_hide_that_ranks_come_late():
    alone, two = (on_supernode(96, count) for count in (1, 2))
    assert alone.breakdown["imbalance_s"] > 0.1 * alone.metrics["makespan_s"]
    assert two.breakdown["imbalance_s"] < 0.01 * two.metrics["makespan_s"]
    # published: 9.4 % (ABL-002), two points of which are the model's own
    assert 1.05 < two.metrics["tokens_per_s"] / alone.metrics["tokens_per_s"] < 1.15
    none = on_supernode(96, 1, {"stack.steps.late.dispatch_us": 0, "stack.steps.late.combine_us": 0})
    assert none.breakdown["imbalance_s"] == 0


def test_few_tokens_are_not_cut():
    one, two = (on_supernode(8, count) for count in (1, 2))
    assert one.metrics == two.metrics
    assert "one micro-batch: 8 tokens of the busiest rank" in " ".join(two.warnings)
    assert on_supernode(8, 2, {"stack.overlap.decode.least_tokens": 0}).metrics["tpot_s"] > two.metrics["tpot_s"]


def sums(result: cmsim.Result) -> tuple[float, list[str]]:
    """What a sum over ranks takes [us], and the names of all ops."""
    ops = result.columns["ops"]
    added = ops["op"] == "tp sum"
    return float((ops["end_ps"] - ops["start_ps"])[added].min()) / 1e6, ops["op"].tolist()


def test_small_sums_go_by_kernels_of_the_engine():
    own = {"upto_B": 1e6, "base_us": 1.0, "scale_up_efficiency": 0.5}

    def took_us(batch: int, count: int, **small: Any) -> float:
        of = {"stack.collectives.small": {**own, **small}} if small or batch else {}
        system = {"system": "hgx_h100", "accelerators": count, "stack": "cuda_graph", "set": of if batch > 0 else {}}
        workload = {"kind": "decode", "model": MODEL, "batch_per_accelerator": abs(batch) / count}
        workload |= {"context_tokens": 512, "parallel": {"tp": count}}
        return sums(cmsim.run({"systems": [system], "workload": workload})[0])[0]

    # 8 tokens x 4,096 x 2 B are small; a step of the library is as the engine's (0.22 and 0.6 us of wire), its base not
    assert took_us(8, 2) == pytest.approx(1.0 + 0.82 + 65536 / (0.5 * 450e9) * 1e6, rel=0.02)
    assert took_us(8, 2) < took_us(-8, 2)
    # a byte above the limit they are the library's
    assert took_us(8, 2, upto_B=65535) == took_us(-8, 2)


def test_the_library_may_be_quicker_than_an_engine_s_own_kernel():
    """Calls of one question have efficiencies of their own; it ended in a TypeError where the library took some."""

    def tpot_s(**small: Any) -> float:
        stack = {f"stack.collectives.small.{key}": value for key, value in {"upto_B": 1e6, **small}.items()}
        decode = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 1024}
        systems = [{"system": "hgx_h100", "set": stack}]
        (one,) = cmsim.run({"systems": systems, "workload": {**decode, "parallel": {"tp": 8}}})
        return one.metric("tpot_s")

    slow = tpot_s(scale_up_efficiency=1e-6)
    assert tpot_s() <= slow < 1.5 * tpot_s(), "the library does them, not a kernel at a millionth of the port"


def test_a_small_sum_does_the_norm_and_the_cast_behind_it():
    keys = {"count": 2, "parallel": {"tp": 2}, "batch_per_accelerator": 4}
    keys |= {"precision": {"weights": "fp8", "activations": "fp8"}}

    def names(**of: Any) -> list[str]:
        system = {"system": "hgx_h100", "accelerators": 2, "stack": "cuda_graph"}
        system["set"] = {f"stack.{key.replace('__', '.')}": value for key, value in of.items()}
        workload = {"kind": "decode", "model": MODEL, "context_tokens": 512, **keys}
        workload.pop("count")
        return sums(cmsim.run({"systems": [system], "workload": workload})[0])[1]

    apart, layers = names(), 32
    assert [apart.count(name) for name in ("ffn norm", "attention norm", "attention quantise")] == [layers] * 3
    with_norm = names(collectives__small={"upto_B": 1e6, "with_norm": True})
    # the first norm has no sum before it
    assert [with_norm.count(name) for name in ("ffn norm", "attention norm", "attention quantise")] == [0, 1, 1]
    assert with_norm.count("output quantise") == layers
    # larger sums leave them to kernels of their own
    assert names(collectives__small={"upto_B": 1e4, "with_norm": True}) == apart
    fused = names(steps__casts_fused=True)
    assert not [name for name in fused if name.endswith("quantise")]
    assert fused == [name for name in apart if not name.endswith("quantise")]
