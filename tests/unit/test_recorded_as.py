"""How much is kept of a run: all, all but frames, or what a choice needs. What is kept is the same to the bit."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.execution import played
from cmsim.results import Results

DECODE = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 8, "context_tokens": 4096}
EXPERTS = {
    **DECODE,
    "model": "deepseek-r1",
    "parallel": {"ep": "max", "attention": "dp"},
    "precision": {"weights": "int8", "activations": "int8"},
    "microbatches": "best",
}
TRAIN = {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 2048, "global_batch": 8}
SUM = {"kind": "collective", "collective": "all_reduce", "message_bytes": [1e6, 1e8]}
REPLAY = {"kind": "trace", "path": "chakra/resnet50_ddp_rank0", "ranks": 8}
SCENARIOS: dict[str, dict[str, Any]] = {
    "experts": {"systems": ["cloudmatrix384"], "workload": EXPERTS},
    "training": {"systems": ["hgx_h100"], "workload": {**TRAIN, "parallel": {"tp": 4, "pp": 2}}},
    "jitter": {"systems": ["hgx_h100"], "workload": {**TRAIN, "parallel": {"tp": 8}}, "jitter": {"cv": 0.1}},
    "collective": {"systems": ["hgx_h100"], "workload": SUM},
    "faults": {"systems": ["hgx_h100"], "workload": SUM, "faults": ["switch/0/0"]},
    "replay": {"systems": ["hgx_h100"], "workload": REPLAY},
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_summary_is_a_full_record_without_its_frames(name: str) -> None:
    full = cmsim.run(SCENARIOS[name])
    kept = cmsim.run({**SCENARIOS[name], "record": "summary"})
    for one, other in zip(full, kept, strict=True):
        assert other.summary() == {**one.summary(), "record": "summary", "frames": []}
        assert list(other.metrics.items()) == list(one.metrics.items())
        assert other.facts == one.facts and not other.columns
        assert len(pickle.dumps(other)) < 20_000
    assert kept.metrics.equals(full.metrics)


@pytest.mark.parametrize("name", SCENARIOS)
def test_of_no_record_the_metrics_of_its_length_are_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = cmsim.run(SCENARIOS[name])
    for part in ("ops_columns", "links_columns", "breakdown"):
        monkeypatch.delattr(played.record, part)  # nothing of it is made
    for one, other in zip(full, cmsim.run(SCENARIOS[name], record="none"), strict=True):
        assert other.metrics.items() <= one.metrics.items()
        assert "makespan_s" in other.metrics and "energy_J" not in other.metrics
        assert (other.record, other.limiter, other.breakdown, other.plan, other.warnings) == ("none", "", {}, {}, ())
        assert (other.run, other.accelerators, other.chosen) == (one.run, one.accelerators, one.chosen)


def test_what_decides_is_there_though_nothing_is_recorded() -> None:
    by_energy = {**EXPERTS, "microbatches": {"best": [1, 2], "of": "energy_per_token_J"}}
    full = cmsim.run({"systems": ["cloudmatrix384"], "workload": by_energy})[0]
    kept = cmsim.run({"systems": ["cloudmatrix384"], "workload": by_energy}, record="none")[0]
    assert kept.metrics == full.metrics and kept.chosen == full.chosen
    assert (kept.record, kept.limiter, kept.breakdown, kept.plan) == ("none", "", {}, {})


@pytest.mark.parametrize("frame", ["ops", "links", "power"])
def test_a_frame_that_was_not_kept_is_refused_in_words(frame: str, tmp_path: Any) -> None:
    kept = cmsim.run(SCENARIOS["collective"], record="summary")
    for results in (kept, Results.load(kept.save(tmp_path / "out"))):
        for asked in (results, results[0]):
            with pytest.raises(InputError, match=f"was recorded as summary, without the frame {frame}.*record: full"):
                getattr(asked, frame)
        assert results.summary() == kept.summary()


def test_other_words_are_refused() -> None:
    for ask in (
        lambda: cmsim.run({**SCENARIOS["collective"], "record": "some"}),
        lambda: cmsim.run(SCENARIOS["collective"], record="some"),
    ):
        with pytest.raises(InputError, match="record"):
            ask()


@pytest.mark.parametrize("record", ["summary", "none"])
def test_tables_and_figures_do_with_what_there_is(record: str, tmp_path: Any) -> None:
    scenario, out = tmp_path / "s.yaml", tmp_path / "out"
    both = {"systems": ["hgx_h100", "hgx_h200"], "workload": DECODE, "record": record}
    scenario.write_text(json.dumps({**both, "sweep": {"workload.batch_per_accelerator": [8, 16]}}))
    done = CliRunner().invoke(app, ["run", str(scenario), "--out", str(out)])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["compare", str(out)])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["plot", "timeline", str(out), "--out", str(tmp_path / "x.png")])
    assert done.exit_code == 2 and "without the frame ops" in done.stderr
