"""The points of a sweep: keys with their values, those that go together, and conditions on what is left.

sweep:
  workload.batch_per_accelerator: [8, 24, 96]
  workload.context_tokens: {from: 1024, to: 65536, steps: 7, scale: log}
  zip: {workload.parallel.tp: [1, 2, 4], workload.parallel.pp: [4, 2, 1]}     # step by step; a list of such: several
  where: workload.batch_per_accelerator * workload.context_tokens <= 1e6      # a list of such: all of them
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmsim import reading
from cmsim.errors import InputError, Problem
from cmsim.identity import spelled
from cmsim.scenario import condition, forms, sizes
from cmsim.scenario.condition import Condition

#: keys of ``sweep`` that are none of a scenario
ZIP, WHERE = "zip", "where"


@dataclass(frozen=True)
class Swept:
    """Swept keys in long form that go together, mostly one, and the rows of their values, all different."""

    keys: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def points(self, name: str, number: int) -> list[dict[str, Any]]:
        """What it says of this workload on this system, each once; nothing where it would only repeat runs."""
        its = [i for i, key in enumerate(self.keys) if _concerns(key, name, number)]
        found = ({self.keys[i]: row[i] for i in its} for row in self.rows)
        return list({tuple(map(spelled, point.values())): point for point in found}.values()) if its else []


@dataclass(frozen=True)
class Sweep:
    """Axes and conditions of a scenario."""

    axes: tuple[Swept, ...] = ()
    where: tuple[Condition, ...] = ()

    def most(self, name: str, number: int) -> int:
        """Points of a workload on a system, conditions left aside."""
        return math.prod(len(points) for axis in self.axes if (points := axis.points(name, number)))

    def points(self, name: str, number: int) -> Iterator[dict[str, Any]]:
        """Every combination that all conditions allow; the last axis goes fastest. Raises InputError where a condition
        cannot be worked out."""
        for parts in itertools.product(*(points for axis in self.axes if (points := axis.points(name, number)))):
            point = {key: value for part in parts for key, value in part.items()}
            if all(one.holds(point) for one in self.where):
                yield point


def _concerns(key: str, name: str, number: int) -> bool:
    section, *rest = key.split(".")
    if section == "workloads" and rest:
        return rest[0] == name
    if section == "systems" and rest and reading.whole(rest[0]):
        return int(rest[0]) == number
    return True


def read(document: reading.Document, data: Mapping[str, Any], most: int) -> Sweep:
    """The sweep of a scenario in long form. most: steps of an axis. Raises InputError with the place."""
    given = data.get("sweep") or {}
    if not isinstance(given, dict):
        return Sweep()
    axes: list[Swept] = []
    for name, values in given.items():
        if name == WHERE:
            continue
        together = _together(document, values) if name == ZIP else [({name: values}, ("sweep", name))]
        for keys, place in together:
            axes.append(_axis(document, data, keys, place, most))
            _only_once(document, axes, place)
    known = [key for axis in axes for key in axis.keys]
    where = _conditions(document, data, given.get(WHERE), known)
    sweep = Sweep(tuple(axes), where)
    _some_left(document, data, sweep)
    return sweep


def _together(document: reading.Document, given: Any) -> list[tuple[dict[str, Any], tuple[Any, ...]]]:
    """Groups of keys that go together, each with its place."""
    groups = given if isinstance(given, list) else [given]
    places = [("sweep", ZIP, i) if isinstance(given, list) else ("sweep", ZIP) for i in range(len(groups))]
    for group, place in zip(groups, places, strict=True):
        if not isinstance(group, dict) or len(group) < 2:
            message = f"expected two keys or more that go together, {{key: list, key: list}}, got {group!r}"
            raise InputError(document.problem(place, message))
    if not groups:
        raise InputError(document.problem(("sweep", ZIP), "expected {key: list, key: list}, got an empty list"))
    return list(zip(groups, places, strict=True))


def _axis(
    document: reading.Document, data: Mapping[str, Any], given: Mapping[Any, Any], place: tuple[Any, ...], most: int
) -> Swept:
    """One axis of the keys that go together."""
    columns: dict[str, list[Any]] = {}
    for name, values in given.items():
        key = forms.whole_key(data, str(name))
        if key in columns:
            message = f"the key is swept twice, both times as '{key}'. Leave one out."
            raise InputError(document.problem(place, message))
        columns[key] = _values(document, place if len(given) == 1 else (*place, name), data, key, values, most)
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key}: {length}" for key, length in lengths.items())
        message = f"keys that go together have as many values each, got {said}"
        raise InputError(document.problem(place, message))
    rows = list(zip(*columns.values(), strict=True))
    shown = [values[0] if len(values) == 1 else list(values) for values in rows]
    if problem := twice(document, place, shown):
        raise InputError(problem)
    return Swept(tuple(columns), tuple(rows))


def _values(
    document: reading.Document, place: tuple[Any, ...], data: Mapping[str, Any], key: str, values: Any, most: int
) -> list[Any]:
    values = sizes.swept(data, key, values)
    if isinstance(values, dict):
        unknown = [name for name in values if name not in ("from", "to", "steps", "scale")]
        missing = [name for name in ("from", "to", "steps") if not isinstance(values.get(name), int | float)]
        if unknown or missing:
            what = f"unknown key '{unknown[0]}'" if unknown else f"'{missing[0]}' must be a number"
            raise InputError(document.problem(place, f"{what}. Allowed: from, to, steps, scale."))
        values = _steps(document, place, values, most)
    if not isinstance(values, list) or not values:
        raise InputError(document.problem(place, f"expected a list or {{from, to, steps, scale}}, got {values!r}"))
    return values


def _only_once(document: reading.Document, axes: Sequence[Swept], place: tuple[Any, ...]) -> None:
    before = {key for axis in axes[:-1] for key in axis.keys}
    for key in axes[-1].keys:
        if key in before:
            message = f"the key is swept twice, both times as '{key}'. Leave one out."
            raise InputError(document.problem(place, message))


def twice(document: reading.Document, place: tuple[Any, ...], values: Sequence[Any]) -> Problem | None:
    """What is wrong with a list that has a value twice: its runs would be one."""
    counts = Counter(spelled(value) for value in values)
    again = next((one for one, times in counts.items() if times > 1), None)
    return None if again is None else document.problem(place, f"{again} stands here twice. Leave one out.")


def _steps(document: reading.Document, place: tuple[Any, ...], values: dict[str, Any], most: int) -> list[Any]:
    low, high, scale = values["from"], values["to"], values.get("scale", "linear")
    if not math.isfinite(values["steps"]):
        raise InputError(document.problem(place, f"steps must be a whole number, got {values['steps']}"))
    steps = int(values["steps"])
    if scale not in ("linear", "log"):
        raise InputError(document.problem(place, f"scale: got {scale!r}. Allowed: linear, log."))
    if not all(map(math.isfinite, (low, high))) or max(abs(low), abs(high)) > 1e300:
        raise InputError(document.problem(place, f"from and to must be numbers up to 1e300, got {low:g} and {high:g}"))
    if steps > most:
        raise InputError(document.problem(place, f"asks for {steps} steps; allowed: up to {most}"))
    if steps < 1 or (scale == "log" and min(low, high) <= 0):
        raise InputError(document.problem(place, "steps must be at least 1, and a log scale needs numbers above 0"))
    points = np.geomspace(low, high, steps) if scale == "log" else np.linspace(low, high, steps)
    whole = isinstance(low, int) and isinstance(high, int)
    # whole numbers that several steps round to are one point
    return list(dict.fromkeys(round(x) if whole else float(x) for x in points.tolist()))


def _conditions(
    document: reading.Document, data: Mapping[str, Any], given: Any, known: Sequence[str]
) -> tuple[Condition, ...]:
    out = []
    for text in given if isinstance(given, list) else [] if given is None else [given]:
        try:
            one = condition.parsed(text, known, lambda key: forms.whole_key(data, key))
        except ValueError as error:
            raise InputError(document.problem(("sweep", WHERE), str(error))) from None
        out.append(replace(one, at=document.problem(("sweep", WHERE), "")))
    return tuple(out)


def _some_left(document: reading.Document, data: Mapping[str, Any], sweep: Sweep) -> None:
    """Raises InputError where conditions leave nothing to run."""
    workloads, systems = data.get("workloads"), data.get("systems")
    if not sweep.where or not isinstance(workloads, dict) or not isinstance(systems, list):
        return
    pairs = itertools.product(workloads, range(len(systems)))
    if all(next(sweep.points(name, number), None) is None for name, number in pairs):
        raise InputError(document.problem(("sweep", WHERE), "leaves no point of the sweep"))


__all__ = ["Sweep", "Swept", "read", "twice"]
