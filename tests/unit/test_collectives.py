"""Formulas against published and derived values (ids are those of the model reference)."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.collectives import (
    COLLECTIVES,
    Link,
    Rows,
    bandwidth_bound_B,
    bruck,
    busbw,
    choose,
    collective_code,
    cut_bound_B,
    nhr,
)
from cmsim.collectives.hierarchical import stages
from cmsim.collectives.table import ALGORITHMS, candidates
from cmsim.collectives.terms import Algorithm, others, time_s
from cmsim.errors import InputError

US = 1e-6
MATRIX = np.array([[0, 4, 1, 2], [2, 0, 3, 1], [1, 5, 0, 1], [6, 1, 2, 0]]) * 1e6
TWO_US = {"alpha_s": 2e-6, "bandwidth_Bps": 100e9}
ONE_US = {"alpha_s": 1e-6, "bandwidth_Bps": 900e9}


def entry(name: str, collective: str = "all_reduce") -> Algorithm:
    """An algorithm of the table."""
    return next(one for one in candidates(collective) if one.name == name)


def took(name: str, ranks, size_B, collective: str = "all_reduce", **numbers):
    return time_s(entry(name, collective), ranks, size_B=size_B, **numbers)


def crossover_B(one: str, other: str, ranks: int, *, alpha_s: float, bandwidth_Bps: float) -> float:
    """Where two algorithms take as long: what one saves in steps the other saves in bytes."""
    a, b = entry(one), entry(other)
    return (b.steps(ranks) - a.steps(ranks)) * alpha_s * bandwidth_Bps / (a.sent(ranks) - b.sent(ranks))


def levels_s(levels, size_B, *, alpha_s, bandwidth_Bps):
    """A ring all-reduce over any number of levels, innermost first: T(n1, rest; S) = RS(n1; S) + T(rest; S/n1) + AG."""
    if len(levels) == 1:
        return took("ring", levels[0], size_B, alpha_s=alpha_s[0], bandwidth_Bps=bandwidth_Bps[0])
    first = {"alpha_s": alpha_s[0], "bandwidth_Bps": bandwidth_Bps[0]}
    return (
        took("ring", levels[0], size_B, "reduce_scatter", **first)
        + levels_s(levels[1:], size_B / levels[0], alpha_s=alpha_s[1:], bandwidth_Bps=bandwidth_Bps[1:])
        + took("ring", levels[0], size_B, "all_gather", **first)
    )


def outer_B(collective: str, inner: int, outer: int, size_B: float) -> float:
    """What each rank sends between blocks: (n2 - 1)/n2 times the S of the outer phase."""
    (share,) = (stage.share(inner) for stage in stages(collective) if stage.part == "outer")
    return others(outer) * share * size_B


#: id, value, unit of the expected number, expected
CHECKS = [
    ("C01", lambda: took("ring", 8, 1e9, alpha_s=3e-6, bandwidth_Bps=450e9), US, 3930.88889),
    ("C02", lambda: took("ring", 384, 67108864, alpha_s=2e-6, bandwidth_Bps=392e9), US, 1873.50052),
    ("C03", lambda: took("ring", 72, 72e6, "all_gather", **ONE_US), US, 149.888889),
    # halves that run opposite ways on two wires: a ring of half the bytes
    ("C04", lambda: took("ring", 8, 1e9 / 2, alpha_s=3e-6, bandwidth_Bps=200e9), US, 4417),
    ("C05", lambda: took("halving_doubling", 64, 1e6, **TWO_US), US, 43.6875),
    ("C06", lambda: took("halving_doubling", 48, 1e6, **TWO_US), US, 63.375),
    ("C07", lambda: took("recursive_doubling", 64, 1e6, **TWO_US), US, 72),
    ("C08", lambda: took("binomial", 72, 1e6, "broadcast", **ONE_US), US, 14.7777778),
    ("C09", lambda: took("ring", 64, 1e9, "broadcast", alpha_s=1e-6, bandwidth_Bps=100e9), US, 19756.5),
    ("C12", lambda: 2 * took("binomial", 64, 1e6, "broadcast", **TWO_US), US, 144),
    ("C13", lambda: took("double_tree", 64, 1e9, alpha_s=0.0, bandwidth_Bps=100e9), US, 20000),
    ("C14", lambda: bruck.bruck_blocks(8), 1, 12),
    ("C15", lambda: bruck.bruck_blocks(5), 1, 5),
    ("C16", lambda: bruck.bruck_blocks(384), 1, 1600),
    ("C17", lambda: took("bruck", 8, 1e6, "all_to_all", **TWO_US), US, 21),
    ("C18", lambda: took("pairwise", 8, 1e6, "all_to_all", **TWO_US), US, 22.75),
    ("C21", lambda: took("one_shot", 8, 1e5, **TWO_US), US, 9),
    ("C22", lambda: took("two_shot", 8, 1e5, **TWO_US), US, 5.75),
    ("C23", lambda: crossover_B("one_shot", "two_shot", 8, **TWO_US), 1, 38095.2381),
    # a wire to every peer: p - 1 of them at once
    ("C24", lambda: took("two_shot", 8, 1e9, alpha_s=2e-6, bandwidth_Bps=7 * 28e9), US, 8932.57143),
    ("C25", lambda: took("two_shot", 8, 1e9, alpha_s=2e-6, bandwidth_Bps=392e9), US, 4468.28571),
    ("C26", lambda: took("nhr", 48, 1e6, **TWO_US), US, 43.5833333),
    ("C27", lambda: [nhr.blocks_of_step(48, k) for k in range(6)], 1, [24, 12, 6, 3, 1, 1]),
    (
        "C29",
        lambda: levels_s([8, 16], 1e9, alpha_s=[1e-6, 5e-6], bandwidth_Bps=[450e9, 50e9]),
        US,
        8740.38889,
    ),
    ("C30", lambda: levels_s([8, 16], 1.0, alpha_s=[0, 0], bandwidth_Bps=[1, 1]), 1, 1.984375),
    ("C32", lambda: outer_B("reduce_scatter", 8, 16, 1e9), 1, 117187500),
    ("C34", lambda: took("in_network", 8, 1e9, alpha_s=0.0, bandwidth_Bps=450e9), US, 2500),
    ("C35", lambda: busbw.factor("all_reduce", 72) / entry("in_network").sent(72) * 900e9, 1e9, 1750.68493),
    ("C36", lambda: busbw.factor("all_reduce", 8), 1, 1.75),
    (
        "C37",
        lambda: [busbw.factor(name, 72) for name in ("all_gather", "reduce_scatter", "all_to_all")],
        1,
        [0.986111111] * 3,
    ),
    ("C38", lambda: [busbw.factor(name, 8) for name in ("broadcast", "reduce", "send_recv")], 1, [1, 1, 1]),
    ("C48", lambda: took("dissemination", 384, 0.0, "barrier", alpha_s=2e-6, bandwidth_Bps=1.0), US, 18),
    (
        "C52",
        lambda: (
            (entry("ring").steps(64) - 2 * entry("binomial", "broadcast").steps(64))
            * 2e-6
            * 100e9
            / (2 - 2 * others(64))
        ),
        1,
        729600000,
    ),
    (
        "C53",
        lambda: levels_s([8, 48, 4], 1e9, alpha_s=[1e-6, 2e-6, 5e-6], bandwidth_Bps=[392e9, 392e9, 50e9]),
        US,
        5398.87925,
    ),
    ("C54", lambda: outer_B("all_to_all", 8, 16, 1e9), 1, 937500000),
    ("C58", lambda: busbw.factor("all_reduce", 72) * 439.195e9, 1e9, 866.190139),
    (
        "C59",
        lambda: took("in_network", 72, 1e9, "reduce_scatter", alpha_s=0.0, bandwidth_Bps=900e9),
        US,
        1095.67901,
    ),
    (
        "C60",
        lambda: took("ring", 72, 72e6, "reduce_scatter", **ONE_US) + took("ring", 72, 72e6, "all_gather", **ONE_US),
        US,
        299.777778,
    ),
    # one of seven planes is lost at one rank, which then gates the ring
    ("R14", lambda: took("ring", 384, 1e9, alpha_s=0.0, bandwidth_Bps=392e9 * 6 / 7), US, 5936.87996),
    ("N27", lambda: _oversubscribed_s(), US, 8960),
]


def _oversubscribed_s() -> float:
    """All-to-all of 8 leaves of 32 ranks, each leaf's uplinks half of what its ranks can send."""
    rows = Rows(*(np.array([v]) for v in (COLLECTIVES.index("all_to_all"), 256e6, 256, 1, 1, 32)))
    link = Link(node_s=0, domain_s=0, cluster_s=0, port_Bps=1e12, nic_Bps=50e9, leaf_Bps=32 * 50e9 / 2)
    return float(choose(rows, link, algorithm="direct").time_s[0])


@pytest.mark.parametrize(("value", "unit", "expected"), [pytest.param(*c[1:], id=c[0]) for c in CHECKS])
def test_published_and_derived_values(value, unit, expected):
    assert np.asarray(value()) / unit == pytest.approx(np.asarray(expected), rel=1e-6)


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
        lambda name: bandwidth_bound_B(name, 8, 1.0),
        lambda name: cut_bound_B(name, 2, 8, 1.0),
        collective_code,
    ],
)
def test_an_unknown_collective_gets_a_hint(call):
    with pytest.raises(InputError, match=r"unknown collective 'all_redcue'. Did you mean 'all_reduce'"):
        call("all_redcue")
