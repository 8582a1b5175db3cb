"""Experts on packages of their own: a step is made of two plays, and a service has both."""

from __future__ import annotations

import numpy as np
import pytest

import cmsim
from cmsim.errors import InputError
from cmsim.kinds.serving import PoolSpec
from cmsim.serving.played import PlayedSteps

PLAN = {"parallel": {"ep": "max", "attention": "dp"}, "precision": {"weights": "fp8", "activations": "fp8"}}
BASE = {
    "kind": "serving",
    "model": "deepseek-r1",
    "arrivals": {"process": "closed", "concurrency": 64, "requests": 64},
    "lengths": {"prompt_tokens": 256, "output_tokens": 32},
    "sensitivity": False,
    "precision": PLAN["precision"],
    "prefill": {"accelerators": 16, "parallel": PLAN["parallel"]},
}


@pytest.fixture(autouse=True)
def _kept(tmp_path_factory, monkeypatch):
    """Steps that are played are kept for this file alone."""
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "apart"))


def service(**decode):
    decode = {"accelerators": 16, "parallel": PLAN["parallel"], "batching": {"sequences": 8}, **decode}
    return cmsim.run({"systems": ["gb200_nvl72"], "workload": BASE | {"decode": decode}})[0]


def parts_s(packages: int, batch: int) -> tuple[float, float, float]:
    run = {"kind": "decode", "model": "deepseek-r1", "context_tokens": 1024, "batch_per_accelerator": batch, **PLAN}
    one = cmsim.run({"systems": [{"system": "gb200_nvl72", "accelerators": packages}], "workload": run})[0]
    ops = one.frame("ops")
    took_s = (ops["end_ps"] - ops["start_ps"]) / 1e12
    mine, comm, expert = (
        ops["rank_class"] == ops["rank_class"].iloc[0],
        ops["stream"] == "comm",
        ops["op"].str.startswith("expert "),
    )
    return tuple(took_s[mine & some].sum() for some in (~comm & ~expert, expert, comm))


@pytest.mark.parametrize("many", [1, 2])
def test_a_step_is_made_of_two(many):
    """Eight sequences a package on 16 packages of attention, 32 beside them have the experts of twice as few each."""
    one = cmsim.load_scenario({"systems": ["gb200_nvl72"], "workload": BASE | {"decode": {"accelerators": 16}}}).runs[0]
    how = {"accelerators": 32, "microbatches": many}
    pool = PoolSpec(accelerators=16, parallel=PLAN["parallel"], experts_apart=how)
    steps = PlayedSteps(one, one.spec, pool, one.spec.batching, None)
    attention, _, to = parts_s(16, 8 // many)
    _, experts, fro = parts_s(32, 4 // many)
    whole = max(many * attention, many * experts, attention + experts + max(to, fro)) + (experts + max(to, fro)) / 61
    assert steps.decode(8, np.array([1024.0]))[0][0] == pytest.approx(whole)


def test_a_service_has_both():
    together, apart = service(), service(experts_apart={"accelerators": 32, "microbatches": 1})
    assert apart.accelerators == 64 and together.accelerators == 32 and apart.plan["decode_accelerators_each"] == 48
    assert apart.plan["decode_holders_each"] == 16
    # ranks of attention have no experts, and room for more
    assert apart.plan["decode_cache_tokens"] > 1.1 * together.plan["decode_cache_tokens"]
    assert apart.metrics["requests_done"] == 64 and apart.metrics["power_avg_W"] > together.metrics["power_avg_W"]


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (
            {"parallel": {"tp": 16, "ep": 16}, "experts_apart": {"accelerators": 32}},
            "goes with `parallel.attention: dp`",
        ),
        ({"experts_apart": {"accelerators": 0}}, "accelerators"),
    ],
)
def test_what_is_wrong_is_said(decode, message):
    with pytest.raises(InputError, match=message):
        service(**decode)
