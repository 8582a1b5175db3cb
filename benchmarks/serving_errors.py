"""Errors of a table that ``cmsim predict serving`` wrote, by engine, system and model: median and 90th percentile.

    cmsim predict serving TABLE --out predicted.csv
    python benchmarks/serving_errors.py predicted.csv

Rows that are no evidence (``left_out`` and ``ttft_left_out`` of ``workloads/published/serving.yaml``) do not count.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np
import pandas as pd

from cmsim.published import service_form_of
from cmsim.published.predict import cells_of

#: quantities: what a row says was measured, and the column of what was predicted
QUANTITIES = {
    "tpot": ("tpot_ms", "predicted_tpot_ms"),
    "ttft": ("ttft_ms", "predicted_ttft_ms"),
    "tokens/s": ("output_tokens_per_s", "predicted_output_tokens_per_s"),
}


def errors(table: str) -> dict[tuple[str, ...], dict[str, list[float]]]:
    """Predicted over measured minus one, by group and quantity."""
    frame = pd.read_csv(table)
    form = service_form_of([str(name) for name in frame.columns])
    out: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cells in cells_of(frame):
        if form.left_out(cells):
            continue
        measured = form.measured(cells)
        mode, engine = cells.get("mode", ""), cells.get("backend", "")
        model = cells.get("model_path", cells.get("model", "")).split("/")[-1]
        groups = (
            ("all",),
            (mode, engine),
            (mode, engine, cells.get("system", "")),
            (mode, engine, cells.get("system", ""), model),
        )
        for quantity, (said, column) in QUANTITIES.items():
            there, found = getattr(measured, said), cells.get(column)
            if not there or not found or (quantity == "ttft" and form.ttft_left_out(cells)):
                continue
            for group in groups:
                out[group][quantity].append(float(found) / there - 1)
    return out


def main(table: str) -> None:
    """Prints the groups, the smallest last."""
    print(f"{'':58}" + "".join(f"{name:>6} {'n':>5} {'median':>7} {'p90':>6} {'signed':>7}" for name in QUANTITIES))
    for group, found in sorted(errors(table).items()):
        line = f"{' '.join(group):58}"
        for quantity in QUANTITIES:
            some = 100 * np.array(found.get(quantity, [np.nan]))
            size, half, most = np.abs(some), np.median(np.abs(some)), np.percentile(np.abs(some), 90)
            line += f"{'':6} {len(size):5} {half:7.1f} {most:6.1f} {np.median(some):+7.1f}"
        print(line)


if __name__ == "__main__":
    main(sys.argv[1])
