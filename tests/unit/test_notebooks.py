"""Notebooks: they run without an error, assert what they conclude, and are stored without outputs.

A kernel takes longer to start than most pages take to run. So one page is run by Jupyter each time, and of the
others the cells, one after the other in a namespace of their own; ``slow`` runs all by Jupyter.
"""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
#: run by Jupyter each time
QUICK = "quickstart"
#: for one cell, so that a notebook that hangs ends [s]
PATIENCE_s = 120


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(params=NOTEBOOKS, ids=NAMES)
def notebook(request):
    return read(request.param)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder, which must stay so; nothing is read from, or left in, the home folder of whoever runs this."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert not list(folder.iterdir()), "a notebook leaves no files behind"


def test_every_notebook_is_listed():
    assert QUICK in NAMES
    for page in (ROOT / "notebooks" / "README.md", ROOT / "docs" / "index.md"):
        text = page.read_text(encoding="utf-8")
        assert [name for name in NAMES if f"{name}.ipynb)" not in text] == [], page.name


def test_stored_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs, f"run `nbstripout`: {cell.source[:60]!r} has outputs"
            assert cell.execution_count is None


def test_states_its_question_and_asserts_its_conclusion(notebook):
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.cell_type == "markdown"
    assert "?" in first.source.splitlines()[0]
    assert last.cell_type == "code"
    assert "assert " in last.source


@pytest.mark.parametrize("name", [name for name in NAMES if name != QUICK])
def test_answers(name, work):
    """Cells by themselves: no kernel, and every warning is an error."""
    import matplotlib.pyplot as plt

    namespace: dict[str, object] = {"__name__": "__main__"}
    figures = 0
    for number, cell in enumerate(read(ROOT / "notebooks" / f"{name}.ipynb").cells):
        if cell.cell_type == "code":
            shown = execute(cell.source, namespace, f"{name}.ipynb, cell {number}")
            # what Jupyter would show of it
            getattr(shown, "_repr_html_", lambda shown=shown: repr(shown))()
            figures += hasattr(shown, "savefig")
    figures += len(plt.get_fignums())
    plt.close("all")
    assert figures, "a page has a figure"


def execute(source, namespace, where):
    """The value of a cell's last line, where that is one."""
    lines = ["" if line.startswith("%") else line for line in source.splitlines()]
    tree = ast.parse("\n".join(lines))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), namespace)


# The kernel is a process of its own, which pytest's warnings do not reach; those of its client here are not ours.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in NAMES]
)
def test_runs_in_jupyter(name, work):
    notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
    NotebookClient(
        notebook, timeout=PATIENCE_s, kernel_name="python3", resources={"metadata": {"path": str(work)}}
    ).execute()
    assert any(output for cell in notebook.cells for output in cell.get("outputs", ()))
