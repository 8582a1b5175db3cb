"""``calibrate --measure`` where it cannot measure, and its tables against what ``calibrate`` and ``predict`` read."""

from __future__ import annotations

import importlib.util

import pytest
from typer.testing import CliRunner

from cmsim.calibration import measure
from cmsim.cli.app import app
from cmsim.errors import InputError

TORCH = importlib.util.find_spec("torch") is not None


@pytest.mark.skipif(TORCH, reason="PyTorch is installed here")
def test_without_pytorch_it_says_so_and_writes_nothing(tmp_path):
    done = CliRunner().invoke(app, ["calibrate", "--measure", "--out", str(tmp_path / "tables")])
    assert done.exit_code == 2
    assert "--measure needs PyTorch, which is not installed" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--measure"], "--measure takes no TABLE, and --out FOLDER"),
        (["rows.csv", "--measure", "--out", "x"], "--measure takes no TABLE"),
        ([], "TABLE: is required (or give --measure)"),
        (["rows.csv"], "--accelerator: is required"),
    ],
)
def test_what_is_missing_is_named(arguments, said):
    done = CliRunner().invoke(app, ["calibrate", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_folder_that_is_there_and_kinds_that_are_not_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "device", lambda: measure.Device("cuda", "a device", None))
    with pytest.raises(InputError, match="exists already"):
        measure.measure(tmp_path)
    with pytest.raises(InputError, match=r"no measurement of kind 'gem'. Allowed: power, launch, copy, gemm"):
        measure.measure(tmp_path / "new", kinds=["gem"])
    assert not list(tmp_path.iterdir())
