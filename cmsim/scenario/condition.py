"""Conditions on the points of a sweep: expressions over swept keys, which nothing but comparing and arithmetic is in.

workload.parallel.tp * workload.parallel.pp <= 64
workload.batch_per_accelerator in [8, 96] or not systems[0].stack == 'eager'
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cmsim.errors import InputError, Problem

#: a dotted key as people write it, outside of quotes
_TOKENS = re.compile(r"(?P<text>'[^']*'|\"[^\"]*\")|(?P<key>[A-Za-z_]\w*(?:\.\w[\w-]*|\[\d+\])*)")
_WORDS = frozenset({"and", "or", "not", "in", "True", "False", "None", "true", "false", "null"})
_YAML = {"true": "True", "false": "False", "null": "None"}
_LONGEST = 1000
_PAIRS: Mapping[type, Callable[[Any, Any], Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv},
    **{ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le},
    **{ast.Gt: operator.gt, ast.GtE: operator.ge},
    **{ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b},
}
_ONE: Mapping[type, Callable[[Any], Any]] = {ast.Not: operator.not_, ast.USub: operator.neg, ast.UAdd: operator.pos}
ALLOWED = "swept keys, numbers, quoted words, lists, and, or, not, in, comparisons, + - * / // %"


@dataclass(frozen=True)
class Condition:
    """An expression, the keys that it asks for, in long form, and where it stands."""

    text: str
    keys: tuple[str, ...]
    tree: ast.expr
    at: Problem = field(default=Problem(""), compare=False)

    def holds(self, point: Mapping[str, Any]) -> bool:
        """Whether it is true at a point; a point that lacks one of its keys is none that it is about.

        Raises InputError where values cannot be compared.
        """
        if not all(key in point for key in self.keys):
            return True
        try:
            return bool(_value(self.tree, [point[key] for key in self.keys]))
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            at = ", ".join(f"{key} = {point[key]!r}" for key in self.keys)
            raise InputError(replace(self.at, message=f"'{self.text}' cannot be worked out at {at}: {error}")) from None


def parsed(text: Any, known: Collection[str], whole: Callable[[str], str]) -> Condition:
    """A condition as a file has it. known: swept keys in long form    whole: a key's long form

    >>> parsed("workload.tp * 2 <= 8", ["workloads.a.tp"], lambda key: key.replace("workload.", "workloads.a.")).keys
    ('workloads.a.tp',)

    Raises ValueError, in words.
    """
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise ValueError(f"expected a condition such as 'workload.parallel.tp <= 8', got {text!r}")
    keys: list[str] = []

    def named(found: re.Match[str]) -> str:
        word = found["key"]
        if word is None or word in _WORDS:
            return _YAML.get(found[0], found[0])
        key = whole(word)
        if key not in known:
            raise ValueError(f"'{word}' is not swept. Swept: {', '.join(known) or 'no key'}")
        if key not in keys:
            keys.append(key)
        return f"_{keys.index(key)}_"

    code = _TOKENS.sub(named, text)
    try:
        tree = ast.parse(code.strip(), mode="eval").body
        _checked(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"'{text}' is no condition. Allowed: {ALLOWED}") from None
    return Condition(text, tuple(keys), tree)


def _checked(node: ast.expr) -> None:
    """Raises ValueError for what is not allowed."""
    match node:
        case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            pass
        case ast.BinOp(left=a, op=op, right=b) if type(op) in _PAIRS:
            parts = [a, b]
        case ast.UnaryOp(op=op, operand=a) if type(op) in _ONE:
            parts = [a]
        case ast.Compare(left=a, comparators=others):
            parts = [a, *others]
            if not all(type(op) in _PAIRS for op in node.ops):
                raise ValueError
        case ast.Constant(value=bool() | int() | float() | str() | None):
            parts = []
        case ast.Name(id=name) if re.fullmatch(r"_\d+_", name):
            parts = []
        case _:
            raise ValueError
    for part in parts:
        _checked(part)


def _value(node: ast.expr, values: list[Any]) -> Any:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, values) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, values) for part in parts)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, values) for part in parts]
        case ast.BinOp(left=a, op=op, right=b):
            return _PAIRS[type(op)](_number(_value(a, values)), _number(_value(b, values)))
        case ast.UnaryOp(op=op, operand=a):
            return _ONE[type(op)](_value(a, values))
        case ast.Compare(left=a, ops=ops, comparators=others):
            found = [_value(part, values) for part in (a, *others)]
            return all(_PAIRS[type(op)](x, y) for op, x, y in zip(ops, found, found[1:], strict=False))
        case ast.Name(id=name):
            return values[int(name[1:-1])]
        case ast.Constant(value=value):
            return value
    raise AssertionError(node)


def _number(value: Any) -> float:
    """Arithmetic is of numbers: a word times ten million would be ten million words."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


__all__ = ["ALLOWED", "Condition", "parsed"]
