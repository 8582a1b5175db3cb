"""What a kind of workload trades for what: two of its metrics, one line per workload and system over its sweep.

Which two stands on the page of the kind (``figure``): of decoding the time of a token and throughput per accelerator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.results import Result, Results, pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(results: Results, ax: Axes | None = None) -> Axes:
    """One metric over the other, of all runs whose kinds put the same two on the axes as the first that puts any.

    Raises InputError where no run has both.
    """
    series: dict[tuple[str, str], list[Result]] = {}
    figure: tuple[str, str] | None = None
    for result in results:
        its = result.declared.figure
        if its is None or any(isinstance(result.metrics.get(name, ""), str) for name in its):
            continue
        figure = figure or its
        if its == figure:
            series.setdefault((result.workload, result.system), []).append(result)
    if figure is None:
        raise InputError("trade-off needs a run with both metrics that its kind puts on the axes; there is none")
    ax = style.axes(ax, size=(8.6, 5.4))
    scales = [_scale([one.metric(name) for line in series.values() for one in line], name) for name in figure]
    (x_unit, x_label), (y_unit, y_label) = scales
    several = len({workload for workload, _ in series}) > 1
    for number, ((workload, system), line) in enumerate(series.items()):
        colour = style.SERIES[number % len(style.SERIES)]
        x = [one.metric(figure[0]) / x_unit for one in line]
        y = [one.metric(figure[1]) / y_unit for one in line]
        label = f"{workload}, {system}" if several else system
        ax.plot(x, y, color=colour, linewidth=1.8, marker="o", markersize=6.5, markeredgecolor="white", label=label)
        for one, at in zip(line, zip(x, y, strict=True), strict=True):
            said = ", ".join(pairs(one).values())
            style.halo(
                ax.annotate(
                    said,
                    at,
                    (0, 7),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=style.FONT["note"],
                    color=style.MUTED,
                )
            )
    style.label(ax.xaxis, x_label)
    style.label(ax.yaxis, y_label)
    ax.margins(0.08)
    ax.set_ylim(bottom=0)
    keys = list(dict.fromkeys(key.replace("_", " ") for line in series.values() for one in line for key in pairs(one)))
    style.head(ax, "Trade-off" + (f", by {', '.join(keys)}" if keys else ""))
    ax.legend(frameon=False, fontsize=style.FONT["label"], labelcolor=style.INK)
    return ax


def _scale(values: list[float], name: str) -> tuple[float, str]:
    """What to divide by, and the label with the unit that this gives."""
    suffix = name.rpartition("_")[2]
    if suffix not in ("s", "J", "W", "B") or name.endswith("_per_s"):
        return 1.0, style.words(name)
    factor, unit = numbers.scale(max(values), suffix)
    return factor, style.words(name, unit)
