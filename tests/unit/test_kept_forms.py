"""Files of earlier versions are read as they were written: `tests/data/VERSION` holds scenarios and folders of each.

Nothing below `tests/data` is ever written anew. A version that changes a form adds a folder of its own.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.version import SCHEMA_VERSION

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(params=[path.name for path in sorted(DATA.iterdir())])
def kept(request: pytest.FixtureRequest) -> Path:
    """What a version left."""
    return DATA / request.param


def command(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_folder_says_what_its_files_say(kept: Path):
    found = cmsim.Results.load(kept / "results")
    said = json.loads((kept / "results" / "summary.json").read_text(encoding="utf-8"))
    assert [one.run for one in found.outcomes] == [one["run"] for one in said["outcomes"]]
    assert [one.metrics for one in found] == [one["metrics"] for one in said["results"]]
    assert [one.bound for one in found] == [one["bound"] for one in said["results"]]
    assert [one.outcome for one in found.missing] == ["infeasible"] * 2
    assert found.manifest["scenario_text"] == (kept / "small.yaml").read_text(encoding="utf-8")
    for name in ("ops", "links", "power"):
        frame, file = getattr(found, name), pq.read_table(kept / "results" / f"{name}.parquet").to_pandas()
        assert len(frame) == len(file) > 0 and set(frame.columns) == set(file.columns), name
    # what is there today is there, too
    found.table(per=["accelerator", "megawatt"])
    assert "hgx_h100" in " ".join(found.verdict())


def test_a_sweep_says_what_its_table_says(kept: Path):
    found, table = cmsim.Results.load(kept / "swept"), pd.read_parquet(kept / "swept" / "metrics.parquet")
    assert [one.run for one in found.outcomes] == table["run"].tolist()
    assert found.metrics["time_s"].tolist() == table["time_s"].tolist()


def test_commands_read_a_folder(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    document = json.loads(command("compare", kept / "results", kept / "swept", "--json"))
    assert len(document["results"]) == 6 and document["schema_version"] == SCHEMA_VERSION
    command("plot", "breakdown", kept / "results", "--out", "breakdown.svg")
    command("plot", "timeline", kept / "results", "--run", "decode/hgx_h100/batch_per_accelerator=8", "--out", "a.png")
    command("report", kept / "results", "-o", "report.html")
    assert "Small, of 0.1.0" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "runs"), [("small", 6), ("sum", 2)])
def test_a_scenario_is_run(kept: Path, name: str, runs: int):
    found = cmsim.run(kept / f"{name}.yaml", record="none")
    assert len(found.outcomes) == runs and len(found) >= 2
    assert all(math.isfinite(value) for one in found for value in one.metrics.values())


@pytest.mark.parametrize("file", ["results/summary.json", "swept/store.json", "small.yaml"])
def test_what_a_newer_cmsim_wrote_is_refused_with_advice(file: str, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(DATA / "0.1.0", copy)
    text = (copy / file).read_text(encoding="utf-8")
    newer = text.replace('schema_version": 1', 'schema_version": 2').replace("schema_version: 1", "schema_version: 2")
    assert newer != text
    (copy / file).write_text(newer.replace("seed: 3", "seed: 3\nof_version_2: 1"), encoding="utf-8")
    read: Any = cmsim.load_scenario if file.endswith("yaml") else cmsim.Results.load
    with pytest.raises(InputError, match=r"2; this cmsim reads 1\. A newer one wrote it: `pip install --upgrade") as no:
        read(copy / (file if file.endswith("yaml") else file.split("/")[0]))
    # one reason, and not whatever else a newer form has
    assert len(no.value.problems) == 1
