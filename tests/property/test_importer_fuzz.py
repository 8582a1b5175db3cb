"""Damaged traces of every format: read, or refused with a word; never anything else. ``make fuzz`` tries a million."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import settings

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"
SPEC = importlib.util.spec_from_file_location("cmsim_fuzz", PATH)
assert SPEC is not None and SPEC.loader is not None
fuzz = importlib.util.module_from_spec(SPEC)
sys.modules["cmsim_fuzz"] = fuzz
SPEC.loader.exec_module(fuzz)

#: mutations of each format
INPUTS = 3 * settings.default.max_examples


@pytest.mark.parametrize("form", sorted(fuzz.SAMPLES))
def test_only_input_errors_come_out(form):
    _, seen, _ = fuzz.fuzz(form, INPUTS, seed=1)
    assert sum(seen.values()) == INPUTS
    assert seen["refused"] > 0, "no damage was noticed"


def test_samples_are_read_before_they_are_damaged(tmp_path):
    for form, own in fuzz.SAMPLES.items():
        outcomes = set()
        for name, data in own:
            (tmp_path / name).write_bytes(data)
            outcomes.add(fuzz.open_all(form, tmp_path / name))
        assert "read" in outcomes, form


def test_mutations_depend_on_the_seed_alone():
    form = sorted(fuzz.SAMPLES)[0]
    one, same, other = (list(fuzz.inputs(form, 5, seed)) for seed in (3, 3, 4))
    assert one == same != other
