"""What is installed, and what extras would add."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cmsim.cli import doctor
from cmsim.cli.app import app


def test_all_extras_of_the_package_are_told():
    needs = doctor._needed()
    assert set(needs) - {"", "test", "lint", "pages", "docs"} == set(doctor.EXTRAS)
    assert "numpy" in needs[""] and "simpy" in needs[""]


def test_it_says_what_is_there_and_that_a_run_goes_through():
    done = CliRunner().invoke(app, ["doctor", "--json"])
    said = json.loads(done.stdout)
    assert done.exit_code == 0 and said["run"] == "goes through"
    assert all(one["release"] for one in said["packages"])


def test_what_is_missing_has_its_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # a pipe: nothing is broken over lines
    there = doctor._release
    monkeypatch.setattr(doctor, "_release", lambda name: "" if name in ("perfetto", "simpy") else there(name))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "pip install 'cmsim[perfetto]'" in done.stdout and "missing: simpy" in done.stdout
