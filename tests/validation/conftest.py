"""One validation for all tests of this room: some seconds, and with steps of training and services some minutes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence

import pytest
from filelock import FileLock

from cmsim.validation import Report, validate
from cmsim.validation.registry import AREAS

#: areas that take longer than all others together: run by `make test-all`
LONG = ("training", "serving", "serving-throughput", "power-under-load")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Sequence[str] | None], Report]:
    """A validation of some areas, made by the first of the workers that asks for it."""

    def of(name: str, areas: Sequence[str] | None) -> Report:
        if worker_id == "master":
            return validate(areas)
        file = tmp_path_factory.getbasetemp().parent / f"{name}.pickle"
        with FileLock(f"{file}.lock"):
            if not file.is_file():
                file.write_bytes(pickle.dumps(validate(areas)))
            return pickle.loads(file.read_bytes())

    return of


@pytest.fixture(scope="session")
def report(once) -> Report:
    """Of all areas that are quick."""
    return once("quick", [name for name in AREAS if name not in LONG])


@pytest.fixture(scope="session")
def whole(once) -> Report:
    """Of all areas."""
    return once("all", None)


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
