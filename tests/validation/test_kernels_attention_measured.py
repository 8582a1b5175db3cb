"""The accuracy of attention and latent attention, on rows that were held out of their fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmsim.calibration.held_out import errors_pct, folds_of
from cmsim.calibration.kernels import configurations, held_out_us, kernel_rows
from cmsim.hardware import load_accelerator
from cmsim.kernels import kernel_machine
from cmsim.kernels.kinds import KINDS
from cmsim.validation import reference
from cmsim.validation.folds import FoldsSpec, held_out

#: median, 90th percentile [%]: set before the fit, and not moved
MEDIAN, TAIL = 7, 22
KIND_NAMES = ("attention_context", "attention_generation", "mla_context", "mla_generation")
GROUPS = [f"{kind.replace('_', '-')}-{how}" for kind in KIND_NAMES for how in ("configuration", "heads-unseen")]


def test_targets_are_those_of_the_area():
    spec, _ = reference.read_spec("kernels", FoldsSpec)
    assert {(spec.groups[name].median_pct, spec.groups[name].p90_pct) for name in GROUPS} == {(MEDIAN, TAIL)}


@pytest.mark.parametrize("name", GROUPS)
def test_held_out_rows(name):
    rows = held_out("kernels")[name]
    assert len(rows) > 100
    predicted, measured = (np.array([float(row[key]) for row in rows]) for key in ("predicted_us", "measured_us"))
    median, tail = errors_pct(predicted, measured)
    assert median <= MEDIAN
    assert tail <= TAIL


def table(shared, kind, accelerator):
    """Rows of one accelerator; without those that ../shared/reference/PROBLEMS.md tells to leave out."""
    frame = pd.read_parquet(shared / "reference" / "measured" / f"{kind}.parquet")
    frame = frame[frame["system"] == accelerator].reset_index(drop=True)
    if kind == "attention_generation" and accelerator == "a100_sxm":
        seen = frame["isl"] + frame["step"]
        seen = np.where(frame["window_size"] > 0, np.minimum(frame["window_size"], seen), seen)
        cache_B = frame["batch_size"] * frame["num_key_value_heads"] * seen * frame["head_dim"] * 4
        possible = cache_B / (frame["latency_us"] * 1e-6) <= kernel_machine(load_accelerator(accelerator)).memory_Bps
        frame = frame[possible].reset_index(drop=True)
    return frame


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["a100_sxm", "h100_sxm", "gb200"])
@pytest.mark.parametrize("kind", KIND_NAMES)
def test_configurations_held_out_again(shared, kind, accelerator):
    """Fits without a fold, now: no constant of the data files is used."""
    frame = table(shared, kind, accelerator)
    rows, _ = kernel_rows(frame, KINDS[kind], "", accelerator, np.arange(len(frame)))
    time = frame["latency_us"].to_numpy()
    fold = folds_of(configurations(rows))
    median, tail = errors_pct(held_out_us(KINDS[kind], rows, time, load_accelerator(accelerator), fold), time)
    assert median <= MEDIAN
    assert tail <= TAIL
