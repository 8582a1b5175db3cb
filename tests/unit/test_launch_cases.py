"""Launch files of our own in the style of people's: what is read of each is what its tool resolves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cmsim.launch import Reader, explained, scenario_of

CASES = Path(__file__).parents[1] / "cases" / "launch" / "training"
TRUTHS = sorted(CASES.glob("*.truth.yaml"))
#: in words, and about the case itself
WORDS = {"system", "note", "from_recipe", "assume", "tool_version_basis", "traps", "modelled_on"}
SETS = {"unread", "ignored", "deprecated", "unknown"}


def file_of(truth: Path) -> Path:
    number = truth.name.partition(".")[0]
    return next(path for end in (".sh", ".py", ".yaml", ".toml") if (path := CASES / f"{number}{end}").is_file())


def test_there_are_cases():
    assert len(TRUTHS) == 11


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda path: path.name.partition(".")[0])
def test_what_is_read_is_what_the_tool_resolves(truth):
    plans = Reader(file_of(truth)).plans()
    assert len(plans) == 1
    assert not plans[0].problems
    got = explained(plans)
    want = yaml.safe_load(truth.read_text())
    for key in set(want) - WORDS - SETS:
        assert got.get(key) == want[key], key
    for key in SETS:
        assert set(got.get(key) or ()) == set(want.get(key) or ()), key
    assert yaml.safe_load(yaml.safe_dump(got)) == got


@pytest.mark.parametrize(
    ("number", "system"),
    [
        ("01", "hgx_h100"),
        ("03", "hgx_h100"),
        ("05", "gb200_nvl72"),
        ("06", "hgx_b200"),
        ("07", "cloudmatrix384"),
        ("10", "hgx_h100"),
        ("11", "hgx_a100"),
    ],
)
def test_the_machine_is_the_one_that_words_name(number, system):
    [plan] = Reader(file_of(CASES / f"{number}.truth.yaml")).plans()
    assert plan.system_name == system


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda path: path.name.partition(".")[0])
def test_scenarios_of_them_can_be_planned(truth, tmp_path):
    from cmsim.cli.check import problems
    from cmsim.errors import InfeasibleError
    from cmsim.scenario import load_scenario

    [plan] = Reader(file_of(truth)).plans()
    system = plan.system_name or {"mindspeed-llm": "cloudmatrix384", "mindformers": "atlas_800_a2"}.get(plan.tool)
    written = scenario_of(plan, system=system or "hgx_h100", model_name="./model.json")
    (tmp_path / "s.yaml").write_text(written.scenario)
    if written.model:
        (tmp_path / "model.json").write_text(written.model)
    scenario = load_scenario(tmp_path / "s.yaml")
    [run] = scenario.runs
    parallel = run.spec.parallel
    assert (parallel.tp, parallel.pp, parallel.cp, parallel.dp) == (plan.tp, plan.pp, plan.cp, plan.dp)
    assert (run.spec.global_batch, run.spec.sequence_length) == (plan.global_batch, plan.seq_len)
    error = problems(scenario)
    assert error is None or isinstance(error, InfeasibleError)  # what does not fit is an outcome


def test_unread_flags_are_named_in_the_scenario():
    [plan] = Reader(CASES / "01.sh").plans()
    text = scenario_of(plan, system=None, model_name="m.json").scenario
    assert "--cross-entropy-loss-fusion" in text.partition("name:")[0]
    assert "model: llama-3.1-70b" in text
