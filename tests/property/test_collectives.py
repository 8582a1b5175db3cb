"""What holds for every algorithm and every choice, whatever the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmsim.collectives import (
    ALGORITHMS,
    COLLECTIVES,
    Link,
    Rows,
    bandwidth_bound_B,
    choose,
    explain,
    time_s,
)
from cmsim.collectives.hierarchical import stages
from cmsim.collectives.terms import others

ranks = st.integers(2, 1500)
sizes = st.floats(1.0, 1e12)
alphas = st.floats(0.0, 1e-3)
rates = st.floats(1e8, 1e13)
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: f"{a.collective}-{a.name}")


def one_port(algorithm) -> bool:
    """Whether ranks talk to one peer at a time, from the rounds themselves."""
    return all(
        max(np.bincount(round_[:, 0].astype(int)).max(), np.bincount(round_[:, 1].astype(int)).max()) <= 1
        for round_ in algorithm.rounds(8, 1.0)
        if len(round_)
    )


def allowed(algorithm, p: int) -> int:
    """p, or the power of two below it where the algorithm needs one."""
    return p if np.all(algorithm.applies(p)) else 1 << (p.bit_length() - 1)


@each_algorithm
@given(p=ranks, size_B=sizes, alpha_s=alphas, rate=rates, gamma=st.sampled_from([0.0, 1e-12, 1e-9]))
def test_no_algorithm_beats_the_lower_bound(algorithm, p, size_B, alpha_s, rate, gamma):
    p = allowed(algorithm, p)
    took = time_s(algorithm, p, size_B=size_B, alpha_s=alpha_s, bandwidth_Bps=rate, gamma_s_per_B=gamma)
    moved_B = bandwidth_bound_B(algorithm.collective, p, size_B, in_network=algorithm.in_network)
    # who talks to one peer at a time needs a step for every doubling of those who know
    doubles = one_port(algorithm) and not algorithm.in_network and algorithm.collective != "send_recv"
    adds = algorithm.collective in ("all_reduce", "reduce_scatter", "reduce") and not algorithm.in_network
    for bound_s in (
        (p - 1).bit_length() * alpha_s if doubles else alpha_s,
        moved_B / rate,
        (p - 1) / p * size_B * gamma * adds,
    ):
        assert took >= bound_s * (1 - 1e-12)


@each_algorithm
@given(p=ranks, block=st.integers(1, 1500), finer=st.integers(1, 8))
def test_what_leaves_a_block_was_sent_and_larger_blocks_let_out_less(algorithm, p, block, finer):
    p = allowed(algorithm, p)
    sent = float(algorithm.sent(p))
    outside = float(algorithm.outside(p, block))
    assert 0 <= outside <= sent * (1 + 1e-9)
    assert outside == 0 if block >= p else True
    if p % (block * finer) == 0:
        assert float(algorithm.outside(p, block * finer)) <= outside * (1 + 1e-12)
    # a broadcast or all-to-all must at least reach the other blocks
    if block < p and algorithm.collective != "barrier":
        assert outside > 0


@st.composite
def cases(draw):
    """A row and a link, of any collective and any layout in whole blocks or not."""
    collective = draw(st.sampled_from(COLLECTIVES))
    node = draw(st.integers(1, 16))
    domain = node * draw(st.integers(1, 12))
    leaf = domain * draw(st.integers(1, 4))
    p = leaf * draw(st.integers(1, 8)) + draw(st.sampled_from([0, 0, 0, 1, 5]))
    if collective == "send_recv":
        p, node, domain, leaf = 2, min(node, 2), min(domain, 2), min(leaf, 2)
    rows = Rows(
        *(np.array([v]) for v in (COLLECTIVES.index(collective), draw(st.floats(1.0, 1e10)), p, node, domain, leaf))
    )
    link = Link(
        node_s=draw(alphas),
        domain_s=draw(alphas),
        cluster_s=draw(alphas),
        port_Bps=draw(rates),
        nic_Bps=draw(rates),
        uplink_Bps=draw(st.one_of(st.just(np.inf), rates)),
        leaf_Bps=draw(st.one_of(st.just(np.inf), rates)),
        base_s=draw(alphas),
        step_s=draw(alphas),
        port_efficiency=draw(st.floats(0.1, 1.0)),
        nic_efficiency=draw(st.floats(0.1, 1.0)),
        in_network=draw(st.booleans()),
    )
    return rows, link


@given(case=cases())
def test_the_choice_is_no_dearer_than_any_candidate(case):
    rows, link = case
    chosen = float(choose(rows, link).time_s[0])
    assert all(chosen <= candidate.time_s * (1 + 1e-9) for candidate in explain(rows, link))


@given(case=cases(), factor=st.floats(1.0, 1e3))
def test_more_bytes_never_cost_less(case, factor):
    rows, link = case
    more = replace(rows, size_B=rows.size_B * factor)
    assert choose(more, link).time_s[0] >= choose(rows, link).time_s[0] * (1 - 1e-9)


@given(case=cases(), better=st.sampled_from(["port_Bps", "nic_Bps", "uplink_Bps", "leaf_Bps"]))
def test_a_wider_link_never_costs_more(case, better):
    rows, link = case
    wider = replace(link, **{better: getattr(link, better) * 2})
    assert choose(rows, wider).time_s[0] <= choose(rows, link).time_s[0] * (1 + 1e-9)


@given(case=cases())
def test_the_choice_obeys_the_lower_bounds_of_port_and_nic(case):
    rows, link = case
    p, domain = int(rows.ranks[0]), int(rows.in_domain[0])
    collective, size_B = COLLECTIVES[rows.collective[0]], float(rows.size_B[0])
    chosen = float(choose(rows, link).time_s[0])
    # port and NIC together carry what a rank must send and receive
    need_B = bandwidth_bound_B(collective, p, size_B, in_network=bool(link.in_network))
    assert chosen >= need_B / (link.port_Bps + link.nic_Bps) * (1 - 1e-9)
    if p % domain == 0 and p > domain and rows.in_node[0] <= domain:
        # what must enter or leave a domain does so through its NICs
        one_sided = collective in ("all_to_all", "dispatch", "combine", "send_recv")
        through_B = bandwidth_bound_B(collective, p // domain, size_B, in_network=False) / (1 if one_sided else domain)
        assert chosen >= through_B / link.nic_Bps * (1 - 1e-9)


@given(inner=st.integers(1, 64), outer=st.integers(1, 64))
def test_a_hierarchy_sends_no_more_than_a_flat_collective_and_little_between_its_blocks(inner, outer):
    p = inner * outer
    for collective, times in (("all_reduce", 2), ("reduce_scatter", 1), ("all_gather", 1)):
        sent = {"inner": 0.0, "outer": 0.0}
        for stage in stages(collective):
            both = 2 if stage.collective == "all_reduce" else 1
            ranks = inner if stage.part == "inner" else outer
            sent[stage.part] += both * others(ranks) * stage.share(inner)
        assert sum(sent.values()) == pytest.approx(times * (p - 1) / p, rel=1e-12)
        assert sent["outer"] == pytest.approx(times * (outer - 1) / outer / inner, rel=1e-12)
