"""Launch files of servers and clients in the style of people's: what is read of each is what its tool resolves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cmsim.launch import Reader, explained, scenario_of

CASES = Path(__file__).parents[1] / "cases" / "launch"
TRUTHS = sorted([*(CASES / "serving").glob("*.truth.yaml"), *(CASES / "benchmark").glob("*.truth.yaml")])
#: in words, and about the case itself
WORDS = {"system", "note", "assume", "tool_version_basis", "traps", "modelled_on", "checked_against"}
SETS = {"unread", "ignored", "deprecated", "unknown"}


def file_of(truth: Path) -> Path:
    number = truth.name.partition(".")[0]
    return next(path for end in (".sh", ".yaml", ".json") if (path := truth.with_name(f"{number}{end}")).is_file())


def with_text_keys(value):
    """YAML 1.1 takes the key `on` for a truth value."""
    if isinstance(value, dict):
        return {"on" if key is True else key: with_text_keys(one) for key, one in value.items()}
    return [with_text_keys(one) for one in value] if isinstance(value, list) else value


def name(truth: Path) -> str:
    return f"{truth.parent.name}-{truth.name.partition('.')[0]}"


def test_there_are_cases():
    assert len(TRUTHS) == 22 + 7


@pytest.mark.parametrize("truth", TRUTHS, ids=name)
def test_what_is_read_is_what_the_tool_resolves(truth):
    plans = Reader(file_of(truth)).plans()
    assert not [problem for plan in plans for problem in plan.problems]
    got = explained(plans)
    want = with_text_keys(yaml.safe_load(truth.read_text()))
    for key in set(want) - WORDS - SETS:
        assert got.get(key) == want[key], key
    for key in SETS:
        assert set(got.get(key) or ()) == set(want.get(key) or ()), key
    assert yaml.safe_load(yaml.safe_dump(got)) == got


@pytest.mark.parametrize("truth", TRUTHS, ids=name)
def test_words_for_a_machine_are_found(truth):
    want = yaml.safe_load(truth.read_text())
    got = explained(Reader(file_of(truth)).plans())
    if "system" in want:
        assert got.get("system")


SERVERS = [truth for truth in TRUTHS if truth.parent.name == "serving"]


@pytest.mark.parametrize("truth", SERVERS, ids=name)
def test_scenarios_of_them_can_be_planned(truth, tmp_path):
    from cmsim.cli.check import problems
    from cmsim.errors import InfeasibleError
    from cmsim.scenario import load_scenario

    plan = Reader(file_of(truth)).plans()[0]
    usual = "cloudmatrix384" if plan.tool in ("vllm-ascend", "mindie") else "gb200_nvl72"
    written = scenario_of(plan, system=usual, model_name="./model.json")
    if written.workload["model"] is None:
        assert any("sizes of the model" in note for note in written.notes)
        return
    (tmp_path / "s.yaml").write_text(written.scenario)
    if written.model:
        (tmp_path / "model.json").write_text(written.model)
    error = problems(load_scenario(tmp_path / "s.yaml"))
    assert error is None or isinstance(error, InfeasibleError), error
