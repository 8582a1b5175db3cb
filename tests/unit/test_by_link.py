"""network: flow in the engine: rounds of messages on single links, faults, drawn paths, sharing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cmsim import api, engine, messages
from cmsim.cli import notes
from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import load_system
from cmsim.scenario import load_scenario
from cmsim.units import to_s
from cmsim.workload import generate


def result(system="cloudmatrix384", *, collective="all_to_all", size_B=1e8, network="flow", **changes):
    """Of one timed collective; ``changes`` with a name of the workload's go there, others into the scenario."""
    mine = {key: changes.pop(key) for key in ("group", "stride", "algorithm", "repeat") if key in changes}
    workload = {"kind": "collective", "collective": collective, "message_bytes": size_B, **mine}
    (one,) = load_scenario({"systems": [system], "workload": workload, "network": network, **changes}).runs
    return api.run_one(one, api.system(one))


SMALL = {"system": "cloudmatrix384", "accelerators": 16}
RACK = {"system": "gb200_nvl72", "accelerators": 16}
BOXES = {"system": "hgx_h100", "domains": 4}


@pytest.mark.parametrize("system", [SMALL, RACK])
@pytest.mark.parametrize("collective", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"])
@pytest.mark.parametrize("group", ["all", 4])
def test_on_a_whole_fabric_nothing_shares_and_links_agree_with_levels(system, collective, group):
    """Every message has what its port gives it; only near messages start sooner than the level model says."""
    for size_B, tolerance in ((1e4, 0.1), (1e9, 1e-3)):
        by_link = result(system, collective=collective, size_B=size_B, group=group)
        # links play rounds of a formula; without them the library in its measured time may be the best
        algorithm = by_link.metrics["algorithm"]
        by_level = result(
            system, collective=collective, size_B=size_B, group=group, network="fluid", algorithm=algorithm
        )
        assert by_link.metric("time_s") == pytest.approx(by_level.metric("time_s"), rel=tolerance)
        assert by_link.metric("time_s") <= by_level.metric("time_s") * (1 + 1e-6)
        assert by_link.metric("power_avg_W") == pytest.approx(by_level.metric("power_avg_W"), rel=0.02)


@pytest.mark.parametrize("collective", ["all_reduce", "broadcast", "all_gather"])
def test_flat_rings_across_domains_use_every_nic(collective):
    """As one copy for each member of a domain, a ring leaves it through all NICs; a single one has one to itself."""
    by_level = result(BOXES, collective=collective, size_B=1e9, algorithm="ring", network="fluid")
    by_link = result(BOXES, collective=collective, size_B=1e9, algorithm="ring")
    assert by_link.metric("time_s") == pytest.approx(by_level.metric("time_s"), rel=0.05)


def test_the_engine_plays_what_the_room_of_flows_computes():
    system = load_system("cloudmatrix384", accelerators=48)
    for algorithm in ("direct", "pairwise"):
        alone = messages.collective_time(system, "all_to_all", algorithm=algorithm, size_B=1e8)
        (one,) = load_scenario(
            {
                "systems": [{"system": "cloudmatrix384", "accelerators": 48}],
                "workload": {
                    "kind": "collective",
                    "collective": "all_to_all",
                    "message_bytes": 1e8,
                    "algorithm": algorithm,
                },
                "network": "flow",
            }
        ).runs
        assert api.run_one(one, system).metric("time_s") == pytest.approx(alone.time_s, rel=2e-3)


def test_one_slow_link_moves_the_result():
    """It would not if a closed form stood in place of the messages."""
    whole = result(SMALL)
    slow = result(SMALL, faults=[{"part": "module/1/3/5", "left": 0.5}])
    slower = result(SMALL, faults=["module/1/3/5"])
    assert whole.metric("time_s") < slow.metric("time_s") < slower.metric("time_s")
    # spread over the paths that are left: 111 of 112 lanes carry what 112 did
    up = result(SMALL, faults=["l1/1/3"])
    assert up.metric("fault_slowdown") == pytest.approx(7 / 6, rel=0.01)


def test_a_fault_says_for_whom_and_which_links_were_full():
    found = result(SMALL, group=16, faults=["rank/3/plane/2"])
    assert found.metric("fault_slowdown") == pytest.approx(7 / 6, rel=0.01)
    # ranks 0 to 15 are its group; the others are not touched
    assert found.faults["slowed"] == 16
    assert found.faults["ranks"] == ["0-15"]
    # one direction of its port is the first that is full all along
    assert "rank 3" in found.faults["saturated"][0]["link"]
    assert found.faults["healthy_makespan_s"] == pytest.approx(found.metric("time_s") / found.metric("fault_slowdown"))
    (words,) = notes.faults([found])
    assert "16 of 32 ranks end later (0-15); full links: port.in rank 3" in words


def test_a_fault_for_a_time_costs_that_time():
    whole_s = result(SMALL).metric("time_s")
    always = result(SMALL, faults=["l1/1/3"]).metric("time_s")
    begin_s, end_s = whole_s / 4, whole_s / 2
    passing = result(SMALL, faults=[{"part": "l1/1/3", "from_s": begin_s, "until_s": end_s}])
    late = result(SMALL, faults=[{"part": "l1/1/3", "from_s": 2 * whole_s}])
    assert late.metric("time_s") == whole_s
    # in that quarter 6/7 of the bytes move; the rest moves afterwards
    expected_s = whole_s + (end_s - begin_s) * (1 - whole_s / always)
    assert passing.metric("time_s") == pytest.approx(expected_s, rel=0.01)


def test_a_transfer_without_a_path_waits_for_the_repair():
    part = {"part": "nic/3", "from_s": 1e-3, "until_s": 3e-3}
    whole_s = result(BOXES, collective="all_to_all", size_B=1e9).metric("time_s")
    assert result(BOXES, collective="all_to_all", size_B=1e9, faults=[part]).metric("time_s") == pytest.approx(
        whole_s + 2e-3, rel=0.02
    )
    from_the_start = {"part": "nic/3", "until_s": 2e-3}
    assert result(BOXES, size_B=1e9, faults=[from_the_start]).metric("time_s") == pytest.approx(
        whole_s + 2e-3, rel=0.02
    )
    with pytest.raises(InfeasibleError, match="nic"):
        result(BOXES, size_B=1e9, faults=["nic/3"])
    with pytest.raises(InfeasibleError, match="nic"):
        result(BOXES, size_B=1e9, faults=[{"part": "nic/3", "from_s": 1e-3}])


def test_drawn_paths_collide_and_unfold():
    sprayed = result(SMALL, size_B=1e9)
    hashed = [result(SMALL, size_B=1e9, routing="hashed", seed=seed).metric("time_s") for seed in (0, 0, 1, 2, 3)]
    assert min(hashed) > sprayed.metric("time_s")
    assert hashed[0] == hashed[1]
    assert len(set(hashed)) > 1


def test_collectives_in_flight_share_links_whatever_their_groups():
    """Two strided groups of every node cross the same uplinks as the whole node does."""
    system = {"system": "cloudmatrix384", "accelerators": 16, "set": {"scale_up.l2_chips_per_plane": 4}}
    # four chips of the second tier: uplinks carry a quarter of what the ports give
    near, far = (result(system, group=16, stride=stride, size_B=1e8).metric("time_s") for stride in (1, 2))
    assert far > 1.5 * near


def test_messages_of_a_group_too_large_are_refused(monkeypatch):
    from cmsim.engine import by_link

    monkeypatch.setattr(by_link, "MOST_MESSAGES", 100)
    with pytest.raises(InfeasibleError, match="992 messages a round; network: flow lays at most 100"):
        result(SMALL)


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["l1/4/0"], r"has no part 'l1/4/0'. Did you mean 'l1/3/0'\? l1/NODE/PLANE: 0 to 3, 0 to 6"),
        (["plane/2"], "has no part 'plane/2'"),
        ([{"part": "l1/0/0", "left": 1.5}], "less than or equal to 1"),
        ([{"part": "l1/0/0", "from_s": 2.0, "until_s": 1.0}], r"until_s: must be after from_s \(2\), got 1"),
        ([{"part": "l1/0/0", "from": 2.0}], "from_s"),
    ],
)
def test_faults_that_cannot_be_are_named(faults, said):
    with pytest.raises(InputError, match=said):
        result({**SMALL, "accelerators": 32}, faults=faults)


def test_faults_of_one_system_leave_the_other_alone():
    scenario = load_scenario(
        {
            "systems": [{**SMALL, "faults": ["l1/0/0"]}, RACK],
            "workload": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6},
        }
    )
    broken, whole = scenario.runs
    assert (broken.network, whole.network) == ("flow", "fluid")
    assert whole.faults == ()


def test_links_planned_for_flow_cannot_be_asked_of_levels():
    (one,) = load_scenario(
        {"systems": [SMALL], "workload": {"kind": "collective", "collective": "barrier", "message_bytes": 0}}
    ).runs
    system = api.system(one)
    programs = generate.programs(one.spec, system)
    with pytest.raises(InputError, match="faults need network: flow"):
        engine.plan(programs, system, engine.Options(faults=[engine.Fault("l1/0/0")]))


def test_bounds_stand_beside_every_timed_collective():
    for network in ("ideal", "fluid", "flow"):
        found = result("cloudmatrix384", collective="all_to_all", size_B=1e8, network=network, group=384)
        port_Bps = 196e9
        assert found.metric("bound_egress_s") == pytest.approx(1e8 * 383 / 384 / port_Bps)
        assert found.metric("bound_ingress_s") == found.metric("bound_egress_s")
        assert found.metric("bound_latency_s") == pytest.approx(2.1e-6)
        assert found.metric("bound_ratio") == pytest.approx(found.metric("time_s") / found.metric("bound_egress_s"))
        assert found.metric("bound_ratio") >= 1


def test_a_model_runs_on_links():
    """Tensor, expert and data parallel traffic at once, close to the level model where nothing is broken."""
    workload = {
        "kind": "decode",
        "model": "qwen3-235b-a22b",
        "batch_per_accelerator": 32,
        "context_tokens": 2048,
        "parallel": {"ep": 16, "attention": "dp"},
        "balance": {"model": "balanced"},
    }
    times = {}
    for network in ("fluid", "flow"):
        (one,) = load_scenario({"systems": [SMALL], "workload": workload, "network": network}).runs
        times[network] = api.run_one(one, api.system(one)).metric("makespan_s")
    assert times["flow"] == pytest.approx(times["fluid"], rel=0.02)


def test_segments_carry_every_byte():
    """What crosses the ports is what the collective sends, protocol overhead included."""
    found = result(SMALL, size_B=1e8)
    links = found.links
    out = links[links["resource"].str.startswith("port.out")]
    system = load_system("cloudmatrix384", accelerators=16)
    sent_B = 32 * 1e8 * 31 / 32 / system.stack.collectives.scale_up_efficiency
    assert float((out["bytes_B"] * out["instances"]).sum()) == pytest.approx(sent_B, rel=1e-6)
    assert float(to_s(np.int64(links["end_ps"].max()))) == pytest.approx(found.metric("time_s"), rel=1e-6)


@pytest.mark.parametrize("algorithm", ["ring", "best"])
def test_a_group_too_large_is_refused_before_its_fabric_is_laid(monkeypatch, algorithm):
    """Routes of a hundred thousand ranks took half a minute and 3 GB, the messages more."""
    import cmsim

    monkeypatch.setattr(sys.modules["cmsim.engine.plan"], "_states", None)
    workload = {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e9, "algorithm": algorithm}
    data = {"network": "flow", "systems": [{"system": "cloudmatrix384", "domains": 130}], "workload": workload}
    [missing] = cmsim.run(data).missing
    assert "messages a round; network: flow lays at most 4,194,304" in missing.message


@pytest.mark.parametrize("collective", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"])
def test_messages_are_counted_as_they_are_made(collective):
    """What is refused by its count has that many; nothing that would be laid is refused."""
    from cmsim import messages
    from cmsim.collectives import CANDIDATES, collective_code

    for one in CANDIDATES[collective_code(collective)]:
        for ranks, inner, domain in ((16, 4, 4), (16, 4, 16), (8, 2, 4)):
            args = {"inner": inner if "(" in one.name else 1, "domain": domain}
            try:
                made = messages.candidate_rounds(collective, one.name, ranks, **args)
            except InfeasibleError:  # of a grid, which there is none of
                continue
            most = max(len(sent.src) for sent in made)
            messages.check_count(collective, one.name, ranks, **args, most=most)
            with pytest.raises(InfeasibleError, match="messages a round"):
                messages.candidate_rounds(collective, one.name, ranks, **args, most=most - 1)
