"""Price and rent: of what is in use, said where they are not known, refused where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import api, cost, engine
from cmsim.cli import app
from cmsim.errors import InputError
from cmsim.reading import builtin_files
from cmsim.results import per
from cmsim.scenario import load_scenario

PRICED = {"name": "priced", "system": "hgx_h100", "set": {"facility.price_per_accelerator_USD": 30_000}}
DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 4, "context_tokens": 1024}
ASKED = {"report": {"per": ["accelerator", "million_dollars"]}, "workloads": {"decode": DECODE}}
TEXT = """name: per dollar
systems: [hgx_h20, hgx_h100, {system: hgx_h100, name: mine, set: {facility.price_per_accelerator_USD: 30000}}]
workload: {kind: decode, model: llama-3.1-8b, batch_per_accelerator: 4, context_tokens: 1024}
report:
  per: [accelerator, million_dollars]
"""


def priced(**more: Any) -> cmsim.System:
    return cmsim.load_system("hgx_h100", set=PRICED["set"], **more)  # type: ignore[arg-type]


def test_price_and_rent_are_of_what_is_in_use() -> None:
    assert cost.price_USD(priced()) == 8 * 30_000
    assert cost.price_USD(priced(accelerators=2)) == 2 * 30_000
    assert cost.price_USD(cmsim.load_system("hgx_h100")) is None
    hour_USD = priced().spec.facility.price_per_accelerator_hour_USD
    assert cost.rent(priced(accelerators=2)) == ({"cost_per_hour_USD": 2 * hour_USD}, ())


def test_no_rent_is_said() -> None:
    system = cmsim.load_system("gb200_nvl72", set={cost.RENT: None})
    assert cost.rent(system) == ({}, (f"no cost_per_hour_USD: gb200_nvl72 has no {cost.RENT}",))
    result = cmsim.run({"systems": [{"system": "hgx_h100", "set": {cost.RENT: None}}], "workload": DECODE})[0]
    assert not [name for name in result.metrics if "USD" in name]
    assert f"no cost_per_hour_USD: hgx_h100 has no {cost.RENT}" in result.warnings


def test_notes_stand_in_the_order_of_the_metrics_they_stand_for() -> None:
    entry = {"system": "gb200_nvl72", "accelerators": 8, "set": {cost.RENT: None, "facility.carbon_g_per_kWh": None}}
    said = cmsim.run({"systems": [entry], "workload": DECODE})[0].warnings
    at = [next(i for i, note in enumerate(said) if word in note) for word in ("carbon_g", "cost_per", "are a band")]
    assert at == [at[0], at[0] + 1, at[0] + 2]
    names = list(cmsim.run({"systems": ["gb200_nvl72"], "workload": DECODE})[0].metrics)
    assert names.index("carbon_g") < names.index("cost_per_hour_USD") < names.index("energy_J_low")


def test_a_million_tokens_cost_the_rent_of_the_time_they_take() -> None:
    result = cmsim.run({"systems": ["hgx_h100"], "workload": DECODE})[0]
    rate, hour_USD = result.metric("tokens_per_s"), result.metric("cost_per_hour_USD")
    assert result.metric("cost_per_Mtoken_USD") == pytest.approx(hour_USD * (1e6 / rate) / 3600)


def test_throughput_per_million_dollars() -> None:
    half = {**PRICED, "name": "half", "accelerators": 4}
    whole, part = cmsim.run({"systems": [PRICED, half], **ASKED})
    for result, count in ((whole, 8), (part, 4)):
        rate = result.metric("tokens_per_s")
        assert per(result, "million_dollars") == pytest.approx(rate / (count * 30_000 / 1e6))


def test_it_is_refused_by_name_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object, **more: object) -> None:
        raise AssertionError("played")

    monkeypatch.setattr(engine, "plan", never)
    with pytest.raises(InputError) as caught:
        api.run({"systems": [PRICED, "hgx_h20", "hgx_h100"], **ASKED})
    (problem,) = caught.value.problems
    assert problem.key == "report.per"
    assert problem.message.startswith(f"million_dollars: hgx_h20, hgx_h100 have no {cost.PRICE}")


def test_the_command_line_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asked.yaml").write_text(TEXT)
    for command in (["run", "asked.yaml"], ["check", "asked.yaml"]):
        done = CliRunner().invoke(app.app, command)
        assert done.exit_code == 2
        where = f"asked.yaml:5: report.per: million_dollars: hgx_h20, hgx_h100 have no {cost.PRICE}"
        assert where in done.stderr.replace("\n", " ")


def test_the_table_has_a_number_and_says_what_it_is_per(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "asked.yaml").write_text(TEXT.replace("hgx_h20, hgx_h100, ", ""))
    done = CliRunner().invoke(app.app, ["run", "asked.yaml"])
    assert done.exit_code == 0
    (row,) = (line.split() for line in done.stdout.splitlines() if line.startswith("mine "))
    assert "-" not in row
    assert "purchase price of the accelerators in use" in " ".join(done.stdout.split())


def test_no_built_in_system_invents_a_price() -> None:
    """A price comes with a source; there is none at hand."""
    for name in builtin_files("topologies"):
        system = cmsim.load_system(name)
        assert cost.price_USD(system) is None or cost.PRICE in system.spec.sources


def test_a_sweep_may_set_prices() -> None:
    scenario = load_scenario({"systems": [PRICED], **ASKED})
    api.check_report(scenario, [priced()])
    with pytest.raises(InputError, match="hgx_h100 has no"):
        api.check_report(scenario, [cmsim.load_system("hgx_h100")])
