"""Every algorithm of the table told twice: its sends, played on an uncontended network, give its formula back."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.collectives import ALGORITHMS, Algorithm, time_s

RANKS = [*range(1, 18), 32, 48, 64]
SIZE_B = 1.0e6
ALPHA_S = 3e-6
BANDWIDTH_BPS = 7e10

CASES = [
    pytest.param(algorithm, p, id=f"{algorithm.collective}-{algorithm.name}-{p}")
    for algorithm in ALGORITHMS
    for p in RANKS
    if np.all(algorithm.applies(p)) and (algorithm.collective != "send_recv" or p <= 2)
]


def port_B(round_, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes out of and into every rank; the switch, rank p, has no port of its own."""
    source, target, size = round_[:, 0].astype(int), round_[:, 1].astype(int), round_[:, 2]
    out = np.bincount(source, size, minlength=ranks + 1)[:ranks]
    into = np.bincount(target, size, minlength=ranks + 1)[:ranks]
    return out, into


def play_s(algorithm: Algorithm, ranks: int) -> float:
    """Rounds one after the other, each as long as its busiest port."""
    total = 0.0
    for round_ in algorithm.rounds(ranks, SIZE_B):
        out, into = port_B(round_, ranks)
        total += ALPHA_S + max(out.max(), into.max()) / BANDWIDTH_BPS
    return total


@pytest.mark.parametrize(("algorithm", "ranks"), CASES)
def test_playing_the_rounds_gives_the_formula(algorithm, ranks):
    formula = time_s(algorithm, ranks, size_B=SIZE_B, alpha_s=ALPHA_S, bandwidth_Bps=BANDWIDTH_BPS)
    if algorithm.name == "expert" and ranks > 1:
        # its coefficient of alpha is fitted, not a count of rounds: one round, all pairs at once
        formula += (1 - algorithm.steps(ranks)) * ALPHA_S
    assert play_s(algorithm, ranks) == pytest.approx(formula, rel=1e-9)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: f"{a.collective}-{a.name}")
def test_one_rank_costs_nothing(algorithm):
    assert algorithm.rounds(1, SIZE_B) == []
    assert time_s(algorithm, 1, size_B=SIZE_B, alpha_s=1.0, bandwidth_Bps=1.0, gamma_s_per_B=1.0) == 0
    assert algorithm.outside(1, 1) == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: f"{a.collective}-{a.name}")
def test_columns_and_numbers_agree(algorithm):
    ranks = np.array([p for p in RANKS if np.all(algorithm.applies(p))])
    for coefficient in (algorithm.steps, algorithm.sent, algorithm.reduced):
        assert np.broadcast_to(coefficient(ranks), ranks.shape) == pytest.approx(
            [float(coefficient(p)) for p in ranks.tolist()], rel=1e-12
        )
    for block in (1, 2, 8):
        column = algorithm.outside(ranks, np.full(ranks.shape, block))
        assert column == pytest.approx([float(algorithm.outside(p, block)) for p in ranks.tolist()], rel=1e-12)


@pytest.mark.parametrize(("algorithm", "ranks"), CASES)
def test_what_leaves_a_block_is_what_the_rounds_send_out_of_it(algorithm, ranks):
    """The busiest block's bytes over all rounds, in its busier direction, per rank of the block."""
    rounds = algorithm.rounds(ranks, SIZE_B)
    for block in (b for b in range(1, ranks + 1) if ranks % b == 0):
        # the switch belongs to no block smaller than the group
        home = np.append(np.arange(ranks) // block, 0 if block == ranks else -1)
        total = np.zeros((2, ranks // block))
        for round_ in rounds:
            crossing = round_[home[round_[:, 0].astype(int)] != home[round_[:, 1].astype(int)]]
            total += np.stack([side.reshape(-1, block).sum(axis=1) for side in port_B(crossing, ranks)])
        played = total.max() / block / SIZE_B
        outside, sent = float(algorithm.outside(ranks, block)), float(algorithm.sent(ranks))
        if (algorithm.collective, algorithm.name) == ("all_reduce", "halving_doubling") and ranks & (ranks - 1):
            # its page counts every byte as leaving where ranks are folded
            assert played * (1 - 1e-9) <= outside
            assert outside == (sent if block < ranks else 0)
        else:
            assert outside == pytest.approx(played, rel=1e-9, abs=1e-12)
        assert outside <= sent * (1 + 1e-12)


# --- the rounds deliver ------------------------------------------------------------------------------------------


def start(collective: str, p: int, parts: int) -> list[dict[int, int]]:
    """What every rank holds: block -> the set, as bits, of ranks whose contribution is in it."""
    if collective in ("all_reduce", "reduce_scatter", "reduce"):
        return [dict.fromkeys(range(parts), 1 << r) for r in range(p)]
    if collective in ("all_gather", "gather"):
        return [{r: 1 << r} for r in range(p)]
    if collective in ("broadcast", "scatter", "send_recv"):
        return [dict.fromkeys(range(parts), 1) if r == 0 else {} for r in range(p)]
    return [{r * p + d: 1 << r for d in range(p)} for r in range(p)]  # all_to_all, dispatch, combine


def wanted(collective: str, p: int, parts: int) -> list[dict[int, int]]:
    """What every rank must hold at the end; it may hold more."""
    everybody = (1 << p) - 1
    whole = dict.fromkeys(range(parts), everybody)
    if collective == "all_reduce":
        return [whole] * p
    if collective == "reduce_scatter":
        return [{r: everybody} for r in range(p)]
    if collective == "reduce":
        return [whole, *[{}] * (p - 1)]
    if collective == "all_gather":
        return [{b: 1 << b for b in range(p)}] * p
    if collective == "gather":
        return [{b: 1 << b for b in range(p)}, *[{}] * (p - 1)]
    if collective in ("broadcast", "send_recv"):
        return [dict.fromkeys(range(parts), 1)] * p
    if collective == "scatter":
        return [{r: 1} for r in range(p)]
    return [{o * p + r: 1 << o for o in range(p)} for r in range(p)]


def deliver(held: list[dict[int, int]], sends, p: int, *, streams: bool) -> None:
    """One round. Ranks send what they held when it began; through switches and pipelines data stream as written."""
    before = held if streams else [dict(one) for one in held]
    for send in sends:
        for block in send.blocks:
            assert block in before[send.src], f"rank {send.src} sends block {block}, which it does not hold"
            payload = before[send.src][block]
            if send.adds:
                already = held[send.dst].get(block, 0)
                assert not already & payload, f"rank {send.dst} would add a contribution to block {block} twice"
                payload |= already
            held[send.dst][block] = payload


@pytest.mark.parametrize(("algorithm", "ranks"), CASES)
def test_the_rounds_deliver(algorithm, ranks):
    parts, rounds = algorithm.schedule(ranks)
    if algorithm.collective == "barrier":
        heard = [1 << r for r in range(ranks)]
        for sends in rounds:
            before = list(heard)
            for send in sends:
                heard[send.dst] |= before[send.src]
        assert all(who == (1 << ranks) - 1 for who in heard)
        return
    held = [*start(algorithm.collective, ranks, parts), {}]
    for sends in rounds:
        deliver(held, sends, ranks, streams=algorithm.in_network or algorithm.pipelined)
    for rank, (has, needs) in enumerate(zip(held, wanted(algorithm.collective, ranks, parts), strict=False)):
        assert {block: has.get(block) for block in needs} == needs, f"rank {rank}"


def test_the_delivery_test_sees_a_wrong_send():
    (algorithm,) = (a for a in ALGORITHMS if (a.name, a.collective) == ("ring", "reduce_scatter"))
    parts, rounds = algorithm.schedule(4)
    held = start("reduce_scatter", 4, parts)
    deliver(held, rounds[0], 4, streams=False)
    with pytest.raises(AssertionError, match="twice"):
        deliver(held, rounds[0], 4, streams=False)
