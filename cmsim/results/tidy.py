"""All runs as one tidy table: a row each; swept keys, plan and metrics are columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cmsim.identity import heads
from cmsim.results.outcome import Outcome
from cmsim.results.result import Result, flat_plan

Row = Mapping[str, Any]


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row per run, all with the same keys in the same order; None where a run has no such value.

    run, workload, kind, system; the swept keys, each by the shortest head that nothing else has, with their values as
    the scenario gives them; outcome (result, infeasible, failed) and, of the last two, message; accelerators, ranks;
    what `best` became; the plan, with ``memory_<part>_B``; metrics; limiter, bound, bound_fraction.
    """
    taken = {name for one in outcomes for part in (_named(one), *_found(one)) for name in part}
    head = heads((one.point for one in outcomes), taken=taken)
    found = [(_named(one), {head[key]: value for key, value in one.point.items()}, *_found(one)) for one in outcomes]
    # part by part, so that columns stay together which the first run does not have
    columns = list(dict.fromkeys(name for parts in zip(*found, strict=True) for part in parts for name in part))
    flat = [{name: value for part in parts for name, value in part.items()} for parts in found]
    return [{name: row.get(name) for name in columns} for row in flat]


def _named(one: Outcome) -> Row:
    return {"run": one.run, "workload": one.workload, "kind": one.kind, "system": one.system}


def _found(one: Outcome) -> tuple[Row, ...]:
    """What became of a run, in parts."""
    if not isinstance(one, Result):
        return {"outcome": one.outcome, "message": one.message}, {}, {}, {}, {}
    return (
        {"outcome": "result", "message": "", "accelerators": one.accelerators, "ranks": one.ranks},
        one.chosen,
        flat_plan(one),
        one.metrics,
        {"limiter": one.limiter, "bound": one.bound.get("name"), "bound_fraction": one.bound.get("fraction")},
    )
