"""Routes against the graph, edge for edge and path for path; spraying, hashing, and parts that are down."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import networkx as nx
import numpy as np
import pytest

from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import System, load_system
from cmsim.topology import between, build, paths
from cmsim.topology.edges import Edges
from cmsim.topology.faults import apply
from cmsim.topology.routes import Routes
from cmsim.topology.wirings import multi_plane_clos

MESH = {"wiring": "full_mesh", "link_GBps": 50.0, "domain_us": 1.0, "power": {"chip_static_W": 0, "chip_dynamic_W": 0}}


def clos(**kwargs: Any) -> System:
    return load_system("cloudmatrix384", **{"rank": "package", **kwargs})


def routes_of(system: System, **asked: Any) -> Routes:
    found = paths(system, **asked)
    assert isinstance(found, Routes)
    return found


def edges(system: System, faults: Any = ()) -> Edges:
    return routes_of(system, faults=faults).edges


def systems() -> dict[str, System]:
    return {
        "two tiers of dies": clos(rank="die", accelerators=16),
        "two tiers, two domains": clos(domains=2, set={"accelerators": 16}),
        "one tier, 16 domains": load_system("hgx_h100", domains=16),
        "one tier, dies": load_system("gb200_nvl72", accelerators=8),
        "mesh, two domains": load_system("hgx_h100", domains=2, set={"scale_up": MESH}),
        "oversubscribed": load_system(
            "hgx_h100", domains=16, set={"scale_out.oversubscription": 2.0, "scale_out.switch_ports": 24}
        ),
    }


SYSTEMS = systems()


def pairs(ranks: int) -> tuple[np.ndarray, np.ndarray]:
    src, dst = np.divmod(np.arange(ranks * ranks), ranks)
    apart = src != dst
    return src[apart], dst[apart]


@pytest.mark.parametrize("name", SYSTEMS)
def test_edges_are_those_of_the_graph(name):
    system = SYSTEMS[name]
    graph, wires, where = build(system), edges(system), routes_of(system).where
    ours: dict[tuple[Any, Any], float] = {}

    def link(a: Any, b: Any, capacity: float) -> None:
        ours[a, b] = ours[b, a] = capacity

    two_tiers = wires.uplink.shape[2] > 0
    for rank, plane in np.ndindex(wires.port.shape):
        chip = ("l1", int(where.node[rank]), plane) if two_tiers else ("switch", int(where.domain[rank]), plane)
        link(("rank", rank), chip, wires.port[rank, plane])
    for node, plane, chip in np.ndindex(wires.uplink.shape):
        domain = int(where.domain[where.node == node][0])
        link(("l1", node, plane), ("l2", domain, plane, chip), wires.uplink[node, plane, chip])
    for rank, peer in np.argwhere(wires.mesh > 0).tolist():
        size = wires.mesh.shape[1]
        ours[("rank", rank), ("rank", rank // size * size + peer)] = wires.mesh[rank, peer]
    for rank, capacity in enumerate(wires.nic):
        link(("rank", rank), ("nic", int(where.package[rank])), capacity)
    for rank, package in enumerate(where.package.tolist()):
        link(("nic", package), ("leaf", int(where.leaf[rank])), wires.leaf[package])
    for leaf, spine in np.ndindex(wires.spine.shape):
        link(("leaf", leaf), ("spine", spine), wires.spine[leaf, spine])
    theirs = {(a, b): data["capacity_Bps"] for a, b, data in graph.edges(data=True) if "cpu" not in (a[0], b[0])}
    assert ours.keys() == theirs.keys()
    assert all(ours[edge] == pytest.approx(theirs[edge], rel=1e-12) for edge in ours)


@pytest.mark.parametrize("name", SYSTEMS)
def test_latency_is_that_of_the_shortest_path(name):
    system = SYSTEMS[name]
    graph, routes = build(system), routes_of(system)
    src, dst = pairs(min(system.ranks, 40))
    crossed = routes.crossings(src, dst)
    for one in np.random.default_rng(0).choice(len(src), 12, replace=False).tolist():
        a, b = ("rank", int(src[one])), ("rank", int(dst[one]))
        if routes.where.domain[src[one]] != routes.where.domain[dst[one]]:
            # a NIC belongs to its package; the fabric inside a domain is no way between domains
            length = nx.shortest_path_length(graph, a, b, weight="latency_s")
        else:
            length = nx.shortest_path_length(between(graph, a, b), a, b, weight="latency_s")
        assert crossed.latency_s[crossed.pattern[one]] == pytest.approx(length, rel=1e-9)


@pytest.mark.parametrize("routing", ["sprayed", "hashed"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_tier_is_crossed_by_the_whole_message(name, routing):
    """Shares over the planes, chips and spines of a tier add up to one, out and in alike."""
    system = SYSTEMS[name]
    routes = routes_of(system, routing=routing)
    src, dst = pairs(min(system.ranks, 64))
    crossed = routes.crossings(src, dst)
    through = {tier: np.zeros(len(src)) for tier in routes.tiers}
    for column, number in enumerate(crossed.resource):
        here = number >= 0
        for tier in np.unique(routes.tier[number[here]]).tolist():
            mine = here.copy()
            mine[here] = routes.tier[number[here]] == tier
            through[routes.tiers[tier]][mine] += crossed.share[crossed.pattern[mine], column]
    for total in through.values():
        assert np.all((np.abs(total) < 1e-12) | (np.abs(total - 1) < 1e-12))
    block, domain, leaf = routes.block, routes.where.domain, routes.where.leaf
    inside = domain[src] == domain[dst]
    expected = {
        "port": inside,
        "mesh": inside,
        "uplink": inside & (block[src] != block[dst]),
        "nic": ~inside,
        "leaf": ~inside,
        "spine": ~inside & (leaf[src] != leaf[dst]),
    }
    for tier, total in through.items():
        assert np.array_equal(total > 0.5, expected[tier.partition(".")[0]]), tier


def test_resources_are_the_sender_s_and_the_receiver_s():
    routes = routes_of(clos(domains=2, set={"accelerators": 16}))
    crossed = routes.crossings(np.array([3, 3, 3]), np.array([5, 12, 20]))
    names = [[routes.name(int(number[i])) for number in crossed.resource if number[i] >= 0] for i in range(3)]
    assert names[0] == ["port.out rank 3", "port.in rank 5"]
    assert names[1] == ["port.out rank 3", "uplink.out node 0", "uplink.in node 1", "port.in rank 12"]
    assert names[2] == ["nic.out rank 3", "leaf.out package 3", "leaf.in package 20", "nic.in rank 20"]


def test_bundles_carry_what_their_links_carry():
    system = clos(accelerators=16)
    whole = routes_of(system)
    broken = routes_of(system, faults={"module/0/2/3": 0.0, "rank/5/plane/4": 0.5})
    apart = routes_of(system, routing="hashed")
    for tier in whole.tiers:
        one, other = (routes.capacity_Bps[routes.tier == routes.tiers.index(tier)].sum() for routes in (whole, apart))
        assert one == pytest.approx(other, rel=1e-12)
        lost = {"port": 28e9, "uplink": 28e9}.get(tier.partition(".")[0], 0.0)
        left = broken.capacity_Bps[broken.tier == broken.tiers.index(tier)].sum()
        assert left == pytest.approx(one - lost, rel=1e-12)


# --- spraying round what is down ------------------------------------------------------------------------------


def shares(routes: Routes, src: int, dst: int) -> dict[str, float]:
    crossed = routes.crossings(np.array([src]), np.array([dst]))
    return {
        routes.name(int(number[0])): float(crossed.share[0, column])
        for column, number in enumerate(crossed.resource)
        if number[0] >= 0
    }


def test_a_lost_plane_sheds_to_the_others():
    system = clos(accelerators=16)
    routes = routes_of(system, faults=["accelerator/3/plane/2"])
    here = shares(routes, 3, 4)
    assert here == {"port.out rank 3 [0, 1, 3, 4, ... 6 in all]": 1.0, "port.in rank 4 [0, 1, 3, 4, ... 6 in all]": 1.0}
    assert shares(routes, 5, 4)["port.out rank 5 [2]"] == pytest.approx(1 / 7)


def test_a_lost_module_leaves_111_paths_of_112():
    system = clos(accelerators=24)
    routes = routes_of(system, faults=["module/1/6/15"])
    touched = shares(routes, 8, 0)
    assert touched["port.out rank 8 [6]"] == pytest.approx(15 / 111)
    assert touched["uplink.in node 0 [6/0, 6/1, 6/2, 6/3, ... 15 in all]"] == pytest.approx(15 / 111)
    assert not [name for name in touched if "[6/15]" in name]
    assert shares(routes, 16, 0)["uplink.out node 2 [6/15]"] == pytest.approx(1 / 112)


def test_a_slow_lane_takes_its_share_of_what_is_left():
    system = load_system("hgx_h100")
    routes = routes_of(system, faults={"rank/0/plane/1": 0.5})
    chips = edges(system).port.shape[1]
    assert shares(routes, 0, 1)["port.out rank 0 [1]"] == pytest.approx(0.5 / (chips - 0.5))
    assert shares(routes, 2, 1)["port.out rank 2 [1]"] == pytest.approx(1 / chips)


@pytest.mark.parametrize(
    ("system", "faults", "src", "dst"),
    [
        (clos(accelerators=16), [f"accelerator/3/plane/{plane}" for plane in range(7)], 3, 4),
        (clos(accelerators=16), [f"l2/0/{plane}/{chip}" for plane in range(7) for chip in range(16)], 3, 12),
        (clos(accelerators=16), {f"l1/0/{plane}": 0 for plane in range(7)}, 3, 12),
        (SYSTEMS["mesh, two domains"], ["link/2/5"], 5, 2),
        (SYSTEMS["mesh, two domains"], ["nic/2"], 2, 9),
    ],
)
@pytest.mark.parametrize("routing", ["sprayed", "hashed"])
def test_no_way_left_is_an_error(system, faults, src, dst, routing):
    routes = routes_of(system, faults=faults, routing=routing)
    with pytest.raises(InfeasibleError, match=f"rank {src}"):
        routes.crossings(np.array([src]), np.array([dst]))


# --- hashing --------------------------------------------------------------------------------------------------


def test_hashed_paths_collide_as_balls_in_bins():
    """N15: of m uplinks, m flows use 1 - (1 - 1/m)**m."""
    routes = routes_of(clos(), routing="hashed")
    src, dst = np.meshgrid(np.arange(8), np.arange(8, 384), indexing="ij")
    crossed = routes.crossings(src.ravel(), dst.ravel())
    up = next(number for number in crossed.resource if routes.name(int(number[0])).startswith("uplink.out"))
    used, paths = len(np.unique(up)), 112
    expected = paths * (1 - (1 - 1 / paths) ** len(up))
    assert used == pytest.approx(expected, abs=3)
    load = np.bincount(np.unique(up, return_inverse=True)[1])
    mean = len(up) / paths
    assert mean + 2 * np.sqrt(mean) < load.max() < mean + 5 * np.sqrt(mean)


def test_hashes_go_by_the_seed():
    src, dst = pairs(64)
    one, same, other = (
        routes_of(clos(), routing="hashed", seed=seed).crossings(src, dst).resource[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert (one != other).mean() > 0.5


def test_hashed_moves_on_and_pinned_does_not():
    system = clos(accelerators=16)
    faults = ["accelerator/3/plane/2", "module/0/4/5"]
    src, dst = pairs(16)
    routes = routes_of(system, faults=faults, routing="hashed")
    for number in routes.crossings(src, dst).resource:
        assert np.all(routes.capacity_Bps[number[number >= 0]] > 0)
    whole = routes_of(system, routing="hashed").crossings(src, dst).resource[0]
    moved = (routes.crossings(src, dst).resource[0] != whole).mean()
    assert 0 < moved < 0.1
    with pytest.raises(InfeasibleError, match="cannot move from the dead path they are pinned to"):
        routes_of(system, faults=faults, routing="pinned").crossings(src, dst)
    pinned = routes_of(system, routing="pinned").crossings(src, dst).resource[0]
    assert np.array_equal(pinned, whole)


def test_bad_routing_and_messages():
    with pytest.raises(InputError, match=r"no routing named 'sprayd'. Did you mean 'sprayed'"):
        routes_of(clos(), routing="sprayd")
    with pytest.raises(InputError, match="rank 4 to itself"):
        routes_of(clos()).crossings(np.array([4]), np.array([4]))
    with pytest.raises(InputError, match="one switch tier"):
        routes_of(clos()).crossings(np.array([4]), np.array([-1]))


# --- names of parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "part", "links"),
    [
        ("two tiers of dies", "rank/3/plane/6", {"port": 1}),
        ("two tiers of dies", "rank/3/port", {"port": 7}),
        ("mesh, two domains", "rank/9/port", {"mesh": 14}),
        ("two tiers of dies", "rank/3/nic", {"nic": 1}),
        ("two tiers of dies", "accelerator/3/plane/6", {"port": 2}),
        ("two tiers of dies", "module/1/6/15", {"uplink": 1}),
        ("two tiers of dies", "l1/1/6", {"port": 16, "uplink": 16}),
        ("two tiers of dies", "l2/0/6/15", {"uplink": 2}),
        ("two tiers, two domains", "l2/1/6/15", {"uplink": 2}),
        ("one tier, 16 domains", "switch/15/3", {"port": 8}),
        ("mesh, two domains", "link/9/14", {"mesh": 2}),
        ("one tier, 16 domains", "nic/127", {"nic": 1, "leaf": 1}),
        ("two tiers of dies", "nic/15", {"nic": 2, "leaf": 1}),
        ("oversubscribed", "leaf/1", {"leaf": 16, "spine": 4}),
        ("oversubscribed", "spine/2", {"spine": 8}),
    ],
)
def test_a_part_carries_its_links(system, part, links):
    machine = SYSTEMS[system]
    whole = edges(machine)
    for factor in (0.0, 0.25):
        left = edges(machine, {part: factor})
        changed = Counter()
        for tier in ("port", "uplink", "mesh", "nic", "leaf", "spine"):
            before, after = getattr(whole, tier), getattr(left, tier)
            different = before != after
            assert np.all(after[different] == before[different] * factor)
            if different.any():
                changed[tier] = int(different.sum())
        if part.startswith("leaf"):
            links = {**links, "spine": whole.spine.shape[1]}
        assert changed == links, part


def test_parts_that_do_not_exist_are_named_with_the_nearest():
    system = clos()
    bad = {"accelerator/900/plane/2": 0, "modul/7/1/3": 0, "l1/0": 0, "nic/3": 1.5, "switch/0/1": 0, "l1/2/3": 0}
    with pytest.raises(InputError) as caught:
        edges(system, bad)
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "Did you mean 'accelerator/383/plane/2'? accelerator/PACKAGE/plane/PLANE: 0 to 383, 0 to 6." in text
    assert (
        "Did you mean 'module/NODE/PLANE/CHIP'? Allowed: rank/RANK/port, rank/RANK/nic, rank/RANK/plane/PLANE, " in text
    )
    assert "'nic/3': what is left is a number from 0 to 1, got 1.5" in text
    with pytest.raises(InputError, match="share no link"):
        edges(SYSTEMS["mesh, two domains"], ["link/3/3"])
    # rank 11 is where rank 3 is, in the other domain
    with pytest.raises(InputError, match="share no link"):
        edges(SYSTEMS["mesh, two domains"], ["link/2/11"])


def test_the_whole_fabric_is_left_as_it_was():
    system = clos(accelerators=16)
    whole = edges(system)
    before = json.dumps({name: getattr(whole, name).tolist() for name in whole.__dataclass_fields__})
    left = apply(system, whole, ["nic/3", "l1/0/3"], multi_plane_clos.faults)
    assert left.nic[3] == 0
    assert before == json.dumps({name: getattr(whole, name).tolist() for name in whole.__dataclass_fields__})


def test_columns_do_not_grow_with_the_messages():
    """Nothing loops over messages: columns hold them all, and their number does not grow with them."""
    routes = routes_of(clos())
    counts = {len(routes.crossings(*pairs(ranks)).resource) for ranks in (16, 384)}
    assert counts == {4}
