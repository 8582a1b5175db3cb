"""What tests share: reference data beside the checkout, ``--update-expected``, hypothesis that repeats itself."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cmsim import side_by_side

# No wall clock and no seed from outside: the same tree gives the same verdict on every machine.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, print_blob=False)
settings.register_profile("quick", settings.get_profile("repeatable"), max_examples=40)
settings.load_profile("repeatable")

os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Of what is drawn, the quick tests see two fifths."""
    if "not slow" in config.option.markexpr:
        settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-expected",
        action="store_true",
        help="regression tests write their expected values anew instead of comparing; read the diff before a commit",
    )


@pytest.fixture(scope="session", autouse=True)
def _alone() -> Iterator[None]:
    """Runs stay in the process of their test unless it asks for others: tests side by side have all cores already."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(side_by_side, "cores", lambda: 1)
        yield


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


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """A file with one or two small damages."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        if kind == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del out[at : at + rng.randint(1, 20)]
        elif kind == 2:
            out[at:at] = rng.choice(
                (
                    b"-",
                    b"0",
                    b"9" * 30,
                    b",",
                    b"\n",
                    b'"',
                    b"nan",
                    b"1e308",
                    b"\0",
                    b"{",
                    b"]",
                    b"[" * 2000,
                    b"\xff\xfe",
                )
            )
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = out[: rng.randrange(len(out) + 1)]
        elif kind == 5:
            digits = [place for place, byte in enumerate(out) if 48 <= byte < 58]
            if digits:
                out[rng.choice(digits)] = rng.choice(b"0-.9 ex")
        else:
            lines = bytes(out).split(b"\n")
            rng.shuffle(lines)
            out = bytearray(b"\n".join(lines))
        if not out:
            break
    return bytes(out)


@pytest.fixture(scope="session")
def damaged() -> Callable[[bytes, random.Random], bytes]:
    """Small damages to a text file: changed, lost, repeated and odd bytes, changed digits, lines in another order."""
    return _damaged
