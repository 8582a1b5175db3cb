"""A service by event is the service step by step, and loses nobody: over many small services drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim.requests import Prefix
from cmsim.serving import measure
from cmsim.serving.book import OUTCOMES
from cmsim.serving.costs import Costs, Host, Plain, Told
from cmsim.serving.holder import Limits
from cmsim.serving.pools import Moves, Pool
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Service

COLUMNS = ("arrival", "scheduled", "prefilled", "moved", "end", "generated", "again", "holder", "cached", "outcome")


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

    host = Host(float(draw.choice([0, 4e-3])), 1e-5, alone=bool(draw.random() < 0.3))
    return Told(decode, passes, least=16, host=host, idle_W=(1.0, 2.0, 3.0), accepted=float(draw.choice([1, 1.7])))


def drawn(seed: int) -> tuple[Questions, list[Pool], dict, Moves]:
    """A service: what it is asked, its pools, its rules."""
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
        limits = Limits(int(draw.integers(sequences + 1, 300)), sequences, blocks, block, int(draw.integers(0, 3)))
        cached = int(draw.choice([0, 320]))
        return Pool(costs(draw), limits, int(draw.integers(1, 4)), int(draw.integers(1, 4)), cached=cached)

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
    return asked, pools, rules, Moves((10**6, 10**5), 8, 10**6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_jump_is_its_steps_to_the_picosecond(seed):
    asked, pools, rules, moves = drawn(seed)
    one, other = (Service(asked, pools, Rules(**rules, singly=singly), moves).run() for singly in (False, True))
    for name in COLUMNS:
        assert (one.book.column(name) == other.book.column(name)).all(), name
    assert one.end_ps == other.end_ps and one.area_ps == other.area_ps
    assert measure.itl(one.pools[-1]) == pytest.approx(measure.itl(other.pools[-1]))
    replicas = [[replica for pool in served.pools for replica in pool] for served in (one, other)]
    assert measure.joules(replicas[0]) == pytest.approx(measure.joules(replicas[1]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_is_lost(seed):
    asked, pools, rules, moves = drawn(seed)
    served = Service(asked, pools, Rules(**rules), moves).run()
    measure.check(served)  # everybody ends once, Little's law, no block is left
    book = served.book
    outcome = book.column("outcome")
    made = book.column("generated")
    tokens = resumed = 0
    for replica in (one for pool in served.pools for one in pool):
        jumps = np.array(replica.record.jumps).reshape(-1, 4)
        tokens += int((jumps[:, 2] * jumps[:, 3]).sum()) + int(
            np.array(replica.record.mixed).reshape(-1, 2)[:, 1].sum()
        )
        resumed += len(replica.record.gaps)
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
