"""Results side by side: a row per metric, a column per run, ratios to the first."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cmsim.cli import say
from cmsim.cli.tables import NOTHING, by_kind, chunks, width_of
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.kinds import Kind
from cmsim.numbers import quantity
from cmsim.results import PER, Result, named, pairs, per, power_band, rate_name

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")
#: width of a column of ratios
_RATIO = 8


def _results(results: Iterable[Result]) -> list[tuple[Kind, list[Result]]]:
    """Results by kind, in the order in which they come."""
    return [(kind, [one for one in group if isinstance(one, Result)]) for kind, group in by_kind(results)]


def alike(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """(title, runs) to be held against each other: of one workload at one sweep point where that gives pairs,
    else all of one kind. The first of each is what the others are measured by."""
    out: list[tuple[str, list[Result]]] = []
    for kind, group in _results(results):
        points: dict[str, list[Result]] = {}
        for result in group:
            point = ", ".join(f"{key} {value}" for key, value in named(result)[1].items())
            points.setdefault(f"{result.workload}, {point}".removesuffix(", "), []).append(result)
        paired = len(points) > 1 and any(len(runs) > 1 for runs in points.values())
        out += points.items() if paired else [(kind.name, group)]
    return out


def chosen_runs(results: Sequence[Result], wanted: Sequence[str]) -> list[Result]:
    """Runs that one of the words names: a label, a part of it, or a pattern. InputError: one names none."""
    return _chosen(results, [one.run for one in results], wanted, "--run", within=True)


def chosen_metrics(results: Sequence[Result], wanted: Sequence[str]) -> list[str]:
    """Names of rows that one of the words names or is a pattern of, all without words. InputError: one names none."""
    names = list(dict.fromkeys(name for result in results for name in everything(result)))
    return _chosen(names, names, wanted, "--metric", within=False)


def _chosen(things: Sequence[T], names: Sequence[str], wanted: Sequence[str], option: str, *, within: bool) -> list[T]:
    if not wanted:
        return list(things)
    kept: set[int] = set()
    for word in wanted:
        found = {i for i, name in enumerate(names) if name == word or fnmatch.fnmatchcase(name, word)}
        if within and not found:
            found = {i for i, name in enumerate(names) if word in name}
        if not found:
            raise InputError(Problem(f"got '{word}'. {did_you_mean(word, names, limit=40)}", option))
        kept |= found
    return [thing for i, thing in enumerate(things) if i in kept]


def side_by_side(
    results: Sequence[Result],
    labels: Sequence[str],
    *,
    width: int,
    only: Sequence[str] | None = None,
    one_screen: bool = False,
) -> tuple[list[Table], int]:
    """Tables of one row per metric and one column per run, each with its ratio to the first; and how many runs are left
    out.

    labels   heads of the runs' columns, as `head` makes them    only: rows, default all
    As many columns as ``width`` holds; the rest follow in further tables, beside the first run again, or are left out
    where it is to be ``one_screen``.
    """
    out: list[Table] = []
    left_out = 0
    label_of = {result.run: label for result, label in zip(results, labels, strict=True)}
    for title, group in alike(results):
        first, *others = group
        values = {result.run: everything(result) for result in group}
        names = [
            name
            for name in dict.fromkeys(name for result in group for name in values[result.run])
            if any(values[result.run].get(name) for result in group) and (only is None or name in only)
        ]
        if not names:
            continue
        columns = {
            result.run: _cells(values[result.run], values[first.run], names, result is first) for result in group
        }
        widths = [width_of(label_of[result.run], columns[result.run][0]) for result in group]
        room = width - width_of("metric", names) - widths[0]
        parts = chunks(others, [wide + _RATIO for wide in widths[1:]], room) or [[]]
        if one_screen:
            left_out += sum(map(len, parts[1:]))
            parts = parts[:1]
        for chunk in parts:
            heads, bodies = ["metric", label_of[first.run]], [names, columns[first.run][0]]
            for result in chunk:
                heads += [label_of[result.run], "ratio"]
                bodies += columns[result.run]
            out.append(say.table(heads, list(zip(*bodies, strict=True)), title=title, whole=(0,)))
    return out, left_out


def everything(result: Result) -> dict[str, float | str]:
    """All metrics of a result, throughput per rack and the like, and the bound."""
    out: dict[str, float | str] = {"accelerators": result.accelerators, "ranks": result.ranks, **result.metrics}
    rate = rate_name(result)
    if rate in result.metrics:
        for what in PER:
            try:
                out[f"{rate}_per_{what}"] = per(result, what)
            except InputError:
                continue
        ends = power_band(result)
        if ends is not None:
            for name, end in zip(("low", "high"), reversed(ends), strict=True):
                out[f"{rate}_per_megawatt_{name}"] = per(result, "megawatt") / end
    out.update({f"{name.removesuffix('_s')}_time_s": value for name, value in result.breakdown.items() if value})
    if result.limiter:
        out["limiter"] = result.limiter
    if result.bound:
        out.update(bound=str(result.bound["name"]), bound_fraction=float(result.bound["fraction"]))
    return out


def ratios(results: Sequence[Result], only: Sequence[str]) -> dict[str, dict[str, float]]:
    """By run: each number of those named over that of the first run that it is held against."""
    out: dict[str, dict[str, float]] = {}
    for _, group in alike(results):
        first = everything(group[0])
        for result in group:
            out[result.run] = {
                name: ratio
                for name, value in everything(result).items()
                if name in only and (ratio := _ratio(value, first.get(name))) is not None
            }
    return out


def _cells(
    values: Mapping[str, float | str], first: Mapping[str, float | str], names: Sequence[str], is_first: bool
) -> tuple[list[str], list[str]]:
    cells, beside = [], []
    for name in names:
        cells.append(quantity(name, values.get(name, NOTHING)))
        ratio = None if is_first else _ratio(values.get(name), first.get(name))
        beside.append("" if ratio is None else f"{ratio:.2f}×" if ratio < 99.5 else f"{ratio:,.0f}×")
    return cells, beside


def _ratio(value: Any, first: Any) -> float | None:
    if value is None or first is None or isinstance(value, str) or isinstance(first, str) or not first:
        return None
    return float(value) / float(first)


def head(result: Result, source: str = "") -> str:
    """A run over several lines: where it is from, workload, system, point."""
    if result.entry is None:
        lines = result.run.replace("/", "/\n").split("\n")
    else:
        lines = [result.workload, result.entry.label, *(f"{key}={value}" for key, value in pairs(result).items())]
    return "\n".join([f"{source}:"] * bool(source) + lines)
