"""Errors that validation found, as factors on a run's metrics: which area a kind stands on, and how a factor enters."""

from __future__ import annotations

import math

from pydantic import Field, NonNegativeFloat

from cmsim import reading
from cmsim.kinds import Metric
from cmsim.reading import Spec
from cmsim.reading.kept import while_unchanged
from cmsim.results import Result
from cmsim.uncertainty import ModelError

FOLDER = "workloads/reference"
#: standard deviations to the 90th percentile of the absolute value of a normal number
_P90 = 1.6449
#: exponent of a factor on time, and on power, by the unit of a metric
_OF_TIME = {"s": 1.0, "J": 1.0, "g": 1.0, "USD": 1.0}
_OF_POWER = {"W": 1.0, "J": 1.0, "g": 1.0}


class AreaErrors(Spec):
    """Absolute errors of an area."""

    count: int = Field(ge=1, description="judged points, or rows")
    median_pct: NonNegativeFloat
    p90_pct: NonNegativeFloat


class ErrorsFile(Spec):
    """``errors.yaml``, as `cmsim validate --errors` writes it."""

    areas: dict[str, AreaErrors]


class StandsOn(Spec):
    """``stands_on.yaml``."""

    time_of: dict[str, str] = Field(description="kind: area of its times and rates")
    power: str = Field(description="area of all watts")
    loaded: tuple[str, ...] = Field(default=(), description="kinds whose load is given")


@while_unchanged(FOLDER)
def _files() -> tuple[StandsOn, dict[str, AreaErrors]]:
    at = reading.DATA / FOLDER
    stands_on = reading.validate(StandsOn, reading.read_yaml(at / "stands_on.yaml"))
    return stands_on, reading.validate(ErrorsFile, reading.read_yaml(at / "errors.yaml")).areas


def errors_of(found: Result, accelerator: str) -> tuple[list[ModelError], list[str]]:
    """Factors on the metrics of a result, and what is to be said of those that there are none for.

    A machine has one error of an area in all its runs; two kinds of machine have each their own.
    """
    stands_on, areas = _files()
    out, notes = [], []
    for area, powers in (
        (stands_on.time_of.get(found.declared.name, ""), _powers(found, _time_power)),
        (stands_on.power, _powers(found, _power_power)),
    ):
        if not powers:
            continue
        if area not in areas:
            notes.append(
                f"no area of validation stands for a {found.declared.name}: its times have no error of the model"
            )
            continue
        sigma = math.log1p(areas[area].p90_pct / 100) / _P90
        out.append(ModelError(area, f"{area} on {accelerator}", round(sigma, 9), powers))
    return out, notes


def _powers(found: Result, of: object) -> dict[str, float]:
    assert callable(of)
    powers = {}
    for name, value in found.metrics.items():
        if not isinstance(value, str) and value > 0 and (power := of(found.declared.metric(name), name, found)):
            powers[name] = power
    return powers


def _time_power(metric: Metric, name: str, found: Result) -> float:
    """Of a kind under a load that is given only waits have an error: what it gives is asked of it."""
    if found.declared.name in _files()[0].loaded:
        return 1.0 if metric.unit == "s" and name != "makespan_s" else 0.0
    if metric.unit.endswith("/s"):
        return -1.0
    if metric.unit.endswith("/J"):
        return -1.0
    if metric.unit == "1" and metric.of_time and metric.better == "more":
        return -1.0  # a share of a peak
    return _OF_TIME.get(metric.unit, 0.0)


def _power_power(metric: Metric, name: str, found: Result) -> float:
    if metric.unit.endswith("/J"):
        return -1.0
    if metric.unit in ("USD", "USD/h"):
        if name == "cost_electricity_per_hour_USD":
            return 1.0
        whole = name == "cost_per_hour_USD" or metric.unit == "USD"
        electricity = float(found.metrics.get("cost_electricity_per_hour_USD", 0.0))
        return electricity / float(found.metrics["cost_per_hour_USD"]) if whole else 0.0
    return _OF_POWER.get(metric.unit, 0.0)
