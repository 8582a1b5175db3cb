"""Shell scripts walked through: the words that programs get are those that bash gives them, and nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cmsim.errors import InputError
from cmsim.launch.shell import Shell, shown

SCRIPTS = yaml.safe_load((Path(__file__).parents[1] / "cases" / "launch" / "shell.yaml").read_text())


def walked(text: str, **given) -> Shell:
    files = given.pop("files", {})
    shell = Shell("s.sh", path="./s.sh", read=files.get, **given)
    shell.script(text)
    return shell


def words(shell: Shell, program: str = "show") -> list[list[str]]:
    return [[str(word) for word in one.argv[1:]] for one in shell.started if one.argv[0] == program]


@pytest.mark.parametrize("case", SCRIPTS, ids=lambda case: case["script"].splitlines()[0][:40])
def test_words_are_those_of_bash(case):
    assert words(walked(case["script"])) == case["words"]


def test_lines_of_words_are_where_they_were_written():
    shell = walked("A=(\n  --x 1\n  --y 2\n)\nB='--z 3'\nshow ${A[@]} \\\n  $B --w\n")
    assert [word.line for word in shell.started[0].argv] == [6, 2, 2, 3, 3, 5, 5, 7]


def test_what_a_program_says_stays_unknown():
    shell = walked("N=$(nvidia-smi -L | wc -l); show --n $N --m $((N * 2)) x$N")
    assert [shown(word) for word in words(shell)[0]] == [
        "--n",
        "$(nvidia-smi -L | wc -l)",
        "--m",
        "$((N * 2))",
        "x$(nvidia-smi -L | wc -l)",
    ]


def test_conditions_on_what_is_not_known_are_false_and_named():
    shell = walked('if [ "$(hostname)" = big ]; then show yes; else show no; fi\n[[ -f /etc/passwd ]] && show file')
    assert words(shell) == [["no"]]
    assert [line for _, line in shell.notes] == [1, 2]


def test_nothing_is_run_or_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    walked("touch made; echo x > made; cat <<EOT > other\ny\nEOT\n$(touch third); `touch fourth`; eval touch five")
    assert list(tmp_path.iterdir()) == []


def test_files_are_those_that_the_reader_gives():
    shell = walked(
        "source inc.sh; . ./gone.sh; show $TP; cat a.json | head -1 > b; show $(<b)",
        files={"inc.sh": "TP=8", "a.json": "{}\nx\n"},
    )
    assert words(shell) == [["8"], ["{}"]]
    assert any("gone.sh" in note for note, _ in shell.notes)


def test_arguments_and_environment_are_given():
    shell = walked("show ${1:-a} $2 ${TP:-1} $#", args=("x", "y"), given={"TP": "4"})
    assert words(shell) == [["x", "y", "4", "2"]]
    assert walked("show ${TP:-1} ${PP}").asks == {"TP": None}


def test_variables_that_must_be_given_are_named():
    shell = walked('show ${TP:?"how many"}')
    assert shell.needed == {"TP": ("how many", 1)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("while true; do :; done", "takes more than"),
        ("f() { f; }; f", "deeper than"),
        ("for i in {1..999999999}; do show $i; done", "more than"),
        ("A=x; for i in {1..60}; do A=$A$A; done; show $A", "longer than"),
        ('eval() { :; }; A=\'eval "$A"\'; eval "$A"; eval2() { $A; }; x() { x | x; }; x', "deeper"),
        ("show 'open", "is not closed"),
        ('show "open', "is not closed"),
        ("if true; then show", "expected 'fi'"),
        ("show ${A", "is not closed"),
        ("fi", "ends nothing"),
        ("A=(1 2", "not closed"),
        ("case x in a) show", "pattern"),
        ("(" * 200 + ")" * 200, "deeper"),
        ("show ${A^^^^Q}", "not read"),
    ],
)
def test_what_is_no_script_or_never_ends_is_refused(text, says):
    with pytest.raises(InputError, match=r"s\.sh:\d+: ") as error:
        walked(text)
    assert says in str(error.value)


def test_sums_that_cannot_be_worked_out_are_named():
    shell = walked("show $((1/0)) $((x +)); (( 3 / 0 )) && show yes")
    assert [shown(word) for word in words(shell)[0]] == ["$((1/0))", "$((x +))"]
    assert len(shell.notes) == 3


def test_costs_are_bounded():
    shell = walked("show $((2 ** 62)) $((2 ** 99999999)) $((1 << 99999)); A=x; show ${A//*/aaaa}")
    assert words(shell)[0][0] == str(2**62)
    with pytest.raises(InputError):
        walked("A=$(printf '%9999s' x); for i in {1..200}; do A=$A$A; done")
