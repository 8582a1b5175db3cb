"""The pages of benchmarks: what they say of figures, and that those in docs are the ones that would be written."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench():
    return load("run")


def line(bench, name, wall_s, peak_MB=100.0):
    (found,) = (one for one in bench.BENCHMARKS if one.name == name)
    beside = [bench.Measured(0.25, 0.3, 50.0, 0.25)] if found.beside else []
    return bench.Line(found, [bench.Measured(wall_s, wall_s, peak_MB, wall_s)], beside)


def test_pages_in_docs_are_those_of_the_notes(bench):
    folder = ROOT / "docs" / "performance"
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert there == bench.pages(), "run `python benchmarks/run.py --pages` and read the difference"


def test_the_page_in_docs_is_of_these_benchmarks(bench):
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| (\w+) \|", page, re.M)) & {one.name for one in bench.BENCHMARKS}
    assert len(named) >= 20
    blocks = re.split(r"^## ", page, flags=re.M)[1:-1]
    assert [block.partition("\n")[0] for block in blocks] == [title for title, _ in bench.GROUPS.values()]
    assert all(len(re.findall(r"^- \*\*", block, re.M)) == 5 for block in blocks)
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) >= 3 and all((ROOT / "docs" / link).is_file() for link in links)


def test_five_lines_of_a_group(bench):
    lines = [line(bench, "start", 0.4), line(bench, "headline", 9.0, 500.0), line(bench, "flow_ring_384", 0.4)]
    page = bench.page(lines, 1, [("processor", "one")])
    runs, flow, machine = re.split(r"^## ", page, flags=re.M)[1:]
    assert "medians from 0.40 s (start) to 9.00 s (headline)" in runs
    assert "at most 500 MB (headline)" in runs
    assert "missed by headline (time, memory), of 2 benchmarks" in runs
    assert "all met, of 1 benchmarks" in flow and "(performance/runs.md)" in runs
    assert "| processor | one |" in machine


def test_every_benchmark_is_of_a_group_and_on_the_page_of_commands(bench):
    assert {one.group for one in bench.BENCHMARKS} == set(bench.GROUPS)
    commands = bench.pages()["commands.md"]
    assert all(f"* **{one.name}**: " in commands for one in bench.BENCHMARKS)


def test_notes_of_an_unknown_group_are_refused(bench, tmp_path, monkeypatch):
    (tmp_path / "NOTES.md").write_text("## runz: Tried\n\ntext\n", encoding="utf-8")
    monkeypatch.setattr(bench, "HERE", tmp_path)
    with pytest.raises(SystemExit, match="a group of runs, flow, files, tables, not 'runz: Tried'"):
        bench.pages()


def test_pages_that_nothing_says_any_more_are_removed(bench, tmp_path):
    (tmp_path / "old.md").write_text("old")
    bench.write_pages(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(bench.pages())


# coverage


def test_the_page_of_coverage():
    covered = load("covered")

    def summary(statements, reached):
        return {"summary": {"num_statements": statements, "covered_lines": reached}}

    data = {
        "files": {
            "cmsim/engine/play.py": summary(90, 90),
            "cmsim/engine/fold.py": summary(10, 5),
            "cmsim/api.py": summary(100, 80),
            "cmsim/__init__.py": summary(10, 10),
            "cmsim/empty/__init__.py": summary(0, 0),
        }
    }
    page = covered.page(data)
    assert "| engine | 2 | 100 | 95 | 95.0 % |" in page
    assert "| api | 1 | 100 | 80 | 80.0 % |" in page and "| front door | 1 | 10 | 10 | 100.0 % |" in page
    assert "| **all** | 4 | 210 | 185 | 88.1 % |" in page
    assert "92 % of all statements: **missed**, with 88.1 %" in page
    worst = page.partition("## Where most is missed")[2]
    assert worst.index("cmsim/api.py | 100 | 20 | 80.0 %") < worst.index("cmsim/engine/fold.py | 10 | 5 | 50.0 %")
    assert "play.py" not in worst
    data["files"]["cmsim/api.py"] = summary(100, 99)
    assert "92 % of all statements: met" in covered.page(data)
