"""Sets of measured rows that are judged together: by the median and the 90th percentile of their absolute errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from cmsim.reading import Spec
from cmsim.validation.pairs import Pairs
from cmsim.validation.row import Role, Row


class SetOfRows(Spec):
    """Which rows belong together, and what their errors have to stay under."""

    what: str
    table: str = Field(description="a CSV beside this file")
    of: dict[str, str] = Field(default={}, description="pattern by column; all must be found")
    every: PositiveInt = Field(
        default=1, description="every so many-th of them, evenly: what a validation has time for"
    )
    median_pct: NonNegativeFloat
    p90_pct: NonNegativeFloat
    aim_pct: tuple[float, float] | None = Field(default=None, description="what is asked for: median, 90th percentile")
    judged: bool = True
    source: str


@dataclass(frozen=True)
class Compared:
    """A row of a set, with what was measured and predicted in its unit; without a prediction, the reason."""

    id: str
    system: str
    measured: float | None
    predicted: float | None
    reason: str


def statistics(area: str, name: str, of: SetOfRows, some: Sequence[Compared], role: Role | None = None) -> list[Row]:
    """Two rows of a set, its median error and the 90th percentile. role: instead of judged or left out"""
    if not some:
        return []
    error = np.array([(one.predicted or 0.0) / (one.measured or 1.0) - 1 for one in some])
    aim = f"; asked for: {of.aim_pct[0]:g} and {of.aim_pct[1]:g} %" if of.aim_pct else ""
    out = []
    for statistic, value, limit in (
        ("median", float(np.median(np.abs(error))), of.median_pct),
        ("p90", float(np.percentile(np.abs(error), 90)), of.p90_pct),
    ):
        out.append(
            Row(
                id=f"{name}/{statistic}",
                area=area,
                role=role or ("judged" if of.judged else "left_out"),
                system=", ".join(dict.fromkeys(one.system for one in some)),
                what=f"{of.what}: {statistic} absolute error of {len(some)} rows, added to 1",
                published=1.0,
                unit="",
                source=of.source,
                note=f"signed median {100 * float(np.median(error)):+.1f} %{aim}",
                predicted=1.0 + value,
                tolerance_pct=limit,
            )
        )
    return out


def pairs_of(name: str, of: SetOfRows, unit: str, compared: Sequence[Compared]) -> Pairs:
    """Every measured number of a set beside its prediction."""
    some = [one for one in compared if one.predicted is not None and one.measured is not None]
    measured, predicted = (np.array([getattr(one, key) for one in some]) for key in ("measured", "predicted"))
    return Pairs(name, unit, "judged" if of.judged else "left_out", measured, predicted)
