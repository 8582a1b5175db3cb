"""GOAL schedules (LogGOPSim, ATLAHS), as text and in both binary layouts."""

from __future__ import annotations

from pathlib import Path

from cmsim.reading.bytes_in import LIMIT_B, head
from cmsim.traces.goal import binary, text


def sniff(start: bytes, path: Path) -> bool:
    """Whether a file is a schedule in either form."""
    return text.sniff(start, path) or binary.sniff(start, path)


def open_(path: Path, *, limit_B: int = LIMIT_B) -> text.GoalText | binary.GoalBinary:
    """A schedule. Raises InputError with line or byte."""
    if binary.sniff(head(path), path):
        return binary.open_(path, limit_B=limit_B)
    return text.open_(path, limit_B=limit_B)


__all__ = ["open_", "sniff"]
