"""A store of results: written as they come, whole whatever happens, read back as if they had been kept in memory."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cmsim
from cmsim import api, reading
from cmsim.errors import InputError
from cmsim.reading import names
from cmsim.results import FRAMES, Infeasible, Outcome, Result, Results, Store
from cmsim.scenario import load_scenario

ROOT = Path(__file__).resolve().parents[2]
DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 4096}
TRAIN = {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 2048, "global_batch": 8}
SUM = {"kind": "collective", "collective": "all_reduce", "message_bytes": [1e6, 1e8]}
SIZES = {**SUM, "message_bytes": [1e6 * (1 + number) for number in range(12)]}
#: kinds, plans and points that have few columns in common; one does not fit
MIXED: dict[str, Any] = {
    "systems": [{"system": "hgx_h100", "name": "small"}, "hgx_h200"],
    "workloads": {
        "sum": SUM,
        "serve": DECODE,
        "train": {**TRAIN, "parallel": {"tp": 4, "pp": "best"}, "recompute": "best"},
    },
    "sweep": {
        "workloads.serve.batch_per_accelerator": [8, 5000],
        "workloads.serve.precision": [{"weights": "fp8"}],
        "systems.0.accelerators": [8],
    },
}


def kept(scenario: dict[str, Any], store: Store | Path, **more: Any) -> list[Outcome]:
    return list(api.outcomes(scenario, store=store, **more))


def columns_of(result: Result) -> dict[str, dict[str, tuple[Any, list[Any]]]]:
    return {kind: {name: (c.dtype, c.tolist()) for name, c in result.columns[kind].items()} for kind in FRAMES}


def alike(one: Outcome, other: Outcome) -> bool:
    """Equal in everything that is not a frame."""
    return dataclasses.replace(one, columns={}) == dataclasses.replace(other, columns={}) if isinstance(
        one, Result
    ) and isinstance(other, Result) else one == other  # fmt: skip


def same(one: Store, other: Store) -> bool:
    pd.testing.assert_frame_equal(one.metrics(), other.metrics())
    assert all(alike(a, b) for a, b in zip(one.results(), other.results(), strict=True))
    return one.done() == other.done()


@pytest.mark.parametrize("record", ["full", "summary"])
def test_what_is_read_over_parts_is_what_was_kept_in_memory(record: Any, tmp_path: Path) -> None:
    scenario = {**MIXED, "record": record}
    memory = cmsim.run(scenario)
    assert len(memory.missing) == 2 and isinstance(memory.missing[0], Infeasible)
    came = kept(scenario, Store(tmp_path / "store", most_runs=3))
    assert [one.run for one in came] == [one.run for one in memory.outcomes]
    assert len(list((tmp_path / "store" / "runs").iterdir())) == 4
    store = Store(tmp_path / "store")
    order = api.digests(load_scenario(scenario))
    assert store.done() == set(order)
    pd.testing.assert_frame_equal(store.metrics(order), memory.metrics)
    for one, other in zip(memory.outcomes, store.results(order), strict=True):
        assert alike(one, other) and type(one) is type(other)
        if isinstance(one, Result) and isinstance(other, Result) and record == "full":
            assert columns_of(other) == columns_of(one)
            pd.testing.assert_frame_equal(other.power, one.power)
    again = Results(tuple(store.results(order)), memory.scenario, memory.manifest)
    for name, results in (("a", memory), ("b", again)):
        results.save(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_without_an_order_runs_stand_by_their_labels(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept({"systems": ["hgx_h100"], "workload": {**SUM, "message_bytes": [3e6, 1e6, 2e6]}}, store)
    assert store.metrics()["message_bytes"].tolist() == [1e6, 2e6, 3e6]
    assert [one.run for one in store.results()] == store.metrics()["run"].tolist()
    with pytest.raises(InputError, match="1 of the runs asked for are not in the store"):
        store.metrics(["0" * 64])


def test_an_empty_store_has_no_runs(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert store.done() == set() and store.metrics().empty and list(store.results()) == []
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match="not in the store"):
        list(store.results(["0" * 64]))


# going on


def test_runs_that_are_there_are_passed_over(tmp_path: Path) -> None:
    first = {"systems": ["hgx_h100"], "workload": {**SUM, "message_bytes": [1e6, 2e6]}}
    more = {"systems": ["hgx_h100"], "workload": {**SUM, "message_bytes": [1e6, 3e6, 2e6, 4e6]}}
    assert len(kept(first, tmp_path / "store")) == 2
    assert [one.point["workloads.collective.message_bytes"] for one in kept(more, tmp_path / "store", jobs=2)] == [
        3e6,
        4e6,
    ]
    assert kept(more, tmp_path / "store") == [] == kept(first, tmp_path / "store")
    assert len(Store(tmp_path / "store").done()) == 4


def test_what_was_done_is_there_where_bad_input_ends_a_sweep(tmp_path: Path) -> None:
    models = ["llama-3.1-8b", "no-such-model"]
    with pytest.raises(InputError, match="no-such-model"):
        kept({"systems": ["hgx_h100"], "workload": DECODE, "sweep": {"workload.model": models}}, tmp_path / "store")
    assert len(Store(tmp_path / "store").done()) == 1


KILLED = """
import json, sys
from cmsim import api, results
store = results.Store(sys.argv[1], most_runs=3)
for number, one in enumerate(api.outcomes(json.loads(sys.argv[2]), store=store), 1):
    print(one.run, flush=True)
    if number == int(sys.argv[3]):
        sys.stdin.read()
"""


def started(folder: Path, scenario: dict[str, Any], until: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), json.dumps(scenario), str(until)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_sweep_that_was_killed_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    scenario = {"systems": ["hgx_h100"], "workload": SIZES, "record": "summary"}
    running = started(tmp_path / "killed", scenario, 8)
    assert running.stdout is not None
    for _ in range(8):
        assert running.stdout.readline()
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    # two parts of three; what waited is lost, as is what a process was writing
    runs = tmp_path / "killed" / "runs"
    (runs / ".half.parquet.1.1.new").write_bytes(next(runs.iterdir()).read_bytes()[:100])
    assert len(Store(tmp_path / "killed").done()) == 6
    assert len(kept(scenario, tmp_path / "killed")) == 6
    kept(scenario, tmp_path / "at_once")
    assert same(Store(tmp_path / "killed"), Store(tmp_path / "at_once"))
    assert len(Store(tmp_path / "killed").metrics()) == 12


def test_two_processes_may_write_to_one_store(tmp_path: Path) -> None:
    """They know nothing of each other: what both make is there once."""
    scenario = {"systems": ["hgx_h100"], "workload": SIZES, "record": "summary"}
    other = {**scenario, "workload": {**SIZES, "message_bytes": SIZES["message_bytes"][::-1][:10]}}
    both = [started(tmp_path / "both", one, 0) for one in (scenario, other)]
    for one in both:
        one.communicate()
        assert one.returncode == 0
    kept(scenario, tmp_path / "one")
    assert same(Store(tmp_path / "both"), Store(tmp_path / "one"))


# parts


def made(number: int) -> Result:
    return Result(
        f"a/b/{number}", "a", "b", 1, 1, {"time_s": 1.0 + number}, {"name": "port", "fraction": 0.5}, "link", {}
    )


def test_a_part_holds_many_runs(tmp_path: Path) -> None:
    with Store(tmp_path / "store", clock=lambda: 0.0) as store:
        for number in range(1000):
            store.add(made(number), f"{number:x}")
    assert len(list((tmp_path / "store" / "runs").iterdir())) == 4
    assert len(store.metrics()) == 1000


def test_a_run_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    now_s = [0.0]
    store = Store(tmp_path / "store", most_s=10.0, clock=lambda: now_s[0])
    store.add(made(1), "1")
    now_s[0] = 9.0
    store.add(made(2), "2")
    assert not (tmp_path / "store").exists() and store.done() == {"1", "2"}
    now_s[0] = 10.0
    store.add(made(3), "3")
    assert Store(tmp_path / "store").done() == {"1", "2", "3"}
    store.add(made(4), "4")
    assert Store(tmp_path / "store").done() == {"1", "2", "3"}


def test_large_frames_do_not_wait(tmp_path: Path) -> None:
    import numpy as np

    large = {kind: {"start_ps": np.zeros(3_000_000, np.int64)} for kind in FRAMES}
    store = Store(tmp_path / "store", clock=lambda: 0.0)
    store.add(dataclasses.replace(made(1), columns=large), "1")
    assert Store(tmp_path / "store").done() == {"1"}


def test_whole_numbers_in_one_part_and_others_in_the_next_are_numbers(tmp_path: Path) -> None:
    both = [dataclasses.replace(made(0), metrics={"steps": 3}), dataclasses.replace(made(1), metrics={"steps": 2.5})]
    with Store(tmp_path / "store", most_runs=1) as store:
        for number, one in enumerate(both):
            store.add(one, str(number))
    pd.testing.assert_frame_equal(store.metrics(["0", "1"]), Results(both).metrics)


@pytest.mark.parametrize("name", ["a.txt", "store.json"])
def test_a_folder_of_something_else_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="holds something that is not a store of results"):
        api.outcomes(MIXED, store=tmp_path)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"schema_version": 99}')
    with pytest.raises(InputError, match="schema_version 99; this cmsim reads 1"):
        Store(tmp_path)


def test_a_part_that_is_damaged_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", most_runs=1)
    store.add(made(1), "1")
    path = next((tmp_path / "store" / "runs").iterdir())
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match=str(path)):
        store.done()


# digests


def digests(scenario: dict[str, Any], **more: Any) -> list[str]:
    return api.digests(load_scenario({"systems": ["hgx_h100"], "workload": DECODE, **scenario}, **more))


def test_a_digest_is_the_same_in_every_process() -> None:
    code = (
        "from cmsim import api, scenario; import sys, json; "
        "print(*api.digests(scenario.load_scenario(json.loads(sys.argv[1]))))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(MIXED)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        ).stdout.strip()
        for seed, folder in (("1", ROOT), ("2", ROOT / "docs"))
    }
    assert said == {" ".join(api.digests(load_scenario(MIXED)))}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"network": "ideal"},
        {"record": "summary"},
        {"exclusive": True},
        {"workload": {**DECODE, "context_tokens": 4097}},
        {"workload": {**DECODE, "microbatches": "best"}},
        {"systems": [{"system": "hgx_h100", "set": {"facility.pue": 1.3}}]},
        {"systems": [{"system": "hgx_h100", "name": "mine"}]},
        {"systems": [{"system": "hgx_h100", "accelerators": 4}]},
        {"perturb": {0: {"compute": 1.1}}},
        {"jitter": {"cv": 0.1}},
    ],
)
def test_what_a_result_follows_from_is_in_its_digest(change: dict[str, Any]) -> None:
    assert digests(change) != digests({})


def test_other_runs_of_its_scenario_are_not() -> None:
    (alone,) = digests({"sweep": {"workload.context_tokens": [4096]}})
    among = digests({"sweep": {"workload.context_tokens": [1024, 4096]}, "name": "x", "report": {"per": ["rack"]}})
    assert among[1] == alone


def test_what_files_say_is_in_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "config.json"
    shutil.copy(ROOT / "workloads/models/llama-3.1-8b.json", model)
    scenario = {"workload": {**DECODE, "model": str(model)}}
    before = digests(scenario)
    assert digests(scenario) == before
    model.write_text(model.read_text().replace('"vocab_size": 128256', '"vocab_size": 128000'))
    assert digests(scenario) != before
    for asked, built_in in (
        ({"cost": {"prices": "mine.yaml"}}, "costs/recalled_2025"),
        ({"cost": {"region": "mine.yaml"}}, "regions/norway"),
        ({"carbon": {"region": "mine.yaml"}}, "regions/norway"),
    ):
        mine = tmp_path / "mine.yaml"
        shutil.copy(ROOT / f"topologies/{built_in}.yaml", mine)
        asked = {key: {name: str(mine) for name in says} for key, says in asked.items()}
        before = digests(asked)
        mine.write_text(mine.read_text() + "\n# changed\n")
        assert digests(asked) != before
    # built-in ones too
    for folder in ("topologies", "workloads/models", "workloads/graphs", "workloads/denoisers"):
        shutil.copytree(reading.DATA / folder, tmp_path / folder)
    before = digests({})
    monkeypatch.setattr(names, "DATA", tmp_path)
    assert digests({}) == before
    path = next((tmp_path / "topologies/kernels").glob("h100*.yaml"))
    path.write_text(path.read_text() + "\n# changed\n")
    assert digests({}) != before
    before, sure = digests({}), digests({"uncertainty": {}})
    errors = tmp_path / "workloads/reference/errors.yaml"
    errors.parent.mkdir()
    errors.write_text("areas: {}\n")
    assert digests({}) == before
    assert digests({"uncertainty": {}}) != sure


def test_a_matrix_is_read(tmp_path: Path) -> None:
    matrix = tmp_path / "m.csv"
    sent = {"kind": "collective", "collective": "all_to_all", "matrix": str(matrix)}
    found = []
    for size in (1, 2):
        matrix.write_text("\n".join(",".join([str(size)] * 8) for _ in range(8)))
        found.append(digests({"workload": sent, "network": "flow"}))
    assert found[0] != found[1]


def test_a_store_that_another_process_begins_is_one(tmp_path: Path) -> None:
    """Its first file is written beside its place: there is nothing else yet."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".store.json.1.1.new").write_text("{")
    assert len(Store(tmp_path / "store").done()) == 0
    (tmp_path / "store" / "other.txt").write_text("x")
    with pytest.raises(InputError, match="not a store"):
        Store(tmp_path / "store")
