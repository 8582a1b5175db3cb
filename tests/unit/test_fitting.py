"""A training plan that does not fit: its budget line by line, and the nearest one that does."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import api
from cmsim.cli.app import app
from cmsim.scenario import load_scenario
from cmsim.workload.generate import fitting
from cmsim.workload.generate.plan import memory_B

DENSE = {
    "kind": "training",
    "model": "llama-3.1-70b",
    "sequence_length": 8192,
    "global_batch": 256,
    "micro_batch": 2,
    "recompute": "none",
    "parallel": {"tp": 4, "pp": 2},
}
BOXES = {"system": "hgx_h100", "domains": 8, "set": {"accelerator.memory_reported": 1}}


def refused(system=BOXES, **work):
    found = cmsim.run({"systems": [system], "workload": {**DENSE, **work}})
    (one,) = found.missing
    return one


def fit(system=BOXES, **work) -> fitting.NearestPlan | None:
    run = load_scenario({"systems": [system], "workload": {**DENSE, **work}}).runs[0]
    return fitting.nearest(run.spec, api.system(run))


@pytest.mark.parametrize(
    ("work", "changes"),
    [
        pytest.param({}, {"recompute": "full"}, id="one key is enough"),
        pytest.param({"sequence_length": 4096}, {"parallel.tp": 8}, id="the cheaper of several"),
        pytest.param({"sequence_length": 2048}, {"micro_batch": 1}, id="cheaper still"),
        pytest.param(
            {"parallel": {"tp": 8, "pp": 2, "dp": 4}, "sequence_length": 2048, "zero_stage": 0},
            {"zero_stage": 1},
            id="states first",
        ),
        pytest.param(
            {"model": "qwen3-235b-a22b", "parallel": {"pp": 4, "ep": 8}, "micro_batch": 1, "sequence_length": 4096},
            {"parallel.ep": 16, "parallel.tp": 8},
            id="two together",
        ),
    ],
)
def test_the_nearest_plan(work, changes):
    found = fit(**work)
    assert found is not None
    assert dict(found.changes) == changes
    # each of them is needed
    run = load_scenario({"systems": [BOXES], "workload": {**DENSE, **work}}).runs[0]
    room_B = api.system(run).rank_memory_B
    assert found.needed_B <= room_B
    for key in found.changes:
        fewer = {name: value for name, value in found.changes.items() if name != key}
        lines = memory_B(fitting.changed(run.spec, fewer), api.system(run))
        assert max(map(sum, zip(*lines.values(), strict=True))) > room_B


def test_a_plan_that_is_told_runs():
    one = refused()
    nearest = one.budget["nearest"]
    assert "Nearest plan that fits: recompute: full (" in one.message
    (result,) = cmsim.run({"systems": [BOXES], "workload": {**DENSE, **nearest["changes"]}})
    assert result.metric("memory_peak_B") == pytest.approx(nearest["needed_B"])
    assert sum(one.budget["parts_B"].values()) == pytest.approx(one.budget["needed_B"])


def test_copies_make_room_for_what_is_split_further():
    work = {"parallel": {"tp": 1, "pp": 1, "dp": 64}, "recompute": "full", "micro_batch": 1}
    found = fit(**work)
    assert found is not None
    sizes = {"tp": 1, "pp": 1} | {key.removeprefix("parallel."): value for key, value in found.changes.items()}
    assert sizes["tp"] * sizes["pp"] * sizes["dp"] == 64


def test_keys_that_do_not_go_together_are_no_plan():
    """With one rank a group nothing is refused; with more it would be."""
    parallel = {"tp": 1, "pp": 8, "sequence_parallel": False}
    found = fit(parallel=parallel, tp_overlap="bulk", sequence_length=4096)
    assert found is not None and "parallel.tp" not in found.changes


def test_where_nothing_helps_it_is_said():
    one = refused(system="hgx_h100", model="deepseek-r1", parallel={})
    assert "nearest" not in one.budget
    assert one.message.endswith("No change of a few keys makes it fit these ranks.")


def test_what_is_left_open_and_graphs_have_none():
    assert "nearest" not in refused(recompute={"best": ["none", "selective"]}).budget
    work = {"kind": "training", "model": "vit-b-16", "global_batch": 2**18, "micro_batch": 2**15, "recompute": "none"}
    (one,) = cmsim.run({"systems": ["hgx_h100"], "workload": work}).missing
    assert one.budget["what"] == "memory" and "nearest" not in one.budget


def test_the_budget_is_shown_line_by_line(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps({"systems": [BOXES], "workload": DENSE}))
    said = CliRunner().invoke(app, ["run", str(file)])
    assert said.exit_code == 1
    lines = dict(
        line.rsplit(maxsplit=1) for line in said.stdout.splitlines() if line.startswith(("weights", "needed", "with"))
    )
    assert lines["weights"] == "17.6"
    assert lines["needed"] == f"{refused().budget['needed_B'] / 1e9:.1f}"
    assert "with recompute: full" in lines
