"""Areas of measured times: errors on rows that were held out of a fit, by group. Data alone makes a new one.

``<area>_folds.csv`` has measured times and what a fit without the row's fold predicted; the constants that ship were
then fitted to all rows. A group is judged by the median and by the 90th percentile of its absolute errors, each a row
of the area: measured over measured, 1, beside 1 plus the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field, NonNegativeFloat

from cmsim.errors import InputError, did_you_mean
from cmsim.reading import Spec
from cmsim.reading.tables import Record, read_records
from cmsim.validation import reference
from cmsim.validation.area import Progress
from cmsim.validation.pairs import Pairs
from cmsim.validation.reference import AreaSpec
from cmsim.validation.row import Row

_NEEDED = ("group", "system", "measured_us", "predicted_us")


class GroupSpec(Spec):
    """What a group of rows has to reach."""

    what: str
    median_pct: NonNegativeFloat
    p90_pct: NonNegativeFloat
    held_out: str = Field(description="how rows were held out of the fit")
    figure: str = Field(default="", description="what the figure calls it, as others may be; default: the group's name")
    source: str


class FoldsSpec(AreaSpec):
    """``<area>.yaml``."""

    groups: dict[str, GroupSpec] = Field(description="by the name in the column `group`")


def held_out(area: str) -> dict[str, list[Record]]:
    """The measured rows of an area by group, in the file's order."""
    groups: dict[str, list[Record]] = {}
    for row in read_records(reference.folder() / f"{area}_folds.csv", needed=_NEEDED):
        groups.setdefault(row["group"], []).append(row)
    return groups


def rows(area: str, progress: Progress) -> Sequence[Row]:
    """Two rows a group: its median error and the 90th percentile.

    Raises InputError where a group of the file has no line in the area's YAML, or the reverse.
    """
    spec, document = reference.read_spec(area, FoldsSpec)
    groups = held_out(area)
    for name in groups.keys() ^ spec.groups.keys():
        hint = did_you_mean(name, spec.groups if name in groups else groups)
        raise InputError(document.problem(("groups", name), f"the group '{name}' is in one of two files only. {hint}"))
    found: list[Row] = []
    for number, (name, group) in enumerate(spec.groups.items()):
        progress(f"{area}/{name}", number / len(spec.groups))
        error = np.abs(_pairs(name, groups[name]).error_pct) / 100
        systems = ", ".join(dict.fromkeys(row["system"] for row in groups[name]))
        for statistic, value, tolerance_pct in (
            ("median", float(np.median(error)), group.median_pct),
            ("p90", float(np.percentile(error, 90)), group.p90_pct),
        ):
            found.append(
                Row(
                    id=f"{name}/{statistic}",
                    area=area,
                    role="judged",
                    system=systems,
                    what=f"{group.what}: {statistic} absolute error of {len(error)} rows, added to 1",
                    published=1.0,
                    unit="",
                    source=group.source,
                    note=f"held out: {group.held_out}",
                    predicted=1.0 + value,
                    tolerance_pct=tolerance_pct,
                )
            )
    return found


def pairs(area: str, _: Sequence[Row]) -> list[Pairs]:
    """Every measured time beside its prediction, a group for each group of the file. [us]"""
    spec = reference.read_spec(area, FoldsSpec)[0]
    return [_pairs(spec.groups[name].figure or name, rows) for name, rows in held_out(area).items()]


def _pairs(name: str, rows: Sequence[Mapping[str, str]]) -> Pairs:
    measured, predicted = (np.array([float(row[key]) for row in rows]) for key in ("measured_us", "predicted_us"))
    return Pairs(name, "us", "judged", measured, predicted)
