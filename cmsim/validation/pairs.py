"""Measured or published numbers beside predictions, in columns: what a figure of an area shows and a line sums up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Floats
from cmsim.validation.row import Role, Row


@dataclass(frozen=True)
class Pairs:
    """Numbers of one group, of one unit and one role.

    group      what a legend says; of counts, ``count``
    measured   published or measured, above 0 (n,)    predicted: in its place, above 0 (n,)
    """

    group: str
    unit: str
    role: Role
    measured: Floats
    predicted: Floats

    @property
    def error_pct(self) -> Floats:
        """Predicted over measured, minus one (n,). [%]"""
        return 100 * (self.predicted / self.measured - 1)


def of_rows(rows: Sequence[Row]) -> list[Pairs]:
    """Rows that have both numbers, a group for each unit and role; roles as in `Role`, units as they come."""
    found: dict[tuple[str, Role], list[Row]] = {}
    for role in ("judged", "fitted", "left_out"):
        for row in rows:
            if row.role == role and row.error_pct is not None and row.predicted and row.published:
                found.setdefault((row.unit, row.role), []).append(row)
    return [
        Pairs(
            group=unit or "count",
            unit=unit,
            role=role,
            measured=np.array([row.published for row in some], dtype=float),
            predicted=np.array([row.predicted for row in some], dtype=float),
        )
        for (unit, role), some in found.items()
    ]
