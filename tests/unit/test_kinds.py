"""Kinds of workload: what a page declares is what everything reads; another package brings one without an edit here."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import api, kinds, validation
from cmsim.cli.app import app
from cmsim.energy.parts import COMPONENTS
from cmsim.errors import FailedError, InputError
from cmsim.kinds import Facts, Itself, Kind, MachineFacts, Metric, common
from cmsim.kinds.collective import CollectiveFacts
from cmsim.kinds.parts import WorkloadSpec
from cmsim.kinds.trace import TraceFacts
from cmsim.numbers import unit_of
from cmsim.results import Infeasible, Results, check
from cmsim.workload import generate

OUTSIDE = Path(__file__).resolve().parents[1] / "outside"
LINE = """\
name: lines
systems: [hgx_h100, {system: hgx_h100, name: half, accelerators: 4}]
workload: {kind: line, arrivals_per_s: 3, served_per_s: 1, customers: 2000}
sweep: {workload.arrivals_per_s: [1, 3]}
"""
PING = {"systems": ["hgx_h100"], "workload": {"kind": "ping", "size_bytes": [1e6, 1e9]}}
DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 4, "context_tokens": 1024}


@pytest.fixture
def outside(monkeypatch):
    """A package with two kinds and an area, as if it were installed."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(OUTSIDE)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("cmsim_"):
            del sys.modules[name]


def said(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done.stdout


def brought(folder: Path, lines: str, page: str = "") -> None:
    """A package with entry points."""
    info = folder / "some-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(lines)
    (folder / "some_page.py").write_text(page)


# a kind without ops, of another package


def test_it_runs_from_a_scenario(outside):
    found = cmsim.run(LINE)
    assert [one.run for one in found] == [
        f"line/{system}/arrivals_per_s={rate}" for system in ("hgx_h100", "half") for rate in (1, 3)
    ]
    one = found["line/half/arrivals_per_s=3"]
    assert one.kind == "line" and one.accelerators == 4 and one.ranks == 1
    assert one.facts.named() == {"served_per_s": 4.0} and one.machine.racks == found[0].machine.racks / 2
    assert one.metric("busy_fraction") == pytest.approx(3 / 4, rel=0.05)
    assert (one.limiter, one.bound, one.breakdown) == ("", {}, {})
    assert "makespan" in repr(one) or "wait_s" in repr(one)
    assert one.warnings == ("customers come at random",)
    assert found.verdict()[0].startswith("line: at equal arrivals_per_s half gives 2.0 times the customers/s")


def test_the_same_scenario_gives_the_same_bytes(outside, tmp_path):
    for name in ("one", "two"):
        cmsim.run(LINE, out=tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["customers.parquet", "manifest.json", "summary.json"]
    again = Results.load(tmp_path / "one")
    again.save(tmp_path / "three")
    for name in names:
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
    assert again.frame("customers").equals(cmsim.run(LINE).frame("customers"))
    assert json.loads((tmp_path / "one" / "manifest.json").read_text())["facts"]["line/half/arrivals_per_s=1"] == {
        "served_per_s": 4.0,
        **again[2].machine.named(),
    }


def test_its_frame_is_its_own(outside):
    found = cmsim.run(LINE)
    frame = found[0].frame("customers")
    assert list(frame) == ["run", "comes_ps", "served_ps", "leaves_ps"] and len(frame) == 2000
    assert (frame["comes_ps"] <= frame["served_ps"]).all() and found[0].frame("customers") is frame
    assert found.frame("customers")["run"].nunique() == 4
    with pytest.raises(InputError, match=r"a line, has no frame 'ops'. Allowed: customers"):
        found[0].ops  # noqa: B018
    with pytest.raises(InputError, match="has no frame 'ops'"):
        found.ops  # noqa: B018


def test_it_stands_beside_kinds_with_ops(outside, tmp_path):
    line = {"kind": "line", "arrivals_per_s": 3, "served_per_s": 1, "customers": 100}
    found = cmsim.run({"systems": ["hgx_h100"], "workloads": {"line": line, "decode": DECODE}}, out=tmp_path / "both")
    assert {path.stem for path in (tmp_path / "both").glob("*.parquet")} == {"ops", "links", "power", "customers"}
    assert set(found.ops["run"]) == {"decode/hgx_h100"} and set(found.frame("customers")["run"]) == {"line/hgx_h100"}
    again = Results.load(tmp_path / "both")
    for one, other in zip(found, again, strict=True):
        assert (
            one.summary() == other.summary() and one.facts == other.facts and one.columns.keys() == other.columns.keys()
        )
    assert found.metrics["limiter"].tolist() == ["", found[1].limiter]
    assert found.table()[0]["wait_s"] == found[0].metric("wait_s") and found.table()[0]["tokens_per_s"] == ""


def test_it_is_printed(outside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("line.yaml").write_text(LINE)
    text = said("run", "line.yaml", "--out", "out")
    heads, cells = text.split("─")[0], text.split("─")[-1]
    assert "busy_" in heads and "wait" in heads and "limiter" not in heads and "bound" not in heads
    assert "half" in cells and "customers come at random" in text
    rows = said("compare", "out", "line.yaml")
    assert "wait_s" in rows and "busy_fraction" in rows and "customers_per_s_per_accelerator" in rows
    assert json.loads(said("compare", "out", "--json"))["ratios_to_first"]["line/half/arrivals_per_s=1"]["wait_s"] > 1
    assert said("check", "line.yaml").startswith("ok")
    assert "Customers in line" in said("list", "workloads")
    reference = said("schema", "scenario")
    assert "### workload of kind `line`" in reference and "### frame customers" in reference
    assert "| `wait_s` | s | less | until a customer is served, mean | line |" in reference


def test_it_is_drawn(outside, tmp_path):
    cmsim.run(LINE, out=tmp_path / "out")
    said("plot", "trade-off", str(tmp_path / "out"), "--out", str(tmp_path / "one.png"))
    assert (tmp_path / "one.png").stat().st_size > 5000
    for figure, why in (
        ("timeline", "no frame 'ops'"),
        ("power", "no frame 'power'"),
        ("breakdown", "no run has a breakdown"),
        ("roofline", "no frame 'ops'"),
        ("power-throughput", "tokens_per_s"),
    ):
        done = CliRunner().invoke(app, ["plot", figure, str(tmp_path / "out"), "--out", str(tmp_path / "x.png")])
        assert isinstance(done.exception, InputError | SystemExit), figure
        assert why in f"{done.exception}{done.output}", figure


def test_it_is_validated(outside):
    report = validation.validate(["line"])
    assert report.ok and [row["id"] for row in report.rows()] == ["LINE-1", "LINE-2"]
    assert "## line" in report.markdown()
    assert "line" in validation.registry.areas_there_are()
    with pytest.raises(InputError, match=r"'lines'. Did you mean 'line'"):
        validation.validate(["lines"])


def test_what_cannot_be_is_an_outcome(outside):
    found = cmsim.run(LINE, set={"workload.served_per_s": 0.5})
    assert [type(one) for one in found.outcomes if one.run.endswith("=3")][1] is Infeasible
    assert found.missing[-1].kind == "line" and "can be served" in found.missing[-1].message


def test_best_is_chosen_by_its_metrics(outside):
    one = {"systems": ["hgx_h100"], "sweep": {}}
    found = cmsim.run(LINE, set={**one, "workload.served_per_s": {"best": [0.1, 2, 1]}})
    assert found[0].chosen == {"served_per_s": 2}
    rate = {"best": [0.5, 2], "of": "busy_fraction"}
    with pytest.raises(InputError, match="no metric 'busy_fraction' to decide by"):  # it is better neither way
        cmsim.run(LINE, set={**one, "workload.served_per_s": rate})
    found = cmsim.run(LINE, set={**one, "workload.served_per_s": {**rate, "of": "customers_per_s"}})
    assert found[0].chosen == {"served_per_s": 2}
    with pytest.raises(InputError, match=r"a line has no metric 'tokens_per_s' to decide by. .*wait_s"):
        cmsim.load_scenario(LINE, set={"workload.served_per_s": {"best": [1], "of": "tokens_per_s"}})


def test_wrong_keys_are_told_with_their_line(outside, tmp_path):
    (tmp_path / "s.yaml").write_text(LINE.replace("customers: 2000", "customers: -1"))
    with pytest.raises(InputError, match=r"s.yaml:3: workload.customers: must be greater than 0"):
        cmsim.load_scenario(tmp_path / "s.yaml")
    with pytest.raises(InputError, match=r"kind: got 'lin'. Did you mean 'line'"):
        cmsim.load_scenario(LINE.replace("kind: line", "kind: lin"))


@pytest.mark.parametrize(
    "key", [{"faults": ["rank/0/port"]}, {"exclusive": True}, {"jitter": {}}, {"perturb": {0: {"compute": 2}}}]
)
def test_what_it_does_not_act_on_is_refused(outside, key):
    with pytest.raises(InputError, match=f"a line does not act on `{next(iter(key))}`"):
        cmsim.run(LINE, set=key)


def test_it_has_no_programs(outside, tmp_path):
    one = cmsim.load_scenario(LINE).runs[0]
    with pytest.raises(InputError, match="a line has no programs"):
        generate.programs(one.spec, api.system(one))
    with pytest.raises(InputError, match="a line has no programs"):
        api.export_chakra(one, tmp_path / "out")


def test_a_result_says_only_what_its_kind_declares(outside):
    (one, *_) = cmsim.run(LINE)
    with pytest.raises(FailedError, match="the metric queue_s is not declared by the kind line"):
        check(dataclasses.replace(one, metrics={**one.metrics, "queue_s": 1.0}))
    columns = {"customers": {**one.columns["customers"], "name": np.zeros(2000)}}
    with pytest.raises(FailedError, match="the frame customers is not as the kind line declares it: name"):
        check(dataclasses.replace(one, columns=columns))
    with pytest.raises(FailedError, match="the frame ops is not as the kind line declares it"):
        check(dataclasses.replace(one, columns={**one.columns, "ops": {"a": np.zeros(1)}}))
    with pytest.raises(FailedError, match="the customers frame is empty"):
        check(dataclasses.replace(one, columns={}))


def test_a_folder_of_a_kind_that_is_not_there_is_refused(outside, tmp_path, monkeypatch):
    cmsim.run(LINE, out=tmp_path / "out")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(OUTSIDE)])
    with pytest.raises(InputError, match="no workloads of kind 'line'"):
        Results.load(tmp_path / "out")


# a kind with programs, of another package


def test_programs_of_another_package_are_played_as_all_are(outside, tmp_path):
    small, large = cmsim.run(PING, out=tmp_path / "out")
    assert (small.point, large.point) == ({"workloads.ping.size_bytes": 1e6}, {"workloads.ping.size_bytes": 1e9})
    assert set(small.ops["kind"]) == {"send", "recv"} and small.metric("energy_J") > 0
    assert large.metric("round_trip_s") == large.metric("makespan_s") > 2e9 / 450e9
    assert large.facts.named() == {"size_B": 1e9} and large.bound["name"] == "port"
    assert Results.load(tmp_path / "out")[1].facts == large.facts
    assert len(api.export_chakra(cmsim.load_scenario(PING).runs[0], tmp_path / "chakra")) == 3
    slow = cmsim.run({**PING, "faults": ["rank/0/port"]}, set={"faults": [{"part": "rank/0/port", "left": 0.5}]})
    assert slow[1].metric("fault_slowdown") == pytest.approx(2, rel=0.05)


# the registry


def test_a_name_that_is_built_in_cannot_be_taken(tmp_path, monkeypatch):
    brought(tmp_path, "[cmsim.kinds]\ndecode = some_page:KIND\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert kinds.get("decode").name == "decode"
    with pytest.raises(InputError, match="'decode' is built in; some_page:KIND cannot be called so too"):
        kinds.names()


def test_an_entry_point_names_a_kind(tmp_path, monkeypatch):
    brought(tmp_path, "[cmsim.kinds]\nother = some_page:KIND\n", "KIND = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="some_page:KIND is a int; expected the Kind 'other'"):
        kinds.get("other")
    monkeypatch.delitem(sys.modules, "some_page")


def test_a_name_that_two_packages_bring_is_refused(outside, tmp_path, monkeypatch):
    brought(tmp_path, "[cmsim.kinds]\nline = some_page:KIND\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="'line' stands twice"):
        kinds.get("line")


# what pages declare


@pytest.mark.parametrize("change", [{"table": ("tpot_s",)}, {"metrics": ()}, {"rates": ("a_per_s",)}, {"speed": "b_s"}])
def test_a_page_uses_only_what_it_declares(change):
    page = {
        **{"name": "x", "spec": WorkloadSpec, "execution": Itself("a:b"), "facts": Facts, "frames": ()},
        **{"metrics": (Metric("makespan_s", "s", "less", "length"),), "decisive": (), "table": (), "headline": ()},
    }
    assert Kind(**page).deciding == ("makespan_s",)
    with pytest.raises(ValueError, match="metrics of the kind 'x'"):
        Kind(**page | change)
    with pytest.raises(ValueError, match=r"are called as those of machines: \['memory_Bps'"):
        Kind(**page | {"facts": MachineFacts})


def test_components_of_power_are_those_of_the_facility():
    assert tuple(common.COMPONENTS) == COMPONENTS


@pytest.mark.parametrize("kind", kinds.BUILT_IN)
def test_units_stand_in_names(kind):
    for metric in kinds.get(kind).metrics:
        if unit_of(metric.name):
            assert metric.unit in (unit_of(metric.name), f"{unit_of(metric.name)}/h"), metric
        assert metric.text


def test_facts_are_read_as_they_are_saved():
    facts = CollectiveFacts(size_B=8.0, ranks_in_group=4.0)
    assert facts.named() == {"size_B": 8.0, "ranks_in_group": 4.0, "calls": 1.0}
    assert CollectiveFacts.of({**facts.named(), "racks": 1.0}) == facts
    with pytest.raises(KeyError, match="size_B"):
        CollectiveFacts.of({})
    told = TraceFacts({"steps": 2.0, "tokens_per_run": 7.0}, 1.5, {"compute": 1.0, "send_recv": 0.5}, 8.0)
    assert list(told.named()) == [
        *("steps", "tokens_per_run", "recorded_s", "recorded_compute_s", "recorded_send_recv_s", "rank_steps_per_run")
    ]
    assert TraceFacts.of(told.named()) == told and told.per_run("token") == 7 and told.per_run("sample") is None
    assert MachineFacts.of({"racks": 2.0, "calls": 3.0}) == MachineFacts(racks=2.0)


def test_the_host_class_is_the_page_s():
    runs = {
        "decode": DECODE,
        "prefill": {"kind": "prefill", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "prompt_tokens": 64},
        "encoder": {"kind": "encoder", "model": "resnet50", "batch_per_accelerator": 1},
    }
    idle = {}
    for one in cmsim.load_scenario({"systems": ["cloudmatrix384"], "workloads": runs}).runs:
        host = api.system(one).stack.host
        idle[one.spec.kind] = (api.options_of(one, api.system(one)).host_idle, host.idle_decode, host.idle_bulk)
    assert idle["decode"][0] == idle["decode"][1] and idle["prefill"][0] == idle["prefill"][2]
    assert idle["encoder"][0] == 0.0 and idle["decode"][0] != idle["prefill"][0]
