"""What memory of a training step does as its plan changes, on all forms of models."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

import cmsim
from cmsim import api
from cmsim.kinds.training import RecomputeModule
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.generate import kept, recompute
from cmsim.workload.generate.plan import memory_B

MODELS = ["llama-3.1-8b", "gpt3-175b", "deepseek-r1", "qwen3-30b-a3b"]
MODULES = get_args(RecomputeModule)


def lines_B(model: str, system: str = "gb200_nvl72", **plan) -> dict[str, list[float]]:
    parallel = {"tp": 2, "pp": 2, "dp": 2} | plan.pop("parallel", {})
    work = {
        "kind": "training",
        "model": model,
        "sequence_length": 4096,
        "global_batch": 32,
        "parallel": parallel,
        **plan,
    }
    run = load_scenario({"systems": [system], "workload": work}).runs[0]
    return memory_B(run.spec, api.system(run))


def peak_B(model: str, **plan) -> list[float]:
    """Of each stage."""
    return [sum(stage) for stage in zip(*lines_B(model, **plan).values(), strict=True)]


def activations_B(model: str, **plan) -> float:
    """Kept from forward to backward, of all stages."""
    return sum(sum(values) for line, values in lines_B(model, **plan).items() if line in kept.PARTS)


@pytest.mark.parametrize("model", MODELS)
def test_more_sequences_need_more(model):
    found = [peak_B(model, micro_batch=size) for size in (1, 2, 4, 8)]
    assert all(one < more for ones, mores in itertools.pairwise(found) for one, more in zip(ones, mores, strict=True))
    # but for weights and states it is twice as much for twice as many
    assert activations_B(model, micro_batch=2) == pytest.approx(2 * activations_B(model), rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_recomputation_never_keeps_or_needs_more(model):
    ways = ["selective", "full", *([one] for one in MODULES), list(MODULES)]
    everything, plain = activations_B(model, recompute="none"), peak_B(model, recompute="none")
    for way in ways:
        assert activations_B(model, recompute=way) <= everything, way
        found = peak_B(model, recompute=way)
        assert all(one <= most * (1 + 1e-12) for one, most in zip(found, plain, strict=True)), way
    assert activations_B(model, recompute="full") < activations_B(model, recompute="selective") < everything
    # what is asked for beside others takes away what it does alone, or less
    assert activations_B(model, recompute=list(MODULES)) <= min(
        activations_B(model, recompute=[one]) for one in MODULES
    )


@pytest.mark.parametrize("model", MODELS)
def test_every_module_is_of_a_kernel_and_a_tensor_or_of_neither(model):
    """What runs again is what is not kept."""

    def ran(way) -> int:
        work = {"kind": "training", "model": model, "sequence_length": 1024, "global_batch": 8, "recompute": way}
        run = load_scenario({"systems": ["gb200_nvl72"], "workload": {**work, "ranks": 8}}).runs[0]
        ops = generate.programs(run.spec, api.system(run)).ops
        return len(ops)

    none, kept_all = ran("none"), activations_B(model, recompute="none")
    for way in MODULES:
        assert (ran([way]) > none) == (activations_B(model, recompute=[way]) < kept_all), way


@pytest.mark.parametrize(("model", "ep"), [("llama-3.1-8b", 1), ("qwen3-30b-a3b", 8)])
def test_lines_add_up_to_the_metric(model, ep):
    work = {"kind": "training", "model": model, "sequence_length": 4096, "global_batch": 72, "recompute": "full"}
    (result,) = cmsim.run({"systems": ["gb200_nvl72"], "workload": {**work, "parallel": {"ep": ep}}})
    assert sum(result.plan["memory_B"].values()) == pytest.approx(result.metric("memory_peak_B"), rel=1e-12)
    assert {"weights", "gradients", "optimizer", "workspaces"} <= set(result.plan["memory_B"])


def test_a_million_tokens_split_over_context_ranks():
    """Per rank as much as of an equal share of them, but for keys and values that are gathered."""
    plan = {"global_batch": 8, "parallel": {"tp": 8, "pp": 1, "dp": 1}, "recompute": "full"}
    short = lines_B("llama-3.1-8b", **{**plan, "sequence_length": 2**17})
    plan["parallel"] = {**plan["parallel"], "cp": 8}
    long = lines_B("llama-3.1-8b", **{**plan, "sequence_length": 2**20})
    for line in kept.PARTS:
        assert long[line] == short[line]
    assert sum(map(max, long.values())) < 2 * sum(map(max, short.values()))


def test_names_of_parts():
    assert recompute.modules("none") == frozenset()
    assert recompute.modules(["mlp", "moe"]) == {"mlp", "moe"}
    assert recompute.modules("full") == {"full"}


def test_a_plan_that_fits_by_a_hair_says_so():
    work = {
        "kind": "training",
        "model": "llama-3.1-8b",
        "sequence_length": 4096,
        "global_batch": 72,
        "recompute": "full",
    }
    (plain,) = cmsim.run({"systems": ["gb200_nvl72"], "workload": work})
    needed_GB = plain.metric("memory_peak_B") / 1e9
    for room, said in ((1.02, True), (1.2, False)):
        system = {
            "system": "gb200_nvl72",
            "set": {"accelerator.memory_GB": room * needed_GB, "accelerator.memory_reported": 1},
        }
        (result,) = cmsim.run({"systems": [system], "workload": work})
        assert any("it may not fit" in text for text in result.warnings) == said
