"""Power against throughput: one line per set of results, workload and system over its sweep, with lines of equal
efficiency, and below it how long users wait.

Behind it all is how sure it is: where a scenario asks for `uncertainty`, nine of ten draws of power lie in the band,
those of throughput and of waits on the bars; else the band is what packages may draw whose watts are assumed.
Colours tell systems apart, markers workloads, strokes sets of results.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim import numbers
from cmsim.errors import InputError, did_you_mean
from cmsim.plots import style
from cmsim.plots.place import Page
from cmsim.plots.series import Series, series, words
from cmsim.results import Result, Results, interval, power_band, rate_name
from cmsim.results import per as rate_per

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

#: wider than this in throughput or in power, axes are logarithmic
_WIDE = 30.0
#: of a marker, in points
_SIZE = 6.5
#: what both axes can be divided by; of a megawatt the ray tells all
PER = ("accelerator", "rack", "million_dollars")


@style.plain
def draw(results: Results, ax: Axes | None = None, *, per: str = "") -> Axes:
    """Facility power over tokens/s; up and to the right is more of both, the flatter the ray the better.

    per: one of ``PER`` that both are divided by; default: of the whole machine

    A ray joins points of equal energy per token; where the watts of accelerators are assumed, a band lies behind the
    line. Without axes of the caller's, latency stands in a second panel below where users of a run wait for something.
    Raises InputError where no run has tokens or power, and for what a run does not know.
    """
    if per and per not in PER:
        raise InputError(f"cannot draw per '{per}'. {did_you_mean(per, PER)}")
    lines = series(results, _has_both, by="tokens_per_s")
    if not lines:
        raise InputError("power-throughput needs runs with tokens_per_s and power_avg_W; there is none")
    runs = [one for line in lines for one in line.runs]
    below: Axes | None = None
    if ax is None and any(_latency_s(one) is not None for one in runs):
        ax, below = style.panels((8.6, 7.4), (2.3, 1.0))
    ax = style.axes(ax, size=(8.6, 5.4))
    points = [_at(one, per) for one in runs]
    x_unit, x_name = numbers.scale(_middle([x for x, _ in points]), "")
    y_unit, y_name = numbers.scale(_middle([y for _, y in points]), "W")
    tops = [(x, y * end) for one, (x, y) in zip(runs, points, strict=True) for end in _power_ends(one)]
    _limits(ax, [(x / x_unit, y / y_unit) for x, y in [*points, *tops]])
    for line in lines:
        x, y = ([value / unit for value in values] for values, unit in _columns(line, x_unit, y_unit, per))
        _band(ax, line.runs, x, y, line.colour)
        for one, here, there in zip(line.runs, x, y, strict=True):
            _bar(ax, one, rate_name(one), (here, there), line.colour, across=True)
        ax.plot(x, y, **line.look(_SIZE), zorder=3)
    said = _rays(ax, [x / y for x, y in points], x_unit, y_unit)
    over = f" per {per.replace('_', ' ')}" if per else ""
    throughput = f"throughput{over} [{_thousands(x_name)}tokens/s]"
    style.label((ax if below is None else below).xaxis, throughput)
    style.label(ax.yaxis, f"facility power, average{over} [{y_name}]")
    keys = list(dict.fromkeys(words(head) for line in lines for head in (line.along, *line.fixed) if head))
    style.head(ax, "Power against throughput" + (f", by {' and '.join(keys)}" if keys else ""))
    if below is not None:
        _waits(below, lines, x_unit, per)
    _say(ax, lines, said, x_unit, y_unit, per)
    return ax


def _has_both(result: Result) -> bool:
    return "tokens_per_s" in result.metrics and "power_avg_W" in result.metrics


def _at(result: Result, per: str) -> tuple[float, float]:
    rate = result.metric("tokens_per_s")
    over = 1.0 if not per else rate_per(result, per) / result.metric(rate_name(result))
    return rate * over, result.metric("power_avg_W") * over


def _power_ends(result: Result) -> tuple[float, float]:
    """What power may be, over what it is. [1]"""
    return _ends(result, "power_avg_W") or power_band(result) or (1.0, 1.0)


def _ends(result: Result, metric: str) -> tuple[float, float] | None:
    """Ends of a metric's interval over what it is; None without one. [1]"""
    found = interval(result, metric)
    return None if found is None else (found[0] / result.metric(metric), found[1] / result.metric(metric))


def _bar(ax: Axes, one: Result, metric: str, at: tuple[float, float], colour: str, *, across: bool) -> None:
    """Through a point, where nine of ten draws of a metric lie; nothing where none were drawn."""
    ends = _ends(one, metric)
    if ends is None:
        return
    x, y = at
    look: dict[str, Any] = {"color": colour, "alpha": 0.4, "linewidth": 1.6, "zorder": 2}
    if across:
        ax.hlines(y, x * ends[0], x * ends[1], **look)
    else:
        ax.vlines(x, y * ends[0], y * ends[1], **look)


def _columns(line: Series, x_unit: float, y_unit: float, per: str) -> tuple[tuple[list[float], float], ...]:
    x, y = zip(*(_at(one, per) for one in line.runs), strict=True)
    return (list(x), x_unit), (list(y), y_unit)


def _latency_s(result: Result) -> float | None:
    """How long users of a run wait; None where its kind has nobody who does."""
    latency = result.declared.latency
    value = result.metrics.get(latency[0]) if latency else None
    return value if isinstance(value, float | int) else None


def _waits(ax: Axes, lines: list[Series], x_unit: float, per: str) -> None:
    """The time users wait over the same throughput."""
    waited = [one for line in lines for one in line.runs if _latency_s(one) is not None]
    times = [value for one in waited if (value := _latency_s(one)) is not None]
    unit, name = numbers.scale(_middle(times), "s")
    for line in lines:
        waiting = [one for one in line.runs if _latency_s(one)]
        there = [(_at(one, per)[0] / x_unit, _latency_s(one) or 0.0) for one in waiting]
        for one, (x, wait) in zip(waiting, there, strict=True):
            latency = one.declared.latency
            assert latency is not None
            _bar(ax, one, latency[0], (x, wait / unit), line.colour, across=False)
        if there:
            ax.plot([x for x, _ in there], [wait / unit for _, wait in there], **line.look(_SIZE), zorder=3)
    if max(times) > _WIDE * min(times):
        ax.set_yscale("log")
        ax.set_ylim(min(times) / unit / 2, max(times) / unit * 2)
        style.log_ticks(ax.yaxis, few=max(times) > 300 * min(times))
    else:
        ax.set_ylim(0, max(times) / unit * 1.16)
    ax.grid(axis="y", color=style.FAINT, linewidth=0.6)
    said = ",\n".join(dict.fromkeys(latency[1] for one in waited if (latency := one.declared.latency)))
    style.label(ax.yaxis, f"time of {said} [{name}]")


def _say(ax: Axes, lines: list[Series], said: list[Annotation], x_unit: float, y_unit: float, per: str) -> None:
    """Values of the key along lines, and their names, where they lie on nothing; names lie on no band either."""
    page = Page(ax)
    page.taken(said)
    places = [[(x / x_unit, y / y_unit) for x, y in (_at(one, per) for one in line.runs)] for line in lines]
    for line, points in zip(lines, places, strict=True):
        x, y = zip(*points, strict=True)
        page.marks(x, y, _SIZE / 2)
        page.line(x, y)
        if len(x) == 1:
            page.line([*x, *x], [y[0] * end for end in _power_ends(line.runs[0])], width=5.0)
    for line, points in zip(lines, places, strict=True):
        for one, at in zip(line.runs, points, strict=True):
            if line.along:
                text = _text(ax, line.said(one), at, color=style.MUTED, fontsize=style.FONT["note"])
                page.put(text, radius=_SIZE / 2)
    tops = []
    for line, points in zip(lines, places, strict=True):
        x, y = zip(*points, strict=True)
        low, high = zip(*(_power_ends(one) for one in line.runs), strict=True)
        tops.append(y[-1] * high[-1])
        for share in np.linspace(0, 1, 6).tolist():
            ends = [a + share * (b - a) for a, b in zip(low, high, strict=True)]
            page.line(x, [here * end for here, end in zip(y, ends, strict=True)])
    for line, points, top in zip(lines, places, tops, strict=True):
        at = (points[-1][0], top)
        text = _text(ax, line.member or line.name, at, color=line.ink, fontsize=style.FONT["label"])
        text.set_fontweight("normal" if line.member else "bold")
        page.put(text, radius=_SIZE / 2, hide=False, ways=((0, 1), (-1, 1), (1, 1), (1, 0), (-1, 0)), steps=4)


def _text(ax: Axes, said: str, at: tuple[float, float], **looks: Any) -> Annotation:
    text = ax.annotate(said, at, (0, 0), textcoords="offset points", ha="center", va="center", zorder=5, **looks)
    style.halo(text)
    return text


def _band(ax: Axes, runs: tuple[Result, ...], x: list[float], y: list[float], colour: str) -> None:
    """Behind a line, what its power may be."""
    ends = [_power_ends(result) for result in runs]
    low, high = ([end[i] * value for end, value in zip(ends, y, strict=True)] for i in (0, 1))
    if len(runs) > 1:
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=2)
    else:
        ax.vlines(x, low, high, color=colour, alpha=0.35, linewidth=5, zorder=2)


def _thousands(prefix: str) -> str:
    return {"k": "thousand ", "M": "million ", "G": "billion "}.get(prefix, "")


def _limits(ax: Axes, points: list[tuple[float, float]]) -> None:
    """From zero where the points fit, else logarithmic."""
    for values, scale, limit, axis in (
        ([x for x, _ in points], ax.set_xscale, ax.set_xlim, ax.xaxis),
        ([y for _, y in points], ax.set_yscale, ax.set_ylim, ax.yaxis),
    ):
        if _wide(points):
            scale("log")
            limit(min(values) / 2, max(values) * 2)
            style.log_ticks(axis)
        else:
            limit(0, max(values) * 1.16)


def _middle(values: list[float]) -> float:
    """What units are chosen for: the largest, but on a logarithmic axis the middle."""
    return max(values) if max(values) < _WIDE * min(values) else math.sqrt(max(values) * min(values))


def _wide(points: list[tuple[float, float]]) -> bool:
    # both or neither, so that lines of equal efficiency stay straight
    return any(max(values) > _WIDE * min(values) for values in zip(*points, strict=True))


def _rays(ax: Axes, tokens_per_J: list[float], x_unit: float, y_unit: float) -> list[Annotation]:
    """Lines of equal efficiency behind the points, each with its value where it leaves the axes.

    All in one unit, tokens/J or J/token, in which most are above 1: round numbers of the one are none of the other.
    """
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    log = ax.get_xscale() == "log"
    low, high = min(tokens_per_J), max(tokens_per_J)
    per_J = low * high >= 1
    steps = style.round_steps(*((low / 1.5, high * 1.5) if per_J else (1 / high / 1.5, 1 / low * 1.5)))
    said = []
    for step in steps:
        slope = x_unit / y_unit * (1 / step if per_J else step)  # y per x
        x_end = min(right, top / slope)
        x_start = max(left, bottom / slope)
        if x_end <= x_start or (not log and x_end < 0.1 * right):
            continue
        ax.plot([x_start, x_end], [slope * x_start, slope * x_end], color=style.FAINT, linewidth=1.0, zorder=1)
        at_top = top / slope < right
        text = ax.annotate(
            f"{step:,.10g} {'tokens/J' if per_J else 'J/token'}",
            (x_end, slope * x_end),
            (-4, 0) if at_top else (4, 0),
            textcoords="offset points",
            ha="right" if at_top else "left",
            va="bottom" if at_top else "center",
            fontsize=style.FONT["note"] - 1,
            color=style.MUTED,
            annotation_clip=False,
            zorder=2,
            rotation=_angle(ax, slope, log) if at_top else 0.0,
            rotation_mode="anchor",
        )
        # where there is no room for it inside, the ray goes without
        if at_top and _decades_in(ax, x_start, x_end) < 0.12:
            text.set_visible(False)
        said.append(text)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    return said


def _decades_in(ax: Axes, start: float, end: float) -> float:
    """Share of the axis between two values. [1]"""
    ((x0, _), (x1, _)) = ax.transAxes.inverted().transform(ax.transData.transform([(start, 1.0), (end, 1.0)]))
    return float(x1 - x0)


def _angle(ax: Axes, slope: float, log: bool) -> float:
    """How steep a ray looks on the page, in degrees."""
    if log:
        rise, run = 1 / _decades(ax.get_ylim()), 1 / _decades(ax.get_xlim())
    else:
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        rise, run = slope / (top - bottom), 1 / (right - left)
    box = ax.get_position()
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    return math.degrees(math.atan2(rise * box.height * height, run * box.width * width))


def _decades(limits: tuple[float, float]) -> float:
    return math.log10(limits[1] / limits[0])
