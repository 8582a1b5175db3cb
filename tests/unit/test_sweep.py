"""Sweeps into a folder: whole at any moment, gone on with, written to by one process, the same bytes however made."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cmsim
from cmsim import results, sweep
from cmsim.cli import app
from cmsim.errors import InputError
from cmsim.sweep import points

SCENARIO: dict[str, Any] = {
    "name": "small",
    "systems": ["hgx_h100"],
    "workload": {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 1024},
    "sweep": {"workload.batch_per_accelerator": [1, 8, 64], "workload.context_tokens": [512, 65536]},
}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    sweep.sweep(SCENARIO, out=folder, jobs=1)
    return folder


def stopped(after: int):
    """A progress that stops a sweep after so many points."""

    def told(standing: sweep.Standing) -> None:
        if standing.done >= after:
            raise KeyboardInterrupt

    return told


def test_the_folder_says_what_runs_say(whole: Path):
    found, run = cmsim.Results.load(whole), cmsim.run(SCENARIO, record="summary")
    assert [one.run for one in found.outcomes] == [one.run for one in run.outcomes]
    assert [one.outcome for one in found.missing] == ["infeasible"]
    pd.testing.assert_frame_equal(found.metrics, run.metrics)
    tidy = pd.read_parquet(whole / "metrics.parquet")
    assert tidy["tpot_s"].tolist()[:5] == run.metrics["tpot_s"].tolist()[:5]
    assert tidy["outcome"].tolist() == ["result"] * 5 + ["infeasible"]
    assert found.manifest["scenario_text"] == run.manifest["scenario_text"]


@pytest.mark.parametrize("after", [1, 4])
def test_a_sweep_that_was_ended_goes_on(whole: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(SCENARIO, out=out, jobs=1, progress=stopped(after))
    with pytest.raises(InputError, match=f"has {after} points of a sweep. Go on with --resume"):
        sweep.sweep(SCENARIO, out=out)
    ran: list[str] = []
    several = points.several
    monkeypatch.setattr(
        points, "several", lambda base, some: ran.extend(one.key for one in some) or several(base, some)
    )
    sweep.sweep(SCENARIO, out=out, jobs=1, resume=True)
    assert len(ran) == 6 - after
    assert bytes_of(out) == bytes_of(whole)


def test_a_line_that_a_process_was_killed_in_is_none(whole: Path, tmp_path: Path):
    out = tmp_path / "out"
    store = results.Store(out, sole=True)
    loaded = cmsim.load_scenario(SCENARIO).recorded("summary")
    from cmsim import api

    digests = api.digests(loaded)
    for digest, one in zip(digests[:2], loaded.runs[:2], strict=True):
        store.add(api.evaluate(one), digest)
    noted = out / "waiting.jsonl"
    assert len(noted.read_bytes().splitlines()) == 2  # on disk although nobody flushed
    with noted.open("ab") as file:
        file.write(b'{"digest": "cut')
    done = sweep.sweep(SCENARIO, out=out, jobs=1, resume=True)
    assert len(done.outcomes) == 6 and bytes_of(out) == bytes_of(whole)


def test_frames_settle_too(tmp_path: Path):
    few = {**SCENARIO, "sweep": {"workload.batch_per_accelerator": [1, 8, 64]}}
    one, two = tmp_path / "one", tmp_path / "two"
    sweep.sweep(few, out=one, record="full", jobs=1)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(few, out=two, record="full", jobs=1, progress=stopped(1))
    found = sweep.sweep(few, out=two, record="full", resume=True)
    assert bytes_of(one) == bytes_of(two)
    pd.testing.assert_frame_equal(found.ops, cmsim.run(few).ops)


def test_a_wider_sweep_runs_what_is_new(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    sweep.sweep({**SCENARIO, "sweep": {**SCENARIO["sweep"], "workload.context_tokens": [512]}}, out=out, jobs=1)
    told: list[sweep.Standing] = []
    sweep.sweep(SCENARIO, out=out, jobs=1, resume=True, progress=lambda standing: told.append(standing))
    assert told[-1].found == 3 and told[-1].done == 6
    assert bytes_of(out) == bytes_of(whole)
    with pytest.raises(InputError, match="has 6 points that this scenario does not have"):
        sweep.sweep(SCENARIO, out=out, record="none", resume=True)


def test_what_is_wrong_at_a_point_fails_that_point(tmp_path: Path):
    swept = {"workload.model": ["no-such-model", "llama-3.1-8b"], "workload.batch_per_accelerator": [1, 8, 64]}
    found = sweep.sweep({**SCENARIO, "sweep": swept}, out=tmp_path / "out", jobs=1)
    assert [one.outcome for one in found.missing] == ["failed"] * 3
    assert all("no model named 'no-such-model'" in one.message for one in found.missing)
    assert len(found.results) == 3


def test_a_cap_that_is_too_low_is_one_outcome_among_others(tmp_path: Path):
    swept = {"workload.power.cap_W": [100, 5000]}
    found = sweep.sweep({**SCENARIO, "sweep": swept}, out=tmp_path / "out", jobs=1)
    assert [one.outcome for one in found.missing] == ["infeasible"] and len(found.results) == 1


def test_a_price_that_nobody_has_is_said_before_anything_is_run(tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="has no price of tpu_v4"):
        sweep.sweep({**SCENARIO, "systems": ["tpu_v4_pod"], "cost": {}}, out=out)
    assert not out.exists()


def test_a_second_sweep_on_a_folder_is_refused(tmp_path: Path):
    out = tmp_path / "out"

    def told(standing: sweep.Standing) -> None:
        if standing.done == 1:
            with pytest.raises(InputError, match="another sweep is writing to it"):
                sweep.sweep(SCENARIO, out=out, resume=True)

    assert len(sweep.sweep(SCENARIO, out=out, jobs=1, progress=told).outcomes) == 6


def test_a_full_disk_leaves_what_is_there(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(SCENARIO, out=out, jobs=1, progress=stopped(2))
    before = bytes_of(out)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
            sweep.sweep(SCENARIO, out=out, jobs=1, resume=True)
    assert bytes_of(out).keys() >= before.keys()
    sweep.sweep(SCENARIO, out=out, jobs=1, resume=True)
    assert bytes_of(out) == bytes_of(whole)


@pytest.mark.parametrize("what", ["file", "other"])
def test_folders_of_others_are_left_alone(tmp_path: Path, what: str):
    out = tmp_path / "out"
    if what == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is no folder|holds something that is not a store"):
        sweep.sweep(SCENARIO, out=out)
    assert (out if what == "file" else out / "mine.txt").read_text() == "mine"


def test_a_folder_that_is_not_at_its_end_says_so(tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(SCENARIO, out=out, jobs=1, progress=stopped(2))
    with pytest.raises(InputError, match="holds 2 runs of a sweep that has not come to its end"):
        cmsim.Results.load(out)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(SCENARIO))
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        app.app(["sweep", str(file), "--out", str(out), "--jobs", "1"])
    said = capsys.readouterr()
    assert ended.value.code == 1  # one point does not fit
    assert "6 points in" in said.err and "5 results, 1 infeasible; wrote" in said.err
    with pytest.raises(SystemExit):
        app.app(["sweep", str(file), "--out", str(out), "--resume", "--json"])
    said = capsys.readouterr()
    assert {"points": 6, "found": 6, "results": 5}.items() <= json.loads(said.out).items()


KILLED = """
import json, sys
from pathlib import Path
from cmsim import sweep
if __name__ == "__main__":
    sweep.sweep(json.loads(Path(sys.argv[1]).read_text()), out=sys.argv[2], jobs=1, resume=True,
                progress=lambda standing: print(standing.done, flush=True))
"""


def test_a_sweep_that_is_killed_three_times(whole: Path, tmp_path: Path):
    file, out, draw = tmp_path / "small.json", tmp_path / "out", random.Random(0)
    file.write_text(json.dumps(SCENARIO))
    command = [sys.executable, "-c", KILLED, str(file), str(out)]
    for after in (0, 1, 3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > after:
                break
        time.sleep(draw.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    sweep.sweep(SCENARIO, out=out, jobs=1, resume=True)
    assert bytes_of(out) == bytes_of(whole)


def test_no_scheduler_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(points, "PATIENCE_s", 0.2)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        sweep.sweep(SCENARIO, out=tmp_path / "out", dask="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"got 'nonsense'.*Allowed: the address of a Dask scheduler"):
        sweep.sweep(SCENARIO, out=tmp_path / "out", dask="nonsense")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the library's own
def test_a_cluster_that_loses_a_worker(whole: Path, tmp_path: Path):
    distributed = pytest.importorskip("distributed")
    out, killed = tmp_path / "out", []
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:

        def told(standing: sweep.Standing) -> None:
            if standing.done == 1 and not killed:
                worker = next(iter(cluster.workers.values()))
                killed.append(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)

        sweep.sweep(SCENARIO, out=out, dask=cluster.scheduler_address, progress=told)
    assert killed and bytes_of(out) == bytes_of(whole)


LARGE: dict[str, Any] = {
    **SCENARIO,
    "sweep": {
        "workload.batch_per_accelerator": {"from": 1, "to": 100_000, "steps": 20_000, "scale": "log"},
        "workload.parallel.tp": [1, 2, 4, 8],
        "workload.context_tokens": [512, 1024, 2048, 4096, 8192, 16384],
        "where": "workload.batch_per_accelerator < 50000",
    },
}


def test_points_are_drawn_from_what_nobody_lists(tmp_path: Path):
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match="runs: workloads x systems x points"):
        cmsim.load_scenario(LARGE)
    one, two = tmp_path / "one", tmp_path / "two"
    found = sweep.study(LARGE, trials=12, out=one, objective="energy_per_token_J")
    assert len(found.outcomes) == 12 and len({run.run for run in found.outcomes}) == 12
    assert all(run.point["workloads.decode.batch_per_accelerator"] < 50_000 for run in found.outcomes)
    with pytest.raises(KeyboardInterrupt):
        sweep.study(LARGE, trials=12, out=two, objective="energy_per_token_J", progress=stopped(5))
    sweep.study(LARGE, trials=12, out=two, objective="energy_per_token_J", resume=True)
    assert bytes_of(one) == bytes_of(two)
    with pytest.raises(InputError, match=r"has .* points that this scenario does not have"):
        sweep.study(LARGE, trials=3, out=two, objective="energy_per_token_J", resume=True)


def test_a_small_space_ends_when_all_is_drawn(tmp_path: Path):
    pytest.importorskip("optuna")
    few = {**SCENARIO, "sweep": {"workload.batch_per_accelerator": [1, 8], "workload.context_tokens": [512, 65536]}}
    assert len(sweep.study(few, trials=50, out=tmp_path / "out").outcomes) == 4


@pytest.mark.parametrize(
    ("changed", "objective", "said"),
    [
        ({"systems": ["hgx_h100", "hgx_h200"]}, None, "points are drawn for one of them, got hgx_h100, hgx_h200"),
        ({"sweep": {}}, None, "has no `sweep` to draw from"),
        ({}, "beauty", "--objective: got 'beauty'. Allowed: "),
    ],
)
def test_what_cannot_be_drawn_from(tmp_path: Path, changed: dict[str, Any], objective: str | None, said: str):
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match=said):
        sweep.study({**SCENARIO, **changed}, trials=3, out=tmp_path / "out", objective=objective)
