"""Power under load: what is judged, what was fitted, and the fit as a command."""

from __future__ import annotations

import csv

import pytest
import yaml
from typer.testing import CliRunner

from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.hardware import load_accelerator
from cmsim.validation import fit_power, holds_runs, power_series, reference
from cmsim.validation.power_load import COLUMNS, PowerLoadSpec, read_runs

TABLE = reference.folder() / "power-under-load_runs.csv"


@pytest.mark.slow
def test_power_of_families_not_fitted_is_within_its_targets(predicted_whole):
    limits = (("power", 7, 16), ("energy_measured_times", 8, 18), ("energy", 10, 25), ("latency", 8, 20))
    for name, median_pct, p90_pct in limits:
        for statistic, limit in (("median", median_pct), ("p90", p90_pct)):
            row = predicted_whole[f"hgx_h100/{name}/{statistic}"]
            assert row["role"] == "judged"
            assert row["error_pct"] <= limit == row["tolerance_pct"]


@pytest.mark.slow
def test_families_fitted_and_judged_are_told_apart(predicted_whole):
    spec, _ = reference.read_spec("power-under-load", PowerLoadSpec)
    families = {row["family"] for row in read_runs(TABLE)}
    assert set(spec.fitted_families) < families
    assert predicted_whole["hgx_h100/power/fitted/median"]["role"] == "fitted"
    seen = sum(row["family"] in spec.fitted_families for row in read_runs(TABLE))
    assert f"of {seen} runs" in predicted_whole["hgx_h100/power/fitted/median"]["what"]
    assert f"of {len(read_runs(TABLE)) - seen} runs" in predicted_whole["hgx_h100/power/median"]["what"]


@pytest.mark.slow
def test_refitting_gives_the_shipped_watts():
    spec, _ = reference.read_spec("power-under-load", PowerLoadSpec)
    found = fit_power(TABLE, accelerator="hgx_h100", families=spec.fitted_families)
    shipped = load_accelerator("h100_sxm").power
    assert found.compute_W == pytest.approx(shipped.compute_W, abs=3)
    # windows, and experts that exchange nothing, came after the fit; steps of training are bound by these watts
    assert found.memory_W == pytest.approx(shipped.memory_W, abs=10)
    assert found.held_out_pct[0] < 9


def some_rows(tmp_path, keep, change=lambda row: row):
    rows = [change(dict(row)) for row in read_runs(TABLE) if keep(row)]
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def small(row):
    return row["family"] in ("Qwen3-8B", "Llama-3.1-8B") and float(row["batch"]) < 100


def test_the_command_fits_a_table_of_metered_runs(tmp_path):
    path = some_rows(tmp_path, small)
    assert holds_runs(path)
    out = tmp_path / "fit.yaml"
    answer = CliRunner().invoke(app, ["calibrate", str(path), "--accelerator", "hgx_h100", "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    said = yaml.safe_load((tmp_path / "fit.yaml").read_text())
    assert 300 < said["power"]["compute_W"] < 900 and 150 < said["power"]["memory_W"] < 500
    assert said["fit"]["families"] == 2
    assert "held out" in answer.output


def test_wrong_tables_are_refused_with_their_place(tmp_path):
    few = some_rows(tmp_path, lambda row: row["id"] == "mle-0037")
    with pytest.raises(InputError, match="1 rows of 1 families are of hgx_h100; at least 8 of 2"):
        fit_power(few, accelerator="hgx_h100")
    with pytest.raises(InputError, match=r"no runs of a family 'Qwen3-8'. Did you mean 'Qwen3-8B'"):
        fit_power(some_rows(tmp_path, small), accelerator="hgx_h100", families=["Qwen3-8"])
    wrong = some_rows(tmp_path, small, lambda row: {**row, "power_W": "-1"})
    with pytest.raises(InputError, match=r"runs.csv:2: power_W: got '-1'; must be a number above 0"):
        fit_power(wrong, accelerator="hgx_h100")
    lacking = some_rows(tmp_path, small, lambda row: {k: v for k, v in row.items() if k != "batch"})
    with pytest.raises(InputError, match="no column 'batch'"):
        read_runs(lacking)
    assert not holds_runs(tmp_path / "none.csv")
    assert set(COLUMNS) <= set(read_runs(TABLE)[0])


@pytest.mark.slow
def test_whole_logs_that_nothing_was_fitted_to_are_within_their_targets(predicted_whole):
    for name, limit in (("mean", 6), ("swing", 20)):
        row = predicted_whole[f"series/{name}/median"]
        assert row["role"] == "judged"
        assert abs(row["error_pct"]) <= limit == row["tolerance_pct"]
        assert "of 3 logs" in row["what"]
    # each is shown, and none is both fitted and judged
    assert {predicted_whole[f"SERIES-00{n}"]["role"] for n in (2, 3, 4)} == {"left_out"}
    assert {predicted_whole[f"SERIES-00{n}"]["role"] for n in (1, 7)} == {"fitted"}


def test_a_log_without_a_role_is_refused():
    spec, document = reference.read_spec("power-under-load", PowerLoadSpec)
    series = {id_: of for id_, of in spec.series.items() if id_ != "SERIES-002"}
    with pytest.raises(InputError, match="the log 'SERIES-002' has no role"):
        power_series.logs("power-under-load", series, spec.scenarios, document)
    series = {**spec.series, "SERIES-001": spec.series["SERIES-001"].model_copy(update={"scenario": "berd"})}
    with pytest.raises(InputError, match="bert"):
        power_series.logs("power-under-load", series, spec.scenarios, document)
