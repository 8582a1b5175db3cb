"""Fabrics in which ranks forward: grids of dimensions, graphs from tables of links, and network files of ASTRA-sim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

import cmsim
from cmsim.collectives import dimensional, on_grid
from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import System, load_system
from cmsim.messages import Software, collective_time
from cmsim.messages.merge import merge
from cmsim.topology import between, build, fabric, paths

POWER = {"chip_static_W": 0, "chip_dynamic_W": 0}
#: what a round takes without software
WIRE_ONLY = Software()


def grid(*dims: tuple[str, int, float, float], per_node: int = 1, **more: Any) -> System:
    """A grid of (kind, size, GB/s, us) dimensions."""
    listed = {
        "xyzw"[i]: {"kind": kind, "size": size, "link_GBps": GBps, "hop_us": us}
        for i, (kind, size, GBps, us) in enumerate(dims)
    }
    count = int(np.prod([size for _, size, _, _ in dims]))
    over = {"accelerators": count, "node.accelerators": per_node}
    wired = {"wiring": "dimensions", "dimensions": listed, "power": POWER}
    return load_system("hgx_h100", set={**over, "scale_up": wired} | more.pop("set", {}), **more)


def custom(folder: Path, table: str, ranks: int, **more: Any) -> System:
    """A system of one die a rank on the graph of a table."""
    (folder / "links.csv").write_text(table, encoding="utf-8")
    text = (Path(__file__).parents[2] / "topologies" / "hgx_h100.yaml").read_text(encoding="utf-8")
    (folder / "system.yaml").write_text(text, encoding="utf-8")
    wired = {"wiring": "custom", "file": "links.csv", "power": POWER}
    over = {"accelerators": ranks, "node.accelerators": 1, "scale_up": wired} | more.pop("set", {})
    return load_system(str(folder / "system.yaml"), set=over, **more)


GRIDS = {
    "ring of 5": grid(("ring", 5, 50, 1)),
    "ring of 6": grid(("ring", 6, 50, 1)),
    "line": grid(("line", 5, 50, 1)),
    "torus": grid(("ring", 4, 50, 1), ("ring", 3, 25, 0.5)),
    "cube": grid(("ring", 4, 50, 1), ("ring", 4, 50, 1), ("ring", 2, 50, 1)),
    "meshes": grid(("mesh", 4, 50, 1), ("mesh", 3, 20, 2)),
    "of all kinds": grid(("ring", 4, 50, 1), ("mesh", 3, 25, 0.5), ("switch", 4, 10, 2.0)),
    "two domains": grid(("ring", 4, 50, 1), ("line", 3, 25, 0.5), domains=2),
    "a slab": grid(("ring", 4, 50, 1), ("ring", 4, 25, 0.5), accelerators=12),
}


def pairs(ranks: int) -> tuple[np.ndarray, np.ndarray]:
    src, dst = np.divmod(np.arange(ranks * ranks), ranks)
    return src[src != dst], dst[src != dst]


def inside(system: System) -> Any:
    """The graph without the scale-out network."""
    graph = build(system)
    return graph.subgraph([node for node in graph if node[0] not in ("nic", "leaf", "spine")])


# --- the graph and the paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRIDS)
def test_links_of_the_paths_are_those_of_the_graph(name):
    system = GRIDS[name]
    graph, links = inside(system), paths(system).links
    ours = {}
    for number in range(len(links.start)):
        edge = links.node(int(links.start[number])), links.node(int(links.end[number]))
        assert edge not in ours
        ours[edge] = links.capacity_Bps[number], links.latency_s[number]
    theirs = {(a, b): (data["capacity_Bps"], data["latency_s"]) for a, b, data in graph.edges(data=True)}
    assert ours == theirs


@pytest.mark.parametrize("name", GRIDS)
def test_messages_go_from_end_to_end_over_links_that_meet(name):
    """What leaves a node is what came in, all of it arrives, and the way is no longer than the graph's shortest."""
    system = GRIDS[name]
    graph, routes = inside(system), paths(system)
    src, dst = pairs(system.ranks)
    near = routes.where.domain[src] == routes.where.domain[dst]
    src, dst = src[near], dst[near]
    crossed = routes.crossings(src, dst)
    links = routes.links
    for one in range(len(src)):
        at = np.zeros(system.ranks + len(links.switches))
        at[src[one]] += 1
        for column, number in enumerate(crossed.resource):
            if number[one] >= 0:
                share = crossed.share[crossed.pattern[one], column]
                at[links.start[number[one]]] -= share
                at[links.end[number[one]]] += share
        at[dst[one]] -= 1
        assert np.abs(at).max() < 1e-12
    some = np.random.default_rng(0).choice(len(src), min(len(src), 60), replace=False)
    for one in some.tolist():
        ends = ("rank", int(src[one])), ("rank", int(dst[one]))
        length = nx.shortest_path_length(between(graph, *ends), *ends, weight="latency_s")
        assert crossed.latency_s[crossed.pattern[one]] == pytest.approx(length, rel=1e-9)
    assert routes.longest_s(src, dst) == pytest.approx(crossed.latency_s.max())
    assert routes.farthest_s(np.flatnonzero(routes.where.domain == 0)) == pytest.approx(crossed.latency_s.max())


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "two domains"])
def test_levels_are_those_of_the_graph(name):
    system = GRIDS[name]
    graph, level = inside(system), fabric(system)
    ports = [sum(data["capacity_Bps"] for _, _, data in graph.out_edges(("rank", r), data=True)) for r in range(5)]
    assert level.port_Bps == pytest.approx(max(ports))
    ends = [("rank", r) for r in range(system.ranks)]
    lengths = dict(nx.all_pairs_dijkstra_path_length(graph, weight="latency_s"))
    assert level.domain_s == pytest.approx(max(lengths[a][b] for a in ends for b in ends))
    assert level.grid is not None
    assert int(np.prod([dim.size for dim in level.grid.dims])) == system.ranks


def test_messages_between_domains_take_the_nics():
    system = GRIDS["two domains"]
    routes = paths(system)
    crossed = routes.crossings(np.array([0, 0]), np.array([1, 12]))
    names = [[routes.name(int(number[i])) for number in crossed.resource if number[i] >= 0] for i in (0, 1)]
    assert names[0] == ["x rank/0 -> rank/1"]
    assert names[1] == ["nic.out rank 0", "leaf.out package 0", "leaf.in package 12", "nic.in rank 12"]
    assert (routes.owner >= -1).all()
    assert routes.owner[: len(routes.links.start)].min() >= 0


def test_a_message_with_two_ways_of_one_length_takes_both():
    routes = paths(GRIDS["ring of 6"])
    crossed = routes.crossings(np.array([0, 0]), np.array([3, 2]))
    used = {routes.name(int(n[0])): s for n, s in zip(crossed.resource, crossed.share[crossed.pattern[0]], strict=True)}
    assert used == {
        **{f"x rank/{a} -> rank/{b}": 0.5 for a, b in ((0, 1), (1, 2), (2, 3))},
        **{f"x rank/{a} -> rank/{b}": 0.5 for a, b in ((0, 5), (5, 4), (4, 3))},
    }
    drawn = paths(GRIDS["ring of 6"], routing="hashed").crossings(np.arange(6), (np.arange(6) + 3) % 6)
    assert (drawn.share[drawn.pattern] == 1).all()
    assert len(np.unique(drawn.resource[0])) > 1


# --- load ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "per_rank"), [(4, 4 / 8), (8, 8 / 8), (5, 24 / 40)])
def test_all_to_all_on_a_ring_is_bound_by_its_links(n, per_rank):
    """n/8 of what a rank sends crosses every link of an even ring, (n^2 - 1)/(8 n) of an odd one."""
    got = collective_time(grid(("ring", n, 50, 0.001)), "all_to_all", algorithm="direct", size_B=1e9, library=WIRE_ONLY)
    assert got.time_s == pytest.approx(1e9 * per_rank / 50e9, rel=1e-4)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("algorithm", ["ring", "two_shot"])
def test_merged_rounds_take_as_long_as_single_messages(name, algorithm):
    whole, apart = (
        collective_time(GRIDS[name], "all_reduce", algorithm=algorithm, size_B=1e8, together=together)
        for together in (True, False)
    )
    assert whole.time_s == pytest.approx(apart.time_s, rel=1e-9)
    assert whole.time_s >= whole.bound_s.time_s
    assert [round(one.utilisation, 9) for one in whole.busiest[:1]] == [
        round(one.utilisation, 9) for one in apart.busiest[:1]
    ]


def test_equal_messages_on_a_torus_are_few_classes():
    system = grid(("ring", 8, 50, 1), ("ring", 8, 50, 1))
    routes = paths(system)
    src, dst = pairs(64)
    classes = merge(routes.crossings(src, dst), routes.capacity_Bps, routes.tier, np.array([1e6]))
    assert len(classes.count) == 24  # distances 0 to 4 in either dimension, but not none in both
    assert len(classes.capacity_Bps) == 2
    load = classes.load_B()
    assert load == pytest.approx(np.full(2, 64 * 8 / 8 * 1e6))  # n/8 of 64 blocks


def test_a_flat_ring_uses_one_link():
    """On a torus the port is four links; neighbours share one."""
    got = collective_time(
        grid(("ring", 4, 50, 0.001), ("ring", 4, 50, 0.001)), "all_gather", algorithm="ring", size_B=16e9,
        library=WIRE_ONLY,
    )  # fmt: skip
    assert got.time_s == pytest.approx(15e9 / 50e9, rel=1e-3)


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_broken_ring_is_gone_round_the_other_way():
    routes = paths(GRIDS["ring of 5"], faults=["link/0/1"])
    crossed = routes.crossings(np.array([0]), np.array([1]))
    assert [routes.name(int(number[0])) for number in crossed.resource] == [
        f"x rank/{a} -> rank/{b}" for a, b in ((0, 4), (4, 3), (3, 2), (2, 1))
    ]
    assert crossed.latency_s[0] == pytest.approx(4e-6)
    with pytest.raises(InfeasibleError, match=r"x rank/0 -> rank/1, which is down"):
        paths(GRIDS["ring of 5"], faults=["link/0/1"], routing="pinned").crossings(np.array([0]), np.array([1]))


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("torus", "link/0/5", "No link joins them. rank/0 is joined to"),
        ("torus", "link/0/12", "A link joins two of rank/0 to rank/11."),
        ("torus", "rank/12/port", "Ranks are 0 to 11."),
        ("torus", "l1/0/1", "Allowed: link/A/B, rank/RANK/port"),
        ("of all kinds", "switch/0/z/20", "Did you mean 'switch/0/z/2"),
        ("torus", "nic/12", "Did you mean 'nic/11'"),
    ],
)
def test_parts_that_do_not_exist_are_refused(name, fault, said):
    with pytest.raises(InputError) as caught:
        paths(GRIDS[name], faults={fault: 0.5})
    assert said in str(caught.value)


def test_what_is_left_is_a_share():
    with pytest.raises(InputError, match="a number from 0 to 1, got 2"):
        paths(GRIDS["torus"], faults={"link/0/1": 2})


def test_faults_slow_what_crosses_them():
    system = GRIDS["of all kinds"]
    whole = collective_time(system, "all_to_all", algorithm="direct", size_B=1e8)
    for fault in ("link/0/1", "switch/0/z/0", "rank/5/port", "link/rank/7/switch/0/z/7"):
        slow = collective_time(system, "all_to_all", algorithm="direct", size_B=1e8, faults={fault: 0.02})
        assert slow.time_s > 1.5 * whole.time_s, fault
    with pytest.raises(InfeasibleError, match="which is down"):
        collective_time(system, "all_to_all", algorithm="direct", size_B=1e8, faults=["switch/0/z/0"])


# --- parts of a grid ----------------------------------------------------------------------------------------------


def test_a_slab_loses_the_link_that_closes_its_ring():
    level = fabric(GRIDS["a slab"])
    assert [(dim.kind, dim.size) for dim in level.grid.dims] == [("ring", 4), ("line", 3)]


@pytest.mark.parametrize("accelerators", [5, 9, 14])
def test_what_is_no_slab_is_refused(accelerators):
    with pytest.raises(InputError, match=rf"got {accelerators}; a part of hgx_h100 is a slab"):
        fabric(grid(("ring", 4, 50, 1), ("ring", 4, 25, 0.5), accelerators=accelerators))


def test_sizes_and_accelerators_must_agree():
    with pytest.raises(InputError, match="is not 4 x 4 = 16"):
        grid(("ring", 4, 50, 1), ("ring", 4, 25, 0.5), set={"accelerators": 15})


def test_dies_are_refused():
    with pytest.raises(InputError, match="dimensions join packages"):
        fabric(grid(("ring", 4, 50, 1), rank="die", set={"accelerator": "ascend_910c", "stack": "cann_graph"}))


# --- tables of links ----------------------------------------------------------------------------------------------

#: two leaves of three ranks each, two spines, one of them with half the rate
TABLE = """from,to,GBps,latency_us,links
rank/0,leaf/0,50,0.5,1
rank/1,leaf/0,50,0.5,1
rank/2,leaf/0,50,0.5,1
rank/3,leaf/1,50,0.5,1
rank/4,leaf/1,50,0.5,1
rank/5,leaf/1,50,0.5,1
leaf/0,spine/a,25,1,2
leaf/1,spine/a,50,1,1
leaf/0,spine/b,25,1,1
leaf/1,spine/b,25,1,1
"""


def test_a_table_becomes_graph_paths_and_levels(tmp_path):
    system = custom(tmp_path, TABLE, 6, domains=2)
    graph, routes, level = inside(system), paths(system), fabric(system)
    assert graph.number_of_nodes() == 12 + 8
    theirs = {(a, b): (data["capacity_Bps"], data["latency_s"]) for a, b, data in graph.edges(data=True)}
    links = routes.links
    ours = {
        (links.node(int(a)), links.node(int(b))): (links.capacity_Bps[i], links.latency_s[i])
        for i, (a, b) in enumerate(zip(links.start, links.end, strict=True))
    }
    assert ours == theirs
    assert level.port_Bps == 50e9
    assert level.domain_s == pytest.approx(3e-6)
    crossed = routes.crossings(np.array([6, 6]), np.array([7, 10]))
    assert crossed.latency_s[crossed.pattern].tolist() == pytest.approx([1e-6, 3e-6])
    shares = {
        routes.name(int(number[1])): float(crossed.share[crossed.pattern[1], column])
        for column, number in enumerate(crossed.resource)
        if number[1] >= 0
    }
    # two thirds go over the spine with twice the rate
    assert shares["trunk switch/1/leaf/0 -> switch/1/spine/a"] == pytest.approx(2 / 3)
    assert shares["trunk switch/1/leaf/0 -> switch/1/spine/b"] == pytest.approx(1 / 3)


def test_all_to_all_on_a_table_is_bound_by_its_spines(tmp_path):
    system = custom(tmp_path, TABLE, 6)
    got = collective_time(system, "all_to_all", algorithm="direct", size_B=6e9, library=WIRE_ONLY)
    assert got.time_s == pytest.approx(9e9 / 75e9, rel=1e-3)  # 3 x 3 blocks of 1 GB over 75 GB/s
    assert got.ratio == pytest.approx(1.0, rel=1e-3)
    down = collective_time(
        system, "all_to_all", algorithm="direct", size_B=6e9, library=WIRE_ONLY, faults=["switch/0/spine/a"]
    )
    assert down.time_s == pytest.approx(9e9 / 25e9, rel=1e-3)
    drawn = collective_time(system, "all_to_all", algorithm="direct", size_B=6e9, library=WIRE_ONLY, routing="hashed")
    assert drawn.time_s > got.time_s
    with pytest.raises(InfeasibleError, match="no path is left from rank 1 to rank 0"):
        collective_time(system, "all_to_all", algorithm="direct", size_B=6e9, faults=["link/0/switch/0/leaf/0"])


def test_a_graph_and_a_grid_of_the_same_links_agree(tmp_path):
    rows = "".join(f"rank/{r},rank/{(r + 1) % 5},50,1\n" for r in range(5))
    graph = custom(tmp_path, "from,to,GBps,latency_us\n" + rows, 5)
    for algorithm in ("direct", "pairwise"):
        one, other = (
            collective_time(system, "all_to_all", algorithm=algorithm, size_B=1e8)
            for system in (graph, GRIDS["ring of 5"])
        )
        assert one.time_s == pytest.approx(other.time_s, rel=1e-9)
        assert one.bound_s.latency_s == pytest.approx(other.bound_s.latency_s)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("from,to,GBps\nrank/0,rank/1,50\n", "links.csv:1: no column 'latency_us'"),
        ("from,to,GBps,latency\n", "links.csv:1: unknown column 'latency'. Did you mean 'latency_us'?"),
        ("from,to,GBps,latency_us\nrank/0,rank/1,0,1\n", "links.csv:2: GBps: must be above 0 and finite, got 0"),
        ("from,to,GBps,latency_us\nrank/0,rank/1,-5,1\n", "links.csv:2: GBps: must be above 0 and finite, got -5"),
        ("from,to,GBps,latency_us\nrank/0,rank/1,,1\n", "links.csv:2: GBps: the number is required"),
        ("from,to,GBps,latency_us\nrank/0,rank/1,nan,1\n", "links.csv:2: GBps: must be above 0 and finite, got nan"),
        ("from,to,GBps,latency_us\nrank/0,rank/1,5,-1\n", "links.csv:2: latency_us: must be 0 or more and finite"),
        ("from,to,GBps,latency_us\nrank/0,rank/0,5,1\n", "links.csv:2: to: rank/0 is joined to itself"),
        ("from,to,GBps,latency_us\nrank/0,rank/1,5,1\nrank/1,rank/0,5,1\n", "links.csv:3: rank/1 and rank/0 are join"),
        ("from,to,GBps,latency_us\nrank/0,rank/7,5,1\n", "links.csv:2: to: got 'rank/7'; the system has rank/0 to r"),
        ("from,to,GBps,latency_us\nrank/0,rank/x,5,1\n", "links.csv:2: to: got 'rank/x'; a rank is rank/0, rank/1"),
        ("from,to,GBps,latency_us\nrank/0,,5,1\n", "links.csv:2: to: a node needs a name"),
        (
            "from,to,GBps,latency_us\nrank/0,rank/1,5\n",
            "links.csv:2: got 3 fields, allowed: 4 (from, to, GBps",
        ),
        ("from,to,GBps,latency_us\nrank/0,rank/1,5,1\n", "rank/0 to rank/3; no link ends at rank/2, rank/3"),
        (
            "from,to,GBps,latency_us,links\nrank/0,rank/1,5,1,0\n",
            "links: must be a whole number from 1 to 1e6, got",
        ),
        (
            "from,to,GBps,latency_us\nrank/0,rank/1,5,1\nrank/2,s,5,1\nrank/3,s,5,1\n",
            "links.csv:3: no path joins rank/2 and 2 more nodes to rank/0",
        ),
        ("", "links.csv:1: no column 'from'"),
    ],
)
def test_tables_that_cannot_be_are_refused_with_their_line(tmp_path, table, said):
    with pytest.raises(InputError) as caught:
        custom(tmp_path, table, 4)
    assert said in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    custom(tmp_path, TABLE, 6)
    (tmp_path / "links.csv").unlink()
    wired = {"wiring": "custom", "file": "links.csv", "power": POWER}
    with pytest.raises(InputError, match=r"scale_up\.file: no such file: .*links\.csv"):
        load_system(str(tmp_path / "system.yaml"), set={"scale_up": wired})


def test_a_table_is_used_whole(tmp_path):
    with pytest.raises(InputError, match="a custom fabric is used whole: multiples of 6"):
        custom(tmp_path, TABLE, 6, accelerators=4)


def test_the_digest_knows_the_table(tmp_path):
    one = custom(tmp_path, TABLE, 6).digest
    assert custom(tmp_path, TABLE.replace("50,0.5,1\nrank/1", "49,0.5,1\nrank/1"), 6).digest != one


# --- network files of ASTRA-sim -----------------------------------------------------------------------------------

NETWORK = """# 3D topology
topology: [ Ring, FullyConnected, Switch ]
npus_count: [ 2, 8, 4 ]
bandwidth: [ 200.0, 100.0, 50.0 ]  # GB/s
latency: [ 50.0, 500.0, 2000.0 ]  # ns
"""


def astra(folder: Path, text: str, ranks: int) -> System:
    (folder / "network.yml").write_text(text, encoding="utf-8")
    source = (Path(__file__).parents[2] / "topologies" / "hgx_h100.yaml").read_text(encoding="utf-8")
    (folder / "system.yaml").write_text(source, encoding="utf-8")
    wired = {"wiring": "astra_sim", "file": "network.yml", "power": POWER}
    over = {"accelerators": ranks, "node.accelerators": 1, "scale_up": wired}
    return load_system(str(folder / "system.yaml"), set=over)


def test_a_network_file_becomes_dimensions(tmp_path):
    found = fabric(astra(tmp_path, NETWORK, 64)).grid.dims
    assert [(dim.kind, dim.size) for dim in found] == [("mesh", 2), ("mesh", 8), ("switch", 4)]
    assert [dim.link_Bps for dim in found] == pytest.approx([200 * 2**30, 100 * 2**30, 50 * 2**30])
    assert [dim.hop_s for dim in found] == pytest.approx([50e-9, 500e-9, 4e-6])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[ Ring,", "[ Rink,", "network.yml:2: topology[0]: got 'Rink'. Did you mean 'Ring'?"),
        ("[ 2, 8, 4 ]", "[ 2, 8 ]", "network.yml:3: npus_count: has 2 entries, topology 3"),
        ("[ 2, 8, 4 ]", "[ 2, 8, 8 ]", "network.yml:3: npus_count: joins 128; the system file has 64"),
        ("200.0", "0", "network.yml:4: bandwidth[0]: must be greater than or equal to 0.000001"),
        ("latency", "latencies", "unknown key 'latencies'"),
    ],
)
def test_network_files_that_cannot_be_are_refused(tmp_path, old, new, said):
    with pytest.raises(InputError) as caught:
        astra(tmp_path, NETWORK.replace(old, new), 64)
    assert said in str(caught.value)


# --- collectives along dimensions, on the links -------------------------------------------------------------------


@pytest.mark.parametrize("collective", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
@pytest.mark.parametrize(
    "system",
    [
        grid(("ring", 5, 50, 1)),
        grid(("ring", 4, 50, 1), ("ring", 4, 50, 1)),
        grid(("ring", 4, 50, 1), ("ring", 4, 50, 1), ("ring", 4, 50, 1)),
        grid(("mesh", 4, 50, 1), ("mesh", 4, 50, 1)),
        grid(("switch", 4, 50, 1), ("switch", 4, 50, 1)),
    ],
    ids=["ring", "square", "cube", "meshes", "switches"],
)
def test_rounds_on_the_links_take_as_long_as_the_formula(system, collective):
    got = collective_time(system, collective, algorithm="dimensional", size_B=1e9, library=WIRE_ONLY)
    level = fabric(system)
    dims = on_grid.span(level.grid, system.ranks, 1)
    assert got.time_s == pytest.approx(dimensional.dimensional_s(collective, dims, 1e9), rel=1e-6)
    assert got.ratio >= 1
    if len(dims) == 3 and collective != "all_to_all":
        assert got.ratio == pytest.approx(1.0, rel=0.01)  # all six links busy all the time


def test_dimensions_that_differ_take_longer_without_chunks():
    system = GRIDS["of all kinds"]
    got = collective_time(system, "all_reduce", algorithm="dimensional", size_B=1e9, library=WIRE_ONLY)
    dims = on_grid.span(fabric(system).grid, system.ranks, 1)
    assert dimensional.dimensional_s("all_reduce", dims, 1e9) < got.time_s
    assert got.time_s >= got.bound_s.time_s


def test_a_group_along_one_dimension_keeps_to_its_links():
    system = grid(("ring", 4, 50, 1), ("ring", 8, 25, 1), per_node=4)
    inner, outer = (
        collective_time(
            system, "all_gather", algorithm="dimensional", size_B=1e9, ranks=ranks, library=WIRE_ONLY
        ).busiest[0].name
        for ranks in (4, list(range(0, 32, 4)))
    )  # fmt: skip
    assert inner.startswith("x rank/")
    assert outer.startswith("y rank/")
    with pytest.raises(InfeasibleError, match="needs a group that fills dimensions of a grid"):
        collective_time(system, "all_gather", algorithm="dimensional", size_B=1e9, ranks=[0, 1, 2, 4, 5, 6])


# --- the systems and scenarios that come along --------------------------------------------------------------------

SCENARIOS = (
    *("tpu_allreduce", "mi300x_allreduce", "ub_mesh_alltoall", "custom_graph"),
    *("nvl72_infiniband", "oversubscribed"),
)


@pytest.mark.parametrize("network", ["ideal", "fluid"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scenarios_run(name, network):
    results = cmsim.run(cmsim.load_scenario(name, set={"network": network}))
    times = [one.metrics["time_s"] for one in results]
    assert len(times) >= 4
    assert all(1e-6 < time_s < 1.0 for time_s in times)


def test_what_oversubscription_costs_is_what_leaves_lose():
    level = [fabric(load_system("hgx_h100", domains=36, set={"scale_out.oversubscription": o})) for o in (1.0, 3.0)]
    assert level[0].leaf_Bps == float("inf")
    assert level[1].leaf_Bps == pytest.approx(level[1].ranks_per_leaf * level[1].nic_Bps / 3)
    results = cmsim.run("oversubscribed")
    times = {(one.system, one.workload): one.metrics["time_s"] for one in results}
    whole, third = (times[system, "all-to-all"] for system in ("full bisection", "3 to 1"))
    # 280 of 288 ranks are in other boxes, 240 under other leaves, which let out a third of what their NICs send
    assert third / whole == pytest.approx(3 * 240 / 280, rel=0.01)


def test_racks_over_infiniband_are_bound_by_their_nics():
    got = collective_time(load_system("gb200_nvl72", domains=2), "all_to_all", algorithm="direct", size_B=1e9)
    inside = collective_time(load_system("gb200_nvl72"), "all_to_all", algorithm="direct", size_B=1e9)
    assert got.time_s > 5 * inside.time_s
    assert got.busiest[0].name.startswith(("nic", "leaf"))


@pytest.mark.parametrize(
    ("name", "shape", "injection_GBps"),
    [
        ("tpu_v4_pod", [16, 16, 16], 270),
        ("tpu_v5p_pod", [16, 20, 28], 600),
        ("tpu_v6e_pod", [16, 16], 400),
        ("ub_mesh_pod", [8, 8, 4, 4], 1008),
        ("atlas950_superpod", [8, 8, 128], 1008),
        ("mi300x_8", [8], 448),
    ],
)
def test_the_systems_have_their_published_shapes(name, shape, injection_GBps):
    level = fabric(load_system(name))
    assert [dim.size for dim in level.grid.dims] == shape
    assert level.port_Bps / 1e9 == pytest.approx(injection_GBps, rel=1e-3)


def test_a_slice_of_a_torus_as_a_scenario_sets_it():
    sizes = {f"scale_up.dimensions.{name}.size": 8 for name in "xyz"}
    system = load_system("tpu_v4_pod", set={"accelerators": 512, **sizes})
    got = collective_time(system, "all_reduce", algorithm="dimensional", size_B=1e9, library=WIRE_ONLY)
    assert got.time_s == pytest.approx(2 * 511 / 512 * 1e9 / 270e9 + 24e-6, rel=1e-3)
    assert got.ratio == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(
    ("topology", "GBps", "collective", "algorithm", "flow_ns"),
    [("Switch", 400.0, "all_to_all", "direct", 3136), ("FullyConnected", 57.1429, "all_reduce", "two_shot", 5272)],
)
def test_a_network_file_gives_the_times_of_the_page_beside_astra_sim(
    tmp_path, topology, GBps, collective, algorithm, flow_ns
):
    """docs/astra_sim.md, rows of 8 ranks and 1 MiB; it builds its fabrics by hand."""
    text = f"topology: [ {topology} ]\nnpus_count: [ 8 ]\nbandwidth: [ {GBps} ]\nlatency: [ 500.0 ]\n"
    got = collective_time(astra(tmp_path, text, 8), collective, algorithm=algorithm, size_B=2**20, library=WIRE_ONLY)
    assert got.time_s * 1e9 == pytest.approx(flow_ns, abs=1)


# --- any grid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_nothing_beats_the_bound_on_any_grid(seed):
    """Random shapes and rates: flat and dimensional collectives, whole and with a slow link."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 4))
    kinds = rng.choice(["ring", "line", "mesh", "switch"], count).tolist()
    shape = [(kind, int(rng.integers(2, 5)), float(rng.integers(5, 100)), float(rng.random())) for kind in kinds]
    system = grid(*shape)
    end = paths(system).links
    slow = f"link/{end.word(int(end.start[0]))}/{end.word(int(end.end[0]))}"
    for collective, algorithm in (
        ("all_reduce", "ring"),
        ("all_reduce", "dimensional"),
        ("all_gather", "dimensional"),
        ("all_to_all", "direct"),
        ("all_to_all", "dimensional"),
    ):
        got = collective_time(system, collective, algorithm=algorithm, size_B=1e8, library=WIRE_ONLY)
        assert got.time_s >= got.bound_s.time_s * (1 - 1e-9), (shape, collective, algorithm)
        assert max(one.utilisation for one in got.busiest) <= 1 + 1e-9
        if algorithm != "ring":
            dims = on_grid.span(fabric(system).grid, system.ranks, 1)
            needs = dimensional.seconds_per_B("all_to_all" if algorithm == "direct" else collective, dims) * 1e8
            assert got.time_s >= needs * (1 - 1e-9)
        worse = collective_time(
            system, collective, algorithm=algorithm, size_B=1e8, library=WIRE_ONLY, faults={slow: 0.5}
        )
        assert worse.time_s >= got.time_s * (1 - 1e-9)
