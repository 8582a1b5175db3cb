"""A machine of one's own by the hour: what parts add up to, where numbers come from, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import api, cost, reading, results
from cmsim.cli import app
from cmsim.errors import InputError
from cmsim.execution import money
from cmsim.kinds import common
from cmsim.results import break_even
from cmsim.scenario import load_scenario

DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 4, "context_tokens": 1024}
BOUGHT = cost.Bought(8, 2, 4, 16, 8, 0.5, 0.25, it_W=10e3)
PLAIN: dict[str, float] = {
    **{"accelerator": 100.0, "socket": 10.0, "switch_chip": 5.0, "module": 2.0, "nic": 3.0, "scale_out_switch": 40.0},
    **{"rack": 80.0, "life_years": 4.0, "interest": 0.0, "residual": 0.0, "utilisation": 1.0, "idle_share": 0.5},
    **{"electricity_per_kWh": 0.1, "space_per_kW_month": 100.0, "staff_per_thousand": 2.0, "staff_per_year": 8766.0},
    **{"spares_per_year": 0.1, "licences_per_accelerator_year": 8766.0, "engineer_months": 0.0},
    "engineer_per_month": 1e4,
}


def hour(power_W: Any = 8e3, **changes: Any) -> dict[str, Any]:
    return cost.hour_by_part(BOUGHT, {**PLAIN, **changes}, power_W)


def run(**more: Any) -> cmsim.Results:
    return cmsim.run({"systems": ["hgx_h100"], "workload": DECODE, "record": "summary", **more})


def test_a_price_is_the_sum_of_its_parts() -> None:
    parts = cost.price_by_part(BOUGHT, PLAIN)
    assert sum(parts.values()) == 800 + 20 + 20 + 32 + 24 + 20 + 20
    assert cost.price_by_part(BOUGHT, {**PLAIN, "machine": 7.0}) == {"machine": 56.0}


def test_an_hour_by_hand() -> None:
    parts = hour()
    assert tuple(parts) == cost.PARTS == tuple(common.COSTS)
    assert parts["depreciation"] == pytest.approx(936 / (4 * 8766))
    assert parts["financing"] == 0
    assert parts["electricity"] == pytest.approx(0.8)
    assert parts["space"] == pytest.approx(10 * 100 * 12 / 8766)
    assert parts["staff"] == pytest.approx(8e-3 * 2)
    assert parts["spares"] == pytest.approx(93.6 / 8766)
    assert parts["licences"] == pytest.approx(8)
    assert parts["migration"] == 0


def test_hours_that_idle_are_paid_by_those_at_work() -> None:
    whole, half = hour(), hour(utilisation=0.5)
    for part in ("depreciation", "space", "staff", "spares", "licences"):
        assert half[part] == pytest.approx(2 * whole[part])
    assert half["electricity"] == pytest.approx(0.8 * 1.5)  # an idle hour beside each, at half the power


def test_an_annuity_pays_interest_on_what_is_left() -> None:
    """Month by month in a loop: what is owed at the end of its life is what the machine is sold for."""
    rate, life, left = 0.1, 5, 0.2
    parts = hour(interest=rate, life_years=life, residual=left)
    paid = (parts["depreciation"] + parts["financing"]) * 8766
    owed = 936.0
    for _ in range(life):
        owed = owed * (1 + rate) - paid
    assert owed == pytest.approx(936 * left)


def test_a_code_base_is_moved_once() -> None:
    assert hour(engineer_months=12)["migration"] == pytest.approx(12e4 / (4 * 8766))


def test_columns_are_priced_as_numbers_are() -> None:
    found = hour(np.array([8e3, 4e3]), accelerator=np.array([100.0, 50.0]), interest=np.array([0.0, 0.1]))
    first, second = hour(), hour(4e3, accelerator=50.0, interest=0.1)
    for part in cost.PARTS:
        both = np.broadcast_to(found[part], 2)
        assert both.tolist() == pytest.approx([first[part], second[part]])


def test_a_curve_counts_at_the_hours_of_work() -> None:
    day = run(cost={"region": "germany"})[0].metric("cost_electricity_per_hour_USD")
    noon = run(cost={"region": "germany", "hours": [10, 16]})[0].metric("cost_electricity_per_hour_USD")
    region = cost.load_region("germany")
    assert region.price_by_hour is not None
    assert noon / day == pytest.approx(np.mean(region.price_by_hour[10:16]) / np.mean(region.price_by_hour))


def test_metrics_of_a_run_add_up_and_follow_the_scenario() -> None:
    plain = run()[0]
    assert "cost_depreciation_per_hour_USD" not in plain.metrics and plain.machine.utilisation is None
    said = {"electricity_per_kWh": 0.72, "currency": "CNY", "utilisation": 1.0, "accelerator": 72_000}
    (result,) = run(cost=said, carbon={"region": "norway", "embodied": True}, report={"per": ["million_dollars"]})
    hours = sum(result.metric(f"cost_{part}_per_hour_USD") for part in cost.PARTS)
    bought = [value for name, value in result.metrics.items() if name.startswith("price_")]
    assert sum(bought) == pytest.approx(result.machine.price_USD) and len(bought) > 3
    assert result.metric("price_accelerators_USD") == pytest.approx(result.accelerators * 72_000 / 7.2)
    assert result.metric("cost_per_hour_USD") == pytest.approx(hours)
    assert result.metric("cost_per_Mtoken_USD") == pytest.approx(cost.million_USD(hours, result.metric("tokens_per_s")))
    assert result.metric("cost_electricity_per_hour_USD") == pytest.approx(result.metric("power_avg_W") / 1e3 * 0.1)
    made_g = result.metric("carbon_embodied_g")
    assert made_g > 0
    assert result.metric("carbon_g") == pytest.approx(result.metric("energy_J") / 3.6e6 * 30 + made_g)
    tokens = result.metric("tokens_per_s") * result.metric("makespan_s")
    assert result.metric("carbon_per_Mtoken_g") == pytest.approx(result.metric("carbon_g") / tokens * 1e6)
    assert result.machine.price_USD is not None and result.machine.price_USD > 8 * 10_000
    assert any("bill of assumed prices" in note for note in result.warnings)
    assert result.metric("energy_J") == plain.metric("energy_J")


def test_a_training_run_has_a_bill() -> None:
    training = {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 4096, "global_batch": 16}
    training |= {"parallel": {"tp": 4, "dp": 2}}
    (result,) = run(workload=training, cost={"training_tokens": 1e12})
    hours = 1e12 / result.metric("tokens_per_s") / 3600
    assert result.metric("cost_per_training_run_USD") == pytest.approx(hours * result.metric("cost_per_hour_USD"))


def test_a_price_of_the_whole_counts_instead_of_parts() -> None:
    entry = {"system": "hgx_h100", "set": {cost.PRICE: 50_000}}
    assert run(systems=[entry], cost={})[0].machine.price_USD == 400_000


def test_the_same_input_is_moved_everywhere() -> None:
    scenario = load_scenario({"systems": ["hgx_h100"], "workload": DECODE, "cost": {}, "carbon": {"embodied": True}})
    one = scenario.runs[0]
    made = money.purse(one, api.Machines()(one))
    assert made is not None
    moved = made.with_input("bill.utilisation", 0.5)
    assert moved.bill["utilisation"].value == moved.embodied["utilisation"].value == 0.5
    assert made.bill["utilisation"].value != 0.5


@pytest.mark.parametrize(
    ("more", "key", "message"),
    [
        ({"cost": {"rack": -1}}, "cost.rack", "greater than or equal to 0, got -1"),
        ({"cost": {"utilisation": 1.5}}, "cost.utilisation", "less than or equal to 1, got 1.5"),
        ({"cost": {"interest": 7}}, "cost.interest", "less than or equal to 1, got 7"),
        ({"cost": {"rack": 2, "ranges": {"rack": [3, 1]}}}, "cost.ranges", r"least to most, got \[3, 1\]"),
        ({"cost": {"rack": 2, "ranges": {"rack": [3, 4]}}}, "cost.ranges", r"2, which does not lie in \[3, 4\]"),
        ({"cost": {"ranges": {"rack": [3, 4]}}}, "cost.ranges", "needs its value"),
        (
            {"cost": {"utilisation": 0.5, "ranges": {"utilisation": [0, 0.9]}}},
            "cost.ranges",
            r"utilisation .*1, got 0$",
        ),
        ({"cost": {"interest": 0.1, "ranges": {"interest": [0, 3]}}}, "cost.ranges", "interest .* equal to 1, got 3"),
        ({"cost": {"rack": 2, "ranges": {"rak": [3, 4]}}}, "cost.ranges", "'rak' has none. Allowed: accelerator, "),
        ({"cost": {"currency": "DM"}}, "cost.currency", "got 'DM', which .* has no rate of. Allowed: CNY, EUR"),
        ({"cost": {"region": "mars"}}, "cost.region", "no region named 'mars'"),
        ({"cost": {"prices": "list"}}, "cost.prices", "no file of prices named 'list'"),
        ({"cost": {"hours": [3, 3]}}, "cost.hours", "must differ, got 3 twice"),
        ({"carbon": {"region": "mars"}}, "carbon.region", "no region named 'mars'"),
        ({"carbon": {"g_per_kWh": -1}}, "carbon.g_per_kWh", "got -1"),
        ({"systems": ["tpu_v4_pod"], "cost": {}}, "cost.prices", "no price of tpu_v4; give cost.accelerator, or set"),
        ({"uncertainty": {"draws": 3}}, "uncertainty.draws", "greater than or equal to 100, got 3"),
    ],
)
def test_what_is_wrong_is_said(more: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(**more)
    assert caught.value.problems[0].key == key


def test_a_file_of_prices_assumes_what_can_be(tmp_path: Any) -> None:
    text = reading.builtin_files(cost.COSTS)["recalled_2025"].read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("utilisation: {assumed: [0.5", "utilisation: {assumed: [0"))
    with pytest.raises(InputError, match=r"sources: utilisation must be .* to 0\.000001, got 0"):
        run(cost={"prices": str(tmp_path / "mine.yaml")})


def test_a_bill_is_not_held_against_a_rent() -> None:
    own, rented = (run(uncertainty={"draws": 100, "executed": False}, **more)[0] for more in ({"cost": {}}, {}))
    assert results.more_than([(own, rented)], "megawatt") == [0.5]
    with pytest.raises(InputError, match="a bill and a rent"):
        results.more_than([(own, rented)], "million_dollars")
    assert results.more_than([(rented, rented)], "million_dollars") == [0.5]


def test_a_region_that_is_not_there_has_its_line(tmp_path: Any) -> None:
    file = tmp_path / "asked.yaml"
    file.write_text(
        "systems: [hgx_h100]\ncost:\n  region: mars\nworkload: {kind: decode, model: llama-3.1-8b, "
        "batch_per_accelerator: 4, context_tokens: 1024}\n"
    )
    for command in ("check", "run"):
        done = CliRunner().invoke(app.app, [command, str(file)])
        assert done.exit_code == 2
        assert "asked.yaml:3: cost.region: no region named 'mars'" in done.stderr.replace("\n", " ")


def test_a_range_upside_down_in_a_file_is_refused(tmp_path: Any) -> None:
    text = (cmsim.reading.DATA / cost.REGIONS / "norway.yaml").read_text().replace("[0.02, 0.1]", "[0.1, 0.02]")
    (tmp_path / "place.yaml").write_text(text)
    with pytest.raises(InputError, match=r"from the least to the most, got \[0.1, 0.02\]"):
        cost.load_region(str(tmp_path / "place.yaml"))


def test_below_which_price_a_machine_wins() -> None:
    cheap = {"system": "hgx_h100", "name": "cheap", "set": {cost.PRICE: 20_000}}
    dear = {"system": "hgx_h100", "name": "dear", "set": {cost.PRICE: 40_000}}
    results = run(systems=[dear, cheap], cost={})
    found = break_even(results.results)
    assert found.at("price") == pytest.approx(20_000)  # the machines are the same
    assert found.said().startswith("dear wins below 20,000 USD an accelerator with all around it (it is put at 40,000")
    assert any("dear wins below 20,000 USD" in text for text in results.verdict())
    for along in ("electricity", "utilisation", "price"):
        assert found.cost(found.first, along, found.now(found.first, along)) == pytest.approx(
            found.cost_now(found.first)
        )
    # nothing but the price tells them apart
    assert found.at("electricity") is None


def test_along_an_axis_the_bill_is_what_a_run_there_would_have() -> None:
    entry = {"system": "hgx_h100", "set": {cost.PRICE: 20_000}}
    other = {"system": "hgx_h100", "name": "other"}
    here = break_even(run(systems=[entry, other], cost={}).results)
    for along, key, value in (("electricity", "electricity_per_kWh", 0.2), ("utilisation", "utilisation", 0.35)):
        there = run(systems=[entry], cost={key: value})[0]
        assert here.cost(here.first, along, value) == pytest.approx(there.metric("cost_per_Mtoken_USD"))
    there = run(systems=[{**entry, "set": {cost.PRICE: 33_000}}], cost={})[0]
    assert here.cost(here.first, "price", 33_000) == pytest.approx(there.metric("cost_per_Mtoken_USD"))


def test_without_a_bill_there_is_nothing_to_break_even() -> None:
    with pytest.raises(InputError, match="needs two systems with a bill"):
        break_even([dataclasses.replace(one) for one in run()])
