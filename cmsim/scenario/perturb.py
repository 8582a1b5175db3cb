"""Slow ranks from a file: CSV with columns rank and any of compute, port, nic."""

from __future__ import annotations

import math
from pathlib import Path

from cmsim.errors import InputError, Problem
from cmsim.reading import whole
from cmsim.reading.tables import Record, read_records
from cmsim.scenario.schema import PerturbSpec

_FACTORS = tuple(PerturbSpec.model_fields)


def read_perturb(path: Path) -> dict[int, PerturbSpec]:
    """Factors by rank, in the file's order.

    InputError: columns other than these, none of the factors, a rank twice, no whole number, a factor not above 0; with
    line.
    """
    rows = read_records(path, needed=("rank",), known=("rank", *_FACTORS))
    if not rows:
        raise InputError(Problem("holds no rank", str(path)))
    if len(rows[0]) == 1:
        raise InputError(Problem(f"needs any of the columns {', '.join(_FACTORS)}", str(path), 1))
    found: dict[int, PerturbSpec] = {}
    for row in rows:
        text = row["rank"]
        if not whole(text):
            raise InputError(row.problem("rank", f"must be a whole number from 0, got '{text}'"))
        if int(text) in found:
            raise InputError(row.problem("rank", f"rank {text} stands twice"))
        found[int(text)] = PerturbSpec(**{name: _factor(row, name) for name in row if name != "rank"})
    return found


def _factor(row: Record, name: str) -> float:
    factor = row.number(name)
    if not 0 < factor < math.inf:
        raise InputError(row.problem(name, f"must be a number above 0, got '{row[name]}'"))
    return factor
