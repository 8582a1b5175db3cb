"""Results as tables: one per kind of workload, a row per run; or side by side, a row per metric."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmsim.cli import say
from cmsim.cli.numbers import count, quantity, stem_of
from cmsim.errors import InputError
from cmsim.results import PER, Result, per, rate_name

if TYPE_CHECKING:
    from rich.table import Table

NOTHING = "-"
#: stands in a layout where throughput per accelerator, rack, ... goes
_PER = "*"


@dataclass(frozen=True)
class Layout:
    """A kind of workload as a table: the metric that only it has, and what is shown of it."""

    kind: str
    mark: str
    metrics: tuple[str, ...]


#: the first whose mark a result has
LAYOUTS = (
    Layout("collective", "busbw_GBps", ("time_s", "algorithm", "algbw_GBps", "busbw_GBps", "energy_J", "power_avg_W")),
    Layout("training", "mfu", ("step_time_s", "tokens_per_s", _PER, "mfu", "energy_per_token_J")),
    Layout("prefill", "ttft_s", ("ttft_s", "tokens_per_s", _PER, "energy_per_token_J")),
    Layout("decode", "tpot_s", ("tpot_s", "tokens_per_s", _PER, "energy_per_token_J")),
    Layout("trace", "makespan_s", ("makespan_s", "exposed_comm_s", "tokens_per_s", _PER, "power_avg_W")),
)


def layout_of(result: Result) -> Layout:
    """How a result is shown."""
    return next(layout for layout in LAYOUTS if layout.mark in result.metrics)


def groups(results: Iterable[Result]) -> list[tuple[Layout, list[Result]]]:
    """Results by layout, in the order in which they come."""
    found: dict[str, tuple[Layout, list[Result]]] = {}
    for result in results:
        layout = layout_of(result)
        found.setdefault(layout.kind, (layout, []))[1].append(result)
    return list(found.values())


def summary(results: Iterable[Result], *, per: Sequence[str] = ()) -> list[Table]:
    """A table per kind of workload."""
    return [_summary(layout, group, per) for layout, group in groups(results)]


def _summary(layout: Layout, results: list[Result], what: Sequence[str]) -> Table:
    names = [run_name(result) for result in results]
    several = len({result.workload for result in results}) > 1
    keys = list(dict.fromkeys(key for _, point in names for key in point))
    heads = (["workload"] if several else []) + ["system", *(_broken(key) for key in keys)]
    left = len(heads) - len(keys)
    columns = []
    for metric in layout.metrics:
        if metric == _PER:
            columns += [(_per_head(results, one), [_per(result, one) for result in results]) for one in what]
        elif any(metric in result.metrics for result in results):
            cells = [quantity(metric, result.metrics.get(metric, NOTHING)) for result in results]
            columns.append((_broken(stem_of(metric)), cells))
    columns += [
        ("bound\nreached", [f"{bound_reached(result)}" for result in results]),
        ("limiter", [result.limiter for result in results]),
    ]
    rows = []
    for i, (system, point) in enumerate(names):
        first = ([results[i].workload] if several else []) + [system]
        rows.append([*first, *(point.get(key, NOTHING) for key in keys), *(cells[i] for _, cells in columns)])
    title = layout.kind if several or results[0].workload == layout.kind else f"{results[0].workload} ({layout.kind})"
    words = [i for i, (head, _) in enumerate(columns, len(heads)) if head in ("algorithm", "limiter")]
    return say.table([*heads, *(head for head, _ in columns)], rows, title=title, left=[*range(left), *words])


def run_name(result: Result) -> tuple[str, dict[str, str]]:
    """(system, sweep point) as the run's key names them.

    The system is the scenario's word for it, which may be an alias or a path.
    """
    tail = result.run.removeprefix(f"{result.workload}/")
    found = re.fullmatch(r"(.*?)(?:/(\w+=.*))?", tail)
    assert found is not None
    system, point = found[1], found[2] or ""
    pairs = re.findall(r"(\w+)=(.*?)(?=,\w+=|$)", point)
    return system, dict(pairs)


def bound_reached(result: Result) -> str:
    """How much of what physics allows was reached, and what the bound is made of."""
    return f"{100 * float(result.bound['fraction']):.0f} % {result.bound['name']}"


def _per_head(results: list[Result], what: str) -> str:
    rates = {rate_name(result).removesuffix("_per_s") for result in results}
    return f"{'/'.join(sorted(rates))}/s\nper\n{_broken(what)}"


def _per(result: Result, what: str) -> str:
    try:
        return count(per(result, what))
    except InputError:  # the machine has no price, or does not say how many racks it fills
        return NOTHING


def _broken(name: str) -> str:
    """A long name on several lines, broken at its underscores.

    >>> _broken("energy_per_token").splitlines()
    ['energy_', 'per_token']
    """
    lines = [""]
    for part in re.findall(r"[^_]+_?", name):
        if len(lines[-1]) + len(part) > 9 and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def side_by_side(results: Sequence[Result], labels: Sequence[str], *, width: int) -> list[Table]:
    """Tables of one row per metric and one column per run, each with its ratio to the first of its kind.

    As many columns as ``width`` holds; the rest follow in further tables, beside the first run again.
    """
    out = []
    label_of = {result.run: label for result, label in zip(results, labels, strict=True)}
    for layout, group in groups(results):
        first, *others = group
        values = {result.run: everything(result) for result in group}
        names = list(dict.fromkeys(name for result in group for name in values[result.run]))
        wide = max(len(name) for name in names) + 1
        columns = {
            result.run: _cells(values[result.run], values[first.run], names, result is first) for result in group
        }
        widths = {
            run: max(len(part) for part in [*_label(label_of[run]).split("\n"), *cells]) + 1 + 7
            for run, (cells, _) in columns.items()
        }
        room = width - wide - widths[first.run] + 7
        for chunk in _chunks(others, widths, room) or [[]]:
            heads, bodies = ["metric", _label(label_of[first.run])], [names, columns[first.run][0]]
            for result in chunk:
                cells, ratios = columns[result.run]
                heads += [_label(label_of[result.run]), "ratio"]
                bodies += [cells, ratios]
            out.append(say.table(heads, list(zip(*bodies, strict=True)), title=layout.kind))
    return out


def everything(result: Result) -> dict[str, float | str]:
    """All metrics of a result, throughput per rack and the like, and the bound."""
    out: dict[str, float | str] = {"accelerators": result.accelerators, "ranks": result.ranks, **result.metrics}
    if "tokens_per_s" in result.metrics:
        for what in PER:
            try:
                out[f"tokens_per_s_per_{what}"] = per(result, what)
            except InputError:
                continue
    return {
        **out,
        **{f"{name.removesuffix('_s')}_time_s": value for name, value in result.breakdown.items() if value},
        "limiter": result.limiter,
        "bound": str(result.bound["name"]),
        "bound_fraction": float(result.bound["fraction"]),
    }


def ratios(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """By run: each number over that of the first run of the same kind."""
    out: dict[str, dict[str, float]] = {}
    for _, group in groups(results):
        first = everything(group[0])
        for result in group:
            out[result.run] = {
                name: ratio
                for name, value in everything(result).items()
                if (ratio := _ratio(value, first.get(name))) is not None
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


def _chunks(results: list[Result], widths: Mapping[str, int], room: int) -> list[list[Result]]:
    out: list[list[Result]] = []
    left = 0
    for result in results:
        if not out or widths[result.run] > left:
            out.append([])
            left = room
        out[-1].append(result)
        left -= widths[result.run]
    return out


def _label(run: str) -> str:
    """A run's name over several lines: workload, system, point."""
    return "\n".join(part for part in re.sub(r",(?=\w+=)", "\n", run).replace("/", "\n").split("\n") if part)
