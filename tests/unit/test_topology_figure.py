"""Drawings of systems: every wiring gives one, true to the tables that messages follow, with what is broken marked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from typer.testing import CliRunner

from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.hardware import load_system
from cmsim.plots import topology
from cmsim.plots.sheet import DOWN, SLOW
from cmsim.topology import WIRINGS, sketch

#: a system of each wiring, with some of it broken: name, accelerators (None: all), faults, parts that are down, slow
CASES = {
    "multi_plane_clos": ("cloudmatrix384", None, {"module/5/0/1": 0, "l1/40/1": 0, "l2/0/4/3": 0.5}, 2, 1),
    "switch": ("gb200_nvl72", 144, {"rank/3/plane/1": 0, "switch/0/4": 0, "leaf/3": 0.5}, 2, 2),
    "full_mesh": ("mi300x_8", None, {"link/0/3": 0, "link/1/2": 0.5}, 1, 1),
    "dimensions": ("tpu_v6e_pod", None, {"link/17/18": 0, "rank/99/port": 0}, 2, 0),
    "custom": ("scenarios/graphs/dragonfly40.yaml", None, {"rank/5/port": 0}, 1, 0),
}
#: tests/unit/test_plots.py says why
SMALL, TOLERANCE = {"dpi": 60}, 2.0


def sketched(name, root):
    system, packages, faults, *_ = CASES[name]
    one = load_system(str(root / system) if "/" in system else system)
    return sketch(one if packages is None else dataclasses.replace(one, packages=packages), faults)


def marks(ax, colour):
    """How many crosses or triangles there are of a colour."""
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_hex

    its = [one for one in ax.collections if isinstance(one, PathCollection) and one.get_zorder() == 6]
    return sum(len(one.get_offsets()) for one in its if to_hex(one.get_edgecolors()[0]) == colour)


@pytest.mark.parametrize("name", WIRINGS)
def test_every_wiring_is_drawn_with_what_is_broken(name, root):
    drawn = sketched(name, root)
    ax = topology.draw(drawn)
    *_, down, slow = CASES[name]
    assert (marks(ax, DOWN), marks(ax, SLOW)) == (down, slow)
    assert all(part in ax.get_xlabel().replace("\n", " ") for part in CASES[name][2])
    # a square for each accelerator of the domain that is drawn
    inside = drawn.inside
    count = len(inside.node if hasattr(inside, "node") else inside.coord)
    squares = [len(one.get_paths()) for one in ax.collections if type(one).__name__ == "PolyCollection"]
    assert count in squares


def test_links_are_those_of_the_tables():
    ring = sketch(load_system("tpu_v6e_pod"), ["link/17/18"]).inside
    assert len(ring.start) == 2 * 256 and [one.size for one in ring.along] == [16, 16]
    (cut,) = np.flatnonzero(ring.left < 1)
    assert {int(ring.start[cut]), int(ring.end[cut])} == {17, 18} and ring.left[cut] == 0
    planes = sketch(load_system("cloudmatrix384"), ["accelerator/30/plane/2"]).inside
    assert planes.port.shape == (384, 7) and planes.uplink.shape == (48, 7, 16)
    assert np.argwhere(planes.port < 1).tolist() == [[30, 2]]
    # two dies of a package: one of them down is half of its port
    half = sketch(load_system("cloudmatrix384"), ["rank/60/plane/2"]).inside
    assert half.port[30, 2] == 0.5


def test_of_many_domains_the_broken_one_is_drawn(root):
    many = dataclasses.replace(load_system("hgx_h100"), packages=4096)
    drawn = sketch(many, ["switch/77/2", "nic/800"])
    assert (drawn.domain, drawn.domains) == (77, 512)
    ax = topology.draw(drawn)
    assert "domain 77 drawn" in ax.get_title(loc="left")
    assert {"77", "100"} <= {text.get_text() for text in ax.texts}
    assert len([text for text in ax.texts if text.get_text().isdigit()]) == 16


def test_a_tenth_of_the_lanes_is_in_the_chips():
    ax = topology.draw(sketch(load_system("cloudmatrix384"), ["module/*/*/* 0.1 0"]))
    said = ax.get_xlabel().replace("\n", " ")
    assert "10 % of module/*/*/*" in said and "share of its lanes" in said
    assert marks(ax, DOWN) == 0


@pytest.mark.parametrize("name", ["cloudmatrix384", "tpu_v6e_pod", "atlas950_superpod"])
def test_nothing_is_cut_off(name):
    faults = {"tpu_v6e_pod": {"link/0/1": 0, "link/0/15": 0, "link/100/116": 0.3, "rank/40/port": 0}}
    ax = topology.draw(sketch(load_system(name), faults.get(name, {"rank/40/port": 0})))
    figure = ax.get_figure()
    figure.draw_without_rendering()
    (left, bottom), (right, top) = figure.get_tightbbox().get_points()
    width, height = figure.get_size_inches()
    assert left >= 0 and bottom >= 0 and right <= width and top <= height
    assert top > height - 0.3 and bottom < 0.3


def test_a_broken_lane_has_its_mark_beside_all_chips():
    # the middle of this lane is a chip of plane 0, which is whole
    ax = topology.draw(sketch(load_system("cloudmatrix384"), ["module/5/6/15"]))
    (mark,) = next(one for one in ax.collections if one.get_zorder() == 6).get_offsets()
    squares = [one for one in ax.collections if type(one).__name__ == "PolyCollection"]
    boxes = [path.get_extents() for one in squares for path in one.get_paths()]
    assert not any(box.x0 <= mark[0] <= box.x1 and box.y0 <= mark[1] <= box.y1 for box in boxes)


def test_links_of_an_accelerator_end_at_its_switch():
    # a second switch is drawn beside that of the accelerator, for something of it is broken
    ax = topology.draw(sketch(load_system("atlas950_superpod"), ["rank/40/port"]))
    discs = next(one for one in ax.collections if one.get_zorder() == 3 and len(one.get_offsets()) == 2).get_offsets()
    links = [line for one in ax.collections if one.get_zorder() == 3.5 for line in one.get_segments()]
    highest = max((point for line in links for point in line), key=lambda point: point[1])
    assert min(np.abs(discs - highest).sum(axis=1)) < 1e-9


# where a graph of one's own lies best is found by a minimiser, whose last digits are those of a machine
@pytest.mark.parametrize("name", [name for name in WIRINGS if name != "custom"])
@pytest.mark.mpl_image_compare(baseline_dir="../pictures", tolerance=TOLERANCE, savefig_kwargs=SMALL)
def test_looks_of_systems(name, root):
    return topology.draw(sketched(name, root)).get_figure()


def test_systems_and_scenarios_are_drawn(tmp_path, root):
    def plot(*words):
        return CliRunner().invoke(app, ["plot", "topology", *words, "--out", str(tmp_path / "one.svg")])

    assert plot("hgx_h100").exit_code == 0
    first = plot("faults", "--run", "less three modules")
    assert first.exit_code == 0, first.output
    wrong = plot("faults", "--run", "less thre modules")
    assert wrong.exit_code != 0 and "Did you mean 'less three modules'?" in wrong.output
    assert "is for scenarios" in plot("hgx_h100", "--run", "x").output
    assert "is a folder; topology draws a system or a scenario" in plot(str(tmp_path)).output
    assert "one system or scenario, got 2" in plot("hgx_h100", "faults").output


@pytest.mark.parametrize("packages", [1, 4, 512])
def test_a_part_of_a_system_and_several_are_drawn(packages):
    part = dataclasses.replace(load_system("tpu_v6e_pod"), packages=packages)
    ax = topology.draw(sketch(part))
    ax.get_figure().draw_without_rendering()
    assert f"{packages} × tpu_v6e" in ax.get_title(loc="left")
    assert ("2 domains" in [text.get_text() for text in ax.get_yticklabels()]) == (packages > 256)


def test_parts_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="no part 'link/0/77'"):
        sketch(load_system("mi300x_8"), ["link/0/77"])
