"""Slow ranks from a file: CSV with columns rank and any of compute, port, nic."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from cmsim import reading
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.scenario.schema import PerturbSpec

_FACTORS = tuple(PerturbSpec.model_fields)


def read_perturb(path: Path) -> dict[int, PerturbSpec]:
    """Factors by rank, in the file's order.

    InputError: columns other than these, none of the factors, a rank twice, no whole number, a factor not above 0; with
    line.
    """
    reader = csv.DictReader(io.StringIO(reading.read_text(path)))
    columns = [name.strip() for name in reader.fieldnames or ()]
    known = ("rank", *_FACTORS)
    problems = [
        Problem(f"no such column. {did_you_mean(name, known)}", str(path), 1, name)
        for name in columns
        if name not in known
    ]
    if "rank" not in columns or len(columns) < 2:
        problems.append(
            Problem(f"needs the columns rank and any of {', '.join(_FACTORS)}; got {columns}", str(path), 1)
        )
    if problems:
        raise InputError(problems)
    reader.fieldnames = columns
    found: dict[int, PerturbSpec] = {}
    for row in reader:
        line = reader.line_num
        if None in row or None in row.values():
            raise InputError(Problem(f"expected {len(columns)} values", str(path), line))
        text = row["rank"].strip()
        if not text.isdecimal():
            raise InputError(Problem(f"must be a whole number from 0, got '{text}'", str(path), line, "rank"))
        if int(text) in found:
            raise InputError(Problem(f"rank {text} stands twice", str(path), line, "rank"))
        found[int(text)] = PerturbSpec(
            **{name: _factor(row[name], path, line, name) for name in columns if name != "rank"}
        )
    if not found:
        raise InputError(Problem("holds no rank", str(path)))
    return found


def _factor(text: str, path: Path, line: int, name: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise InputError(Problem(f"must be a number above 0, got '{text.strip()}'", str(path), line, name))
    return factor
