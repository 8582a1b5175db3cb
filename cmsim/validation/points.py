"""Areas of points: a published number, a scenario, and the metric of the scenario that answers to it. All data.

A new point is a line in the area's CSV and an entry under ``points`` in its YAML; a new area of points is two such
files and a line in the registry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat

from cmsim.api import run
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading import Document, Spec
from cmsim.results import Result
from cmsim.validation import reference
from cmsim.validation.area import Progress
from cmsim.validation.reference import AreaSpec, PublishedRow
from cmsim.validation.row import Row


class Prediction(Spec):
    """Where a predicted number comes from."""

    scenario: str = Field(description="a name under `scenarios` of the same file")
    metric: str
    times: float = Field(default=1.0, description="factor from the metric's unit to the row's")
    set: dict[str, Any] = Field(default={}, description="dotted keys to change in the scenario")
    fitted: dict[str, str] = Field(default={}, description="dotted key: name of a constant in fits.yaml")
    over: Prediction | None = Field(default=None, description="another one, which this is compared with")
    compared: Literal["percent", "ratio", "difference"] = Field(
        default="percent", description="of `over`: by how many percent this is more, this over that, or this less that"
    )


class Point(Spec):
    """What one row of the CSV is used for."""

    role: Literal["judged", "fitted", "left_out"] = Field(description="left_out here: predicted, as information")
    predict: Prediction
    what: str = Field(description="the quantity and the conditions it was published for")
    tolerance_pct: NonNegativeFloat | None = Field(default=None, description="default: the area's")
    note: str = Field(default="", description="assumptions; of a row left out, the reason")
    variants: dict[str, Prediction] = Field(
        default={}, description="what it would be under another assumption, by that assumption: shown, not judged"
    )


class PointsSpec(AreaSpec):
    """An area of points."""

    scenarios: dict[str, dict[str, Any]] = Field(description="by name, each as a scenario file says it")
    points: dict[str, Point] = Field(description="by id of a row")


def rows(
    area: str, progress: Progress, *, spec_type: type[PointsSpec] = PointsSpec, folder: Path | None = None
) -> list[Row]:
    """All rows of an area, predicted where they have a point; scenarios that several points share run once.

    spec_type: of an area that has more than points    folder: with the two files of the area, if it is not ours
    """
    spec, document = reference.read_spec(area, spec_type, folder)
    published = reference.read_rows(area, folder)
    _check(spec, document, published)
    reference.all_used(area, published, [*spec.points, *(id_ for group in spec.left_out for id_ in group.rows)])
    done: dict[str, Result] = {}
    found = []
    for number, (id_, point) in enumerate(spec.points.items()):
        progress(f"{area}/{id_}", number / len(spec.points))
        of = published[id_]
        others = {what: predict(other, spec.scenarios, done) for what, other in point.variants.items()}
        shown = [f"with {what} {value:.4g} {of.unit}" for what, value in others.items()]
        found_best = [
            f"best {key}: {value}" for key, value in answer(point.predict, spec.scenarios, done).chosen.items()
        ]
        found.append(
            Row(
                id=id_,
                area=area,
                role=point.role,
                system=of.system,
                what=point.what,
                published=of.number,
                unit=of.unit,
                source=of.source,
                where=of.where,
                note="; ".join(filter(None, [point.note, *found_best, *shown])),
                predicted=predict(point.predict, spec.scenarios, done),
                tolerance_pct=spec.tolerance_pct if point.tolerance_pct is None else point.tolerance_pct,
            )
        )
    return found + reference.left_out_rows(area, spec.left_out, published)


def predict(
    what: Prediction, scenarios: Mapping[str, Mapping[str, Any]], done: dict[str, Result] | None = None
) -> float:
    """The predicted number, in the row's unit. ``done`` keeps results between calls."""
    found = answer(what, scenarios, done).metric(what.metric)
    if what.over is not None:
        other = predict(what.over, scenarios, done)
        ways = {"percent": 100.0 * (found / other - 1.0), "ratio": found / other, "difference": found - other}
        found = ways[what.compared]
    return found * what.times


def answer(
    what: Prediction, scenarios: Mapping[str, Mapping[str, Any]], done: dict[str, Result] | None = None
) -> Result:
    """The result that a prediction is read from."""
    changes = {**what.set, **{key: reference.fitted_value(name) for key, name in what.fitted.items()}}
    key = json.dumps([what.scenario, changes], sort_keys=True)
    kept = {} if done is None else done
    if key not in kept:
        results = run(scenarios[what.scenario], set=changes)
        if len(results.outcomes) != 1:
            raise InputError(f"the scenario '{what.scenario}' has {len(results.outcomes)} runs; a point needs one")
        kept[key] = results[0]
    return kept[key]


def _check(spec: PointsSpec, document: Document, published: Mapping[str, PublishedRow]) -> None:
    problems: list[Problem] = []
    for id_, point in spec.points.items():
        if id_ not in published:
            problems.append(document.problem(("points", id_), f"no such row. {did_you_mean(id_, published)}"))
        named = (point.predict, *point.variants.values())
        for name in dict.fromkeys(one.scenario for one in (*named, *(one.over for one in named if one.over))):
            if name not in spec.scenarios:
                hint = did_you_mean(name, spec.scenarios)
                problems.append(document.problem(("points", id_), f"no scenario '{name}'. {hint}"))
        if point.role == "left_out" and not point.note:
            problems.append(document.problem(("points", id_), "a row that is left out needs its reason in `note`"))
    if problems:
        raise InputError(problems)
