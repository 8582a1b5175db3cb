"""All runs as one tidy table: a row each; swept keys, plan and metrics are columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cmsim.identity import heads
from cmsim.results.outcome import Outcome
from cmsim.results.result import Result, flat_plan

Row = Mapping[str, Any]
#: parts of a row, in their order
PARTS = ("run", "point", "outcome", "chosen", "plan", "metrics", "limits")
#: of a run, the names in each of its parts
Shape = tuple[tuple[str, ...], ...]


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row per run, all with the same keys in the same order; None where a run has no such value.

    run, workload, kind, system; the swept keys, each by the shortest head that nothing else has, with their values as
    the scenario gives them; outcome (result, infeasible, failed) and, of the last two, message; accelerators, ranks;
    what `best` became; the plan, with ``memory_<part>_B``; metrics; limiter, bound, bound_fraction.
    """
    found = [parts(one) for one in outcomes]
    columns = layout(list(dict.fromkeys(map(shape, found))))
    return [{name: cell(row, places) for name, places in columns.items()} for row in found]


def parts(one: Outcome) -> tuple[Row, ...]:
    """A run's ``PARTS``; points by their whole keys."""
    named = {"run": one.run, "workload": one.workload, "kind": one.kind, "system": one.system}
    if not isinstance(one, Result):
        return named, one.point, {"outcome": one.outcome, "message": one.message}, {}, {}, {}, {}
    return (
        named,
        one.point,
        {"outcome": "result", "message": "", "accelerators": one.accelerators, "ranks": one.ranks},
        one.chosen,
        flat_plan(one),
        one.metrics,
        {"limiter": one.limiter, "bound": one.bound.get("name"), "bound_fraction": one.bound.get("fraction")},
    )


def shape(row: Sequence[Row]) -> Shape:
    """The names in each part."""
    return tuple(map(tuple, row))


def layout(shapes: Sequence[Shape]) -> dict[str, list[tuple[int, str]]]:
    """Columns of a table of runs, and for each where its values stand: numbers of parts and names in them, of which the
    last that a run has counts.

    shapes: the distinct ones, in the order in which they come
    """
    swept = PARTS.index("point")
    taken = {name for one in shapes for at, names in enumerate(one) if at != swept for name in names}
    head = heads((dict.fromkeys(one[swept]) for one in shapes), taken=taken)
    columns: dict[str, list[tuple[int, str]]] = {}
    # part by part, so that columns stay together which the first run does not have
    for at in range(len(PARTS)):
        for name in dict.fromkeys(name for one in shapes for name in one[at]):
            columns.setdefault(head[name] if at == swept else name, []).append((at, name))
    return columns


def cell(row: Sequence[Row], places: Sequence[tuple[int, str]]) -> Any:
    """A run's value in a column of `layout`."""
    return next((row[at][name] for at, name in reversed(places) if name in row[at]), None)
