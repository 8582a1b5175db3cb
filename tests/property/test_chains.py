"""Does a chain of collectives as one event change anything? And is it one?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmsim.engine import Options, plan, play, record
from cmsim.engine.running import Running
from cmsim.hardware import load_system
from cmsim.network import Fluid
from cmsim.workload.ops import ProgramBuilder, assemble

SYSTEM = load_system("hgx_h100", domains=2)
RANKS = 16


@st.composite
def passes(draw):
    """Of two halves of the ranks: passes of work and tensor-parallel collectives, then a message to the other half,
    beside gradients that another stream reduces. Some work runs beside a collective, two such may follow each other,
    and a collective another."""
    size = st.sampled_from([1.0, 1e3, 1e6, 5e7])
    us = st.sampled_from([0, 1, 20, 300])
    beside = st.lists(st.none() | us, min_size=1, max_size=3)
    work = st.lists(st.tuples(us, size, beside), min_size=1, max_size=5)
    half = st.lists(st.tuples(work, size, st.booleans()), min_size=2, max_size=3)
    return draw(half), draw(half)


def programs(halves):
    turns = min(map(len, halves))
    builders = []
    for number, half in enumerate(halves):
        build = ProgramBuilder()
        for turn, (works, _, reduces) in enumerate(half[:turns]):
            message_B = halves[0][turn][1]
            row = build.recv("x", stream="in", size_B=message_B, slot="in") if number else None
            after = [] if row is None else [row]
            for us, size_B, beside in works:
                after = [build.host("work", stream="main", recorded_s=us * 1e-6, after=after)]
                for also in beside:
                    row = build.collective(
                        "sum", stream="tp", collective="all_reduce", size_B=size_B, slot="tp", after=after
                    )
                    if also is None:
                        after = [row]
                    else:
                        after = [row, build.host("beside", stream="main", recorded_s=also * 1e-6, after=after)]
            if reduces:
                build.collective("gradients", stream="dp", collective="all_reduce", size_B=3e7, slot="dp", after=after)
            if not number:
                build.send("x", stream="out", size_B=message_B, slot="out", after=after)
            build.host("work", stream="main", recorded_s=5e-6, after=after)
        builders.append(build)
    rank = np.arange(RANKS)
    first = rank < RANKS // 2
    return assemble(
        builders,
        program=(~first).astype(np.int64),
        groups={
            "tp": rank // 4,
            "dp": rank % 4 + 4 + 4 * ~first,
            "out": np.where(first, 20 + rank, -1),
            "in": np.where(first, -1, 20 + rank - RANKS // 2),
        },
    )


def one_by_one(made, network=None):
    """Every collective an event."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Running, "_chains", lambda self, i, _: ([], [-1] * len(self.of[i].first), []))
        return play(made, network)


def all_of(made, line):
    times = [[column.tolist() for column in part] for part in (line.start_ps, line.end_ps, line.wait_ps)]
    return times, {name: column.tolist() for name, column in record.links_columns(made, line).items()}


@given(passes(), st.sampled_from(["ideal", "fluid", "flow"]), st.booleans())
def test_chains_change_nothing(halves, network, folded):
    made = plan(programs(halves), SYSTEM, Options(network="flow" if network == "flow" else "fluid", fold=folded))
    assert all_of(made, play(made, network)) == all_of(made, one_by_one(made, network))


def test_chains_are_one_event_and_break_where_they_meet_others(monkeypatch):
    """Ten all-reduces, whose ports a long message of the other half comes across in the middle."""
    rides, broken = [], []
    ride, leave = Fluid.ride, Fluid._leave
    monkeypatch.setattr(Fluid, "ride", lambda self, one: rides.append(ride(self, one)) or rides[-1])
    monkeypatch.setattr(Fluid, "_leave", lambda self, one: broken.append(one) or leave(self, one))
    one, two = ProgramBuilder(), ProgramBuilder()
    row = one.collective("first", stream="main", collective="all_reduce", size_B=1e3, slot="tp")
    work = one.host("work", stream="main", recorded_s=1e-3, after=[row])
    one.send("x", stream="out", size_B=1e8, slot="out", after=[work])
    for _ in range(10):
        work = two.host("work", stream="main", recorded_s=1e-4)
        two.collective("sum", stream="main", collective="all_reduce", size_B=2e7, slot="tp", after=[work])
    two.recv("x", stream="in", size_B=1e8, slot="out'")
    rank = np.arange(8)
    groups = {
        "tp": rank // 4,
        "out": np.where(rank < 4, rank + 2, -1),
        "out'": np.where(rank < 4, -1, rank - 2),
    }
    made = plan(assemble([one, two], program=rank // 4, groups=groups), SYSTEM)
    line = play(made)
    assert len(broken) == 1 and rides.count(True) == 2
    assert all_of(made, line) == all_of(made, one_by_one(made))


def test_classes_that_meet_in_a_chain_go_through_it_together(monkeypatch):
    """A group half of which is told to begin from another node: two classes, one event for ten all-reduces, at the
    start of which one waits for the other."""
    rides = []
    ride = Fluid.ride
    monkeypatch.setattr(Fluid, "ride", lambda self, one: rides.append(ride(self, one)) or rides[-1])
    one, two, idle = ProgramBuilder(), ProgramBuilder(), ProgramBuilder()
    got = one.recv("x", stream="in", size_B=1e6, slot="in")
    work = one.host("work", stream="main", recorded_s=1e-4, after=[got])
    for _ in range(10):
        work = one.collective("sum", stream="main", collective="all_reduce", size_B=2e7, slot="tp", after=[work])
        work = one.host("work", stream="main", recorded_s=1e-4)
    two.send("x", stream="out", size_B=1e6, slot="out")
    idle.host("work", stream="main", recorded_s=1e-6)
    rank = np.arange(RANKS)
    groups = {
        "tp": np.where(rank < 4, 0, -1),
        "in": np.where(rank < 4, rank + 1, -1),
        "out": np.select([(rank >= 4) & (rank < 6), (rank >= 8) & (rank < 10)], [rank - 3, rank - 5], -1),
    }
    program = np.where(rank < 4, 0, np.where(groups["out"] < 0, 2, 1))
    made = plan(assemble([one, two, idle], program=program, groups=groups), SYSTEM)
    line = play(made)
    assert len(np.unique(made.folding.rank_class[:4])) == 2 and rides == [True]
    assert max(wait.max() for wait in line.wait_ps) > 0
    assert all_of(made, line) == all_of(made, one_by_one(made))


@pytest.mark.parametrize("beside_us", [0, 10, 1000])
@pytest.mark.parametrize("again", [False, True])
def test_work_beside_a_collective_is_part_of_the_chain(monkeypatch, beside_us, again):
    """Shorter than the message or longer; before another collective of the same group, or before work."""
    rides = []
    ride = Fluid.ride
    monkeypatch.setattr(Fluid, "ride", lambda self, one: rides.append(ride(self, one)) or rides[-1])
    build = ProgramBuilder()
    after = [build.collective("sum", stream="tp", collective="all_reduce", size_B=2e7, slot="tp")]
    for _ in range(5):
        after = [build.host("work", stream="main", recorded_s=1e-5, after=after)]
        row = build.collective("sum", stream="tp", collective="all_reduce", size_B=2e7, slot="tp", after=after)
        after = [row, build.host("beside", stream="main", recorded_s=beside_us * 1e-6, after=after)]
        if again:
            after = [build.collective("sum", stream="tp", collective="all_reduce", size_B=1e6, slot="tp", after=after)]
    build.host("work", stream="main", recorded_s=1e-5, after=after)
    rank = np.arange(4)
    made = plan(assemble([build], program=0 * rank, groups={"tp": 0 * rank}), SYSTEM)
    line = play(made)
    assert rides == [True]
    assert all_of(made, line) == all_of(made, one_by_one(made))
