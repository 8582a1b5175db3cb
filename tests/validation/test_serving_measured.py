"""Services under load against measured rows. Limits are today's, with a margin; `aim` is what is asked for.

Where physics moves, the limits in ``workloads/reference/serving.yaml`` move with it, downwards.
"""

from __future__ import annotations

import csv
import re

import pytest

from cmsim.validation import reference
from cmsim.validation.serving import ServingAreaSpec

SETS = reference.read_spec("serving", ServingAreaSpec)[0].sets


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, of in SETS.items() if of.judged])
def test_sets_stay_under_their_limits(predicted_whole, name):
    for statistic in ("median", "p90"):
        row = predicted_whole[f"{name}/{statistic}"]
        assert row["role"] == ("fitted" if SETS[name].fitted else "judged")
        assert row["error_pct"] <= getattr(SETS[name], f"{statistic}_pct")


def test_every_row_of_the_tables_is_in_a_set():
    """Nothing is dropped in silence, and no row is both fitted and held out."""
    for table in {one.table for one in SETS.values()}:
        with (reference.folder() / table).open(newline="") as lines:
            for row in csv.DictReader(lines):
                of = [
                    one.fitted
                    for one in SETS.values()
                    if one.table == table
                    and not one.without
                    and all(re.search(p, row[column], re.I) for column, p in one.of.items())
                ]
                assert len(set(of)) == 1, row
