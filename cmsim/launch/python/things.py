"""What values of a Python file are where they are no plain ones, and the operators and functions that are known."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: elements of one value, and how deep things lie in each other
SIZE, DEEPEST = 20_000, 40
#: last part of a path whose value is the name of what was called
CLASS = "()"


@dataclass(eq=False)
class Thing:
    """Something that only running the file would make: what was called, with what, and what was set on it."""

    name: str
    line: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    #: whether it was called, or is only a part of another thing
    called: bool = False

    def copied(self, given: Mapping[str, Any], line: int, inside: int = 0) -> Thing:
        """The same again, some of it set anew."""
        values = {
            key: one.copied({}, line, inside + 1) if isinstance(one, Thing) and inside < 10 else one
            for key, one in self.values.items()
        }
        lines = self.lines | dict.fromkeys(given, line)
        return Thing(self.name, self.line, {**values, **given}, lines, self.called)

    def leaves(self, prefix: str = "", inside: int = 0, seen: tuple[int, ...] = ()) -> Iterator[tuple[str, Any, int]]:
        """(dotted path, value, line) of everything that was set."""
        if inside > DEEPEST or id(self) in seen:
            return
        for key, value in self.values.items():
            path = f"{prefix}{key}"
            if isinstance(value, Thing) and value.called:
                yield f"{path}.{CLASS}", value.name, self.lines.get(key, value.line)
            if isinstance(value, Thing) and value.values:
                yield from value.leaves(f"{path}.", inside + 1, (*seen, id(self)))
            elif not isinstance(value, Thing):
                yield path, value, self.lines.get(key, self.line)


@dataclass(frozen=True)
class Unsure:
    """A value that is not worked out; ``text`` is how the file writes it."""

    text: str


class Returned(Exception):  # noqa: N818
    def __init__(self, value: Any):
        self.value = value


class LeftLoop(Exception):  # noqa: N818
    """break and continue"""


class NextTurn(LeftLoop):
    pass


BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.LShift: lambda a, b: a << b if b < 64 else _refuse(),
    ast.RShift: operator.rshift,
    ast.Pow: lambda a, b: a**b if abs(b) < 64 and abs(a) < 1e9 else _refuse(),
}
COMPARED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b if b is None or isinstance(b, bool) else a == b,
    ast.IsNot: lambda a, b: a is not b if b is None or isinstance(b, bool) else a != b,
}
CALLED: dict[str, Callable[..., Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "len": len,
    "min": min,
    "max": max,
    "sum": sum,
    "abs": abs,
    "round": round,
    "list": list,
    "tuple": tuple,
    "sorted": sorted,
    "dict": dict,
    "set": set,
    "any": any,
    "all": all,
    "divmod": divmod,
    "range": lambda *a: list(range(*a)) if len(range(*a)) <= SIZE else _refuse(),
    "enumerate": lambda a, start=0: list(enumerate(a, start)),
    "zip": lambda *a, strict=False: list(zip(*a, strict=strict)),
}
METHODS = frozenset(
    """lower upper strip lstrip rstrip split replace startswith endswith join get items keys values append extend update
    copy setdefault pop removeprefix removesuffix title count index""".split()  # noqa: SIM905
)


def _refuse() -> Any:
    raise ValueError("too large")


def is_large(value: Any) -> bool:
    if isinstance(value, str | list | tuple | dict | set):
        return len(value) > SIZE
    return isinstance(value, int) and value.bit_length() > 128
