"""The fit of how unevenly tokens reach experts in prefill, from one pair of published throughputs.

A publisher gives the same prefill twice: as it ran, and with the load of experts evened out by hand. The ratio of the
two says how much the busiest rank held the others up. Only the ratio is used, so that errors of kernels and networks
largely cancel; how it carries over to another machine is what the judged points then show.
"""

from __future__ import annotations

from typing import Any

from cmsim.api import run
from cmsim.errors import InfeasibleError
from cmsim.validation import reference
from cmsim.validation.points import PointsSpec, Prediction

#: width at which the bisection ends; the shipped number has fewer digits
_CLOSE = 1e-6


def fit_expert_imbalance(
    name: str = "prefill_expert_imbalance", *, low: float = 1.0, high: float = 3.0
) -> tuple[float, float]:
    """Busiest rank's load over the mean [1], and what is left of the ratio's error [%].

    Bisection of  throughput(balanced) / throughput(imbalance) = published balanced / published as run,  which grows
    with the imbalance. The rows are those of the shipped fit: as run first, balanced second.

    Raises InfeasibleError where no imbalance between ``low`` and ``high`` gives the published ratio.
    """
    area = "headline-points"
    as_run, balanced = reference.fits()[name].rows
    published = reference.read_rows(area)
    spec, _ = reference.read_spec(area, PointsSpec)
    wanted = float(published[balanced].value) / float(published[as_run].value)
    point: Prediction = spec.points[as_run].predict
    keys = [key for key, fit in point.fitted.items() if fit == name]

    def throughput(imbalance: float) -> float:
        changes: dict[str, Any] = {**point.set, **dict.fromkeys(keys, imbalance)}
        return run(spec.scenarios[point.scenario], set=changes)[0].metric(point.metric)

    even = throughput(1.0)

    def ratio(imbalance: float) -> float:
        return even / throughput(imbalance)

    if not ratio(low) <= wanted <= ratio(high):
        raise InfeasibleError(f"no imbalance between {low:g} and {high:g} gives a ratio of {wanted:.4g}")
    while high - low > _CLOSE:
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(middle) < wanted else (low, middle)
    return high, 100 * (ratio(high) / wanted - 1)
