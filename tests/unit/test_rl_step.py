"""A step of reinforcement learning: its parts by hand, how they add up, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.reinforcement import rollout, weights

STEP = {
    "kind": "rl_step",
    "model": "llama-3.1-8b",
    "prompts": 16,
    "samples": 4,
    "prompt_tokens": 256,
    "answers": {"mean": 128, "cv": 0, "most": 512},
    "rollout": {"accelerators": 2, "parallel": {"tp": 2}, "batching": {"sequences": 64, "step_tokens": 16384}},
    "forwards": [{"parallel": {"tp": 2}}],
    "training": {"sequence_length": 2048, "global_batch": 8, "parallel": {"tp": 2}, "recompute": "full"},
}
#: as STEP, on pools of their own
APART = {"pools": "separate"}


@pytest.fixture(autouse=True)
def _kept(tmp_path_factory, monkeypatch):
    """Steps that are played are kept for this file alone."""
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "steps"))


def run(system="hgx_h100", **changes) -> cmsim.Result:
    (found,) = cmsim.run({"systems": [system], "workload": STEP | changes})
    return found


def run_of(workload: dict, **system) -> cmsim.Result:
    (found,) = cmsim.run({"systems": [{"system": "hgx_h100", **system}], "workload": workload})
    return found


def refused(**changes) -> str:
    done = cmsim.run({"systems": ["hgx_h100"], "workload": STEP | changes})
    return done.missing[0].message


def test_the_takers_bytes_are_shared_out_evenly_among_those_who_send():
    for trainers, makers in ((2, 3), (3, 2), (4, 4), (5, 16), (7, 3)):
        table = np.zeros((trainers, makers))
        for sender, taker, size_B in weights.sent(trainers, makers, 6e9):
            table[sender, taker] += size_B
        assert np.allclose(table.sum(axis=0), 6e9)
        assert np.allclose(table.sum(axis=1), 6e9 * makers / trainers)


def test_answers_of_one_length_take_their_prompts_and_the_sum_of_decode_steps():
    alone = STEP["rollout"] | {"replicas": 1}
    found = run(rollout=alone)
    plan = {"model": STEP["model"], "parallel": {"tp": 2}, "batch_per_accelerator": 32}
    its = {"accelerators": 2, "stack": "cuda_graph"}  # that of services: what an engine adds is asked of it by itself
    prompts = run_of({"kind": "prefill", "prompt_tokens": 256, **plan}, **its).metric("makespan_s")
    first, last = (
        run_of({"kind": "decode", "context_tokens": context, **plan}, **its).metric("tpot_s")
        for context in (256, 256 + 126)
    )
    # steps grow by a straight line with what is cached; the first token comes with the prompt
    assert found.metric("rollout_s") == pytest.approx(prompts + 127 * (first + last) / 2, rel=0.03)
    assert found.metric("rollout_idle_fraction") == 0
    assert found.facts.answer_tokens == 64 * 128


def test_parts_add_up_by_turns_and_at_once():
    turns, apart = run(), run(**APART)
    parts = ("rollout_s", "forward_s", "training_s", "weights_s", "offload_s")
    assert turns.metric("step_time_s") == pytest.approx(sum(turns.metric(part) for part in parts))
    assert apart.metric("step_time_s") == pytest.approx(sum(apart.metric(part) for part in parts))
    at_once = run(pools="one_step_off")
    learnt = at_once.metric("forward_s") + at_once.metric("training_s")
    longer = max(at_once.metric("rollout_s"), learnt)
    assert at_once.metric("step_time_s") == pytest.approx(longer + at_once.metric("weights_s"))
    # 4 accelerators of each pool: the quicker one waits for the other
    waits = longer - min(at_once.metric("rollout_s"), learnt)
    assert at_once.metric("idle_fraction") == pytest.approx(waits / 2 / at_once.metric("step_time_s"))
    for one in (turns, apart, at_once):
        frame = one.columns["parts"]
        assert one.metric("energy_J") == pytest.approx(frame["energy_J"].sum())
        busy = (frame["accelerators"] * (frame["end_s"] - frame["start_s"])).sum()
        assert busy == pytest.approx(one.accelerators * one.metric("step_time_s"))


def test_weights_take_their_bytes_over_the_plane_that_they_cross():
    inside, across = (
        run(
            {"system": "hgx_h100", "domains": domains}, pools="separate", rollout=STEP["rollout"] | {"replicas": copies}
        )
        for domains, copies in ((1, 2), (2, 4))
    )
    model_B = 8.03e9 * 2
    assert inside.facts.weights_B == pytest.approx(model_B / 2, rel=0.01)
    # as many send as take: over a port of 450 GB/s, and from one box to the next over a NIC of 50 GB/s, less protocol
    for found, GBps in ((inside, 450), (across, 50)):
        least = found.facts.weights_B / GBps / 1e9
        assert least < found.metric("weights_s") < least / 0.7
    # by turns a rank has half of what it is to hold
    assert run().metric("weights_s") == pytest.approx(inside.metric("weights_s") / 2, rel=0.25)


def test_states_leave_for_the_host_and_come_back():
    found = run()
    held = run_of({"kind": "training", "model": STEP["model"], **STEP["training"]}).plan["memory_B"]
    moved = held["weights"] + held["optimizer"]
    assert found.metric("offload_s") == pytest.approx(2 * moved / 50e9)
    rollout = STEP["rollout"] | {"batching": STEP["rollout"]["batching"] | {"memory_share": 0.5}}
    stay = run(rollout=rollout, offload={"weights": False})
    assert stay.metric("offload_s") == pytest.approx(2 * held["optimizer"] / 50e9)
    more = rollout | {"batching": rollout["batching"] | {"memory_share": 0.95}}
    assert "memory_share: got 0.95 of 85.5 GB, beside" in refused(rollout=more, offload={"weights": False})


def test_copies_wait_for_the_longest_answers():
    even, long = run(), run(answers={"mean": 128, "cv": 1.5, "most": 1024})
    assert even.metric("rollout_idle_fraction") < 0.01
    assert long.metric("rollout_idle_fraction") > 0.1
    assert long.metric("rollout_tail_s") > 0.3 * long.metric("rollout_s")
    ends = long.columns["answers"]["end_s"]
    copy = long.columns["answers"]["holder"]
    last = [ends[copy == one].max() for one in range(4)]
    assert long.metric("rollout_idle_fraction") == pytest.approx(1 - np.mean(last) / max(last))


def test_lengths_are_drawn_from_the_seed():
    def drawn(seed: int) -> np.ndarray:
        spec = (
            cmsim.load_scenario(
                {
                    "systems": ["hgx_h100"],
                    "workload": STEP
                    | {"prompts": 5000, "answers": {"mean": 400, "most": 1000}}
                    | {"training": STEP["training"] | {"sequence_length": 4096}},
                }
            )
            .runs[0]
            .spec
        )
        return rollout.questions(spec, seed=seed).output

    assert (drawn(1) == drawn(1)).all() and (drawn(1) != drawn(2)).any()
    # of a log-normal of mean m and cv 1, cut off at c: m F(z - s) + c (1 - F(z)), s^2 = ln 2, z = ln(c / m) / s + s / 2
    s = math.sqrt(math.log(2))
    z = math.log(1000 / 400) / s + s / 2
    below = [(1 + math.erf(x / math.sqrt(2))) / 2 for x in (z - s, z)]
    assert drawn(1).mean() == pytest.approx(400 * below[0] + 1000 * (1 - below[1]), rel=0.02)
    assert drawn(1).max() == 1000


def test_a_prompt_is_computed_once_for_its_answers_where_beginnings_are_kept():
    batching = STEP["rollout"]["batching"]
    shared = run(rollout=STEP["rollout"] | {"batching": batching | {"prefix_share": 0.2}})
    cached = shared.columns["answers"]["cached_tokens"].reshape(16, 4)
    # the first answer computes its prompt; a few are made elsewhere, where fewer wait
    assert (cached[:, 0] == 0).all() and (cached[:, 1:] > 0).mean() > 0.8
    assert shared.metric("rollout_s") < run().metric("rollout_s")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rollout": STEP["rollout"] | {"replicas": 5}}, "rollout.replicas: 5 copies of 2 accelerators"),
        (
            APART | {"rollout": STEP["rollout"] | {"replicas": 4}},
            "one of which trains at least. Allowed: 3 copies of 2",
        ),
        ({"rollout": STEP["rollout"] | {"parallel": {"tp": 4}}}, "rollout.parallel: tp 4"),
        ({"training": STEP["training"] | {"parallel": {"tp": 3}}}, "training.parallel.tp: got 3"),
        ({"forwards": [{"parallel": {"tp": 3}}]}, "forwards[0].parallel.tp: got 3, which does not divide 8 ranks"),
    ],
)
def test_no_plan_is_said_with_its_place(changes, said):
    assert said in refused(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answers": {"mean": 600, "most": 512}}, "Allowed: up to `most` (512)"),
        ({"prompt_tokens": 2000}, "sequence_length: got 2048. Allowed: from 2512"),
        ({"pools": "one_step_off", "offload": {"weights": True}}, "goes with `pools: colocated` alone"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)")):
        run(**changes)


def test_a_cache_without_room_is_an_outcome_on_the_command_line(tmp_path):
    path = tmp_path / "step.yaml"
    path.write_text(json.dumps({"systems": ["hgx_h100"], "workload": STEP}))
    done = CliRunner().invoke(app, ["run", str(path), "--set", "workload.rollout.batching.memory_share=0.05"])
    assert done.exit_code == 1
    assert "no room for a cache" in " ".join(done.output.split())
