"""Launch files of any text: a plan, or an error with its place; nothing else comes out, and soon."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmsim.errors import CmsimError
from cmsim.launch import Reader, explained, scenario_of

CASES = Path(__file__).parents[1] / "cases" / "launch"
FILES = [path for path in sorted((CASES / "training").iterdir()) if "truth" not in path.name]
SHELLS = [path.read_text() for path in FILES if path.suffix == ".sh"]
SHELLS += [case["script"] for case in yaml.safe_load((CASES / "shell.yaml").read_text())]
#: what scripts are made of, and what ends them too early
PARTS = [
    *(
        "$(",
        "$((",
        "${",
        "}",
        ")",
        "))",
        "(",
        "{",
        "[[",
        "]]",
        "[",
        "'",
        '"',
        "`",
        "\\",
        "\n",
        " ",
        ";",
        "&&",
        "|",
        "<<EOT",
        "\nEOT\n",
    ),
    *(
        "if",
        "then",
        "fi",
        "for x in",
        "do",
        "done",
        "case x in",
        "esac",
        "while",
        "A=",
        "A+=(",
        "$A",
        "${A[@]}",
        "${A:-",
        "$1",
        "$@",
    ),
    *(
        "torchrun --nproc_per_node 8 pretrain_gpt.py ",
        "--tensor-model-parallel-size",
        "2",
        "0",
        "-1",
        "1e9",
        "9" * 30,
        "None",
        "#",
    ),
    *(
        "eval ",
        "source x",
        "echo ",
        "sed s/a/b/",
        "printf %d ",
        "\ue000",
        "\u202e",
        "\0",
        "é",
        "((",
        "**",
        "!",
        "=~",
        "%",
        "/",
    ),
]
calm = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def whole(path: Path) -> None:
    """Read a file to its end; errors are those of a user."""
    try:
        plans = Reader(path).plans()
        yaml.safe_dump(explained(plans))
        for plan in plans:
            scenario_of(plan, system="hgx_h100", model_name="m.json")
    except CmsimError as error:
        assert str(error)


@calm
@given(text=st.lists(st.sampled_from(PARTS), max_size=30).map(" ".join) | st.text(max_size=200))
@pytest.mark.parametrize("name", ["a.sh", "a.py", "a.yaml", "a.toml", "a.json"])
def test_any_text(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", errors="replace")
    whole(path)


@calm
@given(data=st.data())
def test_scripts_that_are_broken_anywhere(tmp_path, data):
    text = data.draw(st.sampled_from(SHELLS))
    at = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(at, min(len(text), at + 30)))
    part = data.draw(st.sampled_from(PARTS) | st.just(""))
    path = tmp_path / "a.sh"
    path.write_text(text[:at] + part + text[end:], encoding="utf-8", errors="replace")
    whole(path)


@calm
@given(data=st.data())
def test_configs_that_are_broken_anywhere(tmp_path, data):
    source = data.draw(st.sampled_from([path for path in FILES if path.suffix != ".sh"]))
    text = source.read_text()
    at = data.draw(st.integers(0, len(text)))
    part = data.draw(
        st.sampled_from([*PARTS, ": ", "- ", "null", "{}", "[]", "true", "= ", "[x]\n", "-5", "1.5", "&a", "*a"])
    )
    end = data.draw(st.integers(at, min(len(text), at + 12)))
    path = tmp_path / source.name
    path.write_text(text[:at] + part + text[end:], encoding="utf-8", errors="replace")
    whole(path)
