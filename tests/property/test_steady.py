"""Is a steady state that is played once the play of all of it, to the picosecond? And is what is none left alone?"""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim import api, energy
from cmsim.engine import Options, plan, play, play_loops, play_within, record, steady, whole
from cmsim.engine.bound import memory_drawn
from cmsim.engine.play import least_ps
from cmsim.engine.turns import Turns, paces
from cmsim.hardware import load_system
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.generate import training
from cmsim.workload.loops import laid_out
from cmsim.workload.ops import Loop, ProgramBuilder, assemble
from cmsim.workload.schedules import OneForwardOneBackward

SYSTEM = load_system("hgx_h100", domains=2)
#: ranks of a stage
WIDE = 4


@st.composite
def pipelines(draw):
    """Stages of unequal work with tensor-parallel sums, messages between them, gradients reduced beside all that."""
    us = st.sampled_from([0, 3, 7, 20, 41])
    size = st.sampled_from([1e3, 2e6, 3e7])
    stages = draw(st.integers(1, 4))
    return {
        "forward": draw(st.lists(us, min_size=stages, max_size=stages)),
        "backward": draw(st.lists(us, min_size=stages, max_size=stages)),
        "sums": draw(st.integers(0, 2)),
        "sum_B": draw(size),
        "message_B": draw(size),
        "gradient_B": draw(st.sampled_from([0.0, 1e3, 1e6])),
        "apart": draw(st.booleans()),
    }


def programs(pipe, micro_batches, laid=None):
    """A pipeline's programs, its steady part as a loop where fewer micro-batches are laid out than there are."""
    stages = len(pipe["forward"])
    schedule = OneForwardOneBackward(stages, laid or micro_batches)
    made = [_stage(pipe, schedule, stage) for stage in range(stages)]
    rank = np.arange(stages * WIDE)
    # beside each other in a node, or a stage spread over all of them
    stage = rank % stages if pipe["apart"] else rank // WIDE
    lane = rank // stages if pipe["apart"] else rank % WIDE
    channels = [
        {
            f"{way}{i}": np.where((stage == i) | (stage == i + 1), 100 + 20 * i + 10 * (way == "back") + lane, -1)
            for way in ("forth", "back")
        }
        for i in range(stages - 1)
    ]
    loop = None
    if laid:
        first, rows, times = zip(*(one[1] for one in made), strict=True)
        loop = Loop(np.array(first), np.array(rows), np.array(times), micro_batches - laid)
    return assemble(
        [one[0] for one in made],
        program=stage,
        groups={"tp": stage, **{name: group for one in channels for name, group in one.items()}},
        loop=loop,
    )


def _stage(pipe, schedule, stage):
    build, turns, last = ProgramBuilder(), [], len(pipe["forward"]) - 1

    def work(us, row):
        for _ in range(pipe["sums"] + 1):
            row = build.host("work", stream="main", recorded_s=us * 1e-6, after=[] if row is None else [row])
            if pipe["sums"]:
                row = build.collective(
                    "sum", stream="tp", collective="all_reduce", size_B=pipe["sum_B"], slot="tp", after=[row]
                )
        return row

    def message(kind, slot, after=()):
        add = {"send": build.send, "recv": build.recv}[kind]
        return add(slot, stream=f"{kind} {slot}", size_B=pipe["message_B"], slot=slot, after=after)

    for turn in schedule.order(stage):
        turns.append(len(build))
        for one in turn:
            if one.kind == "F":
                row = message("recv", f"forth{stage - 1}") if stage else None
                row = work(pipe["forward"][stage], row)
                if stage < last:
                    message("send", f"forth{stage}", [row])
                continue
            row = message("recv", f"back{stage}") if stage < last else None
            row = work(pipe["backward"][stage], row)
            if stage:
                message("send", f"back{stage - 1}", [row])
            if pipe["gradient_B"]:
                build.collective(
                    "reduce", stream="dp", collective="all_reduce", size_B=pipe["gradient_B"], slot="tp", after=[row]
                )
    turns.append(len(build))
    build.host("update", stream="main", recorded_s=1e-5)
    first, period, times = schedule.steady(stage)
    return build, (turns[first], turns[first + period] - turns[first], times)


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def alike(short, full, system):
    """What is put back is what was played, and sums over what is left out are sums over all of it."""
    unrolled = whole(*short)
    assert short[1].makespan_ps == full[1].makespan_ps == unrolled[1].makespan_ps
    for name in ("start_ps", "end_ps", "wait_ps"):
        for one, other in zip(getattr(unrolled[1], name), getattr(full[1], name), strict=True):
            assert np.array_equal(one, other), name
    kept, put_back, played = ((record.ops_columns(*one), record.links_columns(*one)) for one in (short, unrolled, full))
    for one, other in zip(put_back, played, strict=True):
        same(one, other)
    one, other = record.breakdown(*short), record.breakdown(*full)
    assert (one.rank_class, one.limiter) == (other.rank_class, other.limiter)
    assert one.parts_s == pytest.approx(other.parts_s, rel=1e-12, abs=1e-15)
    assert one.exposed_comm_s == pytest.approx(other.exposed_comm_s, rel=1e-12)
    length_ps = full[1].makespan_ps
    short_power = energy.power_over_time(system, *kept, makespan_ps=length_ps, repeat=short[1].repeat)
    all_power = energy.power_over_time(system, *played, makespan_ps=length_ps)
    power, of_all = short_power.columns(), all_power.columns()
    for name in ("component", "start_ps", "end_ps"):
        assert np.array_equal(power[name], of_all[name]), name
    took_s = (power["end_ps"] - power["start_ps"]) / 1e12
    joules = sum(all_power.joules().values())
    for name in ("power_W", "power_W_low", "power_W_high"):
        assert power[name].min() >= 0
        # of a picosecond there is little energy, and that is rounded as the whole is
        np.testing.assert_allclose(power[name] * took_s, of_all[name] * took_s, rtol=1e-11, atol=1e-13 * joules)
    assert sum(short_power.joules().values()) == pytest.approx(joules, rel=1e-12)


@settings(max_examples=settings.default.max_examples // 3)
@given(pipelines(), st.integers(0, 25), st.sampled_from(["ideal", "fluid", "flow"]), st.booleans())
def test_a_steady_state_is_the_play_of_all_of_it(pipe, more, network, folded):
    laid = OneForwardOneBackward(len(pipe["forward"]), 1).recurring()
    options = Options(network=network, fold=folded)
    short = play_loops(plan(programs(pipe, 3 * laid + more, laid), SYSTEM, options))
    made = plan(programs(pipe, 3 * laid + more), SYSTEM, options)
    alike(short, (made, play(made)), SYSTEM)


def test_most_pipelines_have_a_steady_state_and_periods_may_be_of_several_turns():
    pipe = {"sums": 1, "sum_B": 2e6, "message_B": 2e6, "gradient_B": 1e6, "apart": False}
    even = {**pipe, "forward": [20, 20, 20, 20], "backward": [41, 41, 41, 41]}
    uneven = {**pipe, "forward": [7, 20, 20, 7], "backward": [20, 41, 41, 20]}
    for one in (even, uneven):
        short = play_loops(plan(programs(one, 200, 12), SYSTEM))
        assert short[1].repeat.times > 10
        assert len(short[0].programs.ops) < len(programs(one, 50).ops)


def test_ranks_that_keep_paces_of_their_own_are_told_from_those_that_have_yet_to_come_to_rest():
    def rows(*length):
        start = np.cumsum([0, *length])[:, None] + np.array([0, 5])
        return Turns(start.ravel(), start.ravel(), 0, start, start, start)

    assert paces([rows(10, 10), rows(10, 10)]) == 1
    assert paces([rows(10, 10), rows(3, 9, 9), rows(10, 10)]) == 2
    assert paces([rows(10, 10), rows(10, 9)]) == paces([rows(10)]) == paces([rows()]) == 0


def test_a_steady_part_of_few_rounds_is_found():
    """Eight rounds of an interleaved pipeline show it in five."""
    one = step({**CASES["interleaved"], "global_batch": 15}).runs[0]
    system = api.system(one)
    made = plan(generate.programs(one.spec, system, loops=True), system, api.options_of(one, system))
    assert made.programs.loop is not None and play_loops(made)[1].repeat.times


def test_what_is_laid_out_does_not_grow_with_micro_batches():
    rows, segments = set(), set()
    for micro_batches in (1_000, 100_000):
        pipe = {"forward": [7, 20], "backward": [20, 41], "sums": 1, "sum_B": 2e6, "message_B": 2e6}
        made, line = play_loops(plan(programs({**pipe, "gradient_B": 0.0, "apart": True}, micro_batches, 8), SYSTEM))
        assert made.programs.loop.left_out > 0.9 * micro_batches
        rows.add(len(made.programs.ops) + sum(map(len, line.start_ps)))
        segments.add(len(line.segments))
    assert len(rows) == len(segments) == 1


def test_gradients_that_fall_behind_have_no_steady_state_and_little_is_played_in_vain(monkeypatch):
    """The links of their stream are busy for longer than a turn takes: what is in flight is always further back."""
    pipe = {"forward": [3, 3], "backward": [3, 3], "sums": 0, "sum_B": 0.0, "message_B": 1e3, "apart": False}
    pipe["gradient_B"] = 3e7
    tried = []
    monkeypatch.setattr(steady, "play", lambda one: (tried.append(int(one.programs.loop.laid.max())), play(one))[1])
    made, line = play_loops(plan(programs(pipe, 60, 8), SYSTEM))
    assert made.programs.loop is None and not line.repeat.times
    assert len(tried) > 1 and sum(tried) <= 5 / 8 * 58
    full = plan(programs(pipe, 60), SYSTEM)
    alike((made, line), (full, play(full)), SYSTEM)


def test_ranks_out_of_step_are_played_in_full():
    """One stage sends twice in a turn what the other takes once: what waits in the channel grows."""
    builders = []
    for stage in range(2):
        build = ProgramBuilder()
        for _ in range(10):
            build.host("work", stream="main", recorded_s=1e-6)
            for _ in range(2 - stage):
                if stage:
                    build.recv("x", stream="in", size_B=1e3, slot="x")
                else:
                    build.send("x", stream="out", size_B=1e3, slot="x")
        build.host("last", stream="main", recorded_s=1e-6)
        builders.append(build)
    loop = Loop(np.zeros(2, np.int64), np.array([3, 2]), np.array([10, 10]), 30)
    group = {"x": np.zeros(2, np.int64)}
    made = plan(assemble(builders, program=np.arange(2), groups=group, loop=loop), SYSTEM)
    played, line = play_loops(made)
    assert played.programs.loop is None and not line.repeat.times
    assert len(played.programs.ops) == 40 * 5 + 2


def test_what_goes_by_the_clock_or_by_rows_is_laid_out_by_the_plan():
    from cmsim.engine import Fault, Jitter

    pipe = {"forward": [7, 20], "backward": [20, 41], "sums": 1, "sum_B": 2e6, "message_B": 2e6}
    made = programs({**pipe, "gradient_B": 0.0, "apart": True}, 40, 8)
    assert plan(made, SYSTEM).programs.loop is not None
    eager = load_system("hgx_h100", domains=2, stack="cuda_eager")
    slow = Fault("rank/0/port", 0.5, 10**6)
    for machine, options in (
        (SYSTEM, Options(jitter=Jitter())),
        (SYSTEM, Options(network="flow", faults=[slow])),
        (eager, Options()),
    ):
        assert plan(made, machine, options).programs.loop is None


def test_a_limit_counts_what_is_left_out():
    pipe = {"forward": [7, 20], "backward": [20, 41], "sums": 1, "sum_B": 2e6, "message_B": 2e6}
    pipe |= {"gradient_B": 0.0, "apart": True}
    made, full = plan(programs(pipe, 100, 8), SYSTEM), plan(programs(pipe, 100), SYSTEM)
    end = play(full).makespan_ps
    assert least_ps(made) == least_ps(full) > play(made).makespan_ps
    assert play_loops(made, limit_ps=end)[1].makespan_ps == end
    assert play_loops(made, limit_ps=end - 1) is None and play_within(full, end - 1) is None


def test_ranks_with_nothing_to_do_are_in_nobodys_way():
    pipe = {"forward": [7, 20], "backward": [20, 41], "sums": 1, "sum_B": 2e6, "message_B": 2e6}
    pipe |= {"gradient_B": 0.0, "apart": True}
    where = [1, 3, 5, 7, 9, 11, 13, 15]
    short = play_loops(plan(programs(pipe, 100, 8).on(where, 16), SYSTEM))
    full = plan(programs(pipe, 100).on(where, 16), SYSTEM)
    assert short[1].repeat.times
    alike(short, (full, play(full)), SYSTEM)


CASES = {
    "plain": {},
    "gathered": {"zero_stage": 1, "overlap_data_parallel": True},
    "weights shared": {"zero_stage": 3},
    "one stage": {"parallel": {"tp": 8, "pp": 1, "dp": 2}},
    "unequal stages": {"parallel": {"tp": 4, "pp": 3}, "global_batch": 61},
    "interleaved": {"parallel": {"tp": 8, "pp": 2, "virtual_stages": 4}, "global_batch": 40},
    "unequal virtual stages": {
        "parallel": {"tp": 4, "pp": 3, "virtual_stages": 2, "stage_layers": [5, 6, 6, 6, 6, 3]},
        "global_batch": 48,
    },
    "gradients of weights wait": {"schedule": "zb_h1", "parallel": {"tp": 4, "pp": 4}},
    "there and back": {"schedule": "zb_v", "parallel": {"tp": 4, "pp": 4}},
    "from both ends": {"schedule": "dualpipe", "parallel": {"tp": 4, "pp": 4}},
}


def step(case):
    base = {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 1024, "global_batch": 97}
    spec = {
        **base,
        "parallel": {"tp": 8, "pp": 2},
        "recompute": "full",
        **(CASES[case] if isinstance(case, str) else case),
    }
    spec["global_batch"] += spec["global_batch"] % 2
    ranks = int(np.prod([spec["parallel"].get(size, 1) for size in ("tp", "pp", "dp")]))
    return load_scenario(
        {"name": "x", "systems": [{"system": "hgx_h100", "domains": 4, "accelerators": ranks}], "workload": spec}
    )


@pytest.mark.parametrize("case", CASES)
def test_a_training_step_is_what_its_builder_lays_out(case, monkeypatch):
    scenario = step(case)
    one = scenario.runs[0]
    system = api.system(one, base=scenario.base)
    short = generate.programs(one.spec, system, base=scenario.base, loops=True)
    assert short.loop is not None
    unrolled = generate.programs(one.spec, system, base=scenario.base)
    monkeypatch.setattr(training, "_SHORTER", 10**6)
    full = generate.programs(one.spec, system, base=scenario.base)
    assert unrolled.loop is None and full.loop is None
    for name in (field.name for field in dataclasses.fields(full.ops)):
        here, there = getattr(unrolled.ops, name), getattr(full.ops, name)
        assert here == there if isinstance(here, tuple) else np.array_equal(here, there, equal_nan=here.dtype == float)
    assert np.array_equal(unrolled.program_ptr, full.program_ptr) and unrolled.facts == full.facts
    assert all(np.array_equal(unrolled.footprint_B[key], full.footprint_B[key]) for key in full.footprint_B)
    options = api.options_of(one, system)
    played, made = play_loops(plan(short, system, options)), plan(full, system, options)
    line = play(made)
    assert played[1].repeat.times or case == "weights shared"
    alike(played, (made, line), system)
    assert memory_drawn(*played) == pytest.approx(memory_drawn(made, line), rel=1e-12)


def test_a_result_has_all_of_its_frames_when_somebody_looks(monkeypatch):
    scenario = step("plain")
    (short,) = api.run(scenario)
    monkeypatch.setattr(training, "_SHORTER", 10**6)
    (full,) = api.run(scenario)
    assert len(short.ops) > 10 * len(short.ops["op"].unique())
    sent = pickle.loads(pickle.dumps(short))
    for name in ("ops", "links"):
        same(dict(short.columns[name]), dict(full.columns[name]))
        same(dict(sent.columns[name]), dict(full.columns[name]))
    assert short.breakdown == full.breakdown and short.limiter == full.limiter and short.warnings == full.warnings
    for name, value in full.metrics.items():
        assert short.metrics[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-12)), name


def test_laying_out_by_parts_is_laying_out_at_once():
    pipe = {"forward": [7, 20], "backward": [20, 41], "sums": 1, "sum_B": 2e6, "message_B": 2e6}
    made = programs({**pipe, "gradient_B": 1e3, "apart": True}, 40, 8)
    at_once, by_parts = laid_out(made, 7), laid_out(laid_out(made, 3), 4)
    for name in (field.name for field in dataclasses.fields(made.ops)):
        here, there = getattr(at_once.ops, name), getattr(by_parts.ops, name)
        assert here == there if isinstance(here, tuple) else np.array_equal(here, there, equal_nan=here.dtype == float)
    assert at_once.loop.left_out == by_parts.loop.left_out == made.loop.left_out - 7


def test_a_run_with_faults_is_held_against_all_of_the_healthy_one():
    few = {"global_batch": 41}
    data = dict(step(few).data)
    data |= {"network": "flow", "faults": [{"part": "rank/0/port", "left": 0.5, "from_s": 0.01}]}
    (broken,) = api.run(load_scenario(data))
    (healthy,) = api.run(step(few))
    slower = broken.metric("makespan_s") / healthy.metric("makespan_s")
    assert broken.faults["slowdown"] == pytest.approx(slower, rel=0.01) and slower > 1.01
