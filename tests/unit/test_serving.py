"""A service under load: the engine against queueing theory, schedulers and caches by hand, scenarios and errors."""

from __future__ import annotations

import csv
import dataclasses
import heapq
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.hardware import load_system
from cmsim.kinds.serving import PoolSpec, SloSpec
from cmsim.requests import Prefix
from cmsim.serving import capacity, draw, measure
from cmsim.serving.blocks import PagedCache
from cmsim.serving.costs import Host, Plain, StepRow, Told
from cmsim.serving.goodput import sought
from cmsim.serving.holder import Limits
from cmsim.serving.least import least_machine
from cmsim.serving.played import PlayedSteps
from cmsim.serving.pools import Pool
from cmsim.serving.prefixes import Beginnings, Prefixes
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Served, Service
from cmsim.serving.transfers import Moves, Wires
from cmsim.steps import between, plays, straight
from cmsim.units import PS_PER_S
from cmsim.workload.model import load_model

MS = 10**9
ENDLESS = 1 << 40
CHECKS = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "model_checks.csv"
SMALL = {
    "kind": "serving",
    "model": "llama-3.1-8b",
    "arrivals": {"process": "poisson", "rate_per_s": 20, "requests": 60},
    "lengths": {"prompt_tokens": 512, "output_tokens": 32, "least": 0.5},
    "parallel": {"tp": 2},
    "accelerators": 2,
    "batching": {"step_tokens": 1024, "sequences": 32},
}


@pytest.fixture(autouse=True)
def _kept(tmp_path_factory, monkeypatch):
    """Steps that are played are kept for this file alone."""
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "steps"))


def scenario(**changes) -> dict:
    return {"systems": ["hgx_h100"], "workload": SMALL | changes}


def asked(prompt, output=1, arrival_s=None, **more) -> Questions:
    prompt = np.atleast_1d(np.asarray(prompt))
    output = np.broadcast_to(np.asarray(output), prompt.shape)
    arrival_ps = None if arrival_s is None else np.rint(np.asarray(arrival_s) * PS_PER_S).astype(np.int64)
    return Questions(prompt, output, arrival_ps, **more)


def run(questions: Questions, pool: Pool, *others: Pool, moves: Moves | None = None, **rules) -> Served:
    served = Service(questions, [pool, *others], Rules(**rules), moves).run()
    measure.check(served)
    return served


def seconds(served: Served, first: str, then: str) -> np.ndarray:
    return (served.book.column(then) - served.book.column(first)) / PS_PER_S


def line(servers: int = 1) -> Pool:
    """One at a time, as long as its prompt: a millisecond a token."""
    return Pool(Plain(MS, MS), Limits(ENDLESS, 1, ENDLESS), servers)


def expected(name: str) -> float:
    with CHECKS.open() as file:
        return next(float(row["expected"]) for row in csv.DictReader(file) if row["id"] == name)


# against queueing theory (models.md 6.5): jobs of one server are prompts, those of many are sequences

JOBS = 100_000
needs_checks = pytest.mark.skipif(not CHECKS.exists(), reason="reference values are not in the package")


@needs_checks
def test_one_server_with_random_work():
    chance = np.random.default_rng(1)
    prompt = np.ceil(chance.exponential(1000, JOBS)).astype(int)
    stays = seconds(run(asked(prompt, 1, np.cumsum(chance.exponential(1 / 0.8, JOBS))), line()), "arrival", "end")[
        2000:
    ]
    assert stays.mean() == pytest.approx(expected("S05"), rel=0.03)
    assert np.quantile(stays, 0.99) == pytest.approx(expected("S10"), rel=0.04)


@needs_checks
def test_one_server_with_equal_work():
    arrival_s = np.cumsum(np.random.default_rng(2).exponential(1 / 0.8, JOBS))
    served = run(asked(np.full(JOBS, 1000), 1, arrival_s), line())
    assert seconds(served, "arrival", "scheduled")[2000:].mean() == pytest.approx(expected("S06"), rel=0.03)
    assert measure.Times.of(served.book, 0.02).ttft.mean() == pytest.approx(expected("S23"), rel=0.03)


def test_one_server_is_lindley_s_recursion():
    """Whatever the work, to the picosecond."""
    chance = np.random.default_rng(3)
    work = np.ceil(chance.lognormal(5, 1.3, 5000)).astype(int)
    arrival_s = np.cumsum(chance.exponential(1.2 * work.mean() / 1000, 5000))
    served = run(asked(work, 1, arrival_s), line())
    arrival_ps, done = served.book.column("arrival"), np.cumsum(work * MS)
    ends = done + np.maximum.accumulate(arrival_ps - (done - work * MS))
    assert (served.book.column("end") == ends).all()


@needs_checks
def test_eight_servers():
    """Each arrival takes the server that is free first (Kiefer and Wolfowitz), to a step of half a millisecond."""
    chance = np.random.default_rng(4)
    output = np.rint(chance.exponential(2000, JOBS // 2)).astype(int) + 2
    arrival_s = np.cumsum(chance.exponential(1 / 6.4, JOBS // 2))
    pool = Pool(Plain(MS // 2, 1), Limits(ENDLESS, 8, ENDLESS))
    waits = seconds(run(asked(np.ones(JOBS // 2, int), output, arrival_s), pool), "arrival", "scheduled")
    free, found = [0.0] * 8, []
    for at, steps in zip(arrival_s.tolist(), (output - 1).tolist(), strict=True):
        begins = max(at, heapq.heappop(free))
        found.append(begins - at)
        heapq.heappush(free, begins + steps * 0.0005)
    assert waits.mean() == pytest.approx(np.mean(found), rel=0.01)
    assert (waits > 1e-3).mean() == pytest.approx(expected("S08"), rel=0.03)


def erlang_c(servers: int, load: float) -> float:
    """Chance to wait, of Poisson arrivals at servers with exponential work."""
    blocked = 1.0
    for many in range(1, servers + 1):
        blocked = load * blocked / (many + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mean"), [("M/M/1", 2.0), ("M/D/1", 1.5), ("M/G/1", 2.625), ("M/M/8", 0.0)])
def test_means_are_those_of_closed_forms(name, mean):
    """models.md 6.5 at half load (of eight servers six tenths): within 1 %. Times are quantiles in random order: chance
    has only the order to say."""
    jobs, chance = 300_000, np.random.default_rng(8)

    def exponential(mean: float) -> np.ndarray:
        return mean * chance.permutation(-np.log1p(-(np.arange(jobs) + 0.5) / jobs))

    if name == "M/M/8":
        output = np.rint(exponential(2000)).astype(int) + 2
        pool = Pool(Plain(MS // 2, 1), Limits(ENDLESS, 8, ENDLESS))
        waits = seconds(
            run(asked(np.ones(jobs, int), output, np.cumsum(exponential(1 / 4.8))), pool), "arrival", "scheduled"
        )
        assert (waits > 1e-3).mean() == pytest.approx(erlang_c(8, 4.8), rel=0.01)
        return
    work = {
        "M/M/1": exponential(1000),
        "M/D/1": np.full(jobs, 1000),
        # one of ten is 5.5 times as long, all others half: mean 1,000, 3.25e6 of squares (Pollaczek and Khinchine)
        "M/G/1": chance.permutation(np.where(np.arange(jobs) < jobs // 10, 5500, 500)),
    }[name]
    stays = seconds(run(asked(np.ceil(work).astype(int), 1, np.cumsum(exponential(2))), line()), "arrival", "end")
    assert stays.mean() == pytest.approx(mean, rel=0.01)


@needs_checks
def test_goodput_of_one_server():
    chance = np.random.default_rng(5)
    prompt = np.ceil(chance.exponential(100, JOBS // 5)).astype(int)
    questions = asked(prompt, 1, np.cumsum(chance.exponential(1, JOBS // 5)), rate_per_s=1.0)
    slo = SloSpec(ttft_s=1, tpot_s=1, attainment=0.9)

    def kept(rate: float) -> bool:
        served = run(draw.faster(questions, rate), line())
        return measure.attainment(served.book, slo) >= slo.attainment

    assert sought(kept, 10.0) == pytest.approx(expected("S22"), rel=0.03)


# steps by hand


def test_a_request_alone():
    served = run(asked(100, 11, [0.5]), Pool(Plain(MS, MS), Limits(64, 4, 64)))
    # two chunks of 64 and 36 tokens, then ten steps
    assert served.book.prefilled[0] == 500 * MS + 100 * MS and served.book.end[0] == served.book.prefilled[0] + 10 * MS
    times = measure.Times.of(served.book)
    assert (times.ttft[0], times.tpot[0], times.e2e[0]) == pytest.approx((0.1, 0.001, 0.11))
    assert measure.itl(served.pools[0])["itl_s_p50"] == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("singly", [False, True])
def test_who_comes_as_a_step_ends_is_in_the_next(singly):
    pool = Pool(Plain(MS, MS), Limits(ENDLESS, 4, ENDLESS))
    served = run(asked([1, 1, 1], [11, 1, 1], [0, 0.005, 0.0085]), pool, singly=singly)
    assert served.book.column("scheduled").tolist() == [0, 5 * MS, 9 * MS]


@pytest.mark.parametrize(("prompt", "chunk", "steps"), [(10000, 2048, 5), (8192, 2048, 4)])
def test_chunks(prompt, chunk, steps):
    """S16, and S17 less half of each chunk: what is read of earlier chunks."""
    pairs = []

    class Watched(Plain):
        def mixed(self, sequences, context, tokens, pairs_, evenness=1.0):
            pairs.append((tokens, pairs_))
            return super().mixed(sequences, context, tokens, pairs_, evenness)

    run(asked(prompt, 1, [0]), Pool(Watched(MS, MS), Limits(chunk, 4, ENDLESS)))
    assert len(pairs) == steps and sum(tokens for tokens, _ in pairs) == prompt
    earlier = sum((seen - tokens * tokens // 2) / tokens for tokens, seen in pairs)
    assert earlier == sum(range(0, prompt, chunk))


def test_users_of_a_closed_loop_ask_again():
    served = run(asked(np.full(40, 10), 5, users=4), Pool(Plain(MS, MS), Limits(ENDLESS, 8, ENDLESS)))
    arrival, end = served.book.column("arrival"), served.book.column("end")
    assert (arrival[:4] == 0).all() and (arrival[4:] > 0).all()
    assert served.area_ps / served.end_ps == pytest.approx(4, rel=1e-6)  # S19: as many as there are users
    assert set(arrival[4:] - 1) <= set(end)


def test_sequences_that_may_be_begun_are_limited():
    served = run(asked(np.full(9, 1), 101, np.zeros(9)), Pool(Plain(MS, 1), Limits(ENDLESS, 3, ENDLESS)))
    assert np.unique(served.book.column("scheduled") // (50 * MS)).tolist() == [0, 2, 4]


def test_who_loses_its_blocks_begins_again():
    pool = Pool(Plain(MS, MS // 1000), Limits(ENDLESS, 8, 8, 4))
    served = run(asked([8, 8], 17, [0, 0]), pool)
    book = served.book
    assert book.column("again").tolist() == [0, 1] and served.pools[0][0].record.preemptions == 1
    assert book.column("outcome").tolist() == [1, 1] and book.column("generated").tolist() == [17, 17]
    assert book.column("scheduled").tolist() == [0, 0] and book.end[1] > book.end[0]


def test_who_loses_its_blocks_comes_back_from_the_host():
    """Eight tokens of a prompt and eight made, there and back at a millisecond a token; nothing is computed again."""
    limits = Limits(ENDLESS, 8, 8, 4, swap_ps=MS)
    served = run(asked([8, 8], 17, [0, 0]), Pool(Plain(MS, MS // 1000), limits))
    book = served.book
    assert book.column("again").tolist() == [0, 1] and book.column("generated").tolist() == [17, 17]
    # a prefill, then steps of a millisecond each; the second one leaves at some step, and comes back at another
    cached = 16 * MS // 1000
    assert (book.end[0] - cached) % MS == 0
    gone_ms = round((book.end[0] - cached) / MS) - 16
    assert gone_ms == 16 and round((book.end[1] - book.end[0]) / MS) == 16 + 8
    assert len(served.pools[0][0].record.gaps) == 0 and len(served.pools[0][0].record.joins) == 1


def test_who_goes_first_is_begun_first():
    questions = asked([100, 10, 10, 10], 1, [0, 0.01, 0.02, 0.03], priority=np.array([1, 1, 0, 1]))
    served = run(questions, line())
    assert served.book.column("scheduled").tolist() == [0, 110 * MS, 100 * MS, 120 * MS]
    # who was begun last loses its place, but for those that go first
    pool = Pool(Plain(MS, MS // 1000), Limits(ENDLESS, 8, 8, 4))
    lost = run(asked([8, 8], 17, [0, 0], priority=np.array([1, 0])), pool).book.column("again")
    assert lost.tolist() == [1, 0]


def test_who_goes_is_gone():
    questions = asked([100, 100, 5], 1, [0, 0, 0], quits_ps=np.array([-1, 150 * MS, 20 * MS]))
    book = run(questions, line()).book
    assert book.column("outcome").tolist() == [1, 4, 4]
    assert book.column("end").tolist() == [100 * MS, 150 * MS, 20 * MS]


def test_who_is_too_long_is_refused():
    pool = Pool(Plain(MS, MS), Limits(ENDLESS, 8, 10, 16), context=120)
    served = run(asked([150, 10, 100], [11, 5, 30], [0, 0, 0]), pool)
    assert measure.counts(served.book) == {
        "done": 1,
        "timed_out": 0,
        "refused": 2,
        "cancelled": 0,
        "lost": 0,
        "prompt": 10,
        "output": 5,
    }


def test_who_has_no_patience_leaves():
    served = run(asked([100, 100, 5], 1, [0, 0, 0]), line(), patience_ps=150 * MS)
    book = served.book
    assert book.column("outcome").tolist() == [1, 2, 2] and book.column("end").tolist() == [
        100 * MS,
        150 * MS,
        150 * MS,
    ]
    assert measure.attainment(book, SloSpec(ttft_s=1, tpot_s=1)) == pytest.approx(1 / 3)


def test_holders_of_a_replica_step_together():
    """The fullest sets the pace of all: two prompts side by side take as long as the longer one."""
    served = run(asked([100, 10], 2, [0, 0]), Pool(Plain(MS, MS), Limits(ENDLESS, 4, ENDLESS), holders=2))
    assert served.book.column("prefilled").tolist() == [100 * MS, 100 * MS]
    apart = run(asked([100, 10], 2, [0, 0]), Pool(Plain(MS, MS), Limits(ENDLESS, 4, ENDLESS), replicas=2))
    assert apart.book.column("prefilled").tolist() == [100 * MS, 10 * MS]


@pytest.mark.parametrize(("routing", "holders"), [("round_robin", [0, 1, 0, 1]), ("least_loaded", [0, 1, 1, 1])])
def test_routing(routing, holders):
    questions = asked([1000, 10, 10, 10], 1, [0, 0.001, 0.1, 0.2])
    served = run(questions, line(2), routing=routing)
    assert served.book.column("holder").tolist() == holders


def links(*rates_GBps: float) -> Wires:
    """Holders with a link of their own each, both ways."""
    ends = tuple((((2 * at, 1.0),), ((2 * at + 1, 1.0),)) for at in range(len(rates_GBps)))
    capacity = tuple(rate * 1e9 for rate in rates_GBps for _ in range(2))
    return Wires(capacity, tuple(out for out, _ in ends), tuple(into for _, into in ends))


def test_a_cache_moves_layer_by_layer():
    """S12, S13: 4,096 tokens over 25 GB/s under a prefill of 200 ms; two at once get half of a link each."""
    first = Pool(Plain(MS, 200 * MS // 4096), Limits(ENDLESS, 8, ENDLESS))
    last = Pool(Plain(5 * MS, MS), Limits(ENDLESS, 8, ENDLESS))

    def moved_ms(many: int, layers: int) -> np.ndarray:
        moves = Moves(links(25, 1000), 70272, layers)
        served = run(asked(np.full(many, 4096), 3, np.zeros(many)), first, last, moves=moves)
        assert (seconds(served, "moved", "end") >= 0.01).all() and served.moved_B == pytest.approx(many * 4096 * 70272)
        return seconds(served, "prefilled", "moved") * 1e3

    assert moved_ms(1, 61) == pytest.approx([0.18874368], rel=1e-3)
    assert moved_ms(1, 1) == pytest.approx([11.5133645], rel=1e-4)
    assert moved_ms(2, 61) == pytest.approx(np.full(2, 2 * 0.18874368), rel=1e-3)
    assert moved_ms(2, 1) == pytest.approx(np.full(2, 2 * 11.5133645), rel=1e-4)


def test_a_slow_link_keeps_caches_waiting():
    """What does not fit under the prefill comes after it: all but the first layer's time of it."""
    pools = [Pool(Plain(MS, MS), Limits(ENDLESS, 8, ENDLESS)) for _ in range(2)]
    served = run(asked([1000], 3, [0]), *pools, moves=Moves(links(1, 1000), 4e6, 10))
    assert seconds(served, "prefilled", "moved") == pytest.approx([4 - 0.9], rel=1e-6)


def test_who_gives_up_while_a_cache_moves_is_forgotten():
    pools = [Pool(Plain(MS, MS), Limits(500, 8, ENDLESS)) for _ in range(2)]
    for patience_ms in (700, 1500, 5000):  # in its second chunk, on the link, while it decodes
        moves = Moves(links(1, 1000), 1e6, 10)
        served = run(asked([1000], 9000, [0]), *pools, moves=moves, patience_ps=patience_ms * MS)
        assert served.book.column("outcome").tolist() == [2] and served.book.end[0] == patience_ms * MS


def test_beginnings_that_are_kept():
    """S20: LRU over popularities of a Zipf law."""
    chance = np.random.default_rng(0)
    shares = 1 / np.arange(1, 1001)
    blocks = chance.choice(1000, 200_000, p=shares / shares.sum())
    cache = Prefixes(Beginnings(Prefix(np.arange(len(blocks) + 1), blocks)), 16, 100, np.full(len(blocks), 17).tolist())
    for one in range(len(blocks)):
        cache.keep(100)
        cache.take(one, 0)
        cache.give(one, 0)
    assert cache.hit / cache.asked == pytest.approx(0.5765, abs=0.01)


def test_a_beginning_that_is_kept_is_not_computed():
    prefix = Prefix(np.array([0, 3, 6]), np.array([1, 2, 3, 1, 2, 4]))
    pool = Pool(Plain(MS, MS), Limits(ENDLESS, 8, ENDLESS), cached=64)
    served = run(asked([40, 40], 1, [0, 1], prefix=prefix, block_tokens=16), pool)
    assert served.book.column("cached").tolist() == [0, 32]
    assert seconds(served, "scheduled", "prefilled") == pytest.approx([0.04, 0.008])


def test_prompts_go_where_their_beginnings_are():
    prefix = Prefix(np.arange(0, 9, 2), np.array([1, 2, 3, 4, 1, 5, 3, 4]))
    questions = asked([40, 40, 40, 40], 1, [0, 1, 2, 3], prefix=prefix, block_tokens=16)
    pool = Pool(Plain(MS, MS), Limits(ENDLESS, 8, ENDLESS), 2, cached=64)
    served = run(questions, pool, routing="prefix_aware")
    assert served.book.column("holder").tolist() == [0, 0, 0, 0]  # nobody else is there
    assert served.book.column("cached").tolist() == [0, 0, 16, 32]
    busy = asked([1000, 40, 40, 40], 1, [0, 0.1, 0.2, 0.3], prefix=prefix, block_tokens=16)
    served = run(busy, pool, routing="prefix_aware")
    assert served.book.column("holder").tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("tokens", [1, 4, 16])
def test_blocks_are_those_of_each_sequence(tokens):
    chance = np.random.default_rng(tokens)
    cache, offsets = PagedCache(200, tokens), chance.integers(0, 100, 8).tolist()
    for offset in offsets:
        cache.join(offset)
    for step in range(60):
        used = sum(-(-(offset + step + 1) // tokens) for offset in offsets)
        assert cache.used(step) == used
        room = next(more for more in range(10**4) if cache.used(step + more) > 200)
        assert cache.fits(step, 10**6) == room and min(cache.sure(step), room) == cache.sure(step)


def test_sums_of_steps_grow_as_they_are_asked():
    row = StepRow(lambda first, last: (np.arange(first, last) + 1, np.ones((3, last - first))))
    assert row.upto(1500)[1500] == 1500 * 1501 // 2 and len(row.sums) == 2049
    assert row.joules(np.array([3]), np.array([10])).tolist() == [[7.0]] * 3


# capacity, and what is said above it


@pytest.mark.parametrize(("prompt", "output", "sequences"), [(100, 50, 16), (500, 4, 8), (10, 200, 32), (300, 1, 4)])
def test_the_capacity_that_is_told_is_what_is_reached(prompt, output, sequences):
    pool = Pool(Plain(20 * MS, MS // 10), Limits(2048, sequences, ENDLESS))
    count = 60 * sequences
    told = capacity.requests_per_s((pool,), asked(np.full(count, prompt), output))
    served = run(asked(np.full(count, prompt), output, users=3 * sequences), pool)
    assert count / (served.end_ps / PS_PER_S) == pytest.approx(told, rel=0.12)


def test_of_two_pools_the_slower_one_counts():
    first, last = Pool(Plain(MS, MS), Limits(2048, 8, ENDLESS)), Pool(Plain(MS, MS), Limits(2048, 8, ENDLESS))
    told = capacity.requests_per_s((first, last), asked(np.full(9, 1000), 11))
    assert told == pytest.approx(1.0) and capacity.requests_per_s((last,), asked(np.full(9, 1000), 11)) < told


def test_what_is_found_in_a_cache_need_not_be_served():
    pool = Pool(Plain(MS, MS), Limits(2048, 8, ENDLESS))
    questions = asked(np.full(9, 1000), 11)
    whole, half = (capacity.requests_per_s((pool,), questions, np.full(9, found)) for found in (0, 500))
    assert whole == capacity.requests_per_s((pool,), questions) and half == pytest.approx(2 * whole, rel=0.05)


def test_the_least_machine_by_hand():
    """Llama 3.1 8B: two bytes a parameter, 131,072 bytes of cache a token; a hundred requests a second of 1,000 tokens
    in and 100 out, a promise of 10 ms a token."""
    model, system = load_model("llama-3.1-8b"), load_system("hgx_h100")
    spec = cmsim.load_scenario(scenario(slo={"ttft_s": 1, "tpot_s": 0.01})).runs[0].spec
    found = least_machine(spec, system, model, capacity.Mix(1000.0, 1000.0, 500_000.0, 100.0), 100.0)
    linear, head, layers, width = 32 * (41_943_040 + 176_160_768), 525_336_576, 32, 4096
    prefill = 1000 * (2 * linear + 2 * layers * width * 1000) + 2 * head
    decode = 99 * (2 * (linear + head) + 4 * layers * width * 1050)
    peak = system.accelerator.peak_TFLOPps["bf16"] * 1e12
    assert found.parts["compute"] == pytest.approx(100 * (prefill + decode) / peak, rel=1e-3)
    assert found.parts["first token"] == pytest.approx(prefill / peak, rel=1e-3)
    assert found.name == "compute" and found.accelerators == found.parts["compute"] and found.whole == 2
    # of long answers what is read counts: weights once in ten milliseconds, caches for each token
    found = least_machine(spec, system, model, capacity.Mix(1000.0, 1.0, 1000.0, 10_000.0), 1.0)
    read = 2 * (linear + head) + 9999 * found.token_s * 6000 * 131_072
    assert found.parts["HBM"] == pytest.approx(read / found.token_s / 3.35e12, rel=2e-3)
    assert found.name == "HBM" and found.token_s == pytest.approx(0.01)
    # with drafts a step gives more
    drafts = {"draft_tokens": 1, "acceptance": 1.0}
    other = cmsim.load_scenario(scenario(slo={"ttft_s": 1, "tpot_s": 0.01}, speculative=drafts)).runs[0].spec
    mix = capacity.Mix(1000.0, 1.0, 1000.0, 10_000.0)
    assert least_machine(other, system, model, mix, 1.0).parts["HBM"] == pytest.approx(found.parts["HBM"] / 2, rel=2e-3)
    # with nothing promised, and no load to speak of, one does
    plain = cmsim.load_scenario(scenario()).runs[0].spec
    assert least_machine(plain, system, model, mix, 1e-3, slowest_s=1e3).whole == 1


def test_a_load_above_capacity_has_no_latency():
    slo = {"ttft_s": 1, "tpot_s": 1}
    (one,) = cmsim.run(scenario(arrivals={"process": "poisson", "rate_per_s": 4000, "requests": 400}, slo=slo))
    assert one.metrics["stable"] == "no" and one.metrics["utilization"] > 1 and one.limiter == "queue"
    assert not [name for name in one.metrics if name.startswith(("ttft", "e2e", "slo"))]
    assert one.metrics["queue_growth_per_s"] > 0 and "unstable" in one.warnings[0]


def test_growth_is_seen():
    arrival_s = np.arange(400) / 1.0
    slow = run(asked(np.full(400, 1500), 1, arrival_s), line())
    slope, grows = measure.growth(slow.book)
    assert grows and slope == pytest.approx(1 - 1 / 1.5, rel=0.1)
    assert measure.growth(run(asked(np.full(400, 500), 1, arrival_s), line()).book) == (0.0, False)


def test_intervals_over_batches():
    values = np.random.default_rng(0).exponential(1, 10_000)
    found = measure.percentiles("ttft", values)
    assert found["ttft_mean_s_low"] < 1 < found["ttft_mean_s_high"] and found["ttft_s_p50"] == np.median(values)
    assert "ttft_s_p50_low" not in measure.percentiles("ttft", values[:50]) and not measure.percentiles("x", values[:0])


# scenarios


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "steps"))
        slo = {"ttft_s": 0.5, "tpot_s": 0.05}
        return cmsim.run(scenario(slo=slo), out=folder), folder


def test_a_scenario_runs(small):
    results, folder = small
    (one,) = results
    metrics = one.metrics
    assert metrics["stable"] == "yes" and metrics["requests_done"] == 60 and metrics["slo_attainment"] == 1
    assert metrics["least_accelerators"] == 1 and metrics["ttft_less_cache_s_p99"] > 0
    assert metrics["ttft_s_p50"] < metrics["ttft_s_p99"] < metrics["e2e_s_p99"] and metrics["energy_per_token_J"] > 0
    frame = one.frame("requests")
    assert len(frame) == 60 and (frame["outcome"] == "done").all()
    stages = frame[["waited_s", "prefill_s", "moved_s", "decode_s"]].sum(axis=1)
    assert stages.to_numpy() == pytest.approx(frame["e2e_s"].to_numpy())
    ttft = (frame["waited_s"] + frame["prefill_s"]).to_numpy()
    assert np.median(ttft) == pytest.approx(metrics["ttft_s_p50"])
    load = one.frame("load")
    assert load["arrived"].sum() == load["served"].sum() == 60
    assert load["power_W"].mean() == pytest.approx(metrics["power_avg_W"], rel=1e-6)
    assert metrics["power_avg_W"] < metrics["power_peak_W"] == load["power_W"].max()
    mean = (load["waiting"] + load["running"]).mean()
    assert mean == pytest.approx(metrics["in_system_mean"], rel=1e-6)
    assert {path.name for path in folder.iterdir()} == {
        "load.parquet",
        "requests.parquet",
        "manifest.json",
        "summary.json",
    }


def test_the_same_scenario_gives_the_same_bytes(small, tmp_path):
    _, folder = small
    cmsim.run(scenario(slo={"ttft_s": 0.5, "tpot_s": 0.05}), out=tmp_path / "out")
    for path in folder.iterdir():  # what was played then was kept since
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_seeds_draw_other_requests():
    frames = [cmsim.run({**scenario(), "seed": seed})[0].frame("requests") for seed in (0, 1)]
    assert not (frames[0]["arrival_s"] == frames[1]["arrival_s"]).all()


def test_the_host_is_a_floor():
    slow = {"system": "hgx_h100", "set": {"stack.serving.step_us": 20000, "stack.serving.sequence_us": 0}}
    one = cmsim.run({**scenario(), "systems": [slow]})[0]
    assert one.metrics["tpot_s_p50"] == pytest.approx(0.02, rel=0.02)


def test_pools_apart():
    pools = {
        "prefill": {"replicas": 2, "accelerators": 2},
        "decode": {"accelerators": 4, "parallel": {"tp": 4}},
    }
    one = cmsim.run(
        {"systems": ["hgx_h100"], "workload": {k: v for k, v in SMALL.items() if k != "accelerators"} | pools}
    )[0]
    assert one.accelerators == 8 and one.plan["decode_ranks_per_holder"] == 4
    frame = one.frame("requests")
    assert (frame["moved_s"] > 0).all() and (frame["holder"] == 2).all()


def test_pools_are_on_machines_of_their_own():
    """Prompts where products are quick, answers where memory is: energy and rent of both."""
    pools = {"prefill": {"accelerators": 2}, "decode": {"accelerators": 2, "machine": "hgx_h200"}}
    base = {key: value for key, value in SMALL.items() if key != "accelerators"}
    other = {**pools, "decode": {"accelerators": 2}}
    one, same = (cmsim.run({"systems": ["hgx_h100"], "workload": base | some})[0] for some in (pools, other))
    assert one.metrics["tpot_s_p50"] < same.metrics["tpot_s_p50"]
    assert one.metrics["ttft_s_p50"] == same.metrics["ttft_s_p50"]
    assert one.metrics["cost_per_hour_USD"] != same.metrics["cost_per_hour_USD"]
    with pytest.raises(InputError, match=r"cache_moves\.over: got scale_up; pools are on machines"):
        cmsim.run({"systems": ["hgx_h100"], "workload": base | pools | {"cache_moves": {"over": "scale_up"}}})


def test_caches_move_over_other_planes():
    pools = {"prefill": {"accelerators": 2}, "decode": {"accelerators": 2}}
    base = {key: value for key, value in SMALL.items() if key != "accelerators"} | pools
    moved = {}
    for over in ("scale_up", "scale_out", "host"):
        one = cmsim.run({"systems": ["hgx_h100"], "workload": base | {"cache_moves": {"over": over}}})[0]
        moved[over] = one.frame("requests")["moved_s"].mean()
    assert moved["scale_up"] < moved["scale_out"] < moved["host"]
    late = cmsim.run({"systems": ["hgx_h100"], "workload": base | {"cache_moves": {"layerwise": False}}})[0]
    assert late.frame("requests")["moved_s"].mean() > moved["scale_out"]


def test_a_trace_is_replayed():
    path = "azure/AzureLLMInferenceTrace_code.csv.gz"
    one = cmsim.run(scenario(arrivals={"process": "trace", "path": path, "requests": 50}, lengths={}))[0]
    frame = one.frame("requests")
    assert frame["prompt_tokens"].iloc[0] == 4808 and len(frame) == 50
    twice = cmsim.run(
        scenario(arrivals={"process": "trace", "path": path, "requests": 50, "rate_per_s": 100.0}, lengths={})
    )[0]
    assert twice.frame("requests")["arrival_s"].iloc[-1] == pytest.approx(0.5)
    drawn = cmsim.run(scenario(lengths={"path": path}))[0]
    assert drawn.frame("requests")["prompt_tokens"].max() > 1000


def test_a_day_s_curve_is_drawn():
    how = {"process": "trace", "path": "servegen/m-large_chunk-0-trace.csv.gz", "requests": 3000}
    spec = cmsim.load_scenario(scenario(arrivals=how)).runs[0].spec
    one, other, same = (draw.asked(spec, seed=seed, base=None) for seed in (0, 1, 0))
    assert len(one) == 3000 and (one.arrival_ps == same.arrival_ps).all() and (one.arrival_ps != other.arrival_ps).any()
    with pytest.raises(InputError, match="holds rates of arrival alone"):
        cmsim.run(scenario(arrivals=how, lengths={}))


def test_gamma_arrivals_come_in_bursts():
    gaps = {}
    for cv in (0.5, 3.0):
        spec = (
            cmsim.load_scenario(scenario(arrivals={"process": "gamma", "rate_per_s": 10, "cv": cv, "requests": 4000}))
            .runs[0]
            .spec
        )
        times = draw.asked(spec, seed=0, base=None).arrival_ps / PS_PER_S
        gaps[cv] = np.diff(times)
        assert gaps[cv].mean() == pytest.approx(0.1, rel=0.15)
    for cv, found in gaps.items():
        assert found.std() / found.mean() == pytest.approx(cv, rel=0.15)


def test_conversations_go_on():
    turns = {"turns": {"count": 3, "think_s": 0.5}, "arrivals": {"process": "poisson", "rate_per_s": 6, "requests": 61}}
    batching = {"step_tokens": 1024, "sequences": 32, "prefix_share": 0.5}
    one = cmsim.run(scenario(**turns, batching=batching))[0]
    spec = cmsim.load_scenario(scenario(**turns, batching=batching)).runs[0].spec
    questions = draw.asked(spec, seed=0, base=None)
    assert len(questions) == 60 and (np.diff(questions.prompt.reshape(-1, 3)) > 0).all()
    said = questions.prompt.reshape(-1, 3)[:, 1] - questions.prompt.reshape(-1, 3)[:, 0]
    assert (said > questions.output.reshape(-1, 3)[:, 0]).all()
    frame = one.frame("requests")
    assert len(frame) == 60 and (frame["outcome"] == "done").all() and frame["arrival_s"].is_monotonic_increasing
    # what was said before is there, but for the last answer and the rest of a block
    assert one.metrics["prefix_hit_fraction"] > 0.4 and frame["cached_tokens"].max() >= 256
    plain = cmsim.run(scenario(**turns))[0]
    assert plain.metrics["ttft_s_p50"] > one.metrics["ttft_s_p50"] and "prefix_hit_fraction" not in plain.metrics


def test_a_turn_comes_when_the_last_one_is_answered():
    questions = asked(
        [10, 10, 10, 10], 3, [0, -1, 0.001, -1], then=np.array([1, -1, 3, -1]), think_ps=np.full(4, 7 * MS)
    )
    questions = dataclasses.replace(questions, arrival_ps=np.array([0, -1, MS, -1]))
    book = run(questions, Pool(Plain(MS, MS), Limits(ENDLESS, 8, ENDLESS))).book
    assert [book.arrival[1] - book.end[0], book.arrival[3] - book.end[2]] == [7 * MS, 7 * MS]
    served = run(dataclasses.replace(draw.faster(questions, 2.0)), line())
    assert served.book.arrival[2] == MS // 2 and served.book.column("outcome").tolist() == [1] * 4


def test_goodput_is_sought():
    one = cmsim.run(
        scenario(
            slo={"ttft_s": 0.2, "tpot_s": 0.02},
            goodput=True,
            arrivals={"process": "poisson", "rate_per_s": 20, "requests": 200},
        )
    )[0]
    assert 0 < one.metrics["goodput_requests_per_s"] <= one.metrics["capacity_requests_per_s"]
    assert not [note for note in one.warnings if "goodput is 0" in note]


def test_the_most_that_keeps_the_promise_is_a_load():
    """It is the goodput, and what is told is told at that rate."""
    promise = {"ttft_s": 0.5, "tpot_s": 0.02}
    most = {"process": "poisson", "rate_per_s": "most", "requests": 60}
    (one,) = cmsim.run(scenario(slo=promise, arrivals=most))
    (other,) = cmsim.run(scenario(slo=promise, goodput=True))
    found = one.metrics["goodput_requests_per_s"]
    assert found == pytest.approx(other.metrics["goodput_requests_per_s"], rel=0.02)
    assert one.metrics["utilization"] == pytest.approx(found / one.metrics["capacity_requests_per_s"])
    assert one.metrics["slo_attainment"] >= 0.9
    none = cmsim.run(scenario(slo={"ttft_s": 1e-6, "tpot_s": 1e-6}, arrivals=most))
    assert "goodput is 0" in none.missing[0].message
    with pytest.raises(InputError, match="most needs `slo`"):
        cmsim.load_scenario(scenario(arrivals=most))


def test_no_goodput_says_why():
    one = cmsim.run(
        scenario(
            slo={"ttft_s": 1e-4, "tpot_s": 1e-4},
            goodput=True,
            arrivals={"process": "poisson", "rate_per_s": 20, "requests": 50},
        )
    )[0]
    assert one.metrics["goodput_requests_per_s"] == 0
    (said,) = [note for note in one.warnings if "goodput is 0" in note]
    assert "within 0.0001 s" in said and "1% of the plan's capacity" in said


def test_what_waits_hang_on():
    closed = {"process": "closed", "concurrency": 24, "requests": 96}
    one = cmsim.run(scenario(arrivals=closed, sensitivity=True))[0].metrics
    assert one["ttft_quicker_host_s_p99"] < one["ttft_s_p99"] < one["ttft_slower_host_s_p99"]
    assert one["ttft_less_cache_s_p99"] >= one["ttft_s_p99"] >= one["ttft_more_cache_s_p99"]


def test_drafts_share_out_a_step():
    plain = cmsim.run(scenario(arrivals={"process": "closed", "concurrency": 1, "requests": 3}))[0]
    draft = cmsim.run(
        scenario(
            arrivals={"process": "closed", "concurrency": 1, "requests": 3},
            speculative={"draft_tokens": 1, "acceptance": 0.7},
        )
    )[0]
    assert draft.metrics["tpot_s_p50"] < plain.metrics["tpot_s_p50"]


def test_chunks_after_a_beginning_cost_more():
    chunk = {"kind": "prefill", "model": "llama-3.1-8b", "batch_per_accelerator": 0.125, "prompt_tokens": 1024}
    runs = cmsim.run(
        {"systems": ["hgx_h100"], "workloads": {"a": chunk | {"parallel": {"tp": 8}}}},
        set={"sweep": {"workloads.a.cached_tokens": [0, 8192, 32768]}},
    )
    times = [one.metrics["ttft_s"] for one in runs]
    assert times == sorted(times) and times[2] > 1.2 * times[0]
    memory = [one.plan["memory_B"]["cache"] for one in runs]
    assert memory[1] == pytest.approx(9 * memory[0])


def test_it_is_printed_as_another_tool_does(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(scenario(arrivals={"process": "closed", "concurrency": 4, "requests": 12})))
    done = CliRunner().invoke(app, ["run", str(path), "--form", "vllm"])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if ":" in line]
    assert lines[0].split() == ["Successful", "requests:", "12"] and "Maximum request concurrency:" in lines[2]
    assert [line.split("(ms)")[0].strip() for line in lines[-12:-9]] == ["Mean TTFT", "Median TTFT", "P99 TTFT"]
    wrong = CliRunner().invoke(app, ["run", str(path), "--form", "vlm"])
    assert "--form: got 'vlm'. Did you mean 'vllm'" in str(wrong.exception) + wrong.output


# steps between points that are played


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "steps"))
        one = cmsim.load_scenario(scenario()).runs[0]
        yield PlayedSteps(one, one.spec, PoolSpec(accelerators=2), one.spec.batching, None), one


def alone(kind: str, **keys) -> float:
    """A step that is played by itself, on the same two packages. [s]"""
    run = {"kind": kind, "model": "llama-3.1-8b", "parallel": {"tp": 2}, **keys}
    return cmsim.run({"systems": [{"system": "hgx_h100", "accelerators": 2}], "workload": run})[0].metrics["makespan_s"]


def test_points_are_what_is_played(played):
    steps, _ = played
    seconds, joules = steps.decode(4, np.array([1024.0, 2560.0]))
    assert seconds[0] == pytest.approx(alone("decode", batch_per_accelerator=2, context_tokens=1024))
    assert seconds[1] == pytest.approx(alone("decode", batch_per_accelerator=2, context_tokens=2560), rel=0.01)
    assert (joules[0] <= joules[1]).all() and (joules[1] <= joules[2]).all()
    whole = alone("prefill", batch_per_accelerator=0.5, prompt_tokens=512)
    assert steps.passes(512, 512)[0] == pytest.approx(whole)
    chunk = alone("prefill", batch_per_accelerator=0.5, prompt_tokens=512, cached_tokens=768)
    assert steps.passes(512, 2048)[0] == pytest.approx(chunk) and chunk > whole
    several = alone("prefill", batch_per_accelerator=2, prompt_tokens=128)
    assert steps.passes(512, 128)[0] == pytest.approx(several)
    assert steps.passes(700, 700)[0] == pytest.approx(
        alone("prefill", batch_per_accelerator=0.5, prompt_tokens=700), rel=0.06
    )
    assert 0 < steps.error(5, 1500, 700, 700) < 0.06


def test_prompts_beside_sequences(played):
    steps, _ = played
    costs = Told(steps.decode, steps.passes, least=128, host=Host(), idle_W=(0.0, 0.0, 0.0))
    alone_ps = costs.row(16).upto(2049)[2049] - costs.row(16).upto(2049)[2048]
    times = [costs.mixed(16, 2048, tokens, tokens**2 // 2)[0] for tokens in (1, 64, 512, 1000)]
    assert times[0] >= alone_ps and times == sorted(times)
    # weights are read once: less than both apart
    assert times[2] < alone_ps + costs.mixed(0, 0, 512, 512**2 // 2)[0]
    slow = Told(steps.decode, steps.passes, least=128, host=Host(0.1, 0.001), idle_W=(0.0, 0.0, 0.0))
    assert slow.mixed(16, 2048, 64, 2048)[0] == pytest.approx(0.117 * PS_PER_S)
    fast = Told(steps.decode, steps.passes, least=128, host=Host(), idle_W=(0.0, 0.0, 0.0), accepted=2.0)
    sums = fast.row(16).upto(2049)
    assert sums[2049] - sums[2048] == pytest.approx(alone_ps / 2)


def test_numbers_on_the_grid():
    assert between(1, 20) == [1, 2, 3, 4, 6, 8, 12, 16, 24] and between(16, 16) == [16] and between(5, 7) == [5, 6, 8]
    assert straight(2.0, 4.0, 2.5, lambda x: np.array([x, 2 * x])).tolist() == [2.5, 5.0]


def test_points_that_are_damaged_are_played_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path))
    first = cmsim.run(scenario())[0]
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"PK no archive")
    assert cmsim.run(scenario())[0].metrics == first.metrics


# bad input

WRONG = [
    ({"arrivals": {"process": "poisson"}}, "rate_per_s: required for `process: poisson`"),
    ({"arrivals": {"process": "closed"}}, "concurrency: required"),
    ({"arrivals": {"process": "trace"}}, "path: required"),
    ({"arrivals": {"process": "closed", "concurrency": 3, "rate_per_s": "most"}}, "most goes with an open loop"),
    ({"arrivals": {"process": "poisson", "rate_per_s": 1, "cv": 2}}, "cv: goes with `process: gamma`"),
    ({"arrivals": {"process": "poisson", "rate_per_s": -1}}, "rate_per_s"),
    ({"lengths": {}}, "lengths: prompt_tokens and output_tokens"),
    ({"lengths": {"prompt_tokens": 10}}, "both or none"),
    ({"lengths": {"prompt_tokens": 10, "output_tokens": 5, "warm": True}}, "warm: goes with `shared` above 0"),
    ({"lengths": {"prompt_tokens": 0, "output_tokens": 1}}, "prompt_tokens"),
    ({"prefill": {"accelerators": 1}}, "prefill, decode: both pools or none"),
    ({"prefill": {"accelerators": 1}, "decode": {"accelerators": 1}}, "accelerators: each pool has its own"),
    ({"cache_moves": {"over": "host"}}, "cache_moves: goes with `prefill`"),
    ({"ranks": 2}, "ranks: a service counts `accelerators`"),
    ({"goodput": True}, "goodput: needs `slo`"),
    ({"routing": "random"}, "routing"),
    (
        {"turns": {"count": 2}, "arrivals": {"process": "closed", "concurrency": 3}},
        "turns: goes with `process: poisson`",
    ),
    ({"turns": {"count": 100}}, "arrivals.requests: got 60. Allowed: at least 100"),
    ({"model": "llama-3.1-9b"}, "llama-3.1-8b"),
    ({"batching": {"step_tokens": 16, "sequences": 32}}, "step_tokens: got 16. Allowed: more than `sequences`"),
    ({"arrivals": {"process": "trace", "path": "azure/none.csv"}}, "arrivals.path: no file"),
    ({"lengths": {"path": "nowhere.csv"}}, "lengths.path: no file"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace("`", "`")):
        cmsim.run(scenario(**changes))


def test_a_trace_without_arrivals_is_refused(tmp_path):
    path = tmp_path / "lengths.jsonl"
    path.write_text('{"input_toks": 10, "output_toks": 5}\n' * 3)
    try:
        cmsim.run(scenario(arrivals={"process": "trace", "path": str(path)}, lengths={}))
    except InputError as error:
        assert "lengths.jsonl" in str(error)
    else:
        pytest.fail("nobody was told")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 5}, "replicas take 10 accelerators together; hgx_h100 has 8"),
        ({"model": "llama-3.1-405b"}, "no room for a cache"),
        ({"batching": {"step_tokens": 1024, "sequences": 32, "context_tokens": 100}}, "none of the 60 requests fits"),
    ],
)
def test_what_cannot_be_is_an_outcome(changes, message):
    (one,) = cmsim.run(scenario(**changes)).outcomes
    assert type(one).__name__ == "Infeasible" and message in one.message


def test_some_that_are_too_long_are_counted():
    one = cmsim.run(scenario(batching={"step_tokens": 1024, "sequences": 32, "context_tokens": 400}))[0]
    assert one.metrics["requests_refused"] > 0
    assert one.metrics["requests_refused"] + one.metrics["requests_done"] == 60
    assert any("are longer than the context or the cache" in note for note in one.warnings)


def test_points_are_kept_from_run_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path / "steps"))
    first = cmsim.run(scenario())[0]
    monkeypatch.setattr(plays.Plays, "__call__", lambda *_, **__: pytest.fail("played again"))
    again = cmsim.run(scenario())[0]
    assert first.metrics == again.metrics
    assert list((tmp_path / "steps").glob("*.points.npz"))
