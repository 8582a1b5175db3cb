"""One reference row beside its prediction, and what many of them say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Role = Literal["judged", "fitted", "left_out"]


@dataclass(frozen=True)
class Row:
    """A published or measured number and what cmsim says in its place.

    id            as in the reference file    area: what it is evidence of
    role          judged: counts; fitted: a constant was set with it in sight, so that it proves nothing;
                  left_out: not compared, for the reason in ``note``
    what          the quantity, on the publisher's own basis    unit: of published and predicted alike
    published     a number; text where the publisher gives a limit (">94")
    predicted     None where nothing was predicted; fitted and left-out rows may have one, as information
    tolerance_pct of a judged row: the absolute error it may have [%]
    where         page, table or section of the source    note: assumptions, and reasons
    """

    id: str
    area: str
    role: Role
    system: str
    what: str
    published: float | str
    unit: str
    source: str
    where: str = ""
    note: str = ""
    predicted: float | None = None
    tolerance_pct: float = 0.0

    def __post_init__(self) -> None:
        assert self.role != "judged" or self.error_pct is not None, f"{self.id} is judged without a prediction"

    @property
    def error_pct(self) -> float | None:
        """Predicted over published, minus one. [%]

        >>> row = Row("X-1", "speed", "judged", "a system", "speed", 50.0, "m/s", "a paper", predicted=55.0)
        >>> round(row.error_pct, 9)
        10.0
        """
        if self.predicted is None or isinstance(self.published, str):
            return None
        return 100 * (self.predicted / self.published - 1)

    @property
    def ok(self) -> bool:
        """Whether a judged row is within its tolerance; the others prove nothing and fail nothing."""
        # the last digits of a sum of whole counts are rounding
        return self.role != "judged" or abs(self.error_pct or 0.0) <= self.tolerance_pct + 1e-6

    def summary(self) -> dict[str, Any]:
        """As plain data, in the order in which people read it."""
        return {
            "id": self.id,
            "area": self.area,
            "system": self.system,
            "what": self.what,
            "published": self.published,
            "predicted": self.predicted,
            "error_pct": self.error_pct,
            "unit": self.unit,
            "source": self.source,
            "where": self.where,
            "note": self.note,
            "role": self.role,
            "tolerance_pct": self.tolerance_pct if self.role == "judged" else None,
            "ok": self.ok,
        }


def area_summary(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Counts by role, and median, 90th percentile and worst absolute error of the judged rows. [%]

    Errors are None where no row is judged; ``tolerance`` is text, for rows of one area may differ in it.
    """
    judged = [row for row in rows if row.role == "judged"]
    errors = np.array([abs(row.error_pct or 0.0) for row in judged])
    worst = judged[int(errors.argmax())] if judged else None
    return {
        "area": name,
        "rows": len(rows),
        "left_out": sum(row.role == "left_out" for row in rows),
        "fitted": sum(row.role == "fitted" for row in rows),
        "judged": len(judged),
        "median_error_pct": float(np.median(errors)) if judged else None,
        "p90_error_pct": float(np.percentile(errors, 90)) if judged else None,
        "worst_error_pct": float(errors.max()) if judged else None,
        "worst_row": worst.id if worst else "",
        "tolerance": _tolerances(judged),
        "ok": all(row.ok for row in rows),
    }


def _tolerances(judged: Sequence[Row]) -> str:
    """``25 %``, or ``0 to 5 %`` where rows differ."""
    found = sorted({row.tolerance_pct for row in judged})
    if not found:
        return ""
    return f"{found[0]:g} %" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g} %"
