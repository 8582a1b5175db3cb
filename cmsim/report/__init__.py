"""A report of results: one HTML file that says what was asked, the answer, why, and how far to trust it."""

from cmsim.report.report import FIGURES, write_report

__all__ = ["FIGURES", "write_report"]
