"""What a validation found: tables, a document for machines, and the page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmsim.validation.row import Row, area_summary
from cmsim.version import __version__


@dataclass(frozen=True)
class Report:
    """Rows by area, in the order of the registry or of the request."""

    areas: Mapping[str, Sequence[Row]]

    @property
    def ok(self) -> bool:
        """Whether every judged row is within its tolerance."""
        return all(row.ok for rows in self.areas.values() for row in rows)

    def table(self) -> list[dict[str, Any]]:
        """A row per area: rows, left_out, fitted, judged, median_error_pct, p90_error_pct, worst_error_pct (absolute),
        worst_row, tolerance, ok. Errors are None where nothing is judged."""
        return [area_summary(name, rows) for name, rows in self.areas.items()]

    def rows(self, role: str = "judged") -> list[dict[str, Any]]:
        """Judged rows of all areas, or those of another role: id, area, system, what, published, predicted, error_pct,
        unit, source, where, note, role, tolerance_pct, ok."""
        return [row.summary() for rows in self.areas.values() for row in rows if row.role == role]

    def summary(self) -> dict[str, Any]:
        """One document that JSON can hold: the table, and the rows by role."""
        return {
            "schema_version": 1,
            "cmsim": __version__,
            "ok": self.ok,
            "areas": self.table(),
            **{role: self.rows(role) for role in ("judged", "fitted", "left_out")},
        }

    def markdown(self) -> str:
        """The page ``docs/validity.md``."""
        from cmsim.validation.page import markdown

        return markdown(self.areas)

    def _repr_markdown_(self) -> str:
        return self.markdown()
