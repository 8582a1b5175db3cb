"""Folded equals unfolded, to the bit.

Ranks that can never differ are simulated once. Here every rank is simulated by itself, on the full incidence of
groups, ports, NICs, uplinks and leaves, with contention, stragglers and slow ports, and each of its ops must start,
wait and end at the very picosecond that its class says.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
from collections import defaultdict

import numpy as np
import pytest

from cmsim import api, engine
from cmsim.engine.record import links_columns
from cmsim.scenario import load_scenario
from cmsim.workload import generate

#: the module; ``cmsim.engine`` exports a function of this name
PLAN = importlib.import_module("cmsim.engine.plan")

MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "moe_intermediate_size": 256,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
}


def boxes(domains, switch_ports):
    """8-accelerator servers behind oversubscribed leaves of ``switch_ports`` x 2/3 NICs."""
    change = {"scale_out.oversubscription": 2.0, "scale_out.switch_ports": switch_ports}
    return {"system": "hgx_h100", "domains": domains, "set": change}


#: by ranks: a rack on one switch tier, dies on two tiers in planes, servers on leaves that hold two of them each
SYSTEMS = {
    64: {
        "rack": {"system": "gb200_nvl72", "accelerators": 64},
        "planes": {"system": "cloudmatrix384", "accelerators": 32},
        "boxes": boxes(8, 24),
    },
    256: {
        "rack": {"system": "gb200_nvl72", "domains": 4, "accelerators": 256},
        "planes": {"system": "cloudmatrix384", "accelerators": 128},
        "boxes": boxes(32, 24),
    },
}
PERTURBED = {
    "even": {},
    "straggler": {17: {"compute": 1.3}},
    "slow port": {5: {"port": 0.5}},
    "slow NIC": {9: {"nic": 0.5}},
    "all three": {17: {"compute": 1.3}, 5: {"port": 0.5}, 9: {"nic": 0.5}},
}
PARALLEL = {64: {"tp": 2, "pp": 2, "ep": 8}, 256: {"tp": 2, "pp": 4, "ep": 8}}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "config.json"
    file.write_text(json.dumps(MOE))
    return str(file)


def training(model, ranks, **changes):
    return {
        "kind": "training",
        "model": model,
        "sequence_length": 2048,
        "global_batch": ranks // 2 if ranks == 64 else ranks // 4,
        "parallel": PARALLEL[ranks],
        "recompute": "none",
        **changes,
    }


def decode(model, **changes):
    return {
        "kind": "decode",
        "model": model,
        "batch_per_accelerator": 256,
        "context_tokens": 2048,
        "microbatches": 2,
        "parallel": {"ep": 32, "attention": "dp"},
        **changes,
    }


def play(workload, system, perturb, network, *, fold, faults=()):
    scenario = load_scenario(
        {
            "systems": [system],
            "workload": workload,
            "network": network,
            "fold": fold,
            "perturb": perturb,
            "faults": list(faults),
        }
    )
    (one,) = scenario.runs
    where = api.system(one)
    plan = engine.plan(generate.programs(one.spec, where), where, api.options_of(one, where))
    return plan, engine.play(plan, network)


def differences(folded, unfolded):
    """(rank, column) whose ops differ."""
    (plan_1, line_1), (plan_2, line_2) = folded, unfolded
    assert plan_2.classes == plan_2.programs.ranks
    for rank in range(plan_1.programs.ranks):
        mine, own = plan_1.folding.rank_class[rank], plan_2.folding.rank_class[rank]
        for column in ("start_ps", "end_ps", "wait_ps"):
            if not np.array_equal(getattr(line_1, column)[mine], getattr(line_2, column)[own]):
                yield rank, column


def stretches(plan, timeline):
    """Of every resource, by name: its stretches of constant rate and the whole shares that crossed in each."""
    out = defaultdict(lambda: defaultdict(int))
    for segment in timeline.segments:
        for resource, share in zip(segment.demand.resources, segment.demand.shares, strict=True):
            out[plan.resources.name[resource]][segment.start_ps, segment.end_ps, segment.rate_Bps] += share
    return {name: dict(found) for name, found in out.items()}


def check_links(folded, unfolded):
    """Every port, NIC, uplink and leaf of the full system carries what its class says, stretch by stretch."""
    (plan_1, line_1), (plan_2, line_2) = folded, unfolded
    by_class, by_one = stretches(plan_1, line_1), stretches(plan_2, line_2)
    for rank in range(plan_1.programs.ranks):
        mine, own = plan_1.folding.rank_class[rank], plan_2.folding.rank_class[rank]
        numbers = {
            "port": (mine, own),
            "nic": (mine, own),
            "uplink": (plan_1.folding.node_class[mine], plan_2.folding.node_class[own]),
            "leaf": (plan_1.folding.leaf_class[mine], plan_2.folding.leaf_class[own]),
        }
        for (kind, (one, two)), way in itertools.product(numbers.items(), ("out", "in")):
            there = by_class.get(f"{kind}.{way}[{one}]")
            assert there == by_one.get(f"{kind}.{way}[{two}]"), (rank, kind, way)
    totals = []
    for plan, line in (folded, unfolded):
        links = links_columns(plan, line)
        kind = np.array([name.partition("[")[0] for name in links["resource"]])
        totals.append({k: (links["bytes_B"] * links["instances"])[kind == k].sum() for k in np.unique(kind).tolist()})
    assert totals[0] == pytest.approx(totals[1], rel=1e-9)


def check(workload, system, perturb, network):
    folded = play(workload, system, perturb, network, fold=True)
    unfolded = play(workload, system, perturb, network, fold=False)
    assert not list(differences(folded, unfolded))
    assert folded[1].makespan_ps == unfolded[1].makespan_ps
    check_links(folded, unfolded)
    return folded


def rows(quick, *axes):
    """All combinations of arguments; those that are not among the quick ones run in `make test-all` alone."""
    every = itertools.product(*axes)
    return [pytest.param(*row, marks=() if row in quick else pytest.mark.slow) for row in every]


#: where nothing is shared, one perturbation tells as much as each of them
NETWORKS = rows({*itertools.product(["fluid"], PERTURBED), ("ideal", "all three")}, ["fluid", "ideal"], PERTURBED)


@pytest.mark.parametrize(("network", "perturbed"), NETWORKS)
@pytest.mark.parametrize(("ranks", "system"), [(ranks, name) for ranks in SYSTEMS for name in SYSTEMS[ranks]])
def test_training(model, ranks, system, perturbed, network):
    """Tensor, pipeline, data and expert parallel traffic at once."""
    plan, _ = check(training(model, ranks), SYSTEMS[ranks][system], PERTURBED[perturbed], network)
    assert {call.collective for call in plan.calls} == {
        "all_gather", "reduce_scatter", "all_reduce", "dispatch", "combine", "send_recv",
    }  # fmt: skip
    assert plan.classes < ranks


@pytest.mark.parametrize(("network", "perturbed"), NETWORKS)
@pytest.mark.parametrize("system", SYSTEMS[64])
def test_decode_of_two_microbatches_in_two_expert_groups(model, system, perturbed, network):
    plan, _ = check(decode(model), SYSTEMS[64][system], PERTURBED[perturbed], network)
    assert plan.classes <= 9


@pytest.mark.parametrize("system", SYSTEMS[64])
def test_forward_and_backward_interleaved(model, system):
    """Two streams of every rank use the same groups."""
    workload = training(model, 64, overlap_experts=True)
    check(workload, SYSTEMS[64][system], PERTURBED["all three"], "fluid")


@pytest.mark.parametrize("perturbed", ["even", "all three"])
@pytest.mark.parametrize("schedule", ["interleaved", "zb_h1", "zb_v", "dualpipe"])
def test_every_schedule(model, schedule, perturbed):
    """Messages from the last stage to the first or back, and gradients that mirrored stages share."""
    virtual = 2 if schedule == "interleaved" else 1
    parallel = {"tp": 2, "pp": 2, "ep": 4, "virtual_stages": virtual}
    workload = training(model, 64, parallel=parallel, schedule=schedule, global_batch=128)
    check(workload, boxes(8, 24), PERTURBED[perturbed], "fluid")


def test_all_ways_to_split_at_once(tmp_path):
    """256 ranks, all of tp, cp, dp, pp, ep above 1, virtual stages on."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**MOE, "num_hidden_layers": 8}))
    parallel = {"tp": 2, "cp": 2, "pp": 4, "ep": 4, "virtual_stages": 2}
    workload = training(str(file), 256, parallel=parallel, global_batch=64)
    plan, _ = check(workload, boxes(32, 24), PERTURBED["all three"], "fluid")
    assert plan.classes < 256


@pytest.mark.parametrize("perturbed", ["even", "all three"])
def test_leaves_that_cut_servers(model, perturbed):
    """Leaves of 13 NICs: places of groups are all alike no more, and few ranks fold, but none wrongly."""
    check(training(model, 64), boxes(8, 20), PERTURBED[perturbed], "fluid")
    check(decode(model), boxes(8, 20), PERTURBED[perturbed], "fluid")


@pytest.mark.parametrize("perturbed", ["even", "all three"])
def test_hosts_that_issue_every_op(model, perturbed):
    """Ops wait for their host as well as for each other."""
    system = {**SYSTEMS[64]["boxes"], "stack": "cuda_eager", "set": {**boxes(8, 24)["set"], "stack.host.op_us": 40}}
    folded = check(training(model, 64), system, PERTURBED[perturbed], "fluid")
    assert sum(int(wait.sum()) for wait in folded[1].host_ps) > 0


def test_context_parallel_groups_across_nodes(model):
    workload = training(model, 64, parallel={"tp": 2, "cp": 8, "pp": 2, "ep": 4}, global_batch=8)
    check(workload, boxes(8, 24), PERTURBED["all three"], "fluid")
    two_ways = {"tp": 2, "cp": 8, "pp": 2, "ep": 4, "cp_comm_type": "a2a+p2p", "cp_a2a": 2}
    check(training(model, 64, parallel=two_ways, global_batch=8), boxes(8, 24), PERTURBED["all three"], "fluid")


def test_tables_on_ranks():
    workload = {"kind": "training", "model": "dlrm-dcnv2", "global_batch": 4096, "micro_batch": 64, "recompute": "none"}
    check({**workload, "zero_stage": 0}, boxes(8, 24), PERTURBED["all three"], "fluid")


FAULTS = {
    "rack": [{"part": "rank/5/plane/3"}, {"part": "switch/0/7", "left": 0.5, "from_s": 3e-4, "until_s": 9e-4}],
    "planes": ["l1/1/3", {"part": "module/2/0/5", "from_s": 5e-4}],
    "boxes": [{"part": "nic/9", "left": 0.5}, {"part": "nic/20", "from_s": 1e-4, "until_s": 6e-4}],
}


#: every system, both perturbations, with faults and without: at least once each
SOON = {("rack", "even", True), ("planes", "all three", False), ("boxes", "all three", True), ("boxes", "even", False)}


@pytest.mark.parametrize(
    ("system", "perturbed", "faulty"), rows(SOON, SYSTEMS[64], ("even", "all three"), (False, True))
)
def test_training_on_single_links(model, system, perturbed, faulty):
    """Message by message, with parts down from the start, from a time on, and until a time."""
    faults = FAULTS[system] if faulty else []
    runs = [
        play(training(model, 64), SYSTEMS[64][system], PERTURBED[perturbed], "flow", fold=fold, faults=faults)
        for fold in (True, False)
    ]
    assert not list(differences(*runs))
    carried = []
    for plan, line in runs:
        links = links_columns(plan, line)
        tier = np.array([name.partition("[")[0] for name in links["resource"]])
        carried.append({k: (links["bytes_B"] * links["instances"])[tier == k].sum() for k in np.unique(tier).tolist()})
    assert carried[0] == pytest.approx(carried[1], rel=1e-9)
    assert runs[0][0].classes < 64 or faulty


def test_there_is_contention_at_all(model):
    """Else the tests above would prove little: on the fluid network rates change, and it is slower than ideal."""
    for system in SYSTEMS[64].values():
        _, fluid = play(training(model, 64), system, {}, "fluid", fold=True)
        _, ideal = play(training(model, 64), system, {}, "ideal", fold=True)
        assert fluid.makespan_ps > ideal.makespan_ps
        moved = defaultdict(set)
        for segment in fluid.segments:
            moved[id(segment.demand), segment.demand.size_B].add(segment.rate_Bps)
        assert any(len(found) > 1 for found in moved.values())


@pytest.mark.parametrize("system", SYSTEMS[64])
def test_what_makes_a_rank_differ_makes_a_difference(model, system):
    even = play(training(model, 64), SYSTEMS[64][system], {}, "fluid", fold=True)
    few, makespan_ps = even[0].classes, even[1].makespan_ps
    assert few == 2  # one a stage
    for name in ("straggler", "slow port"):
        plan, line = play(training(model, 64), SYSTEMS[64][system], PERTURBED[name], "fluid", fold=True)
        assert few < plan.classes <= 24, name
        assert line.makespan_ps > makespan_ps, name
    plan, line = play(training(model, 64), SYSTEMS[64][system], PERTURBED["slow NIC"], "fluid", fold=True)
    assert (line.makespan_ps > makespan_ps) == (system == "boxes")  # nobody else uses NICs here


@pytest.mark.parametrize("system", SYSTEMS[64])
def test_metrics_and_energy_are_the_same(model, system):
    """The whole way: joules, exposed communication and breakdown of the run."""
    results = []
    for fold in (True, False):
        (one,) = load_scenario(
            {
                "systems": [SYSTEMS[64][system]],
                "workload": training(model, 64),
                "perturb": PERTURBED["all three"],
                "fold": fold,
            }
        ).runs
        results.append(api.run_one(one, api.system(one)))
    folded, unfolded = results
    assert folded.metrics["makespan_s"] == unfolded.metrics["makespan_s"]
    assert dict(folded.metrics) == pytest.approx(dict(unfolded.metrics), rel=1e-9)
    assert dict(folded.breakdown) == pytest.approx(dict(unfolded.breakdown), rel=1e-9)
    assert folded.limiter == unfolded.limiter
    assert folded.bound["name"] == unfolded.bound["name"]


# The tests above must be able to fail: here the code is broken on purpose.


def test_a_lost_share_would_be_seen(model, monkeypatch):
    """All shares of a leaf, but one: as if a rank's bytes left the leaf unseen."""
    true_resources = PLAN.resources

    def short(*arguments):
        links, incidence = true_resources(*arguments)
        return links, dataclasses.replace(incidence, in_leaf=np.maximum(incidence.in_leaf - 1, 1))

    monkeypatch.setattr(PLAN, "resources", short)
    with pytest.raises(AssertionError):
        check(training(model, 64), SYSTEMS[64]["boxes"], {}, "fluid")


@pytest.mark.parametrize(("place", "system"), [("node", "planes"), ("leaf", "boxes")])
def test_a_place_left_out_of_the_refinement_would_be_seen(model, monkeypatch, place, system):
    """Neighbours of a straggler share an uplink or a leaf with it; folded with ranks that do not, they go wrong."""
    true_fold = PLAN.fold

    def blind(start, who, *, slots, enabled=True, **places):
        if enabled:
            places[place] = np.zeros_like(places[place])
        return true_fold(start, who, slots=slots, enabled=enabled, **places)

    monkeypatch.setattr(PLAN, "fold", blind)
    with pytest.raises(AssertionError):
        for perturbed in PERTURBED.values():
            check(training(model, 64), SYSTEMS[64][system], perturbed, "fluid")
