"""Searches: every plan counted, priced near what it simulates to, never below its bound; the winner that of all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cmsim import api, engine
from cmsim.cli.app import app
from cmsim.engine import plans
from cmsim.errors import InfeasibleError, InputError
from cmsim.execution import options_of
from cmsim.results import Result
from cmsim.scenario import load_scenario
from cmsim.search import OBJECTIVES, SearchResult, axes, price, probes, questions, search
from cmsim.search.axes import Question
from cmsim.search.price import pipeline_s
from cmsim.search.space import Space, space
from cmsim.workload import generate
from cmsim.workload.model import load_model
from cmsim.workload.schedules import GPipe, Interleaved, OneForwardOneBackward, ZeroBubbleH1

#: few layers, so that all plans of a box can be simulated
CONFIG = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
OVER: Mapping[str, Any] = {
    "micro_batch": [1, 2, 4],
    "cp": [1],
    "recompute": ["none", "full"],
    "zero_stage": [1],
    "sequence_parallel": [True],
}


#: a system file that does not say what an hour costs
RENT = {"facility.price_per_accelerator_hour_USD": None}


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "eight.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return str(path)


def question(model: str, **changes: Any) -> dict[str, Any]:
    workload = {"kind": "training", "model": model, "sequence_length": 2048, "global_batch": 32, **changes}
    return {"systems": ["hgx_a100"], "workload": workload}


def settled(data: dict[str, Any], over: Mapping[str, Any]) -> tuple[Space, Question]:
    scenario = load_scenario(data)
    one = scenario.runs[0]
    asked = Question(one.spec, api.Machines(scenario.base)(one), load_model(one.spec.model))  # type: ignore[arg-type]
    made = space(asked, axes.values_of(asked, over), None)
    price.price(made, probes.measure(one, asked, price.wanted(made), jobs=1, progress=None))
    return made, asked


def whole(data: dict[str, Any], plan: Mapping[str, Any]) -> Result:
    became = next(iter(api.outcomes(data, set={f"workload.{key}": value for key, value in plan.items()})))
    assert isinstance(became, Result), became
    return became


@pytest.mark.slow
def test_the_winner_is_that_of_simulating_every_plan(model: str) -> None:
    data = question(model)
    found = search(data, over=OVER, keep=4)
    made, _ = settled(data, OVER)
    every = {}
    for number, block in enumerate(made.blocks):
        for at in np.flatnonzero(block.goes.ravel()).tolist():
            result = whole({**data, "record": "summary"}, made.plan(block, at))
            time_s, bound_s = (float(column.ravel()[at]) for column in (block.time_s, block.bound_s))
            every[number, at] = result.metric("step_time_s")
            assert bound_s <= every[number, at] * (1 + 1e-9), made.plan(block, at)
            assert time_s == pytest.approx(every[number, at], rel=0.12), made.plan(block, at)
            # weighed whole it holds as much
            assert float(block.memory_B.ravel()[at]) == pytest.approx(result.metric("memory_peak_B"), rel=1e-9)
    assert len(every) == found.counts.priced > 40
    assert found.best.metric("step_time_s") == min(every.values())
    assert found.counts.simulated < len(every) / 3


def test_every_plan_is_counted_once(model: str) -> None:
    found = search(question(model), over={**OVER, "zero_stage": [0, 3]}, keep=2)
    counts = found.counts
    assert counts.plans == math.prod(len(values) for values in found.axes.values())
    assert sum(counts.refused.values()) + counts.priced - counts.unfit == counts.plans
    assert counts.simulated + counts.pruned + counts.left + counts.unfit == counts.priced
    assert {"sizes do not divide the ranks", "the same plan as another"} <= set(counts.refused)
    goes = np.isin(found.table["outcome"], ("priced", "simulated"))
    assert goes.sum() == counts.priced and (found.table["headroom_B"][goes] >= 0).all()
    assert (found.table["headroom_B"][found.table["outcome"] == "memory"] < 0).all()


def test_what_does_not_fit_is_refused_when_made_whole(model: str) -> None:
    made, asked = settled(question(model, global_batch=512), {"micro_batch": [64], "recompute": ["none"]})
    names = made.counts()
    assert names["does not fit the memory"] > 0
    for block in made.blocks:
        for at in np.flatnonzero(block.memory_B.ravel() > asked.system.rank_memory_B)[:1].tolist():
            became = next(
                iter(
                    api.outcomes(
                        question(model, global_batch=512),
                        set={f"workload.{key}": value for key, value in made.plan(block, at).items()},
                    )
                )
            )
            assert became.run and not isinstance(became, Result) and became.data["what"] == "memory"


def test_nothing_is_simulated_twice(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "found"
    first = search(question(model), over=OVER, keep=2, out=out)
    first.save(out)
    table = (out / "plans.parquet").read_bytes()
    monkeypatch.setattr(api, "evaluate", lambda *_, **__: pytest.fail("simulated again"))
    again = search(question(model), over=OVER, keep=2, out=out)
    again.save(out)
    assert (out / "plans.parquet").read_bytes() == table
    assert again.data() == first.data()
    read = SearchResult.load(out)
    assert read.data() == first.data() and read.best.metrics == first.best.metrics
    assert list(read.front()) == list(first.front()) and len(read.plans) == len(read.table["outcome"])


def test_front_is_of_plans_that_none_beats(model: str) -> None:
    found = search(question(model), over=OVER, keep=2)
    front, time_s, left_B = found.front(), found.expected_s, found.table["headroom_B"]
    for row in np.flatnonzero(np.isfinite(time_s)).tolist():
        better = (time_s[front] <= time_s[row]) & (left_B[front] >= left_B[row])
        assert better.any()
        assert row in front or (better & ((time_s[front] < time_s[row]) | (left_B[front] >= left_B[row]))).any()
    assert found.terms()[0][0] in found.best.breakdown


@pytest.mark.parametrize(("objective", "sign"), [("tokens_per_joule", -1), ("step_time", 1)])
def test_objectives_order_what_is_simulated(model: str, objective: str, sign: int) -> None:
    found = search(question(model), over={**OVER, "pp": [1, 2]}, keep=3, objective=objective)
    metric = OBJECTIVES[objective].metric
    values = [sign * one.metric(metric) for one in found.results.results if one.run != found.given]
    assert values == sorted(values) and len(values) >= 3


def test_modules_that_are_recomputed_are_values(model: str, tmp_path: Path) -> None:
    over = {**OVER, "recompute": [["mlp"], "full"], "tp": [2], "pp": [2], "micro_batch": [2]}
    found = search(question(model), over=over, keep=2)
    assert {*found.table["recompute"]} == {"mlp", "full"} and found.counts.simulated == 2
    found.save(tmp_path / "found")
    assert SearchResult.load(tmp_path / "found").data() == json.loads(json.dumps(found.data()))


def test_the_given_plan_is_beside_the_best(model: str) -> None:
    found = search(question(model, parallel={"tp": 8}, recompute="full"), over=OVER, keep=1)
    given = found.results[found.given]
    assert given.metric("step_time_s") > found.best.metric("step_time_s")
    missing = search(question(model, parallel={"tp": 3}), over=OVER, keep=1)
    assert not missing.given and "3" in missing.given_why


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({}, {"objective": "cheapest"}, "no such objective. Allowed: dollars_per_token, step_time, tokens_per_joule"),
        ({}, {"over": {"tpp": [1]}}, "no such axis. Did you mean 'tp'?"),
        ({}, {"over": {"tp": []}}, "expected a list of values"),
        ({}, {"over": {"recompute": ["some"]}}, "search.axes.recompute"),
        ({}, {"over": {"zero_stage": [7]}}, "search.axes.zero_stage"),
        ({"sequence_length": 0}, {}, "required for a model of text"),
        ({"parallel": {"tp": "best"}}, {}, "leaves parallel.tp to `best`"),
    ],
)
def test_bad_questions(model: str, changes: dict[str, Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        search(question(model, **changes), **options)
    assert said in str(error.value)


def test_money_needs_a_rent(model: str) -> None:
    found = search(question(model), over={**OVER, "tp": [2, 4]}, keep=2, objective="dollars_per_token")
    assert found.best.metric("cost_per_Mtoken_USD") <= found.results.results[1].metric("cost_per_Mtoken_USD")
    without = {**question(model), "systems": [{"system": "hgx_a100", "set": RENT}]}
    with pytest.raises(InputError, match="price_per_accelerator_hour_USD"):
        search(without, over=OVER, objective="dollars_per_token")


def test_other_workloads_have_no_plans_to_search() -> None:
    data = {
        "systems": ["hgx_a100"],
        "workload": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6},
    }
    with pytest.raises(InputError, match="no workload to search a plan for"):
        questions(data)


def test_no_plan_at_all_says_which_is_nearest(model: str) -> None:
    with pytest.raises(InfeasibleError) as error:
        search(question(model, global_batch=4096), over={**OVER, "micro_batch": [512], "recompute": ["none"]})
    said = str(error.value)
    assert "none of" in said and "does not fit the memory" in said and "Nearest: tp 8, cp 1, pp 1, dp 1" in said
    assert error.value.budget["needed_B"] > error.value.budget["available_B"]
    with pytest.raises(InfeasibleError, match="micro_batch x dp does not divide the batch") as error:
        search(question(model), over={"micro_batch": [3]})
    assert "micro_batch: those that divide are 1, 2, 4, 8, 16, 32" in str(error.value)


def test_a_space_too_large_is_refused(model: str) -> None:
    data = question(model, global_batch=2**12)
    data["systems"] = [{"system": "hgx_a100", "domains": 4096}]
    with pytest.raises(InputError, match=r"plans; allowed: up to .* Restrict an axis"):
        search(data, over={"sequence_parallel": [True, False], "tp": list(range(1, 30000))})


def test_programs_planned_together_are_as_those_planned_alone(model: str) -> None:
    scenario = load_scenario(question(model, parallel={"tp": 2, "pp": 2}))
    one = scenario.runs[0]
    system = api.Machines()(one)
    specs = [axes.at(one.spec, {"micro_batch": n, "recompute": kind}) for n, kind in ((1, "none"), (2, "full"))]  # type: ignore[arg-type]
    specs = [spec.model_copy(update={"global_batch": spec.micro_batch * 2}) for spec in specs]
    programs = [generate.programs(spec, system) for spec in specs]
    options = options_of(one, system)
    for ours, each in zip(plans(programs, system, options), programs, strict=True):
        alone = engine.plan(each, system, options)
        for a, b in zip(ours.hold_ps, alone.hold_ps, strict=True):
            assert (a == b).all()
        assert (ours.bound == alone.bound).all()
        a, b = engine.play(ours), engine.play(alone)
        assert all((x == y).all() for x, y in zip(a.end_ps, b.end_ps, strict=True))


def played_s(schedule: Any, forward: float, backward: float, hop: float = 0.0) -> float:
    """A schedule of equal stages, pass by pass, with nothing but its waits."""
    p, last = schedule.stages, {}
    done: dict[tuple[Any, ...], float] = {}
    seconds = {"F": forward, "B": backward, "I": backward / 2, "W": backward / 2}
    turns = [list(schedule.order(rank)) for rank in range(p)]
    parts = len(schedule.route(0)) // p
    at = [0] * p
    while any(at[rank] < len(turns[rank]) for rank in range(p)):
        before = list(at)
        for rank in range(p):
            while at[rank] < len(turns[rank]):
                (one,) = turns[rank][at[rank]]
                route = schedule.route(one.micro_batch)
                place = route.index((rank, one.virtual))
                if one.kind == "F":
                    needs = [] if not place else [("F", one.micro_batch, place - 1)]
                elif one.kind == "W":
                    needs = [("I", one.micro_batch, place)]
                else:
                    own = [("F", one.micro_batch, place)]
                    needs = own if place == len(route) - 1 else [*own, (one.kind, one.micro_batch, place + 1)]
                if any(need not in done for need in needs):
                    break
                far = [done[need] + (hop if need[2] != place else 0.0) for need in needs]
                begin = max([last.get(rank, 0.0), *far])
                last[rank] = begin + seconds[one.kind] / parts
                done[one.kind, one.micro_batch, place] = last[rank]
                at[rank] += 1
        assert at != before, "ranks wait for each other"
    return max(last.values())


@pytest.mark.parametrize(
    ("schedule", "order"),
    [
        (GPipe(4, 8), {"schedule": "gpipe"}),
        (OneForwardOneBackward(4, 8), {}),
        (OneForwardOneBackward(8, 32), {"schedule": "1f1b"}),
        (Interleaved(4, 16, virtual_stages=2), {"schedule": "interleaved", "parallel.virtual_stages": 2}),
        (Interleaved(8, 32, virtual_stages=3), {"schedule": "interleaved", "parallel.virtual_stages": 3}),
        (ZeroBubbleH1(4, 16), {"schedule": "zb_h1"}),
        (ZeroBubbleH1(8, 1), {"schedule": "zb_h1"}),
        (ZeroBubbleH1(8, 3), {"schedule": "zb_h1"}),
    ],
)
def test_closed_forms_are_those_of_the_orders(schedule: Any, order: dict[str, Any]) -> None:
    p, m = schedule.stages, np.array([float(schedule.micro_batches)])
    forward, backward = np.full((1, p), 1.0), np.full((1, p), 2.0)
    assert pipeline_s(forward, backward, np.zeros(1), m, order)[0] == pytest.approx(played_s(schedule, 1.0, 2.0))
    if schedule.name == "1f1b":
        hop = np.array([0.25])
        with_messages = pipeline_s(forward, backward, hop, m, order)[0]
        assert with_messages == pytest.approx(played_s(schedule, 1.0, 2.0, 0.25), rel=0.03)


def test_the_command(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # stdout is no screen
    Path("q.yaml").write_text(json.dumps({**question(model), "search": {"keep": 2, "axes": dict(OVER)}}))
    done = CliRunner().invoke(app, ["search", "q.yaml", "--axis", "pp=[1, 2]", "--out", "found", "-j", "1"])
    assert done.exit_code == 0, done.output
    assert Path("found/report.txt").read_text() == done.stdout
    for words in ("best by time of a step", "why it wins", "priced, and pruned", "no plan of this space is sooner"):
        assert words in done.stdout
    drawn = CliRunner().invoke(app, ["plot", "search", "found", "--out", "f.png"])
    assert drawn.exit_code == 0 and Path("f.png").stat().st_size > 10_000
    refused = CliRunner().invoke(app, ["plot", "search", "q.yaml"])
    assert refused.exit_code == 2 and "is no folder of a search" in refused.stderr
    printed = CliRunner().invoke(app, ["search", "q.yaml", "--axis", "pp=1", "--json", "--quiet", "-j", "1"])
    said = json.loads(printed.stdout)
    assert said["schema_version"] == 1 and said["order"]
    assert (
        said["counts"]["simulated"] >= 2
        and said["best"]["plan"]["parallel.dp"] * said["best"]["plan"]["parallel.tp"] == 8
    )
