"""One validation for all tests of this room: it takes some seconds."""

from __future__ import annotations

import pytest

from cmsim.validation import Report, validate


@pytest.fixture(scope="session")
def report() -> Report:
    return validate()


@pytest.fixture(scope="session")
def predicted(report: Report) -> dict[str, dict]:
    """Every row that has a prediction, whatever its role, by id."""
    roles = ("judged", "fitted", "left_out")
    return {row["id"]: row for role in roles for row in report.rows(role) if row["predicted"] is not None}
