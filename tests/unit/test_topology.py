"""The graph against the levels, the counts of data sheets, and graphs that must be refused."""

from __future__ import annotations

import ast
import dataclasses
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import networkx as nx
import numpy as np
import pytest
from pydantic import create_model

import cmsim
from cmsim import reading
from cmsim.energy.parts import constant
from cmsim.errors import InputError
from cmsim.hardware import SYSTEMS, System, load_system
from cmsim.hardware.specs import Custom, Dimensions, MultiPlaneClos, ScaleUp, Wired
from cmsim.messages import collective_time
from cmsim.topology import WIRINGS, between, build, check, comparison, fabric, places, totals
from cmsim.topology.fat_tree import counts

NAMES = sorted(reading.builtin_files(SYSTEMS))
#: ranks that forward have no levels to cut the graph at: see test_fabrics
TIERED = [name for name in NAMES if not isinstance(load_system(name).spec.scale_up, Custom | Dimensions)]
CASES = [(name, domains) for name in TIERED for domains in (1, 2)]


def _system(name: str, domains: int = 1, **kwargs: Any) -> System:
    return load_system(name, domains=domains, **kwargs)


def _cut(graph: Any, inside: set[Any], *, tiers: set[str]) -> tuple[float, float]:
    """Capacity out of a set of nodes and into it, over the links of some tiers. [B/s]"""
    out = into = 0.0
    for a, b, data in graph.edges(data=True):
        if data["tier"] in tiers and (a in inside) != (b in inside):
            if a in inside:
                out += data["capacity_Bps"]
            else:
                into += data["capacity_Bps"]
    return out, into


def _kinds(graph: Any) -> Counter[str]:
    return Counter(kind for _, kind in graph.nodes(data="kind"))


@pytest.fixture(scope="module")
def clos() -> Any:
    return build(_system("cloudmatrix384"))


# --- the graph against the levels -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "domains"), CASES)
def test_cuts_of_the_graph_equal_the_levels(name: str, domains: int) -> None:
    system = _system(name, domains)
    graph, level, where = build(system), fabric(system), places(system)
    check(graph)
    for rank in {0, system.ranks - 1}:
        assert _cut(graph, {("rank", rank)}, tiers={"port"}) == pytest.approx((level.port_Bps,) * 2)
        assert _cut(graph, {("rank", rank)}, tiers={"nic"}) == pytest.approx((level.nic_Bps,) * 2)
    if isinstance(system.spec.scale_up, MultiPlaneClos):
        for node in {0, system.nodes - 1}:
            inside = {n for n, data in graph.nodes(data=True) if data.get("node") == node}
            assert _cut(graph, inside, tiers={"port", "host", "uplink"}) == pytest.approx((level.uplink_Bps,) * 2)
    else:
        assert level.uplink_Bps == math.inf
    # nothing but the scale-out network leaves a domain
    inside = {n for n, data in graph.nodes(data=True) if data.get("domain") == 0}
    out, into = _cut(graph, inside, tiers={"port", "host", "uplink"})
    assert (out, into) == (0.0, 0.0)
    ranks = int((where.domain == 0).sum())
    assert _cut(graph, inside, tiers={"nic"}) == pytest.approx((ranks * level.nic_Bps,) * 2)
    assert ranks == level.ranks_per_domain


@pytest.mark.parametrize(("name", "domains"), CASES)
def test_path_latencies_equal_the_levels(name: str, domains: int) -> None:
    system = _system(name, domains)
    graph, level, where = build(system), fabric(system), places(system)
    first_not = {
        "node": level.ranks_per_node if level.ranks_per_node < level.ranks_per_domain else None,
        "domain": level.ranks_per_domain if domains == 2 else None,
    }
    inside = graph.subgraph([n for n in graph if n[0] not in ("nic", "leaf", "spine")])

    def path_s(g: Any, a: int, b: int) -> float:
        ends = ("rank", a), ("rank", b)
        return float(nx.shortest_path_length(between(g, *ends), *ends, weight="latency_s"))

    assert path_s(inside, 0, 1) == pytest.approx(level.node_s)
    if first_not["node"] is not None:
        assert path_s(inside, 0, first_not["node"]) == pytest.approx(level.domain_s)
    if first_not["domain"] is not None and where.leaf[0] != where.leaf[first_not["domain"]]:
        assert path_s(graph, 0, first_not["domain"]) == pytest.approx(level.cluster_s)
    assert level.node_s <= level.domain_s <= level.cluster_s


@pytest.mark.parametrize("oversubscription", [1.0, 2.0, 3.0])
def test_leaf_cut_is_its_nics_over_the_oversubscription(oversubscription: float) -> None:
    system = _system("cloudmatrix384", set={"scale_out.oversubscription": oversubscription})
    graph, level = build(system), fabric(system)
    out, into = _cut(graph, {("leaf", 0)}, tiers={"spine"})
    full = sum(graph.edges[a, b]["capacity_Bps"] for a, b in graph.in_edges(("leaf", 0)) if a[0] == "nic")
    assert out == into == pytest.approx(full / oversubscription, rel=0.02)
    assert level.leaf_Bps == (math.inf if oversubscription == 1 else pytest.approx(out))


def test_ranks_do_not_forward() -> None:
    # accelerators 64 to 71 share a leaf with the second domain: a detour through them would be shorter, and wrong
    graph = build(_system("gb200_nvl72", 2))
    ends = ("rank", 0), ("rank", 72)
    path = nx.shortest_path(between(graph, *ends), *ends, weight="latency_s")
    assert [node[0] for node in path] == ["rank", "nic", "leaf", "spine", "leaf", "nic", "rank"]


def test_a_cluster_that_fits_one_leaf_has_no_spine_to_cross() -> None:
    system = _system("hgx_h100", set={"scale_out.oversubscription": 3.0})
    assert _kinds(build(system))["spine"] == 0
    assert fabric(system).leaf_Bps == math.inf


def test_spines_have_ports_for_all_uplinks() -> None:
    for nics in (1, 32, 33, 384, 768, 2048):
        spec = SimpleNamespace(switch_ports=64, oversubscription=1.0)
        leaves, spines = counts(spec, nics=nics)  # type: ignore[arg-type]
        assert leaves * 32 >= nics
        assert leaves == 1 or spines * 64 >= leaves * 32


def test_package_ranks_own_the_lanes_of_both_dies() -> None:
    system = _system("cloudmatrix384", rank="package")
    graph = build(system)
    assert _kinds(graph)["rank"] == 384
    assert _cut(graph, {("rank", 0)}, tiers={"port"})[0] == pytest.approx(392e9)
    assert fabric(system).port_Bps == pytest.approx(392e9)


def test_part_of_a_domain() -> None:
    system = _system("cloudmatrix384", accelerators=160)
    kinds = _kinds(build(system))
    assert (kinds["rank"], kinds["l1"], kinds["l2"], kinds["cpu"]) == (320, 20 * 7, 112, 80)
    assert places(system).racks == 5


# --- data sheets ----------------------------------------------------------------------------------------------


def test_clos_counts(clos: Any) -> None:
    kinds = _kinds(clos)
    assert (kinds["rank"], kinds["cpu"], kinds["l1"], kinds["l2"]) == (768, 192, 336, 112)  # N06, N07
    assert {data["capacity_Bps"] for a, b, data in clos.edges(data=True) if data["tier"] == "port"} == {28e9}


def test_clos_planes(clos: Any) -> None:
    for plane in range(7):  # N08: the second tier gives a plane what its accelerators inject
        l2 = {("l2", 0, plane, chip) for chip in range(16)}
        out, into = _cut(clos, l2, tiers={"uplink"})
        assert out == into == pytest.approx(21504e9)
        injected = [
            data["capacity_Bps"] for a, b, data in clos.edges(data=True) if a[0] == "rank" and b[2:] == (plane,)
        ]
        assert sum(injected) == pytest.approx(21504e9)


def test_clos_injection_and_hosts(clos: Any) -> None:
    total = sum(
        data["capacity_Bps"] for a, _, data in clos.edges(data=True) if a[0] == "rank" and data["tier"] == "port"
    )
    assert total == pytest.approx(150528e9)  # N09
    into_l1 = [(a[0], clos.edges[a, b]["capacity_Bps"]) for a, b in clos.in_edges(("l1", 0, 0))]
    down, up = (sum(c for kind, c in into_l1 if kind in kinds) for kinds in ({"rank", "cpu"}, {"l2"}))
    assert down / up == pytest.approx(1.20408163, rel=1e-6)  # N10


def test_a_pinned_flow_and_a_lost_plane(clos: Any) -> None:
    graph = build(_system("cloudmatrix384", rank="package"))
    assert graph.edges[("rank", 0), ("l1", 0, 0)]["capacity_Bps"] == pytest.approx(56e9)  # N11
    port = _cut(graph, {("rank", 0)}, tiers={"port"})[0]
    graph.remove_edge(("rank", 0), ("l1", 0, 3))
    graph.remove_edge(("l1", 0, 3), ("rank", 0))
    check(graph)  # six planes still join everything
    assert port / _cut(graph, {("rank", 0)}, tiers={"port"})[0] == pytest.approx(7 / 6)  # N12


def test_single_tier_switches() -> None:
    system = _system("gb200_nvl72")
    graph = build(system)
    assert _kinds(graph)["switch"] == 18
    for chip in range(18):  # N13
        assert _cut(graph, {("switch", 0, chip)}, tiers={"port"}) == pytest.approx((3600e9,) * 2)
    all_to_all_s = 71 / 72 * 72e6 / fabric(system).port_Bps
    assert all_to_all_s == pytest.approx(78.8888889e-6, rel=1e-6)  # N14
    assert fabric(system).in_network_reduction


def test_totals_of_the_optical_system() -> None:
    found = totals(_system("cloudmatrix384"))
    values = {name: total.value for name, total in found.items()}
    assert values["compute_bf16_PFLOPps"] == pytest.approx(288.8, abs=0.05)
    assert values["memory_TB"] == pytest.approx(49.2, abs=0.05)
    assert values["memory_TBps"] == pytest.approx(1229, abs=0.5)
    assert values["injection_TBps"] == pytest.approx(150.5, abs=0.05)
    assert values["scale_out_Tbps"] == pytest.approx(153.6)
    assert (values["l1_chips"], values["l2_chips"], values["switch_chips"]) == (336, 112, 448)
    assert (values["scale_up_modules"], values["scale_out_modules"], values["modules"]) == (5376, 1536, 6912)
    assert all(total.derivation for total in found.values())


@pytest.mark.parametrize(
    ("name", "GBps"),
    [
        *(("hgx_h100", 450), ("hgx_h800", 200), ("hgx_h200", 450), ("hgx_h20", 450), ("hgx_b200", 900)),
        *(
            ("hgx_a100", 300),
            ("gb200_nvl72", 900),
            ("gb300_nvl72", 900),
            ("atlas_800_a2", 196),
            ("cloudmatrix384", 196),
        ),
    ],
)
def test_port_of_a_rank(name: str, GBps: float) -> None:
    assert fabric(_system(name)).port_Bps == pytest.approx(GBps * 1e9)


def test_power_is_the_sum_of_its_parts() -> None:
    system = _system("gb200_nvl72")
    kW = {name: total.value for name, total in totals(system).items() if total.unit == "kW"}
    for state in ("idle", "full"):
        parts = ("accelerators", "hosts", "switch_chips", "modules", "nics", "scale_out", "fans", "psu_losses")
        total = sum(kW[f"power_{part}_{state}_kW"] for part in parts)
        assert kW[f"power_it_{state}_kW"] == pytest.approx(total)
        assert kW[f"power_facility_{state}_kW"] == pytest.approx(total * system.spec.facility.pue)
    assert kW["power_accelerators_full_kW"] == pytest.approx(86.4)
    assert kW["power_it_idle_kW"] < kW["power_it_full_kW"] / 2


def test_two_domains_double_what_one_has() -> None:
    one, two = (totals(_system("cloudmatrix384", domains)) for domains in (1, 2))
    for name in ("compute_bf16_PFLOPps", "injection_TBps", "l1_chips", "l2_chips", "modules", "power_it_full_kW"):
        assert two[name].value == pytest.approx(2 * one[name].value)


# --- places ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "domains"), CASES)
def test_places_are_contiguous_and_full(name: str, domains: int) -> None:
    system = _system(name, domains)
    where, level = places(system), fabric(system)
    for index, count in (
        (where.package, where.packages),
        (where.node, where.nodes),
        (where.rack, where.racks),
        (where.domain, where.domains),
        (where.leaf, where.leaves),
    ):
        assert index.dtype == np.int64 and len(index) == system.ranks
        assert (np.diff(index) >= 0).all() and (np.diff(index) <= 1).all()
        assert (index[0], index[-1]) == (0, count - 1)
    assert (np.bincount(where.node) == level.ranks_per_node).all()
    assert (np.bincount(where.domain) == level.ranks_per_domain).all()


def test_four_nodes_of_the_optical_system_fill_a_rack() -> None:
    where = places(_system("cloudmatrix384"))
    assert where.racks == 12
    assert (np.bincount(where.rack) == 64).all()


# --- graphs that must be refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["capacity_Bps", "latency_s"])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -1.0, "fast", True])
def test_a_link_without_a_number_is_refused(attribute: str, value: Any) -> None:
    graph = build(_system("hgx_h100"))
    graph.edges[("rank", 0), ("switch", 0, 0)][attribute] = value
    with pytest.raises(InputError, match=rf"rank/0 -> switch/0/0: needs a {attribute}"):
        check(graph)


def test_a_missing_capacity_is_refused() -> None:
    graph = build(_system("hgx_h100"))
    del graph.edges[("rank", 0), ("switch", 0, 0)]["capacity_Bps"]
    with pytest.raises(InputError, match="needs a capacity_Bps above 0, got None"):
        check(graph)


def test_no_capacity_is_refused_but_no_latency_is_fine() -> None:
    graph = build(_system("hgx_h100"))
    graph.edges[("rank", 0), ("switch", 0, 0)]["latency_s"] = 0.0
    check(graph)
    graph.edges[("rank", 0), ("switch", 0, 0)]["capacity_Bps"] = 0.0
    with pytest.raises(InputError, match="capacity_Bps"):
        check(graph)


def test_a_rank_without_a_way_is_refused() -> None:
    graph = build(_system("hgx_h100"))
    graph.remove_edges_from(list(graph.in_edges(("rank", 5))))
    with pytest.raises(InputError, match=r"rank/5: has no path to and from the first rank"):
        check(graph)


def test_many_problems_are_counted_not_listed() -> None:
    graph = build(_system("hgx_h100"))
    graph.remove_edges_from(list(graph.edges))
    graph.add_nodes_from((("rank", i), {"kind": "rank"}) for i in range(8, 40))
    with pytest.raises(InputError) as caught:
        check(graph)
    assert len(caught.value.problems) == 11
    assert "more problems" in str(caught.value)


def test_an_empty_graph_is_refused() -> None:
    with pytest.raises(InputError, match="no rank"):
        check(nx.DiGraph())


def test_dies_in_a_full_mesh_are_refused() -> None:
    system = _system("atlas_800_a2", rank="die", set={"accelerator.dies": 2})
    with pytest.raises(InputError, match="a full mesh joins packages"):
        build(system)


def test_a_published_total_that_is_not_derived_is_refused() -> None:
    published = [{"quantity": "compute_bf61_PFLOPps", "value": 1.0, "source": "test"}]
    with pytest.raises(InputError, match="Did you mean 'compute_bf16_PFLOPps'"):
        comparison(_system("hgx_h100", set={"published": published}))


# --- shape of the package -------------------------------------------------------------------------------------


def test_wirings_are_those_of_the_schema() -> None:
    # tables of links and network files (read as dimensions) are the user's own: see test_fabrics
    assert set(WIRINGS) - {"custom"} == {load_system(name).spec.scale_up.wiring for name in NAMES}


def test_a_wiring_is_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page under another name, for a spec that is no class of the package: all that asks a fabric asks the page."""
    system = load_system("hgx_h100", domains=2)
    old = system.spec.scale_up
    fields: dict[str, Any] = {key: (Any, getattr(old, key)) for key in type(old).model_fields} | {
        "wiring": (str, "toy")
    }
    toy = create_model("Toy", __base__=Wired, **fields)()
    other = dataclasses.replace(system, spec=system.spec.model_copy(update={"scale_up": toy}))
    with pytest.raises(KeyError, match="toy"):
        fabric(other)
    monkeypatch.setitem(WIRINGS, "toy", dataclasses.replace(WIRINGS["switch"], name="toy"))
    assert fabric(other) == fabric(system)
    assert list(build(other).edges(data=True)) == list(build(system).edges(data=True))
    assert totals(other) == totals(system)
    assert constant(other) == constant(system)
    took = [
        collective_time(one, "all_reduce", algorithm="ring", size_B=1e6, faults=["switch/1/2"]).time_s
        for one in (system, other)
    ]
    assert took[0] == took[1]


def test_nobody_but_its_page_knows_a_wiring() -> None:
    """The classes of specs are data; beside them one page each names one, and nobody compares names of wirings."""
    specs = {one.__name__ for one in get_args(get_args(ScaleUp)[0])}
    package = Path(cmsim.__file__).parent
    known: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if ".wiring" not in text and not any(name in text for name in specs):
            continue
        for node in ast.walk(ast.parse(text)):
            where = str(path.relative_to(package))
            if isinstance(node, ast.ImportFrom) and not where.startswith("hardware/"):
                known.setdefault(where, set()).update(specs & {alias.name for alias in node.names})
            if isinstance(node, ast.Compare):
                assert ".wiring" not in ast.unparse(node), f"{where}:{node.lineno} asks which wiring it is"
    found = {where: names for where, names in known.items() if names}
    assert found.keys() == {f"topology/wirings/{name}.py" for name in WIRINGS}
    assert all(len(names) == 1 for names in found.values())


def test_import_and_levels_do_not_load_networkx() -> None:
    code = (
        "import sys; from cmsim.hardware import load_system; from cmsim.topology import fabric, places;"
        f"s = load_system({NAMES[0]!r}); fabric(s); places(s); sys.exit('networkx' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_same_system_same_graph() -> None:
    first, second = (build(_system("cloudmatrix384", accelerators=16)) for _ in range(2))
    assert list(first.nodes(data=True)) == list(second.nodes(data=True))
    assert list(first.edges(data=True)) == list(second.edges(data=True))
