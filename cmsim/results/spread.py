"""Runs that differ by their seed alone are draws of one thing: how its metrics are distributed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from cmsim.identity import Point, heads
from cmsim.results.outcome import Outcome
from cmsim.results.result import Result

#: the key of a scenario that draws
SEED = "seed"
#: quantiles that are told, by name
QUANTILES = {"p05": 0.05, "p50": 0.5, "p95": 0.95}


def over_seeds(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row per metric of every group of two or more runs that differ by their seed alone.

    Returns
    -------
    list of dict
        workload, kind, system; the other swept keys, by the shortest heads that tell them apart; ``metric``, ``seeds``
        (draws), ``mean``, ``std`` (of a sample), ``min``, the ``QUANTILES``, ``max``, in the metric's unit. Metrics
        that are words have no row. Empty where no seeds were swept. Quantiles are interpolated between draws, so that
        the outer ones of few draws are near the least and the most.
    """
    groups: dict[str, list[Result]] = {}
    for one in outcomes:
        if isinstance(one, Result) and SEED in one.point:
            groups.setdefault(_key(one), []).append(one)
    drawn = [group for group in groups.values() if len(group) > 1]
    head = heads([_rest(group[0].point) for group in drawn], taken=("workload", "kind", "system", "metric"))
    out = []
    for group in drawn:
        first = group[0]
        named = {"workload": first.workload, "kind": first.kind, "system": first.system}
        swept = {name: _rest(first.point).get(key, "") for key, name in head.items()}
        for metric, value in first.metrics.items():
            if isinstance(value, str) or not all(metric in one.metrics for one in group):
                continue
            values = np.array([one.metrics[metric] for one in group], np.float64)
            levels = np.quantile(values, list(QUANTILES.values()))
            row: dict[str, Any] = {
                **named,
                **swept,
                "metric": metric,
                "seeds": len(group),
                "mean": float(values.mean()),
            }
            row |= {"std": float(values.std(ddof=1)), "min": float(values.min())}
            row |= dict(zip(QUANTILES, map(float, levels), strict=True)) | {"max": float(values.max())}
            out.append(row)
    return out


def _rest(point: Point) -> dict[str, Any]:
    return {key: value for key, value in point.items() if key != SEED}


def _key(one: Result) -> str:
    """What runs have in common that are draws of one thing."""
    entry = one.entry.number if one.entry is not None else one.system
    return json.dumps([one.workload, entry, one.source, _rest(one.point)], sort_keys=True, default=str)
