"""What is installed: pins that fit what pyproject.toml asks for, and the targets that pages name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def asked() -> list[Requirement]:
    """What cmsim, its tests and its linters need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [Requirement(text) for text in (*project["dependencies"], *extras["test"], *extras["lint"])]


@pytest.mark.parametrize("requirement", asked(), ids=str)
def test_everything_that_is_asked_for_is_pinned(requirement):
    version = pins().get(canonicalize_name(requirement.name))
    assert version, "run `make pins`"
    assert version in requirement.specifier


def test_a_pin_stands_once_and_is_a_release():
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert len(lines) == len(pins())
    assert all(re.fullmatch(r"[\w.-]+==\d[\w.]*", line) for line in lines)


def test_targets_that_pages_name_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in ("README.md", "CONTRIBUTING.md", "docs/index.md"):
        named = set(re.findall(r"(?:`|^ +)make ([\w-]+)", (ROOT / page).read_text(encoding="utf-8"), re.M))
        assert named <= targets, page


def test_pins_are_used_unless_asked_otherwise():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(if $(UNPINNED),,-c constraints.txt)" in makefile
    assert makefile.count("pyproject.toml constraints.txt |") == 4
    assert "UNPINNED=1 test" in makefile
