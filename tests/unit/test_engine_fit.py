"""Hosts of engines fitted to benchmarks: constants that made a table come back, and what it does not tell is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from cmsim import api, published, validation
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.scenario import load_scenario
from cmsim.serving import measure
from cmsim.serving.execute import prepared
from cmsim.validation import EngineFit, fit_engine

ROW = {
    "backend": "vllm", "backend_version": "0.11", "model_path": "meta-llama/Llama-3.1-8B", "system": "h100_sxm",
    "precision": "fp8", "mode": "agg", "isl": 512, "osl": 24, "gemm_quant_mode": "fp8", "moe_quant_mode": "",
    "pp_size": 1, "attention_dp_size": 1, "moe_tp_size": 1, "moe_ep_size": 1,
}  # fmt: skip
#: an engine of whose steps the host is a floor, and that reads requests slowly
TRUE = {"step_us": 9000.0, "sequence_us": 60.0, "arrival_us": 30_000.0}
USERS = (1, 2, 3, 4, 6, 8)


@pytest.fixture(scope="module", autouse=True)
def _kept(tmp_path_factory):
    """Steps that are played are kept for this file alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "steps_of_engines"))
        yield


@pytest.fixture(scope="module")
def fit(table: Path) -> EngineFit:
    return fit_engine(table)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Rows that were served by the true engine."""
    rows = []
    for number, users in enumerate(USERS):
        cells = {**ROW, "id": f"r{number}", "batch_size": users, "tp_size": 1}
        cells["silicon_data_source"] = f"silicon_concurrency={users}"
        form = published.service_form_of(list(cells), "rows")
        case = form.case({key: str(value) for key, value in cells.items()})
        run = load_scenario(published.with_files(case, tmp_path_factory.getbasetemp())).runs[0]
        system = api.system(run)
        engine = system.stack.serving.model_copy(update=TRUE)
        times = measure.Times.of(prepared(run, system, base=None).served_by(engine).book)
        rows.append({**cells, "silicon_ttft_ms": times.ttft.mean() * 1e3, "silicon_tpot_ms": times.tpot.mean() * 1e3})
    path = tmp_path_factory.mktemp("rows") / "bench.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.slow
def test_constants_that_made_a_table_come_back(fit: EngineFit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one.name: one for one in fit.constants}
    assert found["step_us"].value == pytest.approx(TRUE["step_us"], rel=0.1) and found["step_us"].told
    assert found["arrival_us"].value == pytest.approx(TRUE["arrival_us"], rel=0.1) and found["arrival_us"].told
    assert found["arrival_us"].low < TRUE["arrival_us"] < found["arrival_us"].high
    # behind a floor nobody sees how long a step of the device takes: that stays as it was, and is not written
    assert not found["decode_times"].told and found["decode_times"].value == found["decode_times"].before
    assert sum(value > 1 for value in fit.singular) < len(fit.constants)
    assert any("not told by these rows" in line and "decode_times" in line for line in fit.said())
    tpot, tpot_after, ttft, ttft_after = fit.errors_pct["held out"]
    assert tpot[0] > 40 > 3 > tpot_after[0] and ttft[0] > 10 > 5 > ttft_after[0]
    assert fit.held_out == "a third of the rows"

    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(fit.text("mine"), encoding="utf-8")
    written = yaml.safe_load(Path("mine.yaml").read_text(encoding="utf-8"))
    assert set(written["accelerators"]["h100_sxm"]["serving"]) == {
        one.name for one in fit.constants if np.isfinite(one.high)
    }
    workload = {
        "kind": "serving",
        "model": "llama-3.1-8b",
        "arrivals": {"process": "closed", "concurrency": 4},
        "lengths": {"prompt_tokens": 512, "output_tokens": 48},
        "accelerators": 1,
    }
    (run,) = api.run({"systems": [{"system": "hgx_h100", "stack": "mine.yaml"}], "workload": workload})
    assert run.metric("tpot_s_p50") >= 0.008


@pytest.mark.slow
def test_the_command(fit: EngineFit, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []
    said = lambda *_, accelerator, only, progress: asked.append((accelerator, tuple(only))) or fit  # noqa: E731
    monkeypatch.setattr(validation, "fit_engine", said)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["calibrate", "serving", str(table), "--only", "vllm_served", "--out", "mine.yaml"])
    assert done.exit_code == 0, done.output
    assert asked == [("", ("vllm_served",))]
    assert "told by the rows" in done.stdout and "combinations of the constants apart" in done.stdout
    assert yaml.safe_load(Path("mine.yaml").read_text())["extends"] == "vllm_served"


def test_rows_of_several_engines_are_refused(table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table)
    two = pd.concat([rows, rows.assign(backend="trtllm")])
    two.to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(InputError, match=r"tensorrt_llm on hgx_h100 \(6 rows\)\. Choose with --only"):
        fit_engine(tmp_path / "two.csv")
    with pytest.raises(InputError, match="no rows of these"):
        fit_engine(table, accelerator="hgx_b200")
    rows.head(3).to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(InputError, match="3 rows can be fitted to; at least 6"):
        fit_engine(tmp_path / "few.csv")
    wrong = CliRunner().invoke(app, ["calibrate", str(table), str(table)])
    assert wrong.exit_code == 2 and "got two files" in wrong.stderr
