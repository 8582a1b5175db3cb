"""Runs that differ by their seed alone are draws of one distribution."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app

SCENARIO = {
    "systems": [{"system": "hgx_h100", "accelerators": 4}],
    "jitter": {"cv": 0.2, "per": "rank"},
    "sweep": {"seed": [1, 2, 3, 4], "workload.micro_batch": [1, 2]},
    "workload": {
        "kind": "training",
        "model": "llama-3.1-8b",
        "sequence_length": 512,
        "global_batch": 8,
        "parallel": {"tp": 4},
    },
}


def test_quantiles_are_those_of_the_runs_that_were_drawn() -> None:
    results = cmsim.run(SCENARIO)
    frame = results.spread
    assert set(frame["metric"]) >= {"step_time_s", "tokens_per_s", "mfu"}
    assert frame["seeds"].unique().tolist() == [4]
    for micro in (1, 2):
        drawn = [one.metrics["step_time_s"] for one in results if one.point["workloads.training.micro_batch"] == micro]
        row = frame[(frame["metric"] == "step_time_s") & (frame["micro_batch"] == micro)].iloc[0]
        assert len(set(drawn)) == 4  # a straggler of each seed's own
        assert row["mean"] == pytest.approx(np.mean(drawn))
        assert row["std"] == pytest.approx(np.std(drawn, ddof=1))
        assert (row["min"], row["max"]) == (min(drawn), max(drawn))
        assert row["p50"] == pytest.approx(np.median(drawn))


def test_one_seed_is_no_distribution() -> None:
    assert cmsim.run(SCENARIO | {"sweep": {"seed": [3]}}).spread.empty
    assert cmsim.run({**SCENARIO, "sweep": {"workload.micro_batch": [1, 2]}}).spread.empty


def test_the_table_stands_below_the_runs(tmp_path) -> None:
    import yaml

    file = tmp_path / "stragglers.yaml"
    file.write_text(yaml.safe_dump(SCENARIO), encoding="utf-8")
    said = CliRunner().invoke(app, ["run", str(file)]).stdout
    below = said[said.index("training: over seeds") :]
    assert "p95" in below
    assert below.count("step_time_s") == 2
