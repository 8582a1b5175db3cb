"""ServeGen: how often one client of a service asked, by window of ten minutes, and how burstily.

No header: start of the window [s], requests per second, coefficient of variation of the time between requests, name of
the distribution fitted to it, and its two parameters: shape [1] and scale [s] (of a Gamma the CV is 1 / sqrt(shape) in
every row). Lengths are in another file.

Source: github.com/alibaba/ServeGen, README and data/language; Xiang et al., ServeGen, NSDI 2026.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from cmsim.reading.bytes_in import LIMIT_B
from cmsim.reading.parsers import Label, Real
from cmsim.reading.tables import read_table
from cmsim.requests.rates import DISTRIBUTIONS, RateWindows

NAME = "servegen"
START, RATE, CV, PATTERN, SHAPE, SCALE = COLUMNS = ("start_s", "rate_rps", "cv", "distribution", "shape", "scale_s")
WINDOW_S = 600.0
_NUMBER = rb"[-+0-9.eE]+"
_ROW = re.compile(rb"%s,%s,%s,[A-Za-z]*,%s,%s\r?" % ((_NUMBER,) * 5))


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return _ROW.fullmatch(start.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0]) is not None


def open_(path: Path, *, limit_B: int = LIMIT_B) -> RateWindows:
    """Raises InputError naming file and line."""
    label = Label()
    parsers = {START: Real(), RATE: Real(), CV: Real(), PATTERN: label, SHAPE: Real(), SCALE: Real()}
    table = read_table(path, parsers, names=COLUMNS, limit_B=limit_B)
    unknown = [code for code, name in enumerate(label.names) if name not in DISTRIBUTIONS]
    table.refuse(np.isin(table[PATTERN], unknown), PATTERN, f"{', '.join(DISTRIBUTIONS)}, or nothing")
    known = np.array([*map(DISTRIBUTIONS.index, label.names), -1], np.int64)[table[PATTERN]]
    table.refuse((known >= 0) & (table[RATE] > 0) & (table[SHAPE] <= 0), SHAPE, "a number above 0")
    steps = np.diff(table[START])
    table.refuse(np.append(False, steps <= 0), START, "later than the window above it")
    width_s = float(steps.min()) if len(steps) else WINDOW_S
    notes = []
    if width_s != WINDOW_S:
        notes.append(f"windows of {width_s:g} s, by the nearest two; {WINDOW_S:g} s is usual")
    gaps = int((steps > width_s).sum())
    if gaps:
        notes.append(f"no window for {float((steps - width_s).sum()):g} s in {gaps} gaps: no requests there")
    unfitted = int(((known < 0) & (table[RATE] > 0)).sum())
    if unfitted:
        notes.append(f"{unfitted} windows have a rate and no distribution: drawn as exponential")
    return RateWindows(
        format=NAME,
        source=str(path),
        start_s=table[START],
        width_s=width_s,
        rate_rps=table[RATE],
        cv=table[CV],
        distribution=known,
        shape=table[SHAPE],
        scale_s=table[SCALE],
        facts={
            "columns": len(COLUMNS),
            "rows": len(table),
            "first_window_s": float(table[START][0]),
            "last_window_s": float(table[START][-1]),
            "patterns": label.counts(table[PATTERN]),
            "rate_sum": math.fsum(table[RATE]),
        },
        notes=tuple(notes),
    )
