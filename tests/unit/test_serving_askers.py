"""Who asks: agents, documents before prompts, rates that change, classes of priority, users who go."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cmsim
from cmsim.errors import InputError
from cmsim.serving import askers
from cmsim.serving.askers import BLOCK
from cmsim.serving.questions import Questions
from cmsim.units import PS_PER_S

SMALL = {
    "kind": "serving",
    "model": "llama-3.1-8b",
    "arrivals": {"process": "poisson", "rate_per_s": 5, "requests": 40},
    "lengths": {"prompt_tokens": 256, "output_tokens": 32, "least": 0.5},
    "parallel": {"tp": 2},
    "accelerators": 2,
    "batching": {"step_tokens": 1024, "sequences": 32, "prefix_share": 0.5},
}


def scenario(**changes) -> dict:
    return {"systems": ["hgx_h100"], "workload": {**SMALL, **changes}}


def asked(seed: int = 0, **changes) -> Questions:
    return askers.asked(cmsim.load_scenario(scenario(**changes)).runs[0].spec, seed=seed, base=None)


def blocks(one: Questions, row: int) -> list[int]:
    return one.prefix.block[one.prefix.ptr[row] : one.prefix.ptr[row + 1]].tolist()


def test_agents_call_and_call_again():
    one = asked(agents={"calls": 4, "tool_s": 2, "instruction_tokens": 512})
    assert (one.arrival_ps >= 0).sum() == 40 and len(one) / 40 == pytest.approx(4, rel=0.3)
    assert one.rate_per_s == pytest.approx(5 * len(one) / 40)
    for row in range(len(one)):
        assert len(blocks(one, row)) == one.prompt[row] // BLOCK and blocks(one, row)[:4] == [0, 1, 2, 3]
        nxt = one.then[row]
        if nxt >= 0:  # a call brings what was said before, its answer too
            assert nxt == row + 1 and one.prompt[nxt] > one.prompt[row] + one.output[row]
            assert blocks(one, nxt)[: len(blocks(one, row))] == blocks(one, row)
        elif row + 1 < len(one):
            assert one.arrival_ps[row + 1] >= 0 and one.prompt[row + 1] < 512 + 257
    waits_s = one.think_ps[one.then >= 0] / PS_PER_S
    assert waits_s.mean() == pytest.approx(2, rel=0.3)
    same, other = asked(agents={"calls": 4}), asked(1, agents={"calls": 4})
    assert (same.prompt == asked(agents={"calls": 4}).prompt).all() and len(same) != len(other)


def test_agents_are_served():
    (one,) = cmsim.run(scenario(agents={"calls": 4, "tool_s": 0.2}))
    assert one.metrics["requests_done"] == len(one.frame("requests")) > 100
    assert one.metrics["prefix_hit_fraction"] > 0.5


def test_documents_stand_before_prompts():
    how = {"documents": 50, "document_tokens": 1000, "each": 2, "instruction_tokens": 256}
    plain, one = asked(), asked(retrieval=how)
    assert (one.prompt == plain.prompt + 256 + 2 * 1024).all() and (one.output == plain.output).all()
    assert (one.arrival_ps == plain.arrival_ps).all()
    rows = [blocks(one, row) for row in range(len(one))]
    assert {len(row) for row in rows} == {2 + 16} and {tuple(row[:2]) for row in rows} == {(0, 1)}
    first = [row[2:10] for row in rows]
    assert 1 < len({tuple(row) for row in first}) < 25  # few documents are asked for often
    for a, b in itertools.pairwise(rows):  # a second document behind another first one is computed anew
        if a[2:10] != b[2:10]:
            assert not set(a[2:]) & set(b[2:])
    even = asked(retrieval=how | {"popularity": 0})
    assert len(np.unique(even.prefix.block)) > len(np.unique(one.prefix.block))


def test_documents_are_found_again():
    how = {"documents": 5, "document_tokens": 1024}
    (one,) = cmsim.run(scenario(retrieval=how))
    assert one.metrics["cached_tokens_fraction"] > 0.5


def test_rates_follow_a_curve():
    ramp = {"process": "curve", "curve": [[0, 0], [100, 40], [200, 40]]}
    one = asked(arrivals=ramp)
    assert len(one) == 6000 and one.rate_per_s == pytest.approx(30)
    time_s = one.arrival_ps / PS_PER_S
    assert (np.diff(time_s) >= 0).all()
    # 20 t^2 / 100 of them until t, then 40 a second
    for at_s, due in ((50, 500), (100, 2000), (150, 4000)):
        assert (time_s < at_s).sum() == pytest.approx(due, abs=4 * np.sqrt(due))
    days = asked(arrivals=ramp | {"requests": 18000})
    again_s = days.arrival_ps / PS_PER_S
    assert ((again_s > 200) & (again_s < 250)).sum() == pytest.approx(500, abs=90)


def test_classes_and_who_goes():
    one = asked(
        priorities=[0.25, 0.75], cancels={"share": 0.5, "after_s": 3}, arrivals=dict(SMALL["arrivals"], requests=4000)
    )
    assert (one.priority == 0).mean() == pytest.approx(0.25, abs=0.03)
    goes = one.quits_ps >= 0
    assert goes.mean() == pytest.approx(0.5, abs=0.03)
    assert one.quits_ps[goes].mean() / PS_PER_S == pytest.approx(3, rel=0.1)
    assert asked().priority is None and asked().quits_ps is None


def test_who_goes_is_counted():
    (one,) = cmsim.run(scenario(cancels={"share": 1.0, "after_s": 0.05}))
    gone = one.metrics["requests_cancelled"]
    assert 0 < gone and gone + one.metrics["requests_done"] == 40
    assert any("were not wanted any more" in note for note in one.warnings)
    assert (one.frame("requests")["outcome"] == "cancelled").sum() == gone


HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROW = "2023-11-16 18:15:{:02d}.0000000,{},{}\n"


def traced(tmp_path, text: str):
    path = tmp_path / "asked.csv"
    path.write_text(text)
    return cmsim.run(scenario(arrivals={"process": "trace", "path": str(path)}, lengths={}))[0]


def test_a_trace_out_of_order_is_sorted_and_said(tmp_path):
    one = traced(tmp_path, HEAD + "".join(ROW.format(at, 100 + at, 5) for at in (3, 1, 2)))
    assert one.frame("requests")["prompt_tokens"].tolist() == [101, 102, 103] and one.metrics["requests_done"] == 3
    assert any("arrive before the one above them: sorted by arrival" in note for note in one.warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + ROW.format(1, 100, 5) + ROW.format(2, -4, 5), r"asked\.csv:3.*ContextTokens"),
        (HEAD + ROW.format(1, 0, 5), r"asked\.csv:2.*ContextTokens"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46.0000000,5\n", r"asked\.csv"),
        (HEAD, r"asked\.csv"),
    ],
)
def test_a_wrong_trace_is_refused_where_it_is_wrong(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        traced(tmp_path, text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"priorities": [0.5, 0.6]}, "priorities: got 1.1 together"),
        ({"arrivals": {"process": "curve"}}, "curve: required for `process: curve`"),
        ({"arrivals": {"process": "curve", "curve": [[0, 1]]}}, "curve: two points or more"),
        ({"arrivals": {"process": "curve", "curve": [[0, 1], [0, 2]]}}, "times ascending"),
        ({"arrivals": {"process": "curve", "curve": [[0, 0], [9, 0]]}}, "not all rates 0"),
        ({"arrivals": {"process": "curve", "curve": [[0, 1], [9, 1]], "rate_per_s": 2}}, "the curve says it"),
        ({"arrivals": {"process": "poisson", "rate_per_s": 1, "curve": [[0, 1], [9, 1]]}}, "curve: goes with"),
        ({"agents": {"calls": 2}, "arrivals": {"process": "closed", "concurrency": 2}}, "agents: goes with"),
        ({"agents": {"calls": 2}, "turns": {"count": 2}}, "agents: goes without"),
        ({"retrieval": {"documents": 2, "document_tokens": 9}, "turns": {"count": 2}}, "retrieval: goes without"),
        ({"retrieval": {"documents": 0, "document_tokens": 9}}, "documents"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(InputError, match=message):
        cmsim.load_scenario(scenario(**changes))
