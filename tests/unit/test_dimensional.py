"""Collectives along the dimensions of a grid: formula against rounds, what the rounds deliver, what flat ones get."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from cmsim.collectives import Link, Rows, choose, collective_code, explain
from cmsim.collectives.dimensional import (
    COLLECTIVES,
    algorithm,
    dimensional_s,
    latency_s,
    rounds,
    schedule,
    seconds_per_B,
    shares,
)
from cmsim.collectives.on_grid import GridDim, exchanged, gathered, routed_s_per_B, span, steps
from cmsim.errors import InputError

S = 1e9
HOP_S = 1e-6
GIGA = 1e9


def dim(kind: str, size: int, GBps: float = 50.0, hop_s: float = HOP_S) -> GridDim:
    return GridDim(kind, size, GBps * GIGA, hop_s)


@dataclass(frozen=True)
class Plain:
    """A grid as a fabric would give it."""

    dims: tuple[GridDim, ...]
    ranks_per_node: int = 1
    pairs_s_per_B: float = 0.0
    next_s_per_B: float = 0.0
    farthest_s: float = 0.0


GRIDS = {
    "ring of 5": (dim("ring", 5),),
    "ring of 6": (dim("ring", 6),),
    "line": (dim("line", 5),),
    "mesh": (dim("mesh", 4),),
    "switch": (dim("switch", 4),),
    "square": (dim("ring", 4), dim("ring", 4)),
    "cube": (dim("ring", 4), dim("ring", 4), dim("ring", 4)),
    "meshes": (dim("mesh", 4), dim("mesh", 4)),
    "uneven": (dim("ring", 4, 100), dim("ring", 3, 25)),
    "of all kinds": (dim("ring", 4), dim("mesh", 3, 25), dim("switch", 2, 10), dim("line", 3, 40)),
}
#: all dimensions alike: rounds played one after the other keep all of them busy
EVEN = ("ring of 5", "ring of 6", "mesh", "switch", "square", "cube", "meshes")


def link_loads(
    dims: tuple[GridDim, ...], one: np.ndarray, *, switched: bool = True
) -> dict[tuple[int, int, int], float]:
    """Bytes on every link that the messages of a round take: (dimension, rank, way). A switch has one port a rank."""
    sizes = [d.size for d in dims]
    load: dict[tuple[int, int, int], float] = {}
    for src, dst, size_B in one.tolist():
        at, to = (np.unravel_index(int(r), sizes, order="F") for r in (src, dst))
        (k,) = [k for k in range(len(dims)) if at[k] != to[k]]
        step = (int(to[k]) - int(at[k])) % dims[k].size
        way = 0 if dims[k].kind == "switch" and switched else step
        if dims[k].kind in ("ring", "line"):
            assert step in (1, dims[k].size - 1), "neighbours only"
            assert dims[k].kind == "ring" or abs(int(to[k]) - int(at[k])) == 1
        load[k, int(src), way] = load.get((k, int(src), way), 0.0) + size_B
    return load


CASES = [pytest.param(c, GRIDS[name], id=f"{c}-{name}") for c in COLLECTIVES for name in GRIDS]


@pytest.mark.parametrize(("collective", "dims"), CASES)
def test_the_busiest_link_carries_what_the_formula_says(collective, dims):
    total: dict[tuple[int, int, int], float] = {}
    for one in rounds(collective, dims, S):
        for key, size_B in link_loads(dims, one).items():
            total[key] = total.get(key, 0.0) + size_B
    busiest_s = max(size_B / dims[k].link_Bps for (k, _, _), size_B in total.items())
    assert busiest_s == pytest.approx(S * seconds_per_B(collective, dims), rel=1e-9)


def played_s(collective: str, dims: tuple[GridDim, ...]) -> float:
    """Rounds one after the other, each as long as its busiest link and one hop."""
    return sum(
        HOP_S + max(size_B / dims[k].link_Bps for (k, _, _), size_B in link_loads(dims, one).items())
        for one in rounds(collective, dims, S)
    )


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("name", EVEN)
def test_playing_the_rounds_gives_the_formula(collective, name):
    assert played_s(collective, GRIDS[name]) == pytest.approx(dimensional_s(collective, GRIDS[name], S), rel=1e-9)


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("name", sorted(set(GRIDS) - set(EVEN)))
def test_rounds_without_chunks_are_never_quicker(collective, name):
    """Where links are not equally busy, rounds wait for the busiest; chunks would keep the slowest dimension busy."""
    expected = dimensional_s(collective, GRIDS[name], S) - latency_s(collective, GRIDS[name])
    assert expected <= played_s(collective, GRIDS[name]) <= 4 * expected


@pytest.mark.parametrize(("collective", "dims"), CASES)
def test_steps_of_a_copy_are_those_of_the_latency(collective, dims):
    once = sum(steps(one) for one in dims)
    assert latency_s(collective, dims) == pytest.approx(
        sum(steps(one) * one.hop_s for one in dims) * (2 if collective == "all_reduce" else 1)
    )
    if len(dims) == 1:
        assert len(rounds(collective, dims, S)) == once * (2 if collective == "all_reduce" else 1)


@pytest.mark.parametrize(("collective", "dims"), CASES)
def test_arrays_are_the_schedule(collective, dims):
    parts, said = schedule(collective, dims)
    arrays = rounds(collective, dims, S)
    assert len(said) == len(arrays)
    for sends, one in zip(said, arrays, strict=True):
        ours: dict[tuple[int, int], float] = {}
        for send in sends:
            unit = S / parts
            ours[send.src, send.dst] = ours.get((send.src, send.dst), 0.0) + len(send.blocks) * unit
        theirs: dict[tuple[int, int], float] = {}
        for src, dst, size_B in one.tolist():
            theirs[int(src), int(dst)] = theirs.get((int(src), int(dst)), 0.0) + size_B
        assert ours.keys() == theirs.keys()
        assert all(ours[key] == pytest.approx(theirs[key]) for key in ours)


@pytest.mark.parametrize(("collective", "dims"), CASES)
def test_the_rounds_deliver(collective, dims):
    """Everybody ends with what the collective promises; nobody sends what it has not, and nothing is added twice."""
    ranks = math.prod(one.size for one in dims)
    parts, said = schedule(collective, dims)
    each = parts // ranks  # blocks of one owner
    everybody = (1 << ranks) - 1
    if collective == "all_gather":
        held = [dict.fromkeys(range(r * each, (r + 1) * each), 1 << r) for r in range(ranks)]
    elif collective == "all_to_all":
        held = [
            {b: 1 << r for d in range(ranks) for b in range((r * ranks + d) * each, (r * ranks + d + 1) * each)}
            for r in range(ranks)
        ]
    else:
        held = [dict.fromkeys(range(parts), 1 << r) for r in range(ranks)]
    for sends in said:
        arriving = []
        for send in sends:
            assert len(set(send.blocks)) == len(send.blocks)
            arriving.append((send, [held[send.src][block] for block in send.blocks]))
        for send, values in arriving:
            for block, value in zip(send.blocks, values, strict=True):
                if send.adds:
                    assert not held[send.dst].get(block, 0) & value, "added twice"
                    held[send.dst][block] = held[send.dst].get(block, 0) | value
                else:
                    held[send.dst][block] = value
    for r in range(ranks):
        if collective == "all_reduce":
            assert all(held[r][b] == everybody for b in range(parts))
        elif collective == "reduce_scatter":
            assert all(held[r][b] == everybody for b in range(r * each, (r + 1) * each))
        elif collective == "all_gather":
            assert all(held[r][b] == 1 << (b // each) for b in range(parts))
        else:
            for s in range(ranks):
                first = (s * ranks + r) * each
                assert all(held[r][b] == 1 << s for b in range(first, first + each))


def test_a_torus_uses_all_of_its_links():
    """2 (p - 1)/p S over six links of 50 GB/s: as good as a switch of the same port."""
    dims = GRIDS["cube"]
    assert seconds_per_B("all_reduce", dims) == pytest.approx(2 * 63 / 64 / 300e9)
    assert shares(dims) == (4, 4, 4)


def test_unequal_dimensions_share_the_work():
    dims = (dim("ring", 8, 100), dim("ring", 8, 50))
    one_order = (gathered(dims[0]) / 8 / 100e9, gathered(dims[1]) / 64 / 50e9)
    assert seconds_per_B("reduce_scatter", dims) < max(one_order)
    # no better than all bytes over all links
    assert seconds_per_B("reduce_scatter", dims) >= 63 / 64 / 300e9
    assert sum(shares(dims)) == 12


def test_all_to_all_is_bound_by_the_bisection():
    """n/8 of S over every link: half of all ranks send half of S over 2 n links."""
    for n in (4, 8, 16):
        one = dim("ring", n)
        assert exchanged(one) == pytest.approx(n / 8)
        assert seconds_per_B("all_to_all", (one, one)) == pytest.approx((n * n / 2 * 0.5) / (2 * n) / 50e9)


# --- where groups lie, and what flat algorithms get ---------------------------------------------------------------

POD = Plain((dim("ring", 16), dim("ring", 16), dim("ring", 16)), ranks_per_node=4)


@pytest.mark.parametrize(
    ("ranks", "in_node", "found"),
    [
        (4096, 4, [("ring", 16)] * 3),
        (16, 4, [("ring", 16)]),
        (8, 4, [("line", 8)]),
        (2, 2, [("mesh", 2)]),
        (32, 4, [("ring", 16), ("mesh", 2)]),
        (256, 1, [("ring", 16), ("ring", 16)]),  # one of every row: along y and z
        (16, 1, [("ring", 16)]),
        (100, 4, None),
        (12, 2, None),
    ],
)
def test_where_a_group_lies(ranks, in_node, found):
    got = span(POD, ranks, in_node)
    assert (got if got is None else [(one.kind, one.size) for one in got]) == found


def test_flat_algorithms_do_not_get_the_whole_port():
    ring = routed_s_per_B("ring", POD, 4096, 4)
    assert ring == pytest.approx(1 / 50e9)  # one link of six
    assert routed_s_per_B("two_shot", POD, 4096, 4) == pytest.approx(2 / 50e9 * 4096 / 4095)  # 16/8 of what is sent
    assert routed_s_per_B("halving_doubling", POD, 4096, 4) >= routed_s_per_B("two_shot", POD, 4096, 4)
    box = Plain((dim("mesh", 8),), ranks_per_node=8)
    assert routed_s_per_B("two_shot", box, 8, 8) == pytest.approx(1 / 7 / 50e9)  # all seven links
    assert routed_s_per_B("two_shot", box, 4, 4) == pytest.approx(1 / 3 / 50e9)  # the three to its peers
    assert routed_s_per_B("nhr", box, 8, 8) == pytest.approx(1 / 50e9)  # one peer a step
    table = Plain((), pairs_s_per_B=3e-11, next_s_per_B=1e-11)
    assert routed_s_per_B("two_shot", table, 4, 4) == pytest.approx(4e-11)
    assert routed_s_per_B("ring", table, 4, 4) == pytest.approx(1e-11)


def link(grid: Plain, **more: float) -> Link:
    ports = {"ring": 2, "switch": 1}
    port = sum(ports.get(d.kind, d.size - 1) * d.link_Bps for d in grid.dims)
    far = sum(steps(d) * d.hop_s for d in grid.dims)
    return Link(node_s=HOP_S, domain_s=far, cluster_s=2e-5, port_Bps=port, nic_Bps=25e9, grid=grid, **more)


def row(collective: str, size_B: float, ranks: int, in_node: int, in_domain: int = 0) -> Rows:
    there = in_domain or ranks
    columns = (np.array([n]) for n in (ranks, in_node, there, there))
    return Rows(np.array([collective_code(collective)]), np.array([size_B]), *columns)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_the_chooser_prices_it_as_the_formula(collective):
    got = choose(row(collective, 1e9, 4096, 4), link(POD, step_s=1e-7, base_s=3e-6), algorithm="dimensional")
    expected = 3e-6 + dimensional_s(collective, POD.dims, 1e9, step_s=1e-7)
    assert got.time_s[0] == pytest.approx(expected)
    assert got.name(0) == "dimensional"
    assert got.phases[0].port_B[0] / 300e9 == pytest.approx(1e9 * seconds_per_B(collective, POD.dims))


def test_the_chooser_takes_it_where_bytes_count():
    assert choose(row("all_reduce", 1e9, 4096, 4), link(POD)).name(0) == "dimensional"
    priced = {one.name: one.time_s for one in explain(row("all_reduce", 1e9, 4096, 4), link(POD))}
    assert priced["ring"] == pytest.approx(2 * 4095 / 4096 * 1e9 / 50e9 + 2 * 4095 * HOP_S)
    assert priced["two_shot"] == pytest.approx(2 * 2e9 / 50e9 + 2 * 24 * HOP_S)


def test_it_is_offered_where_a_group_fills_dimensions_only():
    assert "dimensional" not in [one.name for one in explain(row("all_reduce", 1e9, 100, 4), link(POD))]
    assert "dimensional" not in [one.name for one in explain(row("all_reduce", 1e9, 8192, 4, 4096), link(POD))]
    no_grid = Link(node_s=1e-6, domain_s=1e-6, cluster_s=1e-6, port_Bps=1e11, nic_Bps=1e10)
    assert "dimensional" not in [one.name for one in explain(row("all_reduce", 1e9, 64, 4), no_grid)]
    with pytest.raises(InputError, match="needs a group that fills dimensions of a grid"):
        choose(row("all_reduce", 1e9, 64, 4), no_grid, algorithm="dimensional")
    with pytest.raises(InputError, match="is no algorithm for broadcast"):
        choose(row("broadcast", 1e9, 4096, 4), link(POD), algorithm="dimensional")


def test_several_domains_take_their_dimensions_inside():
    """Two pods: a reduce-scatter along the dimensions of each, the rest between them, and back."""
    two = row("all_reduce", 1e9, 8192, 4, 4096)
    priced = {one.name: one.time_s for one in explain(two, link(POD))}
    inside_s = sum(dimensional_s(name, POD.dims, 1e9) for name in ("reduce_scatter", "all_gather"))
    outside_s = 2 * (2e-5 + 1e9 / 4096 / 2 / 25e9)
    assert priced["hierarchical(dimensional, ring)"] == pytest.approx(inside_s + outside_s)
    assert min(priced, key=lambda name: priced[name]).startswith("hierarchical(dimensional, ")


def test_it_is_a_line_of_the_table_for_one_grid():
    page = algorithm("all_reduce", GRIDS["square"])
    assert (page.steps(16), page.sent(16), bool(page.applies(16)), bool(page.applies(8))) == (8, 1.875, True, False)
    assert len(page.schedule(16).rounds) == 8
