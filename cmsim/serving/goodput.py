"""The highest rate at which what is promised is kept, by bisection over runs that differ in nothing but the rate."""

from __future__ import annotations

from collections.abc import Callable

from cmsim.kinds.serving import ServingSpec
from cmsim.serving import draw, measure
from cmsim.serving.questions import Questions
from cmsim.serving.service import Served

#: of the plan's capacity: the most that is tried (above it a promise is kept for as long as the queue is short), how
#: near the search comes, and below which nothing is sought
_HIGHEST, _NEAR, _LOWEST = 0.95, 0.01, 0.01


def goodput(
    serve: Callable[[Questions], list[Served]], asked: Questions, spec: ServingSpec, capacity: float
) -> tuple[float, list[Served] | None]:
    """Requests per second, and what was served at that rate; 0 and None where not even the lowest rate keeps the
    promise (`none`).

    serve  one run of the service, and of those beside it    asked  its requests, which come in other rates
    capacity  where to look [1/s]
    """
    best: tuple[float, list[Served] | None] = 0.0, None

    def kept(rate: float) -> bool:
        nonlocal best
        served = serve(draw.faster(asked, rate / asked.rate_per_s))
        keeps = spec.slo is not None and (
            measure.attainment(served[0].book, spec.slo, spec.warm_up) >= spec.slo.attainment
        )
        if keeps and rate > best[0]:
            best = rate, served
        return keeps

    found = sought(kept, capacity)
    return found, best[1]


def none(spec: ServingSpec, capacity: float) -> str:
    """Why there is no goodput."""
    assert spec.slo is not None
    return (
        f"goodput is 0: at {_LOWEST * capacity:.3g} requests/s, {_LOWEST:.0%} of the plan's capacity, fewer than "
        f"{spec.slo.attainment:.0%} of requests have their first token within {spec.slo.ttft_s:g} s and the others "
        f"within {spec.slo.tpot_s:g} s each"
    )


def sought(kept: Callable[[float], bool], capacity: float) -> float:
    """The highest rate that is kept, to one part in a hundred of the capacity. [1/s]"""
    low, high = _LOWEST * capacity, _HIGHEST * capacity
    if kept(high):
        return high
    if not kept(low):
        return 0.0
    while high - low > _NEAR * capacity:
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low
