"""The page of a validation, in Markdown: per area a figure and what it says in five lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cmsim.validation import assumed, reference
from cmsim.validation.detail import FITS, MADE_BY, fitted_sources
from cmsim.validation.markdown import percent, table, verdict
from cmsim.validation.pairs import Pairs
from cmsim.validation.row import Row, area_summary

HEAD = """# How far to trust the numbers

Predictions beside published and measured numbers. A row is *judged* if nothing in cmsim was set with it in sight;
*fitted* if a constant was, or if it restates an input, so that agreement proves nothing; *left out* if it cannot be
compared, for the reason given.
An error is predicted over published, minus one; the table has absolute errors. Numbers that describe one observation
(latency, batch and throughput of one point) are judged once. The rows, their sources and what each is used for are in
`workloads/reference/`."""


def markdown(areas: Mapping[str, Sequence[Row]], pairs: Mapping[str, Sequence[Pairs]], folder: str) -> str:
    """The whole page; ends in a line break.

    pairs    what the figure of each area shows    folder: of figures and of the pages behind, as links say it
    """
    blocks = [MADE_BY, HEAD, "## By area", _areas_table(areas, folder)]
    for name, rows in areas.items():
        blocks += _area(name, rows, pairs.get(name, ()), folder)
    blocks += ["## What was fitted on what", _fitted(folder)]
    blocks += ["## What is assumed: watts and prices", assumed.section()]
    blocks += ["## Not validated at all", "\n".join(f"- {gap}" for gap in reference.gaps())]
    return "\n\n".join(blocks) + "\n"


def _areas_table(areas: Mapping[str, Sequence[Row]], folder: str) -> str:
    rows = []
    for name, of in areas.items():
        cells = area_summary(name, of)
        errors = [percent(cells[key]) for key in ("median_error_pct", "p90_error_pct", "worst_error_pct")]
        counts = [str(cells[key]) for key in ("rows", "left_out", "fitted", "judged")]
        link = f"[{name}]({folder}/{name}.md)"
        rows.append([link, *counts, *errors, str(cells["worst_row"]), str(cells["tolerance"]), verdict(cells["ok"])])
    names = ("area", "rows", "left out", "fitted", "judged", "median error", "90th percentile", "worst", "worst row")
    return table((*names, "tolerance", "within"), rows, right=range(1, 8))


def _area(name: str, rows: Sequence[Row], pairs: Sequence[Pairs], folder: str) -> Iterator[str]:
    spec = reference.read_head(name)
    yield f"## {spec.title}"
    if pairs:
        yield f"![{spec.title}: predicted against measured, with bands of 10 and 25 %]({folder}/{name}.png)"
    yield "\n".join(
        f"- **{word}:** {text}"
        for word, text in (
            ("Compared", spec.compared.strip()),
            ("Judged", _judged(rows)),
            ("Errors", _errors(rows, pairs)),
            ("Worst", _worst(rows)),
            ("Not covered", spec.not_covered.strip()),
        )
    )
    yield f"[Every row, its source and all there is to know]({folder}/{name}.md)"


def _judged(rows: Sequence[Row]) -> str:
    cells = area_summary("", rows)
    wrong = [row.id for row in rows if not row.ok]
    within = f"**outside: {', '.join(wrong)}**" if wrong else "all within"
    beside = [f"{cells[role]} {role.replace('_', ' ')}" for role in ("fitted", "left_out") if cells[role]]
    others = f"; {' and '.join(beside)} count for nothing" if beside else ""
    if not cells["judged"]:
        return f"nothing{others}."
    return f"{cells['judged']} rows, tolerance {cells['tolerance']}: {within}{others}."


def _errors(rows: Sequence[Row], pairs: Sequence[Pairs]) -> str:
    """Of judged rows; and of all judged points of the figure, where rows are statistics of them."""
    cells = area_summary("", rows)
    if not cells["judged"]:
        return "none."
    said = f"median {percent(cells['median_error_pct'])}, 90th percentile {percent(cells['p90_error_pct'])} of the rows"
    errors = [np.abs(one.error_pct) for one in pairs if one.role == "judged"]
    points = np.concatenate(errors) if errors else np.zeros(0)
    if len(points) <= cells["judged"]:
        return f"{said}."
    return (
        f"{said}; of the {len(points):,} judged points in the figure {percent(float(np.median(points)))}, "
        f"{percent(float(np.percentile(points, 90)))} and at most {percent(float(points.max()))}."
    )


def _worst(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row.role == "judged"]
    if not judged:
        return "none."
    worst = max(judged, key=lambda row: abs(row.error_pct or 0.0))
    # a statistic names all its systems: too many for a line
    of = f"{worst.system}, {worst.what}" if worst.unit else worst.what
    return f"{percent(worst.error_pct, sign='+')}, {worst.id}: {of}."


def _fitted(folder: str) -> str:
    return (
        f"{len(reference.fits())} on rows of the areas above, {len(fitted_sources())} kinds of constants on measured "
        f"kernels and collectives: [all of them, with what each was fitted on]({folder}/{FITS}.md)."
    )
