"""What a kind of workload trades for what: two of its metrics, one line per set of results, workload and system
over its sweep.

Which two stands on the page of the kind (``figure``): of decoding the time of a token and throughput per accelerator.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.plots.place import Page
from cmsim.plots.series import Series, series, words
from cmsim.results import Result, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: of a marker, in points
_SIZE = 6.5
#: where values of the key are looked for first
_ABOVE = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))


@style.plain
def draw(results: Results, ax: Axes | None = None) -> Axes:
    """One metric over the other, of the runs whose kinds put the same two on the axes: of several pairs that of most.

    Raises InputError where no run has both.
    """
    every = [its for one in results if (its := _axes(one)) is not None]
    figure = max(every, key=every.count, default=None)  # the first of equals
    if figure is None:
        raise InputError("trade-off needs a run with both metrics that its kind puts on the axes; there is none")
    lines = series(results, lambda one: _axes(one) == figure, by=figure[0])
    ax = style.axes(ax, size=(8.6, 5.4))
    scales = [scale([one.metric(name) for line in lines for one in line.runs], name) for name in figure]
    (x_unit, x_label), (y_unit, y_label) = scales
    at = [[(one.metric(figure[0]) / x_unit, one.metric(figure[1]) / y_unit) for one in line.runs] for line in lines]
    drawn(ax, lines, at, x_label, y_label)
    keys = list(dict.fromkeys(words(head) for line in lines for head in (line.along, *line.fixed) if head))
    style.head(ax, "Trade-off" + (f", by {' and '.join(keys)}" if keys else ""))
    _say(ax, lines, at)
    return ax


def drawn(ax: Axes, lines: list[Series], at: list[list[tuple[float, float]]], x_label: str, y_label: str) -> None:
    """Lines through their points, named beside the figure, from 0 up."""
    for line, points in zip(lines, at, strict=True):
        x, y = zip(*points, strict=True)
        ax.plot(x, y, label=line.name, **line.look(_SIZE))
    style.label(ax.xaxis, x_label)
    style.label(ax.yaxis, y_label)
    style.thousands(ax.yaxis)
    ax.margins(0.08)
    ax.set_ylim(bottom=0)
    beside(ax)


def beside(ax: Axes) -> None:
    """The names of lines, at the right of the figure."""
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=style.FONT["note"],
        labelcolor=style.INK,
        handlelength=2.6,
    )


def _axes(result: Result) -> tuple[str, str] | None:
    """The two metrics that the kind of a run puts on the axes; None where it has not both as numbers."""
    its = result.declared.figure
    return None if its is None or any(isinstance(result.metrics.get(name, ""), str) for name in its) else its


def _say(ax: Axes, lines: list[Series], at: list[list[tuple[float, float]]]) -> None:
    """Values of the key along every line, where they lie on nothing."""
    page = Page(ax)
    for points in at:
        x, y = zip(*points, strict=True)
        page.marks(x, y, _SIZE / 2)
        page.line(x, y)
    for line, points in zip(lines, at, strict=True):
        for one, point in zip(line.runs, points, strict=True):
            if line.along:
                text = ax.annotate(
                    line.said(one),
                    point,
                    (0, 0),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=style.FONT["note"],
                    color=style.MUTED,
                )
                style.halo(text)
                page.put(text, radius=_SIZE / 2, ways=_ABOVE)


def scale(values: list[float], name: str) -> tuple[float, str]:
    """What to divide by, and the label with the unit that this gives."""
    suffix = re.sub(r"_(p\d+|mean)$", "", name).rpartition("_")[2]  # of a distribution, that of its values
    if suffix not in ("s", "J", "W", "B") or name.endswith("_per_s"):
        return 1.0, style.words(name)
    factor, unit = numbers.scale(max(values), suffix)
    return factor, style.words(name, unit)
