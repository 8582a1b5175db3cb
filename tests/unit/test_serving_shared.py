"""What sequences share is held once: room, eviction, reads; users who send in even times; drafts and their host."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.hardware import ServingTuning
from cmsim.kinds.decode import Speculative
from cmsim.requests import Prefix
from cmsim.serving import measure
from cmsim.serving.costs import Host, Plain, Told
from cmsim.serving.holder import Limits
from cmsim.serving.plans import host_of
from cmsim.serving.pools import Pool
from cmsim.serving.prefixes import Beginnings, Prefixes
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Service
from cmsim.workload.model import load_model

MS = 10**9
ENDLESS = 1 << 40
BLOCK = 16


def served(
    shared,
    arrival_ms,
    *,
    blocks,
    prompt=96,
    output=8,
    cached=ENDLESS,
    costs=None,
    sequences=8,
    tokens=BLOCK,
    warm=False,
):
    """Prompts of 96 tokens; ``shared``: blocks of each that others have too, by their numbers."""
    count = len(shared)
    ptr = np.concatenate([[0], np.cumsum([len(one) for one in shared])])
    prefix = Prefix(ptr, np.array([block for one in shared for block in one], np.int64))
    questions = Questions(
        np.full(count, prompt), np.full(count, output), np.array(arrival_ms) * MS, prefix if cached else None, BLOCK,
        warm=warm,
    )  # fmt: skip
    pool = Pool(costs or Plain(MS, 0), Limits(ENDLESS, sequences, blocks, tokens), cached=cached)
    out = Service(questions, [pool], Rules()).run()
    measure.check(out)
    return out


def begun_ms(out):
    return (out.book.column("scheduled") / MS).tolist()


@pytest.mark.parametrize("tokens", [4, 8, 16])
def test_a_beginning_takes_room_once(tokens):
    """Of seven blocks each five are shared: nine hold two sequences, where they would hold one."""
    of_cache = BLOCK // tokens
    alike = [range(5)] * 3
    out = served(alike, [0, 1, 2], blocks=9 * of_cache, tokens=tokens)
    assert begun_ms(out)[:2] == [0, 1] and out.book.column("cached").tolist() == [0, 80, 80]
    assert tokens < BLOCK or begun_ms(out)[2] > 2, "a third one has no room"
    alone = served(alike, [0, 1, 2], blocks=9 * of_cache, tokens=tokens, cached=0)
    assert begun_ms(alone)[1] > 2
    assert (out.book.column("end") <= alone.book.column("end")).all()


def test_blocks_of_another_size_are_held_by_each():
    out = served([range(5)] * 2, [0, 1], blocks=10, tokens=12)
    assert out.book.column("cached").tolist() == [0, 80] and begun_ms(out)[1] > 1


def test_what_nobody_has_goes_where_sequences_lack_room():
    """A second beginning takes the place of the first, which the third then has to compute anew; with room for both it
    is there."""
    sets = [range(5), range(10, 15), range(5)]
    tight, wide = (served(sets, [0, 100, 200], blocks=blocks) for blocks in (8, 14))
    assert tight.book.column("cached").tolist() == [0, 0, 16 * 1]  # of five blocks the first is used last
    assert wide.book.column("cached").tolist() == [0, 0, 80]
    few = served(sets, [0, 100, 200], blocks=14, cached=32)
    assert few.book.column("cached").tolist() == [0, 0, 0]


def test_what_others_asked_before_is_there():
    assert served([range(5)] * 2, [0, 1], blocks=20, warm=True).book.column("cached").tolist() == [80, 80]
    assert served([range(5)] * 2, [0, 1], blocks=4, prompt=40, warm=True).book.column("cached").tolist()[0] == 39


def test_each_sequence_reads_all_that_it_sees():
    """Room is shared, reads are not: the times of tokens are those of sequences that share nothing."""

    def decode(sequences, tokens):
        seconds = 1e-3 + 1e-6 * sequences * tokens
        return seconds, np.tile(seconds, (3, 1))

    costs = [
        Told(decode, lambda tokens, _: (1e-3, (0.0, 0.0, 0.0)), least=16, host=Host(), idle_W=(0.0, 0.0, 0.0))
        for _ in range(2)
    ]
    one, other = (
        served([range(5)] * 4, [0, 0, 0, 0], blocks=ENDLESS, cached=cached, costs=cost)
        for cached, cost in zip((ENDLESS, 0), costs, strict=True)
    )
    assert (one.book.column("end") - one.book.column("prefilled")).tolist() == (
        other.book.column("end") - other.book.column("prefilled")
    ).tolist()


def test_load_counts_what_is_shared_once():
    out = served([range(5)] * 2, [0, 0], blocks=ENDLESS, output=200)
    (holder,) = out.pools[0][0].holders
    load = measure.Load.of(out.book, out.end_ps, measure.rows(holder.prefixes.twice, 2)).columns["cached_tokens"]
    plain = measure.Load.of(out.book, out.end_ps).columns["cached_tokens"]
    assert (plain - load)[:-1] == pytest.approx(80) and holder.prefixes.again == 80
    # what is counted twice is so no longer when one of the two has left
    assert sum(measure.rows(holder.prefixes.twice, 2)[:, 1].tolist()) == 0


def test_a_block_is_there_until_the_last_one_leaves():
    cache = Prefixes(Beginnings(Prefix(np.array([0, 2, 4]), np.array([1, 2, 1, 3]))), BLOCK, 1, [32, 40])
    assert cache.take(0, 0) == (0, 2, 2) and cache.take(1, 0) == (16, 2, 1) and cache.others(0) == 2
    cache.keep(0)
    assert cache.give(0, 1) == 1 and cache.known(1) == 2
    assert cache.give(1, 2) == 2 and cache.known(0) == 1, (
        "room for one: of those that nobody has the first is used last"
    )
    cache.clear(3)
    assert cache.known(0) == 0 and cache.others(0) == 0


def test_users_send_in_even_times():
    def arrivals_ms(users, output):
        prompt = np.full(5, 8)
        asked = Questions(prompt, np.full(5, output), None, users=users, gap_ps=100 * MS)
        out = Service(asked, [Pool(Plain(MS, 0), Limits(ENDLESS, 8, ENDLESS))], Rules()).run()
        measure.check(out)
        return np.rint(out.book.column("arrival") / MS).tolist()

    assert arrivals_ms(2, 10) == [0, 100, 200, 300, 400]
    # who waits for an answer sends late, and does not catch up before its time
    assert arrivals_ms(1, 151) == [0, 150, 300, 450, 600]
    assert arrivals_ms(5, 1000) == [0, 100, 200, 300, 400]


def test_drafts_of_one_pass_and_their_host():
    chain = Speculative(draft_tokens=3, acceptance=[0.9, 0.8, 0.5])
    block = Speculative(draft_tokens=3, acceptance=[0.9, 0.8, 0.5], at_once=True)
    assert (
        chain.passes == (1, 1, 1) and block.passes == (3,) and chain.accepted == block.accepted == pytest.approx(2.98)
    )
    with pytest.raises(ValueError, match="at_once: goes without `tree`"):
        Speculative(tree=[2, 2], acceptance=0.5, siblings=0.2, at_once=True)
    model = load_model("qwen3-32b")
    engine = ServingTuning(step_us=1000, draft_us=500, layer_us=100)
    assert host_of(engine, model, 1).drafts_s == 0
    assert host_of(engine, model, 1, chain).drafts_s == pytest.approx(1.5e-3)
    assert host_of(engine, model, 1, block).drafts_s == pytest.approx(0.5e-3)
    # the device waits for the host that issues them
    told = [
        Told(lambda _, tokens: (np.full(len(tokens), 4e-3), np.zeros((3, len(tokens)))), lambda *_: (0.0, (0.0,) * 3),
             least=16, host=host_of(engine, model, 1, drafts), idle_W=(0.0,) * 3, accepted=2.0)
        for drafts in (None, chain)
    ]  # fmt: skip
    assert [one.row(1).upto(1)[1] for one in told] == [2 * MS, 2.75 * MS]
    eager = engine.model_copy(update={"graphs": False})
    assert host_of(eager, model, 1).step_s == host_of(eager, model, 1).prompts_s == pytest.approx(model.layers * 1e-4)
