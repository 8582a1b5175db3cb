"""Services under load against measured rows. Limits are today's, with a margin; `aim` is what is asked for.

Where physics moves, the limits in ``workloads/reference/serving.yaml`` move with it, downwards.
"""

from __future__ import annotations

import csv
import re

import pytest

from cmsim import api
from cmsim.scenario import load_scenario
from cmsim.validation import reference
from cmsim.validation.serving import ServingAreaSpec, _chosen

SETS = {
    name: of
    for area in ("serving", "serving-throughput")
    for name, of in reference.read_spec(area, ServingAreaSpec)[0].sets.items()
}


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


def test_a_system_left_out_is_told_with_constants_of_the_others():
    """Every row that is in such a set is of one system, and has the constants that are found without it."""
    apart = {name: of for name, of in SETS.items() if of.without}
    assert apart
    for of in apart.values():
        assert not of.fitted
        chosen = [(row, case) for _, _, row, case in _chosen(of) if case.scenario is not None]
        for one in of.without:
            its = [case for row, case in chosen if all(re.search(p, row[c], re.I) for c, p in one.of.items())]
            (system,) = {case.scenario["systems"][0]["system"] for case in its}
            run = load_scenario(its[0].scenario).runs[0]
            told = api.system(run)
            assert told.name == system
            assert {key: getattr(told.stack.serving, key) for key in one.serving} == one.serving
        everybody = [
            row
            for row, _ in chosen
            if not any(all(re.search(p, row[c], re.I) for c, p in one.of.items()) for one in of.without)
        ]
        assert not everybody
