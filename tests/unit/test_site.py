"""The documentation as a site: built without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(root: Path, tmp_path: Path):
    pytest.importorskip("sphinx", reason="pip install -e '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(root / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "howto/run-a-sweep.html" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Every point of a scenario" in (tmp_path / "api.html").read_text(encoding="utf-8")
