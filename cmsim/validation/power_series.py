"""Power of nodes over time: whole logs of training runs, beside the curve of a step that comes again and again.

A log is a node that waits, its contexts made, and a node that trains. How long each takes is the log's (what a
framework does before its first step is no part of a step); how much is drawn in either is predicted, over steps of
time as long as those of the log:

    mean = waits x waiting + (1 - waits) x training        swing = 95th - 5th percentile of both together

Energy of a log is its mean times its length, so that it has the error of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from cmsim import energy
from cmsim.api import run
from cmsim.errors import InputError, did_you_mean
from cmsim.hardware import load_system
from cmsim.reading import Document, Spec
from cmsim.reading.tables import Record, read_records
from cmsim.validation import reference
from cmsim.validation.row import Role, Row

COLUMNS = ("id", "benchmark", "nodes", "result", "current", "seconds", "waits", "mean_W", "p5_W", "p95_W")
#: step of time of the logs [s], and how long the curve beside them is, which is told as a share [s]
_STEP_S, _SECONDS = 2.0, 600.0
#: readings that a log is put together of
_READINGS = 10_000


class SeriesSpec(Spec):
    """What one log is used for."""

    role: Role
    scenario: str = Field(description="a name under `scenarios`, of as many nodes")
    note: str = ""


class SeriesLimits(Spec):
    """What median errors of logs not fitted have to stay under."""

    mean_pct: float
    swing_pct: float
    system: str = Field(description="what the nodes are called")
    source: str


@dataclass(frozen=True)
class Logged:
    """A log beside its prediction, of one node: mean, and 5th and 95th percentile. [W]"""

    id: str
    role: Role
    what: str
    note: str
    measured: tuple[float, float, float]
    predicted: tuple[float, float, float]

    @property
    def error_pct(self) -> dict[str, float]:
        """Of the mean, and of what is between the percentiles. [%]"""
        (mean, low, high), (told, told_low, told_high) = self.measured, self.predicted
        return {"mean": 100 * (told / mean - 1), "swing": 100 * ((told_high - told_low) / (high - low) - 1)}


def logs(
    area: str, series: Mapping[str, SeriesSpec], scenarios: Mapping[str, Mapping[str, Any]], document: Document
) -> list[Logged]:
    """Every log that has a scenario. Raises InputError for an id or a scenario that is not there."""
    records = {row["id"]: row for row in read_records(reference.folder() / f"{area}_series.csv", needed=COLUMNS)}
    if unused := [id_ for id_ in records if id_ not in series]:
        raise InputError(document.problem(("series",), f"the log '{unused[0]}' has no role"))
    found = []
    played: dict[tuple[str, str], tuple[float, np.ndarray[Any, Any]]] = {}
    for id_, of in series.items():
        if id_ not in records or of.scenario not in scenarios:
            said = did_you_mean(id_, records) if id_ not in records else did_you_mean(of.scenario, scenarios)
            raise InputError(document.problem(("series", id_), f"no such log, or scenario. {said}"))
        row = records[id_]
        key = (of.scenario, row["current"])
        if key not in played:
            played[key] = _node_W(scenarios[of.scenario], int(row["nodes"]), behind_supplies=row["current"] == "dc")
        found.append(_logged(id_, of, row, *played[key]))
    return found


def _node_W(scenario: Mapping[str, Any], nodes: int, *, behind_supplies: bool) -> tuple[float, np.ndarray[Any, Any]]:
    """What one node draws that waits, and over steps of time that trains; behind supplies none is lost in them. [W]"""
    entry = dict(scenario["systems"][0])
    entry["set"] = {**entry.get("set", {}), **({"facility.psu_efficiency": 1.0} if behind_supplies else {})}
    over_time = {"resolution_s": _STEP_S, "seconds": _SECONDS}
    workload = {**scenario["workload"], "power": {"over_time": over_time}}
    result = run({"systems": [entry], "workload": workload})[0]
    system = load_system(entry["system"], domains=entry.get("domains"), set=entry["set"])
    each = system.spec.facility.pue * nodes
    curve_W = result.columns["power_curve"]["power_W"] / each
    return energy.waiting_W(system, "active")[1] / each, curve_W


def _logged(id_: str, of: SeriesSpec, row: Record, waiting_W: float, curve_W: np.ndarray[Any, Any]) -> Logged:
    waits = round(row.number("waits") * _READINGS)
    whole = np.concatenate([np.full(waits, waiting_W), np.resize(curve_W, _READINGS - waits)])
    low, high = np.percentile(whole, [5, 95]).tolist()
    where = "behind its supplies" if row["current"] == "dc" else "at the wall"
    nodes = "one node" if row["nodes"] == "1" else f"a node of {row['nodes']}"
    what = f"{row['benchmark']}, {row['result']}, {nodes} {where}"
    measured = (row.number("mean_W"), row.number("p5_W"), row.number("p95_W"))
    return Logged(id_, of.role, what, of.note, measured, (float(whole.mean()), low, high))


def rows(area: str, found: Sequence[Logged], limits: SeriesLimits) -> list[Row]:
    """Two statistics of logs that nothing was fitted to, then each log with its mean."""
    judged = [one for one in found if one.role == "judged"]
    out = []
    for name, what, limit in (
        ("mean", "mean power of whole logs", limits.mean_pct),
        ("swing", "5th to 95th percentile of power of whole logs", limits.swing_pct),
    ):
        errors = [one.error_pct[name] for one in judged]
        each = ", ".join(f"{one.id} {error:+.1f} %" for one, error in zip(judged, errors, strict=True))
        out.append(
            Row(
                id=f"series/{name}/median",
                area=area,
                role="judged",
                system=limits.system,
                what=f"{what}: median absolute error of {len(judged)} logs, added to 1",
                published=1.0,
                unit="",
                source=limits.source,
                note=each,
                predicted=1.0 + float(np.median(np.abs(errors))) / 100,
                tolerance_pct=limit,
            )
        )
    for one in found:
        role: Role = "fitted" if one.role == "fitted" else "left_out"
        swing = f"5th to 95th percentile {one.error_pct['swing']:+.1f} %"
        counted = "counted in the medians" if one.role == "judged" else ""
        out.append(
            Row(
                id=one.id,
                area=area,
                role=role,
                system=limits.system,
                what=f"mean of a whole log: {one.what}",
                published=one.measured[0],
                unit="W",
                source=limits.source,
                note="; ".join(filter(None, [counted, one.note, swing])),
                predicted=one.predicted[0],
            )
        )
    return out
