"""What lies in the host's memory: bytes that leave a rank, copies, and what they cost where the link is slow."""

from __future__ import annotations

import pytest

import cmsim
from cmsim.errors import InfeasibleError, InputError
from cmsim.workload.generate import kept

WORK = {
    "kind": "training",
    "model": "llama-3.1-8b",
    "sequence_length": 4096,
    "global_batch": 32,
    "recompute": "none",
    "parallel": {"pp": 2},
}


def ran(offload, host_GBps=50.0, **more):
    system = {"system": "hgx_h100", "set": {"accelerator.host_GBps": host_GBps}}
    (result,) = cmsim.run({"systems": [system], "workload": {**WORK, "offload": offload, **more}})
    return result


def held(result) -> dict[str, float]:
    return result.plan["memory_B"]


def test_shares_leave_the_rank():
    plain, moved = ran({}), ran({"activations": 0.5, "optimizer": 0.25})
    assert held(moved)["optimizer"] == pytest.approx(0.75 * held(plain)["optimizer"])
    for part in (kept.NORMS, kept.ATTENTION, kept.FFN):
        assert held(moved)[part] == pytest.approx(0.5 * held(plain)[part])
    assert 0 < held(moved)["offload buffers"] < 0.5 * held(plain)[kept.FFN]
    assert held(moved)["weights"] == held(plain)["weights"]


def test_true_is_all_and_false_is_nothing():
    assert ran({"optimizer": True}).metrics == ran({"optimizer": 1.0}).metrics
    assert ran({"optimizer": False, "activations": False}).metrics == ran({}).metrics


def test_a_fast_link_hides_behind_the_pass_and_a_slow_one_does_not():
    plain, fast, slow = ran({}), ran({"activations": True}, host_GBps=1e5), ran({"activations": True}, host_GBps=5.0)
    time_s = [one.metric("makespan_s") for one in (plain, fast, slow)]
    assert time_s[1] == pytest.approx(time_s[0], rel=2e-3)
    assert time_s[2] > 3 * time_s[0]
    assert slow.breakdown["host_s"] > 0.5 * time_s[2]


def test_states_come_in_once_a_step():
    plain, moved = ran({}), ran({"optimizer": True}, host_GBps=10.0)
    more_s = moved.metric("makespan_s") - plain.metric("makespan_s")
    assert more_s == pytest.approx(held(plain)["optimizer"] / 10e9, rel=0.05)


def test_a_host_that_nobody_knows_is_refused():
    found = cmsim.run({"systems": ["atlas_800_a2"], "workload": {**WORK, "offload": {"optimizer": True}}})
    with pytest.raises(InfeasibleError, match="offload: how fast ascend_910b copies to its host is not known"):
        found.require()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("offload", {"activations": 1.5}, "offload.activations"),
        ("offload", {"weights": True}, "offload.weights"),
        ("recompute", ["mlp", "scores"], "recompute"),
    ],
)
def test_bad_values_name_their_key(key, value, said):
    with pytest.raises(InputError, match=said):
        cmsim.run({"systems": ["hgx_h100"], "workload": {**WORK, key: value}})


@pytest.mark.parametrize(("key", "value"), [("offload", {"optimizer": True}), ("recompute", ["mlp"])])
def test_graphs_have_neither(key, value):
    work = {"kind": "training", "model": "resnet50", "global_batch": 64, key: value}
    with pytest.raises(InfeasibleError, match=f"{key}: "):
        cmsim.run({"systems": ["hgx_h100"], "workload": work}).require()


def test_modules_run_again():
    """Each costs time; an expert layer is sent again too."""
    base = {**WORK, "model": "qwen3-30b-a3b", "sequence_length": 1024, "parallel": {"ep": 8}, "zero_stage": 3}

    def messages(way) -> int:
        (result,) = cmsim.run({"systems": ["hgx_h100"], "workload": {**base, "recompute": way}})
        return sum(1 for name in result.frame("ops")["op"] if name in ("dispatch", "combine")), result.metric(
            "makespan_s"
        )

    plain, act, moe = (messages(way) for way in ("none", ["moe_act"], ["moe"]))
    assert plain[0] == act[0] and moe[0] == 2 * plain[0]
    assert plain[1] < act[1] < moe[1]
