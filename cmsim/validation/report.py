"""What a validation found: tables, a document for machines, and the page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cmsim.validation.pairs import Pairs
from cmsim.validation.row import Row, area_summary
from cmsim.version import SCHEMA_VERSION, __version__


@dataclass(frozen=True)
class Report:
    """Rows by area, in the order of the registry or of the request.

    Attributes
    ----------
    areas
        Every row, by name of the area.
    pairs
        What a figure of each area shows: measured and predicted in columns.
    """

    areas: Mapping[str, Sequence[Row]]
    #: what a figure of each area shows
    pairs: Mapping[str, Sequence[Pairs]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every judged row is within its tolerance."""
        return all(row.ok for rows in self.areas.values() for row in rows)

    def table(self) -> list[dict[str, Any]]:
        """A row per area.

        Returns
        -------
        list of dict
            rows, left_out, fitted, judged, median_error_pct, p90_error_pct, worst_error_pct [%] (absolute, None where
            nothing is judged), worst_row, tolerance, ok.
        """
        return [area_summary(name, rows) for name, rows in self.areas.items()]

    def rows(self, role: str = "judged") -> list[dict[str, Any]]:
        """Rows of all areas, of one role.

        Parameters
        ----------
        role
            ``judged``, ``fitted`` or ``left_out``.

        Returns
        -------
        list of dict
            id, area, system, what, published, predicted, error_pct [%], unit (of published and predicted), source,
            where, note, role, tolerance_pct [%], ok.
        """
        return [row.summary() for rows in self.areas.values() for row in rows if row.role == role]

    def summary(self) -> dict[str, Any]:
        """One document that JSON can hold: the table, and the rows by role.

        Returns
        -------
        dict
            schema_version, cmsim, ok, areas, judged, fitted, left_out.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            "cmsim": __version__,
            "ok": self.ok,
            "areas": self.table(),
            **{role: self.rows(role) for role in ("judged", "fitted", "left_out")},
        }

    def markdown(self, folder: str = "validity") -> str:
        """The page ``docs/validity.md``.

        Parameters
        ----------
        folder
            Where the pages and figures behind it are, from where it is itself.

        Returns
        -------
        str
            Markdown, with a line break at its end.
        """
        from cmsim.validation.page import markdown

        return markdown(self.areas, self.pairs, folder)

    def errors(self) -> str:
        """The file that intervals of runs are drawn from, ``workloads/reference/errors.yaml``.

        Returns
        -------
        str
            YAML: of every area with judged rows count, median and 90th percentile of absolute errors [%].
        """
        from cmsim.validation.errors import errors_text

        return errors_text(self.areas, self.pairs)

    def pages(self, page: str = "validity.md") -> dict[str, str]:
        """What the page links to: every row of each area, and what was fitted on what.

        Parameters
        ----------
        page
            File name of the page itself, a folder above.

        Returns
        -------
        dict of str to str
            Markdown by file name.
        """
        from cmsim.validation.detail import pages

        return pages(self.areas, page)

    def _repr_markdown_(self) -> str:
        return self.markdown()
