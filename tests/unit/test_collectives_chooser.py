"""The chooser: prices by hand, phases that add up, errors that name the row."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from cmsim.collectives import CANDIDATES, COLLECTIVES, Choice, Link, Rows, choose, chooser, explain
from cmsim.errors import InputError

LINK = Link(node_s=1e-6, domain_s=2e-6, cluster_s=5e-6, port_Bps=400e9, nic_Bps=50e9)
# 4 domains of 48 ranks, 8 of them in a node, 2 domains under a leaf
SPREAD = (192, 8, 48, 96)


def rows(*calls: tuple[str, float, int, int, int, int]) -> Rows:
    names, *columns = zip(*calls, strict=True)
    return Rows(np.array([COLLECTIVES.index(n) for n in names]), *(np.array(c) for c in columns))


def recomputed_s(choice: Choice, given: Rows, link: Link) -> np.ndarray:
    """Time from the phases alone."""
    total = np.zeros(len(given))
    for phase in choice.phases:
        total += phase.latency_s + np.max(
            [
                phase.port_B / (link.port_Bps * link.port_efficiency),
                phase.uplink_B * given.in_node / (link.uplink_Bps * link.port_efficiency),
                phase.nic_B / (link.nic_Bps * link.nic_efficiency),
                phase.leaf_B * given.in_leaf / (link.leaf_Bps * link.nic_efficiency),
            ],
            axis=0,
        )
    return total


def test_a_flat_ring_by_hand():
    link = replace(
        LINK, uplink_Bps=1e12, leaf_Bps=1e12, base_s=7e-6, step_s=0.5e-6, port_efficiency=0.9, nic_efficiency=0.8
    )
    given = rows(("all_reduce", 1e9, *SPREAD))
    choice = choose(given, link, algorithm="ring")
    sent = 2 * 191 / 192 * 1e9
    (phase,) = choice.phases
    assert choice.name(0) == "ring"
    assert phase.latency_s[0] == pytest.approx(7e-6 + 2 * 191 * 5.5e-6)
    assert phase.nic_B[0] == pytest.approx(sent / 48)
    assert phase.port_B[0] == pytest.approx(sent * (1 - 1 / 48))
    assert phase.uplink_B[0] == pytest.approx(sent * (1 / 8 - 1 / 48))
    assert phase.leaf_B[0] == pytest.approx(sent / 96)
    slowest = max(sent * 47 / 48 / 360e9, sent * 5 / 48 * 8 / 0.9e12, sent / 48 / 40e9, sent / 0.8e12)
    assert choice.time_s[0] == pytest.approx(phase.latency_s[0] + slowest)


def test_a_hierarchical_all_reduce_by_hand():
    choice = choose(rows(("all_reduce", 1e9, *SPREAD)), LINK, algorithm="hierarchical(direct, ring)")
    first, middle, last = choice.phases
    assert [p.latency_s[0] for p in choice.phases] == pytest.approx([2e-6, 6 * 5e-6, 2e-6])
    assert [p.port_B[0] for p in choice.phases] == pytest.approx([47 / 48 * 1e9, 0, 47 / 48 * 1e9])
    assert [p.nic_B[0] for p in choice.phases] == pytest.approx([0, 2 * 3 / 4 * 1e9 / 48, 0])
    # two of the four ranks of each outer ring sit under one leaf: one of its two edges leaves
    assert middle.leaf_B[0] == pytest.approx(2 * 3 / 4 * 1e9 / 48 / 2)
    assert first.leaf_B[0] == last.leaf_B[0] == 0


def test_a_hierarchy_splits_at_the_node_inside_one_domain():
    link = replace(LINK, uplink_Bps=800e9)
    choice = choose(rows(("reduce_scatter", 1e9, 48, 8, 48, 48)), link, algorithm="hierarchical(direct, ring)")
    first, second = choice.phases
    assert (first.latency_s[0], second.latency_s[0]) == pytest.approx((1e-6, 5 * 2e-6))
    assert (first.uplink_B[0], second.uplink_B[0]) == pytest.approx((0, 5 / 6 * 1e9 / 8))
    assert second.port_B[0] == pytest.approx(5 / 6 * 1e9 / 8)


def test_the_root_of_a_tree_has_one_nic():
    choice = choose(rows(("broadcast", 1e6, *SPREAD)), LINK, algorithm="binomial")
    assert choice.phases[0].nic_B[0] == pytest.approx(1e6 * 3)  # ranks 64 and 128, and 32 passes on to 48
    message = choose(rows(("send_recv", 1e6, 2, 1, 1, 2)), LINK)
    assert message.time_s[0] == pytest.approx(5e-6 + 1e6 / 50e9)


def test_one_rank_costs_nothing_and_a_barrier_has_no_bytes():
    given = rows(("all_reduce", 1e9, 1, 1, 1, 1), ("barrier", 0.0, 192, 8, 48, 96))
    choice = choose(given, replace(LINK, base_s=1e-6))
    assert [choice.name(i) for i in (0, 1)] == ["none", "dissemination"]
    assert choice.time_s == pytest.approx([0.0, 1e-6 + 8 * 5e-6])
    assert len(choice.phases) == 1
    assert choice.phases[0].latency_s[0] == choice.phases[0].port_B[0] == 0
    assert choose(rows(("all_reduce", 1e9, 1, 1, 1, 1)), LINK).phases[0].latency_s == [0]
    empty = Rows(*(np.array([], dtype=int) for _ in fields(Rows)))
    assert len(choose(empty, LINK).time_s) == 0


def test_dispatch_pays_for_each_doubling():
    link = replace(LINK, base_s=50e-6, step_s=10e-6, port_efficiency=0.5)
    choice = choose(rows(("dispatch", 8e6, 8, 8, 8, 8)), link)
    assert choice.name(0) == "expert"
    assert choice.time_s[0] == pytest.approx(50e-6 + 3 * 11e-6 + 7e6 / 200e9)


def test_small_messages_take_few_steps_and_large_ones_few_bytes():
    given = rows(*(("all_reduce", size, 8, 8, 8, 8) for size in (1e3, 1e9)), ("all_reduce", 1e9, *SPREAD))
    choice = choose(given, LINK)
    assert [choice.name(i) for i in range(2)] == ["one_shot", "two_shot"]
    assert choice.name(2).startswith("hierarchical(") or choice.name(2) == "nhr"


def test_in_network_needs_the_switches_and_one_domain():
    given = rows(("all_reduce", 1e9, 48, 8, 48, 48), ("all_reduce", 1e9, *SPREAD))
    assert "in_network" not in choose(given, LINK).name(0)
    reducing = replace(LINK, in_network=True)
    assert choose(given, reducing).name(0) == "in_network"
    assert choose(given, reducing).time_s[0] == pytest.approx(2 * 2e-6 + 1e9 * (1 + 1 / 48) / 400e9)
    assert "in_network" not in {c.name for c in explain(given.row(1), reducing)}
    # the switches may differ from row to row
    mixed = choose(rows(*[("all_reduce", 1e9, 48, 8, 48, 48)] * 2), replace(LINK, in_network=np.array([False, True])))
    assert [mixed.name(0) == "in_network", mixed.name(1)] == [False, "in_network"]


def test_gamma_is_part_of_the_latency_of_its_phase():
    given = rows(("all_reduce", 1e9, *SPREAD))
    link = replace(LINK, gamma_s_per_B=1e-12)
    choice = choose(given, link, algorithm="ring")
    assert choice.phases[0].latency_s[0] == pytest.approx(2 * 191 * 5e-6 + 191 / 192 * 1e-3)
    assert choice.time_s == pytest.approx(recomputed_s(choice, given, link))


def mixed(count: int) -> tuple[Rows, Link]:
    rng = np.random.default_rng(7)
    node = rng.choice([1, 2, 8], count)
    domain = node * rng.choice([1, 3, 6], count)
    leaf = domain * rng.choice([1, 2], count)
    ranks = leaf * rng.choice([1, 2, 5], count)
    given = Rows(rng.integers(0, len(COLLECTIVES), count), 10 ** rng.uniform(2, 9, count), ranks, node, domain, leaf)
    return given, replace(LINK, uplink_Bps=2e12, leaf_Bps=1e12, base_s=3e-6, step_s=1e-6, port_efficiency=0.9)


def test_time_is_the_sum_of_its_phases():
    given, link = mixed(500)
    choice = choose(given, link)
    assert choice.time_s == pytest.approx(recomputed_s(choice, given, link), rel=1e-12)


def test_many_rows_are_as_one_by_one_whatever_the_chunk(monkeypatch):
    given, link = mixed(200)
    at_once = choose(given, link)
    monkeypatch.setattr(chooser, "_CHUNK", 7)
    in_chunks = choose(given, link)
    monkeypatch.setattr(chooser, "_TABLE", 3)  # fold by sorting
    by_sorting = choose(given, link)
    as_columns = choose(given, replace(link, **{f.name: np.full(200, getattr(link, f.name)) for f in fields(link)}))
    for other in (in_chunks, by_sorting, as_columns):
        assert np.array_equal(other.name_id, at_once.name_id)
        assert np.array_equal(other.time_s, at_once.time_s)
        for one, two in zip(other.phases, at_once.phases, strict=True):
            assert all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))
    for i in range(200):
        alone = choose(given.row(i), link)
        assert alone.name(0) == at_once.name(i)
        assert alone.time_s[0] == at_once.time_s[i]


def test_explain_lists_what_choose_chose_from():
    given, link = mixed(100)
    choice = choose(given, link)
    for i in np.flatnonzero(given.ranks > 1):
        priced = explain(given.row(i), link)
        assert [p.time_s for p in priced] == sorted(p.time_s for p in priced)
        assert priced[0].time_s == pytest.approx(choice.time_s[i], rel=1e-9)
        for candidate in priced:
            if len(CANDIDATES[given.collective[i]]) > 1:
                forced = choose(given.row(i), link, algorithm=candidate.name)
                assert forced.time_s[0] == pytest.approx(candidate.time_s, rel=1e-12)
    assert explain(rows(("reduce", 1.0, 1, 1, 1, 1)), LINK)[0].name == "none"


def test_the_first_in_the_table_wins_a_tie():
    # two ranks: a ring is a direct exchange
    assert choose(rows(("all_gather", 1e6, 2, 2, 2, 2)), LINK).name(0) == "ring"
    assert choose(rows(("all_to_all", 1e6, 2, 2, 2, 2)), LINK).name(0) == "direct"


def test_hierarchical_alone_means_the_best_of_them():
    given = rows(("all_reduce", 1e8, *SPREAD))
    best = choose(given, LINK, algorithm="hierarchical")
    each = [c.name for c in CANDIDATES[0] if c.name.startswith("hierarchical(")]
    elsewhere = ("halving", "in_network", "dimensional")  # need a power of two, switches that add, a grid
    some = [name for name in each if not any(word in name for word in elsewhere)]
    times = [choose(given, LINK, algorithm=name).time_s[0] for name in some]
    assert best.time_s[0] <= min(times) * (1 + 1e-12)
    assert best.name(0) in each


def test_a_named_algorithm_leaves_collectives_without_a_choice_alone():
    given = rows(("all_reduce", 1e6, 8, 8, 8, 8), ("send_recv", 1e6, 2, 2, 2, 2), ("dispatch", 1e6, 8, 8, 8, 8))
    choice = choose(given, LINK, algorithm="ring")
    assert [choice.name(i) for i in range(3)] == ["ring", "send_recv", "expert"]


@pytest.mark.parametrize(
    ("given", "algorithm", "message"),
    [
        (rows(("all_reduce", 1e6, 8, 8, 8, 8)), "rign", "unknown algorithm 'rign'. Did you mean 'ring'?"),
        (rows(("all_reduce", 1e6, 8, 8, 8, 8)), "none", "unknown algorithm 'none'."),
        (
            rows(("all_reduce", 1e6, 8, 8, 8, 8), ("all_to_all", 1e6, 8, 8, 8, 8)),
            "ring",
            "row 1: all_to_all: 'ring' is no algorithm for all_to_all.",
        ),
        (rows(("all_reduce", 1e6, 8, 8, 8, 8)), "in_network", "row 0: all_reduce: 'in_network' needs switches"),
        (rows(("all_gather", 1e6, 6, 6, 6, 6)), "halving_doubling", "'halving_doubling' is not defined for 6 ranks"),
        (rows(("all_reduce", 1e6, 10, 4, 4, 10)), "hierarchical", "needs equal blocks of more than one rank, of"),
    ],
)
def test_a_named_algorithm_that_cannot_run_says_where_and_why(given, algorithm, message):
    with pytest.raises(InputError) as error:
        choose(given, LINK, algorithm=algorithm)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("size_B", np.nan, "row 1: size_B: must be above 0 and finite, got nan"),
        ("size_B", 0.0, "row 1: size_B: must be above 0 and finite, got 0.0"),
        ("size_B", -1.0, "row 1: size_B: must be above 0"),
        ("size_B", np.inf, "row 1: size_B: must be above 0 and finite, got inf"),
        ("ranks", 0, "row 1: ranks: must be a whole number above 0, got 0"),
        ("ranks", 4, "row 1: ranks: must be at least in_leaf, got 4"),
        ("in_node", 0, "row 1: in_node: must be a whole number above 0, got 0"),
        ("in_node", 9, "row 1: in_domain: must be at least in_node, got 8"),
        ("in_domain", 1.5, "row 1: in_domain: must be a whole number above 0, got 1.5"),
        ("in_leaf", np.nan, "row 1: in_leaf: must be a whole number above 0, got nan"),
        ("collective", 99, "row 1: collective: must be 0 to 11, got 99"),
    ],
)
def test_an_impossible_column_is_named_with_its_row(column, value, message):
    given = rows(*[("all_reduce", 1e6, 8, 8, 8, 8)] * 3)
    changed = np.array(getattr(given, column), dtype=np.result_type(getattr(given, column), type(value)))
    changed[1] = value
    with pytest.raises(InputError) as error:
        choose(replace(given, **{column: changed}), LINK)
    assert message in str(error.value)


def test_many_wrong_rows_are_counted_not_listed():
    given = rows(*[("all_reduce", -1.0, 8, 8, 8, 8)] * 100)
    with pytest.raises(InputError, match="92 more rows") as error:
        choose(given, LINK)
    assert len(error.value.problems) == 9


def test_columns_must_be_equally_long():
    given = rows(("all_reduce", 1.0, 8, 8, 8, 8))
    with pytest.raises(InputError, match="equal length"):
        choose(replace(given, ranks=np.array([8, 8])), LINK)
    with pytest.raises(InputError, match="no row"):
        explain(Rows(*(np.array([], dtype=int) for _ in fields(Rows))), LINK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"port_Bps": 0.0}, "link.port_Bps: must be above 0, got 0.0"),
        ({"nic_Bps": np.nan}, "link.nic_Bps: must be above 0, got nan"),
        ({"port_efficiency": 1.5}, "link.port_efficiency: must be above 0 and at most 1, got 1.5"),
        ({"step_s": -1.0}, "link.step_s: must be 0 or more and finite, got -1.0"),
        ({"base_s": np.array([0.0, 0.0])}, "link.base_s: has shape (2,), allowed: a number or 1 values"),
    ],
)
def test_an_impossible_link_is_named(change, message):
    with pytest.raises(InputError) as error:
        choose(rows(("all_reduce", 1.0, 8, 8, 8, 8)), replace(LINK, **change))
    assert message in str(error.value)
