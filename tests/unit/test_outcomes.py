"""What becomes of runs that cannot be: rows among the others, with the reason, in tables, files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import api
from cmsim.cli.app import app
from cmsim.errors import FailedError, InfeasibleError, InputError
from cmsim.results import Failed, Infeasible, Result, Results
from cmsim.scenario import load_scenario

DECODE = {
    "kind": "decode",
    "model": "llama-3.1-8b",
    "batch_per_accelerator": 8,
    "context_tokens": 4096,
}


def scenario(systems=("hgx_h100",), batches=(8, 5000), **changes):
    return {
        "systems": list(systems),
        "workload": {**DECODE, **changes},
        "sweep": {"workload.batch_per_accelerator": list(batches)},
    }


def said(*arguments):
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


@pytest.fixture
def mixed() -> Results:
    """Two points, of which the second needs more than the 81,559 MiB of an H100."""
    return cmsim.run(scenario())


def test_a_point_that_does_not_fit_is_an_outcome_and_the_other_is_there(mixed):
    assert [type(one).__name__ for one in mixed.outcomes] == ["Result", "Infeasible"]
    assert [result.run for result in mixed] == ["decode/hgx_h100/batch_per_accelerator=8"]
    (missing,) = mixed.missing
    assert isinstance(missing, Infeasible)
    budget = missing.budget
    assert (budget["what"], budget["of"], budget["available_B"]) == ("memory", "package", 85.52e9)
    assert budget["needed_B"] == pytest.approx(sum(budget["parts_B"].values())) and budget["needed_B"] > 85.52e9
    # 5000 sequences of 4096 tokens of 32 layers, 8 heads of 128, keys and values, 2 bytes each
    assert budget["parts_B"]["cache"] == pytest.approx(5000 * 4097 * 32 * 8 * 128 * 2 * 2)


def test_the_only_run_that_is_infeasible_says_so_where_it_is_asked_for():
    alone = cmsim.run(scenario(batches=[5000]))
    assert len(alone) == 0 and len(alone.missing) == 1
    for ask in (lambda: alone[0], lambda: alone[alone.missing[0].run], lambda: alone.ops, lambda: list(alone)):
        with pytest.raises(InfeasibleError, match=r"does not fit.*needs \d+\.\d GB .* has 85.5 GB") as caught:
            ask()
        assert caught.value.budget["available_B"] == 85.52e9


def test_several_reasons_come_together():
    with pytest.raises(InfeasibleError) as caught:
        cmsim.run(scenario(batches=[5000, 6000]))[0]
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"parallel": {"tp": 3}}, "parallel.tp: got 3, which does not divide 32 heads"),
        ({"ranks": 9}, "has 8 ranks"),
        ({"parallel": {"pp": 64}}, "parallel.pp: got 64 stages for 32 layers"),
        ({"precision": {"weights": "fp4", "activations": "fp4"}}, "got fp4, in which the"),
        ({"parallel": {"ep": 4}}, "the model has no experts"),
    ],
)
def test_what_is_no_plan_is_an_outcome_without_a_budget(workload, message):
    results = cmsim.run(scenario(batches=[8], **workload))
    assert [one.outcome for one in results.missing] == ["infeasible"]
    assert message in results.missing[0].message and not results.missing[0].data


def test_collectives_too():
    groups = {"kind": "collective", "collective": "all_reduce", "message_bytes": [1e6, 1e9], "group": 3}
    results = cmsim.run({"systems": ["hgx_h100"], "workload": groups})
    assert [one.outcome for one in results.missing] == ["infeasible"] * 2


def test_bad_input_ends_the_run_and_writes_nothing(tmp_path):
    wrong = {"systems": ["hgx_h100"], "workloads": {"a": DECODE, "b": {**DECODE, "model": "no-such-model"}}}
    with pytest.raises(InputError, match="no model named"):
        cmsim.run(wrong, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_whose_numbers_cannot_be_has_failed(monkeypatch):
    def refuse(result):
        raise FailedError(f"{result.run}: mfu is nan")

    monkeypatch.setattr(api.results, "check", refuse)
    results = cmsim.run(scenario(batches=[8]))
    assert isinstance(results.missing[0], Failed)
    with pytest.raises(FailedError, match="mfu is nan"):
        _ = results[0]


def test_the_folder_keeps_them_in_order(mixed, tmp_path):
    first = {"systems": ["hgx_h100"], "workload": DECODE, "sweep": {"workload.batch_per_accelerator": [5000, 8]}}
    for results in (mixed, cmsim.run(first), cmsim.run(scenario(batches=[5000]))):
        results.save(tmp_path / "out")
        again = Results.load(tmp_path / "out")
        assert [one.run for one in again.outcomes] == [one.run for one in results.outcomes]
        assert again.missing == results.missing
        assert [(one.entry, one.point) for one in again.outcomes] == [
            (one.entry, one.point) for one in results.outcomes
        ]
        assert all(one.entry is not None and one.point for one in again.outcomes)
        again.save(tmp_path / "twice")
        for path in sorted((tmp_path / "out").iterdir()):
            assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()


def test_the_summary_has_an_entry_for_every_run(mixed):
    result, missing = mixed.summary()["outcomes"]
    assert (result["outcome"], missing["outcome"]) == ("result", "infeasible")
    assert set(missing) == {
        *("run", "workload", "system", "entry", "point", "kind", "outcome", "message", "budget"),
    }
    assert missing["entry"] == {"number": 0, "label": "hgx_h100"}
    assert missing["point"] == {"workloads.decode.batch_per_accelerator": 5000}
    assert missing["budget"]["needed_B"] > missing["budget"]["available_B"]
    assert len(mixed.summary()["results"]) == 1


def test_a_folder_from_before_outcomes_were_kept_is_read(mixed, tmp_path):
    folder = mixed.save(tmp_path / "out")
    summary = json.loads((folder / "summary.json").read_text())
    del summary["outcomes"]
    (folder / "summary.json").write_text(json.dumps(summary))
    assert [one.run for one in Results.load(folder).outcomes] == [mixed[0].run]


def test_tables_have_a_row_for_it(mixed):
    rows = mixed.table()
    assert [row["outcome"] for row in rows] == ["result", "infeasible"]
    assert "does not fit" in str(rows[1]["message"]) and rows[1]["tpot_s"] == ""
    assert "infeasible" in mixed._repr_html_()
    joined = Results.joined([mixed, mixed])
    assert [one.run.partition("#")[2] for one in joined.outcomes] == ["", "", "2", "2"]


def write(path: Path, data) -> Path:
    path.write_text(json.dumps(data))  # JSON is YAML
    return path


def test_the_command_line_counts_them_and_exits_1(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    file = write(tmp_path / "s.yaml", scenario(["hgx_h100", "hgx_h200"], [8, 5000]))
    done = said("run", file)
    assert done.exit_code == 1
    table = done.stdout.partition("2 of 4 runs")[0]
    rows = [line.split() for line in table.splitlines() if line.startswith("hgx_")]
    assert [row[2] == "infeasible" for row in rows] == [False, True, False, True]
    assert "2 of 4 runs gave no result: 2 infeasible" in done.stdout
    assert done.stderr.splitlines()[-1] == "note: 2 of 4 runs gave no result: 2 infeasible"
    assert "85.5 GB" in done.stdout and "does not fit" in done.stdout
    quiet = said("run", file, "--quiet")
    assert quiet.exit_code == 1 and quiet.stdout == "" and "2 of 4 runs gave no result" in quiet.stderr
    document = json.loads(said("run", file, "--json").stdout)
    assert [one["outcome"] for one in document["outcomes"]].count("infeasible") == 2


def test_a_table_of_nothing_but_reasons(tmp_path):
    done = said("run", write(tmp_path / "s.yaml", scenario(batches=[5000])))
    assert done.exit_code == 1
    assert "1 of 1 run gave no result: 1 infeasible" in done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("hgx_h100")] == ["infeasible"]


def test_compare_and_plot_go_without_and_say_so(mixed, tmp_path):
    mixed.save(tmp_path / "out")
    done = said("compare", tmp_path / "out")
    assert done.exit_code == 0 and "note: without decode/hgx_h100/batch_per_accelerator=5000" in done.stderr
    done = said("plot", "breakdown", tmp_path / "out", "--out", tmp_path / "x.png")
    assert done.exit_code == 0 and "note: without" in done.stderr and (tmp_path / "x.png").exists()
    cmsim.run(scenario(batches=[5000]), out=tmp_path / "none")
    for command in (["compare"], ["plot", "breakdown"], ["plot", "power-throughput"]):
        done = said(*command, tmp_path / "none")
        assert done.exit_code == 1 and "does not fit" in done.stderr


def test_check_tells_what_does_not_fit_from_what_is_wrong(tmp_path):
    file = write(tmp_path / "s.yaml", scenario(batches=[5000]))
    done = said("check", file)
    assert done.exit_code == 1 and "the model does not fit" in done.stderr
    file = write(tmp_path / "s.yaml", scenario(batches=[5000], model="no-such-model"))
    assert said("check", file).exit_code == 2


# who pays for what idles


def test_a_job_pays_for_the_packages_that_hold_its_ranks():
    half = scenario(batches=[8], ranks=4)
    shared, alone = cmsim.run(half)[0], cmsim.run({**half, "exclusive": True})[0]
    assert (shared.accelerators, alone.accelerators) == (4, 8)
    assert shared.metric("tpot_s") == alone.metric("tpot_s")
    assert shared.metric("tokens_per_s_per_accelerator") == 2 * alone.metric("tokens_per_s_per_accelerator")
    # four idle packages draw something, and no host idles in either
    assert shared.metric("energy_J") < alone.metric("energy_J")
    assert shared.machine.racks == alone.machine.racks / 2
    assert any("uses 4 of 8 accelerators; the others are not billed to it" in note for note in shared.warnings)
    assert any("uses 4 of 8 accelerators; the others idle, and count" in note for note in alone.warnings)


def test_a_job_on_the_whole_machine_pays_for_all_of_it_either_way():
    whole = scenario(batches=[8])
    assert cmsim.run(whole)[0].metrics == cmsim.run({**whole, "exclusive": True})[0].metrics


# one by one


def test_outcomes_come_as_they_are_asked_for(monkeypatch):
    played = []
    evaluate = api.evaluate
    monkeypatch.setattr(
        api, "evaluate", lambda one, *rest, **more: (played.append(one.key), evaluate(one, *rest, **more))[1]
    )
    each = api.outcomes(scenario(batches=[8, 5000, 16]))
    assert played == []
    kinds = []
    for number, one in enumerate(each, 1):
        kinds.append(one.outcome if not isinstance(one, Result) else "result")
        assert number > 1 or len(played) == 1, "others are begun once it is known how long they take"
    assert kinds == ["result", "infeasible", "result"]


def test_what_cannot_be_read_is_said_at_the_call():
    with pytest.raises(InputError, match="hgx_h1000"):
        api.outcomes(scenario(systems=["hgx_h100", "hgx_h1000"]))


# all of them in one frame


def test_metrics_are_a_tidy_frame_with_a_row_per_run(mixed):
    frame = mixed.metrics
    assert frame["run"].tolist() == [one.run for one in mixed.outcomes]
    assert frame[["workload", "kind", "system"]].to_numpy().tolist() == [["decode", "decode", "hgx_h100"]] * 2
    assert frame["batch_per_accelerator"].tolist() == [8, 5000]
    assert frame["outcome"].tolist() == ["result", "infeasible"] and "does not fit" in frame["message"][1]
    assert frame["tpot_s"][0] == mixed[0].metric("tpot_s") and np.isnan(frame["tpot_s"][1])
    assert (frame["dp"][0], frame["sequences_per_rank"][0]) == (8, 8)
    assert frame["memory_cache_B"][0] == mixed[0].plan["memory_B"]["cache"]
    assert set(mixed[0].metrics) <= set(frame.columns)
    assert frame["bound_fraction"][0] == mixed[0].bound["fraction"]
    for name in set(mixed[0].metrics) | {"batch_per_accelerator"}:
        assert frame[name].dtype.kind in "if", name


def test_swept_keys_are_columns_under_heads_that_nothing_else_has():
    sums = {"kind": "collective", "collective": "all_reduce", "message_bytes": [1e6, 2e6]}
    results = cmsim.run(
        {
            "systems": [{"system": "hgx_h100", "name": "small"}, {"system": "hgx_h200", "name": "large"}],
            "workloads": {"sum": sums, "serve": DECODE},
            "sweep": {"systems.0.accelerators": [2, 4], "workloads.serve.precision": [{"weights": "fp8"}]},
        }
    )
    frame = results.metrics.set_index("run")
    assert len(frame) == 9 and frame.index.is_unique
    # packages in use have that name already
    assert frame["system.accelerators"].dropna().unique().tolist() == [2, 4]
    assert frame["accelerators"].tolist() == [2, 2, 4, 4, 8, 8, 2, 4, 8]
    by_size = frame[frame["workload"] == "sum"].pivot_table("busbw_GBps", "message_bytes", ["system", "accelerators"])
    assert by_size.shape == (2, 3) and by_size.notna().all(axis=None)
    assert frame.loc["serve/large/precision={'weights': 'fp8'}", "precision"] == {"weights": "fp8"}
    assert frame["algorithm"].notna().sum() == 6
    # what is swept, found and chosen stays apart whatever comes first
    columns = list(frame.columns)
    assert columns.index("system") < columns.index("precision") < columns.index("outcome") < columns.index("time_s")
    assert columns.index("dp") < columns.index("tpot_s") < columns.index("limiter")


def test_a_frame_of_nothing_but_reasons():
    frame = cmsim.run(scenario(batches=[5000])).metrics
    assert frame["outcome"].tolist() == ["infeasible"] and "tpot_s" not in frame.columns


def test_everything_people_hold_shows_itself_in_one_line(mixed):
    frame_free = {
        "<Results: 2 runs, 1 infeasible>": mixed,
        "<Results: 0 runs>": Results(()),
        "<Scenario: 2 runs>": load_scenario(scenario()),
        "<Scenario serve: 1 run>": load_scenario({**scenario(batches=[8]), "name": "serve"}),
        "<System hgx_h100: 4 accelerators, 4 ranks>": cmsim.load_system("hgx_h100", accelerators=4),
    }
    for text, one in frame_free.items():
        assert repr(one) == text
    result, missing = mixed.outcomes
    tpot = f"{result.metric('tpot_s'):.4g}"
    assert repr(result) == f"<Result decode/hgx_h100/batch_per_accelerator=8: tpot_s {tpot}, limited by memory>"
    assert repr(missing).startswith("<Infeasible decode/hgx_h100/batch_per_accelerator=5000: the model does not fit")
    assert len(repr(missing)) < 180 and "\n" not in repr(missing)
    assert repr(Failed("a", "b", "c", "d", "one\ntwo")) == "<Failed a: one two>"


@pytest.mark.parametrize(
    ("precision", "key"),
    [({"attention": "fp8"}, "attention"), ({"weights": "fp8", "activations": "fp8"}, "weights")],
)
def test_formats_that_the_silicon_does_not_compute_in_are_refused_at_their_key(precision, key):
    workload = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 1024}
    [missing] = cmsim.run({"systems": ["hgx_a100"], "workload": {**workload, "precision": precision}}).missing
    assert missing.message.startswith(
        f"precision.{key}: got fp8, in which the a100_sxm does not compute. Allowed: bf16"
    )
    assert not cmsim.run({"systems": ["hgx_h100"], "workload": {**workload, "precision": precision}}).missing


@pytest.mark.parametrize("precision", [{"weights": "fp8"}, {"kv_cache": "fp8"}, {"weights": "fp4"}])
def test_formats_that_are_only_stored_are_noted(precision):
    workload = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 1024}
    [(_, name)] = precision.items()
    runs = cmsim.run({"systems": ["hgx_a100", "hgx_h100"], "workload": {**workload, "precision": precision}})
    noted = [[note for note in one.warnings if f"in {name} are only stored" in note] for one in runs.results]
    assert len(noted[0]) == 1 and "the a100_sxm computes in wider formats" in noted[0][0]
    assert len(noted[1]) == (name == "fp4")
