"""Patterns of a shell (``*``, ``?``, ``[a-z]``, ``@(a|b)``) as regular expressions of bounded cost."""

from __future__ import annotations

import functools
import re

_LONGEST = 2_000


@functools.lru_cache(maxsize=256)
def matcher(pattern: str, ending: str = r"\Z") -> re.Pattern[str]:
    """What a pattern matches, from the start of a text to ``ending``. Quoted characters come with a backslash.

    >>> bool(matcher("llama*[0-9]b").match("llama3-70b"))
    True
    """
    out: list[str] = []
    closing: list[str] = []
    at = 0
    pattern = pattern[:_LONGEST]
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        elif char in "?*+@!" and at < len(pattern) and pattern[at] == "(":
            at += 1
            out.append("(?:" if char != "!" else "(?!")
            closing.append({"?": ")?", "*": ")*", "+": ")+", "@": ")", "!": ").*"}[char])
        elif char == "|" and closing:
            out.append("|")
        elif char == ")" and closing:
            out.append(closing.pop())
        elif char == "*":
            if not out or out[-1] != ".*":
                out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "[" and (end := pattern.find("]", at + 1)) > 0:
            body = pattern[at:end]
            body = body.replace("[:digit:", "0-9").replace("[:alpha:", "a-zA-Z").replace("[:space:", r"\s")
            negated = body[:1] in ("!", "^")
            body = re.sub(r"([\\\]\[])", r"\\\1", body[1:] if negated else body)
            out.append(f"[{'^' if negated else ''}{body}]")
            at = end + 1
        else:
            out.append(re.escape(char))
    out += closing
    try:
        return re.compile("".join(out) + ending, re.DOTALL)
    except re.error:
        return re.compile(re.escape(pattern) + ending, re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    return matcher(pattern).match(text[:_LONGEST]) is not None


def removed(pattern: str, text: str, *, front: bool, longest: bool) -> str:
    """Text without what a pattern matches at its front or end."""
    if len(text) > _LONGEST:
        return text
    made = matcher(pattern)
    cuts = range(len(text) + 1)
    if front:
        for cut in reversed(cuts) if longest else cuts:
            if made.match(text[:cut]):
                return text[cut:]
    else:
        for cut in cuts if longest else reversed(cuts):
            if made.match(text[cut:]):
                return text[:cut]
    return text


def replaced(pattern: str, by: str, text: str, *, every: bool) -> str:
    """``${text/pattern/by}``, and with // every one of them."""
    if not pattern or len(text) > 20_000:
        return text
    anchor = pattern[0] if pattern[0] in "#%" else ""
    ending = r"\Z" if anchor == "%" else ""
    made = matcher(pattern[1:] if anchor else pattern, ending)
    if anchor == "#":
        found = made.match(text)
        return by + text[found.end() :] if found else text
    return made.sub(lambda _: by, text, count=0 if every else 1)
