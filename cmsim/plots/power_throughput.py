"""Power against throughput: one line per workload and system over its sweep, with lines of equal efficiency.

Colours tell systems apart, markers workloads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.results import Result, Results, pairs, power_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: wider than this in throughput or in power, axes are logarithmic
_WIDE = 30.0
_MARKERS = "osD^vP"


def draw(results: Results, ax: Axes | None = None) -> Axes:
    """Facility power over tokens/s; up and to the right is more of both, the flatter the ray the better.

    A ray joins points of equal tokens/J; where the watts of accelerators are assumed, a band lies behind the line.
    Raises InputError where no run has tokens or power.
    """
    series: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if "tokens_per_s" in result.metrics and "power_avg_W" in result.metrics:
            series.setdefault((result.workload, result.system), []).append(result)
    if not series:
        raise InputError("power-throughput needs runs with tokens_per_s and power_avg_W; there is none")
    ax = style.axes(ax, size=(8.6, 5.4))
    points = [(r.metric("tokens_per_s"), r.metric("power_avg_W")) for line in series.values() for r in line]
    x_unit, x_name = numbers.scale(_middle([x for x, _ in points]), "")
    y_unit, y_name = numbers.scale(_middle([y for _, y in points]), "W")
    tops = [
        (r.metric("tokens_per_s"), r.metric("power_avg_W") * end)
        for line in series.values()
        for r in line
        for end in power_band(r) or ()
    ]
    _limits(ax, [(x / x_unit, y / y_unit) for x, y in [*points, *tops]])

    workloads = list(dict.fromkeys(workload for workload, _ in series))
    systems = list(dict.fromkeys(system for _, system in series))
    keys = {key for line in series.values() for result in line for key, _ in _point(result)}
    one_key = next(iter(keys)) if len(keys) == 1 else None
    names, points_said = [], []
    for (workload, system), line in series.items():
        colour = style.SERIES[systems.index(system) % len(style.SERIES)]
        marker = _MARKERS[workloads.index(workload) % len(_MARKERS)]
        line = sorted(line, key=lambda result: result.metric("tokens_per_s"))
        x = [result.metric("tokens_per_s") / x_unit for result in line]
        y = [result.metric("power_avg_W") / y_unit for result in line]
        top = _band(ax, line, x, y, colour)
        ax.plot(x, y, color=colour, linewidth=1.8, marker=marker, markersize=6.5, markeredgecolor="white", zorder=3)
        for result, x_here, y_here in zip(line, x, y, strict=True):
            text = ax.annotate(
                ", ".join(value if one_key else f"{key} {value}".strip() for key, value in _point(result)),
                (x_here, y_here),
                (0, -7),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=style.FONT["note"],
                color=style.MUTED,
                zorder=4,
            )
            style.halo(text)
            points_said.append(text)
        parts = [workload] * (len(workloads) > 1 or len(systems) == 1) + [system] * (len(systems) > 1)
        names.append(
            ax.annotate(
                ", ".join(parts),
                (x[-1], top),
                (0, 8),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=style.FONT["label"],
                fontweight="bold",
                color=colour,
                zorder=5,
            )
        )
    _rays(ax, [x / y for x, y in points], x_unit, y_unit)
    style.label(ax.xaxis, f"throughput [{_thousands(x_name)}tokens/s]")
    style.label(ax.yaxis, f"facility power, average [{y_name}]")
    style.head(ax, "Power against throughput" + (f", by {one_key}" if one_key else ""))
    style.inside(ax, names)
    style.apart(ax, names)
    style.thin(ax, points_said, keep=names)
    return ax


def _band(ax: Axes, line: list[Result], x: list[float], y: list[float], colour: str) -> float:
    """Behind a line, what its power may be; returns how high that reaches at its end."""
    ends = [power_band(result) or (1.0, 1.0) for result in line]
    low, high = ([end[i] * value for end, value in zip(ends, y, strict=True)] for i in (0, 1))
    if len(line) > 1:
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=2)
    else:
        ax.vlines(x, low, high, color=colour, alpha=0.35, linewidth=5, zorder=2)
    return high[-1]


def _point(result: Result) -> list[tuple[str, str]]:
    """(key, value) of the sweep point, keys as words."""
    return [(key.replace("_", " "), value) for key, value in pairs(result).items()]


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


def _rays(ax: Axes, tokens_per_J: list[float], x_unit: float, y_unit: float) -> None:
    """Lines of equal efficiency behind the points, each with its value where it leaves the axes."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    log = ax.get_xscale() == "log"
    low, high = min(tokens_per_J), max(tokens_per_J)
    steps = style.round_steps(low / 1.5, high * 1.5)
    for step in steps:
        slope = x_unit / (step * y_unit)  # y per x
        x_end = min(right, top / slope)
        x_start = max(left, bottom / slope)
        if x_end <= x_start or (not log and x_end < 0.1 * right):
            continue
        ax.plot([x_start, x_end], [slope * x_start, slope * x_end], color=style.FAINT, linewidth=1.0, zorder=1)
        at_top = top / slope < right
        ax.annotate(
            f"{step:g} tokens/J" if step >= 1 else f"{1 / step:g} J/token",
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
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)


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
