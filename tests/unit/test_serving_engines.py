"""What an engine and its host add to the steps of a service."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.hardware import load_stack
from cmsim.serving import measure
from cmsim.serving.costs import Host, Told
from cmsim.serving.holder import Limits
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Service
from cmsim.units import PS_PER_S

MS = PS_PER_S // 1000
ENGINES = ("vllm_served", "vllm_default", "sglang_served", "sglang_default", "tensorrt_llm", "tensorrt_llm_default")


def told(**host) -> Told:
    """Steps of 1 ms, passes of 10 us a token."""
    return Told(
        lambda _, tokens: (np.full(len(tokens), 1e-3), np.zeros((3, len(tokens)))),
        lambda tokens, _: (1e-5 * tokens, (0.0, 0.0, 0.0)),
        least=1,
        host=Host(**host),
        idle_W=(0.0, 0.0, 0.0),
    )


def serve(costs: Told, prompt, output, *, users=2, **rules):
    asked = Questions(np.array(prompt), np.array(output), None, users=users)
    served = Service(asked, [Pool(costs, Limits(4096, 64, 10**4), replicas=1, holders=1)], Rules(**rules)).run()
    measure.check(served)
    return served, measure.Times.of(served.book)


def step_ms(costs: Told) -> float:
    sums = costs.row(4).upto(10)
    return (sums[10] - sums[9]) / MS


def test_steps_in_the_engine():
    assert step_ms(told()) == 1
    assert step_ms(told(decode=1.2, meets_s=3e-4)) == pytest.approx(1.5)
    assert step_ms(told(step_s=2e-3, each_s=1e-4)) == pytest.approx(2.4), "the host is a floor"
    assert told().mixed(0, 0, 500, 0)[0] == 5 * MS
    assert told(prefill=2.0, meets_s=1e-3, decode=3.0).mixed(0, 0, 500, 0)[0] == 11 * MS
    assert told(prompts_s=8e-3).mixed(0, 0, 500, 0)[0] == 8 * MS, "no captured graph"
    slow = told(prompts_s=8e-3, step_s=2e-3).with_host(2.0)
    assert slow.mixed(0, 0, 500, 0)[0] == 16 * MS and step_ms(slow) == 4


def test_experts_work_on_what_all_holders_have():
    """A prompt on one of eight holders, or a sequence: attention is the fullest's, a millisecond of 1,000 tokens of
    experts is shared by all."""
    many, longest = 8, 1001

    def costs(spared) -> Told:
        return Told(
            lambda _, tokens: (np.full(len(tokens), 1e-3), np.zeros((3, len(tokens)))),
            lambda tokens, _: (1e-5 * tokens, (0.0, 0.0, 0.0)),
            least=1,
            host=Host(),
            idle_W=(0.0, 0.0, 0.0),
            spared=spared,
        )

    def runs(spared):
        asked = Questions(np.array([longest]), np.array([11]), None, users=1)
        served = Service(asked, [Pool(costs(spared), Limits(4096, 64, 10**4), replicas=1, holders=many)], Rules()).run()
        measure.check(served)
        assert measure.itl(served.pools[0])["itl_mean_s"] > 0
        return int(served.book.prefilled[0]), int(served.book.end[0] - served.book.prefilled[0])

    asked_of = []

    def spared(held, evenness, decodes):
        asked_of.append((held, round(held * evenness, 9), decodes))
        return 0.0 if decodes else 1e-6 * held * (1 - evenness)

    whole, shared = runs(None), runs(spared)
    assert whole[0] == round(10.01 * MS) and shared[0] == round((10.01 - 1.001 * 7 / 8) * MS)
    # of one sequence on eight holders a whole one is the mean
    assert whole[1] == shared[1] == 10 * MS and asked_of == [(longest, longest / many, False)]
    costs_of = costs(lambda held, evenness, decodes: 1e-4 * held * (1 - evenness) if decodes else 0.0)
    sums = [costs_of.row(8, mean).upto(2) for mean in (0, 8, 2)]
    assert [one[1] / MS for one in sums] == pytest.approx([1.0, 1.0, 0.4])


def begun(limits: Limits, arrival_ms, **rules) -> list[float]:
    """Milliseconds at which those who come are begun, beside one that decodes for 60 steps of a millisecond."""
    asked = Questions(
        np.full(len(arrival_ms) + 1, 100), np.array([60, *[2] * len(arrival_ms)]),
        np.array([0, *[round(one * MS) for one in arrival_ms]]),
    )  # fmt: skip
    costs = Told(
        lambda _, tokens: (np.full(len(tokens), 1e-3), np.zeros((3, len(tokens)))),
        lambda _tokens, _length: (1e-3, (0.0, 0.0, 0.0)),
        least=1,
        host=Host(),
        idle_W=(0.0, 0.0, 0.0),
    )
    served = Service(asked, [Pool(costs, limits, replicas=1, holders=1)], Rules(**rules)).run()
    measure.check(served)
    return (served.book.column("scheduled")[1:] / MS).tolist()


@pytest.mark.parametrize("singly", [False, True])
def test_an_engine_looks_at_those_that_come_once_in_some_steps(singly):
    assert begun(Limits(400, 8, 10**4), [5.5, 12.5], singly=singly) == [6, 13]
    assert begun(Limits(400, 8, 10**4, poll_steps=10), [5.5, 12.5], singly=singly) == [10, 20]


@pytest.mark.parametrize("singly", [False, True])
def test_an_engine_lets_prompts_wait_for_others(singly):
    wait = Limits(400, 8, 10**4, gather_steps=20, gather_tokens=300)
    assert begun(wait, [5.5, 12.5], singly=singly) == [26, 26], "20 steps after the first that could have begun it"
    assert begun(wait, [5.5, 7.5, 9.5], singly=singly) == [10, 10, 10], "three of them fill a step"
    assert begun(wait, [70.0], singly=singly) == [70], "nobody decodes"


def test_prompts_that_are_not_cut():
    three = [5.1, 5.2, 5.3]
    assert begun(Limits(251, 8, 10**4), three) == [6, 6, 6], "the third begins with 50 tokens"
    assert begun(Limits(251, 8, 10**4, whole=True), three) == [6, 6, 7]


@pytest.mark.parametrize("singly", [False, True])
def test_nobody_begins_who_may_have_to_stop(singly):
    """Of prompts of 8 tokens and answers of 17, 25 tokens in blocks of 4, eight blocks hold one: the next one begins
    when it is gone, and nobody loses its place."""
    asked = Questions(np.full(3, 8), np.full(3, 17), np.zeros(3, np.int64))
    for room, at_once in ((8, 1), (13, 1), (14, 2)):
        limits = Limits(4096, 8, room, 4, answers=True)
        served = Service(asked, [Pool(told(), limits, replicas=1, holders=1)], Rules(singly=singly)).run()
        measure.check(served)
        begun, end = (served.book.column(name) for name in ("scheduled", "end"))
        assert served.pools[0][0].record.preemptions == 0
        assert [sum((begun <= at) & (end > at)) for at in begun] == [at_once, at_once, 1]
        assert begun[at_once] == end[0]
    refused = Service(asked, [Pool(told(), Limits(4096, 8, 6, 4, answers=True), replicas=1, holders=1)], Rules()).run()
    assert measure.counts(refused.book)["refused"] == 3


def test_what_an_engine_adds_draws_what_waiting_does():
    """Of work only the kernels and messages draw more, however long the engine takes for them."""

    def its(**host) -> Told:
        return Told(
            lambda _, tokens: (np.full(len(tokens), 1e-3), np.full((3, len(tokens)), 0.5)),
            lambda tokens, _: (1e-5 * tokens, (1.0, 2.0, 3.0)),
            least=1,
            host=Host(**host),
            idle_W=(100.0, 200.0, 300.0),
        )

    plain, slow = its(), its(decode=3.0, prefill=4.0, meets_s=1e-2)
    rows = [one.row(4) for one in (plain, slow)]
    assert all(row.upto(10) for row in rows)
    joules = [row.joules(np.array([9]), np.array([10]))[:, 0] for row in rows]
    assert joules[0] == pytest.approx([0.4, 0.3, 0.2]) and joules[1] == pytest.approx(joules[0])
    assert plain.mixed(4, 9, 100, 0)[1] == pytest.approx(slow.mixed(4, 9, 100, 0)[1])
    assert plain.mixed(0, 0, 500, 0)[1] == pytest.approx(slow.mixed(0, 0, 500, 0)[1]) == (0.5, 1.0, 1.5)


def test_prompts_in_steps_of_their_own():
    # the second prompt comes while the first answer is made: 20 ms in which nobody decodes
    prompt, output = [100, 100, 2000], [50, 9, 5]
    beside, _ = serve(told(), prompt, output)
    alone, times = serve(told(alone=True), prompt, output)
    longest = [measure.itl(one.pools[0])["itl_s_p99"] for one in (beside, alone)]
    assert longest[1] == pytest.approx(21e-3, rel=1e-3), "the wait counts to the token after it"
    assert longest[0] < 21e-3
    # of the one that waited: 49 steps of a millisecond and one pass; all gaps together are from first to last token
    assert times.tpot[0] * 49 == pytest.approx(49e-3 + 20e-3)
    gaps = measure.itl(alone.pools[0])
    more = np.array(output) - 1
    assert gaps["itl_mean_s"] * more.sum() == pytest.approx(float((times.tpot * more).sum()))


def test_the_wait_is_that_of_who_waited():
    """Two prompts come at once and take two steps: the first of them waits for the second step alone."""
    output = np.array([50, 5, 5, 5, 5])
    served, times = serve(told(alone=True), [100, 100, 100, 3000, 3000], output, users=3)
    gaps = measure.itl(served.pools[0])
    assert gaps["itl_mean_s"] * (output - 1).sum() == pytest.approx(float((times.tpot * (output - 1)).sum()))


def test_prompts_are_read_one_after_the_other():
    _, times = serve(told(), [100, 100, 100], [2, 2, 2], users=3, token_ps=MS, door_ps=5 * MS)
    # 100 ms each, one after the other, then 5 ms; a pass of 1 ms
    assert times.ttft * 1e3 == pytest.approx([106, 206, 306])


def test_every_constant_of_an_engine_has_its_evidence():
    for name in (*ENGINES, "ascend_served", "ascend_served_drafts", "ascend_served_eager"):
        stack = load_stack(name)
        for key in stack.serving.model_fields_set:
            assert f"serving.{key}" in stack.sources, (name, key)
