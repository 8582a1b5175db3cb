"""The area of measured dispatch and combine: errors on rows that were held out of the fit, by group.

``expert_parallel_folds.csv`` has measured times and what a fit without the row's fold predicted; the constants that
ship (``topologies/libraries``) were then fitted to all rows. Groups are judged as those of ``collectives``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np

from cmsim.errors import InputError, did_you_mean
from cmsim.validation import reference
from cmsim.validation.area import Progress
from cmsim.validation.collectives import CollectivesSpec
from cmsim.validation.row import Row

FILE = "expert_parallel_folds.csv"


def held_out() -> dict[str, list[dict[str, str]]]:
    """The rows of the file by group, in its order."""
    with (reference.folder() / FILE).open(encoding="utf-8", newline="") as lines:
        groups: dict[str, list[dict[str, str]]] = {}
        for row in csv.DictReader(lines):
            groups.setdefault(row["group"], []).append(row)
    return groups


def rows(area: str, progress: Progress) -> Sequence[Row]:
    """Two rows a group: its median error and the 90th percentile.

    Raises InputError where a group of the file has no line in the area's YAML, or the reverse.
    """
    spec, document = reference.read_spec(area, CollectivesSpec)
    groups = held_out()
    for name in groups.keys() ^ spec.groups.keys():
        hint = did_you_mean(name, spec.groups if name in groups else groups)
        raise InputError(document.problem(("groups", name), f"the group '{name}' is in one of two files only. {hint}"))
    found: list[Row] = []
    for number, (name, group) in enumerate(spec.groups.items()):
        progress(f"{area}/{name}", number / len(spec.groups))
        measured = np.array([float(row["measured_us"]) for row in groups[name]])
        error = np.abs(np.array([float(row["predicted_us"]) for row in groups[name]]) / measured - 1)
        judged = (
            ("median", float(np.median(error)), group.median_pct),
            ("p90", float(np.percentile(error, 90)), group.p90_pct),
        )
        found += [
            Row(
                id=f"{name}/{statistic}",
                area=area,
                role="judged",
                system=", ".join(dict.fromkeys(row["system"] for row in groups[name])),
                what=f"{group.what}: {statistic} absolute error of {len(error)} rows, added to 1",
                published=1.0,
                unit="",
                source=group.source,
                note=f"held out: {group.held_out}",
                predicted=1.0 + value,
                tolerance_pct=tolerance_pct,
            )
            for statistic, value, tolerance_pct in judged
        ]
    return found
