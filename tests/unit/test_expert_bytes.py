"""Who sends how much to whom in a dispatch, and popularity of experts from draws and from files."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from cmsim.errors import InputError
from cmsim.hardware import load_system
from cmsim.kinds.parts import Balance, ParallelSpec
from cmsim.workload import moe
from cmsim.workload.generate.experts import plan_experts
from cmsim.workload.model import load_model

UNIFORM = np.full(256, 1 / 256)


def matrix(ranks=16, **more):
    given = {"tokens_per_rank": 64, "top_k": 8, "message_B": 7392.0, "shares": UNIFORM, **more}
    return moe.dispatch_matrix_B(ranks, **given)


def test_every_copy_is_sent():
    sent = matrix()
    assert sent.sum(1) == pytest.approx(np.full(16, 64 * 8 * 7392.0))
    # uniform routing: a sixteenth stays home
    assert np.trace(sent) / sent.sum() == pytest.approx(1 / 16, rel=0.15)


def test_equal_seeds_give_equal_bytes():
    assert np.array_equal(matrix(seed=3), matrix(seed=3))
    assert not np.array_equal(matrix(seed=3), matrix(seed=4))


def test_once_for_each_rank():
    sent = matrix(once="rank", tokens_per_rank=400)
    assert sent.sum() / (16 * 400 * 7392.0) == pytest.approx(moe.distinct_ranks(256, 8, 16), rel=0.01)


def test_once_for_each_node_then_fanned_out():
    sent = matrix(ranks=64, once="node", per_node=8, tokens_per_rank=100)
    node = np.arange(64) // 8
    between = sent[node[:, None] != node[None, :]].sum() / (64 * 100 * 7392.0)
    assert between == pytest.approx(moe.distinct_ranks(256, 8, 8) * 7 / 8, rel=0.01)
    # between nodes only ranks of one number meet
    far = node[:, None] != node[None, :]
    same = np.arange(64)[:, None] % 8 == np.arange(64)[None, :] % 8
    assert not sent[far & ~same].any()
    # inside, every rank gets what it would have got directly
    inside = sent[~far].sum() / (64 * 100 * 7392.0)
    assert inside == pytest.approx(moe.distinct_ranks(256, 8, 64), rel=0.01)


def test_limited_to_some_nodes_M11():
    sent = matrix(ranks=64, once="node", per_node=8, node_limit=4, tokens_per_rank=200, placement="block")
    node = np.arange(64) // 8
    between = sent[node[:, None] != node[None, :]].sum() / (64 * 200 * 7392.0)
    assert between == pytest.approx(3.62901092 * 7 / 8, rel=0.02)


def test_skew_and_copies():
    shares = moe.zipf_shares(256, 0.6)

    def busiest(**more):
        got = matrix(ranks=32, shares=shares, tokens_per_rank=128, **more).sum(0)
        return got.max() / got.mean()

    plain, packed = busiest(placement="block"), busiest()
    helped = busiest(redundant=32)
    assert plain > 3
    assert packed < plain / 2
    assert helped < packed


def test_shared_experts_with_slots():
    """320 ranks with one slot each: 256 routed, 32 shared, 32 redundant."""
    sent = matrix(ranks=320, tokens_per_rank=8, redundant=32, shared=32, message_B=1.0)
    assert sent.sum(1) == pytest.approx(np.full(320, 8 * 9.0))
    got = sent.sum(0)
    # a shared slot serves ten ranks: 80 tokens; so does a mean routed one
    assert np.sort(got)[-1] < 4 * 80
    assert np.count_nonzero(np.isclose((sent > 0).sum(0), 10)) >= 32


def test_large_matrix_is_square_and_finite():
    sent = matrix(ranks=128, tokens_per_rank=32, shares=moe.dirichlet_shares(256, 0.5, seed=1))
    assert sent.shape == (128, 128)
    assert np.isfinite(sent).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ranks": 48}, "256 expert slots do not fill 48 ranks evenly"),
        ({"top_k": 300}, "top_k 300: 256 experts get tokens"),
        ({"once": "node"}, "per_node None: must divide 16 ranks"),
        ({"once": "node", "per_node": 5}, "per_node 5: must divide 16 ranks"),
        ({"node_limit": 3, "per_node": 8}, "node_limit 3: must be 1 to 2"),
        ({"node_limit": 1, "per_node": 1, "top_k": 20}, "fewer than 20 experts"),
    ],
)
def test_errors_of_the_matrix(more, message):
    with pytest.raises(InputError, match=message):
        matrix(**more)


def planned(balance, base=None):
    model = load_model("deepseek-r1")
    return plan_experts(
        model,
        ParallelSpec(ep=32),
        balance,
        ranks=32,
        tokens_per_rank=4096,
        system=load_system("hgx_h800", domains=4, accelerators=32),
        message_B=1.0,
        once_per_domain=False,
        base=base,
    ).imbalance


def test_popularity_of_a_draw():
    even = planned(Balance(model="multinomial"))
    skewed = planned(Balance(model="dirichlet", dirichlet_alpha=0.3))
    assert skewed > even
    assert skewed == planned(Balance(model="dirichlet", dirichlet_alpha=0.3))
    assert skewed != planned(Balance(model="dirichlet", dirichlet_alpha=0.3, draw=1))
    assert planned(Balance(model="dirichlet", dirichlet_alpha=1e6)) == pytest.approx(even, rel=1e-2)


def test_popularity_drifts_until_copies_are_placed_anew():
    skewed = {"model": "zipf", "zipf_exponent": 0.6}
    placed, long_ago = planned(Balance(**skewed)), planned(Balance(**skewed, drift_steps=10_000))
    found = [planned(Balance(**skewed, drift_steps=10_000, rebalance_steps=steps)) for steps in (1, 1000, 10_000)]
    assert found[0] == pytest.approx(placed) and found == sorted(found) and found[-1] < long_ago
    with pytest.raises(ValidationError, match="rebalance_steps: goes with"):
        Balance(**skewed, rebalance_steps=10)
    with pytest.raises(ValidationError, match="drift_steps: goes with"):
        Balance(model="multinomial", drift_steps=10)


def write(path, loads, header="load"):
    path.write_text("\n".join([header, *map(str, loads)]) + "\n", encoding="utf-8")
    return path


def test_popularity_from_a_file(tmp_path):
    loads = 1000 * moe.zipf_shares(256, 0.4)
    write(tmp_path / "loads.csv", loads)
    from_file = planned(Balance(model="file", file="loads.csv"), tmp_path)
    assert from_file == pytest.approx(planned(Balance(model="zipf", zipf_exponent=0.4)))


@pytest.mark.parametrize(
    ("loads", "header", "message"),
    [
        ([1] * 255, "load", "255 loads; the model has 256 routed experts"),
        ([1] * 255 + [-1], "load", r"loads.csv:257: load: must be a number, 0 or more, got -1"),
        ([1] * 255 + ["many"], "load", "got many"),
        ([0] * 256, "load", "all loads are 0"),
        ([1] * 256, "laod", "no column 'load'. Did you mean 'laod'?"),
    ],
)
def test_errors_of_a_file(tmp_path, loads, header, message):
    write(tmp_path / "loads.csv", loads, header)
    with pytest.raises(InputError, match=message):
        planned(Balance(model="file", file="loads.csv"), tmp_path)


def test_a_file_must_be_there_and_be_asked_for(tmp_path):
    with pytest.raises(InputError, match="no such file: absent"):
        planned(Balance(model="file", file="absent.csv"), tmp_path)
    with pytest.raises(ValidationError, match="goes with"):
        Balance(model="file")
    with pytest.raises(ValidationError, match="goes with"):
        Balance(model="zipf", file="loads.csv")
