"""The README shows real output: what its command prints, `...` for what is left out, to the verdict at the end."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from cmsim.cli.app import app

ROOT = Path(__file__).resolve().parents[2]


def test_blocks_are_what_the_command_prints(monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    monkeypatch.setenv("COLUMNS", "100")
    printed = CliRunner().invoke(app, ["run", str(ROOT / "scenarios" / "headline.yaml")])
    assert printed.exit_code == 0, printed.output
    parts = [part.strip("\n") for block in blocks for part in block.rstrip().split("\n...\n")]
    assert printed.stdout.rstrip().endswith(parts[-1]), "the last block ends with the verdict"
    for block in blocks:
        at = 0
        for part in block.rstrip().split("\n...\n"):
            found = printed.stdout.find(part.strip("\n"), at)
            assert found >= at, f"not printed, or not in this order:\n{part}"
            at = found + len(part)


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
