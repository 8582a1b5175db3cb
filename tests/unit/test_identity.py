"""Which run a run is: no two are called alike, none vanishes, and what a scenario cannot tell apart is refused."""

from __future__ import annotations

import json

import pytest

from cmsim.errors import InputError
from cmsim.identity import Entry, Identity, heads, place, shown, spelled
from cmsim.scenario import load_scenario

SUM = {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6}
DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 4096}
NAMED = [{"system": "hgx_h100", "name": name, "accelerators": size} for name, size in (("whole", 8), ("half", 4))]


def scenario(systems=("hgx_h100",), sweep=None, **workloads):
    workloads = workloads or {"sum": SUM}
    return {"systems": list(systems), "workloads": workloads} | ({"sweep": sweep} if sweep else {})


def refused(tmp_path, text: str) -> str:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_scenario(tmp_path / "s.yaml")
    return "\n".join(str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems)


def keys(data):
    return [run.key for run in load_scenario(data).runs]


# what used to vanish


def test_two_entries_of_one_system_without_names_are_refused(tmp_path):
    text = "workload: {kind: collective, collective: all_reduce, message_bytes: 1e6}\nsystems:\n  - hgx_h100\n"
    said = refused(tmp_path, text + "  - {system: hgx_h100, accelerators: 4}\n")
    assert said == (
        "s.yaml:4: systems[1]: is called 'hgx_h100', and so is systems[0]. Tell them apart: give one of them a `name:`."
    )
    said = refused(tmp_path, text + "  - {system: hgx_h200, name: hgx_h100}\n")
    assert "systems[1]: is called 'hgx_h100', and so is systems[0]" in said


def test_an_entry_that_a_sweep_makes_like_another_is_refused_whichever_comes_first():
    for systems, key in (
        ([{"system": "hgx_h100"}, "hgx_h200"], "systems.0.system"),
        (["hgx_h200", {"system": "hgx_h100"}], "systems.1.system"),
    ):
        with pytest.raises(InputError, match=r"systems\[1\]: is called 'hgx_h200', and so is systems\[0\]") as caught:
            load_scenario(scenario(systems, {key: ["hgx_h100", "hgx_h200"]}))
        assert len(caught.value.problems) == 1


def test_with_names_they_are_two_runs():
    assert keys(scenario(NAMED)) == ["sum/whole", "sum/half"]
    assert [run.identity.entry for run in load_scenario(scenario(NAMED)).runs] == [Entry(0, "whole"), Entry(1, "half")]


@pytest.mark.parametrize(
    "sizes", [[1048576, 1048577, 1048578], [1.2345671, 1.2345672, 1.2345673], [2.0**59, 2.0**59 + 2**8]]
)
def test_sizes_that_print_alike_are_a_run_each(sizes):
    runs = load_scenario(scenario(sum={**SUM, "message_bytes": [2**20 + size for size in map(float, sizes)]})).runs
    swept = load_scenario(scenario(sweep={"workloads.sum.message_bytes": list(map(float, sizes))})).runs
    assert len({run.key for run in runs}) == len({run.key for run in swept}) == len(sizes)
    assert [run.point["workloads.sum.message_bytes"] for run in swept] == sizes


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "sweep: {workload.context_tokens: [64, 128, 64.0]}",
            "s.yaml:2: sweep.workload.context_tokens: 64 stands here",
        ),
        (
            "sweep: {workload.context_tokens: [64], workloads.decode.context_tokens: [128]}",
            "sweep.workloads.decode.context_tokens: the key is swept twice",
        ),
    ],
)
def test_a_value_or_a_key_that_is_swept_twice_is_refused(tmp_path, lines, said):
    text = f"workload: {json.dumps(DECODE)}\n{lines}\nsystems: [hgx_h100]\n"
    assert said in refused(tmp_path, text)


def test_a_size_that_stands_twice_is_refused(tmp_path):
    text = "workload: {kind: collective, collective: all_reduce, message_bytes: [1e6, 1000000]}\nsystems: [hgx_h100]\n"
    assert "s.yaml:1: workload.message_bytes: 1000000 stands here twice. Leave one out." in refused(tmp_path, text)


def test_whole_numbers_that_steps_round_to_are_one_point_each():
    found = load_scenario(scenario(sweep={"workloads.sum.repeat": {"from": 1, "to": 3, "steps": 9}}))
    assert [run.spec.repeat for run in found.runs] == [1, 2, 3]


def test_a_name_that_looks_like_another_run_is_refused(tmp_path):
    text = (
        "workload: {kind: collective, collective: all_reduce, message_bytes: 1e6}\n"
        "systems:\n  - {system: hgx_h100, name: a/accelerators=4}\n  - {system: hgx_h100, name: a}\n"
        "sweep: {systems.1.accelerators: [4, 8]}\n"
    )
    said = refused(tmp_path, text)
    assert said.startswith("s.yaml:4: systems[1]: two runs would be called 'collective/a/accelerators=4'.")
    assert "another `name:`" in said


# the point


def test_a_point_has_whole_keys_and_values_as_they_were_given():
    sweep = {"workload.precision": [{"weights": "fp8"}, {"weights": "bf16"}], "systems[1].set.host.pue": [1.1, 1.25]}
    data = scenario(NAMED, sweep, decode=DECODE)
    first, *_, last = load_scenario(data).runs
    assert first.point == {"workloads.decode.precision": {"weights": "fp8"}}
    assert last.point == {"workloads.decode.precision": {"weights": "bf16"}, "systems.1.set.host.pue": 1.25}
    assert first.key == "decode/whole/precision={'weights': 'fp8'}"
    assert last.key == "decode/half/precision={'weights': 'bf16'},pue=1.25"


def test_a_key_of_one_system_repeats_no_run_of_another():
    for key in ("systems.1.accelerators", "systems[1].accelerators"):
        assert keys(scenario(NAMED, {key: [2, 4]})) == [
            "sum/whole",
            "sum/half/accelerators=2",
            "sum/half/accelerators=4",
        ]


# how it is spelled


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (8, "8"),
        (8.0, "8"),
        (1e6, "1000000"),
        (0.5, "0.5"),
        (1.15, "1.15"),
        (123456.7, "123456.7"),
        (1e-05, "1e-05"),
        (float("inf"), "inf"),
        (True, "True"),
        (None, "None"),
        ("best", "best"),
        ("topologies/mine.yaml", "topologies/mine.yaml"),
        ("8", '"8"'),
        ("True", '"True"'),
        ("a,b=c", '"a,b=c"'),
        (["a", 1], "['a', 1]"),
    ],
)
def test_values_are_spelled_exactly_and_as_short_as_that_allows(value, said):
    assert spelled(value) == said


def test_heads_are_short_and_tell_keys_apart():
    point = {"workloads.a.precision.weights": "fp8", "workloads.a.batch": 8, "systems.0.accelerators": 4, "faults": []}
    assert list(heads([point]).values()) == ["weights", "batch", "accelerators", "faults"]
    assert heads([point], taken=["accelerators"])["systems.0.accelerators"] == "system.accelerators"
    both = {"systems.1.faults": ["nic/0"], "faults": []}
    assert list(shown(both)) == ["system.faults", "scenario.faults"]
    assert set(heads([{"systems.0.accelerators": 4}, {"systems.1.accelerators": 8}]).values()) == {"accelerators"}
    # one of the run's own, one that stands in the file as a workload of that name
    assert len(set(shown({"workloads.batch": {}, "workloads.batch.batch": 8}))) == 2


def test_a_place_is_a_label_without_its_workload():
    one = Identity("w", Entry(3, "rack"), {"seed": 1})
    assert one.label == f"w/{place(one.entry, one.point)}" == "w/rack/seed=1"
    assert place(one.entry, {}) == "rack"
