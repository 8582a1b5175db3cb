"""Descriptions of clusters by infragraph: read as systems, and systems written so."""

from __future__ import annotations

import copy
import random
import sys
from types import SimpleNamespace

import networkx
import pytest
import yaml
from infragraph import Infrastructure
from infragraph.blueprints.devices.amd.mi300x import MI300X
from infragraph.blueprints.devices.generic.generic_switch import Switch
from infragraph.blueprints.devices.generic.server import Server
from infragraph.blueprints.devices.ironwood_rack import IronwoodRack
from infragraph.blueprints.devices.nvidia.dgx import NvidiaDGX
from infragraph.blueprints.fabrics.clos_fat_tree_fabric import ClosFatTreeFabric
from infragraph.blueprints.fabrics.dragonfly_fabric import DragonflyFabric
from infragraph.blueprints.fabrics.single_tier_fabric import SingleTierFabric
from infragraph.infragraph_service import InfraGraphService
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app
from cmsim.clusters import describes, read_cluster, write_cluster
from cmsim.clusters.description import open_description
from cmsim.clusters.fabric import _edges
from cmsim.errors import CmsimError, InputError
from cmsim.hardware import load_system


def several(device, count, name="cluster"):
    """So many of a device, not joined."""
    out = Infrastructure(name=name)
    out.devices.append(device)
    out.instances.add(name="host", device=device.name, count=count)
    return out


@pytest.fixture
def written(tmp_path):
    """A description as a file."""

    def _written(description, change=None):
        data = description if isinstance(description, dict) else description.serialize("dict")
        if change is not None:
            change(data)
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return _written


@pytest.fixture
def loaded(tmp_path):
    """The system that a description becomes, and what was said."""

    def _loaded(path, like):
        made = read_cluster(path, like=like)
        (tmp_path / "mine.yaml").write_text(made.system)
        (tmp_path / "links.csv").write_text(made.links)
        return load_system(str(tmp_path / "mine.yaml")), made

    return _loaded


ROUND = [
    ("hgx_h100", {}),
    ("hgx_h100", {"domains": 12}),
    ("mi300x_8", {}),
    ("gb200_nvl72", {}),
    ("cloudmatrix384", {"accelerators": 32}),
]


@pytest.mark.parametrize(("name", "keys"), ROUND, ids=[f"{name}{keys or ''}" for name, keys in ROUND])
def test_there_and_back_runs_the_same(name, keys, tmp_path, loaded):
    there = load_system(name, **keys)
    back, made = loaded(write_cluster(there, tmp_path / "out.yaml"), name)
    assert (back.packages, back.ranks, back.nodes, back.domains) == (
        there.packages,
        there.ranks,
        there.nodes,
        there.domains,
    )
    fabrics = [one.spec.scale_up.model_dump() for one in (there, back)]
    for fabric in fabrics:  # how many links of which rate make a port cannot be told from a description
        fabric["port"] = fabric.pop("links_per_accelerator", 1) * fabric.pop("link_GBps", 0)
    assert fabrics[0].pop("power") == fabrics[1].pop("power")
    assert fabrics[0] == pytest.approx(fabrics[1])
    assert back.spec.scale_out == there.spec.scale_out and back.spec.node == there.spec.node
    assert not made.links

    def took(system):
        asked = {"kind": "collective", "collective": "all_to_all", "message_bytes": 1e8}
        return cmsim.run({"systems": [system], "workload": asked, "record": "summary"})[0].metrics

    whole = {"system": name, **keys}
    first, second = took(whole), took({"system": str(tmp_path / "mine.yaml")})
    assert second["time_s"] == pytest.approx(first["time_s"], rel=1e-9)
    if "accelerators" not in keys:  # a part of a machine has a share of its switches, a machine has all of them
        assert second["power_avg_W"] == pytest.approx(first["power_avg_W"], rel=1e-6)


def test_the_package_reads_what_is_written(tmp_path):
    """Its graph has every link that ours has."""
    from cmsim.topology.graph import build

    system = load_system("hgx_h100", domains=12)
    service = InfraGraphService()
    service.set_graph(write_cluster(system, tmp_path / "out.yaml").read_text())
    theirs = service.get_networkx_graph()
    # each once; a card's place in its host is the device's to say
    ours = [said for a, b, said in build(system).edges(data=True) if a < b and {a[0], b[0]} != {"nic", "rank"}]
    between = [said for *_, said in theirs.edges(data=True) if "latency" in said]
    assert len(between) == len(ours)
    GBps = sum(float(said["bandwidth"].removesuffix(" GBps")) for said in between)
    assert GBps == pytest.approx(sum(said["capacity_Bps"] for said in ours) / 1e9)


def test_boxes_behind_a_switch(written, loaded):
    path = written(SingleTierFabric(NvidiaDGX("dgx_h100"), 4, bandwidth=400))
    assert describes(path)
    system, made = loaded(path, "hgx_h100")
    assert (system.packages, system.domains, system.spec.node.cpus) == (32, 4, 2)
    assert system.spec.scale_up == load_system("hgx_h100").spec.scale_up  # the file has no rate of NVLink
    assert system.spec.scale_out.nic_GBps == 50 and system.spec.scale_out.switch_ports == 32
    assert "NVIDIA H100 / H200 SXM5" in made.notes[0] and "domain_us of the fabric as hgx_h100" in made.notes[1]
    # each number says where it is from
    sources = system.spec.sources
    assert sources["scale_out.nic_GBps"] == "cluster.yaml (infragraph): link switch-link, over accelerators of a host"
    assert sources["node.cpu_idle_W"] == load_system("hgx_h100").spec.sources["node.cpu_idle_W"]
    assert "scale_out.oversubscription" not in sources


def test_a_fat_tree(written, loaded):
    tree = ClosFatTreeFabric(Switch(16), NvidiaDGX("dgx_h100"), 2, [400, 200])
    system, _ = loaded(written(tree), "hgx_h100")
    assert system.domains == 16 and system.spec.scale_out.nic_GBps == 50
    assert system.spec.scale_out.oversubscription == 2  # half as much up as down


def test_a_mesh_and_a_torus(written, loaded):
    mesh, _ = loaded(written(several(MI300X(), 2)), "mi300x_8")
    assert mesh.spec.scale_up == load_system("mi300x_8").spec.scale_up and mesh.domains == 2

    def slower(data):
        (link,) = [one for one in data["devices"][0]["links"] if one["name"] == "infinity_fabric"]
        physical = {"bandwidth": {"choice": "gigabits_per_second", "gigabits_per_second": 256}}
        link["physical"] = physical | {"latency": {"choice": "ns", "ns": 700}}

    slow, _ = loaded(written(several(MI300X(), 2), slower), "hgx_h100")  # with numbers of its own any system will do
    assert (slow.spec.scale_up.wiring, slow.spec.scale_up.link_GBps, slow.spec.scale_up.domain_us) == (
        "full_mesh",
        32,
        0.7,
    )

    torus, made = loaded(written(several(IronwoodRack(), 1)), "tpu_v4_pod")
    assert torus.spec.scale_up.wiring == "custom" and len(torus.links) == 3 * 64
    assert torus.links[0].capacity_Bps == 175e9 and "a table of 192 links" in made.notes[-1]


def refused(path, like="hgx_h100"):
    with pytest.raises(InputError) as error:
        read_cluster(path, like=like)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["instances"][0].update(device="dgx"), "instances[0].device: no device 'dgx'. Did you mean"),
        (lambda data: data["instances"][0].update(count="x"), "instances[0].count: must be a whole number, got 'x'"),
        (lambda data: data["instances"][0].update(count=10**9), "components; allowed: up to 50,000"),
        (lambda data: data["edges"][0].update(link="fibre"), "edges[0].link: no link 'fibre'"),
        (lambda data: data["edges"][0].update(scheme="ring"), "got 'ring'; allowed: one2one, many2many"),
        (lambda data: data["edges"][0]["ep1"].update(component="gpu[0]"), "dgx_h100 has no component 'gpu[0]'"),
        (lambda data: data["edges"][0]["ep1"].update(component="cx7[8]"), "'cx7[8]' is outside the 8"),
        (lambda data: data["edges"][0]["ep2"].update(instance="leaf[0]"), "no instance 'leaf[0]'"),
        (lambda data: data["devices"][0]["edges"][0].update(link="wire"), "devices[0].edges[0].link: no link 'wire'"),
        (lambda data: data.update(devices=[]), "devices: must be a list with entries"),
        (
            lambda data: data["links"][0]["physical"]["bandwidth"].update(gigabits_per_second=-400),
            "link switch-link has -400 Gbps, None: a rate is above 0",
        ),
    ],
)
def test_bad_names_and_sizes_have_their_line(written, change, said):
    path = written(SingleTierFabric(NvidiaDGX("dgx_h100"), 2), change)
    message = refused(path)
    assert said in message and message.startswith(f"{path}:")


def test_devices_in_each_other_end(written):
    def inside(data):
        data["devices"][1]["components"].append({"name": "switch", "count": 2, "choice": "device"})

    assert "allowed: up to 50,000" in refused(written(SingleTierFabric(NvidiaDGX("dgx_h100"), 2), inside))


def test_what_cannot_be_mapped_says_why(written):
    no_rates = refused(written(several(MI300X(), 1)))
    assert "no link_GBps of accelerators' fabric; link infinity_fabric says nothing of it" in no_rates
    assert "hgx_h100 is wired as switch" in no_rates and "gigabytes_per_second" in no_rates
    dragonfly = DragonflyFabric(Switch(8), Server(), 4, 2, 2)
    small = several(NvidiaDGX("dgx2"), 1)  # its edges name switches that it does not have
    assert "dgx2 has no component 'nvlsw[0:6]'" in refused(written(small))
    data = dragonfly.serialize("dict")
    assert "switches of one tier; cmsim's network between domains is a fat tree" in refused(written(data))

    def alone(data):
        (link,) = [one for one in data["devices"][0]["edges"] if one["link"] == "infinity_fabric"]
        data["devices"][0]["edges"].remove(link)

    assert "no link joins host.0.xpu.0" in refused(written(several(MI300X(), 1), alone), "mi300x_8")

    def unknown(data):
        data["devices"][0]["components"][1]["choice"] = "memory"

    assert "no component is an `xpu`" in refused(written(several(MI300X(), 1), unknown), "mi300x_8")


def test_more_than_is_read_is_not_written(tmp_path):
    with pytest.raises(InputError, match="800,000 accelerators; allowed: up to 50,000"):
        write_cluster(load_system("hgx_h100", domains=100_000), tmp_path / "out.yaml")
    assert not list(tmp_path.iterdir())


def test_links_in_parallel_add_up_and_are_as_late_as_the_last():
    graph = networkx.MultiGraph()
    for us in (5, 1):
        graph.add_edge("a", "b", link="cable", bandwidth="25 GBps", latency=f"{us} us")
    (edge,) = _edges(SimpleNamespace(graph=graph), {"a": "a", "b": "b"}).values()
    assert (edge.GBps, edge.latency_us) == (50, 5)


def test_without_the_package(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "infragraph", None)
    path = written(several(MI300X(), 1))
    with pytest.raises(InputError, match=r"pip install 'cmsim\[infragraph\]'"):
        open_description(path)


def test_by_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ran(*words):
        return CliRunner().invoke(app, list(words))

    done = ran("export", "infragraph", "hgx_h100", "--domains", "2", "--out", "two.yaml")
    assert done.exit_code == 0, done.output
    assert "wrote two.yaml: 16 accelerators" in done.stderr
    assert "name the system that has them" in ran("new", "--from", "two.yaml").stderr
    assert "leave --arg, --env and --case out" in ran("new", "--from", "two.yaml", "--case", "3").stderr
    done = ran("new", "--from", "two.yaml", "--system", "hgx_h100")
    assert done.exit_code == 0, done.output
    assert "wrote two.system.yaml; next: cmsim show two.system.yaml" in done.stderr
    assert "note: accelerators (NVIDIA H100 SXM, 80 GB), stack, hosts, watts" in done.stderr
    assert ran("show", "two.system.yaml").exit_code == 0
    assert "is there already" in ran("new", "--from", "two.yaml", "--system", "hgx_h100").stderr
    shown = ran("new", "--from", "two.yaml", "--system", "hgx_h100", "--explain")
    assert yaml.safe_load(shown.stdout)["domains"] == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_file_is_a_system_or_an_error_with_its_place(seed, written):
    """Whatever stands where something else should: nothing else is raised."""
    rng = random.Random(seed)
    odd = [None, -1, 0, 10**12, "", "x", "xpu[0:99]", "xpu[a]", "a.b", [], {}, 1.5, float("nan"), True, {"a": 1}]
    whole = several(MI300X(), 2).serialize("dict")
    for _ in range(12):
        data = copy.deepcopy(whole)
        at, key = data, rng.choice(list(data))
        while isinstance(at[key], dict | list) and at[key] and rng.random() < 0.9:
            at = at[key]
            key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        at[key] = rng.choice(odd)
        path = written(data)
        try:
            assert read_cluster(path, like="mi300x_8").system
        except CmsimError as error:
            assert str(error).startswith(str(path)), error
