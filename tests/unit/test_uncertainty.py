"""How sure figures are: draws of what is assumed and of errors of validation, from what a run carries."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import uncertainty
from cmsim.cli import app, tables
from cmsim.execution import ends
from cmsim.execution.errors_of import StandsOn
from cmsim.kinds import BUILT_IN, Metric
from cmsim.numbers import quantity
from cmsim.reading import DATA, builtin_files, read_yaml, validate
from cmsim.results import Result, Results, filled, interval, weights
from cmsim.results.sure import rate_draws
from cmsim.uncertainty import Assumption, Ledger, ModelError, beats, intervals, sampled
from cmsim.validation import assumed, reference
from cmsim.validation.errors import errors_text
from cmsim.validation.row import Row

DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 4, "context_tokens": 1024}
ASKED = {"systems": [{"system": "hgx_h100", "accelerators": 1}], "workload": DECODE, "cost": {}, "record": "summary"}


def ledger(*effects: tuple[float, float], sigma: float = 0.0, draws: int = 20_000, draw: str = "") -> Ledger:
    assumptions = [
        Assumption(f"file: key{i}", f"{draw}{i}", 1.0, 0.5, 2.0, {"a_s": ends}) for i, ends in enumerate(effects)
    ]
    errors = [ModelError("area", "area on it", sigma, {"a_s": 1.0, "b_per_s": -1.0})] if sigma else []
    return Ledger(draws, 0, assumptions, errors)


@pytest.fixture(scope="module")
def drawn() -> Result:
    return cmsim.run({**ASKED, "uncertainty": {"draws": 2000}})[0]


def test_a_range_is_even_on_either_side_of_the_value() -> None:
    values = np.log(sampled(ledger((-0.4, 0.1)), {"a_s": 1.0}, ["a_s"])["a_s"])
    assert np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0]) == pytest.approx([-0.4, -0.2, 0.0, 0.05, 0.1], abs=0.01)


def test_an_error_of_the_model_is_log_normal_and_enters_times_and_rates() -> None:
    found = sampled(ledger(sigma=0.1), {"a_s": 2.0, "b_per_s": 5.0}, ["a_s", "b_per_s"])
    assert np.std(np.log(found["a_s"])) == pytest.approx(0.1, rel=0.03)
    assert found["a_s"] * found["b_per_s"] == pytest.approx(10.0)


def test_draws_are_of_the_seed_and_of_the_text_alone() -> None:
    one, more = ledger((-0.4, 0.1)), ledger((-0.4, 0.1), (0.2, 0.3))
    first = sampled(one, {"a_s": 1.0}, ["a_s"])["a_s"]
    assert (first == sampled(one, {"a_s": 1.0}, ["a_s"])["a_s"]).all()
    # another input changes nothing of it, fewer draws are the first of more
    alone = dataclasses.replace(more, assumptions=more.assumptions[:1], draws=100)
    assert (sampled(alone, {"a_s": 1.0}, ["a_s"])["a_s"] == first[:100]).all()
    other = dataclasses.replace(one, seed=1)
    assert (sampled(other, {"a_s": 1.0}, ["a_s"])["a_s"] != first).any()


def test_who_shares_an_assumption_shares_its_draws() -> None:
    """Two machines whose cost stands on one unknown price: which is cheaper does not depend on it."""
    mine, other = ledger((-1.0, 1.0)), ledger((-1.0, 1.0))
    apart = ledger((-1.0, 1.0), draw="other ")
    a, b, c = (sampled(one, {"a_s": value}, ["a_s"])["a_s"] for one, value in ((mine, 1.1), (other, 1.0), (apart, 1.0)))
    assert beats(a, b) == 1.0
    # independent: of the difference of two even numbers, P(x - y > -ln 1.1)
    short = 1 - math.log(1.1) / 2
    assert beats(a, c) == pytest.approx(1 - short**2 / 2, abs=0.01)


def test_a_ledger_is_data() -> None:
    one = ledger((-0.4, 0.1), sigma=0.2)
    assert uncertainty.of_data(json.loads(json.dumps(one.data()))) == one


def test_a_run_is_moved_by_what_its_system_file_assumes(drawn: Result) -> None:
    found = uncertainty.of_data(drawn.uncertainty)
    by_name = {one.name: one for one in found.assumptions}
    pue = by_name["hgx_h100: facility.pue"]
    # facility power is in proportion to it
    assert pue.effects["power_avg_W"] == pytest.approx(
        (math.log(pue.low / pue.value), math.log(pue.high / pue.value)), abs=1e-6
    )
    assert "tokens_per_s" not in pue.effects
    graph = next(one for one in found.assumptions if "tokens_per_s" in one.effects)
    assert graph.effects["tpot_s"] == pytest.approx([-end for end in graph.effects["tokens_per_s"]], abs=1e-6)
    assert {error.area for error in found.errors} == {"headline-points", "power-under-load"}
    assert any(name.endswith(": utilisation") for name in by_name)
    # the rent is not what this run costs
    assert "hgx_h100: facility.price_per_accelerator_hour_USD" not in by_name


def test_an_effect_is_what_the_run_does_with_the_end_set(drawn: Result) -> None:
    key = "scale_out.switch_W"
    one = next(one for one in uncertainty.of_data(drawn.uncertainty).assumptions if one.name == f"hgx_h100: {key}")
    entry = {"system": "hgx_h100", "accelerators": 1, "set": {key: one.high}}
    there = cmsim.run({**ASKED, "systems": [entry]})[0]
    for metric, (_, high) in one.effects.items():
        assert there.metric(metric) == pytest.approx(drawn.metric(metric) * math.exp(high), rel=2e-6), metric


def test_intervals_hold_the_figure_and_are_kept(drawn: Result, tmp_path: Path) -> None:
    results = Results((drawn,))
    frame = results.intervals
    assert list(frame.columns) == ["run", "metric", "value", "low", "median", "high"]
    assert {"tpot_s", "tokens_per_s", "power_avg_W", "cost_per_Mtoken_USD"} <= set(frame["metric"])
    assert (frame["low"] < frame["value"]).all() and (frame["value"] < frame["high"]).all()
    loaded = Results.load(results.save(tmp_path / "kept"))
    assert loaded.intervals.equals(frame)
    assert interval(loaded[0], "tokens_per_s") == interval(drawn, "tokens_per_s")


def test_it_is_the_same_each_time_and_nothing_where_nobody_asks(drawn: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "_ranged", lambda system, one: _one_key(system))
    first, again = (cmsim.run({**ASKED, "uncertainty": {"draws": 2000}})[0] for _ in range(2))
    assert again.summary() == first.summary()
    plain = cmsim.run(ASKED)
    assert plain[0].metrics == drawn.metrics == first.metrics
    assert plain.intervals.empty and "uncertainty" not in plain[0].summary()


def test_without_validation_only_assumptions_are_drawn(drawn: Result) -> None:
    data = {**drawn.uncertainty, "errors": []}
    bare = dataclasses.replace(drawn, uncertainty=data)
    both, alone = interval(drawn, "tokens_per_s"), interval(bare, "tokens_per_s")
    assert both is not None and alone is not None
    assert both[0] < alone[0] < alone[1] < both[1]


def test_shares_of_the_spread_add_up(drawn: Result) -> None:
    found = weights(drawn, "power_avg_W")
    assert sum(one.share for one in found) == pytest.approx(1)
    assert [one.share for one in found] == sorted((one.share for one in found), reverse=True)
    # they are those of the draws
    one = uncertainty.of_data(drawn.uncertainty)
    heaviest = next(each for each in one.assumptions if each.name == found[0].name)
    alone = Ledger(20_000, 0, [heaviest], [])
    every = dataclasses.replace(one, draws=20_000)
    part, whole = (
        np.var(np.log(sampled(each, drawn.metrics, ["power_avg_W"])["power_avg_W"]))  # type: ignore[arg-type]
        for each in (alone, every)
    )
    assert part / whole == pytest.approx(found[0].share, abs=0.02)


def test_a_megawatt_is_filled(drawn: Result) -> None:
    found = filled(drawn, 2.0)
    count = 2e6 / drawn.metric("power_avg_W")
    assert found["machines"][0] == pytest.approx(count)
    assert found["tokens_per_s"][0] == pytest.approx(count * drawn.metric("tokens_per_s"))
    assert found["cost_per_hour_USD"][0] == pytest.approx(count * drawn.metric("cost_per_hour_USD"))
    # emissions of a megawatt do not depend on how many machines draw it
    grams = 2e3 * drawn.metric("carbon_g") / drawn.metric("energy_J") * 3.6e6
    assert found["carbon_per_hour_g"][0] == pytest.approx(grams)
    draws = rate_draws(drawn, "megawatt") * 2
    assert list(found["tokens_per_s"][1:]) == pytest.approx(np.quantile(draws, (0.05, 0.95)).tolist())


def worse(drawn: Result) -> Result:
    """The same on a machine that gives two thirds."""
    return dataclasses.replace(
        drawn,
        run="decode/worse",
        entry=dataclasses.replace(drawn.entry, number=1, label="worse"),  # type: ignore[type-var]
        metrics={**drawn.metrics, "tokens_per_s": drawn.metric("tokens_per_s") / 1.5},
    )


def test_folders_are_told_apart_with_a_probability(
    drawn: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Results((drawn,)).save(tmp_path / "first")
    Results((worse(drawn),)).save(tmp_path / "second")
    done = CliRunner().invoke(app.app, ["compare", "first", "second", "--metric", "tokens_per_s"])
    assert done.exit_code == 0
    said = " ".join(done.stdout.split())
    assert "gives more than" in said and "probability that" in said and "100 % in all" in said and "per dollar" in said
    done = CliRunner().invoke(app.app, ["plot", "tornado", "first", "--metric", "power_avg_W", "--out", "t.svg"])
    assert done.exit_code == 0 and (tmp_path / "t.svg").exists()


def test_tables_have_the_interval_of_each_run(drawn: Result) -> None:
    (table,) = tables.intervals([drawn], width=400)
    heads = [" ".join(str(column.header).split()) for column in table.columns]
    low, high = interval(drawn, "tpot_s") or (0.0, 0.0)
    cell = next(iter(table.columns[heads.index("tpot")].cells))
    assert str(cell) == f"{quantity('tpot_s', low)} - {quantity('tpot_s', high)}"
    assert tables.intervals([dataclasses.replace(drawn, uncertainty={})]) == []
    (table,) = tables.megawatts([drawn], 2.0, width=400)
    assert str(table.title) == "decode: filled to 2 MW of average facility power"
    assert tables.megawatts([drawn], None) == []


def test_the_page_of_validity_says_which_watts_and_prices_are_assumed() -> None:
    said = assumed.section()
    for name in builtin_files("topologies"):
        assert f"| {name} | " in said
    assert "h100_sxm: measured" in said and "ascend_910c: assumed: active, compute, memory, max" in said
    assert "1.6 (0.8 to 3)" in said  # a rent
    assert "accelerators.ascend_910c (9000 to 26000)" in said and "**Region, `norway`:** 1 of 2" in said


def test_a_verdict_says_how_surely(drawn: Result) -> None:
    (text,) = Results((drawn, worse(drawn))).verdict()
    assert "Of 2,000 draws of all that is assumed, hgx_h100 gives more than worse with a probability of 100 %" in text


def test_ten_thousand_draws_are_columns() -> None:
    many = ledger(*[(-0.1, 0.1)] * 60, sigma=0.1, draws=10_000)
    found = intervals(many, {"a_s": 1.0, "b_per_s": 1.0}, ["a_s", "b_per_s"])
    assert found["a_s"]["low"] < 1 < found["a_s"]["high"]


def test_watts_that_were_carried_over_go_together() -> None:
    scenario = cmsim.load_scenario({**ASKED, "systems": [{"system": "gb200_nvl72", "accelerators": 4}]})
    system = cmsim.load_system("gb200_nvl72", accelerators=4)
    found = [one for one in ends._ranged(system, scenario.runs[0]) if "accelerator.power.compute_W" in one.sets[0]]
    assert len(found) == 1 and set(found[0].sets[0]) > {"accelerator.power.compute_W"}
    low, high = (one["accelerator.power.compute_W"] for one in found[0].sets)
    watts = system.accelerator.power.compute_W
    assert watts is not None and (low, high) == (pytest.approx(0.8 * watts), pytest.approx(1.25 * watts))


def test_every_built_in_kind_stands_on_an_area_with_errors() -> None:
    at = DATA / "workloads" / "reference"
    stands_on = validate(StandsOn, read_yaml(at / "stands_on.yaml"))
    areas = read_yaml(at / "errors.yaml").data["areas"]
    assert set(stands_on.time_of) == set(BUILT_IN)
    assert {*stands_on.time_of.values(), stands_on.power} <= set(areas)


def test_errors_of_areas_are_written_as_data(tmp_path: Path) -> None:
    rows = [
        Row(f"R{i}", "a", "judged", "s", "w", 100.0, "m", "a paper", predicted=100.0 + i, tolerance_pct=50)
        for i in range(11)
    ]
    (tmp_path / "errors.yaml").write_text(errors_text({"a": rows}, {}))
    assert read_yaml(tmp_path / "errors.yaml").data["areas"] == {"a": {"count": 11, "median_pct": 5.0, "p90_pct": 9.0}}
    assert reference.folder().joinpath("errors.yaml").read_text().startswith("# Written by `cmsim validate --errors")


@pytest.mark.parametrize(
    ("unit", "power"), [("s", 1.0), ("tokens/s", -1.0), ("J", 1.0), ("tokens/J", -1.0), ("W", 0.0)]
)
def test_how_an_error_of_time_enters(unit: str, power: float, drawn: Result) -> None:
    from cmsim.execution.errors_of import _time_power

    assert _time_power(Metric("x", unit, "", ""), "x", drawn) == power


def test_what_a_service_gives_is_asked_of_it() -> None:
    service = {
        **{"kind": "serving", "model": "llama-3.1-8b", "lengths": {"prompt_tokens": 128, "output_tokens": 8}},
        "arrivals": {"process": "poisson", "rate_per_s": 2, "requests": 10},
    }
    (result,) = cmsim.run({**ASKED, "workload": service, "uncertainty": {"executed": False}})
    found = uncertainty.of_data(result.uncertainty)
    times = next(error for error in found.errors if error.area == "serving")
    assert {"ttft_s_p50", "tpot_s_p99"} <= set(times.powers) and set(times.powers.values()) == {1.0}
    assert not {"makespan_s", "output_tokens_per_s", "energy_J"} & set(times.powers)
    # nothing is executed again, prices are drawn all the same
    own = [one.name for one in found.assumptions if not one.name.startswith("recalled_2025: ")]
    assert own == ["hgx_h100: facility.carbon_g_per_kWh"] and len(found.assumptions) > 10


def test_an_end_that_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ends.load_system

    def refusing(*given: Any, **more: Any) -> Any:
        if more["set"].get("node.other_W", 0) > 500:
            raise cmsim.errors.InputError("too many watts")
        return real(*given, **more)

    monkeypatch.setattr(ends, "load_system", refusing)
    monkeypatch.setattr(ends, "_ranged", lambda system, one: _one_key(system))
    (result,) = cmsim.run({**ASKED, "uncertainty": {}})
    found = uncertainty.of_data(result.uncertainty)
    assert any("an end of hgx_h100: node.other_W cannot be run" in note for note in found.notes)
    one = next(one for one in found.assumptions if one.name == "hgx_h100: node.other_W")
    assert one.effects["power_avg_W"][0] < 0 == one.effects["power_avg_W"][1]


def _one_key(system: Any) -> list[Any]:
    value, low, high = system.spec.node.other_W, 100.0, 900.0
    sets = ({"node.other_W": low}, {"node.other_W": high})
    return [ends._Ranged("hgx_h100: node.other_W", "x", "node", value, low, high, sets, timeless=False)]
