"""The README shows real output: what its command prints, `...` for what is left out, to the verdict at the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmsim.cli.app import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("number", "scenario"), [pytest.param(0, "service", marks=pytest.mark.slow), (1, "headline")])
def test_the_block_is_what_the_command_prints(monkeypatch, number, scenario):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.findall(r"```\n(.*?)```", text, re.DOTALL)[number]
    monkeypatch.setenv("COLUMNS", "100")
    printed = CliRunner().invoke(app, ["run", str(ROOT / "scenarios" / f"{scenario}.yaml")])
    assert printed.exit_code == 0, printed.output
    parts = [part.strip("\n") for part in block.rstrip().split("\n...\n")]
    assert printed.stdout.rstrip().endswith(parts[-1]), "the block ends with the verdict"
    at = 0
    for part in parts:
        found = printed.stdout.find(part, at)
        assert found >= at, f"not printed, or not in this order:\n{part}"
        at = found + len(part)


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
