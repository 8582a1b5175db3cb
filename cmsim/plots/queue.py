"""A service over time, one run: requests that wait and run, and tokens in caches below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@style.plain
def draw(results: Results, ax: Axes | None = None, *, run: str | None = None) -> Axes:
    """Means over each stretch of the run; into axes that are given go the requests alone."""
    result = style.pick(results, run)
    if "load" not in (frame.name for frame in result.declared.frames):
        raise InputError(f"{result.run} is no service; there is none to draw")
    load = {name: np.asarray(column) for name, column in result.frame_columns("load").items()}
    if not len(load.get("start_s", ())):
        raise InputError(f"{result.run} has no load over time; there is none to draw")
    edges = np.append(load["start_s"], load["end_s"][-1])
    unit, name = numbers.scale(float(edges[-1]), "s")
    lower = None
    if ax is None:
        ax, lower = style.panels((8.6, 5.4), (2, 1))
    else:
        ax = style.axes(ax)
    x = np.repeat(edges / unit, 2)[1:-1]
    for what, colour in (("running", style.SERIES[0]), ("waiting", style.SERIES[1])):
        ax.plot(x, np.repeat(load[what], 2), color=colour, linewidth=1.6)
    ax.set_ylim(bottom=0)
    ax.set_xlim(0, float(edges[-1]) / unit)
    style.label(ax.yaxis, "requests, mean")
    style.thousands(ax.yaxis)
    style.legend(ax, {"running": style.SERIES[0], "waiting": style.SERIES[1]})
    if lower is not None:
        scale, prefix = numbers.scale(float(load["cached_tokens"].max()) or 1.0, "")
        lower.fill_between(x, np.repeat(load["cached_tokens"] / scale, 2), color=style.SERIES[5], linewidth=0)
        lower.set_ylim(bottom=0)
        style.label(lower.yaxis, f"tokens in\ncaches [{prefix}]" if prefix else "tokens in\ncaches")
    style.label((lower or ax).xaxis, f"time [{name}]")
    style.head(ax, f"Requests over time: {result.run}", above=14)
    return ax
