"""Conditions: ``[ ]``, ``test`` and ``[[ ]]``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cmsim.launch.shell.arithmetic import SumError
from cmsim.launch.shell.filters import _is_costly
from cmsim.launch.shell.patterns import matches
from cmsim.launch.shell.syntax import Word
from cmsim.launch.shell.values import is_unknown, shown

if TYPE_CHECKING:
    from cmsim.launch.shell.run import Shell

_NUMBERS = {
    "-eq": lambda a, b: a == b,
    "-ne": lambda a, b: a != b,
    "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b,
    "-gt": lambda a, b: a > b,
    "-ge": lambda a, b: a >= b,
}
_FILES = frozenset(["-e", "-f", "-d", "-r", "-w", "-x", "-s", "-L", "-h", "-p", "-S", "-b", "-c"])
_BINARY = frozenset({"=", "==", "!=", "=~", "<", ">", *_NUMBERS, "-nt", "-ot", "-ef"})


class Checker:
    """One condition; ``value`` is True, False or, where nobody knows, False with a note of it."""

    def __init__(self, shell: Shell, words: list[Word] | list[str], line: int, *, double: bool):
        self.shell = shell
        self.words: list[Word | str] = list(words)
        self.line = line
        self.double = double
        self.at = 0
        self.depth = 0

    def value(self) -> bool:
        if not self.words:
            return False
        out = self._or()
        if self.at < len(self.words):
            raise self.shell.fail(
                f"'{shown(self._text(self.words[self.at]))}' is not expected in a condition", self.line
            )
        return out

    def _or(self) -> bool:
        self.depth += 1
        if self.depth > 40:
            raise self.shell.fail("a condition has brackets too deep in each other", self.line)
        out = self._and()
        while self._sign() in (("||",) if self.double else ("-o",)):
            self.at += 1
            out = self._and() or out
        self.depth -= 1
        return out

    def _and(self) -> bool:
        out = self._not()
        while self._sign() in (("&&",) if self.double else ("-a",)):
            self.at += 1
            out = self._not() and out
        return out

    def _not(self) -> bool:
        negated = False
        while self._sign() == "!":
            self.at += 1
            negated = not negated
        return self._one() != negated

    def _one(self) -> bool:
        if self._sign() == "(":
            self.at += 1
            out = self._or()
            if self._sign() != ")":
                raise self.shell.fail("a bracket of a condition is not closed", self.line)
            self.at += 1
            return out
        left = len(self.words) - self.at
        if left <= 0:
            raise self.shell.fail("a condition ends too early", self.line)
        if left >= 3 and self._sign(1) in _BINARY:
            return self._binary()
        operator = self._sign()
        if left >= 2 and re.fullmatch(r"-[a-zA-Z]", operator) and self._sign(1) not in ("-a", "-o", "&&", "||", ")"):
            self.at += 2
            return self._unary(operator, self._text(self.words[self.at - 1]))
        self.at += 1
        text = self._text(self.words[self.at - 1])
        return self._known(text) and text != ""

    def _unary(self, operator: str, text: str) -> bool:
        if operator in ("-z", "-n"):
            if is_unknown(text):
                return operator == "-n"  # a program's output is hardly ever nothing
            return (text == "") == (operator == "-z")
        if operator == "-v":
            name, _, _ = text.partition("[")
            self.shell.asked(name)
            return self.shell.is_set(name)
        if operator in _FILES:
            return self._known(text) and self.shell.is_there(text, folder=operator == "-d", line=self.line)
        if operator in ("-t", "-o", "-O", "-G", "-k", "-u", "-g", "-N"):
            return False
        raise self.shell.fail(f"'{operator}' is no condition that is read", self.line)

    def _binary(self) -> bool:
        operator = self._sign(1)
        first, second = self.words[self.at], self.words[self.at + 2]
        self.at += 3
        text = self._text(first)
        other = self._text(second)
        if not (self._known(text) and self._known(other)):
            return operator == "!=" or operator == "-ne"
        if operator in _NUMBERS:
            return self._numbers(operator, text, other)
        if operator in ("=", "==", "!="):
            if self.double and isinstance(second, Word):
                same = matches(self.shell.expand.pattern(second), text)
            else:
                same = text == other
            return same == (operator != "!=")
        if operator == "=~":
            return self._regex(text, other)
        if operator in ("<", ">"):
            return text < other if operator == "<" else text > other
        return False

    def _numbers(self, operator: str, text: str, other: str) -> bool:
        evaluator = self.shell.expand.evaluator(self.line)
        try:
            a, b = (evaluator.value(one) if self.double else _whole(one) for one in (text, other))
            return bool(_NUMBERS[operator](a, b))
        except SumError as error:
            self.shell.note(f"[ {text} {operator} {other} ] {error}; taken as false", self.line)
            return False

    def _regex(self, text: str, pattern: str) -> bool:
        if _is_costly(pattern):
            self.shell.note(f"the pattern '{pattern}' is not tried; taken as false", self.line)
            return False
        try:
            found = re.search(pattern, text[:2_000])
        except re.error:
            self.shell.note(f"the pattern '{pattern}' is not read; taken as false", self.line)
            return False
        self.shell.put_list("BASH_REMATCH", [found[0], *(one or "" for one in found.groups())] if found else [])
        return found is not None

    def _known(self, text: str) -> bool:
        if is_unknown(text):
            self.shell.note(
                f"a condition on '{shown(text)}', which only a run would tell, is taken as false", self.line
            )
            return False
        return True

    def _sign(self, ahead: int = 0) -> str:
        at = self.at + ahead
        if at >= len(self.words):
            return ""
        word = self.words[at]
        return (word.bare or "") if isinstance(word, Word) else word

    def _text(self, word: Word | str) -> str:
        return self.shell.expand.text(word) if isinstance(word, Word) else word


def _whole(text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text):
        raise SumError(f"compares '{text}' as a number")
    return int(text)
