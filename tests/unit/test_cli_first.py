"""A first scenario from three answers: it runs, and what is not known is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli import first
from cmsim.cli.app import app


@pytest.mark.parametrize("kind", first.QUESTIONS)
def test_what_is_written_runs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    asked = ["new", "--system", "hgx_h100", "--kind", kind]
    done = CliRunner().invoke(app, [*asked, *(["--model", "llama-3.1-8b"] if kind != "collective" else [])])
    assert done.exit_code == 0, done.output
    (file,) = tmp_path.iterdir()
    assert f"next: cmsim run {file.name}" in done.output
    small = {"set": {"sweep": {}}} if kind == "serving" else {}
    found = cmsim.run(file, record="none", **small)
    assert found.results and not found.missing
    assert cmsim.load_scenario(file).text.startswith(f"# {first.QUESTIONS[kind][0]}")


def test_questions_are_asked_where_somebody_can_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(first, "_asks", lambda: True)
    done = CliRunner().invoke(app, ["new"], input="decode\nhgx_h200\nllama-3.1-8b\n")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "decode-llama-3.1-8b.scenario.yaml").read_text(encoding="utf-8")
    assert "systems: [hgx_h200]" in text and "kind: decode" in text


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            ["--system", "hgx_h1000", "--kind", "decode", "--model", "llama-3.1-8b"],
            "--system: got 'hgx_h1000'. Did you",
        ),
        (
            ["--system", "hgx_h100", "--kind", "decoding", "--model", "llama-3.1-8b"],
            "--kind: got 'decoding'. Did you mean",
        ),
        (["--system", "hgx_h100", "--kind", "decode"], "--model: is needed where nobody can be asked"),
        (["--from", "x.sh", "--kind", "decode"], "--from: the file says the model and what is asked"),
    ],
)
def test_what_is_not_known_is_refused(said: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["new", *said])
    assert done.exit_code == 2 and why in done.output
    assert not list(tmp_path.iterdir())
