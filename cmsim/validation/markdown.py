"""Tables and numbers in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> str:
    """``right``: columns of numbers."""
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in (head, rule, *rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def number(value: Any) -> str:
    """Four digits, or all digits of a whole number."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def percent(value: float | None, sign: str = "") -> str:
    """One digit after the point; a zero has no sign."""
    if value is None:
        return ""
    return f"{round(value, 1) + 0.0:{sign if round(value, 1) else ''}.1f} %"


def verdict(ok: bool) -> str:
    return "yes" if ok else "**no**"
