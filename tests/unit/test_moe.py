"""Routing arithmetic. Rows M.. are check values of the model page."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cmsim.errors import InfeasibleError, InputError
from cmsim.workload import moe

US = 1e-6


def test_dispatch_bytes_M01_and_published_bandwidths_M02_M03_M04():
    dispatch = 128 * 8 * moe.message_B(7168, element_bytes=1, scale_block=128)
    combine = 128 * 8 * moe.message_B(7168, element_bytes=2)
    assert dispatch == 7_569_408
    assert dispatch / 77e-6 / 1e9 == pytest.approx(98.304, rel=0.01)
    assert combine / 114e-6 / 1e9 == pytest.approx(128.772491, rel=0.02)
    assert dispatch / 194e-6 / 1e9 == pytest.approx(39.017567, rel=0.01)


@pytest.mark.parametrize(
    ("latency_us", "expected_GBps"),
    [pytest.param(116, 71.1856552, id="M05"), pytest.param(152, 54.3258947, id="M06")],
)
def test_shared_expert_is_one_more_destination(latency_us, expected_GBps):
    size_B = 128 * (8 + 1) * moe.message_B(7168, element_bytes=1)
    assert size_B / (latency_us * US) / 1e9 == pytest.approx(expected_GBps, rel=0.01)


@pytest.mark.parametrize(
    ("ranks", "limit", "expected"),
    [
        pytest.param(8, None, 5.294652, id="M07"),
        pytest.param(32, None, 7.26679992, id="M08"),
        pytest.param(64, None, 7.67575019, id="M09"),
        pytest.param(256, None, 8, id="M10"),
        pytest.param(8, 4, 3.62901092, id="M11"),
        pytest.param(1, None, 1, id="one-rank"),
    ],
)
def test_distinct_ranks(ranks, limit, expected):
    assert moe.distinct_ranks(256, 8, ranks, limit=limit) == pytest.approx(expected, rel=1e-6)


def test_node_limited_bytes_M26_M27():
    message = moe.message_B(7168, element_bytes=1, scale_block=128)
    assert 4096 * moe.distinct_ranks(256, 8, 8, limit=4) * message * 7 / 8 == pytest.approx(96143125.1, rel=1e-6)
    assert 4096 * 8 * message * 7 / 8 == pytest.approx(211943424, rel=1e-6)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [pytest.param(4096, 1.29435251, id="M12"), pytest.param(40960, 1.09308244, id="M13")],
)
def test_multinomial(tokens, expected):
    assert moe.multinomial_imbalance(tokens * 8 / 256, 256) == pytest.approx(expected, rel=1e-6)


def test_multinomial_against_sampling():
    draws = np.random.default_rng(0).multinomial(4096 * 8, np.full(256, 1 / 256), size=400)
    assert moe.multinomial_imbalance(128, 256) == pytest.approx(np.mean(draws.max(1)) / 128, rel=0.05)


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        pytest.param(0.3, 3.73831477, id="M14"),
        pytest.param(0.6, 12.1677358, id="M15"),
        pytest.param(1.0, 41.8003887, id="M16"),
        pytest.param(0.0, 1.0, id="uniform"),
    ],
)
def test_zipf_one_expert_a_rank(s, expected):
    assert moe.rank_imbalance(moe.zipf_shares(256, s), 256) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("placement", "expected"),
    [pytest.param("block", 5.98139232, id="M17"), pytest.param("round_robin", 2.20777872, id="M18")],
)
def test_zipf_placement(placement, expected):
    shares = moe.zipf_shares(256, 0.6)
    assert moe.rank_imbalance(shares, 32, placement=placement) == pytest.approx(expected, rel=1e-6)


def test_packing_beats_round_robin_and_fills_every_rank():
    shares = moe.zipf_shares(256, 0.6)
    packed = moe.rank_imbalance(shares, 32, placement="packed")
    # the hottest expert alone is 1.52 of a rank's mean load
    assert shares[0] * 32 <= packed < 2.20777872
    assert moe.rank_imbalance(np.ones(256), 32, placement="packed") == 1


@pytest.mark.parametrize(
    ("alpha", "expected"), [pytest.param(1.0, 0.99610135, id="M19"), pytest.param(10.0, 0.315547905, id="M20")]
)
def test_dirichlet(alpha, expected):
    assert np.sqrt(255 / (256 * alpha + 1)) == pytest.approx(expected, rel=1e-6)
    drawn = np.concatenate([moe.dirichlet_shares(256, alpha, seed=seed) for seed in range(50)])
    assert np.std(drawn) * 256 == pytest.approx(expected, rel=0.05)
    assert moe.dirichlet_shares(8, alpha, seed=1).tolist() == moe.dirichlet_shares(8, alpha, seed=1).tolist()


def test_bandwidth_bound_of_an_exchange_M21_M22_M23():
    size_B = 32 * 9 * (moe.message_B(7000, element_bytes=1) + moe.message_B(7000, element_bytes=2))
    assert size_B / 50e9 / US == pytest.approx(120.96, rel=1e-6)
    assert size_B / 50e9 * 2 * 61 * 1e3 == pytest.approx(14.75712, rel=1e-6)
    assert size_B / 900e9 * 2 * 61 * 1e3 == pytest.approx(0.81984, rel=1e-6)


def test_experts_touched_M24():
    assert moe.experts_touched(8, experts=256, top_k=8, tokens=32) == pytest.approx(5.10355769, rel=1e-6)
    assert moe.experts_touched(8, experts=256, top_k=8, tokens=np.array([0, 10**6])).tolist() == [0, 8]


def test_replication_M28():
    shares = moe.zipf_shares(256, 0.6)
    copies = moe.replicas(shares, 32)
    assert copies.sum() == 288
    load = moe.slot_shares(shares, copies)
    assert load.sum() == pytest.approx(1)
    assert moe.rank_imbalance(load, 288) == pytest.approx(2.25779395, rel=1e-6)


@pytest.mark.parametrize(
    ("ranks", "given", "expected"),
    [
        # published: 320 ranks, 256 routed + 32 shared + 32 redundant, one slot each
        pytest.param(320, {}, (320, 32, 32, 1), id="320"),
        # published: 288 slots on 72 ranks
        pytest.param(72, {}, (72, 0, 32, 4), id="72"),
        pytest.param(256, {}, (256, 0, 0, 1), id="256"),
        pytest.param(32, {"shared": 32, "redundant": 32}, (32, 32, 32, 10), id="32-given"),
        pytest.param(72, {"redundant": 0}, (8, 0, 0, 32), id="72-no-copies"),
        pytest.param(768, {}, (384, 32, 96, 1), id="768-copies-at-most-double"),
        pytest.param(320, {"ep": 64}, (64, 0, 0, 4), id="64-given"),
    ],
)
def test_place_experts(ranks, given, expected):
    found = moe.place_experts(ranks, routed=256, top_k=8, shared_experts=1, **given)
    assert (found.ep, found.shared, found.redundant, found.per_rank) == expected
    assert found.slots == found.ep * found.per_rank


def test_few_experts_on_many_ranks():
    assert moe.place_experts(384, routed=8, top_k=2).ep == 16


def test_an_impossible_size_lists_the_possible():
    with pytest.raises(InfeasibleError) as caught:
        moe.place_experts(72, routed=256, top_k=8, ep=16, redundant=0)
    assert "size 16 is not possible with 72 ranks" in str(caught.value)
    assert str(caught.value).endswith("Possible: 1, 2, 4, 8.")


def test_slots_must_fill_the_ranks():
    with pytest.raises(InputError, match="256 expert slots do not fill 72 ranks evenly"):
        moe.rank_imbalance(np.ones(256), 72)


def test_divisors_of_a_square():
    assert moe.divisors(36) == [1, 2, 3, 4, 6, 9, 12, 18, 36]


def test_popularity_that_drifts():
    """Four experts on two ranks, packed as 0.4 + 0.1 and 0.3 + 0.2. Whoever is beside the first once all have changed
    places, the three are alike: (0.7 + 0.6 + 0.5) / 3 over a half."""
    shares = [0.4, 0.3, 0.2, 0.1]
    forgotten = [moe.drifted_imbalance(shares, 0, 2, drift_steps=1.0, seed=seed) for seed in range(8)]
    assert np.mean(forgotten) == pytest.approx(1.2, abs=0.03)
    many = moe.zipf_shares(256, 0.6)

    def after(steps: float) -> float:
        return moe.drifted_imbalance(many, 32, 32, drift_steps=10_000.0, every_steps=steps)

    placed = moe.rank_imbalance(moe.slot_shares(many, moe.replicas(many, 32)), 32, placement="packed")
    assert after(1.0) == pytest.approx(placed), "nothing has moved yet"
    found = [after(steps) for steps in (1.0, 100.0, 1000.0, 10_000.0, math.inf)]
    assert found == sorted(found) and found[0] < 1.01 < 1.5 < found[2] < found[-1]
    assert after(1e6) == pytest.approx(found[-1]), "what is placed too late is placed for nothing"
