"""What tests share: reference data beside the checkout, ``--update-expected``, hypothesis that repeats itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No wall clock and no seed from outside: the same tree gives the same verdict on every machine.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, print_blob=False)
settings.load_profile("repeatable")

os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-expected",
        action="store_true",
        help="regression tests write their expected values anew instead of comparing; read the diff before a commit",
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture
def update_expected(request: pytest.FixtureRequest) -> bool:
    """Whether expected values are to be written instead of compared."""
    return bool(request.config.getoption("--update-expected"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data beside the checkout; the test is skipped where there is none."""
    folder = ROOT.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("reference data beside the checkout is absent")
    return folder
