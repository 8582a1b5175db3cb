"""Whatever the cap: power stays under it, more of it is never slower, and components add up to the energy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cmsim
from cmsim.energy import limited
from cmsim.errors import InfeasibleError
from cmsim.hardware import load_system

#: facility over what each cap is of, for one node of eight in a quarter of a rack
OF = {"accelerator": None, "rack": 0.25 * 1.15, "supernode": 1.15, "hall": 1.0}
WORKLOADS = {
    "training": {"kind": "training", "model": "bert-base", "sequence_length": 512, "global_batch": 64},
    "prefill": {"kind": "prefill", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "prompt_tokens": 1024},
    "decode": {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 64, "context_tokens": 1024},
}


def under(workload, power):
    return cmsim.run({"systems": ["hgx_h100"], "workload": {**WORKLOADS[workload], "power": power}}).outcomes[0]


@pytest.mark.parametrize(
    ("workload", "of"),
    [("training", "hall"), ("prefill", "accelerator"), ("prefill", "rack"), ("decode", "supernode")],
)
def test_power_stays_under_a_cap_and_components_add_up(workload, of):
    cap_W = {"accelerator": 310.0, "rack": 23e3, "supernode": 5.8e3, "hall": 6.6e3}[of]
    result = under(workload, {"cap_W": {of: cap_W}})
    frame = result.frame("power")
    span_s = (frame["end_ps"] - frame["start_ps"]) / 1e12
    joules = frame["power_W"] * span_s
    assert joules.sum() == pytest.approx(result.metric("energy_J"), rel=1e-9)
    for name, mine in joules.groupby(frame["component"]):
        mean_W = mine.sum() / result.metric("makespan_s")
        assert mean_W == pytest.approx(result.metric(f"power_{name}_W"), rel=1e-9, abs=1e-9)
    if of == "accelerator":
        packages = frame[frame["component"].str.startswith("accelerators_")]
        peak_W = packages.groupby("start_ps")["power_W"].sum().max() / 8
        assert peak_W <= cap_W * (1 + 1e-9)
    else:
        assert result.metric("power_peak_W") <= cap_W * OF[of] * (1 + 1e-9)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_throughput_grows_with_the_cap_and_with_the_clock(workload):
    for powers in ([{"cap_W": cap_W} for cap_W in (140, 400, 690, 700)], [{"clock": f} for f in (0.4, 0.8)]):
        rates = [1 / under(workload, power).metric("makespan_s") for power in powers]
        assert all(more >= less * (1 - 1e-9) for less, more in itertools.pairwise(rates))
    assert under(workload, {"cap_W": 700}).metrics == under(workload, None).metrics


@pytest.mark.parametrize("name", ["cloudmatrix384", "gb200_nvl72", "hgx_h100", "tpu_v4_pod", "ub_mesh_pod"])
def test_what_a_cap_leaves_grows_with_it_on_every_machine(name):
    system = load_system(name)
    rng = np.random.default_rng(5)
    left = []
    for cap_W in np.sort(rng.uniform(50.0, 3000.0, 12)) * system.packages:
        try:
            left.append(limited(system, {"hall": float(cap_W)}).accelerator.power.held_W)
        except InfeasibleError:
            left.append(0.0)
    assert left == sorted(left) and left[0] == 0.0 and left[-1] == system.accelerator.power.held_W
