"""Results as tables: one per kind of workload, a row per run; or side by side, a row per metric."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cmsim import identity
from cmsim.cli import say
from cmsim.errors import InputError
from cmsim.numbers import counts, prefixed, quantity, stem_of
from cmsim.results import (
    PER,
    Outcome,
    Result,
    Results,
    flat_plan,
    named,
    names,
    pairs,
    per,
    placed,
    power_band,
    rate_name,
)

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")
NOTHING = "-"
#: stands in a layout where throughput per accelerator, rack, ... goes
_PER = "*"
_LIMITER = "limiter"
#: full links that are named
_LINKS = 2
#: width of a column of ratios
_RATIO = 8


@dataclass(frozen=True)
class Layout:
    """A kind of workload as a table: the metric that only it has, and what is shown of it."""

    kind: str
    mark: str
    metrics: tuple[str, ...]


#: the first whose mark a result has
LAYOUTS = (
    Layout(
        "collective", "busbw_GBps", ("time_s", "fault_slowdown", "algorithm", "algbw_GBps", "busbw_GBps", "energy_J")
    ),
    Layout(
        "training",
        "mfu",
        ("step_time_s", "tokens_per_s", "samples_per_s", _PER, "mfu", "energy_per_token_J", "energy_per_sample_J"),
    ),
    Layout("prefill", "ttft_s", ("ttft_s", "tokens_per_s", _PER, "energy_per_token_J")),
    Layout("decode", "tpot_s", ("tpot_s", "tokens_per_s", _PER, "energy_per_token_J")),
    Layout("encoder", "samples_per_s", ("step_time_s", "samples_per_s", _PER, "energy_per_sample_J")),
    Layout(
        "trace",
        "makespan_s",
        ("makespan_s", "tokens_per_s", "samples_per_s", "rank_steps_per_s", _PER, "power_avg_W"),
    ),
)


def layout_of(result: Result) -> Layout:
    """How a result is shown: by its kind or, in a folder from before kinds were kept, by a metric that only one has."""
    marked = (on for on in LAYOUTS if (on.kind == result.kind if result.kind else on.mark in result.metrics))
    return next(marked)


def groups(results: Iterable[Result]) -> list[tuple[Layout, list[Result]]]:
    """Results by layout, in the order in which they come."""
    return [(layout, [one for one in group if isinstance(one, Result)]) for layout, group in _by_kind(results)]


def _by_kind(outcomes: Iterable[Outcome]) -> list[tuple[Layout, list[Outcome]]]:
    """Runs by layout, those without a result too, in the order in which they come."""
    found: dict[str, tuple[Layout, list[Outcome]]] = {}
    for one in outcomes:
        layout = layout_of(one) if isinstance(one, Result) else next(on for on in LAYOUTS if on.kind == one.kind)
        found.setdefault(layout.kind, (layout, []))[1].append(one)
    return list(found.values())


def summary(outcomes: Iterable[Outcome], *, per: Sequence[str] = (), width: int = say.WIDTH) -> list[Table]:
    """A table per kind of workload, a row per run; one that is wider than ``width`` goes on in another."""
    return [table for layout, group in _by_kind(outcomes) for table in _summary(layout, group, per, width)]


def _summary(layout: Layout, runs: list[Outcome], what: Sequence[str], width: int) -> list[Table]:
    several = len({one.workload for one in runs}) > 1
    title = layout.kind if several or runs[0].workload == layout.kind else f"{runs[0].workload} ({layout.kind})"
    return _laid_out(title, runs, _columns(layout, runs, what, width), width)


def plans(outcomes: Iterable[Outcome], *, width: int = say.WIDTH) -> list[Table]:
    """Resolved sizes and memory by part, a table per kind of workload that has a plan."""
    return [table for layout, group in _by_kind(outcomes) for table in _plans(f"{layout.kind}: plan", group, width)]


def _plans(title: str, runs: list[Outcome], width: int) -> list[Table]:
    flat = [flat_plan(one) for one in runs if isinstance(one, Result)]
    columns = []
    for i, name in enumerate(dict.fromkeys(name for plan in flat for name in plan)):
        cells = [quantity(name, plan[name]) if name in plan else NOTHING for plan in flat]
        columns.append((say.broken(stem_of(name)), _with_missing(runs, cells, say_so=not i)))
    return _laid_out(title, runs, columns, width) if columns else []


def _laid_out(title: str, runs: Sequence[Outcome], columns: list[tuple[str, list[str]]], width: int) -> list[Table]:
    """Columns behind those that name the runs; what has no room goes on in another table."""
    heads, firsts, left = _first_columns(runs)
    out: list[Table] = []
    for chunk in _chunks(columns, [_width(head, cells) for head, cells in columns], _room(runs, width)):
        words = [i for i, (head, _) in enumerate(chunk, len(heads)) if head in ("algorithm", _LIMITER)]
        rows = [[*first, *(cells[i] for _, cells in chunk)] for i, first in enumerate(firsts)]
        table_heads = [*heads, *(head for head, _ in chunk)]
        out.append(say.table(table_heads, rows, title=title, left=[*range(left), *words], whole=range(left)))
        title = f"{title}, continued" if len(out) == 1 else title
    return out


def _first_columns(runs: Sequence[Outcome]) -> tuple[list[str], list[list[str]], int]:
    """What names a run: heads, a row of cells per run, and how many of the columns hold words."""
    called = names(runs)
    several = len({one.workload for one in runs}) > 1
    keys = list(dict.fromkeys(key for _, point in called for key in point))
    heads = (["workload"] if several else []) + ["system", *(say.broken(key) for key in keys)]
    cells = []
    for one, (system, point) in zip(runs, called, strict=True):
        cells.append([*([one.workload] if several else []), system, *(point.get(key, NOTHING) for key in keys)])
    return heads, cells, len(heads) - len(keys)


def _room(runs: Sequence[Outcome], width: int) -> int:
    """What the columns that name a run leave of a line."""
    heads, cells, _ = _first_columns(runs)
    return width - sum(_width(head, column) for head, column in zip(heads, zip(*cells, strict=True), strict=True))


def _columns(layout: Layout, runs: Sequence[Outcome], what: Sequence[str], width: int) -> list[tuple[str, list[str]]]:
    """Heads and cells of all that is measured, behind what `best` became where that does not break the table."""
    measured, decided = _measured_columns(layout, runs, what), _decided_columns(runs)
    whole, room = [*decided, *measured], _room(runs, width)
    pieces = [len(_chunks(some, [_width(head, cells) for head, cells in some], room)) for some in (measured, whole)]
    return whole if pieces[0] == pieces[1] else measured


def _measured_columns(layout: Layout, runs: Sequence[Outcome], what: Sequence[str]) -> list[tuple[str, list[str]]]:
    results = [one for one in runs if isinstance(one, Result)]
    if not results:
        return [("outcome", [one.outcome for one in runs if not isinstance(one, Result)])]
    columns = []
    for metric in layout.metrics:
        if metric == _PER:
            columns += [(_per_head(layout, results, one), _per(results, one)) for one in what]
        elif any(metric in result.metrics for result in results):
            columns.append((say.broken(stem_of(metric)), _column(metric, results)))
    columns += [
        ("bound\nreached", [f"{bound_reached(result)}" for result in results]),
        (_LIMITER, [result.limiter for result in results]),
    ]
    # the first says where nothing was measured
    return [(head, _with_missing(runs, cells, say_so=not i)) for i, (head, cells) in enumerate(columns)]


def _decided_columns(runs: Sequence[Outcome]) -> list[tuple[str, list[str]]]:
    """What `best` became, a column per key."""
    results = [one for one in runs if isinstance(one, Result)]
    return [
        (f"best\n{say.broken(short)}", _with_missing(runs, [_value(result.chosen.get(key)) for result in results]))
        for key, short in identity.heads(result.chosen for result in results).items()
    ]


def decided(outcomes: Iterable[Outcome], *, per: Sequence[str] = (), width: int = say.WIDTH) -> list[str]:
    """What `best` became, where a table has no room for it."""
    out = []
    for layout, runs in _by_kind(outcomes):
        columns = [head for head, _ in _columns(layout, runs, per, width)]
        if all(head in columns for head, _ in _decided_columns(runs)):
            continue
        results = [one for one in runs if isinstance(one, Result)]
        for key in dict.fromkeys(key for result in results for key in result.chosen):
            out.append(f"{layout.kind}: best {key}: {_by_value(results, key)}")
    return out


def _by_value(results: Sequence[Result], key: str) -> str:
    """``1 on a (8, 24), b; 2 on a (96)``: the systems, and the points of each where it is not all of them."""
    of: dict[str, dict[str, list[str]]] = {}
    points: dict[str, int] = {}
    for result in results:
        system, point = named(result)
        points[system] = points.get(system, 0) + 1
        of.setdefault(_value(result.chosen.get(key)), {}).setdefault(system, []).append(", ".join(point.values()))
    return "; ".join(
        f"{value} on "
        + ", ".join(
            system if len(at) == points[system] else f"{system} ({', '.join(at)})" for system, at in systems.items()
        )
        for value, systems in of.items()
    )


def _with_missing(runs: Sequence[Outcome], cells: Sequence[str], *, say_so: bool = False) -> list[str]:
    """A column with a cell for every run, those that gave no result too."""
    there = iter(cells)
    return [next(there) if isinstance(one, Result) else one.outcome if say_so else NOTHING for one in runs]


def _value(value: Any) -> str:
    """What a key became, as scenarios write it."""
    if value is None:
        return NOTHING
    return str(value).lower() if isinstance(value, bool) else str(value)


def _width(head: str, cells: Iterable[str]) -> int:
    """Of a column, with the space beside it."""
    return max(len(part) for part in [*head.split("\n"), *cells]) + say.GAP


def bound_reached(result: Result) -> str:
    """How much of what physics allows was reached, and what the bound is made of."""
    return f"{100 * float(result.bound['fraction']):.0f} % {result.bound['name']}"


def _column(metric: str, results: list[Result]) -> list[str]:
    values = [result.metrics.get(metric) for result in results]
    if metric.endswith("_per_s"):
        return _counts([None if isinstance(value, str) else value for value in values])
    return [NOTHING if value is None else quantity(metric, value) for value in values]


def _counts(values: list[float | None]) -> list[str]:
    shown = iter(counts([value for value in values if value is not None]))
    return [NOTHING if value is None else next(shown) for value in values]


def _per_head(layout: Layout, results: list[Result], what: str) -> str:
    rates = {rate_name(result) for result in results}
    # the rate itself stands in the column before
    named = (
        "" if rates <= set(layout.metrics) else f"{'/'.join(sorted(rate.removesuffix('_per_s') for rate in rates))}/s\n"
    )
    return f"{named}per\n{say.broken(what)}"


def _per(results: list[Result], what: str) -> list[str]:
    values: list[float | None] = []
    for result in results:
        try:
            values.append(per(result, what))
        except InputError:  # the machine has no price, or does not say how many racks it fills
            values.append(None)
    return _counts(values)


def notes(results: Sequence[Result]) -> list[str]:
    """What runs say of themselves, each note once with the workloads (and systems) it is of.

    Notes that differ in numbers only are one.
    """
    of: dict[str, list[Result]] = {}
    for result in results:
        for text in result.warnings:
            of.setdefault(say.template(text), []).append(result)
    out = []
    several = len({(result.workload, result.system) for result in results}) > 1
    for text, template in say.merged([text for result in results for text in result.warnings]):
        workloads = list(dict.fromkeys(result.workload for result in of[template]))
        systems = list(dict.fromkeys(result.system for result in of[template]))
        everywhere = {result.system for result in results if result.workload in workloads} == set(systems)
        where = ", ".join(workloads) + ("" if everywhere else f" on {', '.join(systems)}")
        out.append(f"{where}: {text}" if several else text)
    return out


def missing(results: Results, width: int) -> list[str]:
    """How many runs gave no result, and why; nothing where all did."""
    reasons = [f"{one.run} is {one.outcome}: {one.message}" for one in results.missing]
    return [f"{counted(results)}\n{say.notes(reasons, width)}"] if reasons else []


def counted(results: Results) -> str:
    """How many runs gave no result."""
    words = [one.outcome for one in results.missing]
    of = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    return f"{len(words)} of {len(results.outcomes)} run{'s' * (len(results.outcomes) != 1)} gave no result: {of}"


def skipped(results: Results) -> list[str]:
    """Why runs are not in a comparison or a figure."""
    return [f"note: without {one.run}, which is {one.outcome}: {one.message}" for one in results.missing]


def faults(results: Sequence[Result]) -> list[str]:
    """What faults in the fabric did to each run that has any: to whom, and which links were full."""
    out = []
    for result in results:
        if not result.faults:
            continue
        found = result.faults
        who = f"{found['slowed']} of {result.ranks} ranks end later ({', '.join(found['ranks'])})"
        full = [f"{one['link']} for {prefixed(one['time_s'], 's')}" for one in found["saturated"][:_LINKS]]
        out.append(
            f"{result.run}: {found['slowdown']:.3f} times the healthy run's time; "
            f"{who if found['slowed'] else 'no rank ends later'}; full links: {', '.join(full) or 'none'}"
        )
    return out


def recorded(results: Sequence[Result]) -> list[Table]:
    """Every replayed trace: what was recorded beside what each system makes of it."""
    by_workload: dict[str, list[Result]] = {}
    for result in results:
        if result.recorded:
            by_workload.setdefault(result.workload, []).append(result)
    out = []
    for workload, runs in by_workload.items():
        classes = list(dict.fromkeys(name for run in runs for name in run.recorded))
        was = {name: row.get("recorded_s") for run in runs for name, row in run.recorded.items()}
        rows = []
        for name in classes:
            cells = [_seconds(was[name])]
            for run in runs:
                now = run.recorded.get(name, {}).get("simulated_s")
                cells += [_seconds(now), _change(now, was[name])]
            rows.append([name.replace("_", " "), *cells])
        joules = [
            quantity("energy_J", run.metrics["energy_J"]) if "energy_J" in run.metrics else NOTHING for run in runs
        ]
        rows.append(["energy", NOTHING, *(cell for one in joules for cell in (one, ""))])
        heads = ["mean of a rank", "recorded"]
        for run in runs:
            heads += [say.broken(placed(run)), "change"]
        out.append(say.table(heads, rows, title=f"{workload}: recorded and simulated", left=(0,)))
    return out


def _seconds(time_s: float | None) -> str:
    return NOTHING if time_s is None else prefixed(time_s, "s")


def _change(now: float | None, was: float | None) -> str:
    return "" if not was or now is None else f"{100 * (now / was - 1):+.1f} %"


def verdict(results: Results, width: int) -> list[str]:
    """What it all says, a paragraph per workload; nothing where there is nothing to hold against each other."""
    told = [textwrap.fill(text, width, break_on_hyphens=False, break_long_words=False) for text in results.verdict()]
    return ["\n\n".join(told)] if told else []


def meaning(results: Sequence[Result], what: Sequence[str]) -> list[str]:
    """What throughput was divided by, where a table says so."""
    if not any(_PER in layout_of(result).metrics for result in results):
        return []
    words = {
        "rack": "per rack: cabinets that the system fills",
        "megawatt": "per megawatt: average power of the facility, PUE included, as energy is",
        "million_dollars": "per million_dollars: purchase price of the accelerators in use, all around them included",
    }
    said = [words[one] for one in what if one in words]
    if any("rank_steps_per_s" in result.metrics for result in results):
        said.append("rank_steps_per_s: recorded steps of a rank, of which every rank does one")
    return ["; ".join(said)] if said else []


def power_bands(results: Iterable[Result]) -> list[str]:
    """How far power may lie below and above what is shown, where the watts of accelerators are assumed."""
    ends: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for result in results:
        found = power_band(result)
        if found is not None:
            ends.setdefault((result.workload, result.system), []).append(found)
    by_workload: dict[str, list[str]] = {}
    for (workload, system), shares in ends.items():
        low, high = min(low for low, _ in shares), max(high for _, high in shares)
        by_workload.setdefault(workload, []).append(f"{system} {100 * (low - 1):+.0f} {100 * (high - 1):+.0f} %")
    listed = "; ".join(f"{workload} on {', '.join(systems)}" for workload, systems in by_workload.items())
    return [f"power is a band, energy goes with it and throughput per megawatt against it: {listed}"] if listed else []


def assumed(results: Results) -> list[str]:
    """How many numbers behind the results nobody published."""
    by_file: dict[str, int] = {}
    for entry in results.manifest.get("assumed", []):
        name = str(entry).partition(":")[0]
        by_file[name] = by_file.get(name, 0) + 1
    listed = ", ".join(f"{name} {number}" for name, number in by_file.items())
    return [f"numbers that are assumed, with their ranges in `cmsim show NAME`: {listed}"] if listed else []


def alike(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """(title, runs) to be held against each other: of one workload at one sweep point where that gives pairs,
    else all of one kind. The first of each is what the others are measured by."""
    out: list[tuple[str, list[Result]]] = []
    for layout, group in groups(results):
        points: dict[str, list[Result]] = {}
        for result in group:
            point = ", ".join(f"{key} {value}" for key, value in named(result)[1].items())
            points.setdefault(f"{result.workload}, {point}".removesuffix(", "), []).append(result)
        paired = len(points) > 1 and any(len(runs) > 1 for runs in points.values())
        out += points.items() if paired else [(layout.kind, group)]
    return out


def side_by_side(results: Sequence[Result], labels: Sequence[str], *, width: int) -> list[Table]:
    """Tables of one row per metric and one column per run, each with its ratio to the first.

    labels   heads of the runs' columns, as `head` makes them
    As many columns as ``width`` holds; the rest follow in further tables, beside the first run again.
    """
    out = []
    label_of = {result.run: label for result, label in zip(results, labels, strict=True)}
    for title, group in alike(results):
        first, *others = group
        values = {result.run: everything(result) for result in group}
        names = [
            name
            for name in dict.fromkeys(name for result in group for name in values[result.run])
            if any(values[result.run].get(name) for result in group)
        ]
        columns = {
            result.run: _cells(values[result.run], values[first.run], names, result is first) for result in group
        }
        widths = [_width(label_of[result.run], columns[result.run][0]) for result in group]
        room = width - _width("metric", names) - widths[0]
        for chunk in _chunks(others, [wide + _RATIO for wide in widths[1:]], room) or [[]]:
            heads, bodies = ["metric", label_of[first.run]], [names, columns[first.run][0]]
            for result in chunk:
                heads += [label_of[result.run], "ratio"]
                bodies += columns[result.run]
            out.append(say.table(heads, list(zip(*bodies, strict=True)), title=title, whole=(0,)))
    return out


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
    return {
        **out,
        **{f"{name.removesuffix('_s')}_time_s": value for name, value in result.breakdown.items() if value},
        "limiter": result.limiter,
        "bound": str(result.bound["name"]),
        "bound_fraction": float(result.bound["fraction"]),
    }


def ratios(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """By run: each number over that of the first run that it is held against."""
    out: dict[str, dict[str, float]] = {}
    for _, group in alike(results):
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


def _chunks(columns: Sequence[T], widths: Sequence[int], room: int) -> list[list[T]]:
    """Columns in runs that have room, each of at least one."""
    out: list[list[T]] = []
    left = 0
    for column, wide in zip(columns, widths, strict=True):
        if not out or wide > left + say.GAP:  # nothing stands beside the last
            out.append([])
            left = room
        out[-1].append(column)
        left -= wide
    return out


def head(result: Result, source: str = "") -> str:
    """A run over several lines: where it is from, workload, system, point."""
    if result.entry is None:
        lines = result.run.replace("/", "/\n").split("\n")
    else:
        lines = [result.workload, result.entry.label, *(f"{key}={value}" for key, value in pairs(result).items())]
    return "\n".join([f"{source}:"] * bool(source) + lines)
