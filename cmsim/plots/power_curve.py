"""Power over time of one run on all its machines: the curve, where most of it lies, and the spectrum of its swing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cmsim import numbers
from cmsim.arrays import Floats, spectrum
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _BAND, _SWING = "#0072b2", "#56b4e9", "#d55e00"
#: of a curve of more points the least and the most of so many stretches are drawn
_MOST_POINTS = 4000


@style.plain
def draw(results: Results, ax: Axes | None = None, *, run: str | None = None) -> Axes:
    """Facility power of a run that asked for ``power.over_time``; below it, where nobody gives axes, how far it swings
    at each frequency.

    Raises InputError for a run without it.
    """
    result = style.pick(results, run)
    curve = result.frame_columns("power_curve") if "power_curve" in result.columns else {}
    if not len(curve.get("power_W", ())):
        raise InputError(f"{result.run} has no power over time: ask for it with `power: {{over_time: {{}}}}`")
    start_s, power_W = np.asarray(curve["start_s"]), np.asarray(curve["power_W"])
    step_s = float(start_s[1] - start_s[0]) if len(start_s) > 1 else 1.0
    time_unit, time_name = numbers.scale(float(start_s[-1] + step_s), "s")
    watt, watt_name = numbers.scale(float(power_W.max()), "W")
    below = None
    if ax is None:
        ax, below = style.panels((9.0, 6.0), (2.0, 1.0), same_x=False)
    else:
        ax = style.axes(ax)
    x, low, high = _ends(start_s / time_unit, power_W / watt)
    ax.fill_between(x, low, high, color=_LINE, linewidth=0, alpha=0.35)
    ax.plot(x, (low + high) / 2 if len(x) < len(power_W) else high, color=_LINE, linewidth=1.0)
    told = result.metrics
    lines = [(float(told[f"power_{name}_W"]) / watt, name) for name in ("p5", "p95") if f"power_{name}_W" in told]
    if len(lines) == 2:
        ax.axhspan(lines[0][0], lines[1][0], color=_BAND, alpha=0.18, linewidth=0)
    for height, name in lines:
        ax.axhline(height, color=style.INK, linewidth=0.8, linestyle=(0, (4, 3)))
        text = ax.annotate(
            f"{name} {height:.4g} {watt_name}",
            (1, height),
            (-4, 3 if name == "p95" else -3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom" if name == "p95" else "top",
            fontsize=style.FONT["note"],
            color=style.INK,
        )
        style.halo(text)
    ax.set_xlim(0, float(start_s[-1] + step_s) / time_unit)
    least, most = float(low.min()), float(high.max())
    room = 0.12 * (most - least) or 0.05 * most
    ax.set_ylim(max(least - room, 0.0), most + room)
    ax.grid(axis="y", color=style.FAINT, linewidth=0.6)
    style.label(ax.xaxis, f"time [{time_name}]")
    style.label(ax.yaxis, f"facility power, all machines [{watt_name}]")
    style.head(ax, result.run)
    if below is not None:
        _spectrum(below, power_W, step_s)
    return ax


def _ends(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Least and most over even stretches, where there are more points than can be seen."""
    if len(y) <= _MOST_POINTS:
        return x, y, y
    each = -(-len(y) // _MOST_POINTS)
    at = np.arange(0, len(y), each)
    return x[at], np.minimum.reduceat(y, at), np.maximum.reduceat(y, at)


def _spectrum(below: Axes, power_W: Floats, step_s: float) -> None:
    """How far up and down at each frequency."""
    hertz, swings_W = spectrum(power_W, step_s)
    if not len(hertz):
        return
    watt, watt_name = numbers.scale(float(swings_W.max()) or 1.0, "W")
    x, _, high = _ends(hertz, swings_W / watt)
    below.fill_between(x, 0, high, color=_SWING, linewidth=0, alpha=0.4)
    below.plot(x, high, color=_SWING, linewidth=0.8)
    below.set_xscale("log")
    below.set_xlim(float(hertz[0]), float(hertz[-1]) if len(hertz) > 1 else float(hertz[0]) * 2)
    below.set_ylim(0, float(high.max()) * 1.2 or 1.0)
    below.grid(axis="y", color=style.FAINT, linewidth=0.6)
    style.label(below.xaxis, "frequency [Hz]")
    style.label(below.yaxis, f"up and down [{watt_name}]")
