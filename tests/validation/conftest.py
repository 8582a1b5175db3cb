"""One validation for all tests of this room: some seconds, and with steps of training and services some minutes."""

from __future__ import annotations

import pytest

from cmsim.validation import Report, validate
from cmsim.validation.registry import AREAS

#: areas that take longer than all others together: run by `make test-all`
LONG = ("training", "serving", "serving-throughput", "power-under-load")


@pytest.fixture(scope="session")
def report() -> Report:
    """Of all areas that are quick."""
    return validate([name for name in AREAS if name not in LONG])


@pytest.fixture(scope="session")
def whole() -> Report:
    """Of all areas."""
    return validate()


def _predicted(report: Report) -> dict[str, dict]:
    roles = ("judged", "fitted", "left_out")
    return {row["id"]: row for role in roles for row in report.rows(role) if row["predicted"] is not None}


@pytest.fixture(scope="session")
def predicted(report: Report) -> dict[str, dict]:
    """Every row that has a prediction, whatever its role, by id."""
    return _predicted(report)


@pytest.fixture(scope="session")
def predicted_whole(whole: Report) -> dict[str, dict]:
    """The same of all areas."""
    return _predicted(whole)
