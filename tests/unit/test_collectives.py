"""Formulas against published and derived values (ids are those of the model reference)."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.collectives import (
    COLLECTIVES,
    Link,
    Rows,
    binomial,
    bounds,
    bruck,
    busbw,
    choose,
    collective_code,
    direct,
    expert,
    loggp,
    nhr,
    pairwise,
    pipeline,
    ring,
    send_recv,
)
from cmsim.collectives import barrier as barriers
from cmsim.collectives import halving_doubling as rhd
from cmsim.collectives import hierarchical as hier
from cmsim.collectives import in_network as switch
from cmsim.collectives.table import ALGORITHMS, candidates
from cmsim.collectives.terms import time_s
from cmsim.errors import InputError

US = 1e-6
MATRIX = np.array([[0, 4, 1, 2], [2, 0, 3, 1], [1, 5, 0, 1], [6, 1, 2, 0]]) * 1e6
TWO_US = {"alpha_s": 2e-6, "bandwidth_Bps": 100e9}
ONE_US = {"alpha_s": 1e-6, "bandwidth_Bps": 900e9}

#: id, value, unit of the expected number, expected
CHECKS = [
    ("C01", lambda: ring.ring_all_reduce_s(8, 1e9, alpha_s=3e-6, bandwidth_Bps=450e9), US, 3930.88889),
    ("C02", lambda: ring.ring_all_reduce_s(384, 67108864, alpha_s=2e-6, bandwidth_Bps=392e9), US, 1873.50052),
    ("C03", lambda: ring.ring_all_gather_s(72, 72e6, **ONE_US), US, 149.888889),
    (
        "C04",
        lambda: ring.bidirectional_ring_all_reduce_s(8, 1e9, alpha_s=3e-6, link_bandwidth_Bps=200e9),
        US,
        4417,
    ),
    ("C05", lambda: rhd.halving_doubling_all_reduce_s(64, 1e6, **TWO_US), US, 43.6875),
    ("C06", lambda: rhd.halving_doubling_all_reduce_s(48, 1e6, **TWO_US), US, 63.375),
    ("C07", lambda: rhd.recursive_doubling_all_reduce_s(64, 1e6, **TWO_US), US, 72),
    ("C08", lambda: binomial.binomial_broadcast_s(72, 1e6, **ONE_US), US, 14.7777778),
    ("C09", lambda: ring.ring_broadcast_s(64, 1e9, alpha_s=1e-6, bandwidth_Bps=100e9), US, 19756.5),
    ("C10", lambda: pipeline.best_chunks(7, 67108864, **TWO_US), 1, 44.8694319),
    ("C11", lambda: pipeline.best_chain_s(7, 67108864, **TWO_US), US, 862.566368),
    ("C12", lambda: binomial.tree_all_reduce_s(64, 1e6, **TWO_US), US, 144),
    ("C13", lambda: binomial.double_tree_all_reduce_s(64, 1e9, alpha_s=0.0, bandwidth_Bps=100e9), US, 20000),
    ("C14", lambda: bruck.bruck_blocks(8), 1, 12),
    ("C15", lambda: bruck.bruck_blocks(5), 1, 5),
    ("C16", lambda: bruck.bruck_blocks(384), 1, 1600),
    ("C17", lambda: bruck.bruck_all_to_all_s(8, 1e6, **TWO_US), US, 21),
    ("C18", lambda: pairwise.pairwise_all_to_all_s(8, 1e6, **TWO_US), US, 22.75),
    ("C19", lambda: pairwise.pairwise_all_to_all_v_s(MATRIX, **TWO_US), US, 126),
    ("C20", lambda: pairwise.all_to_all_v_bound_s(MATRIX, bandwidth_Bps=100e9), US, 100),
    ("C21", lambda: direct.one_shot_all_reduce_s(8, 1e5, **TWO_US), US, 9),
    ("C22", lambda: direct.two_shot_all_reduce_s(8, 1e5, **TWO_US), US, 5.75),
    ("C23", lambda: direct.one_shot_crossover_B(8, **TWO_US), 1, 38095.2381),
    ("C24", lambda: direct.mesh_all_reduce_s(8, 1e9, alpha_s=2e-6, link_bandwidth_Bps=28e9), US, 8932.57143),
    ("C25", lambda: direct.two_shot_all_reduce_s(8, 1e9, alpha_s=2e-6, bandwidth_Bps=392e9), US, 4468.28571),
    ("C26", lambda: nhr.nhr_all_reduce_s(48, 1e6, **TWO_US), US, 43.5833333),
    ("C27", lambda: [nhr.blocks_of_step(48, k) for k in range(6)], 1, [24, 12, 6, 3, 1, 1]),
    (
        "C28",
        lambda: pipeline.two_network_all_gather_s(
            64, 8, size_B=64e6, alpha_outer_s=1e-5, alpha_inner_s=2e-6, outer_Bps=25e9, inner_Bps=100e9
        ),
        US,
        362,
    ),
    (
        "C29",
        lambda: hier.hierarchical_all_reduce_s([8, 16], 1e9, alpha_s=[1e-6, 5e-6], bandwidth_Bps=[450e9, 50e9]),
        US,
        8740.38889,
    ),
    ("C30", lambda: hier.hierarchical_all_reduce_sent([8, 16]), 1, 1.984375),
    (
        "C31",
        lambda: hier.outer_bytes_B("reduce_scatter", 8, 16, size_B=1e9, order="outer_first"),
        1,
        937500000,
    ),
    ("C32", lambda: hier.outer_bytes_B("reduce_scatter", 8, 16, size_B=1e9), 1, 117187500),
    ("C34", lambda: switch.in_network_all_reduce_s(8, 1e9, alpha_s=0.0, bandwidth_Bps=450e9), US, 2500),
    ("C35", lambda: switch.in_network_max_busbw_Bps(72, bandwidth_Bps=900e9), 1e9, 1750.68493),
    ("C36", lambda: busbw.factor("all_reduce", 8), 1, 1.75),
    (
        "C37",
        lambda: [busbw.factor(name, 72) for name in ("all_gather", "reduce_scatter", "all_to_all")],
        1,
        [0.986111111] * 3,
    ),
    ("C38", lambda: [busbw.factor(name, 8) for name in ("broadcast", "reduce", "send_recv")], 1, [1, 1, 1]),
    (
        "C45",
        lambda: loggp.binomial_reduce_s(8, 1024, L_s=2500e-9, o_s=1500e-9, G_s_per_B=6e-9),
        1e-9,
        34914,
    ),
    ("C46", lambda: loggp.message_s(1048576, L_s=1e-6, o_s=0.5e-6, G_s_per_B=1 / 392e9), US, 4.67493622),
    (
        "C47",
        lambda: loggp.messages_s(383, 7168, L_s=1e-6, o_s=0.05e-6, g_s=0.02e-6, G_s_per_B=1 / 196e9),
        US,
        20.2365663,
    ),
    ("C48", lambda: barriers.dissemination_barrier_s(384, alpha_s=2e-6), US, 18),
    ("C49", lambda: bounds.lower_bound_s("all_reduce", 72, size_B=1e6, **ONE_US), US, 7),
    ("C52", lambda: binomial.ring_tree_crossover_B(64, **TWO_US), 1, 729600000),
    (
        "C53",
        lambda: hier.hierarchical_all_reduce_s(
            [8, 48, 4], 1e9, alpha_s=[1e-6, 2e-6, 5e-6], bandwidth_Bps=[392e9, 392e9, 50e9]
        ),
        US,
        5398.87925,
    ),
    ("C54", lambda: hier.outer_bytes_B("all_to_all", 8, 16, size_B=1e9), 1, 937500000),
    ("C58", lambda: busbw.busbw_Bps("all_reduce", 72, size_B=439.195e9, time_s=1.0), 1e9, 866.190139),
    (
        "C59",
        lambda: switch.in_network_reduce_scatter_s(72, 1e9, alpha_s=0.0, bandwidth_Bps=900e9),
        US,
        1095.67901,
    ),
    (
        "C60",
        lambda: ring.ring_reduce_scatter_s(72, 72e6, **ONE_US) + ring.ring_all_gather_s(72, 72e6, **ONE_US),
        US,
        299.777778,
    ),
    # one of seven planes is lost at one rank, which then gates the ring
    ("R14", lambda: ring.ring_all_reduce_s(384, 1e9, alpha_s=0.0, bandwidth_Bps=392e9 * 6 / 7), US, 5936.87996),
    ("N27", lambda: _oversubscribed_s(), US, 8960),
    ("N28", lambda: direct.pair_rate_Bps(384, bandwidth_Bps=392e9), 1e9, 1.02349869),
]


def _oversubscribed_s() -> float:
    """All-to-all of 8 leaves of 32 ranks, each leaf's uplinks half of what its ranks can send."""
    rows = Rows(*(np.array([v]) for v in (COLLECTIVES.index("all_to_all"), 256e6, 256, 1, 1, 32)))
    link = Link(node_s=0, domain_s=0, cluster_s=0, port_Bps=1e12, nic_Bps=50e9, leaf_Bps=32 * 50e9 / 2)
    return float(choose(rows, link, algorithm="direct").time_s[0])


@pytest.mark.parametrize(("value", "unit", "expected"), [pytest.param(*c[1:], id=c[0]) for c in CHECKS])
def test_published_and_derived_values(value, unit, expected):
    assert np.asarray(value()) / unit == pytest.approx(np.asarray(expected), rel=1e-6)


#: page functions and the table entries that must agree with them
PAGES = [
    (ring.ring_all_reduce_s, "ring", "all_reduce"),
    (ring.ring_reduce_scatter_s, "ring", "reduce_scatter"),
    (ring.ring_all_gather_s, "ring", "all_gather"),
    (ring.ring_broadcast_s, "ring", "broadcast"),
    (rhd.halving_doubling_all_reduce_s, "halving_doubling", "all_reduce"),
    (rhd.recursive_doubling_all_reduce_s, "recursive_doubling", "all_reduce"),
    (nhr.nhr_all_reduce_s, "nhr", "all_reduce"),
    (nhr.nhr_all_gather_s, "nhr", "all_gather"),
    (direct.one_shot_all_reduce_s, "one_shot", "all_reduce"),
    (direct.two_shot_all_reduce_s, "two_shot", "all_reduce"),
    (direct.direct_all_to_all_s, "direct", "all_to_all"),
    (pairwise.pairwise_all_to_all_s, "pairwise", "all_to_all"),
    (bruck.bruck_all_to_all_s, "bruck", "all_to_all"),
    (binomial.binomial_broadcast_s, "binomial", "broadcast"),
    (binomial.binomial_reduce_s, "binomial", "reduce"),
    (switch.in_network_all_reduce_s, "in_network", "all_reduce"),
    (switch.in_network_reduce_scatter_s, "in_network", "reduce_scatter"),
    (expert.dispatch_s, "expert", "dispatch"),
]


@pytest.mark.parametrize(("page", "name", "collective"), PAGES, ids=lambda value: getattr(value, "__name__", value))
def test_the_page_and_the_table_agree(page, name, collective):
    (algorithm,) = (a for a in candidates(collective) if a.name == name)
    ranks = np.array([1, 2, 3, 5, 8, 48, 384])
    ranks = ranks[algorithm.applies(ranks)]
    numbers = {"alpha_s": 2e-6, "bandwidth_Bps": 1e11}
    if "gamma_s_per_B" in (page.__kwdefaults__ or {}):
        numbers["gamma_s_per_B"] = 1e-12
    from_table = time_s(algorithm, ranks, size_B=3e6, **numbers)
    assert page(ranks, 3e6, **numbers) == pytest.approx(from_table, rel=1e-12)
    assert [float(page(p, 3e6, **numbers)) for p in ranks.tolist()] == pytest.approx(from_table, rel=1e-12)


def test_small_pages_agree_with_the_table():
    (message,) = candidates("send_recv")
    assert send_recv.send_recv_s(1e6, **TWO_US) == time_s(message, 2, size_B=1e6, **TWO_US)
    (barrier,) = candidates("barrier")
    assert barriers.dissemination_barrier_s(5, alpha_s=1.0) == time_s(
        barrier, 5, size_B=0.0, alpha_s=1.0, bandwidth_Bps=1.0
    )
    # one-step exchange of unequal shares reaches the bound of the row and column sums
    assert expert.exchange_v_s(MATRIX, alpha_s=0.0, bandwidth_Bps=1e11) == pairwise.all_to_all_v_bound_s(
        MATRIX, bandwidth_Bps=1e11
    )
    assert ring.chain_broadcast_s(8, 1e6, **TWO_US) > binomial.binomial_broadcast_s(8, 1e6, **TWO_US)
    # pipelining: the closed form is the least of the chunked form
    chunks = np.arange(1, 200)
    chunked = pipeline.chain_s(7, chunks, size_B=67108864, **TWO_US)
    assert chunks[np.argmin(chunked)] == 45
    assert chunked.min() == pytest.approx(pipeline.best_chain_s(7, 67108864, **TWO_US), rel=1e-4)


def test_every_algorithm_names_its_source_and_is_alone_under_its_name():
    assert all(a.source and a.collective in COLLECTIVES for a in ALGORITHMS)
    keys = [(a.name, a.collective) for a in ALGORITHMS]
    assert len(set(keys)) == len(keys)
    assert {a.collective for a in ALGORITHMS} == set(COLLECTIVES)


@pytest.mark.parametrize(
    "call",
    [
        candidates,
        lambda name: busbw.factor(name, 8),
        lambda name: bounds.lower_bound_s(name, 8, size_B=1.0, alpha_s=1.0, bandwidth_Bps=1.0),
        collective_code,
    ],
)
def test_an_unknown_collective_gets_a_hint(call):
    with pytest.raises(InputError, match=r"unknown collective 'all_redcue'. Did you mean 'all_reduce'"):
        call("all_redcue")
