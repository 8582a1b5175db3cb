"""Which assumption matters: what each end of what is assumed makes of one metric of a run, the heaviest on top."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.plots.series import colours, system_of
from cmsim.results import Result, Results, Weight, interval, rate_name, weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: as many are drawn, down to this share of the spread; the others are counted
_MOST, _LEAST = 14, 0.001
#: of the colour of a bar's low end, towards white
_PALE = 0.45


@style.plain
def draw(results: Results, ax: Axes | None = None, *, run: str | None = None, metric: str | None = None) -> Axes:
    """A bar for each assumption, from what its low end makes of the metric to what its high end makes.

    run: default the first that has intervals    metric: default the throughput that a run is judged by

    Raises InputError where no run has intervals, or the run has no such metric, or nothing moves it.
    """
    drawn = [one for one in results if one.uncertainty]
    if not drawn and run is None:
        raise InputError(
            "tornado needs a run with intervals; there is none: ask with `uncertainty: {}` in the scenario"
        )
    result = style.pick(Results(drawn) if run is None else results, run)
    metric = metric or rate_name(result)
    found = weights(result, metric)
    if not found:
        raise InputError(f"nothing that is assumed moves {metric} of {result.run}")
    count = max(1, sum(one.share >= _LEAST for one in found[:_MOST]))
    shown, rest = found[:count], found[count:]
    ax = style.axes(ax, size=(9.4, 1.6 + 0.34 * len(shown)))
    value = result.metric(metric)
    reach = max(value, *(max(one.low, one.high) for one in shown))
    scale, unit = _scaled(metric, reach)
    colour = colours(results)[system_of(result)]
    for place, one in enumerate(reversed(shown)):
        _bar(ax, place, one, value, scale, colour)
    ax.axvline(value / scale, color=style.INK, linewidth=1.0, zorder=3)
    ends = interval(result, metric)
    if ends is not None:
        ax.axvspan(ends[0] / scale, ends[1] / scale, color=style.FAINT, alpha=0.5, linewidth=0, zorder=0)
    ax.set_yticks(
        range(len(shown)),
        [f"{style.short(one.name, 56)}  {one.range}" for one in reversed(shown)],
        fontsize=style.FONT["note"],
    )
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.09)
    style.label(ax.xaxis, _label(result, metric, unit, rest))
    style.head(ax, f"What {style.words(metric).partition(' [')[0]} depends on\n{result.run}")
    style.thousands(ax.xaxis)
    return ax


def _bar(ax: Axes, place: int, one: Weight, value: float, scale: float, colour: str) -> None:
    from cmsim.plots.series import lighter

    for end, shade in ((one.low, lighter(colour, _PALE)), (one.high, colour)):
        ax.barh(place, (end - value) / scale, left=value / scale, height=0.62, color=shade, linewidth=0, zorder=2)
    right = max(one.low, one.high, value) / scale
    ax.annotate(
        f"{100 * one.share:.0f} %" if one.share >= 0.005 else "<1 %",
        (right, place),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=style.FONT["note"] - 1,
        color=style.MUTED,
    )


def _scaled(metric: str, reach: float) -> tuple[float, str | None]:
    unit = numbers.unit_of(metric)
    if unit in ("s", "J", "W", "B", "g"):
        return numbers.scale(reach, unit)
    return 1.0, None


def _label(result: Result, metric: str, unit: str | None, rest: list[Weight]) -> str:
    draws = result.uncertainty["draws"]
    more = f"; {len(rest)} more have {100 * sum(one.share for one in rest):.2g} %" if rest else ""
    return (
        f"{style.words(metric, unit)}\nlight: low end, dark: high end; in per cent: share of the spread{more}\n"
        f"grey: nine of ten of {draws:,} draws"
    )
