"""Which runs are one line: those of one set of results, one workload and one system, that differ in one swept key.

A sweep over several keys is a family of lines, one for each value of the others. Colours tell systems apart, and are
the same in every figure of the same results; strokes tell sets of results apart, and lighter colours lines of a family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cmsim.identity import heads, spelled
from cmsim.plots import style
from cmsim.results import Result, Results

STROKES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
MARKERS = "osD^vP"
#: how far the colour of the last line of a family is from its system's, towards white
_PALEST = 0.55


@dataclass(frozen=True)
class Series:
    """A line.

    runs      in the order of the key along it; by metric of the figure where none was swept
    along     head of that key; "" where the line is one run, or no key was swept
    fixed     head -> value of the other swept keys
    name      what tells it from the other lines; ``member``: what tells it from others of its family alone, "" where
              it is the first of them
    ink       colour of its system    colour, stroke, marker   how it is drawn
    """

    workload: str
    system: str
    source: str
    runs: tuple[Result, ...]
    along: str = ""
    fixed: dict[str, str] = field(default_factory=dict)
    name: str = ""
    member: str = ""
    ink: str = style.INK
    colour: str = style.INK
    stroke: Any = "-"
    marker: str = "o"

    def look(self, size: float) -> dict[str, Any]:
        """How the line is drawn, its marks of a size. [points]"""
        return {
            "color": self.colour,
            "linestyle": self.stroke,
            "linewidth": 1.8,
            "marker": self.marker,
            "markersize": size,
            "markeredgecolor": "white",
        }

    def said(self, result: Result) -> str:
        """The value of the key along the line that a run has."""
        return {head: value for head, (value, _) in _point(result, [result]).items()}.get(self.along, "")


def series(
    results: Results | Iterable[Result], drawn: Callable[[Result], bool], *, by: str = "", along: str = ""
) -> list[Series]:
    """Lines of the runs that are drawn, in their order.

    by      the metric that orders runs without a swept key
    along   head of the key along lines where it was swept; else that with most values, of numbers if there is one
    """
    every = list(results.results if isinstance(results, Results) else results)
    shown = [one for one in every if drawn(one)]
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for one in shown:
        groups.setdefault((one.source, one.workload, system_of(one)), []).append(one)
    lines = [line for key, runs in groups.items() for line in _family(key, runs, by, along)]
    return [_looks(line, lines, every) for line in lines]


def system_of(result: Result) -> str:
    """What the scenario calls the system of a run; in folders from before that was kept, the system's own name."""
    return result.system if result.entry is None else result.entry.label


def colours(results: Results | Iterable[Result]) -> dict[str, str]:
    """Of every system among the results, drawn or not, in their order."""
    every = results.results if isinstance(results, Results) else results
    names = dict.fromkeys(system_of(one) for one in every)
    return {name: style.SERIES[i % len(style.SERIES)] for i, name in enumerate(names)}


def words(head: str) -> str:
    """A head of a swept key as people say it."""
    return head.replace("_", " ").replace(".", " ")


def _point(result: Result, among: Sequence[Result]) -> dict[str, tuple[str, Any]]:
    head = heads(one.point for one in among)
    return {head[key]: (spelled(value), value) for key, value in result.point.items()}


def _family(key: tuple[str, str, str], runs: list[Result], by: str, prefer: str) -> list[Series]:
    """The lines of one set, workload and system."""
    source, workload, system = key
    points = [_point(one, runs) for one in runs]
    values: dict[str, dict[str, Any]] = {}
    for point in points:
        for head, (text, value) in point.items():
            values.setdefault(head, {})[text] = value
    swept = {head: its for head, its in values.items() if len(its) > 1}
    along = max(swept, key=lambda head: (head == prefer, _numbers(swept[head]), len(swept[head])), default="")
    apart = [head for head in swept if head != along and not _with(along, head, points)]
    lines: dict[tuple[tuple[str, str], ...], list[tuple[Any, Result]]] = {}
    for number, (point, one) in enumerate(zip(points, runs, strict=True)):
        fixed = tuple((head, point[head][0]) for head in apart if head in point)
        if not along:
            place = one.metrics.get(by, number)
        elif _numbers(swept[along]):
            place = point[along][1] if along in point else -1.0
        else:
            place = number
        lines.setdefault(fixed, []).append((place, one))
    return [
        Series(workload, system, source, tuple(one for _, one in sorted(line, key=_place)), along, dict(fixed))
        for fixed, line in lines.items()
    ]


def _with(along: str, head: str, points: Sequence[dict[str, tuple[str, Any]]]) -> bool:
    """Whether a key goes with that along the line, as zipped ones do: at one value of it there is one of the other."""
    pairs = {(one[along][0], one[head][0]) for one in points if along in one and head in one}
    return bool(along) and len(pairs) == len({first for first, _ in pairs})


def swept(runs: Sequence[Result]) -> dict[str, list[str]]:
    """Heads of swept keys, and the value of each run; "" where a run has no such key."""
    points = [_point(one, runs) for one in runs]
    names = dict.fromkeys(head for point in points for head in point)
    return {name: [point[name][0] if name in point else "" for point in points] for name in names}


def _thousands(value: str) -> str:
    return f"{int(value):,}" if value.isdecimal() else value


def _place(pair: tuple[Any, Result]) -> float:
    return float(pair[0])


def _numbers(values: dict[str, Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())


def _looks(line: Series, lines: list[Series], every: list[Result]) -> Series:
    """Name, colour, stroke and marker of a line among others."""
    workloads, systems, sources = (
        list(dict.fromkeys(getattr(one, name) for one in lines)) for name in ("workload", "system", "source")
    )
    parts = [line.workload] * (len(workloads) > 1 or len(systems) == 1) + [line.system] * (len(systems) > 1)
    if any(one.source != line.source and (one.workload, one.system) == (line.workload, line.system) for one in lines):
        parts = [*parts, line.source] if len(systems) > 1 or len(workloads) > 1 else [line.source]
    family = [one for one in lines if _of(one) == _of(line)]
    member = ", ".join(f"{words(head)} {_thousands(value)}" for head, value in line.fixed.items())
    pale = _PALEST * family.index(line) / max(len(family) - 1, 1)
    return Series(
        **{name: getattr(line, name) for name in ("workload", "system", "source", "runs", "along", "fixed")},
        name=", ".join(filter(None, (*parts, member))),
        member=member if family.index(line) else "",
        ink=colours(every)[line.system],
        colour=lighter(colours(every)[line.system], pale),
        stroke=STROKES[sources.index(line.source) % len(STROKES)],
        marker=MARKERS[workloads.index(line.workload) % len(MARKERS)],
    )


def _of(line: Series) -> tuple[str, str, str]:
    return line.source, line.workload, line.system


def lighter(colour: str, share: float) -> str:
    """A colour mixed with so much white.

    >>> lighter("#0072b2", 0.0), lighter("#000000", 0.5)
    ('#0072b2', '#808080')
    """
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)
