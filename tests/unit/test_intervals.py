"""Links as intervals: rows that stand for several stretches are, stretch by stretch, what moved."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cmsim import api, energy, engine
from cmsim.arrays import recurred
from cmsim.engine.intervals import Intervals, intervals, stretches
from cmsim.engine.record import links_columns, ops_columns
from cmsim.network import Demand, Log, Segment
from cmsim.scenario import load_scenario
from cmsim.workload import generate


def one_by_one(found: Intervals) -> Intervals:
    """Every stretch as a row, in the order of ``stretches``."""
    row, start, end = recurred(found.start_ps, found.end_ps, found.times, found.each_ps)
    out = Intervals(found.resource[row], found.units[row], start, end, np.ones_like(row), end - start)
    order = np.lexsort((start, out.resource))
    return Intervals(*(column[order] for column in out))


def check(segments: list[Segment]) -> Intervals:
    found, expected = intervals(Log(segments)), stretches(Log(segments))
    for got, wanted in zip(one_by_one(found), expected, strict=True):
        assert np.array_equal(got, wanted)
    assert (found.times * found.each_ps * found.units).sum() == (expected.each_ps * expected.units).sum()
    return found


def segment(demand: Demand, start: int, length: int, rate: float = 1e9) -> Segment:
    return Segment(demand, start, start + length, rate)


ONE = 1 << 24
A, B = Demand(1.0, 0, (0, 1), (ONE, ONE)), Demand(1.0, 0, (1, 2), (ONE, ONE // 3))


def test_rounds_with_a_pause_between_them_are_one_row():
    found = check([segment(A, 100 + 30 * i, 20) for i in range(50)])
    assert found.resource.tolist() == [0, 1]
    assert found.start_ps.tolist() == [100, 100] and found.end_ps.tolist() == [100 + 30 * 49 + 20] * 2
    assert found.times.tolist() == [50, 50] and found.each_ps.tolist() == [20, 20]


def test_rounds_without_a_pause_are_one_stretch():
    found = check([segment(A, 20 * i, 20) for i in range(50)])
    assert found.times.tolist() == [1, 1] and found.each_ps.tolist() == [1000, 1000]


def test_where_rounds_meet_on_a_link_it_is_the_sum():
    """Of A all 30, of B all 45: link 1 has both."""
    segments = [segment(A, 30 * i, 20) for i in range(12)] + [segment(B, 45 * i + 5, 10) for i in range(8)]
    found = check(segments)
    assert (found.resource == 0).sum() == 1 and (found.resource == 2).sum() == 1
    assert (found.resource == 1).sum() > 2


@pytest.mark.parametrize("seed", range(40))
def test_any_segments(seed):
    rng = np.random.default_rng(seed)
    demands = [
        Demand(1.0, 0, tuple(rng.choice(6, size, replace=False).tolist()), tuple(rng.integers(0, ONE, size).tolist()))
        for size in rng.integers(1, 4, 5).tolist()
    ]
    segments = []
    for _ in range(int(rng.integers(1, 12))):
        demand, rate = demands[int(rng.integers(5))], float(rng.choice([1e9, 2.5e9, 1.0]))
        start, gap, length = (int(rng.integers(1, 40)) for _ in range(3))
        segments += [segment(demand, start + i * gap, length, rate) for i in range(int(rng.integers(1, 9)))]
    check([segments[i] for i in rng.permutation(len(segments)).tolist()])


def test_nothing_moved():
    assert len(intervals(Log()).resource) == len(stretches(Log()).resource) == 0


@pytest.mark.parametrize(
    ("system", "workload", "changes"),
    [
        ({"system": "cloudmatrix384", "accelerators": 16}, {"collective": "all_reduce", "algorithm": "ring"}, {}),
        ({"system": "gb200_nvl72", "accelerators": 16}, {"collective": "all_to_all", "repeat": 3}, {}),
        (
            {"system": "hgx_h100", "domains": 2},
            {"collective": "all_reduce", "algorithm": "ring"},
            {"routing": "hashed", "faults": [{"part": "nic/3", "left": 0.5, "from_s": 1e-4}]},
        ),
    ],
    ids=["rounds", "calls", "drawn and broken"],
)
def test_a_run_has_the_bytes_and_the_power_of_its_stretches(system, workload, changes):
    workload = {"kind": "collective", "message_bytes": 1e8, **workload}
    (one,) = load_scenario({"systems": [system], "workload": workload, "network": "flow", **changes}).runs
    where = api.system(one)
    plan = engine.plan(generate.programs(one.spec, where), where, api.options_of(one, where))
    line = engine.play(plan)
    found = check(line.segments)
    assert len(found.times) < found.times.sum()
    links = links_columns(plan, line)
    by_stretch = links_columns(dataclasses.replace(plan, network="fluid"), line)
    assert "times" not in by_stretch and links["times"].sum() == len(by_stretch["start_ps"])
    for name in np.unique(links["resource"].astype(str)).tolist():
        ours, theirs = (one["resource"] == name for one in (links, by_stretch))
        assert links["bytes_B"][ours].sum() == pytest.approx(by_stretch["bytes_B"][theirs].sum(), rel=1e-12)
        used = (links["utilization"] * links["times"] * links["each_ps"])[ours].sum()
        each = by_stretch["end_ps"] - by_stretch["start_ps"]
        assert used == pytest.approx((by_stretch["utilization"] * each)[theirs].sum(), rel=1e-12)
    ops = ops_columns(plan, line)
    power = [
        energy.power_over_time(where, ops, columns, makespan_ps=line.makespan_ps).columns()
        for columns in (links, by_stretch)
    ]
    assert list(power[0]) == list(power[1])
    assert all(np.array_equal(power[0][key], power[1][key]) for key in power[0])
