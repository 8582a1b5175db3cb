"""Which run a run is: a workload, an entry of the scenario's systems, a point of its sweep; and how people read that.

A run's label is made from its identity and never taken apart again: whoever needs the point has it as data.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: a swept key -> value
Point = Mapping[str, Any]
_Path = tuple[str, ...]
#: parts of a dotted key that stand for one of several -> how a head calls the section
_SECTIONS = {"workloads": "workload", "systems": "system"}
#: in a string these would make it look like something else in a label
_MARKS = frozenset(",=\"'\\")


@dataclass(frozen=True)
class Entry:
    """An entry of a scenario's systems: its number, from 0, and what the scenario calls it."""

    number: int
    label: str


@dataclass(frozen=True)
class Identity:
    """One run of a scenario.

    point   swept key -> value; keys are dotted from the top of the scenario, as ``workloads.decode.context_tokens``

    >>> Identity("decode", Entry(0, "rack"), {"workloads.decode.batch": 8, "systems.0.accelerators": 4}).label
    'decode/rack/batch=8,accelerators=4'
    """

    workload: str
    entry: Entry
    point: Point = field(default_factory=dict)

    @functools.cached_property
    def label(self) -> str:
        """``workload/system`` or ``workload/system/point``; runs that differ have different ones, but for names that
        hold what holds a label together, which scenarios refuse."""
        return f"{self.workload}/{place(self.entry, self.point)}"


def place(entry: Entry, point: Point) -> str:
    """``system`` or ``system/point``: a run's label without its workload."""
    said = ",".join(f"{head}={value}" for head, value in shown(point).items())
    return "/".join(filter(None, (entry.label, said)))


def shown(point: Point) -> dict[str, str]:
    """A point as people read it: short keys, exact values."""
    head = heads([point])
    return {head[key]: spelled(value) for key, value in point.items()}


def spelled(value: Any) -> str:
    """A swept value, exactly: different values never look alike, numbers that are equal always do.

    >>> spelled(8), spelled(1e6), spelled(0.5), spelled(0.1234567), spelled(1e-05)
    ('8', '1000000', '0.5', '0.1234567', '1e-05')
    >>> spelled("bf16"), spelled("8"), spelled("a,b"), spelled(True), spelled({"tp": 2})
    ('bf16', '"8"', '"a,b"', 'True', "{'tp': 2}")
    """
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value))
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and not _plain(value) else str(value)


def _plain(text: str) -> bool:
    """Whether a string is read as one without quotes."""
    if not text or text != text.strip() or not text.isprintable() or text[0] in "[{" or _MARKS & set(text):
        return False
    return text not in ("True", "False", "None") and not _number(text)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def heads(points: Iterable[Point], *, taken: Iterable[str] = ()) -> dict[str, str]:
    """The shortest heads that tell swept keys apart: their last parts, and more of them where those are alike.

    points   of the runs that stand together: a key of two workloads, or of two systems, has one head
    taken    heads that stand for something else

    >>> heads([{"workloads.a.batch": 8, "workloads.a.precision.weights": "fp8", "systems.0.set.gemm.weights": 1}])
    {'workloads.a.batch': 'batch', 'workloads.a.precision.weights': 'precision.weights', 'systems.0.set.gemm.weights': \
'gemm.weights'}
    >>> heads([{"workloads.a.batch": 8}, {"workloads.b.batch": 9}], taken=["batch"])
    {'workloads.a.batch': 'workload.batch', 'workloads.b.batch': 'workload.batch'}
    """
    points = list(points)
    keys = list(dict.fromkeys(key for point in points for key in point))
    path_of = {key: _path(key) for key in keys}
    head_of = {path: _head(path, set(path_of.values()), set(taken)) for path in set(path_of.values())}
    # keys of one run are never one
    doubled = {key for point in points for key in point if sum(path_of[other] == path_of[key] for other in point) > 1}
    return {key: key if key in doubled else head_of[path_of[key]] for key in keys}


def _path(key: str) -> _Path:
    """A dotted key from its section on, without which of several it is."""
    section, *rest = key.split(".")
    if section in _SECTIONS and rest:
        return (_SECTIONS[section], *(rest[1:] or rest))
    return ("scenario", section, *rest)


def _head(path: _Path, paths: set[_Path], taken: set[str]) -> str:
    for length in range(1, len(path)):
        tail = path[-length:]
        if ".".join(tail) not in taken and sum(other[-length:] == tail for other in paths) == 1:
            return ".".join(tail)
    return ".".join(path)
