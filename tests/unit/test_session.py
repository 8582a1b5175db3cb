"""Do plans that share a session run as one merged plan would, at any time, and do rates apply to what runs?"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim.engine import Options, Session, plan, plan_together, play, record
from cmsim.errors import FailedError, InputError
from cmsim.hardware import load_system
from cmsim.network import NETWORKS
from cmsim.workload.ops import ProgramBuilder, assemble

US = 1_000_000  # in ps
#: nodes of eight ranks under uplinks that their ranks share
SYSTEM = load_system("cloudmatrix384", accelerators=16)
RANKS = 32


def steps(build, stream, us, sizes_B, *, slot="all"):
    """Work and an all-reduce in turn."""
    for time, size in zip(us, sizes_B, strict=True):
        build.host("work", stream=stream, recorded_s=time * 1e-6)
        build.collective("sum", stream=stream, collective="all_reduce", size_B=size, slot=slot)
    return build


def job(us, sizes_B, ranks=RANKS):
    build = steps(ProgramBuilder(), "main", us, sizes_B)
    return assemble([build], program=np.zeros(ranks, np.int64), groups={"all": np.zeros(ranks, np.int64)})


def opened(system_network="fluid", recorder=None):
    env = simpy.Environment(initial_time=0)
    return env, Session(env, NETWORKS[system_network](env, (), ()), recorder)


def launched(session, env, *jobs):
    """Launch (time, plan) pairs; their timelines in that order."""
    events = []

    def go(at_ps, made):
        yield env.timeout(at_ps)
        events.append(session.launch(made))

    for at_ps, made in jobs:
        env.process(go(at_ps, made))
    env.run()
    session.check()
    return [event.value for event in events]


def same(one, two):
    for ours, theirs in ((one.start_ps, two.start_ps), (one.end_ps, two.end_ps), (one.wait_ps, two.wait_ps)):
        assert [column.tolist() for column in ours] == [column.tolist() for column in theirs]


def of_ranks(made, timeline, rank, rows=slice(None)):
    rank_class = int(made.folding.rank_class[rank])
    return [column[rank_class][rows].tolist() for column in (timeline.start_ps, timeline.end_ps, timeline.wait_ps)]


FIRST = ([3, 1, 2], [4e7, 2e6, 9e7])
SECOND = ([5, 2, 9], [3e7, 8e7, 1e6])


def test_two_plans_on_the_same_ranks_are_one_with_two_streams():
    one, two = (plan(job(*what), SYSTEM) for what in (FIRST, SECOND))
    build = steps(steps(ProgramBuilder(), "one", *FIRST), "two", *SECOND, slot="too")
    everybody = np.zeros(RANKS, np.int64)
    merged = plan(assemble([build], program=everybody, groups={"all": everybody, "too": everybody + 1}), SYSTEM)
    expected = play(merged)
    env, session = opened()
    first, second = launched(session, env, (0, one), (0, two))
    assert of_ranks(one, first, 0) == of_ranks(merged, expected, 0, slice(0, 6))
    assert of_ranks(two, second, 0) == of_ranks(merged, expected, 0, slice(6, 12))
    assert second.makespan_ps > play(two).makespan_ps, "they should have been in each other's way"


def test_two_plans_on_disjoint_ranks_share_what_is_between_them():
    """Even and odd ranks of two leaves with a third of the links up: traffic of both crosses the leaves."""
    system = load_system("hgx_h100", domains=12, set={"scale_out.oversubscription": 3.0})
    half, ranks = system.ranks // 2, np.arange(system.ranks)

    def exchange(us):
        build = ProgramBuilder()
        for time in us:
            build.host("work", stream="main", recorded_s=time * 1e-6)
            build.collective("swap", stream="main", collective="all_to_all", size_B=4e7, slot="all")
        return build

    builders = [exchange([3, 900, 2]), exchange([500, 1, 700])]
    one, two = (
        plan(
            assemble([build], program=np.zeros(half, np.int64), groups={"all": np.zeros(half, np.int64)}).on(
                ranks[ranks % 2 == odd], system.ranks
            ),
            system,
        )
        for odd, build in enumerate(builders)
    )
    merged = plan(assemble(builders, program=ranks % 2, groups={"all": ranks % 2}), system)
    expected = play(merged)
    env, session = opened()
    first, second = launched(session, env, (0, one), (0, two))
    assert of_ranks(one, first, 0) == of_ranks(merged, expected, 0)
    assert of_ranks(two, second, 1) == of_ranks(merged, expected, 1)
    assert first.makespan_ps > play(one).makespan_ps and second.makespan_ps > play(two).makespan_ps

    def crossed_B(made, line):
        columns = record.links_columns(made, line)
        return sum(b for name, b in zip(columns["resource"], columns["bytes_B"], strict=True) if "leaf.out" in name)

    assert crossed_B(merged, expected) == pytest.approx(crossed_B(one, first) + crossed_B(two, second), rel=1e-9)
    assert crossed_B(one, first) > 0


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1e3, 1e6, 4e7])), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1e3, 1e6, 4e7])), min_size=1, max_size=4),
    st.integers(0, 300),
)
def test_a_later_launch_is_as_a_stream_that_begins_later(first, second, later_us):
    columns = [tuple(zip(*what, strict=True)) for what in (first, second)]
    one, two = (plan(job(*what), SYSTEM) for what in columns)
    build = steps(ProgramBuilder(), "one", *columns[0])
    build.host("later", stream="two", recorded_s=later_us * 1e-6)
    steps(build, "two", *columns[1], slot="too")
    everybody = np.zeros(RANKS, np.int64)
    merged = plan(assemble([build], program=everybody, groups={"all": everybody, "too": everybody + 1}), SYSTEM)
    expected = play(merged)
    env, session = opened()
    lines = launched(session, env, (0, one), (later_us * US, two))
    assert lines[1].begin_ps == later_us * US
    assert of_ranks(one, lines[0], 0) == of_ranks(merged, expected, 0, slice(0, 2 * len(first)))
    start, end, wait = of_ranks(merged, expected, 0, slice(2 * len(first) + 1, None))
    shifted = [[at - later_us * US for at in start], [at - later_us * US for at in end], wait]
    assert of_ranks(two, lines[1], 0) == shifted


@pytest.mark.parametrize("network", ["ideal", "fluid"])
def test_a_launch_at_a_later_time_is_the_same_plan_shifted(network):
    made = plan(job(*FIRST), SYSTEM)
    alone = play(made, network)
    env, session = opened(network)
    (late,) = launched(session, env, (123_456_789, made))
    same(late, alone)
    assert late.begin_ps == 123_456_789 and late.makespan_ps == alone.makespan_ps
    assert [(s.start_ps, s.end_ps, s.rate_Bps) for s in late.segments] == [
        (s.start_ps, s.end_ps, s.rate_Bps) for s in alone.segments
    ]


def test_hosts_that_issue_every_op_begin_with_their_launch():
    system = load_system("hgx_h100", accelerators=2, stack="cuda_eager")
    build = ProgramBuilder()
    for i in range(3):
        build.compute(f"op {i}", stream="compute", kernel="gemm", precision="bf16", flops=1.0, bytes_B=1.0)
    made = plan(assemble([build], program=np.zeros(2, np.int64), groups={}), system)
    env, session = opened()
    (late,) = launched(session, env, (77 * US, made))
    same(late, play(made))


def test_launches_of_one_plan_run_one_after_the_other_and_side_by_side():
    made = plan(job([2], [1e6]), SYSTEM)
    alone = play(made).makespan_ps
    env, session = opened()
    first, second = launched(session, env, (0, made), (alone, made))
    same(first, second)
    env, session = opened()
    first, second = launched(session, env, (0, made), (0, made))
    assert first.makespan_ps == second.makespan_ps > alone


def test_the_recorder_is_told_as_plans_end_and_nothing_is_kept():
    told = []

    class Keep:
        def ended(self, made, timeline):
            told.append((made, timeline.begin_ps, env.now))

    one, two = plan(job([2], [1e6]), SYSTEM), plan(job([50], [1e6]), SYSTEM)
    env, session = opened(recorder=Keep())
    lines = launched(session, env, (0, two), (1 * US, one))
    assert [(made is one, begin) for made, begin, _ in told] == [(True, 1 * US), (False, 0)]
    assert [now for _, _, now in told] == [1 * US + lines[1].makespan_ps, lines[0].makespan_ps]
    assert session.share == 1.0 and not session._running


def test_a_plan_without_work_ends_at_once():
    build = ProgramBuilder()
    build.host("nothing", stream="main", recorded_s=0.0)
    made = plan(assemble([build], program=np.zeros(2, np.int64), groups={}).on([4, 5], 16), SYSTEM)
    env, session = opened()
    (line,) = launched(session, env, (3 * US, made))
    assert line.begin_ps == 3 * US and line.makespan_ps == 0


def test_ranks_that_wait_for_ever_are_told():
    one, two = ProgramBuilder(), ProgramBuilder()
    one.collective("sum", stream="main", collective="all_reduce", size_B=1.0, slot="all")
    two.host("nothing", stream="main", recorded_s=0.0)
    made = plan(assemble([one, two], program=np.arange(2), groups={"all": np.zeros(2, np.int64)}), SYSTEM)
    env, session = opened()
    session.launch(made)
    with pytest.raises(FailedError, match="rank 0 waits in 'sum'"):
        launched(session, env)


# plans that do not fit each other


def test_what_one_plan_takes_for_equal_and_another_tells_apart_is_told():
    everybody, some = job(*FIRST), job(*SECOND, ranks=8).on(range(8), RANKS)
    one, two = plan(everybody, SYSTEM), plan(some, SYSTEM)
    session = opened()[1]
    session.launch(one)
    with pytest.raises(InputError, match=r"only some of port\.out\[0\] .*engine\.plan_together"):
        session.launch(two)


def test_plans_made_together_share_what_they_have_in_common():
    """A collective of all ranks beside one of eight, against one plan of both."""
    one, two = plan_together([job(*FIRST), job(*SECOND, ranks=8).on(range(8), RANKS)], SYSTEM)
    assert np.array_equal(one.folding.rank_class, two.folding.rank_class)
    both = steps(steps(ProgramBuilder(), "one", *FIRST), "two", *SECOND, slot="too")
    alone = steps(ProgramBuilder(), "one", *FIRST)
    ranks = np.arange(RANKS)
    merged = plan(
        assemble([both, alone], program=ranks // 8 > 0, groups={"all": ranks * 0, "too": np.where(ranks < 8, 1, -1)}),
        SYSTEM,
    )
    expected = play(merged)
    env, session = opened()
    first, second = launched(session, env, (0, one), (0, two))
    assert of_ranks(one, first, 0) == of_ranks(merged, expected, 0, slice(0, 6))
    assert of_ranks(one, first, 31) == of_ranks(merged, expected, 31)
    assert of_ranks(two, second, 0) == of_ranks(merged, expected, 0, slice(6, 12))


def test_plans_that_have_no_link_in_common_are_as_alone():
    """Both call their busy class 1: its ports are others."""
    one, two = (plan(job(*FIRST, ranks=8).on(range(at, at + 8), RANKS), SYSTEM) for at in (8, 16))
    assert {*one.calls[0].phases[-1][0].resources} == {*two.calls[0].phases[-1][0].resources}
    env, session = opened()
    first, second = launched(session, env, (0, one), (0, two))
    same(first, play(one))
    same(second, play(two))
    assert [s.demand for s in second.segments] == [s.demand for s in play(two).segments]


def test_plans_of_two_systems_do_not_share_a_network():
    session = opened()[1]
    session.launch(plan(job(*FIRST, ranks=8), SYSTEM))
    with pytest.raises(InputError, match="one system"):
        session.launch(plan(job(*FIRST, ranks=8), load_system("hgx_h100")))


def test_plans_on_links_share_links():
    """Two launches of one plan on single links are as slow as a plan that does everything twice."""
    made = plan(job([0], [4e7]), SYSTEM, Options(network="flow"))
    build = steps(steps(ProgramBuilder(), "one", [0], [4e7]), "two", [0], [4e7], slot="too")
    everybody = np.zeros(RANKS, np.int64)
    twice = assemble([build], program=everybody, groups={"all": everybody, "too": everybody + 1})
    merged = play(plan(twice, SYSTEM, Options(network="flow")))
    env, session = opened("flow")
    first, second = launched(session, env, (0, made), (0, made))
    assert first.makespan_ps == second.makespan_ps == merged.makespan_ps > play(made).makespan_ps
    with pytest.raises(InputError, match="same network"):
        session.launch(plan(job([0], [4e7]), SYSTEM))


@pytest.mark.parametrize("ranks", [[0, 0], [0, 16], [-1, 2], [1]])
def test_ranks_that_a_workload_cannot_be_put_on_are_told(ranks):
    with pytest.raises(InputError, match="2 ranks needs as many different ones of 16"):
        job([1], [1.0], ranks=2).on(ranks, 16)


def test_apart_needs_a_number_for_each_rank():
    with pytest.raises(InputError, match="each of 32 ranks; got 3"):
        plan(job(*FIRST), SYSTEM, Options(apart=[0, 1, 2]))


# rates of cores


def kernels(*us, ranks=4, options=None, system=SYSTEM):
    """A plan of kernels of given times, one after the other on one stream."""
    build = ProgramBuilder()
    for i, _ in enumerate(us):
        build.compute(f"op {i}", stream="main", kernel="gemm", precision="bf16", flops=1.0, bytes_B=1.0)
    made = plan(assemble([build], program=np.zeros(ranks, np.int64), groups={}), system, options or Options())
    held = [np.rint(np.array(us) * 1e6).astype(np.int64)] * made.classes
    return dataclasses.replace(made, hold_ps=held)


def paced(made, *changes, cores=True):
    """Play from 0 on with rates set at (ps, ranks, rate)."""
    env, session = opened()

    def pace():
        for at_ps, ranks, rate in changes:
            yield env.timeout(at_ps - env.now)
            session.set_rate(ranks, rate)

    event = session.launch(made, cores=cores)
    env.process(pace())
    env.run()
    session.check()
    return event.value


def test_a_rate_change_in_mid_hold():
    """10 us of work, 4 us of it done at full rate: the rest takes 6 / 0.5; what follows is slow from its start."""
    line = paced(kernels(10, 3), (4 * US, range(4), 0.5))
    assert line.end_ps[0].tolist() == [16 * US, 22 * US]
    assert line.start_ps[0].tolist() == [0, 16 * US]


@given(st.lists(st.tuples(st.integers(1, 30 * US), st.floats(0.05, 4.0)), max_size=5), st.integers(1, 100 * US))
def test_rate_changes_against_the_closed_form(changes, work_ps):
    """Work done is the integral of the rate."""
    at, rate, done, times = 0, 1.0, 0.0, []
    for gap, new in changes:
        times.append((at + gap, range(4), new))
        if work_ps - done <= gap * rate:
            break
        at, done, rate = at + gap, done + gap * rate, new
    expected = at + (work_ps - done) / rate
    line = paced(kernels(work_ps / US), *times)
    assert abs(line.makespan_ps - math.ceil(expected)) <= 1


def test_cores_that_stand_still_go_on_where_they_were():
    line = paced(kernels(10), (2 * US, range(4), 0.0), (50 * US, range(4), 1.0))
    assert line.end_ps[0].tolist() == [58 * US]


def test_cores_that_never_go_on_are_told():
    with pytest.raises(FailedError, match="cores of rank 0 stand still"):
        paced(kernels(10), (2 * US, range(4), 0.0))


def test_a_rate_applies_to_its_ranks_only_and_the_others_wait():
    build = ProgramBuilder()
    op = build.compute("op", stream="main", kernel="gemm", precision="bf16", flops=1e12, bytes_B=1.0)
    build.collective("sum", stream="comm", collective="all_reduce", size_B=1e6, slot="all", after=[op])
    programs = assemble([build], program=np.zeros(4, np.int64), groups={"all": np.zeros(4, np.int64)})
    made = plan(programs, SYSTEM, Options(apart=[0, 0, 0, 1]))
    held = int(made.hold_ps[0][0])
    line = paced(made, (held // 2, [3], 0.25))
    slow = held // 2 + (held - held // 2) * 4
    assert [end[0] for end in line.end_ps] == [held, slow]
    assert [wait[1] for wait in line.wait_ps] == [slow - held, 0]
    assert [end[1] for end in line.end_ps] == [line.makespan_ps] * 2
    session = opened()[1]
    session.launch(plan(programs, SYSTEM), cores=True)
    with pytest.raises(InputError, match=r"simulated as one.*Options\.apart"):
        session.set_rate([3], 0.5)


def test_rates_hold_for_later_launches():
    env, session = opened()
    session.set_rate(range(4), 0.5)
    made = kernels(10)
    with pytest.raises(InputError, match="cores=True"):
        session.launch(made)
    event = session.launch(made, cores=True)
    env.run()
    assert event.value.makespan_ps == 20 * US
    session.set_rate(range(4), 1.0)
    event = session.launch(made)
    env.run()
    assert event.value.makespan_ps == 10 * US


def test_fixed_times_have_no_rate():
    with pytest.raises(InputError, match="times are fixed"):
        paced(kernels(10), (2 * US, range(4), 0.5), cores=False)


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_a_rate_is_a_number_from_0_on(rate):
    _, session = opened()
    with pytest.raises(InputError, match="from 0 on"):
        session.set_rate([0], rate)


@pytest.mark.parametrize("stack", ["cuda", "cuda_eager"])
def test_work_at_full_rate_is_a_hold(stack):
    """Every op an event, or times ahead: the same to the bit, hosts that issue every op among them."""
    system = load_system("hgx_h100", accelerators=4, stack=stack)
    build = ProgramBuilder()
    for i in range(6):
        op = build.compute(f"op {i}", stream="main", kernel="gemm", precision="bf16", flops=3e9 * i, bytes_B=1e6)
        if i % 2:
            build.collective("sum", stream="comm", collective="all_reduce", size_B=1e6, slot="all", after=[op])
    made = plan(
        assemble([build], program=np.zeros(4, np.int64), groups={"all": np.zeros(4, np.int64)}), system, Options()
    )
    worked = paced(made)
    expected = play(made)
    same(worked, expected)
    assert [host.tolist() for host in worked.host_ps] == [host.tolist() for host in expected.host_ps]
