"""Ranks that differ: slow ones from a file, and times that scatter."""

from __future__ import annotations

import numpy as np
import pytest

import cmsim
from cmsim.engine import Jitter, plan
from cmsim.engine.perturb import drawn, scattered
from cmsim.errors import InputError
from cmsim.execution import options_of, system
from cmsim.scenario import load_scenario
from cmsim.scenario.perturb import read_perturb
from cmsim.workload import generate
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST

TRAIN = """
name: jitter
systems: [{system: hgx_h100, accelerators: 8}]
workload:
  kind: training
  model: llama-3.1-8b
  sequence_length: 2048
  global_batch: 8
  parallel: {tp: 1, dp: 8}
  precision: {weights: bf16, activations: bf16}
"""


@pytest.mark.parametrize("distribution", ["lognormal", "normal", "gamma", "exponential"])
def test_factors_have_the_mean_and_spread_asked_for(distribution):
    factor = drawn(Jitter(distribution, cv=0.2), np.zeros(200_000, np.int64), rank=3, seed=7)
    assert factor.mean() == pytest.approx(1.0, abs=0.003)
    assert factor.std() == pytest.approx(0.2, rel=0.02)
    assert (factor >= 0).all()


@pytest.mark.parametrize("distribution", ["lognormal", "normal", "gamma", "exponential"])
def test_the_mean_is_one_however_wide(distribution):
    factor = drawn(Jitter(distribution, cv=1.0), np.zeros(400_000, np.int64), rank=3, seed=7)
    assert factor.mean() == pytest.approx(1.0, abs=0.01)
    assert (factor >= 0).all()


def test_draws_are_of_seed_rank_and_op_alone():
    kind = np.array([COMPUTE, HOST, COLLECTIVE, COMPUTE])
    one = drawn(Jitter(), kind, rank=2, seed=0)
    assert (one == drawn(Jitter(), kind, rank=2, seed=0)).all()
    # what comes after an op does not change its draw
    assert (one == drawn(Jitter(), np.append(kind, COMPUTE), rank=2, seed=0)[:4]).all()
    assert one[0] != drawn(Jitter(), kind, rank=3, seed=0)[0] != drawn(Jitter(), kind, rank=2, seed=1)[0]
    assert one[1] == one[2] == 1.0 != one[3] != one[0]
    assert (drawn(Jitter(of="all"), kind, rank=2, seed=0) != 1.0).tolist() == [True, True, False, True]
    whole = drawn(Jitter(per="rank"), kind, rank=2, seed=0)
    assert whole[0] == whole[3] != 1.0


def test_scatter_slows_a_step_that_waits_for_the_slowest():
    """Every rank is simulated by itself; a step ends with the slowest of each collective."""
    steps = {}
    for name, text in {"even": TRAIN, "scattered": TRAIN + "jitter: {cv: 0.1, per: rank}\n"}.items():
        (steps[name],) = cmsim.run(load_scenario(text))
    even, scattered = (steps[name].metric("step_time_s") for name in ("even", "scattered"))
    expected = max(drawn(Jitter(cv=0.1, per="rank"), np.zeros(1, np.int64), rank=r, seed=0)[0] for r in range(8))
    assert expected > 1.05
    # gradients travel as fast as before
    assert even * (1 + 0.7 * (expected - 1)) < scattered < even * expected
    assert steps["scattered"].ops["rank_class"].nunique() == 8


def test_the_seed_of_the_scenario_decides():
    times = [
        cmsim.run(load_scenario(TRAIN + f"jitter: {{cv: 0.1}}\nseed: {seed}\n"))[0].metric("step_time_s")
        for seed in (0, 0, 1)
    ]
    assert times[0] == times[1] != times[2]


def test_slow_ranks_from_a_file(tmp_path):
    (tmp_path / "slow.csv").write_text("rank,compute,port\n3,1.5,1\n 5,1,0.5\n")
    (tmp_path / "a.yaml").write_text(TRAIN + "perturb: slow.csv\n")
    of_file = cmsim.run(load_scenario(tmp_path / "a.yaml"))[0]
    inline = cmsim.run(load_scenario(TRAIN + "perturb: {3: {compute: 1.5}, 5: {port: 0.5}}\n"))[0]
    plain = cmsim.run(load_scenario(TRAIN))[0]
    assert of_file.metric("step_time_s") == inline.metric("step_time_s") > 1.2 * plain.metric("step_time_s")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("rank\n1\n", ":1: needs any of the columns compute"),
        ("rank,cores\n1,2\n", ":1: unknown column 'cores'"),
        ("rank,compute\n", "holds no rank"),
        ("rank,compute\n1,2\n1,3\n", ":3: rank: rank 1 stands twice"),
        ("rank,compute\n-1,2\n", ":2: rank: must be a whole number from 0, got '-1'"),
        ("rank,compute\n1,0\n", ":2: compute: must be a number above 0, got '0'"),
        ("rank,compute\n1,nan\n", "got 'nan'"),
        ("rank,compute\n1,fast\n", "got 'fast'"),
        ("rank,compute\n1\n", ":2: got 1 fields, allowed: 2 (rank, compute)"),
        ("rank,compute\n1,2,3\n", "got 3 fields"),
    ],
)
def test_bad_files(tmp_path, text, says):
    (tmp_path / "slow.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read_perturb(tmp_path / "slow.csv")
    assert says in str(error.value)
    assert "slow.csv" in str(error.value)


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match=r"perturb: no such file: none\.csv"):
        load_scenario(TRAIN + "perturb: none.csv\n")


def test_a_rank_beyond_the_workload(tmp_path):
    with pytest.raises(InputError, match="no rank 8: the workload has ranks 0 to 7"):
        cmsim.run(load_scenario(TRAIN + "perturb: {8: {compute: 2}}\n"))


def test_few_ranks_scatter_and_the_others_stay_one():
    """Which ones is drawn too; what they do is what `perturb` with their factors does, steady state and all."""
    text = TRAIN.replace("global_batch: 8", "global_batch: 64").replace("dp: 8", "pp: 2, dp: 4")
    how = Jitter(cv=0.1, per="rank", ranks=2)
    who = scattered(how, 8, seed=3)
    assert len(set(who)) == 2 and (who == scattered(how, 8, seed=3)).all()
    assert len({tuple(scattered(how, 8, seed=seed)) for seed in range(8)}) > 4
    (few,) = cmsim.run(load_scenario(text + "jitter: {cv: 0.1, per: rank, ranks: 2}\nseed: 3\n"))
    slow = {int(r): {"compute": float(drawn(how, np.zeros(1, np.int64), rank=r, seed=3)[0])} for r in who}
    (named,) = cmsim.run(load_scenario(text, set={"perturb": slow}))
    assert few.metrics == named.metrics
    assert few.ops.equals(named.ops)
    assert few.ops["rank_class"].nunique() < 8


def test_more_ranks_than_there_are_do_not_scatter():
    with pytest.raises(InputError, match=r"jitter\.ranks: got 9\. Allowed: 1 to 8"):
        cmsim.run(load_scenario(TRAIN + "jitter: {ranks: 9}\n"))


def test_a_slow_rank_of_16384_makes_64_classes():
    """TP8 PP16 DP128: the slow one, its tensor group and its pipeline, and those that wait for them."""
    scenario = load_scenario("stragglers", set={"jitter": None, "sweep": {}, "perturb": {5000: {"compute": 1.1}}})
    (one,) = scenario.runs
    its = system(one)
    programs = generate.programs(one.spec, its, loops=True)
    assert plan(programs, its, options_of(one, its)).classes == 64
