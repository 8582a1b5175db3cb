"""Algorithms that know groups of ranks: their rounds among groups of any size give their formula back."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.collectives import candidates, time_s
from cmsim.collectives.ahc import ahc_all_reduce, groups_of
from cmsim.collectives.pipeline import pipeline_all_gather, pipeline_reduce_scatter
from cmsim.collectives.terms import Schedule

SIZE_B, ALPHA_S, RATE = 1e6, 3e-6, 7e10
UNEQUAL = [[8, 8, 4], [4, 4, 2], [3, 5, 7], [1, 8], [8, 1], [6, 4], [2, 2], [5], [1, 1, 1], [16, 16, 16, 10]]


def ahc_s(groups: list[int], *, alpha_s: float = ALPHA_S, gamma_s_per_B: float = 0.0) -> float:
    """The head of the page: n_max, n_min members of the largest and smallest of m groups."""
    m, most, least = len(groups), max(groups), min(groups)
    steps = 2 * (most > 1) + 2 * int(np.ceil(np.log2(m)))
    sent = 2 * (most - 1) / most + 2 * (m - 1) / (m * least)
    return steps * alpha_s + sent * SIZE_B / RATE + (1 - 1 / (m * most)) * SIZE_B * gamma_s_per_B


def played_s(schedule: Schedule, ranks: int) -> float:
    """Rounds one after the other, each as long as its busiest port."""
    total = 0.0
    for sends in schedule.rounds:
        out, into = np.zeros(ranks), np.zeros(ranks)
        for send in sends:
            out[send.src] += len(send.blocks)
            into[send.dst] += len(send.blocks)
        total += ALPHA_S + max(out.max(), into.max()) * SIZE_B / schedule.parts / RATE
    return total


def held(schedule: Schedule, start: list[dict[int, int]]) -> list[dict[int, int]]:
    """What every rank holds at the end: block -> the set, as bits, of contributions in it."""
    for sends in schedule.rounds:
        before = [dict(one) for one in start]
        for send in sends:
            for block in send.blocks:
                payload = before[send.src][block]
                if send.adds:
                    assert not start[send.dst].get(block, 0) & payload, "a contribution would be added twice"
                    payload |= start[send.dst].get(block, 0)
                start[send.dst][block] = payload
    return start


@pytest.mark.parametrize("groups", UNEQUAL, ids=str)
def test_unequal_groups_reduce_everything_to_everybody(groups):
    schedule, ranks = ahc_all_reduce(groups), sum(groups)
    everybody = (1 << ranks) - 1
    for one in held(schedule, [dict.fromkeys(range(schedule.parts), 1 << r) for r in range(ranks)]):
        assert set(one.values()) == {everybody}


@pytest.mark.parametrize("groups", UNEQUAL, ids=str)
def test_rounds_among_unequal_groups_give_the_formula(groups):
    formula = ahc_s(groups)
    assert played_s(ahc_all_reduce(groups), sum(groups)) == pytest.approx(formula, rel=1e-9)


def test_bytes_added_among_unequal_groups():
    """The busiest rank adds (1 - 1/(m n_max)) S."""
    for groups in ([8, 8, 4], [3, 5, 7]):
        schedule = ahc_all_reduce(groups)
        added = np.zeros(sum(groups))
        for sends in schedule.rounds:
            for send in sends:
                added[send.dst] += len(send.blocks) * send.adds
        assert added.max() / schedule.parts == pytest.approx(1 - 1 / (len(groups) * max(groups)))


def test_equal_groups_take_no_more_bytes_than_a_ring():
    equal, one_less = (ahc_s(groups, alpha_s=0.0) for groups in ([8] * 4, [8] * 3 + [7]))
    assert equal == pytest.approx(2 * 31 / 32 * SIZE_B / RATE)
    assert one_less > equal


def test_the_entry_of_the_table_has_servers_and_a_rest():
    (entry,) = (one for one in candidates("all_reduce") if one.name == "ahc")
    ranks = np.arange(1, 100)
    assert ranks[entry.applies(ranks)].tolist() == [p for p in range(9, 100) if p % 8]
    for p in (9, 20, 63):
        time = time_s(entry, p, size_B=SIZE_B, alpha_s=ALPHA_S, bandwidth_Bps=RATE, gamma_s_per_B=1e-12)
        groups = groups_of(p)
        assert time == pytest.approx(ahc_s(groups, gamma_s_per_B=1e-12))


@pytest.mark.parametrize(("inner", "outer"), [(1, 2), (2, 1), (2, 3), (4, 4), (5, 3), (16, 2)])
def test_pipelines_of_any_nodes(inner, outer):
    ranks = inner * outer
    gather, scatter = pipeline_all_gather(inner, outer), pipeline_reduce_scatter(inner, outer)
    for one in held(gather, [{r: 1 << r} for r in range(ranks)]):
        assert one == {r: 1 << r for r in range(ranks)}
    everybody = (1 << ranks) - 1
    reduced = held(scatter, [dict.fromkeys(range(ranks), 1 << r) for r in range(ranks)])
    assert all(one[r] == everybody for r, one in enumerate(reduced))
    for schedule in (gather, scatter):
        assert played_s(schedule, ranks) == pytest.approx(
            len(schedule.rounds) * ALPHA_S + (ranks - 1) / ranks * SIZE_B / RATE
        )
        assert len(schedule.rounds) == outer - (inner == 1)


def test_pipeline_on_one_port_is_never_quicker_than_on_two_networks():
    """The library's formula gives each peer inside a node a wire of its own."""
    block_s = SIZE_B / 64 / RATE
    two = 7 * (ALPHA_S + block_s) + ALPHA_S + block_s
    assert played_s(pipeline_all_gather(8, 8), 64) > two


def test_star_loads_its_root():
    (entry,) = (one for one in candidates("all_reduce") if one.name == "star")
    numbers = {"size_B": SIZE_B, "alpha_s": ALPHA_S, "bandwidth_Bps": RATE}
    assert time_s(entry, 5, **numbers) == pytest.approx(2 * ALPHA_S + 2 * 4 * SIZE_B / RATE)
    (one_shot,) = (one for one in candidates("all_reduce") if one.name == "one_shot")
    assert time_s(entry, 5, **numbers) > time_s(one_shot, 5, **numbers)
