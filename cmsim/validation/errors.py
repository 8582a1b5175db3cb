"""Errors of areas as data, which intervals of runs are drawn from: ``workloads/reference/errors.yaml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cmsim.validation.pairs import Pairs
from cmsim.validation.row import Row, area_summary

_HEAD = """\
# Written by `cmsim validate --errors workloads/reference/errors.yaml`. Change code or data, not this page.
# Absolute errors of judged points, of rows where an area has no more points than rows: what intervals of runs stand on.
areas:
"""


def errors_text(areas: Mapping[str, Sequence[Row]], pairs: Mapping[str, Sequence[Pairs]]) -> str:
    """The file: count, median and 90th percentile of the absolute errors of every area with judged rows. [%]"""
    lines = []
    for name, rows in areas.items():
        cells = area_summary(name, rows)
        if not cells["judged"]:
            continue
        count, median, p90 = cells["judged"], cells["median_error_pct"], cells["p90_error_pct"]
        points = [np.abs(one.error_pct) for one in pairs.get(name, ()) if one.role == "judged"]
        every = np.concatenate(points) if points else np.zeros(0)
        if len(every) > count:
            count, median, p90 = len(every), float(np.median(every)), float(np.percentile(every, 90))
        lines.append(f"  {name}: {{count: {count}, median_pct: {median:.1f}, p90_pct: {p90:.1f}}}\n")
    return _HEAD + "".join(lines)
