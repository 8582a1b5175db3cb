"""Scenario files: forms, overrides, sweeps, and errors with their place."""

from __future__ import annotations

import pytest
import yaml

from cmsim import api
from cmsim.errors import InputError
from cmsim.kinds.collective import CollectiveSpec
from cmsim.results import Result
from cmsim.scenario import load_scenario

TEXT = """
name: two questions
systems:
  - hgx_h100
  - {system: cloudmatrix384, name: half, accelerators: 192}
workloads:
  serve:
    kind: decode
    model: llama-3.1-8b
    batch_per_accelerator: 8
    context_tokens: 1024
    parallel: {tp: 8}
    per_system:
      half: {parallel: {tp: 16}}
  sum:
    kind: collective
    collective: all_reduce
    message_bytes: 1e6
"""


def keys(scenario):
    return [run.key for run in scenario.runs]


def problems(text, **how):
    with pytest.raises(InputError) as error:
        load_scenario(text, **how)
    return [str(problem) for problem in error.value.problems]


def test_runs_are_workloads_times_systems_in_file_order():
    assert keys(load_scenario(TEXT)) == ["serve/hgx_h100", "serve/half", "sum/hgx_h100", "sum/half"]


def test_per_system_overrides_reach_that_system_only():
    here, there = load_scenario(TEXT).runs[:2]
    assert (here.spec.parallel.tp, there.spec.parallel.tp) == (8, 16)


def test_short_form_is_one_workload_named_by_its_kind():
    text = "systems: [hgx_h100]\nworkload: {kind: collective, collective: barrier, message_bytes: 0}\n"
    assert keys(load_scenario(text)) == ["collective/hgx_h100"]


def test_both_forms_at_once_are_refused():
    text = "systems: [hgx_h100]\nworkload: {kind: collective}\nworkloads: {a: {kind: collective}}\n"
    assert problems(text) == ["workload: give `workload` or `workloads`, not both"]


def test_a_list_of_sizes_makes_one_run_each():
    scenario = load_scenario(TEXT.replace("1e6", "[1e6, 2e6]"))
    assert keys(scenario)[2:4] == ["sum/hgx_h100/message_bytes=1000000", "sum/hgx_h100/message_bytes=2000000"]
    assert [run.spec.message_bytes for run in scenario.runs if isinstance(run.spec, CollectiveSpec)] == [1e6, 2e6] * 2


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("[8, 24]", [8, 24]),
        ("{from: 8, to: 32, steps: 4}", [8, 16, 24, 32]),
        ("{from: 1, to: 64, steps: 4, scale: log}", [1, 4, 16, 64]),
    ],
)
def test_sweeps(axis, values):
    scenario = load_scenario(TEXT + f"sweep: {{workloads.serve.batch_per_accelerator: {axis}}}\n")
    swept = [run.spec.batch_per_accelerator for run in scenario.runs if run.workload == "serve"]
    assert swept == values * 2
    assert len([run for run in scenario.runs if run.workload == "sum"]) == 2, "other workloads are not repeated"


def test_two_axes_are_combined():
    sweep = "sweep: {workloads.serve.batch_per_accelerator: [1, 2], workloads.serve.context_tokens: [64, 128]}\n"
    scenario = load_scenario(TEXT + sweep)
    assert "serve/half/batch_per_accelerator=2,context_tokens=64" in keys(scenario)
    assert len(scenario.runs) == 2 * 4 + 2


def test_set_changes_a_key_before_anything_is_read():
    assert load_scenario(TEXT, set={"workloads.serve.context_tokens": 99}).runs[0].spec.context_tokens == 99


def test_extends_lays_one_file_over_another(tmp_path):
    (tmp_path / "base.yaml").write_text(TEXT)
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nsystems: [{system: hgx_h200, name: half}]\n")
    scenario = load_scenario(tmp_path / "mine.yaml")
    assert keys(scenario) == ["serve/half", "sum/half"]
    assert scenario.runs[0].spec.parallel.tp == 16


def test_of_several_that_are_extended_each_lies_over_those_before(tmp_path):
    (tmp_path / "base.yaml").write_text(TEXT)
    (tmp_path / "more.yaml").write_text("systems: [hgx_h200]\nworkloads: {more: {kind: collective}}\n")
    (tmp_path / "mine.yaml").write_text(
        "extends: [base.yaml, more.yaml]\nworkloads: {more: {collective: all_reduce, message_bytes: 8}}\n"
        "systems: [{system: hgx_h200, name: half}]\n"
    )
    assert keys(load_scenario(tmp_path / "mine.yaml")) == ["serve/half", "sum/half", "more/half"]
    (tmp_path / "mine.yaml").write_text("extends: [base.yaml, 3]\n")
    with pytest.raises(InputError, match=r"extends\[1\]: must be text, got 3"):
        load_scenario(tmp_path / "mine.yaml")


def test_scenarios_that_are_extended_many_times_are_refused(tmp_path):
    (tmp_path / "s9.yaml").write_text(TEXT)
    for number in range(9):
        (tmp_path / f"s{number}.yaml").write_text(f"extends: [s{number + 1}.yaml, s{number + 1}.yaml]\n")
    with pytest.raises(InputError, match="more than 32 scenarios extend each other"):
        load_scenario(tmp_path / "s0.yaml")


def test_an_override_for_a_system_that_is_gone_is_named(tmp_path):
    (tmp_path / "base.yaml").write_text(TEXT)
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nsystems: [hgx_h200]\n")
    with pytest.raises(InputError, match="half"):
        load_scenario(tmp_path / "mine.yaml")


def test_scenarios_that_extend_each_other_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(InputError, match="circle"):
        load_scenario(tmp_path / "a.yaml")


def test_all_problems_of_a_file_are_said_at_once_with_line_and_nearest_name(tmp_path):
    text = TEXT.replace("systems:", "netwrk: fluid\nsystems:").replace("context_tokens", "contxt_tokens")
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace("all_reduce", "allreduce"))
    said = problems(str(path))
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in said] == ["3", "8", "12", "18"]
    assert "Did you mean 'network'?" in said[0]
    assert "workloads.serve.context_tokens: the key is required" in said[1]
    assert "Did you mean 'context_tokens'?" in said[2]
    assert "Did you mean 'all_reduce'?" in said[3]


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("kind: decode", "kind: decoding", "Did you mean 'decode'?"),
        ("half: {parallel", "haff: {parallel", "no such system here. Did you mean 'half'?"),
        ("tp: 8}", "tp: 0}", "greater than 0, got 0"),
        ("batch_per_accelerator: 8", "batch_per_accelerator: many", "must be a number"),
        ("serve:", "a/b:", "part of the run key"),
        ("systems:\n  - hgx_h100\n", "systems: []\nx:\n", "at least 1"),
    ],
)
def test_wrong_values_are_named(was, becomes, says):
    assert any(says in line for line in problems(TEXT.replace(was, becomes))), problems(TEXT.replace(was, becomes))


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        ("{from: 1, to: 2}", "'steps' must be a number"),
        ("{from: 1, to: 2, steps: 3, scael: log}", "unknown key 'scael'"),
        ("{from: 0, to: 2, steps: 3, scale: log}", "above 0"),
        ("7", "expected a list"),
    ],
)
def test_wrong_sweeps_are_named(axis, says):
    assert says in problems(TEXT + f"sweep: {{workloads.serve.context_tokens: {axis}}}\n")[0]


def test_scenario_shows_itself_in_a_notebook():
    assert "serve/half" in load_scenario(TEXT)._repr_html_()


ONE = {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6}


@pytest.mark.parametrize("form", [{"workload": ONE}, {"workloads": {"collective": ONE}}, {"workloads": {"mine": ONE}}])
@pytest.mark.parametrize("key", ["workload", "workloads.collective"])
def test_a_key_reaches_the_one_workload_in_either_form(form, key):
    changed = {**ONE, "message_bytes": 2e6}
    for given in ({f"{key}.message_bytes": 2e6}, {key: changed}, {"sweep": {f"{key}.message_bytes": [2e6]}}):
        [run] = load_scenario({"systems": ["hgx_h100"], **form}, set=given).runs
        assert run.spec.message_bytes == 2e6, given
        assert run.workload == next(iter(form.get("workloads", {"collective": 0})))


def test_a_key_of_several_workloads_or_of_none_is_refused():
    two = {"systems": ["hgx_h100"], "workloads": {"a": ONE, "b": ONE}}
    for given in (
        {"workload.message_bytes": 2e6},
        {"workloads": 3, "workload.x": 1},
        {"workloads": {}, "workload.x": 1},
    ):
        with pytest.raises(InputError, match="workload"):
            load_scenario(two, set=given)


def test_a_scenario_and_what_it_extends_may_have_either_form(tmp_path):
    (tmp_path / "short.yaml").write_text(yaml.safe_dump({"systems": ["hgx_h100"], "workload": ONE}))
    (tmp_path / "long.yaml").write_text(yaml.safe_dump({"systems": ["hgx_h100"], "workloads": {"mine": ONE}}))
    for name, base, over in (
        ("mine", "long", {"workload": {"message_bytes": 2e6}}),
        ("collective", "short", {"workloads": {"collective": {"message_bytes": 2e6}}}),
        ("collective", "short", {"workload": {"message_bytes": 2e6}}),
    ):
        path = tmp_path / "over.yaml"
        path.write_text(yaml.safe_dump({"extends": str(tmp_path / f"{base}.yaml"), **over}))
        [run] = load_scenario(path).runs
        assert (run.workload, run.spec.message_bytes) == (name, 2e6)
    path.write_text(yaml.safe_dump({"systems": ["hgx_h100"], "workload": ONE, "workloads": {"a": ONE}}))
    with pytest.raises(InputError, match="not both"):
        load_scenario(path)


def test_keys_set_over_a_scenario_leave_its_paths_where_they_were():
    whole = load_scenario("custom_graph")  # names a system file beside it
    changed = load_scenario(whole, set={"seed": 7})
    assert changed.base == whole.base and {one.seed for one in changed.runs} == {7}
    first = next(api.outcomes(whole, set={"seed": 7}))
    assert isinstance(first, Result) and first.metric("time_s") > 0


@pytest.mark.parametrize("keys", ["'precisio'", "", "[1]", "3"])
def test_per_system_has_keys_of_the_workload(tmp_path, keys):
    path = tmp_path / "one.yaml"
    path.write_text(
        "systems: [hgx_h100]\nworkload:\n  kind: collective\n  collective: all_reduce\n  message_bytes: 8\n"
        f"  per_system:\n    hgx_h100: {keys}\n"
    )
    with pytest.raises(InputError, match=r"per_system\.hgx_h100: expected keys of the workload, got"):
        load_scenario(path)
