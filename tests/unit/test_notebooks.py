"""Notebooks: they run without an error, assert what they conclude, and are stored without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
#: for one cell, so that a notebook that hangs ends [s]
PATIENCE_s = 120


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_stored_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs, f"run `nbstripout`: {cell.source[:60]!r} has outputs"
            assert cell.execution_count is None


def test_states_its_question_and_asserts_its_conclusion(notebook):
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.cell_type == "markdown"
    assert "?" in first.source
    assert last.cell_type == "code"
    assert "assert " in last.source


# The kernel is a process of its own, which pytest's warnings do not reach; those of its client here are not ours.
@pytest.mark.filterwarnings("default")
def test_runs(notebook, tmp_path, monkeypatch):
    # nothing is read from, or left in, the home folder of whoever runs this
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    work = tmp_path / "work"
    work.mkdir()
    NotebookClient(
        notebook, timeout=PATIENCE_s, kernel_name="python3", resources={"metadata": {"path": str(work)}}
    ).execute()
    assert not list(work.iterdir()), "a notebook leaves no files behind"
    assert any(output for cell in notebook.cells for output in cell.get("outputs", ()))
