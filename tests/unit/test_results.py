"""Metrics, checks, tables and the folder of results, on results made by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cmsim.errors import FailedError, InputError
from cmsim.kinds import Facts, MachineFacts
from cmsim.kinds.collective import CollectiveFacts
from cmsim.kinds.decode import DecodeFacts
from cmsim.kinds.prefill import PrefillFacts
from cmsim.kinds.trace import TraceFacts
from cmsim.kinds.training import TrainingFacts
from cmsim.results import FRAMES, PER, Result, Results, check, metrics, per

POWER_W = (300.0, 700.0)


def made(run="decode/rack", *, time_s=0.05, tokens_per_s=8000.0, system="rack", **changes) -> Result:
    """A consistent result: 8 accelerators, 1 kW from the wall, one op, one link."""
    end = round(time_s * 1e12)
    ops = {
        "rank_class": np.array([0, 0]),
        "multiplicity": np.array([8, 8]),
        "stream": np.array(["compute", "comm"], dtype=object),
        "op": np.array(["gemm", "sum"], dtype=object),
        "kind": np.array(["compute", "collective"], dtype=object),
        "start_ps": np.array([0, end // 2]),
        "end_ps": np.array([end // 2, end]),
        "wait_ps": np.array([0, end // 8]),
        "flops": np.array([1e12, 0.0]),
        "sent_B": np.array([0.0, 1e6]),
    }
    links = {
        "resource": np.array(["port.out[0]"], dtype=object),
        "instances": np.array([8]),
        "start_ps": np.array([end // 2]),
        "end_ps": np.array([end]),
        "bytes_B": np.array([1e6]),
        "utilization": np.array([0.5]),
    }
    power = {
        "component": np.array(["accelerators_idle", "facility"], dtype=object),
        "start_ps": np.array([0, 0]),
        "end_ps": np.array([end, end]),
        "power_W": np.array(POWER_W),
    }
    values = {
        "tokens_per_s": tokens_per_s,
        "makespan_s": time_s,
        "energy_J": sum(POWER_W) * time_s,
        "power_avg_W": sum(POWER_W),
    }
    whole = Result(
        run=run,
        workload=run.split("/")[0],
        system=system,
        accelerators=8,
        ranks=8,
        metrics=values,
        bound={"name": "HBM", "time_s": time_s / 2, "fraction": 0.5},
        limiter="memory",
        breakdown={"memory_s": 0.75 * time_s, "link_s": 0.25 * time_s},
        warnings=("a number was assumed",),
        machine=MachineFacts(racks=2.0, price_USD=4e6),
        columns={"ops": ops, "links": links, "power": power},
    )
    return dataclasses.replace(whole, **changes)


def with_column(result, kind, name, values):
    columns = {key: dict(value) for key, value in result.columns.items()}
    columns[kind][name] = np.asarray(values)
    return dataclasses.replace(result, columns=columns)


def some() -> Results:
    return Results(
        (made(), made("decode/other", system="other", time_s=0.04)),
        scenario={"name": "two", "seed": 0},
        manifest={"cmsim": "9.9", "scenario_text": "name: two\n"},
    )


# metrics


def test_collective_metrics():
    found = metrics(
        "collective",
        CollectiveFacts(size_B=1e9, ranks_in_group=8.0, calls=2.0, busbw_factor=1.75),
        makespan_s=0.02,
        accelerators=8,
        algorithm="ring",
    )
    assert (found["time_s"], found["algbw_GBps"], found["busbw_GBps"]) == pytest.approx((0.01, 100.0, 175.0))
    assert found["algorithm"] == "ring"
    assert found["makespan_s"] == 0.02


def test_training_metrics():
    facts = TrainingFacts(
        tokens_per_step=1e6, model_flops_per_token=6e10, hardware_flops_per_token=8e10, peak_FLOPps=1e15
    )
    found = metrics("training", facts, makespan_s=2.0, accelerators=100, bubble_s=0.5, exposed_comm_s=0.1)
    assert found["step_time_s"] == 2.0
    assert found["tokens_per_s"] == 5e5
    assert found["tokens_per_s_per_accelerator"] == 5e3
    assert found["model_TFLOPps_per_accelerator"] == pytest.approx(300.0)
    assert found["mfu"] == pytest.approx(0.3)
    assert found["hfu"] == pytest.approx(0.4)
    assert found["bubble_fraction"] == 0.25
    assert found["exposed_comm_s"] == 0.1


def test_decode_metrics_with_speculation():
    facts = DecodeFacts(tokens_per_run=1700.0, steps=2.0, tokens_per_step_per_sequence=1.7, layers=10.0)
    found = metrics("decode", facts, makespan_s=0.1, accelerators=5)
    assert found["tpot_s"] == pytest.approx(0.05 / 1.7)
    assert found["layer_time_s"] == pytest.approx(0.005)
    assert found["tokens_per_s"] == pytest.approx(17000)
    assert found["tokens_per_s_per_accelerator"] == pytest.approx(3400)


def test_prefill_metrics():
    found = metrics("prefill", PrefillFacts(8192.0, steps=1.0, layers=16.0), makespan_s=0.5, accelerators=2)
    assert found["ttft_s"] == 0.5
    assert found["layer_time_s"] == 0.5 / 16


def test_trace_metrics_need_no_facts():
    assert metrics("trace", TraceFacts(), makespan_s=0.5, accelerators=2) == {"makespan_s": 0.5, "exposed_comm_s": 0.0}
    told = TraceFacts(told={"tokens_per_run": 10.0})
    assert metrics("trace", told, makespan_s=0.5, accelerators=2)["tokens_per_s"] == 20


def test_energy_and_cost_per_token():
    power = {"power_avg_W": 559e3, "energy_J": 559e3, "carbon_g": 70.0, "cost_per_hour_USD": 3600.0}
    facts = DecodeFacts(tokens_per_run=746112.0, steps=1.0, tokens_per_step_per_sequence=1.0, layers=1.0)
    found = metrics("decode", facts, makespan_s=1.0, accelerators=384, power=power, memory_peak_B=6e10)
    assert found["energy_per_token_J"] == pytest.approx(0.749217276, rel=1e-6)  # P12 of the model checks
    assert found["energy_per_token_J"] * found["tokens_per_J"] == pytest.approx(1)
    assert found["cost_per_Mtoken_USD"] == pytest.approx(1e6 / 746112)
    assert found["carbon_per_Mtoken_g"] == pytest.approx(70.0 / 746112 * 1e6)
    assert found["memory_peak_B"] == 6e10
    assert found["power_avg_W"] == 559e3


def test_an_unknown_kind_is_named():
    with pytest.raises(InputError, match="Did you mean 'training'"):
        metrics("trainin", Facts(), makespan_s=1.0, accelerators=1)


# one result


@pytest.mark.parametrize(
    ("what", "expected"),
    [("accelerator", 1000.0), ("rack", 4000.0), ("megawatt", 8e6), ("million_dollars", 2000.0)],
)
def test_throughput_per(what, expected):
    assert what in PER
    assert per(made(), what) == pytest.approx(expected)


def test_throughput_per_without_tokens_counts_runs():
    result = made()
    values = {key: value for key, value in result.metrics.items() if key != "tokens_per_s"}
    assert per(dataclasses.replace(result, metrics=values), "accelerator") == pytest.approx(1 / 0.05 / 8)


def test_throughput_per_what_is_not_known():
    with pytest.raises(InputError, match="per million_dollars: rack has no price_USD"):
        per(made(machine=MachineFacts(racks=1.0)), "million_dollars")
    with pytest.raises(InputError, match="Did you mean 'rack'"):
        per(made(), "racks")


def test_a_metric_by_name():
    assert made().metric("tokens_per_s") == 8000
    with pytest.raises(InputError, match="Did you mean 'tokens_per_s'"):
        made().metric("token_per_s")


def test_frames_have_the_run_first_and_are_made_once():
    result = made()
    for kind in FRAMES:
        frame = getattr(result, kind)
        assert frame.columns[0] == "run"
        assert (frame["run"] == "decode/rack").all()
        assert getattr(result, kind) is frame
    assert result.ops["end_ps"].dtype == np.int64
    assert result.ops["op"].tolist() == ["gemm", "sum"]


def test_shown_as_html():
    text = made(run="decode/<rack>")._repr_html_()
    assert "decode/&lt;rack&gt;" in text and "50% of the HBM bound" in text and "a number was assumed" in text


def test_a_consistent_result_passes():
    assert check(result := made()) is result


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_metrics_that_are_no_quantities_are_named(value):
    with pytest.raises(FailedError, match=r"decode/rack: tokens_per_s is .*finite"):
        check(made(tokens_per_s=value))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bound": {"name": "HBM", "time_s": 1.0, "fraction": float("nan")}}, "bound.fraction"),
        ({"breakdown": {"memory_s": 0.01, "link_s": 0.01}}, "the breakdown adds up to 0.02 s"),
        ({"metrics": {"makespan_s": 0.0}}, "a run takes time"),
        ({"columns": {}}, "the ops frame is empty"),
    ],
)
def test_what_else_is_refused(change, says):
    with pytest.raises(FailedError, match=says):
        check(made(**change))


def test_columns_are_looked_at():
    with pytest.raises(FailedError, match="columns of links differ in length"):
        check(with_column(made(), "links", "bytes_B", [1.0, 2.0]))
    with pytest.raises(FailedError, match="column utilization of links"):
        check(with_column(made(), "links", "utilization", [np.nan]))
    with pytest.raises(FailedError, match="the integral of power is"):
        check(with_column(made(), "power", "power_W", [300.0, 701.0]))
    nothing = {name: column[:0] for name, column in made().columns["links"].items()}
    with pytest.raises(FailedError, match="the links frame is empty"):
        check(made(columns={**made().columns, "links": nothing}))


def test_no_links_without_communication():
    nothing = {name: column[:0] for name, column in made().columns["links"].items()}
    silent = with_column(made(), "ops", "sent_B", [0.0, 0.0])
    silent = dataclasses.replace(silent, columns={**silent.columns, "links": nothing})
    check(silent)
    assert silent.links.empty


# all results


def test_results_by_run():
    results = some()
    assert len(results) == 2 and [result.run for result in results] == ["decode/rack", "decode/other"]
    assert results["decode/other"].system == "other"
    assert results[0].run == "decode/rack"
    with pytest.raises(InputError, match="Did you mean 'decode/rack'"):
        results["decode/rak"]


def test_summary_is_the_document_of_the_design():
    document = some().summary()
    assert list(document) == ["schema_version", "cmsim", "scenario", "results", "outcomes"]
    assert document["schema_version"] == 1 and document["cmsim"] == "9.9"
    assert list(document["results"][0]) == [
        "run", "workload", "system", "accelerators", "ranks", "metrics", "bound", "limiter", "breakdown", "warnings",
    ]  # fmt: skip
    assert document["results"][0]["bound"] == {"name": "HBM", "time_s": 0.025, "fraction": 0.5}


def test_table_has_a_row_per_run():
    rows = some().table(per=["rack", "megawatt"])
    assert [row["run"] for row in rows] == ["decode/rack", "decode/other"]
    assert rows[0]["tokens_per_s_per_rack"] == 4000
    assert list(rows[0]) == list(rows[1])
    assert "decode/other" in some()._repr_html_()


def test_frames_of_all_runs():
    results = some()
    assert results.ops["run"].tolist() == ["decode/rack"] * 2 + ["decode/other"] * 2
    assert len(results.power) == 4 and len(results.links) == 2


def test_joined_results_stay_apart():
    joined = Results.joined([some(), some()])
    assert [result.run for result in joined] == ["decode/rack", "decode/other", "decode/rack#2", "decode/other#2"]
    assert joined.version == "9.9"


# the folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_gives_back_what_was_saved(tmp_path):
    results = some()
    folder = results.save(tmp_path / "deep" / "out")
    assert sorted(files_of(folder)) == [
        "links.parquet",
        "manifest.json",
        "ops.parquet",
        "power.parquet",
        "summary.json",
    ]
    again = Results.load(folder)
    assert again.summary() == results.summary()
    assert again.manifest == results.manifest
    for one, two in zip(results, again, strict=True):
        assert (two.facts, two.machine) == (one.facts, one.machine) and two.warnings == one.warnings
        for kind in FRAMES:
            for name, column in one.columns[kind].items():
                assert two.columns[kind][name].dtype == column.dtype
                assert two.columns[kind][name].tolist() == column.tolist()
        check(two)
    assert again.ops.equals(results.ops)


def test_equal_results_give_equal_bytes(tmp_path):
    one, two = some().save(tmp_path / "one"), some().save(tmp_path / "two")
    assert files_of(one) == files_of(two)
    assert files_of(Results.load(one).save(tmp_path / "three")) == files_of(one)


def test_frames_are_plain_parquet(tmp_path):
    import pyarrow.parquet as pq

    folder = some().save(tmp_path / "out")
    table = pq.read_table(folder / "ops.parquet")
    assert table.column_names[0] == "run" and "__index_level_0__" not in table.column_names
    assert str(table.schema.field("start_ps").type) == "int64"
    assert str(table.schema.field("op").type) == "string"


def test_runs_without_links(tmp_path):
    nothing = {name: column[:0] for name, column in made().columns["links"].items()}
    silent = with_column(made("decode/one"), "ops", "sent_B", [0.0, 0.0])
    silent = dataclasses.replace(silent, columns={**silent.columns, "links": nothing})
    for results in ([silent, made()], [made(), silent], [silent]):
        again = Results.load(Results(results).save(tmp_path / "out"))
        assert [len(result.columns["links"]["bytes_B"]) for result in again] == [
            len(result.columns["links"]["bytes_B"]) for result in results
        ]
        assert again["decode/one"].links.empty


def test_our_folder_is_replaced_whole(tmp_path):
    folder = some().save(tmp_path / "out")
    (folder / "left-over.txt").write_text("old")
    Results([made()]).save(folder)
    assert "left-over.txt" not in files_of(folder)
    assert len(Results.load(folder)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    assert len(Results.load(some().save(tmp_path / "out"))) == 2


@pytest.mark.parametrize("foreign", ["{}", "[1]", "not json", '{"schema_version": 1}'])
def test_other_peoples_folders_are_left_alone(tmp_path, foreign):
    (tmp_path / "summary.json").write_text(foreign)
    with pytest.raises(InputError, match="left alone"):
        some().save(tmp_path)
    with pytest.raises(InputError, match="not a folder of results"):
        Results.load(tmp_path)
    assert files_of(tmp_path) == {"summary.json": foreign.encode()}


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="left alone"):
        some().save(tmp_path / "out")
    with pytest.raises(InputError, match="cannot be written"):
        some().save(tmp_path / "out" / "below")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_failed_write_leaves_nothing(tmp_path):
    broken = Results([made(), made("decode/bad", metrics={"makespan_s": float("nan")})])
    with pytest.raises(FailedError, match=r"decode/bad: makespan_s"):
        broken.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_absent_and_damaged_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Results.load(tmp_path / "nowhere")
    folder = some().save(tmp_path / "out")
    parquet = (folder / "ops.parquet").read_bytes()
    (folder / "ops.parquet").write_bytes(parquet[:100])
    with pytest.raises(InputError, match=r"ops\.parquet: is not a readable parquet file"):
        Results.load(folder)
    (folder / "ops.parquet").unlink()
    with pytest.raises(InputError, match=r"ops\.parquet: is missing"):
        Results.load(folder)
    (folder / "ops.parquet").write_bytes(parquet)
    summary = json.loads((folder / "summary.json").read_text())
    del summary["results"][1]["limiter"]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"summary\.json: is damaged: 'limiter'"):
        Results.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read"):
        Results.load(folder)


def test_a_newer_format_is_not_misread(tmp_path):
    folder = some().save(tmp_path / "out")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "schema_version": 99}))
    with pytest.raises(InputError, match="schema_version 99"):
        Results.load(folder)
