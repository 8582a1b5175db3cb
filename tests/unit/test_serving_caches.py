"""Caches of beginnings: which blocks stay, a pool of them that holders share, and what fetching costs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import cmsim
from cmsim.errors import InputError
from cmsim.requests import Prefix
from cmsim.serving import measure
from cmsim.serving.costs import Plain
from cmsim.serving.holder import Limits
from cmsim.serving.pooled import Pooled, Tiers
from cmsim.serving.pools import Pool
from cmsim.serving.prefixes import Beginnings
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Service
from cmsim.serving.shelves import shelf
from cmsim.serving.transfers import Wires
from cmsim.units import PS_PER_S

MS = 10**9
ENDLESS = 1 << 40


def zipf(count: int, seed: int = 0) -> list[int]:
    shares = 1 / np.arange(1, 301)
    return np.random.default_rng(seed).choice(300, count, p=shares / shares.sum()).tolist()


@pytest.mark.parametrize("room", [1, 7, 50, 299])
def test_recent_is_what_stack_distances_say(room):
    """A block is there where fewer than ``room`` others were used since (Mattson et al., 1970): exact."""
    kept, used = shelf("lru", room), zipf(3000)
    stack: list[int] = []
    for block in used:
        near = block in stack and len(stack) - 1 - stack.index(block) < room
        assert (block in kept) == near
        kept.use(block)
        if block in stack:
            stack.remove(block)
        stack.append(block)
    assert len(kept) == min(room, len(stack))


@pytest.mark.parametrize("room", [1, 7, 50])
def test_frequent_is_what_counting_says(room):
    kept, counts, since = shelf("lfu", room), Counter(), {}
    for at, block in enumerate(zipf(3000)):
        assert (block in kept) == (block in counts)
        if block not in counts and len(counts) == room:
            gone = min(counts, key=lambda one: (counts[one], since[one]))
            assert kept.use(block) == gone
            del counts[gone]
        else:
            assert kept.use(block) is None
        counts[block] += 1
        since[block] = at


def test_what_goes_from_memory_is_on_drives():
    pooled = Pooled(Wires(()), 1.0, memory=32, drives=32)
    tiers = Tiers(pooled, Beginnings(Prefix(np.array([0, 2, 4, 5, 6]), np.array([1, 2, 3, 4, 1, 5]))), 16)
    assert tiers.found(0, 0, 100) == (0, 0) and tiers.news(0) == 32
    tiers.put(0)
    assert tiers.found(0, 0, 100) == (32, 0) and tiers.news(0) == 0
    tiers.put(1)
    assert tiers.found(0, 0, 100) == (0, 32)  # and come back to memory
    assert tiers.found(0, 0, 100) == (32, 0) and tiers.found(0, 1, 100) == (16, 0) and tiers.found(0, 0, 20) == (20, 0)
    tiers.put(3)
    assert tiers.news(2) == 0 and tiers.found(2, 0, 5) == (5, 0)
    assert (tiers.asked, tiers.from_drives) == (13, 2)


class PromptsAlone(Plain):
    """Steps have prompts or sequences that decode, not both."""

    alone = True


def served(arrival_s, blocks, *, sizes, wires, memory=1 << 20, drives=0, costs=Plain, **pool):
    """Prompts of 40 tokens, blocks of 16."""
    count = len(sizes)
    prefix = Prefix(np.concatenate([[0], np.cumsum(sizes)]), np.array(blocks))
    arrival_ps = np.rint(np.array(arrival_s) * PS_PER_S).astype(np.int64)
    questions = Questions(np.full(count, 40), np.ones(count, int), arrival_ps, prefix, 16)
    one = Pool(costs(MS, MS), Limits(ENDLESS, 8, ENDLESS), 2, **pool)
    out = Service(questions, [one], Rules(routing="round_robin"), None, Pooled(wires, 1e6, memory, drives)).run()
    measure.check(out)
    return out


def ttft_ms(out):
    return (out.book.column("prefilled") - out.book.column("arrival")) / MS


#: two holders with ports of their own, a pool of 1 GB/s with drives of half of that
PORTS = Wires(
    (1e10, 1e10, 1e9, 5e8, 1e12),
    put=(((4, 1.0),),) * 2,
    got=(((0, 1.0),), ((1, 1.0),)),
    tiers=(((2, 1.0),), ((2, 1.0), (3, 1.0))),
    kept=((4, 1.0),),
)


@pytest.mark.parametrize("costs", [Plain, PromptsAlone])
def test_what_others_computed_is_fetched(costs):
    out = served([0, 1, 2], [1, 2, 3, 1, 2, 4, 1, 2, 3], sizes=[3, 3, 3], wires=PORTS, costs=costs)
    assert out.book.column("cached").tolist() == [0, 32, 39] and out.book.column("holder").tolist() == [0, 1, 0]
    assert (out.book.column("scheduled") == out.book.column("arrival")).all()
    # a megabyte a token over a gigabyte a second, while 8 tokens and one are computed
    assert ttft_ms(out) == pytest.approx([40, 32, 39], rel=1e-6)
    assert out.tiers.hit == 5 and out.tiers.asked == 9
    # what was fetched, and the blocks that were new
    assert out.moved_B == pytest.approx((32 + 39 + 48 + 16) * 1e6)


def test_who_fetches_at_once_shares():
    out = served([0, 1, 1], [1, 2, 3, 1, 2, 4, 1, 2, 5], sizes=[3, 3, 3], wires=PORTS)
    assert ttft_ms(out) == pytest.approx([40, 64, 64], rel=1e-6)
    quick = Wires((1e12,) * 5, put=PORTS.put, got=PORTS.got, tiers=PORTS.tiers, kept=PORTS.kept)
    # where links are quick what is computed counts
    assert ttft_ms(served([0, 1], [1, 2, 3, 1, 2, 4], sizes=[3, 3], wires=quick)) == pytest.approx([40, 8])


def test_drives_are_slower():
    out = served([0, 1], [1, 2, 3, 1, 2, 4], sizes=[3, 3], wires=PORTS, memory=0, drives=1 << 20)
    assert ttft_ms(out)[1] == pytest.approx(64, rel=1e-6)
    assert out.tiers.from_drives == 2


def test_what_a_holder_has_is_not_fetched():
    out = served([0, 1, 2], [1, 2, 3, 9, 9, 9, 1, 2, 3], sizes=[3, 3, 3], wires=PORTS, cached=32)
    assert out.book.column("cached").tolist() == [0, 0, 39] and out.moved_B == pytest.approx((48 + 48 + 7) * 1e6)


TURNS = {
    "kind": "serving",
    "model": "llama-3.1-8b",
    "arrivals": {"process": "poisson", "rate_per_s": 20, "requests": 60},
    "lengths": {"prompt_tokens": 512, "output_tokens": 32},
    "turns": {"count": 4, "think_s": 0.5},
    "parallel": {"tp": 1},
    "replicas": 4,
    "accelerators": 1,
    "batching": {"step_tokens": 1024, "sequences": 32},
}


def test_a_scenario_has_a_pool_of_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path))
    found = {}
    for over in (None, "scale_up", "host"):
        pool = {} if over is None else {"cache_pool": {"memory_GB": 100, "over": over}}
        (one,) = cmsim.run({"systems": ["hgx_h100"], "workload": TURNS | pool})
        found[over] = one.metrics
        assert ("pool_hit_fraction" in one.metrics) == (over is not None)
    assert found["host"]["pool_hit_fraction"] > 0.3 and found["host"]["moved_Bps"] > 0
    # a cache comes while what is new is computed
    assert found["scale_up"]["ttft_s_p50"] <= found["host"]["ttft_s_p50"] < found[None]["ttft_s_p50"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": None, "cache_pool": {"memory_GB": 1}}, "cache_pool: requests do not say what their prompts share"),
        ({"cache_pool": {"memory_GB": 1, "drives_GB": 1}}, "drives_GB, drives_GBps: both or none"),
        ({"cache_pool": {"memory_GB": 1, "evict": "fifo"}}, "evict"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(InputError, match=message):
        cmsim.run({"systems": ["hgx_h100"], "workload": TURNS | changes})
