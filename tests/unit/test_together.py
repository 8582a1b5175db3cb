"""Runs made together: the bytes that each gives by itself, whatever stands beside it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim import api, engine, sweep
from cmsim.execution import Machines, together
from cmsim.execution.together import outcomes_of, results_of
from cmsim.reading import builtin_files
from cmsim.reading.look import one_look, seen
from cmsim.results import Result, became
from cmsim.scenario import load_scenario
from cmsim.workload import generate

DECODE: dict[str, Any] = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 4096}
#: of one class of ranks: two of measured kernels, of notes that differ; micro-batches that meet on links; measured
#: calls; and of several classes
DIFFER = {
    "decode": {
        "systems": ["hgx_h100"],
        "workload": DECODE,
        "sweep": {"workload.batch_per_accelerator": [1, 8, 500], "workload.context_tokens": [64, 90000]},
    },
    "prompts": {
        "systems": ["hgx_h200"],
        "workload": {"kind": "prefill", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "prompt_tokens": 64},
        "sweep": {"workload.prompt_tokens": [64, 1000, 30000]},
    },
    "experts": {
        "systems": [{"system": "cloudmatrix384", "accelerators": 32}],
        "workload": {
            **DECODE,
            "model": "mixtral-8x7b",
            "parallel": {"ep": 8, "attention": "dp"},
            "microbatches": 2,
            "speculative": {"draft_tokens": 1, "acceptance": 0.7},
        },
        "sweep": {"workload.batch_per_accelerator": [2, 16, 64]},
    },
    "collective": {
        "systems": ["hgx_h100"],
        "workload": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6, "algorithm": "nccl"},
        "sweep": {"workload.message_bytes": [1e3, 1e6, 1e9], "workload.algorithm": ["nccl", "ring", "best"]},
    },
    "stages": {
        "systems": ["hgx_h100"],
        "workload": {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 2048, "global_batch": 8}
        | {"parallel": {"tp": 2, "pp": 4}},
        "sweep": {"workload.sequence_length": [1024, 2048]},
    },
}


def said(one: Result) -> dict[str, Any]:
    """All of a result, frames as bytes."""
    fields = {name: value for name, value in vars(one).items() if name != "columns"}
    frames = {
        f"{name}.{column}": np.asarray(values).astype("S" if values.dtype == object else values.dtype).tobytes()
        for name, frame in one.columns.items()
        for column, values in frame.items()
    }
    return {**fields, **frames}


@pytest.mark.parametrize("record", ["full", "summary", "none"])
@pytest.mark.parametrize("name", DIFFER)
def test_runs_made_together_are_as_those_made_alone(name: str, record: Any) -> None:
    scenario = load_scenario(DIFFER[name]).recorded(record)
    machines = Machines()
    found = results_of(scenario.runs, machines)
    assert sum(one is not None for one in found) >= 2
    for run, one in zip(scenario.runs, found, strict=True):
        alone = api.evaluate(run, machines)
        assert one is None or (isinstance(alone, Result) and said(one) == said(alone))


def test_kinds_go_apart_and_who_goes_with_nobody_is_made_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = DIFFER["prompts"]["workload"]
    scenario = load_scenario(
        {
            "systems": ["hgx_h100"],
            "workloads": {"decode": DECODE, "prompts": prompts},
            "sweep": {"workloads.decode.batch_per_accelerator": [4, 8]},
        }
    )
    runs = scenario.runs
    written: list[str] = []
    programs = generate.programs
    monkeypatch.setattr(
        generate, "programs", lambda spec, *_, **how: written.append(spec.kind) or programs(spec, *_, **how)
    )
    found = results_of(runs, Machines())
    assert {run.spec.kind for run, one in zip(runs, found, strict=True) if one is not None} == {"decode"}
    assert written == ["decode"] * 2, "programs of others are not held meanwhile"


def test_a_run_that_is_refused_says_so_beside_others_that_are_made() -> None:
    scenario = load_scenario(
        {
            "systems": ["hgx_h100"],
            "workload": DECODE,
            "sweep": {"workload.batch_per_accelerator": [4, 8, 4_000_000, 16]},
        }
    )
    machines = Machines()
    assert [one is None for one in results_of(scenario.runs, machines)] == [False, False, True, False]
    alone = functools.partial(api.evaluate, machines=machines)
    found = [became(one) for one in outcomes_of(scenario.runs, machines, alone)]
    assert found == ["result", "result", "infeasible", "result"]


def test_a_sweep_writes_what_it_writes_where_nothing_is_made_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = sweep.sweep(DIFFER["decode"], out=tmp_path / "together", record="full", jobs=1)
    monkeypatch.setattr(together, "results_of", lambda runs, _: [None] * len(runs))
    alone = sweep.sweep(DIFFER["decode"], out=tmp_path / "alone", record="full", jobs=1)
    assert [one.run for one in ours.outcomes] == [one.run for one in alone.outcomes]
    whole = [
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (tmp_path / "together", tmp_path / "alone")
    ]
    assert whole[0] == whole[1] and len(whole[0]) > 5


def test_scattered_runs_are_not_laid_one_after_the_other() -> None:
    """What scatters is drawn by the number of a row."""
    runs = load_scenario({**DIFFER["decode"], "jitter": {"cv": 0.1}}).runs
    machines = Machines()
    system = machines(runs[0])
    programs = [generate.programs(one.spec, system) for one in runs[:2]]
    assert not engine.fit(programs, api.options_of(runs[0], system))
    found, alone = results_of(runs[:2], machines), [api.evaluate(one, machines) for one in runs[:2]]
    assert [said(one) for one in found if one] == [said(one) for one in alone if isinstance(one, Result)]


def test_one_look_sees_a_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmsim.reading.names.DATA", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "one.yaml").touch()
    with one_look():
        assert list(builtin_files("models")) == ["one"]
        (tmp_path / "models" / "two.yaml").touch()
        with one_look():
            assert list(builtin_files("models")) == ["one"]
    assert list(builtin_files("models")) == ["one", "two"]
    assert seen("x", lambda: 1) == 1 and seen("x", lambda: 2) == 2
