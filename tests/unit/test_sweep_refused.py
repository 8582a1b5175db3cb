"""Sweeps and runs that cannot be, or cannot be written: one clear error, and what was there before stays as it was."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import sweep
from cmsim.cli.app import app
from cmsim.errors import InputError

SUM: dict[str, Any] = {
    "systems": ["hgx_h100"],
    "workload": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1000},
}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("swept", "said"),
    [
        (
            {"workload.mesage_bytes": [1, 2]},
            "workload.mesage_bytes: unknown key 'mesage_bytes'. Did you mean 'message_b",
        ),
        (
            {"workload.message_bytes": []},
            "sweep.workload.message_bytes: expected a list or {from, to, steps, scale}, got []",
        ),
        ({"workload.message_bytes": {"from": 1, "to": 8}}, "steps"),
    ],
)
def test_a_sweep_that_is_none_writes_nothing(tmp_path: Path, swept: dict[str, Any], said: str):
    file, out = tmp_path / "s.yaml", tmp_path / "out"
    file.write_text(json.dumps({**SUM, "sweep": swept}))
    done = CliRunner().invoke(app, ["sweep", str(file), "--out", str(out)])
    assert done.exit_code == 2 and said in done.stderr
    assert not out.exists()


def test_a_place_that_cannot_be_written(tmp_path: Path):
    """Below a file, where root cannot write either."""
    (tmp_path / "file").write_text("mine")
    scenario = {**SUM, "sweep": {"workload.message_bytes": [1000, 2000]}}
    for write in (sweep.sweep, cmsim.run):
        with pytest.raises(InputError, match="cannot be written"):
            write(scenario, out=tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_is_full_leaves_the_folder_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pyarrow.parquet as pq

    out = tmp_path / "out"
    cmsim.run(SUM, out=out)
    before = bytes_of(out)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        cmsim.run({**SUM, "seed": 1}, out=out)
    assert bytes_of(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("command", ["plot breakdown", "report", "compare"])
def test_a_folder_that_is_not_there_says_what_makes_one(command: str):
    done = CliRunner().invoke(app, [*command.split(), "nowhere"])
    assert done.exit_code == 2
    assert "no such folder, and no scenario of that name: nowhere. `cmsim run SCENARIO --out nowhere`" in done.stderr
