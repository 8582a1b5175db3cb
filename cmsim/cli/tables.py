"""Results as tables: one per kind of workload, a row per run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cmsim import identity, kinds
from cmsim.cli import say
from cmsim.errors import InputError
from cmsim.kinds import Kind
from cmsim.numbers import counts, quantity, stem_of
from cmsim.results import (
    Infeasible,
    Outcome,
    Result,
    filled,
    flat_plan,
    interval_rows,
    named,
    names,
    over_seeds,
    per,
    rate_name,
)
from cmsim.units import GB

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")
NOTHING = "-"
_LIMITER = "limiter"
#: what is shown of a distribution
_DRAWN = ("seeds", "mean", "std", "min", "p05", "p50", "p95", "max")
#: columns of `over_seeds` that are no swept keys
_SPREAD = ("workload", "kind", "system", "metric", *_DRAWN)
#: of which intervals are shown, beside what the table of a kind has and money
_INTERVALS = ("power_avg_W", "carbon_per_Mtoken_g")
#: budgets that are shown line by line
_BUDGETS = 3


def by_kind(outcomes: Iterable[Outcome]) -> list[tuple[Kind, list[Outcome]]]:
    """Runs by kind, those without a result too, in the order in which they come."""
    found: dict[str, tuple[Kind, list[Outcome]]] = {}
    for one in outcomes:
        kind = one.declared if isinstance(one, Result) else kinds.get(one.kind)
        found.setdefault(kind.name, (kind, []))[1].append(one)
    return list(found.values())


def summary(outcomes: Iterable[Outcome], *, per: Sequence[str] = (), width: int = say.WIDTH) -> list[Table]:
    """A table per kind of workload, a row per run; one that is wider than ``width`` goes on in another."""
    return [table for kind, group in by_kind(outcomes) for table in _summary(kind, group, per, width)]


def _summary(kind: Kind, runs: list[Outcome], what: Sequence[str], width: int) -> list[Table]:
    several = len({one.workload for one in runs}) > 1
    title = kind.name if several or runs[0].workload == kind.name else f"{runs[0].workload} ({kind.name})"
    return _laid_out(title, runs, _columns(kind, runs, what, width), width)


def plans(outcomes: Iterable[Outcome], *, width: int = say.WIDTH) -> list[Table]:
    """Resolved sizes and memory by part, a table per kind of workload that has a plan."""
    return [table for kind, group in by_kind(outcomes) for table in _plans(f"{kind.name}: plan", group, width)]


def _plans(title: str, runs: list[Outcome], width: int) -> list[Table]:
    flat = [flat_plan(one) for one in runs if isinstance(one, Result)]
    columns = []
    for i, name in enumerate(dict.fromkeys(name for plan in flat for name in plan)):
        cells = [quantity(name, plan[name]) if name in plan else NOTHING for plan in flat]
        columns.append((say.broken(stem_of(name)), _with_missing(runs, cells, say_so=not i)))
    return _laid_out(title, runs, columns, width) if columns else []


def moves(results: Iterable[Result]) -> list[Table]:
    """How power moves over time, of runs that asked for it."""
    rows = []
    for one in results:
        if "power_swing_W" not in one.metrics:
            continue
        told = {name: one.metric(f"power_{name}") for name in ("p5_W", "p95_W", "swing_W", "ramp_W_per_s", "at_Hz_W")}
        hertz = f"{one.metric('power_swing_Hz'):.3g} Hz"
        rows.append([one.run, *(f"{told[name] / 1e3:,.4g}" for name in told), hertz])
    if not rows:
        return []
    heads = ["run", "p5 kW", "p95 kW", "p95 - p5 kW", "steepest kW/s", "up and down kW", "at"]
    title = "power over time, all machines, facility (power.over_time)"
    return [say.table(heads, rows, title=title, left=(0,), whole=(0,))]


def budgets(outcomes: Iterable[Outcome]) -> list[Table]:
    """Memory line by line of the first runs that do not fit, each in a table of its own."""
    full = [one for one in outcomes if isinstance(one, Infeasible) and one.budget.get("what") == "memory"]
    return [_budget(one) for one in full[:_BUDGETS] if len(one.budget.get("parts_B", ())) > 1]


def _budget(one: Infeasible) -> Table:
    budget = one.budget
    lines = {**budget["parts_B"], "needed": budget["needed_B"], "there is": budget["available_B"]}
    if "nearest" in budget:
        changes = ", ".join(f"{key}: {_value(value)}" for key, value in budget["nearest"]["changes"].items())
        lines[f"with {changes}"] = budget["nearest"]["needed_B"]
    rows = [[line, f"{size_B / GB:,.1f}"] for line, size_B in lines.items()]
    return say.table([f"memory of a {budget['of']}", "GB"], rows, title=one.run)


def _laid_out(title: str, runs: Sequence[Outcome], columns: list[tuple[str, list[str]]], width: int) -> list[Table]:
    """Columns behind those that name the runs; what has no room goes on in another table."""
    heads, firsts, left = _first_columns(runs)
    out: list[Table] = []
    for chunk in chunks(columns, [width_of(head, cells) for head, cells in columns], _room(runs, width)):
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
    return width - sum(width_of(head, column) for head, column in zip(heads, zip(*cells, strict=True), strict=True))


def _columns(kind: Kind, runs: Sequence[Outcome], what: Sequence[str], width: int) -> list[tuple[str, list[str]]]:
    """Heads and cells of all that is measured, behind what `best` became where that does not break the table."""
    measured, decided = _measured_columns(kind, runs, what), _decided_columns(runs)
    whole, room = [*decided, *measured], _room(runs, width)
    pieces = [len(chunks(some, [width_of(head, cells) for head, cells in some], room)) for some in (measured, whole)]
    return whole if pieces[0] == pieces[1] else measured


def _measured_columns(kind: Kind, runs: Sequence[Outcome], what: Sequence[str]) -> list[tuple[str, list[str]]]:
    results = [one for one in runs if isinstance(one, Result)]
    if not results:
        return [("outcome", [one.outcome for one in runs if not isinstance(one, Result)])]
    columns = []
    for metric in kind.table:
        if metric == kinds.PER:
            columns += [(_per_head(kind, results, one), _per(results, one)) for one in what]
        elif any(metric in result.metrics for result in results):
            columns.append((say.broken(stem_of(metric)), _column(metric, results)))
    if any(result.bound for result in results):
        columns.append(("bound\nreached", [bound_reached(result) for result in results]))
    if any(result.limiter for result in results):
        columns.append((_LIMITER, [result.limiter or NOTHING for result in results]))
    # the first says where nothing was measured
    return [(head, _with_missing(runs, cells, say_so=not i)) for i, (head, cells) in enumerate(columns)]


def _decided_columns(runs: Sequence[Outcome]) -> list[tuple[str, list[str]]]:
    """What `best` became, a column per key."""
    results = [one for one in runs if isinstance(one, Result)]
    return [
        (f"best\n{say.broken(short)}", _with_missing(runs, [_value(result.chosen.get(key)) for result in results]))
        for key, short in identity.heads(result.chosen for result in results).items()
    ]


def spread(outcomes: Iterable[Outcome]) -> list[Table]:
    """How the main metrics of each kind are distributed over seeds, where several were run."""
    rows = over_seeds(list(outcomes))
    out = []
    for kind in dict.fromkeys(str(row["kind"]) for row in rows):
        declared = kinds.get(kind)
        of_kind = [row for row in rows if row["kind"] == kind and row["metric"] in declared.table]
        swept = [name for name in of_kind[0] if name not in _SPREAD] if of_kind else []
        of_kind.sort(key=lambda row: declared.table.index(row["metric"]))
        heads = ["workload", "system", *map(say.broken, swept), "metric", *_DRAWN]
        cells = [
            [row["workload"], row["system"], *(_value(row[name]) for name in swept), row["metric"]]
            + [str(row[name]) if name == "seeds" else quantity(row["metric"], row[name]) for name in _DRAWN]
            for row in of_kind
        ]
        if cells:
            title = f"{kind}: over seeds"
            words = [0, 1, len(heads) - len(_DRAWN) - 1]
            out.append(say.table(heads, cells, title=title, left=words, whole=words))
    return out


def intervals(outcomes: Iterable[Outcome], *, width: int = say.WIDTH) -> list[Table]:
    """How sure the main metrics of each kind are, where the scenario asks: a row per run."""
    out = []
    for kind, group in by_kind(outcomes):
        drawn = [one for one in group if isinstance(one, Result) and one.uncertainty]
        rows = {(row["run"], row["metric"]): row for row in interval_rows(drawn)}
        metrics = [
            metric
            for metric in dict.fromkeys(metric for _, metric in rows)
            if metric in (*kind.table, *_INTERVALS) or metric.endswith("_USD")
        ]
        if not rows:
            continue
        columns = [
            (say.broken(stem_of(metric)), [_between(metric, rows.get((one.run, metric))) for one in drawn])
            for metric in metrics
        ]
        out += _laid_out(f"{kind.name}: nine of ten draws lie between", drawn, columns, width)
    return out


def _between(metric: str, row: dict[str, Any] | None) -> str:
    return NOTHING if row is None else f"{quantity(metric, row['low'])} - {quantity(metric, row['high'])}"


def megawatts(outcomes: Iterable[Outcome], megawatts: float | None, *, width: int = say.WIDTH) -> list[Table]:
    """What machines give that are filled to a power of the facility, where the scenario asks."""
    out = []
    for kind, group in by_kind(outcomes) if megawatts is not None else ():
        runs = [one for one in group if isinstance(one, Result) and "power_avg_W" in one.metrics]
        assert megawatts is not None
        rows = [filled(one, megawatts) for one in runs]
        columns = [
            (say.broken(stem_of(name)), [_filled(name, row.get(name)) for row in rows])
            for name in dict.fromkeys(name for row in rows for name in row)
        ]
        if runs:
            title = f"{kind.name}: filled to {megawatts:g} MW of average facility power"
            out += _laid_out(title, runs, columns, width)
    return out


def _filled(name: str, value: tuple[float, float, float] | None) -> str:
    if value is None:
        return NOTHING
    middle, *ends = (f"{one:.3g}" if name == "machines" else quantity(name, one) for one in value)
    return middle if value[1] == value[2] else f"{middle} ({' - '.join(ends)})"


def decided(outcomes: Iterable[Outcome], *, per: Sequence[str] = (), width: int = say.WIDTH) -> list[str]:
    """What `best` became, where a table has no room for it."""
    out = []
    for kind, runs in by_kind(outcomes):
        columns = [head for head, _ in _columns(kind, runs, per, width)]
        if all(head in columns for head, _ in _decided_columns(runs)):
            continue
        results = [one for one in runs if isinstance(one, Result)]
        for key in dict.fromkeys(key for result in results for key in result.chosen):
            out.append(f"{kind.name}: best {key}: {_by_value(results, key)}")
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


def width_of(head: str, cells: Iterable[str]) -> int:
    """Of a column, with the space beside it."""
    return max(len(part) for part in [*head.split("\n"), *cells]) + say.GAP


def bound_reached(result: Result) -> str:
    """How much of what physics allows was reached, and what the bound is made of."""
    return f"{100 * float(result.bound['fraction']):.0f} % {result.bound['name']}" if result.bound else NOTHING


def _column(metric: str, results: list[Result]) -> list[str]:
    values = [result.metrics.get(metric) for result in results]
    if metric.endswith("_per_s"):
        return _counts([None if isinstance(value, str) else value for value in values])
    return [NOTHING if value is None else quantity(metric, value) for value in values]


def _counts(values: list[float | None]) -> list[str]:
    shown = iter(counts([value for value in values if value is not None]))
    return [NOTHING if value is None else next(shown) for value in values]


def _per_head(kind: Kind, results: list[Result], what: str) -> str:
    rates = {rate_name(result) for result in results}
    # the rate itself stands in the column before
    named = "" if rates <= set(kind.table) else f"{'/'.join(sorted(rate.removesuffix('_per_s') for rate in rates))}/s\n"
    return f"{named}per\n{say.broken(what)}"


def _per(results: list[Result], what: str) -> list[str]:
    values: list[float | None] = []
    for result in results:
        try:
            values.append(per(result, what))
        except InputError:  # the machine has no price, or does not say how many racks it fills
            values.append(None)
    return _counts(values)


def chunks(columns: Sequence[T], widths: Sequence[int], room: int) -> list[list[T]]:
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
