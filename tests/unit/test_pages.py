"""Every command that a page shows runs, as printed, in order, in an empty folder.

Files that a page has its reader write (a block below a line that ends with ``NAME``:) are taken from it. What only
the reader can have, a profile or a table of measurements, is stood in for by something of its kind.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

from cmsim.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/howto").glob("*.md")))
    # written by the program, about commands
    if path.name not in ("reference.md", "validity.md", "performance.md", "coverage.md")
]
#: takes longer than a test of every day should; each needs nothing of its page
SLOW = (
    "cmsim validate",
    "cmsim run scenarios/faults.yaml",
    "cmsim run scenarios/optics.yaml",
    "cmsim run scenarios/power_cap.yaml",
    "cmsim run scenarios/week_of_jobs.yaml",
    "cmsim run scenarios/service.yaml",
    "cmsim run scenarios/failing_service.yaml",
    "cmsim run failing_service",
    "cmsim run stragglers",
    "cmsim run same_megawatt",
    "cmsim plot tornado same_megawatt",
    "cmsim search llama2_13b_910b --axis pp=1",
    "cmsim calibrate serving my_benchmark.csv",
    "cmsim ui",
)
#: pages of many runs: their commands need what those before them wrote
LONG = ("docs/figures.md",)
#: what blocks of commands hold beside those of cmsim
OTHERS = ("make", "pip", "git")
#: ends a comment where a run gives a point that cannot be, and exit code 1
UNFIT = "does not fit"


class Step(NamedTuple):
    """Something a page asks for: a file to write (with its text), or a command."""

    line: int
    file: str = ""
    text: str = ""
    command: str = ""


def steps(page: str) -> Iterator[Step]:
    """What a page asks for, in order."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    at, before = 0, ""
    while at < len(lines):
        line = lines[at]
        if fence := re.match(r"( *)```([\w{}-]*)$", line):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            body = [one.removeprefix(fence[1]) for one in lines[at + 1 : end]]
            if name := re.search(r"`([\w./-]+)`:$", before.strip()):
                yield Step(at + 1, file=name[1], text="\n".join(body) + "\n")
            elif fence[2] in ("", "sh"):
                yield from (Step(at + 2 + i, command=one) for i, one in enumerate(body) if one.startswith("cmsim "))
            at = end + 1
            continue
        if line.startswith("    cmsim "):
            yield Step(at + 1, command=line.strip())
        else:  # in running text only what is whole: it names a file, or writes one
            whole = re.findall(r"`(cmsim \w[^`]*(?:\.yaml|--out)\b[^`]*)`", line)
            yield from (Step(at + 1, command=command) for command in whole)
        before = line if line.strip() else before
        at += 1


def needs(command: str) -> list[str]:
    return [word for word in shlex.split(command, comments=True) if word.rstrip("/") in YOURS]


# what only the reader has


def a_model(path: Path) -> None:
    """A model whose number of tokens is left open."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = helper.make_tensor("w", kind, [64, 64], np.zeros(64 * 64, np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "model",
        [helper.make_tensor_value_info("x", kind, [1, "tokens", 64])],
        [helper.make_tensor_value_info("y", kind, [1, "tokens", 64])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def a_table(path: Path) -> None:
    """Products of matrices that take 5 us, run at 600 TFLOP/s and move 2.5 TB/s."""
    import pandas as pd

    m, n, k = (axis.ravel() for axis in np.meshgrid(*[2 ** np.arange(6, 13)] * 3))
    time_us = 5 + 2.0 * m * n * k / 600e6 + 2.0 * (m * k + k * n + m * n) / 2.5e6
    pd.DataFrame({"m": m, "n": n, "k": k, "dtype": "bf16", "latency_us": time_us}).to_parquet(path)


def metered_runs(path: Path) -> None:
    """A few of ours, of two small models."""
    import pandas as pd

    rows = pd.read_csv(ROOT / "workloads/reference/power-under-load_runs.csv")
    rows[rows["family"].isin(["Qwen3-8B", "Llama-3.1-8B"]) & (rows["batch"] < 100)].to_csv(path, index=False)


def a_benchmark(path: Path) -> None:
    """A few rows of ours, of one engine on one system."""
    import pandas as pd

    rows = pd.read_csv(ROOT / "workloads/reference/serving_measured.csv")
    mine = (
        (rows["backend"] == "vllm")
        & (rows["system"] == "h100_sxm")
        & rows["silicon_data_source"].str.contains("=(?:4|8|16);")
    )
    rows[mine].head(8).to_csv(path, index=False)


def of_ours(source: str) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, path)

    return put


YOURS: dict[str, Callable[[Path], None]] = {
    "model.onnx": a_model,
    "gemm.parquet": a_table,
    "metered_runs.csv": metered_runs,
    "my_benchmark.csv": a_benchmark,
    "topologies/my_rack.yaml": of_ours("topologies/gb200_nvl72.yaml"),
    "worker0.pt.trace.json.gz": of_ours("workloads/traces/kineto/dlrm_8gpu/worker0.pt.trace.json.gz"),
    "run_ascend_pt": of_ours("workloads/traces/ascend/alexnet_ddp_level1"),
}


def run(command: str) -> None:
    """Run a command as it is printed; the exit code is that of what its comment says."""
    words = shlex.split(command, comments=True)
    done = CliRunner().invoke(app, words[1:])
    said = done.output if done.exception is None or isinstance(done.exception, SystemExit) else repr(done.exception)
    expected = 1 if UNFIT in command.partition("#")[2] else 0
    assert done.exit_code == expected, f"{command}\n{said}"


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page in LONG)) for page in PAGES if any(steps(page))]
)
def test_commands_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests" / "cases" / "launch" / "training" / "01.sh", "train.sh")  # what a reader has
    for path in {name.rstrip("/") for step in steps(page) for name in needs(step.command)}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        YOURS[path](tmp_path / path)
    # a command may stand before the file that it reads
    for step in steps(page):
        if step.file:
            Path(step.file).write_text(step.text, encoding="utf-8")
    for step in steps(page):
        if step.command and not (page not in LONG and step.command.startswith(SLOW)):
            run(step.command)


@pytest.mark.slow
@pytest.mark.parametrize("command", SLOW)
def test_slow_commands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert any(step.command.startswith(command) for page in PAGES for step in steps(page)), "no page shows it"
    for name in needs(command):
        YOURS[name](tmp_path / name)
    # a server listens, and is ended before anybody comes; tests/unit/test_ui_page.py goes on
    monkeypatch.setattr("cmsim.ui.page.run", lambda server: (server.start(), server.stop()))
    run(command)


def test_pages_hold_what_this_looks_for():
    found = {page: [step.command.split("#")[0].strip() for step in steps(page) if step.command] for page in PAGES}
    assert len(found["README.md"]) == 13 and found["README.md"][0].startswith("cmsim run scenarios/headline.yaml")
    assert {step.file for step in steps("docs/howto/choose-a-plan.md")} == {"", "plan.yaml"}
    assert {step.file for step in steps("docs/tutorial.md")} == {"", "serve.yaml", "slow.csv"}
    assert "cmsim run scenarios/faults.yaml" in found["docs/howto/break-a-fabric.md"]
    assert sum(map(len, found.values())) >= 30
    used = {name.rstrip("/") for page in PAGES for step in steps(page) for name in needs(step.command)}
    assert used == YOURS.keys(), "something stands in for what no page names"


def test_every_line_of_a_block_of_commands_is_one():
    for page in PAGES:
        for block in re.findall(r"^ *```\n(.*?)^ *```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S):
            lines = [line.strip() for line in block.splitlines() if line.strip()]
            if lines[0].startswith("cmsim "):
                assert all(line.startswith(("cmsim ", *OTHERS)) for line in lines), f"{page}: {block}"
