"""Values of a shell: text that may have unknown parts, with the line it was written on.

What only a machine could tell (a program's output, the date) stays in a text between two marks, so that it is seen
wherever it goes. Nothing is run to find out.
"""

from __future__ import annotations

import re

OPEN, CLOSE = "\ue000", "\ue001"
_UNKNOWN = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")


class Said(str):
    """Text with the line of the file where it stands."""

    line: int
    __slots__ = ("line",)

    def __new__(cls, text: str, line: int) -> Said:
        out = super().__new__(cls, text)
        out.line = line
        return out


#: a place of an array that nothing was put in
HOLE = Said("", -1)


def unknown(what: str) -> str:
    """A text that nobody knows; ``what`` says where it would come from."""
    what = " ".join(_UNKNOWN.sub(r"\1", what).split())
    return f"{OPEN}{what[:80]}{CLOSE}"


def is_unknown(text: str) -> bool:
    return OPEN in text


def unknowns(text: str) -> list[str]:
    """What of a text is not known.

    >>> unknowns("a" + unknown("$(date)"))
    ['$(date)']
    """
    return _UNKNOWN.findall(text)


def shown(text: str) -> str:
    """A text for people: unknown parts as they are written in the script."""
    return _UNKNOWN.sub(r"\1", text)
