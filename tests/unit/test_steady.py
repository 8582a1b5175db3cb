"""What makes two instants alike, condition by condition; and times of what comes again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cmsim.engine import lanes, plan, play, record, steady
from cmsim.engine.turns import Turns
from cmsim.execution import options_of, system
from cmsim.hardware import load_system
from cmsim.network import Demand, Log, Segment
from cmsim.repeats import ONCE, Repeat
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.ops import Loop, ProgramBuilder, assemble

#: four turns of two rows, ten apart; the second row is in progress when the first of the next turn starts
START = np.array([[0, 4], [10, 14], [20, 24], [30, 34]])
END = np.array([[4, 12], [14, 22], [24, 32], [34, 42]])


def turns(start=START, end=END, wait=0 * START):
    return Turns(start.ravel(), end.ravel(), 0, start, end, wait)


def changed(column, turn, row, by):
    out = column.copy()
    out[turn, row] += by
    return out


def test_instants_are_alike_where_all_that_is_in_progress_is():
    assert turns().alike(10, 20, 1) == (True, 4)
    assert turns().alike(10, 30, 2) == (True, 4)


@pytest.mark.parametrize(
    "what",
    [
        {"start": changed(START, 1, 1, 1)},  # in progress at the second, for less long
        {"end": changed(END, 1, 1, 1)},  # will end later
        {"wait": changed(0 * START, 1, 1, 1)},  # had to wait
        {"end": changed(END, 1, 1, -5)},  # has ended
        {"end": changed(END, 0, 1, -5)},  # had ended
        {"start": changed(START, 2, 1, -5)},  # one more has started
    ],
)
def test_instants_differ_where_anything_in_progress_does(what):
    assert not turns(**what).alike(10, 20, 1)[0]


def test_instants_differ_where_other_rows_have_started():
    assert not turns().alike(10, 20, 2)[0]
    assert not turns().alike(10, 24, 1)[0]


def test_links_are_shared_alike_where_all_stretches_come_again():
    one, other = Demand(1e6, 0, (0,), (1 << 24,)), Demand(1e6, 0, (1,), (1 << 24,))
    stretches = [Segment(one, 2, 6, 1e9), Segment(other, 3, 5, 1e9)]
    again = [Segment(one.demand, one.start_ps + 10, one.end_ps + 10, one.rate_Bps) for one in stretches]
    assert steady._Shared(Log(stretches + again)).alike(2, 8, 18)
    for wrong in (
        Segment(one, 12, 16, 2e9),  # another rate
        Segment(one, 12, 17, 1e9),  # it ends later
        Segment(one, 13, 16, 1e9),  # it began later
        Segment(other, 12, 16, 1e9),  # another demand
    ):
        assert not steady._Shared(Log([*stretches, wrong, again[1]])).alike(2, 8, 18)
    assert not steady._Shared(Log([*stretches, *again, again[1]])).alike(2, 8, 18)
    # what began before the first of what is in progress is over
    assert steady._Shared(Log([Segment(one, 0, 1, 5e8), *stretches, *again])).alike(2, 8, 18)


def out_of_step(kind):
    """Two ranks of which the first does in a turn twice what the second does once."""
    builders = []
    for rank in range(2):
        build = ProgramBuilder()
        for _ in range(2 * (2 - rank)):
            if kind == "collective":
                build.collective("x", stream="x", collective="all_reduce", size_B=1e3, slot="x")
            else:
                (build.recv if rank else build.send)("x", stream="x", size_B=1e3, slot="x")
        builders.append(build)
    loop = Loop(np.zeros(2, np.int64), np.array([2, 1]), np.array([2, 2]), 30)
    return assemble(builders, program=np.arange(2), groups={"x": np.zeros(2, np.int64)}, loop=loop)


@pytest.mark.parametrize("kind", ["collective", "message"])
def test_ranks_that_do_not_do_the_same_in_a_turn_have_no_steady_state(kind):
    assert not steady._in_step(plan(out_of_step(kind), load_system("hgx_h100")))


def test_times_of_what_comes_again():
    three = Repeat(from_ps=10, period_ps=5, times=2)
    true_ps = np.arange(40)
    kept_ps = three.kept_ps(true_ps)
    assert kept_ps.tolist() == [*range(10), *range(10, 15), *range(10, 15), *range(10, 30)]
    kept = np.array([3, 10, 12, 15, 20])
    assert sorted(three.true_ps(kept)) == [3, 10, 12, 15, 17, 20, 22, 25, 30]
    assert three.true_count(kept) == 9
    assert all(three.kept_ps(np.array([at]))[0] in (*kept, 15) for at in three.true_ps(kept).tolist())
    assert np.array_equal(ONCE.true_ps(kept), kept) and np.array_equal(ONCE.kept_ps(kept), kept)


def test_what_begins_comes_as_often_as_the_stretch_it_begins_in():
    number, later = Repeat(from_ps=10, period_ps=5, times=2).copies(np.array([3, 10, 11, 15, 16]))
    assert number.tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 4]
    assert later.tolist() == [0, 0, 0, 5, 10, 0, 5, 10, 10]


def test_integrals_over_what_comes_again():
    """A function that is 1 from 11 to 13 and 3 from 20 on, kept until 24."""
    at, until = np.array([0, 11, 13, 20, 24]), np.array([0.0, 0.0, 2.0, 2.0, 14.0])
    three = Repeat(from_ps=10, period_ps=5, times=2)
    edges = np.array([0, 11, 12, 16, 18, 26, 29, 30, 34])
    level = np.zeros(34)
    for first in (11, 16, 21):
        level[first : first + 2] = 1.0
    level[30:34] = 3.0
    expected = [level[a:b].sum() for a, b in itertools.pairwise(edges.tolist())]
    assert three.integrals(edges, at, until).tolist() == expected


@pytest.fixture(scope="module")
def pipelines_beside_each_other():
    """Three of three stages each, of which some have a box in common and some have not: each has a pace of its own."""
    workload = {
        "kind": "training",
        "model": "llama-3.1-8b",
        "ranks": 18,
        "sequence_length": 1024,
        "global_batch": 120,
        "parallel": {"tp": 2, "pp": 3, "dp": 3},
        "recompute": "selective",
        "precision": {"weights": "bf16", "activations": "bf16"},
    }
    (one,) = load_scenario({"systems": [{"system": "hgx_h100", "domains": 3}], "workload": workload}).runs
    its = system(one)
    return plan(generate.programs(one.spec, its, loops=True), its, options_of(one, its))


def test_pipelines_of_unequal_pace_are_the_play_of_all_of_it(pipelines_beside_each_other):
    made = pipelines_beside_each_other
    part, _ = lanes.parts(made)
    assert max(part) == 2
    short = steady.laid_out(made, 0)
    apart = lanes.lanes_of(short, play(short), steady._period)
    assert len({one.repeat.period_ps / one.turns for one in apart.found}) > 1
    full, timeline = steady._steady(made)
    played = play(steady.laid_out(made, made.programs.loop.left_out))
    assert timeline.repeat.times == 0 and full.programs.loop is None
    for name in ("start_ps", "end_ps", "wait_ps"):
        for one, other in zip(getattr(timeline, name), getattr(played, name), strict=True):
            assert np.array_equal(one, other), name
    one, other = record.links_columns(full, timeline), record.links_columns(full, played)
    assert all(np.array_equal(one[name], other[name]) for name in other)


def test_a_part_that_is_not_as_it_was_says_nothing(pipelines_beside_each_other, monkeypatch):
    """Held up in no part of it, nothing is so much later; and links that were shared otherwise are seen."""
    short = steady.laid_out(pipelines_beside_each_other, 0)
    apart = lanes.lanes_of(short, play(short), steady._period)
    left_out = apart.each * (short.programs.loop.left_out // apart.each)
    assert apart.whole(left_out) is not None
    monkeypatch.setattr(lanes.Shared, "alike", lambda *_: False)
    assert apart.whole(left_out) is None
    monkeypatch.undo()
    monkeypatch.setattr(lanes, "play", lambda _: apart.timeline)
    assert apart.whole(left_out) is None


def test_a_class_is_the_same_so_much_later_in_another_play():
    one, later = (
        turns(),
        Turns(*(column + 7 for column in (START.ravel(), END.ravel())), 0, START + 7, END + 7, 0 * START),
    )
    assert one.same(20, later, 7) == (True, 14)
    assert not one.same(20, later, 8)[0]
    for what in (
        {"start": changed(START, 1, 1, 1)},
        {"end": changed(END, 1, 1, 1)},
        {"wait": changed(0 * START, 1, 1, 1)},
    ):
        assert not turns(**what).same(20, later, 7)[0]
