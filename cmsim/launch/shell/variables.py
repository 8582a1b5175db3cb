"""What a shell knows while it walks: variables, and what it has to say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cmsim.errors import InputError, Problem
from cmsim.launch.shell.values import HOLE, shown

#: steps of a script, its texts counted by their length
STEPS = 50_000

Value = str | list[str] | dict[str, str]


@dataclass(frozen=True)
class Started:
    """A command as its program would get it, and what it finds in its environment."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    line: int
    #: exported variables and those in front of the command
    exported: Mapping[str, str] = field(default_factory=dict)
    #: text that a pipe or a here-document gives it
    given: str | None = None


class Leave(Exception):  # noqa: N818
    """break, continue, return and exit on their way out."""

    def __init__(self, what: str, count: int = 1):
        self.what = what
        self.count = count


class Variables:
    """Variables of one shell, and notes: of what is not known, asked for, needed, missing."""

    def __init__(self, file: str, given: Mapping[str, str]):
        self.file = file
        self.variables: dict[str, Value] = dict(given)
        self.exports: set[str] = set(given)
        self.integers: set[str] = set()  # declared as numbers
        self.notes: dict[tuple[str, int], None] = {}
        self.asks: dict[str, None] = {}
        self.needed: dict[str, tuple[str, int]] = {}
        self.missing: dict[str, int] = {}
        self.refs: dict[str, str] = {}  # names that stand for others (declare -n)
        self.exports_all = False  # set -a
        self.steps = 0

    def real(self, name: str) -> str:
        """The variable that a name stands for."""
        for _ in range(10):
            if name not in self.refs or self.refs[name] == name:
                break
            name = self.refs[name]
        return name

    def fail(self, message: str, line: int) -> InputError:
        return InputError(Problem(message, self.file, line))

    def note(self, message: str, line: int) -> None:
        if len(self.notes) < 200:
            self.notes[(message, line)] = None

    def spend(self, steps: int, line: int) -> None:
        self.steps += steps
        if self.steps > STEPS:
            raise self.fail(f"takes more than {STEPS} steps to work out; nothing of a script is run", line)

    def asked(self, name: str) -> None:
        if name.isidentifier() and name not in self.variables:
            self.asks[name] = None

    def needs(self, name: str, why: str, line: int) -> None:
        self.needed.setdefault(name, (shown(why), line))

    def raw(self, name: str) -> Value | None:
        return self.variables.get(self.real(name))

    def is_set(self, name: str) -> bool:
        value = self.variables.get(self.real(name))
        return value is not None and value != [] and not (isinstance(value, list) and not value)

    def names(self) -> list[str]:
        return list(self.variables)

    def get(self, name: str, line: int = 0) -> str:
        value = self.variables.get(self.real(name))
        if value is None:
            if line:
                self.missing.setdefault(name, line)
            return ""
        if isinstance(value, list):
            return value[0] if value else ""
        return value.get("0", "") if isinstance(value, dict) else value

    def put(self, name: str, value: str, index: str | None = None, *, append: bool = False) -> None:
        name = self.real(name)
        if self.exports_all:
            self.exports.add(name)
        old = self.variables.get(name)
        if index is None and not isinstance(old, list | dict):
            self.variables[name] = str(old or "") + value if append else value
            return
        index = "0" if index is None else index
        self.spend(len(old or "") // 100, 0)
        if isinstance(old, dict):
            # a copy: what is in a subshell or a substitution stays there
            self.variables[name] = {**old, index: old.get(index, "") + value if append else value}
            return
        array = list(old) if isinstance(old, list) else [] if old is None else [old]
        if not index.lstrip("-").isdigit() or not -len(array) <= int(index) < 10_000:
            raise InputError(Problem(f"'{index}' is no place in the array {name}", self.file))
        at = int(index)
        array += [HOLE] * (at + 1 - len(array))
        array[at] = array[at] + value if append else value
        self.variables[name] = array

    def put_list(self, name: str, values: list[str]) -> None:
        self.variables[self.real(name)] = values
