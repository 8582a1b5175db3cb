"""A service by event is the service step by step, and loses nobody: over many small services drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim.requests import Prefix
from cmsim.serving import measure, upkeep
from cmsim.serving.book import OUTCOMES
from cmsim.serving.costs import Costs, Host, Plain, Told
from cmsim.serving.holder import Limits
from cmsim.serving.outages import Outage
from cmsim.serving.pooled import Pooled
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.serving.scaling import Scaling
from cmsim.serving.service import Rules, Service
from cmsim.serving.transfers import Moves, Wires
from cmsim.units import PS_PER_S

COLUMNS = (
    "arrival",
    "scheduled",
    "prefilled",
    "moved",
    "end",
    "generated",
    "again",
    "holder",
    "cached",
    "fetched",
    "outcome",
)


def costs(draw: np.random.Generator) -> Costs:
    """Steps of some machine; a host that is slower than it, or not; tokens in twos, or not. Or steps that take
    whole milliseconds, so that much happens at once."""
    if draw.random() < 0.4:
        return Plain(10**9, 10**9)
    a, b, c = draw.uniform(1e-3, 5e-3), draw.uniform(1e-5, 1e-4), draw.uniform(1e-8, 1e-6)

    def decode(sequences, tokens):
        seconds = a + b * sequences + c * sequences * tokens
        return seconds, np.tile(seconds * 100, (3, 1))

    def passes(tokens, length):
        seconds = a + 2e-5 * tokens + 1e-9 * tokens * length
        return seconds, (seconds, seconds, seconds)

    def spared(held, evenness, decodes):
        return held * (1 - evenness) * (5e-6 if decodes else 1e-5)

    host = Host(float(draw.choice([0, 4e-3])), 1e-5, alone=bool(draw.random() < 0.3))
    return Told(
        decode,
        passes,
        least=16,
        host=host,
        idle_W=(1.0, 2.0, 3.0),
        accepted=float(draw.choice([1, 1.7])),
        spared=spared if draw.random() < 0.5 else None,
    )


def wires(draw: np.random.Generator, holders: int) -> Wires:
    """A link for each holder and one for all of them, slow enough that caches meet."""
    every = (2 * holders, 1.0)
    out = tuple(((at, 1.0), every) for at in range(holders))
    into = tuple(((holders + at, 0.5), every) for at in range(holders))
    rates = tuple(draw.choice([1e9, 1e10], 2 * holders).tolist())
    servers = 2 * holders + 1
    tiers = (((servers, 1.0),), ((servers, 1.0), (servers + 1, 1.0)))
    latency_ps = int(draw.choice([0, 10**6]))
    return Wires((*rates, 2e9 * holders, 4e9, 1e9), out, into, out, into, tiers, ((servers, 1.0),), latency_ps)


def drawn(seed: int) -> tuple[Questions, list[Pool], dict, Moves, Pooled | None]:
    """A service: what it is asked, its pools, its rules, how caches move, and a pool of them."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(1, 60))
    prompt, output = draw.integers(1, 200, count), draw.integers(1, 80, count)
    arrival_ps = None
    if draw.random() < 0.6:
        arrival_ps = np.rint(draw.exponential(1, count).cumsum() * draw.choice([1e9, 1e10, 1e11])).astype(np.int64)
        if draw.random() < 0.5:  # some at once, and as steps end
            arrival_ps = arrival_ps // 10**9 * 10**9
    prefix, tokens = None, 0
    if draw.random() < 0.4:
        tokens = 16
        ptr = np.concatenate([[0], np.cumsum(-(-prompt // tokens))])
        prefix = Prefix(ptr, draw.integers(0, 40, ptr[-1]))

    def pool() -> Pool:
        block, sequences = int(draw.choice([4, 16])), int(draw.integers(1, 12))
        blocks = int(draw.integers(200 // block, 1200 // block))
        swap_ps = int(draw.choice([0, 10**7]))
        tokens, gates = int(draw.integers(sequences + 1, 300)), {}
        if draw.random() < 0.4:
            gates = {"whole": True} if draw.random() < 0.5 else {"poll_steps": int(draw.integers(2, 9))}
            if draw.random() < 0.5:
                gates = {"gather_steps": int(draw.integers(1, 9)), "gather_tokens": int(draw.integers(1, tokens))}
        if draw.random() < 0.3:
            gates["answers"] = True
        limits = Limits(tokens, sequences, blocks, block, int(draw.integers(0, 3)), swap_ps, **gates)
        cached = int(draw.choice([0, 320]))
        replicas, scaling = int(draw.integers(1, 4)), None
        if draw.random() < 0.3:
            every_ps, load_ps = int(draw.choice([10**9, 10**11])), int(draw.choice([0, 10**10, 10**12]))
            scaling = Scaling(1, float(draw.choice([0.5, 3])), every_ps, load_ps, bool(draw.random() < 0.5))
        return Pool(costs(draw), limits, replicas, int(draw.integers(1, 4)), cached=cached, scaling=scaling)

    pools = [pool() for _ in range(2 if draw.random() < 0.4 else 1)]
    rules = {
        "routing": str(draw.choice(["round_robin", "least_loaded", "prefix_aware"])),
        "patience_ps": None if draw.random() < 0.5 else int(draw.choice([10**10, 10**11, 10**12])),
        "door_ps": int(draw.choice([0, 10**10])),
    }
    asked = Questions(prompt, output, arrival_ps, prefix, tokens, users=int(draw.integers(1, 20)))
    if arrival_ps is not None and draw.random() < 0.3:  # every second one is what is said after the one before it
        later = np.arange(count) % 2 == 1
        then = np.where(~later & (np.arange(count) + 1 < count), np.arange(count) + 1, -1)
        think_ps = draw.integers(0, 10**11, count)
        asked = replace(asked, arrival_ps=np.where(later, -1, arrival_ps), then=then, think_ps=think_ps)
    if draw.random() < 0.5:
        asked = replace(asked, priority=draw.integers(0, 3, count))
    if draw.random() < 0.4:
        asked = replace(asked, quits_ps=np.where(draw.random(count) < 0.5, -1, draw.integers(0, 10**12, count)))
    moves = Moves(wires(draw, sum(one.holders * one.replicas for one in pools)), 1e6, 8)
    pooled = None
    if prefix is not None and draw.random() < 0.6:
        evict = str(draw.choice(["lru", "lfu"]))
        pooled = Pooled(moves.wires, 1e6, int(draw.choice([64, 640])), int(draw.choice([0, 320])), evict)  # type: ignore[arg-type]
    if arrival_ps is None and draw.random() < 0.5:
        asked = replace(asked, gap_ps=int(draw.choice([10**9, 10**11])))
    return asked, pools, rules, moves, pooled


@given(st.integers(0, 2**32 - 1))
def test_a_jump_is_its_steps_to_the_picosecond(seed):
    asked, pools, rules, moves, pooled = drawn(seed)
    one, other = (Service(asked, pools, Rules(**rules, singly=singly), moves, pooled).run() for singly in (False, True))
    for name in COLUMNS:
        assert (one.book.column(name) == other.book.column(name)).all(), name
    assert one.moved_B == pytest.approx(other.moved_B)
    for this, that in zip(one.scalers, other.scalers, strict=True):
        assert (None if this is None else this.on) == (None if that is None else that.on)
    if pooled is not None:
        assert (one.tiers.asked, one.tiers.hit) == (other.tiers.asked, other.tiers.hit)
    assert one.end_ps == other.end_ps and one.area_ps == other.area_ps
    assert measure.itl(one.pools[-1]) == pytest.approx(measure.itl(other.pools[-1]))
    edges = np.linspace(0, max(one.end_ps, 1) / PS_PER_S, 20)
    replicas = [[replica for pool in served.pools for replica in pool] for served in (one, other)]
    spent = [upkeep.joules(some) for some in replicas]
    assert spent[0] == pytest.approx(spent[1])
    drawn_W = upkeep.power_W(replicas[0], 0.0, edges)
    assert (drawn_W * np.diff(edges)).sum() == pytest.approx(spent[0][1], rel=1e-6, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_nothing_is_lost(seed):
    asked, pools, rules, moves, pooled = drawn(seed)
    served = Service(asked, pools, Rules(**rules), moves, pooled).run()
    measure.check(served)  # everybody ends once, Little's law, no block is left
    book = served.book
    outcome = book.column("outcome")
    made = book.column("generated")
    tokens = resumed = 0
    for replica in (one for pool in served.pools for one in pool):
        jumps = np.array(replica.record.jumps).reshape(-1, 6)
        tokens += int((jumps[:, 2] * jumps[:, 3]).sum()) + int(
            np.array(replica.record.mixed).reshape(-1, 3)[:, 1].sum()
        )
        resumed += len(replica.record.gaps)
        assert len(replica.record.jumps) % 6 == 0 and len(replica.record.mixed) == len(replica.record.joules)
        for holder in replica.holders:
            assert not holder.decoding and not holder.prefilling and not holder.offsets
            assert all(outcome[one] for one in holder.waiting)
    # first tokens come of prompts, as do those after a preemption; all others of steps
    firsts = int((book.column("prefilled") >= 0).sum())
    assert tokens == made.sum() - firsts - resumed
    done = outcome == OUTCOMES.index("done")
    assert (made[done] == asked.output[done]).all() and (made <= asked.output).all()
    for first, then in (("arrival", "scheduled"), ("scheduled", "prefilled"), ("prefilled", "end")):
        assert (book.column(first)[done] <= book.column(then)[done]).all()
    end = served.end_ps
    assert (book.column("end") <= end).all()
    columns = measure.Load.of(book, end).columns
    assert columns["arrived"].sum() == len(asked) and columns["served"].sum() == done.sum()
    stages = measure.frame(book)
    total = sum(stages[name] for name in ("waited_s", "prefill_s", "moved_s", "decode_s"))
    assert total == pytest.approx(stages["e2e_s"])


def failing(seed: int) -> tuple[Questions, list[Pool], dict, Moves, Pooled | None]:
    """A service of which replicas are lost and come back, or whose fabric has a fault for a time."""
    asked, pools, rules, moves, pooled = drawn(seed)
    draw = np.random.default_rng([seed, 1])
    pools = [replace(pool, scaling=None) for pool in pools]
    pools = [
        replace(pool, costs=pool.costs.faulty(1.5, 2.0)) if isinstance(pool.costs, Told) else pool for pool in pools
    ]
    last_ps = 10**12 if asked.arrival_ps is None else max(int(asked.arrival_ps.max()), 10**9)
    outages = []
    for _ in range(int(draw.integers(1, 5))):
        at_ps = int(draw.integers(0, 2 * last_ps))
        if draw.random() < 0.5:
            at_ps = at_ps // 10**9 * 10**9
        back_ps = at_ps + int(draw.choice([10**9, 10**11, 10**12]))
        if draw.random() < 0.3 and all(not isinstance(pool.costs, Plain) for pool in pools):
            outages.append(Outage(at_ps, back_ps, "", links=3.0))
            continue
        every = [(at, number) for at, pool in enumerate(pools) for number in range(pool.replicas)]
        hit = draw.permutation(len(every))[: int(draw.integers(1, len(every) + 1))]
        outages.append(Outage(at_ps, back_ps, "", tuple(every[one] for one in hit)))
    moves = replace(moves, wires=replace(moves.wires, ports=frozenset(range(3))))
    pooled = None if pooled is None else replace(pooled, wires=moves.wires)
    return asked, pools, {**rules, "outages": tuple(outages), "drops": bool(draw.random() < 0.3)}, moves, pooled


@given(st.integers(0, 2**32 - 1))
def test_what_fails_is_tried_again_and_nobody_is_lost(seed):
    asked, pools, rules, moves, pooled = failing(seed)
    one, other = (Service(asked, pools, Rules(**rules, singly=singly), moves, pooled).run() for singly in (False, True))
    for served in (one, other):
        measure.check(served)
    for name in (*COLUMNS, "tries", "lost"):
        assert (one.book.column(name) == other.book.column(name)).all(), name
    assert one.end_ps == other.end_ps and one.recomputed == other.recomputed
    book = one.book
    outcome, made = book.column("outcome"), book.column("generated")
    assert rules["drops"] or not (outcome == OUTCOMES.index("lost")).any()
    done = outcome == OUTCOMES.index("done")
    assert (made[done] == asked.output[done]).all() and (made <= asked.output).all()
    tokens = resumed = 0
    for replica in (one for pool in one.pools for one in pool):
        tokens += int((np.array(replica.record.jumps).reshape(-1, 6)[:, 2:4].prod(axis=1)).sum())
        tokens += int(np.array(replica.record.mixed).reshape(-1, 3)[:, 1].sum())
        resumed += len(replica.record.gaps)
    assert tokens == made.sum() - int((book.column("prefilled") >= 0).sum()) - resumed
    for line in one.pools:
        for replica in line:
            assert not any(holder.decoding or holder.prefilling or holder.offsets for holder in replica.holders)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_services_beside_each_other_are_their_steps(seed):
    """Two services on one clock, whose caches share links."""
    parts = [drawn(seed), drawn(seed + 1)]
    holders = [sum(pool.holders * pool.replicas for pool in pools) for _, pools, _, _, _ in parts]
    ends = wires(np.random.default_rng(seed), sum(holders))
    found = []
    for singly in (False, True):
        services: list[Service] = []
        for asked, pools, rules, _, _ in parts:
            before = services[-1] if services else None
            services.append(Service(asked, pools, Rules(**rules, singly=singly), Moves(ends, 1e6, 8), None, before))
        for service in services:
            service.begin()
        services[0].env.run()
        found.append([service.served() for service in services])
    for one, other in zip(*found, strict=True):
        measure.check(one)
        for name in COLUMNS:
            assert (one.book.column(name) == other.book.column(name)).all(), name
        assert one.end_ps == other.end_ps and one.area_ps == other.area_ps
    numbers = [{*served.book.column("holder").tolist()} - {-1} for served in found[0]]
    assert not numbers[0] & numbers[1] and all(number < holders[0] for number in numbers[0])
