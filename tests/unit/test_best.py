"""`best` as a value: the planner tries what a key may be, and takes what the metric says."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim import api, engine, kinds, results
from cmsim.cli import tables
from cmsim.cli.app import app
from cmsim.errors import InfeasibleError, InputError
from cmsim.execution import played
from cmsim.kinds.common import OVER_TIME
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.scenario import SystemEntry, load_scenario, words

DECODE = {
    "kind": "decode",
    "model": "deepseek-r1",
    "batch_per_accelerator": 32,
    "context_tokens": 4096,
    "parallel": {"ep": "max", "attention": "dp"},
    "precision": {"weights": "fp8", "activations": "fp8"},
}
TRAINING = {
    "kind": "training",
    "model": "llama-3.1-8b",
    "sequence_length": 4096,
    "global_batch": 64,
    "parallel": {"tp": 2},
}


def decode(system="gb200_nvl72", sweep=None, **changes):
    data = {"systems": [system], "workload": {**DECODE, **changes}}
    return data | ({"sweep": sweep} if sweep else {})


def one_of(data):
    (result,) = cmsim.run(data)
    return result


# the choice


@pytest.mark.parametrize("batch", [8, 512])
def test_the_better_number_of_micro_batches_wins_at_every_point(batch):
    fixed = {n: one_of(decode(microbatches=n, batch_per_accelerator=batch)) for n in (1, 2)}
    found = one_of(decode(microbatches="best", batch_per_accelerator=batch))
    better = max(fixed, key=lambda n: fixed[n].metric("tokens_per_s"))
    assert found.chosen == {"microbatches": better}
    assert found.metrics == fixed[better].metrics
    for kind in results.FRAMES:
        for name, column in found.columns[kind].items():
            assert column.tolist() == fixed[better].columns[kind][name].tolist()


def test_the_choice_differs_by_point():
    found = cmsim.run(decode(microbatches="best", sweep={"workload.batch_per_accelerator": [8, 512]}))
    assert [result.chosen["microbatches"] for result in found] == [1, 2]


def test_every_size_that_ranks_and_model_allow_is_tried():
    data = {"systems": ["hgx_h100"], "workload": {**TRAINING, "parallel": {"tp": "best", "pp": "best"}}}
    found = one_of(data)
    rates = {}
    for tp, pp in itertools.product((1, 2, 4, 8), repeat=2):
        every = cmsim.run({**data, "workload": {**TRAINING, "parallel": {"tp": tp, "pp": pp}}})
        if every.results:
            rates[tp, pp] = every[0].metric("tokens_per_s")
    assert 4 < len(rates) < 16  # tp x pp must divide eight ranks
    best = max(rates, key=rates.__getitem__)
    assert found.chosen == {"parallel.tp": best[0], "parallel.pp": best[1]}
    assert found.metric("tokens_per_s") == rates[best]


def test_sizes_follow_the_model():
    run = load_scenario(decode(parallel={"tp": "best", "ep": "best", "pp": "best", "attention": "tp"})).runs[0]
    tried = [candidate.chosen for candidate in api.candidates(run, api.Machines())]
    stages = sorted({chosen["parallel.pp"] for chosen in tried})
    assert stages == [n for n in range(1, 62) if 72 % n == 0]  # divide 72 ranks, 61 layers
    assert [1, 2, 4, 8] == sorted({chosen["parallel.tp"] for chosen in tried})  # divide 128 heads and 72 ranks
    assert max(chosen["parallel.ep"] for chosen in tried) == 72
    dense = load_scenario(decode(model="llama-3.1-8b", parallel={"ep": "best"})).runs[0]
    assert [one.chosen for one in api.candidates(dense, api.Machines())] == [{"parallel.ep": 1}]


def test_infeasible_candidates_drop_out():
    # without recomputation the activations of a long sequence do not fit
    long = {**TRAINING, "sequence_length": 196608, "global_batch": 8, "parallel": {"tp": 8}}
    fits = {
        how: bool(cmsim.run({"systems": ["hgx_h100"], "workload": {**long, "recompute": how}}).results)
        for how in ("none", "selective", "full")
    }
    assert fits == {"none": False, "selective": False, "full": True}
    found = one_of({"systems": ["hgx_h100"], "workload": {**long, "recompute": "best"}})
    assert found.chosen == {"recompute": "full"}


def test_a_format_that_a_chip_lacks_drops_out():
    formats = {"attention": {"best": ["fp4", "bf16"]}}
    found = one_of(decode("hgx_h200", model="llama-3.1-8b", parallel={}, precision=formats))
    assert found.chosen == {"precision.attention": "bf16"}


def test_where_no_candidate_is_possible_the_nearest_budget_is_told():
    results = cmsim.run(decode("hgx_h100", microbatches="best", parallel={"ep": {"best": [1, 8]}, "attention": "dp"}))
    (missing,) = results.missing
    assert missing.message.startswith(
        "none of 4 choices is possible; nearest with parallel.ep 8, microbatches 2: the model does not fit: "
    )
    fixed = cmsim.run(decode("hgx_h100", microbatches=2, parallel={"ep": 8, "attention": "dp"}))
    assert missing.budget == fixed.missing[0].budget


def test_equally_good_values_go_to_the_first():
    # a dense model has no experts whose exchange could be overlapped
    for values in ([True, False], [False, True]):
        data = {"systems": ["hgx_h100"], "workload": {**TRAINING, "overlap_experts": {"best": values}}}
        assert one_of(data).chosen == {"overlap_experts": values[0]}


@pytest.mark.parametrize("metric", ["energy_per_token_J", "tpot_s", "power_avg_W", "memory_peak_B"])
def test_another_metric_decides(metric):
    values = {n: one_of(decode(microbatches=n)).metric(metric) for n in (2, 1)}
    best = (max if kinds.get("decode").more_is_better(metric) else min)(values, key=lambda n: values[n])
    found = one_of(decode(microbatches={"best": [2, 1], "of": metric}))
    assert found.chosen == {"microbatches": best}
    assert found.metric(metric) == values[best]


def test_a_key_of_the_system_may_be_left_open():
    entry = {"system": "cloudmatrix384", "accelerators": 32, "rank": "best"}
    data = {
        "systems": [entry],
        "workload": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e9, "ranks": 32},
    }
    times = {
        rank: one_of({**data, "systems": [{**entry, "rank": rank}]}).metric("time_s") for rank in ("die", "package")
    }
    assert times["die"] != times["package"]
    found = one_of(data)
    assert found.chosen == {"system.rank": min(times, key=times.__getitem__)}
    assert found.metric("time_s") == min(times.values())


def test_per_system_and_sweeps_and_settings_may_leave_keys_open():
    data = decode()
    data["workload"]["per_system"] = {"gb200_nvl72": {"microbatches": "best"}}
    assert one_of(data).chosen
    swept = cmsim.run(decode(sweep={"workload.microbatches": [1, 2, "best"]}))
    assert [len(result.chosen) for result in swept] == [0, 0, 1]
    assert swept[2].metric("tokens_per_s") == max(result.metric("tokens_per_s") for result in swept)
    assert cmsim.run(decode(), set={"workload.microbatches": "best"})[0].chosen


def test_the_algorithm_of_a_collective_keeps_its_own_best():
    data = {
        "systems": ["hgx_h100"],
        "workload": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6},
    }
    own = one_of({**data, "workload": {**data["workload"], "algorithm": "best"}})
    assert not own.chosen
    listed = one_of({**data, "workload": {**data["workload"], "algorithm": {"best": ["ring", "double_tree"]}}})
    assert listed.chosen["algorithm"] in ("ring", "double_tree") and listed.metric("time_s") >= own.metric("time_s")


# data and tables


def test_the_choice_is_kept(tmp_path):
    found = cmsim.run(decode(microbatches="best"), out=tmp_path / "out")
    document = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert document["results"][0]["chosen"] == found[0].chosen
    assert document["scenario"]["workloads"]["decode"]["microbatches"] == "best"
    again = cmsim.Results.load(tmp_path / "out")
    assert again[0].chosen == found[0].chosen and again[0].kind == "decode"
    assert again.table()[0]["microbatches"] == found[0].chosen["microbatches"]


def test_tables_say_what_won(tmp_path, monkeypatch):
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps(decode(microbatches="best", sweep={"workload.batch_per_accelerator": [8, 512]})))
    monkeypatch.setenv("COLUMNS", "140")
    wide = CliRunner().invoke(app, ["run", str(file)]).stdout
    rows = [line.split()[1:3] for line in wide.splitlines() if line.startswith("gb200")]
    assert rows == [["8", "1"], ["512", "2"]] and "batches" in wide
    monkeypatch.setenv("COLUMNS", "99")
    narrow = " ".join(CliRunner().invoke(app, ["run", str(file)]).stdout.split())
    assert "decode: best microbatches: 1 on gb200_nvl72 (8); 2 on gb200_nvl72 (512)" in narrow


def test_keys_that_end_alike_have_heads_of_their_own():
    chosen = {"precision.weights": "fp8", "system.set.gemm.weights": 0.5, "microbatches": 2}
    columns = tables._decided_columns([dataclasses.replace(one_of(decode()), chosen=chosen)])
    said = ["".join(head.split()) for head, _ in columns]
    assert said == ["bestprecision.weights", "bestgemm.weights", "bestmicro-batches"]


def test_the_same_bytes_twice(tmp_path):
    for name in "ab":
        cmsim.run(decode(microbatches="best", parallel={"ep": "best", "attention": "best"}), out=tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_check_is_content_with_one_that_is_possible(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps(decode(parallel={"ep": {"best": [5, 72]}, "attention": "dp"})))
    assert CliRunner().invoke(app, ["check", str(file)]).exit_code == 0
    file.write_text(json.dumps(decode(parallel={"ep": {"best": [5, 7]}, "attention": "dp"})))
    assert CliRunner().invoke(app, ["check", str(file)]).exit_code == 1


# the cost: losers are stopped


def plans(**changes):
    machines = api.Machines()
    run = load_scenario(decode(**changes)).runs[0]
    for candidate in api.candidates(run, machines):
        done = played.play(candidate, machines(candidate), None)
        yield done.plan, done.timeline.makespan_ps


def test_a_plan_is_played_no_longer_than_the_limit():
    for plan, makespan_ps in plans(microbatches="best"):
        assert engine.play_within(plan, makespan_ps).makespan_ps == makespan_ps
        assert engine.play_within(plan, makespan_ps - 1) is None
        assert engine.play_within(plan, 1) is None
        assert engine.play_within(plan, None).makespan_ps == makespan_ps
        assert 0 < engine.least_ps(plan) <= makespan_ps


def test_nothing_is_recorded_of_losers(monkeypatch):
    made = []
    inner = played.record.ops_columns
    monkeypatch.setattr(played.record, "ops_columns", lambda *given: made.append(1) or inner(*given))
    one_of(decode(microbatches="best"))
    assert len(made) == 1


# bad input


def wrong(tmp_path, text):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        cmsim.run(file, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


TEXT = """\
systems:
  - system: hgx_h100
    {system}
workload:
  kind: decode
  model: llama-3.1-8b
  batch_per_accelerator: {batch}
  context_tokens: 4096
  microbatches: {microbatches}
  parallel:
    tp: {tp}
"""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": "best"}, "s.yaml:7: workload.batch_per_accelerator: got 'best', but the key takes more values"),
        ({"tp": "{best: []}"}, "s.yaml:11: workload.parallel.tp: best: expected a list of values to try, got []"),
        ({"tp": "{best: 4}"}, "s.yaml:11: workload.parallel.tp: best: expected a list of values to try, got 4"),
        ({"tp": "{best: [1], by: mfu}"}, "s.yaml:11: workload.parallel.tp: unknown key 'by' beside 'best'"),
        ({"microbatches": "{best: [1, 3]}"}, "s.yaml:9: workload.microbatches: best: must be less than or equal to 2"),
        (
            {"microbatches": "{best: [1, 2], of: tpot}"},
            "s.yaml:9: workload.microbatches.of: a decode has no metric 'tpot' to decide by. Did you mean 'tpot_s'?",
        ),
        (
            {"microbatches": "{best: [1, 2], of: tpot_s}", "tp": "{best: [1, 2], of: energy_J}"},
            "s.yaml:11: workload.parallel.tp.of: got energy_J, but 'microbatches' is decided by tpot_s",
        ),
        ({"system": "accelerators: best"}, "s.yaml:3: systems[0].accelerators: got 'best', but the key takes more"),
        ({"system": "rank: {best: [die, dice]}"}, "s.yaml:3: systems[0].rank: best: got 'dice'. Did you mean 'die'?"),
        ({"system": "stack: {best: []}"}, "s.yaml:3: systems[0].stack: best: expected a list of values to try"),
    ],
)
def test_what_cannot_be_left_open_is_told_with_its_place(tmp_path, changes, says):
    usual = {"system": "rank: package", "batch": "8", "microbatches": "1", "tp": "1"}
    text = TEXT
    for key, value in {**usual, **changes}.items():
        text = text.replace(f"{{{key}}}", value)
    found = wrong(tmp_path, text)
    assert len(found) == 1 and found[0].startswith(says), found
    assert "Allowed: " in found[0] or "must be" in found[0]


def test_all_at_once(tmp_path):
    text = TEXT
    for key, value in {"system": "rank: {best: []}", "batch": "best", "microbatches": "{best: [7]}", "tp": "x"}.items():
        text = text.replace(f"{{{key}}}", value)
    assert [line.split(": ")[1] for line in wrong(tmp_path, text)] == [
        "systems[0].rank",
        "workload.batch_per_accelerator",
        "workload.microbatches",
    ]


def test_what_is_asked_is_not_left_open(tmp_path):
    found = wrong(tmp_path, "systems: [hgx_h100]\nworkload: {kind: collective, collective: best, message_bytes: 1e6}\n")
    assert found == [
        "s.yaml:2: workload.collective: says what is asked or assumed, not how it is done. Allowed: one of its values."
    ]


# what the reference says


def test_the_words_of_the_reference():
    assert {"microbatches", "parallel.tp", "parallel.attention", "precision.weights"} <= set(words(DecodeSpec))
    assert {"recompute", "overlap_experts", "zero_stage", "parallel.pp"} <= set(words(TrainingSpec))
    assert "balance.model" not in set(words(DecodeSpec)) and "model" not in set(words(DecodeSpec))
    assert list(words(SystemEntry)) == ["rank"]
    printed = CliRunner().invoke(app, ["schema", "scenario"]).stdout
    assert "### best" in printed and "`parallel.tp`" in printed


RUNS = {
    "collective": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6},
    "decode": {**DECODE, "model": "llama-3.1-8b", "parallel": {}},
    "prefill": {"kind": "prefill", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "prompt_tokens": 512},
    "training": TRAINING,
    "images": {"kind": "training", "model": "resnet50", "global_batch": 64},
    "encoder": {"kind": "encoder", "model": "resnet50", "batch_per_accelerator": 8},
    "diffusion": {"kind": "diffusion", "model": "flux.1-dev", "batch_per_accelerator": 1, "steps": 2},
    "trace": {"kind": "trace", "path": "chakra/resnet50_ddp_rank0", "ranks": 8},
    "serving": {
        "kind": "serving",
        "model": "llama-3.1-8b",
        "arrivals": {"process": "poisson", "rate_per_s": 20, "requests": 30},
        "lengths": {"prompt_tokens": 512, "output_tokens": 16},
        "turns": {"count": 2},
        "batching": {"step_tokens": 1024, "sequences": 16, "prefix_share": 0.2},
        "slo": {"ttft_s": 1, "tpot_s": 0.1},
        "goodput": True,
        "accelerators": 2,
        "replicas": 2,
        "cache_pool": {"memory_GB": 10, "over": "scale_out"},
        "autoscale": {"target": 4, "weights_from": "storage", "storage_GBps": 50},
    },
    "failing": {
        "kind": "serving",
        "model": "llama-3.1-8b",
        "arrivals": {"process": "poisson", "rate_per_s": 20, "requests": 60},
        "lengths": {"prompt_tokens": 512, "output_tokens": 16},
        "accelerators": 2,
        "replicas": 2,
        "failures": {"storage_GBps": 50, "events": [{"at_s": 1, "takes": "replica", "repair_s": 0.2}]},
    },
    "rl_step": {
        "kind": "rl_step",
        "model": "llama-3.1-8b",
        "prompts": 4,
        "samples": 2,
        "prompt_tokens": 128,
        "answers": {"mean": 16, "cv": 0, "most": 32},
        "rollout": {"accelerators": 2, "parallel": {"tp": 2}, "batching": {"sequences": 8, "step_tokens": 1024}},
        "training": {"sequence_length": 256, "global_batch": 8, "parallel": {"tp": 2}, "recompute": "full"},
    },
    "reliability": {
        "kind": "reliability",
        "training": {key: value for key, value in TRAINING.items() if key != "kind"},
        "causes": {"any": {"part": "job", "mtbf_h": 30}},
        "work_days": 3,
        "runs": 20,
    },
    "jobs": {
        "kind": "jobs",
        "jobs": [{"accelerators": 4, "seconds": 100}, {"accelerators": 4, "seconds": 50}],
        "services": {"chat": {"accelerators": [[0, 2]]}},
    },
}


def test_metrics_that_may_decide_are_metrics_that_runs_have():
    of_kind: dict[str, set[str]] = {}
    for result in cmsim.run({"systems": ["hgx_h100"], "workloads": RUNS}):
        of_kind.setdefault(result.kind, set()).update(result.metrics)
        name, value = results.decisive(
            result.kind, {key: value for key, value in result.metrics.items() if not isinstance(value, str)}, None
        )
        assert name in result.declared.deciding and math.isfinite(value)
    assert of_kind.keys() == set(kinds.names())
    # a trace whose samples are not known, what needs no price, and what `power.over_time` and
    # `cost` ask for are left out of it
    asked = {metric.name for metric in OVER_TIME} | {"cost_per_training_run_USD"}
    missing = {kind: set(kinds.get(kind).deciding) - found - asked for kind, found in of_kind.items()}
    assert {kind: names for kind, names in missing.items() if names and kind != "trace"} == {}


def test_a_metric_the_run_lacks_is_told():
    images = {**RUNS["images"], "zero_stage": {"best": [0, 1], "of": "tokens_per_s"}}
    with pytest.raises(InputError, match="no metric 'tokens_per_s' to choose by"):
        cmsim.run({"systems": ["hgx_h100"], "workload": images})


def test_an_infeasible_set_raises_where_it_is_asked_for():
    with pytest.raises(InfeasibleError, match="none of 2 choices"):
        cmsim.run(decode("hgx_h100", microbatches="best"))[0]
