"""What other packages bring, by their entry points."""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmsim.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def brought(group: str, taken: Collection[str] = ()) -> Mapping[str, EntryPoint]:
    """Entry points of a group by name, in the order of their names; nothing of them is imported.

    taken: names that are built in

    Raises InputError for a name that stands twice: which of the two would be used depends on the machine.
    """
    found = _points(group, _along())
    for one in found.values():
        if one.name in taken:
            raise InputError(f"{group}: '{one.name}' is built in; {one.value} cannot be called so too")
    return found


def opened(point: EntryPoint, what: type[Any]) -> Any:
    """What an entry point names. Raises InputError where it is none of the class, or is called otherwise."""
    found = point.load()
    if not isinstance(found, what) or getattr(found, "name", point.name) != point.name:
        got = f"'{found.name}'" if isinstance(found, what) else f"a {type(found).__name__}"
        raise InputError(f"{point.group}: {point.value} is {got}; expected the {what.__name__} '{point.name}'")
    return found


def _along() -> tuple[tuple[str, int], ...]:
    """Where packages are looked for, and when each place last changed: who installs one changes its place."""
    return tuple((place, Path(place or ".").stat().st_mtime_ns) for place in sys.path if Path(place or ".").exists())


@functools.lru_cache(maxsize=8)
def _points(group: str, along: tuple[tuple[str, int], ...]) -> Mapping[str, EntryPoint]:
    """As found in places as they stand, which gives the same answer each time."""
    from importlib.metadata import distributions  # which takes long to import, and most runs need none of it

    found: dict[str, EntryPoint] = {}
    packages = distributions(path=[place for place, _ in along])
    points = [one for package in packages for one in package.entry_points]
    for one in sorted((one for one in points if one.group == group), key=lambda one: one.name):
        if found.setdefault(one.name, one).value != one.value:
            raise InputError(f"{group}: '{one.name}' stands twice: {found[one.name].value} and {one.value}")
    return found
