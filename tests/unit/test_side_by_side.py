"""Runs over processes: the bytes of one process, in their order; and what happens where one of them cannot go on."""

from __future__ import annotations

import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cmsim
from cmsim import api, side_by_side
from cmsim.errors import FailedError, InfeasibleError, InputError, Problem

ROOT = Path(__file__).resolve().parents[2]
DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 4096}
TRAIN = {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 2048, "global_batch": 8}
SUM = {"kind": "collective", "collective": "all_reduce", "message_bytes": [1e6, 1e8]}
#: unlike in kind and length; one does not fit, one is no plan
MIXED: dict[str, Any] = {
    "systems": ["hgx_h100", {"system": "cloudmatrix384", "accelerators": 16}],
    "workloads": {
        "serve": DECODE,
        "train": {**TRAIN, "parallel": {"tp": 4, "pp": "best"}, "per_system": {"cloudmatrix384": {"ranks": 6}}},
        "sum": SUM,
    },
    "sweep": {"workloads.serve.batch_per_accelerator": [8, 5000, 16]},
}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("many", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_one_and_several_processes_write_the_same_bytes(many: int, tmp_path: Path) -> None:
    for jobs in (1, many):
        results = cmsim.run(MIXED, jobs=jobs, out=tmp_path / str(jobs))
        assert {one.outcome for one in results.missing} == {"infeasible"}
    first = files(tmp_path / "1")
    assert len(first) == 5 and files(tmp_path / str(many)) == first


def test_processes_are_started_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "cores", lambda: 2)
    assert side_by_side._pays(2, 4.0, 10) and not side_by_side._pays(2, 0.5, 1000)  # as long as nothing is known
    assert not side_by_side._pays(2, 4.0, 2)  # soon through
    monkeypatch.setattr(side_by_side, "cores", lambda: 1)
    assert not side_by_side._pays(2, 4.0, 10)


def test_bad_input_says_the_same_after_the_same_results() -> None:
    scenario = {
        "systems": ["hgx_h100"],
        "workload": DECODE,
        "sweep": {"workload.model": ["llama-3.1-8b", "llama-3.1-70b", "no-such-model", "nor-this"]},
    }
    said = []
    for jobs in (1, 2):
        came = []
        with pytest.raises(InputError, match="no-such-model") as caught:
            came.extend(one.run for one in api.outcomes(scenario, jobs=jobs) if not came.append(one.run))
        said.append((came, caught.value.problems))
    assert said[0] == said[1] and len(said[0][0]) == 4


@pytest.mark.parametrize(
    "error",
    [
        InputError([Problem("wrong", "a.yaml", 3, "x.y"), Problem("worse", "b.yaml")]),
        InfeasibleError("too large", {"needed_B": 2.0, "available_B": 1.0}),
        FailedError("ranks wait"),
    ],
)
def test_errors_pass_between_processes_whole(error: cmsim.CmsimError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.problems) == (type(error), str(error), error.problems)
    assert vars(again) == vars(error)


# the work of processes


def double(number: int) -> int:
    return 2 * number


def marked(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    return number


def ended(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def broken(number: int) -> int:
    assert number != 5, "a bug of ours"
    return number


def test_answers_come_in_the_order_of_the_items() -> None:
    numbers = list(range(50))
    for jobs in (1, 2, None):
        assert list(side_by_side.in_order(double, double, numbers, jobs)) == [2 * number for number in numbers]
    assert list(side_by_side.in_order(double, double, [], 2)) == []


def test_a_process_that_is_killed_is_said() -> None:
    with pytest.raises(FailedError, match="ended from outside, or had no memory left"):
        list(side_by_side.in_order(ended, ended, list(range(20)), 2))


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(AssertionError, match="a bug of ours"):
        list(side_by_side.in_order(broken, broken, list(range(20)), 2))


def test_nobody_works_on_for_a_reader_who_has_left(tmp_path: Path) -> None:
    work = functools.partial(marked, tmp_path)
    answers = side_by_side.in_order(work, work, list(range(1000)), 2)
    assert next(answers) == 0
    answers.close()
    assert len(list(tmp_path.iterdir())) <= 16 * 3 * 2


class Clock:
    """Time that passes where somebody works."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def work(self, took_s: float) -> float:
        self.now_s += took_s
        return took_s


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_than_a_moment_of_work_is_in_hand(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    monkeypatch.setattr(side_by_side, "time", clock := Clock())
    monkeypatch.setattr(side_by_side, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(side_by_side, "_STOP", [threading.Event()])

    def sizes(took_s: list[float]) -> list[int]:
        out: list[int] = []

        def work(packet: Any) -> list[float]:
            out.append(len(packet))
            return [clock.work(one) for one in packet]

        assert list(side_by_side.in_packets(work, work, took_s, jobs)) == took_s
        return out

    assert sizes([3.0] * 100) == [1] * 100
    quick = sizes([1e-3] * 800)
    if jobs == 1:
        assert quick == [1, 1, 2, 4, 8, 16, 32, *[64] * 11, 32]
    else:  # of those under way nothing was known
        assert quick[:6] == [1] * 6 and max(quick) == 64
    # one that was refused at once says little of others
    assert max(sizes([1e-6] + [3.0] * 100)) == 1


@pytest.mark.parametrize(
    ("each_s", "count", "cores", "here"),
    [
        (0.001, 100, 2, 100),  # over before a process had started
        (0.5, 6, 2, 6),  # 2 s are left after 1 s: to start two takes half of what they gain
        (0.5, 100, 1, 100),
        (0.5, 100, 2, 2),
        (0.01, 10_000, 2, 100),
        (100.0, 2, 2, 2),  # nothing to share out
        (100.0, 3, 2, 1),
    ],
)
def test_processes_start_where_that_pays(
    monkeypatch: pytest.MonkeyPatch, each_s: float, count: int, cores: int, here: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(side_by_side, "time", clock)
    monkeypatch.setattr(side_by_side, "cores", lambda: cores)
    spread: list[int] = []

    def elsewhere(_: Any, items: list[float], jobs: int, *__: Any) -> list[float]:
        spread.extend((len(items), jobs))
        return items

    monkeypatch.setattr(side_by_side, "_spread", elsewhere)
    assert list(side_by_side.in_order(clock.work, clock.work, [each_s] * count, None)) == [each_s] * count
    assert spread == ([] if here == count else [count - here, min(cores, count - here)])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs to see processes start")
def test_a_stop_from_the_keyboard_leaves_nothing(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    batches = {"from": 1, "to": 1000, "steps": 1000}
    scenario.write_text(
        json.dumps({"systems": ["hgx_h100"], "workload": DECODE, "sweep": {"workload.batch_per_accelerator": batches}})
    )
    running = subprocess.Popen(
        [sys.executable, "-m", "cmsim", "run", str(scenario), "--out", str(tmp_path / "out"), "--jobs", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    while running.poll() is None and len(children.read_text().split()) < 3:  # two, and what looks after their locks
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=60)
    assert running.returncode not in (0, None) and "Traceback" not in said[1], said
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]
