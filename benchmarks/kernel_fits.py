"""Fits the constants of kernels anew: every file of topologies/kernels that rests on measured rows, and what is judged.

    python benchmarks/kernel_fits.py FOLDER [KIND ...] [--accelerator NAME] [--seen]

FOLDER has a table for each kind (gemm.parquet, moe.parquet, mla_generation.parquet, ...) as `cmsim calibrate` takes it,
of ai-dynamo/aiconfigurator 095f58a51c4c. Each accelerator of a table is fitted as `cmsim calibrate TABLE --accelerator
NAME --out topologies/kernels/NAME_KIND.yaml` does it; the rows of workloads/reference/kernels_folds.csv are then
predicted by fits without their fold, of configurations and of weights or heads not seen (with --seen the latter stay as
they are). Rows faster than the peaks allow are left out, also of what is judged. A quarter of an hour for all.
"""

from __future__ import annotations

import csv
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cmsim.calibration.held_out import folds_of
from cmsim.calibration.kernels import calibrate_kernels, held_out_us, kernel_rows, possible
from cmsim.hardware import load_accelerator
from cmsim.kernels import kernel_machine
from cmsim.kernels.kinds import KINDS

ROOT = Path(__file__).resolve().parents[1]
FOLDS = ROOT / "workloads" / "reference" / "kernels_folds.csv"
ORIGIN = "{table} of ai-dynamo/aiconfigurator 095f58a51c4c (Apache-2.0, NVIDIA CORPORATION & AFFILIATES)"
#: what rows of a fold share in the groups of unseen weights and heads
UNSEEN = {
    "gemm": ("n", "k"),
    "attention_context": ("num_heads", "num_key_value_heads"),
    "attention_generation": ("num_heads", "num_key_value_heads"),
    "mla_context": ("num_heads",),
    "mla_generation": ("num_heads",),
}


def fit(path: Path, kind: str, accelerator: str) -> np.ndarray:
    """Writes the files of one accelerator; its rows as fits without their fold have them. [us]"""
    frame = pd.read_parquet(path)
    done = calibrate_kernels(frame, kind, file=str(path), accelerator=accelerator)
    out = ROOT / "topologies" / "kernels" / f"{accelerator}_{kind}.yaml"
    done.write(out)
    out.write_text(
        out.read_text(encoding="utf-8").replace(
            f"fitted to {path.name}", "fitted to " + ORIGIN.format(table=path.name)
        ),
        encoding="utf-8",
    )
    print(f"{accelerator} {kind}: held out {done.held_out_pct[0]:.2f} % and {done.held_out_pct[1]:.2f} %", flush=True)
    for name, (count, median, tail) in done.by_variant.items():
        print(f"    {name}: {count} rows, {median:.2f} % and {tail:.2f} %", flush=True)
    return done.held_us


def unseen(path: Path, kind: str, accelerator: str) -> np.ndarray:
    """The same by folds of weights, or of heads."""
    frame = pd.read_parquet(path)
    frame = frame[frame["system"] == accelerator].reset_index(drop=True)
    rows, _ = kernel_rows(frame, KINDS[kind], str(path), accelerator, np.arange(len(frame)))
    time, spec = frame["latency_us"].to_numpy(), load_accelerator(accelerator)
    good = possible(KINDS[kind], rows, time, kernel_machine(spec))
    shared = np.stack([rows[name][good] for name in UNSEEN[kind]], axis=1)
    number = np.unique(shared, axis=0, return_inverse=True)[1].reshape(-1)
    out = np.full(len(frame), np.nan)
    out[good] = held_out_us(KINDS[kind], rows.take(good), time[good], spec, folds_of(number))
    return out


def write_folds(predicted: dict[tuple[str, bool], dict[int, float]]) -> None:
    """Puts new predictions into the rows that are judged: by kind and whether the group is of what was not seen."""
    with FOLDS.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        names, rows = list(reader.fieldnames or ()), list(reader)
    kept = []
    for row in rows:
        kind, _, number = row["id"].rpartition("-")
        of = predicted.get((kind, row["group"].endswith("unseen")))
        if of is not None and number.isdigit() and int(number) in of:
            value = of[int(number)]
            if np.isnan(value):
                continue
            row["predicted_us"] = f"{value:.5g}"
        kept.append(row)
    with FOLDS.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def main() -> None:
    words = sys.argv[1:]
    only = words.pop(words.index("--accelerator") + 1) if "--accelerator" in words else None
    folder, *kinds = [word for word in words if not word.startswith("--")]
    predicted: dict[tuple[str, bool], dict[int, float]] = {}
    for kind in kinds or KINDS:
        path = Path(folder) / f"{kind}.parquet"
        systems = pd.read_parquet(path, columns=["system"])["system"]
        for accelerator in [only] if only else sorted(systems.unique()):
            places = np.flatnonzero((systems == accelerator).to_numpy())
            found = [(False, fit(path, kind, accelerator))]
            if kind in UNSEEN and "--seen" not in words:
                found.append((True, unseen(path, kind, accelerator)))
            for which, held in found:
                predicted.setdefault((kind, which), {}).update(zip(places.tolist(), held.tolist(), strict=True))
        write_folds(predicted)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
