"""Figures, one page each: ``draw(results, ax=None)`` takes saved results and runs nothing."""

from collections.abc import Callable
from typing import Any

from cmsim.plots import (
    break_even,
    breakdown,
    collective,
    latency,
    links,
    metric,
    pareto,
    power,
    power_curve,
    power_throughput,
    predicted,
    queue,
    roofline,
    scaling,
    search,
    timeline,
    topology,
    tornado,
    trade_off,
    waterfall,
)
from cmsim.plots.style import save

#: by the name the command line uses; ``search`` draws what a search found, ``topology`` a system: no sets of results
KINDS: dict[str, Callable[..., Any]] = {
    "power-throughput": power_throughput.draw,
    "trade-off": trade_off.draw,
    "pareto": pareto.draw,
    "timeline": timeline.draw,
    "breakdown": breakdown.draw,
    "power": power.draw,
    "power-curve": power_curve.draw,
    "roofline": roofline.draw,
    "collective": collective.draw,
    "metric": metric.draw,
    "latency": latency.draw,
    "queue": queue.draw,
    "waterfall": waterfall.draw,
    "tornado": tornado.draw,
    "break-even": break_even.draw,
    "scaling": scaling.draw,
    "links": links.draw,
}

__all__ = [
    "KINDS",
    "break_even",
    "breakdown",
    "collective",
    "latency",
    "links",
    "metric",
    "pareto",
    "power",
    "power_curve",
    "power_throughput",
    "predicted",
    "queue",
    "roofline",
    "save",
    "scaling",
    "search",
    "timeline",
    "topology",
    "tornado",
    "trade_off",
    "waterfall",
]
