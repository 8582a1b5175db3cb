"""How runs are named where people read them: system and sweep point, from what a run carries as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cmsim.identity import Entry, Point, heads, place, shown, spelled


class Known(Protocol):
    """What has an identity: a result, or a run that gave none."""

    @property
    def run(self) -> str: ...
    @property
    def entry(self) -> Entry | None: ...
    @property
    def point(self) -> Point: ...


def names(runs: Sequence[Known]) -> list[tuple[str, dict[str, str]]]:
    """(system, head -> value of the sweep point) of runs that stand together, with one head for a key of them all.

    The system is the scenario's word for it, which may be an alias or a path. A run of a folder from before identities
    were kept has its whole label there, and no point.
    """
    head = heads(one.point for one in runs)
    return [(_system(one), {head[key]: _cell(spelled(value)) for key, value in one.point.items()}) for one in runs]


def named(one: Known) -> tuple[str, dict[str, str]]:
    """`names` of a run alone."""
    (name,) = names([one])
    return name


def placed(one: Known) -> str:
    """``system`` or ``system/point``; of a run from before identities were kept its whole label."""
    return one.run if one.entry is None else place(one.entry, one.point)


def pairs(one: Known) -> dict[str, str]:
    """Head -> value of the sweep point, exactly as in the run's label."""
    return shown(one.point)


def _system(one: Known) -> str:
    return one.run if one.entry is None else one.entry.label


def _cell(value: str) -> str:
    """A value with thousands set apart."""
    return f"{int(value):,}" if value.isdecimal() else value
