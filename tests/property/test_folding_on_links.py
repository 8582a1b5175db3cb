"""On single links folded equals unfolded, to the bit, whatever joins the ranks.

Where ranks forward no place tells who is alike, and laid messages must show it. Here every rank is simulated by itself,
and each op and each link of the system must do at every picosecond what its class says.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from cmsim import api, engine
from cmsim.engine.record import links_columns
from cmsim.hardware import load_system
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.ops import ProgramBuilder, assemble

ROOT = Path(__file__).parents[2]
POWER = {"chip_static_W": 0, "chip_dynamic_W": 0}


def grid(*dims):
    """A grid of (kind, size) dimensions."""
    ranks = int(np.prod([size for _, size in dims]))
    listed = {"xyz"[i]: {"kind": k, "size": n, "link_GBps": 50, "hop_us": 1.0} for i, (k, n) in enumerate(dims)}
    wired = {"wiring": "dimensions", "dimensions": listed, "power": POWER}
    change = {"accelerators": ranks, "node.accelerators": 1, "racks": 1, "scale_up": wired}
    return {"system": "tpu_v4_pod", "set": change}


SYSTEMS = {
    "switch": {"system": "gb200_nvl72", "accelerators": 16},
    "full mesh": {"system": "mi300x_8"},
    "planes": {"system": "cloudmatrix384", "accelerators": 16},
    "boxes": {"system": "hgx_h100", "domains": 2},
    "row behind a switch": grid(("switch", 16)),
    "ring": grid(("ring", 9)),
    "line": grid(("line", 8)),
    "torus": grid(("ring", 4), ("ring", 4)),
    "torus of two sizes": grid(("ring", 4), ("ring", 6)),
    "mesh of lines": grid(("mesh", 4), ("line", 4)),
    "dragonfly": {"system": str(ROOT / "scenarios" / "graphs" / "dragonfly40.yaml")},
}
DENSE = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
}

#: wirings on which turning all ranks by one, or by a row, changes nothing
EVEN = ("switch", "full mesh", "row behind a switch", "ring", "torus")

CALLS = {
    "ring": {"collective": "all_reduce", "algorithm": "ring"},
    "all pairs": {"collective": "all_to_all", "algorithm": "direct"},
    "tree": {"collective": "broadcast", "algorithm": "binomial"},
    "best": {"collective": "all_gather"},
    "neighbours": {"collective": "send_recv", "ranks": 8},
    "rings of four": {"collective": "all_reduce", "algorithm": "ring", "group": 4, "ranks": 8},
    "far rings of four": {"collective": "all_reduce", "algorithm": "ring", "group": 4, "stride": 2, "ranks": 8},
    "pairs of four": {"collective": "all_to_all", "algorithm": "direct", "group": 4, "ranks": 8},
}


def played(system, workload, *, fold, **changes):
    (one,) = load_scenario({"systems": [system], "workload": workload, "network": "flow", "fold": fold, **changes}).runs
    where = api.system(one)
    plan = engine.plan(generate.programs(one.spec, where), where, api.options_of(one, where))
    return plan, engine.play(plan), api.run_one(one, where)


def by_link(plan, timeline):
    """Of every single link of the system, what it does and when, stretch by stretch: where rates differ by rounding
    alone, nothing begins."""
    columns = links_columns(dataclasses.replace(plan, network="fluid"), timeline)
    number = {name: i for i, name in enumerate(plan.resources.name)}
    rows = defaultdict(list)
    shown = ("start_ps", "end_ps", "bytes_B", "utilization")
    for name, *row in zip(columns["resource"], *(columns[key].tolist() for key in shown), strict=True):
        before = rows[number[name]][-1] if rows[number[name]] else (0, -1, 0.0, 0.0)
        if before[1] == row[0] and before[3] == pytest.approx(row[3], rel=1e-12):
            row = [before[0], row[1], before[2] + row[2], before[3]]
            rows[number[name]].pop()
        rows[number[name]].append(tuple(row))
    return [rows.get(kind, []) for kind in plan.resources.located()["link"].tolist()]


def alike(one, two):
    """Stretches of a link: the same but for rounding."""
    return len(one) == len(two) and np.allclose(one, two, rtol=1e-12, atol=0)


def check(system, workload, **changes):
    """Ops of every rank and work of every link; the folded plan."""
    (plan, line, result), (apart, alone, by_one) = (
        played(system, workload, fold=fold, **changes) for fold in (True, False)
    )
    assert apart.classes == apart.programs.ranks
    for rank in range(plan.programs.ranks):
        mine, own = plan.folding.rank_class[rank], apart.folding.rank_class[rank]
        for column in ("start_ps", "end_ps", "wait_ps"):
            assert np.array_equal(getattr(line, column)[mine], getattr(alone, column)[own]), (rank, column)
    ours, theirs = by_link(plan, line), by_link(apart, alone)
    unlike = [i for i, (one, two) in enumerate(zip(ours, theirs, strict=True)) if not alike(one, two)]
    assert unlike == []
    assert any(ours)
    ours, theirs = ({k: v for k, v in one.metrics.items() if not isinstance(v, str)} for one in (result, by_one))
    assert ours == pytest.approx(theirs, rel=1e-12)
    return plan


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_rank_and_link_does_what_its_class_does(system, call):
    check(SYSTEMS[system], {"kind": "collective", "message_bytes": 1e7, **CALLS[call]})


@pytest.mark.parametrize("system", EVEN)
def test_a_ring_of_even_ranks_is_one_class(system):
    plan = check(SYSTEMS[system], {"kind": "collective", "message_bytes": 1e7, **CALLS["all pairs"]})
    assert plan.classes == 1
    if system != "torus":  # a ring by number turns from row to row there
        assert check(SYSTEMS[system], {"kind": "collective", "message_bytes": 1e7, **CALLS["ring"]}).classes == 1


SLOW = {
    "slow port": {"perturb": {3: {"port": 0.5}}},
    "straggler": {"perturb": {3: {"compute": 1.3}}},
    "hashed": {"routing": "hashed", "seed": 3},
}


FOURS = [pytest.param(one, marks=pytest.mark.slow) for one in ("rings of four", "far rings of four")]


@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("call", ["ring", "all pairs", *FOURS])
@pytest.mark.parametrize("system", ["switch", "row behind a switch", "ring", "torus", "mesh of lines", "dragonfly"])
def test_what_makes_a_rank_differ_unfolds_it_and_its_neighbours(system, call, slow):
    plan = check(SYSTEMS[system], {"kind": "collective", "message_bytes": 1e7, **CALLS[call]}, **SLOW[slow])
    assert slow == "hashed" or plan.folding.count[plan.folding.rank_class[3]] == 1


@pytest.mark.parametrize("system", ["ring", "torus", "dragonfly"])
def test_a_link_that_is_down_for_a_time(system):
    faults = [{"part": "rank/3/port", "left": 0.3, "from_s": 1e-5, "until_s": 4e-5}]
    for call in ("ring", "all pairs"):
        workload = {"kind": "collective", "message_bytes": 1e7, **CALLS[call]}
        plan = check(SYSTEMS[system], workload, faults=faults)
        assert plan.classes > 1


@pytest.mark.parametrize("perturbed", [{}, {5: {"port": 0.5}}], ids=["even", "slow port"])
@pytest.mark.parametrize("parallel", [{"tp": 4, "pp": 2}, {"tp": 2, "pp": 4, "dp": 2}], ids=["4x2x2", "2x4x2"])
@pytest.mark.parametrize("system", ["torus", "row behind a switch", "mesh of lines"])
def test_training_where_ranks_forward(tmp_path, system, parallel, perturbed):
    """Tensor, pipeline and data parallel groups at once, some of which share links."""
    model = tmp_path / "config.json"
    model.write_text(json.dumps(DENSE))
    workload = {
        "kind": "training",
        "model": str(model),
        "sequence_length": 512,
        "global_batch": 8,
        "parallel": parallel,
        "recompute": "none",
    }
    plan = check(SYSTEMS[system], workload, perturb=perturbed)
    assert plan.classes < 16 or system != "row behind a switch" or perturbed


def graph(folder, cables, ranks):
    """A system of a table of links, each 50 GB/s and 1 us."""
    lines = [f"{a},{b},50,1.0" for a, b in cables]
    (folder / "graph.csv").write_text("\n".join(["from,to,GBps,latency_us", *lines]) + "\n")
    source = (ROOT / "scenarios" / "graphs" / "dragonfly40.yaml").read_text(encoding="utf-8")
    (folder / "graph.yaml").write_text(source.replace("dragonfly40.csv", "graph.csv"), encoding="utf-8")
    change = {"accelerators": ranks, "node.accelerators": 1, "racks": 1}
    return load_system(str(folder / "graph.yaml"), set=change)


def two_ways(programs, system, algorithm="best"):
    """The folded plan, after its links have been compared with those of the unfolded one."""
    options = engine.Options(network="flow", algorithm=algorithm)
    plans = [engine.plan(programs, system, dataclasses.replace(options, fold=fold)) for fold in (True, False)]
    ours, theirs = (engine.play(plan) for plan in plans)
    assert by_link(plans[0], ours) == by_link(plans[1], theirs)
    assert ours.makespan_ps == theirs.makespan_ps
    return plans[0]


def test_groups_whose_way_others_cross_are_apart(tmp_path):
    """Pairs 0-1 and 2-3 send alike over own links, but the trunk of the first carries 4-5 as well."""
    ends = [("a", 0), ("b", 1), ("c", 2), ("d", 3), ("a", 4), ("b", 5)]
    system = graph(tmp_path, [*((f"rank/{rank}", name) for name, rank in ends), ("a", "b"), ("c", "d"), ("b", "c")], 6)
    builds = []
    for size_B in (1e6, 3e6):
        build = ProgramBuilder()
        build.collective("sum", stream="comm", collective="all_reduce", size_B=size_B, slot="pair")
        builds.append(build)
    pairs = {"pair": np.array([0, 0, 1, 1, 2, 2])}
    plan = two_ways(assemble(builds, program=np.array([0, 0, 0, 0, 1, 1]), groups=pairs), system)
    assert plan.folding.rank_class[0] != plan.folding.rank_class[2]


def test_groups_that_meet_on_a_trunk_keep_the_classes_they_have_alone(tmp_path):
    """Rings of four whose first edge is one trunk: each is one class of messages by itself, together they are two."""
    edges = [(ring + at, ring + (at + 1) % 4) for ring in (0, 4) for at in range(4)]
    ends = {here: ("x", "y") if here in (0, 4) else (f"u{here}", f"v{here}") for here, _ in edges}
    # in the order of the way, so that every message meets its links in the same places
    cables = [(f"rank/{here}", f"s{here}") for here, _ in edges]
    cables += [(f"s{here}", ends[here][0]) for here, _ in edges]
    cables += dict.fromkeys(ends.values())
    cables += [(ends[here][1], f"s{there}") for here, there in edges]
    system = graph(tmp_path, cables, 8)
    build = ProgramBuilder()
    build.collective("sum", stream="comm", collective="all_reduce", size_B=1e6, slot="ring")
    rings = {"ring": np.repeat([0, 1], 4)}
    plan = two_ways(assemble([build], program=np.zeros(8, np.int64), groups=rings), system, "ring")
    assert plan.folding.rank_class[0] != plan.folding.rank_class[4]
