"""Searches of services: the winner is that of serving every plan, every plan is counted, bounds hold, folders go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cmsim import api
from cmsim.cli.app import app
from cmsim.errors import InfeasibleError, InputError
from cmsim.kinds.serving import SloSpec
from cmsim.requests import Prefix
from cmsim.results import Result
from cmsim.scenario import load_scenario
from cmsim.search import ServiceResult, load, search
from cmsim.search.services import OBJECTIVES
from cmsim.search.services.found import kept, score
from cmsim.search.services.traffic import Traffic, best_found
from cmsim.serving import draw
from cmsim.serving.least import least_machine
from cmsim.serving.prefixes import Beginnings, Prefixes
from cmsim.serving.questions import Questions
from cmsim.workload.model import load_model

#: few plans, so that all of them can be served
OVER: dict[str, Any] = {
    "accelerators": [1, 2],
    "tp": [1, 2],
    "step_tokens": [2048],
    "sequences": [16, 64],
    "replicas": [1, 2, 3, 5],
}
SLOW = pytest.mark.slow
PLAIN: dict[str, Any] = {
    "kind": "serving",
    "model": "llama-3.1-8b",
    "arrivals": {"process": "poisson", "rate_per_s": 60, "requests": 120},
    "lengths": {"prompt_tokens": 1024, "output_tokens": 64, "least": 0.5},
    "slo": {"ttft_s": 0.08, "tpot_s": 0.012},
}


@pytest.fixture(scope="module", autouse=True)
def _kept(tmp_path_factory):
    """Steps that are played are kept for this file alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "steps_of_searches"))
        yield


def question(**changes: Any) -> dict[str, Any]:
    return {"systems": ["hgx_h100"], "workload": PLAIN | changes, "record": "summary"}


@pytest.fixture(scope="module")
def every() -> dict[tuple[int, int, int, int], Result]:
    """What becomes of every plan there is room for, by accelerators, tp, sequences and copies."""
    out = {}
    for each in (1, 2):
        for cap in OVER["sequences"]:
            for copies in OVER["replicas"]:
                if each * copies > 8:
                    continue
                plan = {"accelerators": each, "parallel.tp": each, "replicas": copies}
                plan |= {"batching.sequences": cap, "batching.step_tokens": 2048}
                data = question()
                became = next(iter(api.outcomes(data, set={f"workload.{key}": one for key, one in plan.items()})))
                assert isinstance(became, Result)
                out[each, each, cap, copies] = became
    return out


@pytest.mark.parametrize(
    "objective",
    [
        "tokens_per_s_per_accelerator",
        "accelerators",
        pytest.param("tokens_per_joule", marks=SLOW),
        pytest.param("dollars_per_token", marks=SLOW),
    ],
)
def test_the_winner_is_that_of_serving_every_plan(every, objective: str) -> None:
    found = search(question(), over=OVER, keep=4, objective=objective)
    assert isinstance(found, ServiceResult)
    slo = SloSpec(**PLAIN["slo"])
    good = [one for one in every.values() if kept(one, slo)]
    assert 3 < len(good) < len(every), "a case that asks for something"
    wanted = min(score(one, OBJECTIVES[objective]) for one in good)
    assert found.kept(found.best)
    assert found.score(found.best) == pytest.approx(wanted, rel=1e-12)
    assert found.counts.simulated < len(every)
    # so short a run has its beginning and its end in it; what is refused for its load does not keep up
    assert abs(found.priced_error).max() < 0.2
    # no run gives more than what prunes
    most = dict(zip(found.table["run"], found.table["tokens_most"], strict=True))
    runs = [one for one in found.results.results if one.run in most]
    assert len(runs) >= 4 and all(one.metric("output_tokens_per_s") <= most[one.run] for one in runs)
    rows = {
        (int(a), int(t), int(s), int(r))
        for a, t, s, r in zip(
            *(found.table[key] for key in ("accelerators", "parallel.tp", "batching.sequences", "replicas")),
            strict=True,
        )
    }
    assert not any(kept(one, slo) for key, one in every.items() if key not in rows)


def test_every_plan_is_counted_once() -> None:
    found = search(question(), over=OVER, keep=2)
    counts = found.counts
    assert counts.plans == 2 * 2 * 2 * 4
    assert sum(counts.refused.values()) + counts.priced == counts.plans
    assert counts.simulated + counts.pruned + counts.left + counts.unfit == counts.priced == len(found.table["run"])
    assert {"sizes do not go together", "the same plan as another", "more accelerators than there are"} <= set(
        counts.refused
    )
    assert counts.refused["cannot keep up with what comes"] > 0


def test_nothing_is_served_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "found"
    first = search(question(), over=OVER, keep=2, out=out)
    first.save(out)
    monkeypatch.setattr(api, "_each", lambda runs, *_: iter(()) if not runs else pytest.fail("served again"))
    again = search(question(), over=OVER, keep=2, out=out)
    assert again.data() == first.data()
    read = load(out)
    assert isinstance(read, ServiceResult)
    assert read.data() == first.data() and read.best.metrics == first.best.metrics
    assert list(read.front()) == list(first.front()) and len(read.plans) == len(first.table["run"])


def test_pools_of_their_own_are_weighed_against_one() -> None:
    over = {
        "pools": [1, 2],
        "accelerators": [1, 2],
        "tp": [1, 2],
        "step_tokens": [2048],
        "sequences": [64],
        "replicas": [1, 2],
    }
    found = search(question(), over=over, keep=6, objective="accelerators")
    forms = {"prefill.replicas" in found.plan_of(one) for one in found.results.results if one.run != found.given}
    assert forms == {True, False}
    assert found.counts.plans == 2 * 2 * 1 * 2 + (2 * 2 * 2) ** 2
    # each plan as it is told, on as many accelerators
    for one in found.results.results:
        plan = found.plan_of(one)
        if "prefill.replicas" in plan:
            assert one.accelerators == sum(
                plan[f"{p}.replicas"] * plan[f"{p}.accelerators"] for p in ("prefill", "decode")
            )
    assert set(found.points["prefill.accelerators"]) >= {""}


@SLOW
def test_users_of_a_closed_loop_are_shared_out() -> None:
    closed = question(arrivals={"process": "closed", "concurrency": 16, "requests": 64}, slo=None)
    over = {**OVER, "sequences": [16], "replicas": [1, 2]}
    found = search(closed, over=over, keep=2)
    best = min(search(closed, over=over, keep=30).results.results, key=found.score)
    assert found.score(found.best) == found.score(best)
    assert abs(found.priced_error).max() < 0.2


def test_what_cannot_be_promised_is_said() -> None:
    with pytest.raises(InfeasibleError, match=r"none of .* plans goes: .*no token comes in time, even alone"):
        search(question(slo={"ttft_s": 1, "tpot_s": 0.0005}), over=OVER, keep=2)
    fast = {"process": "poisson", "rate_per_s": 3000, "requests": 50}
    with pytest.raises(InfeasibleError, match=r"cannot keep up with what comes.*A perfect system takes [\d.]+ acc"):
        search(question(arrivals=fast), over=OVER, keep=2)


def test_a_promise_that_nobody_keeps_names_who_misses_it_least() -> None:
    found = search(
        question(slo={"ttft_s": 0.08, "tpot_s": 0.0055, "attainment": 1.0}), over={**OVER, "tp": [2]}, keep=2
    )
    runs = [one for one in found.results.results if one.run != found.given]
    assert not any(map(found.kept, runs)) and found.counts.simulated >= 2


def test_a_perfect_system_needs_no_more() -> None:
    """Its parts by hand: bytes, products and room of an 8B model."""
    scenario = load_scenario(question(lengths={"prompt_tokens": 1024, "output_tokens": 65}))
    one = scenario.runs[0]
    system = api.Machines()(one)
    model = load_model("llama-3.1-8b")
    mix = Traffic.of(draw.asked(one.spec, seed=0, base=None), one.spec, keeps=False)
    least = least_machine(one.spec, system, model, mix.mix, 100.0, first=mix.first)
    flying = 100.0 * 64 * least.token_s
    context = 1024 + 65 / 2
    cached_B = flying * round(context) * model.kv_bytes_per_token(2)
    weights_B = (model.total_parameters - model.embedding_parameters) * 2
    chip = system.accelerator
    assert least.parts["HBM"] == pytest.approx(
        (weights_B + cached_B) / least.token_s / chip.memory_GBps / 1e9, rel=2e-3
    )
    assert least.parts["memory"] == pytest.approx(
        (model.total_parameters * 2 + cached_B) / chip.memory_GB / chip.memory_reported / 1e9, rel=1e-3
    )
    tokens = 2 * model.matmul_parameters * (64 + 1024) + model.attention_flops_per_token(1024) * 1024
    peak = chip.peak_TFLOPps["bf16"] * 1e12
    # of a prompt one token needs the head
    assert least.parts["compute"] == pytest.approx(100.0 * tokens / peak, rel=0.12)
    assert least.whole >= 1 and least.accelerators == max(least.parts.values())


def test_what_a_cache_finds_at_most_is_what_one_without_end_finds() -> None:
    chance = np.random.default_rng(3)
    rows = [[int(one) * 10 + n for n in range(int(count))] for one, count in chance.integers(1, 6, (40, 2))]
    ptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    prompt = np.array([16 * len(row) + int(chance.integers(0, 16)) for row in rows])
    prefix = Prefix(ptr, np.array([block for row in rows for block in row]))
    asked = Questions(prompt, np.ones(40, np.int64), np.arange(40), prefix, 16)
    cache = Prefixes(Beginnings(prefix), 16, 10**6, prompt.tolist())
    found = [cache.take(one, 0)[0] for one in range(40)]
    assert best_found(asked).tolist() == found and max(found) > 16
    some = Questions(prompt[:9], np.ones(9, np.int64), np.arange(9), prefix, 16)
    assert best_found(some).tolist() == found[:9]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "step_time"}, "no such objective"),
        ({"over": {"tpp": [1]}}, "no such axis. Did you mean 'tp'?"),
        ({"over": {"tp": 4}}, "expected a list of values"),
        ({"over": {"pools": [3]}}, "Allowed: 1, 2"),
        ({"over": {"decode.tp": [0]}}, "search.axes.decode.tp"),
        ({"over": {"attention": ["pp"]}}, "search.axes.attention"),
    ],
)
def test_bad_questions(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        search(question(), **options)
    assert said in str(error.value)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # stdout is no screen
    Path("q.yaml").write_text(json.dumps({**question(), "search": {"keep": 1, "axes": OVER}}))
    done = CliRunner().invoke(app, ["search", "q.yaml", "--axis", "tp=[1, 2]", "--out", "found", "-j", "1"])
    assert done.exit_code == 0, done.output
    assert Path("found/report.txt").read_text() == done.stdout
    for words in ("best by tokens/s per accelerator", "why it wins", "a perfect system", "cannot keep up", "front of"):
        assert words in done.stdout
    drawn = CliRunner().invoke(app, ["plot", "pareto", "found", "--out", "f.png"])
    assert drawn.exit_code == 0 and Path("f.png").stat().st_size > 10_000
    refused = CliRunner().invoke(app, ["plot", "search", "found"])
    assert refused.exit_code == 2 and "`cmsim plot pareto` draws it" in refused.stderr
    printed = CliRunner().invoke(app, ["search", "q.yaml", "--axis", "tp=[2]", "--json", "--quiet", "-j", "1"])
    said = json.loads(printed.stdout)
    assert said["best"]["kept"] and said["best"]["plan"]["parallel.tp"] == 2 and said["gap"] > 1
