"""Power over time: exact sums, starts that are spread, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import cmsim
from cmsim.energy import Course, curve, waiting_W
from cmsim.errors import InputError
from cmsim.hardware import load_system

#: a second at 100 W, then two at 400 W; at rest 50 W
RUN = Course(np.array([0.0, 1.0, 3.0]), np.array([100.0, 400.0]), 50.0, repeats=True)


def test_a_run_comes_again_and_its_energy_is_exact_at_every_resolution():
    for resolution_s in (0.25, 1.0, 0.7, 3.0):
        found = curve(RUN, resolution_s=resolution_s, seconds=21.0, seed=0)
        assert found.power_W.sum() * resolution_s == pytest.approx(RUN.joules(np.array([21.0]))[0])
    assert curve(RUN, resolution_s=1.0, seconds=6.0, seed=0).power_W == pytest.approx([100, 400, 400] * 2)
    assert curve(RUN, resolution_s=3.0, seconds=9.0, seed=0).power_W == pytest.approx([300.0] * 3)


def test_a_service_ends_and_then_waits():
    once = Course(RUN.edges_s, RUN.power_W, 50.0, repeats=False)
    assert curve(once, resolution_s=1.0, seconds=5.0, seed=0).power_W == pytest.approx([100, 400, 400, 50, 50])
    assert len(curve(once, resolution_s=1.0, seed=0).power_W) == 3


def test_machines_wait_until_they_start_and_even_out_when_they_start_apart():
    together = curve(RUN, resolution_s=0.5, machines=200, seconds=60.0, seed=1)
    apart = curve(RUN, resolution_s=0.5, machines=200, spread_s=30.0, seconds=90.0, seed=1)
    assert together.power_W == pytest.approx(200 * curve(RUN, resolution_s=0.5, seconds=60.0, seed=1).power_W)
    assert apart.steady == 60 and together.steady == 0
    assert apart.power_W[0] < 1.1 * 200 * 50
    assert apart.metrics()["power_swing_W"] < 0.2 * together.metrics()["power_swing_W"]
    assert apart.power_W[60:].mean() == pytest.approx(200 * 300, rel=0.01)
    again = curve(RUN, resolution_s=0.5, machines=200, spread_s=30.0, seconds=90.0, seed=1)
    assert (again.power_W == apart.power_W).all()
    assert not np.array_equal(curve(RUN, resolution_s=0.5, machines=200, spread_s=30.0, seed=2).power_W, apart.power_W)


def test_metrics_are_percentiles_the_steepest_change_and_the_frequency_that_swings_most():
    told = curve(RUN, resolution_s=0.5, seconds=60.0, seed=0).metrics()
    assert told["power_p5_W"] == 100 and told["power_p95_W"] == 400 and told["power_swing_W"] == 300
    assert told["power_ramp_W_per_s"] == 600
    assert told["power_swing_Hz"] == pytest.approx(1 / 3)
    # first harmonic of a pulse of a third of the time: 2 A sin(pi / 3) / pi, sampled
    assert told["power_at_Hz_W"] == pytest.approx(2 * 300 * np.sin(np.pi / 3) / np.pi, rel=0.06)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"resolution_s": 1e-6, "seconds": 1e3}, "power.over_time.resolution_s: got 1,000,000,000 steps"),
        ({"resolution_s": 1.0, "seconds": 1e6, "machines": 10_000}, "Allowed: 2,000,000 steps"),
        ({"resolution_s": 1.0, "seconds": 10.0, "machines": 2, "spread_s": 20.0}, "more than spread_s (20)"),
        ({"resolution_s": 10.0, "seconds": 10.0}, "one step, which has no swing. Allowed: at most 5"),
    ],
)
def test_more_than_can_be_made_is_refused(how, said):
    with pytest.raises(InputError) as caught:
        curve(RUN, **how, seed=0)
    assert said in str(caught.value)


def test_a_scenario_asks_for_it_and_the_folder_keeps_it(tmp_path):
    step = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 1024}
    power = {"over_time": {"resolution_s": 0.001, "machines": 3, "spread_s": 0.01, "seconds": 0.1}}
    scenario = {"systems": ["hgx_h100"], "workloads": {"plain": step, "told": {**step, "power": power}}}
    results = cmsim.run(scenario, out=tmp_path / "out")
    plain, told = results
    assert not {name for name in plain.metrics if name.startswith("power_swing")} and "power_curve" not in plain.columns
    assert {**told.metrics, **plain.metrics} == dict(told.metrics)
    assert len(told.frame("power_curve")) == 100
    mean_W = told.frame("power_curve")["power_W"][20:].mean()
    assert mean_W == pytest.approx(3 * told.metric("power_avg_W"), rel=0.05)
    again = cmsim.Results.load(tmp_path / "out")
    assert again[1].frame("power_curve")["power_W"].tolist() == told.frame("power_curve")["power_W"].tolist()


def test_energy_of_a_service_is_the_integral_of_its_curve(small_service):
    power = {"over_time": {"resolution_s": 0.05}}
    service = small_service(rate_per_s=20, requests=20, prompt=128, output=16, power=power)
    result = cmsim.run({"systems": ["hgx_h100"], "workload": service})[0]
    joules = result.frame("power_curve")["power_W"].sum() * 0.05
    left_over_J = 0.05 * result.metric("power_peak_W")  # the last step is not all of it
    assert joules == pytest.approx(result.metric("energy_J"), abs=left_over_J)
    assert result.metric("power_p5_W") < result.metric("power_p95_W")


def test_states_of_a_machine_that_waits_go_down():
    system = load_system("hgx_h100")
    active, idle, asleep = (waiting_W(system, state)[1] for state in ("active", "idle", "asleep"))
    assert active - idle > 8 * 54 and idle - asleep > 8 * 25
    bare = load_system("hgx_h200")
    assert bare.accelerator.power.sleep_W is None and waiting_W(bare, "asleep") == waiting_W(bare)
