"""Several runs in one process: threads, workers and a page may share it, and files may change under it.

Run as a program, this file writes the digest of a scenario: `python test_shared_process.py '{...}'`.
"""

from __future__ import annotations

import ast
import dataclasses
import gc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cmsim
from cmsim import api, collector, engine, libraries, reading
from cmsim.calibration.kernels import predict_kernels
from cmsim.reading import kept, names
from cmsim.scenario import load_scenario
from cmsim.workload import generate

ROOT = Path(__file__).resolve().parents[2]

DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 4, "context_tokens": 1024}
EXPERTS = {"kind": "decode", "model": "deepseek-r1", "batch_per_accelerator": 16, "context_tokens": 4096}
TRAIN = {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 2048, "global_batch": 8}
#: unlike in system, kind, network and what is drawn, so that each asks for files and constants of its own
EIGHT: tuple[dict[str, Any], ...] = (
    {"systems": ["hgx_h20"], "workload": DECODE},  # has a relative's constants, and says so
    {"systems": ["gb200_nvl72"], "workload": {**EXPERTS, "parallel": {"ep": 72}}},
    {"systems": ["cloudmatrix384"], "workload": {**EXPERTS, "parallel": {"ep": 256}, "precision": {"weights": "int8"}}},
    {"systems": [{"system": "hgx_h100", "domains": 2}], "workload": {**TRAIN, "parallel": {"tp": 4, "pp": 2, "dp": 2}}},
    {"systems": ["hgx_a100"], "workload": {**TRAIN, "parallel": {"tp": 2, "pp": 4}}, "jitter": {"cv": 0.1}, "seed": 3},
    {
        "systems": ["tpu_v4_pod"],
        "workload": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e8},
    },
    {
        "systems": [{"system": "hgx_h800", "domains": 4}],
        "network": "flow",
        "routing": "hashed",
        "workload": {"kind": "collective", "collective": "all_to_all", "message_bytes": [1e6, 1e7]},
    },
    {
        "systems": ["mi300x_8"],
        "workload": {"kind": "prefill", "model": "llama-3.1-70b", "batch_per_accelerator": 1, "prompt_tokens": 2048},
    },
)

GEMM = "topologies/kernels/h100_sxm_gemm.yaml"


def digest(scenario: dict[str, Any]) -> str:
    """Of everything that a scenario's runs leave: metrics, bounds, notes and every column of every frame."""
    done = hashlib.sha256()
    for result in cmsim.run(scenario):
        done.update(json.dumps(result.summary()).encode())
        for frame, columns in result.columns.items():
            for name, column in columns.items():
                data = "\0".join(map(str, column.tolist())).encode() if column.dtype == object else column.tobytes()
                done.update(f"{frame}/{name}/{column.dtype}".encode() + data)
    return done.hexdigest()


@pytest.mark.parametrize("many", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_threads_give_the_bytes_of_processes(many: int) -> None:
    asked = EIGHT[-many:]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps(one)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for one in asked
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # take turns often
    try:
        with ThreadPoolExecutor(many) as pool:
            together = list(pool.map(digest, asked * 3))
    finally:
        sys.setswitchinterval(interval)
        alone = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * many
    assert len(set(alone)) == many
    assert together == alone * 3
    assert gc.isenabled()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Built-in files that may be edited."""
    shutil.copytree(reading.DATA / "topologies", tmp_path / "topologies")
    shutil.copytree(reading.DATA / "workloads" / "models", tmp_path / "workloads" / "models")
    monkeypatch.setattr(names, "DATA", tmp_path)
    return tmp_path


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("topologies/hgx_h100.yaml", "{pue: 1.15", "{pue: 1.25"),
        ("topologies/accelerators/h100_sxm.yaml", "memory_GBps: 3350", "memory_GBps: 3150"),
        (GEMM, "memory: 0.", "memory: 0.1"),
        (GEMM.replace(".yaml", ".csv"), "bfloat16", "bfloat17"),
    ],
)
def test_a_file_edited_between_two_runs_is_read_again(data: Path, file: str, old: str, new: str) -> None:
    scenario = {"systems": ["hgx_h100"], "workload": DECODE}
    before = digest(scenario)
    assert digest(scenario) == before
    text = (data / file).read_bytes()
    replaced(data / file, old, new)
    assert digest(scenario) != before
    (data / file).write_bytes(text)
    assert digest(scenario) == before


def test_a_new_alias_is_known_at_once(data: Path) -> None:
    with pytest.raises(cmsim.CmsimError, match="no system named 'hopper_box'"):
        cmsim.load_system("hopper_box")
    replaced(data / "topologies/hgx_h100.yaml", "aliases: [", "aliases: [hopper_box, ")
    assert cmsim.load_system("hopper_box").name == "hgx_h100"


def test_constants_of_a_library_are_read_again(data: Path) -> None:
    first = libraries.ring_library()
    assert libraries.ring_library() is first  # kept: nobody edited anything
    path = next((data / "topologies/libraries").glob("nccl*.yaml"))
    replaced(path, f"description: {first.description}", "description: mine")
    assert libraries.ring_library().description == "mine"


def test_what_is_kept_is_bounded_and_read_once_a_state(data: Path) -> None:
    read: list[str] = []

    @kept.while_unchanged("topologies/stacks", most=2)
    def asked(name: str) -> str:
        read.append(name)
        return name

    assert [asked(name) for name in "abab"] == list("abab")
    assert read == ["a", "b"]
    assert asked("c") == "c"
    assert [asked(name) for name in "ab"] == ["a", "b"]
    assert read == ["a", "b", "c", "a", "b"]
    (data / "topologies/stacks/more.yaml").write_text("name: more\n")
    asked("b")
    assert read[-1] == "b" and len(read) == 6


@dataclasses.dataclass(frozen=True)
class Record:
    column: Any
    name: str = ""


def test_what_follows_from_equal_arrays_is_worked_out_once() -> None:
    worked: list[str] = []

    @kept.while_equal(most=2, most_B=80)
    def asked(record: Record, numbers: Any, word: str = "") -> str:
        worked.append(record.name)
        return f"{record.name}{sum(numbers)}{word}"

    ones, twos = np.ones(3), np.full(3, 2.0)
    assert asked(Record(ones, "a"), [1]) == asked(Record(ones.copy(), "a"), [1]) == "a1"
    assert worked == ["a"]
    unlike = [
        lambda: asked(Record(twos, "a"), [1]),
        lambda: asked(Record(ones.astype(np.int64), "a"), [1]),
        lambda: asked(Record(ones.reshape(1, 3), "a"), [1]),
        lambda: asked(Record(ones, "b"), [1]),
        lambda: asked(Record(ones, "a"), (1,)),
        lambda: asked(Record(ones, "a"), [2]),
        lambda: asked(Record(ones, "a"), [1], "x"),
        lambda: asked(Record(ones, "a"), [1], word="x"),
        lambda: asked(Record(ones, "a"), [1]),  # two are kept
    ]
    for number, ask in enumerate(unlike, 2):
        ask()
        assert len(worked) == number
    for _ in range(2):
        asked(Record(np.ones(11), "large"), [1])
    assert worked[-2:] == ["large"] * 2


def test_the_collector_is_on_again_whoever_leaves_first() -> None:
    """The order that left it off: two come, the one that found it on leaves last of all but never put it on."""
    assert gc.isenabled()
    first, second = collector.paused(), collector.paused()
    first.__enter__()
    assert not gc.isenabled()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not gc.isenabled()  # the second still counts on it
    second.__exit__(None, None, None)
    assert gc.isenabled()


def test_the_collector_stays_off_for_whoever_put_it_off() -> None:
    gc.disable()
    try:
        with collector.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_in_many_threads() -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for _ in range(20):
            with collector.paused():
                assert not gc.isenabled(), number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert gc.isenabled()


def test_a_plan_says_how_it_was_priced_and_warns_nobody() -> None:
    """Warnings are errors here."""
    one = load_scenario({"systems": ["hgx_h20"], "workload": DECODE}).runs[0]
    where = api.system(one)
    programs = generate.programs(one.spec, where)
    made = engine.plan(programs, where, api.options_of(one, where))
    assert any("constants of h100_sxm" in note for note in made.notes)
    _, notes = engine.hold_s(programs, where, api.options_of(one, where))
    assert notes == made.notes
    said = cmsim.run({"systems": ["hgx_h20"], "workload": DECODE})[0].warnings
    assert said[-len(notes) :] == notes


def test_a_public_function_warns_each_time_it_is_asked() -> None:
    import pandas as pd

    rows = pd.DataFrame([{"m": 64, "n": 4096, "k": 4096, "dtype": "bf16"}])
    for _ in range(2):
        with pytest.warns(cmsim.errors.CmsimWarning, match="constants of h100_sxm"):
            predict_kernels(rows, "gemm", system="h20")


#: modules whose state is that of the whole process, and the only files that may touch it
MODULES = {
    "warnings": {"errors.py", "cli/app.py"},
    "gc": {"collector.py"},
    "random": set[str](),
    "locale": set[str](),
    "matplotlib.pyplot": set[str](),
}
#: names that change it; a cache without a bound, by name, keeps what was read from files that are edited since
NAMES = {
    *("functools.cache", "np.seterr", "matplotlib.use", "matplotlib.rcParams", "pd.set_option"),
    *("os.chdir", "os.putenv", "os.umask", "sys.setrecursionlimit", "socket.setdefaulttimeout"),
}
#: of numpy.random what is a generator of one's own
GENERATORS = {"default_rng", "Generator", "Philox", "SFC64", "SeedSequence"}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of names and attributes, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner else ""


def touches(node: ast.AST, file: str) -> str:
    """What a node says to the whole process, if anything."""
    if isinstance(node, ast.Global):
        return f"global {', '.join(node.names)}"
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [one.name for one in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [str(node.module), *(f"{node.module}.{one.name}" for one in node.names)]
    elif isinstance(node, ast.Attribute):
        name = dotted(node)
        if name.startswith("np.random.") and name.split(".")[2] not in GENERATORS:
            return name
        names = [name]
    elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return f"{dotted(node.value)}[...] =" if dotted(node.value) == "os.environ" else ""
    return next((one for one in names if one in NAMES or (one in MODULES and file not in MODULES[one])), "")


def test_nothing_touches_the_whole_process() -> None:
    wrong = []
    words = re.compile(
        "|".join(sorted({"global ", "os.environ", "random", *MODULES, *(one.split(".")[-1] for one in NAMES)}))
    )
    for path in sorted((ROOT / "cmsim").rglob("*.py")):
        file, text = path.relative_to(ROOT / "cmsim").as_posix(), path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if words.search(text) else ():
            if said := touches(node, file):
                wrong.append(f"{file}:{node.lineno}: {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "import warnings",
        "from gc import disable",
        "import matplotlib.pyplot as plt",
        "from matplotlib import pyplot",
        "np.random.seed(0)",
        "def f():\n  global x\n  x = 1",
        "@functools.cache\ndef f(): ...",
        "os.environ['A'] = 'b'",
        "os.chdir('/')",
    ],
)
def test_what_touches_the_whole_process_is_seen(line: str) -> None:
    assert any(touches(node, "room/page.py") for node in ast.walk(ast.parse(line)))


if __name__ == "__main__":
    sys.stdout.write(digest(json.loads(sys.argv[1])))
