"""Whole-number arithmetic as shells have it: ``$((...))``, ``((...))``, ``let``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from cmsim.launch.shell.values import is_unknown

_TOKEN = re.compile(
    r"\s*(?:(0[xX][0-9a-fA-F]+|\d+#[0-9a-zA-Z]+|\d+\.\d+|\d+)|([A-Za-z_]\w*(?:\[[^\]]*\])?)|"
    r"(\*\*|<<=|>>=|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%<>=!~&|^?:(),]))"
)
_LEVELS: tuple[dict[str, Callable[[int, int], int]], ...] = (
    {"||": lambda a, b: int(bool(a) or bool(b))},
    {"&&": lambda a, b: int(bool(a) and bool(b))},
    {"|": operator.or_},
    {"^": operator.xor},
    {"&": operator.and_},
    {"==": lambda a, b: int(a == b), "!=": lambda a, b: int(a != b)},
    {
        "<=": lambda a, b: int(a <= b),
        ">=": lambda a, b: int(a >= b),
        "<": lambda a, b: int(a < b),
        ">": lambda a, b: int(a > b),
    },
    {"<<": lambda a, b: a << min(max(b, 0), 63), ">>": lambda a, b: a >> min(max(b, 0), 63)},
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": lambda a, b: divided(a, b), "%": lambda a, b: a - b * divided(a, b)},
)
_WIDE = 2**63
_LONGEST = 4_000
_DEEPEST = 40


class SumError(ValueError):
    """An expression that cannot be worked out; the message says why."""


def divided(a: int, b: int) -> int:
    if not b:
        raise SumError("divides by zero")
    out = abs(a) // abs(b)
    return out if (a < 0) == (b < 0) else -out


class Evaluator:
    """``get`` gives a variable's text, ``put`` sets one. SumError where an expression is wrong or unknown."""

    def __init__(self, get: Callable[[str], str], put: Callable[[str, str], None], depth: int = 0):
        self.get = get
        self.put = put
        self.depth = depth

    def value(self, text: str) -> int:
        """An expression's value, as 64 bits with a sign."""
        if is_unknown(text):
            raise SumError("holds what is not known")
        if len(text) > _LONGEST or self.depth > _DEEPEST:
            raise SumError("is too long, or names lead to names without an end")
        self.tokens: list[str] = []
        at = 0
        text = text.strip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if not found:
                raise SumError(f"'{text[at : at + 12]}' is no part of a sum")
            self.tokens.append(found[0].strip())
            at = found.end()
        if not self.tokens:
            return 0
        self.at = 0
        self.inside = 0
        out = self.comma()
        if self.at < len(self.tokens):
            raise SumError(f"'{self.tokens[self.at]}' is not expected in '{text}'")
        return out

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        out = self.peek()
        self.at += 1
        return out

    def comma(self) -> int:
        out = self.assigned()
        while self.peek() == ",":
            self.take()
            out = self.assigned()
        return out

    def assigned(self) -> int:
        self.inside += 1
        if self.inside > _DEEPEST:
            raise SumError("has brackets too deep in each other")
        name = self.peek()
        after = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else ""
        if re.match(r"[A-Za-z_]", name) and after.endswith("=") and after not in ("==", "<=", ">=", "!="):
            self.at += 2
            value = self.assigned()
            if after != "=":
                level = next(level for level in _LEVELS if after[:-1] in level)
                value = self._bound(level[after[:-1]](self._of(name), value))
            self.put(name, str(value))
        else:
            value = self.choice()
        self.inside -= 1
        return value

    def choice(self) -> int:
        out = self.binary(0)
        if self.peek() != "?":
            return out
        self.take()
        yes = self.assigned()
        if self.take() != ":":
            raise SumError("'?' has no ':'")
        no = self.assigned()
        return yes if out else no

    def binary(self, level: int) -> int:
        if level == len(_LEVELS):
            return self.power()
        out = self.binary(level + 1)
        while self.peek() in _LEVELS[level]:
            made = _LEVELS[level][self.take()]
            out = self._bound(made(out, self.binary(level + 1)))
        return out

    def power(self) -> int:
        base = self.unary()
        if self.peek() != "**":
            return base
        self.take()
        exponent = self.power()
        if exponent < 0:
            raise SumError("a power below zero")
        return self._bound(pow(base, exponent, 2 * _WIDE) if abs(base) > 1 else base**exponent)

    def unary(self) -> int:
        sign = self.peek()
        if sign in ("++", "--"):
            self.take()
            name = self.take()
            value = self._of(name) + (1 if sign == "++" else -1)
            self.put(name, str(value))
            return value
        if sign in ("+", "-", "!", "~"):
            self.take()
            self.inside += 1
            if self.inside > _DEEPEST:
                raise SumError("has too many signs in a row")
            value = self.unary()
            self.inside -= 1
            return {"+": value, "-": -value, "!": int(not value), "~": ~value}[sign]
        return self.atom()

    def atom(self) -> int:
        token = self.take()
        if token == "(":
            out = self.comma()
            if self.take() != ")":
                raise SumError("a bracket is not closed")
            return out
        if re.match(r"[A-Za-z_]", token):
            value = self._of(token)
            if self.peek() in ("++", "--"):
                self.put(token, str(value + (1 if self.take() == "++" else -1)))
            return value
        if not re.match(r"\d", token):
            raise SumError(f"expected a number, got '{token or 'the end'}'")
        if "." in token:
            raise SumError(f"'{token}' is no whole number")
        try:
            if "#" in token:
                base, _, digits = token.partition("#")
                return int(digits, int(base))
            if token[:2].lower() == "0x":
                return int(token, 16)
            return self._bound(int(token, 8) if len(token) > 1 and token[0] == "0" else int(token[:40]))
        except ValueError:
            raise SumError(f"'{token}' is no number") from None

    def _of(self, name: str) -> int:
        text = self.get(name).strip()
        if not text:
            return 0
        if re.fullmatch(r"-?[1-9]\d{0,17}|0", text):
            return int(text)
        return Evaluator(self.get, self.put, self.depth + 1).value(text)

    @staticmethod
    def _bound(value: int) -> int:
        return (value + _WIDE) % (2 * _WIDE) - _WIDE
