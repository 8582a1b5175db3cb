"""What must hold of a collective on any fabric: bytes are conserved, a link is full, nothing beats the bound."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmsim.collectives import ALGORITHMS
from cmsim.errors import InfeasibleError
from cmsim.hardware import System, load_system
from cmsim.messages import FlowResult, Software, all_to_all_v, collective_time

MESH = {"wiring": "full_mesh", "link_GBps": 50.0, "domain_us": 1.0, "power": {"chip_static_W": 0, "chip_dynamic_W": 0}}
SMALL_LEAVES = {"scale_out.oversubscription": 2.0, "scale_out.switch_ports": 12}
#: examples draw a name of this table, so that what fails prints short
SYSTEMS: dict[str, System] = {
    "planes": load_system("cloudmatrix384", rank="package", accelerators=24),
    "planes, two domains": load_system("cloudmatrix384", rank="die", domains=2, set={"accelerators": 16}),
    "switch": load_system("gb200_nvl72", accelerators=16),
    "boxes": load_system("hgx_h100", domains=4, set=SMALL_LEAVES),
    "mesh": load_system("hgx_h100", domains=2, set={"scale_up": MESH}),
}
#: parts whose loss, all at once, cuts nobody off
PARTS = {
    "planes": ["accelerator/3/plane/2", "module/1/3/4", "l2/0/6/15", "l1/2/5", "rank/20/plane/0"],
    "planes, two domains": ["accelerator/3/plane/2", "module/1/3/4", "l2/1/6/15", "l1/3/5", "rank/40/plane/0"],
    "switch": ["switch/0/3", "rank/3/plane/7"],
    "boxes": ["switch/2/1", "rank/9/plane/0", "spine/0"],
    "mesh": [],
}
#: what a round takes without latency
WIRE_ONLY = Software(wire=False)
SLOW_LIBRARY = Software(base_s=5e-6, step_s=1e-6, overhead_s=1e-6, gap_s=2e-7, scale_up=0.8)
LIBRARIES = {"none": Software(), "slow": SLOW_LIBRARY}
#: a result lists so many kinds of busy resources; fewer are all there are
LISTED = 8


@st.composite
def fabrics(draw: Any) -> tuple[str, dict[str, float], str]:
    """(name of a system, faults, routing)"""
    name = draw(st.sampled_from(sorted(SYSTEMS)))
    parts = draw(st.lists(st.sampled_from(PARTS[name]), unique=True, max_size=2)) if PARTS[name] else []
    left = {part: draw(st.sampled_from([0.0, 0.5])) for part in parts}
    return name, left, draw(st.sampled_from(["sprayed", "hashed"]))


@st.composite
def exchanges(draw: Any) -> tuple[tuple[str, dict[str, float], str], list[int], str, int]:
    """(fabric, ranks of a group, kind of matrix, seed): what ``matrix`` makes bytes of."""
    fabric = draw(fabrics())
    every = SYSTEMS[fabric[0]].ranks
    ranks = draw(st.lists(st.integers(0, every - 1), min_size=2, max_size=16, unique=True))
    return fabric, ranks, draw(st.sampled_from(["uniform", "one", "skewed", "sparse"])), draw(st.integers(0, 99))


def matrix(case: Any) -> np.ndarray:
    """Bytes between the ranks of a case: all alike, a single message, all different, or few."""
    _, ranks, kind, seed = case
    count = len(ranks)
    rng = np.random.default_rng(seed)
    out = np.zeros((count, count))
    if kind in ("uniform", "skewed"):
        out = np.full((count, count), 1e6) if kind == "uniform" else rng.gamma(0.5, 1e6, (count, count)) + 1.0
    elif kind == "sparse":
        out = rng.choice([0.0, 0.0, 1e5, 1e6], (count, count))
    out[0, 1] = 1e6
    np.fill_diagonal(out, 0.0)
    return out


def played(case: Any, bytes_B: np.ndarray | None = None, **more: Any) -> FlowResult:
    (name, faults, routing), ranks, *_ = case
    given_B = matrix(case) if bytes_B is None else bytes_B
    more = {"ranks": ranks, "library": WIRE_ONLY} | more
    return all_to_all_v(SYSTEMS[name], given_B, faults=faults, routing=routing, **more)


def by_tier(got: FlowResult) -> Counter[str]:
    """Bytes through all resources of a tier in one direction, where the result lists them all. [B]"""
    total: Counter[str] = Counter()
    for busy in got.busiest:
        total[busy.name.split()[0]] += busy.bytes_B * busy.instances
    return total


@given(exchanges())
def test_bytes_in_are_bytes_out(case):
    """What senders send leaves their ports and NICs, enters those of receivers, and nothing is lost on the way."""
    (name, *_), ranks, *_ = case
    got, sent_B = played(case), matrix(case)
    assert got.rounds[0].bytes_B == pytest.approx(sent_B.sum(), rel=1e-12)
    if len(got.busiest) == LISTED:
        return
    domain = np.array(ranks) // (SYSTEMS[name].ranks // (SYSTEMS[name].spec.domains or 1))
    inside = domain[:, None] == domain
    near, far = sent_B[inside].sum(), sent_B[~inside].sum()
    total = by_tier(got)
    close = {"rel": 1e-7, "abs": 1.0}
    for side in ("out", "in"):
        assert total[f"port.{side}"] + total["mesh"] == pytest.approx(near, **close)
        assert total[f"nic.{side}"] == pytest.approx(far, **close)
        assert total[f"leaf.{side}"] == pytest.approx(far, **close)
        assert total[f"uplink.{side}"] <= near + 1.0
        assert total[f"spine.{side}"] <= far + 1.0
    for tier in ("uplink", "spine"):
        assert total[f"{tier}.out"] == pytest.approx(total[f"{tier}.in"], **close)


@given(exchanges())
def test_somebodys_link_is_full_from_start_to_end(case):
    """Weights are proportional to bytes, so the most loaded resource is busy all the time, and no other more so."""
    got = played(case)
    assert got.busiest[0].utilisation == pytest.approx(1.0, rel=1e-6)
    assert all(0 < busy.utilisation <= 1 + 1e-6 for busy in got.busiest)


@given(exchanges(), st.sampled_from(sorted(LIBRARIES)))
def test_merging_changes_nothing(case, library):
    merged, apart = (played(case, library=LIBRARIES[library], together=together) for together in (True, False))
    assert merged.time_s == pytest.approx(apart.time_s, rel=1e-12)
    assert merged.rounds[0].messages == apart.rounds[0].messages
    assert merged.rounds[0].classes <= apart.rounds[0].classes
    assert [busy.utilisation for busy in merged.busiest] == pytest.approx([busy.utilisation for busy in apart.busiest])


@given(exchanges(), st.integers(0, 999))
def test_the_order_of_ranks_means_nothing(case, seed):
    sent_B, ranks = matrix(case), np.array(case[1])
    order = np.random.default_rng(seed).permutation(len(ranks))
    one, other = played(case), played(case, sent_B[np.ix_(order, order)], ranks=ranks[order])
    assert other.time_s == pytest.approx(one.time_s, rel=1e-12)
    assert other.bound_s.time_s == pytest.approx(one.bound_s.time_s, rel=1e-12)


@given(exchanges(), st.sampled_from(sorted(LIBRARIES)))
def test_nothing_is_quicker_than_the_bound(case, library):
    assert played(case, library=LIBRARIES[library]).ratio >= 1 - 1e-7


@given(exchanges(), st.sampled_from([1.5, 4.0]))
def test_more_bytes_never_take_less(case, factor):
    some, more = (played(case, matrix(case) * times, library=Software()) for times in (1.0, factor))
    assert some.time_s <= more.time_s <= some.time_s * factor * (1 + 1e-9)


@example((("boxes", {}, "sprayed"), list(range(16)), "uniform", 0), 0.5)  # what leaves the leaves sets the pace
@given(exchanges(), st.sampled_from([0.5, 0.25]))
def test_less_capacity_never_takes_less(case, left):
    """Every part of the table in turn, brought down to a share of what it had."""
    (name, _, routing), *_ = case
    sound = played(((name, {}, routing), *case[1:]))
    for part in PARTS[name]:
        assert played(((name, {part: left}, routing), *case[1:])).time_s >= sound.time_s * (1 - 1e-9), part


IN_NETWORK = [(one.collective, one.name) for one in ALGORITHMS].index(("all_reduce", "in_network"))


@settings(max_examples=300)
@example(("boxes", {}, "sprayed"), IN_NETWORK, 9, False, 1.0, "none")  # no switch adds for two boxes
@given(
    fabrics(),
    st.sampled_from(range(len(ALGORITHMS))),
    st.integers(2, 24),
    st.booleans(),
    st.sampled_from([1.0, 1e4, 1e8]),
    st.sampled_from(sorted(LIBRARIES)),
)
def test_no_algorithm_is_quicker_than_the_bound(fabric, number, count, spread, size_B, library):
    name, faults, routing = fabric
    system, algorithm = SYSTEMS[name], ALGORITHMS[number]
    count = 2 if algorithm.collective == "send_recv" else min(count, system.ranks)
    stride = system.ranks // count if spread else 1
    try:
        got = collective_time(
            system,
            algorithm.collective,
            algorithm=algorithm.name,
            size_B=size_B,
            ranks=[rank * stride for rank in range(count)],
            faults=faults,
            routing=routing,
            library=LIBRARIES[library],
        )
    except InfeasibleError as error:
        assert "not defined" in str(error) or "switches that add" in str(error)
        return
    assert got.ratio >= 1 - 1e-7, (algorithm.collective, algorithm.name, got.bound_s, got.time_s)
    assert got.time_s > 0
