"""Scenarios that ship: all of them load, and those of published training runs are on three machines."""

from __future__ import annotations

import math

import pytest

from cmsim import reading
from cmsim.scenario import load_scenario

SHIPPED = reading.builtin_files("scenarios")
PUBLISHED = {
    "deepseek_v3_h800": 2048,
    "llama3_405b_h100": 16384,
    "llama31_405b_gb200": 512,
    "pangu_ultra_moe_910b": 6144,
    "gpt3_a100": 1024,
    "llama2_13b_910b": 8,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_loads(name):
    assert load_scenario(SHIPPED[name]).runs


@pytest.mark.parametrize(("name", "ranks"), PUBLISHED.items())
def test_published_runs_have_their_ranks_on_every_machine(name, ranks):
    from cmsim.execution import system

    runs = load_scenario(SHIPPED[name]).runs
    assert len(runs) == 3
    for run in runs:
        assert system(run).ranks == ranks
        sizes = run.spec.parallel
        assert ranks % (sizes.tp * sizes.pp * sizes.cp) == 0
        assert sizes.dp in ("auto", ranks // (sizes.tp * sizes.pp * sizes.cp))


def test_racks_of_equal_flops_money_and_power_follow_from_the_system_files():
    from cmsim import energy
    from cmsim.execution import system

    runs = load_scenario(SHIPPED["four_supernodes"]).runs
    supernodes, *racks = (system(run) for run in runs)
    assert supernodes.packages == 4 * 384

    def budgets(one) -> tuple[float, float, float]:
        hour_USD = one.spec.facility.price_per_accelerator_hour_USD
        return one.accelerator.peak_TFLOPps["bf16"], hour_USD, energy.rated_W(one) / one.packages

    each = zip(budgets(supernodes), budgets(racks[0]), strict=True)
    flops, money, power = (math.floor(supernodes.packages * mine / theirs / 64) for mine, theirs in each)
    assert [one.domains for one in racks] == [21, power, money, flops]
    assert all(one.packages == 64 * one.domains for one in racks)
