"""The areas there are, and validating them.

To add one: a module with a function ``rows(area, progress)``, or `points.rows` or `folds.rows` where data will do; its
``<name>.yaml`` and ``<name>.csv`` in ``workloads/reference/``; and a line in ``AREAS``. Another package has an entry
point of the group ``cmsim.areas`` instead, and its files beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cmsim.errors import InputError, did_you_mean
from cmsim.reading.outside import brought, opened
from cmsim.validation import backend, folds, points, power_load, serving, totals, training
from cmsim.validation.area import Area, Progress
from cmsim.validation.report import Report
from cmsim.validation.row import Row

#: entry points of other packages
GROUP = "cmsim.areas"
AREAS: dict[str, Area] = {
    area.name: area
    for area in (
        Area("system-totals", totals.rows),
        Area("system-power", totals.rows),
        Area("headline-points", points.rows),
        Area("power-under-load", power_load.rows, power_load.pairs),
        Area("collectives", folds.rows, folds.pairs),
        Area("expert_parallel", folds.rows, folds.pairs),
        Area("kernels", folds.rows, folds.pairs),
        Area("flow-backend", backend.rows),
        Area("trace-replays", points.rows),
        Area("training", training.rows, training.pairs),
        Area("training-memory", training.rows, training.pairs),
        Area("serving", serving.rows, serving.pairs),
        Area("serving-throughput", serving.rows, serving.pairs),
        Area("reliability", points.rows),
        Area("diffusion", points.rows),
        Area("cache-pool", points.rows),
    )
}


def areas_there_are() -> dict[str, Area]:
    """Ours, then those of other packages (entry points ``cmsim.areas``)."""
    outside = brought(GROUP, AREAS)
    return {**AREAS, **{name: opened(point, Area) for name, point in outside.items()}}


def validate(areas: Sequence[str] | None = None, *, progress: Progress | None = None) -> Report:
    """Predictions beside published and measured numbers.

    Parameters
    ----------
    areas
        Names of ``AREAS``; default: all.
    progress
        Called with what is predicted and the share done, 0 to 1.

    Returns
    -------
    Report
        Rows by area, judged, fitted and left out.

    Raises
    ------
    InputError
        For a name that is not an area, and for reference files that do not go together.
    """
    known = areas_there_are()
    wanted = list(known) if areas is None else list(dict.fromkeys(areas))
    for name in wanted:
        if name not in known:
            raise InputError(f"no area of validation '{name}'. {did_you_mean(name, known)}")
    found: dict[str, Sequence[Row]] = {}
    for number, name in enumerate(wanted):
        found[name] = known[name].rows(name, _within(progress, number, len(wanted)))
    if progress is not None:
        progress("", 1.0)
    return Report(found, {name: known[name].pairs(name, rows) for name, rows in found.items()})


def _within(progress: Progress | None, number: int, total: int) -> Progress:
    def tell(what: str, share: float) -> None:
        if progress is not None:
            progress(what, (number + share) / total)

    return tell
