"""What a power limit does to time, and whose watts a package has."""

from __future__ import annotations

import numpy as np
import pytest

import cmsim
from cmsim import compute
from cmsim.energy import full_W, rated_W
from cmsim.errors import InputError
from cmsim.hardware import board_watts, load_accelerator, load_system

WATTS = {"active_W": 124.0, "compute_W": 550.0, "memory_W": 330.0, "timed_at_W": 700.0}


def test_a_lower_limit_slows_arithmetic_by_the_cube_root_and_memory_not_at_all():
    shares = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    # timed at a limit that neither reaches: clocks were full
    slow = compute.slowed(*shares, **WATTS, limit_W=500.0)
    assert slow[0] == pytest.approx((550 / (500 - 124)) ** (1 / 3), rel=1e-6)
    assert slow[1] == 1.0


def test_a_kernel_timed_under_the_limit_is_slowed_from_the_clock_it_was_timed_at():
    both = np.array([1.0]), np.array([0.9])

    def clock(limit_W: float) -> float:
        # P = active + (c f^2 + 0.9 m (0.4 + 0.6 f^2)) f
        moved = 330.0 * 0.9
        roots = np.roots([550.0 + 0.6 * moved, 0.0, 0.4 * moved, -(limit_W - 124.0)])
        return float(next(root.real for root in roots if abs(root.imag) < 1e-9))

    found = compute.slowed(*both, **WATTS, limit_W=450.0)[0]
    assert clock(700.0) < 1
    assert found == pytest.approx(clock(700.0) / clock(450.0), rel=1e-6)


def test_slowing_is_monotone_in_the_limit_and_ends_at_1():
    rng = np.random.default_rng(3)
    compute_share, memory = rng.random(50), 4 * rng.random(50)
    compute_share[::2] = 1.0
    memory[1::2] = np.maximum(memory[1::2], 1.0)
    before = np.ones(50)
    for limit_W in (700.0, 600.0, 450.0, 300.0, 200.0, 130.0):
        slow = compute.slowed(compute_share, memory, **WATTS, limit_W=limit_W)
        assert (slow >= before - 1e-9).all()
        before = slow
    assert (compute.slowed(compute_share, memory, **WATTS, limit_W=700.0) == 1).all()
    nothing = np.zeros(1)
    assert compute.slowed(nothing, nothing, **WATTS, limit_W=130.0)[0] == 1


def run(limit_W: float | None, **workload):
    entry = {"system": "hgx_h100", "set": {} if limit_W is None else {"accelerator.power.limit_W": limit_W}}
    return cmsim.run({"systems": [entry], "workload": {"model": "llama-3.1-8b", **workload}})[0]


@pytest.mark.parametrize(
    ("workload", "slower"),
    [
        ({"kind": "training", "sequence_length": 4096, "global_batch": 16, "parallel": {"tp": 2}}, (1.05, 1.6)),
        ({"kind": "decode", "batch_per_accelerator": 8, "context_tokens": 1024}, (1.0, 1.1)),
    ],
)
def test_time_follows_a_limit_where_arithmetic_binds_and_hardly_where_memory_does(workload, slower):
    free, held, full = run(None, **workload), run(400.0, **workload), run(700.0, **workload)
    assert full.metric("makespan_s") == free.metric("makespan_s")
    assert slower[0] <= held.metric("makespan_s") / free.metric("makespan_s") < slower[1]
    assert held.metric("power_packages_W") <= 8 * 400 * (1 + 1e-9)
    assert held.metric("power_packages_W") < free.metric("power_packages_W")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"power.limit_W": 800}, "limit_W: must lie between idle_W (70) and max_W (700), got 800"),
        ({"power.limit_W": 100}, "below active_W"),
        ({"power.max_W": 50}, "max_W: must be at least idle_W (70), got 50"),
        ({"power.memory_W": None}, "memory_W: give it, or `shares_of`"),
        ({"power.memory_W": None, "power.shares_of": "b200_sxm"}, "'b200_sxm' has no measured watts of its own"),
        ({"power.memory_W": None, "power.shares_of": "h1000"}, "h1000"),
    ],
)
def test_wrong_watts_are_refused_by_name(change, said):
    with pytest.raises(InputError) as caught:
        load_system("hgx_h100", set={f"accelerator.{key}": value for key, value in change.items()})
    assert said in str(caught.value)


def test_carried_watts_keep_their_share_of_the_limit_and_say_so():
    kin, part = load_accelerator("h100_sxm").power, load_accelerator("b200_sxm")
    board = board_watts(part)
    assert board.compute / board.limit == pytest.approx(kin.compute_W / kin.max_W)
    assert board.memory / board.limit == pytest.approx(kin.memory_W / kin.max_W)
    assert (board.active - board.idle) / board.limit == pytest.approx((kin.active_W - kin.idle_W) / kin.max_W)
    source = part.sources["power.memory_W"]
    assert "h100_sxm" in source.why and source.assumed[0] < board.memory < source.assumed[1]


def test_work_that_the_board_holds_already_is_slowed_from_there_and_not_by_a_clock_above():
    one, none = np.array([1.0, 1.0]), np.zeros(2)
    held = np.array([1.0, 1.25])  # the second runs at 0.8 of its clock
    under = compute.slowed(one, none, **WATTS, limit_W=700.0, clock=0.9, held=held)
    assert under == pytest.approx([1 / 0.9, 1.0])
    # what is held draws all of the 576 W that the limit leaves: any lower one slows it
    under = compute.slowed(one, none, **WATTS, limit_W=690.0, held=held)
    assert under == pytest.approx([1.0, (576 / 566) ** (1 / 3)])
    assert (compute.slowed(one, none, **WATTS, limit_W=700.0, held=held) == 1).all()


def test_a_clock_takes_the_cube_of_itself_from_arithmetic_and_leaves_the_stacks_theirs():
    arithmetic, memory = compute.clocked(np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.8, 0.8]))
    assert arithmetic == pytest.approx([0.8**3, 0.0])
    assert memory == pytest.approx([0.0, 0.4 + 0.6 * 0.64])


def capped(power, **more):
    workload = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 512, "context_tokens": 256}
    return cmsim.run({"systems": ["hgx_h100"], "workload": {**workload, "power": power}, **more}).outcomes[0]


def test_a_clock_slows_arithmetic_and_saves_energy():
    free, slow = capped(None), capped({"clock": 0.7})
    assert 1.01 < slow.metric("makespan_s") / free.metric("makespan_s") < 1 / 0.7
    assert slow.metric("power_packages_W") < 0.9 * free.metric("power_packages_W")
    assert slow.metric("energy_per_token_J") < free.metric("energy_per_token_J")
    assert set(slow.columns["ops"]) == set(free.columns["ops"])


@pytest.mark.parametrize(
    ("cap_W", "key", "least_W"),
    [
        (100, "accelerator", 124),
        ({"supernode": 3000}, "supernode", 4074),
        ({"rack": 9000}, "rack", 16297),
        ({"hall": 2000}, "hall", 4685),
    ],
)
def test_a_cap_at_or_below_what_work_draws_at_rest_is_infeasible_and_says_what_would_do(cap_W, key, least_W):
    refused = capped({"cap_W": cap_W})
    assert refused.message.startswith(f"power.cap_W.{key}: got ") and "with engines at rest" in refused.message
    assert refused.budget["needed_W"] == pytest.approx(least_W, rel=1e-3)
    if key != "accelerator":
        assert "metrics" not in vars(capped({"cap_W": {key: refused.budget["needed_W"] * 0.9999}}))
        assert capped({"cap_W": {key: refused.budget["needed_W"] * 1.06}}).metrics


@pytest.mark.parametrize(
    ("power", "said"),
    [
        ({"cap_W": -5}, "power.cap_W: must be greater than or equal to 0.000001, got -5"),
        ({"cap_W": {"room": 5}}, "unknown key 'room'"),
        ({"clock": 1.2}, "power.clock"),
        ({"over_time": {"machines": 0}}, "power.over_time.machines"),
    ],
)
def test_wrong_caps_are_refused_by_name(power, said):
    with pytest.raises(InputError) as caught:
        capped(power)
    assert said in str(caught.value)


@pytest.mark.slow
def test_pools_of_a_service_have_caps_of_their_own(small_service):
    service = small_service(rate_per_s=2, requests=40, prompt=2048, output=64, decode={"accelerators": 4})

    def ttft(power):
        workload = {**service, "prefill": {"accelerators": 4, "power": power}}
        result = cmsim.run({"systems": ["hgx_h100"], "workload": workload})[0]
        return result.metric("ttft_mean_s"), result.metric("tpot_mean_s")

    free, slow = ttft(None), ttft({"cap_W": 200})
    assert slow[0] > 1.2 * free[0]
    assert slow[1] == pytest.approx(free[1], rel=0.02)


@pytest.mark.slow
def test_a_cap_of_the_hall_is_of_all_pools_of_a_service_together(small_service):
    pools = {"prefill": {"accelerators": 2, "replicas": 2}, "decode": {"accelerators": 4}}
    service = small_service(rate_per_s=20, requests=100, prompt=2048, output=64, **pools)
    peaks = []
    for power in (None, {"cap_W": {"hall": 6000}}):
        result = cmsim.run({"systems": ["hgx_h100"], "workload": {**service, "power": power}})[0]
        peaks.append(result.metric("power_peak_W"))
    assert peaks[1] <= 6000 < peaks[0]


def test_long_work_is_not_slowed_by_a_clock_that_its_board_does_not_reach():
    """Products of a training step run at some 0.8 of their clock anyway; what is left grows by at most 1 / 0.9."""
    step = {"kind": "training", "sequence_length": 4096, "global_batch": 4, "parallel": {"tp": 2, "dp": 4}}
    free, slow, held = (run(None, **step, power=power) for power in (None, {"clock": 0.9}, {"cap_W": 690}))
    assert 1 < slow.metric("makespan_s") / free.metric("makespan_s") < 1.03
    # the board's limit is what holds it: less of it is felt at once
    assert 1.001 < held.metric("makespan_s") / free.metric("makespan_s") < 1.02


def test_supplies_of_a_run_are_sized_for_boards_as_delivered():
    whole, held = (load_system("hgx_h100", set=set_) for set_ in ({}, {"accelerator.power.limit_W": 300.0}))
    sizes = [full_W(system, board_watts(system.accelerator)) for system in (whole, held)]
    assert sizes[0] == sizes[1]
    assert rated_W(held) < rated_W(whole)
