"""Power over time, one run: components stacked, what never changes at the bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.results import Results
from cmsim.units import to_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: from the bottom up, with what people call them
COMPONENTS = {
    "accelerators_idle": ("accelerators, idle", "#9db4c8"),
    "accelerators_active": ("accelerators, active idle", "#7b9cbb"),
    "hosts": ("hosts", "#b9b3a8"),
    "nics": ("NICs", "#d8cfc0"),
    "optical_modules": ("optical modules", "#c9a227"),
    "switch_chips": ("switch chips", "#e3c878"),
    "accelerators_compute": ("accelerators, compute", "#0072b2"),
    "accelerators_memory": ("accelerators, memory", "#56b4e9"),
    "accelerators_link": ("accelerators, links", "#d55e00"),
    "fans": ("fans", "#7cc7b0"),
    "power_supplies": ("power supplies", "#4e9f86"),
    "facility": ("facility (PUE)", "#c7cbd1"),
}


#: finer than this many intervals, means over so many even ones are drawn: spikes narrower than a line are noise
_MOST_STEPS = 240


def draw(results: Results, ax: Axes | None = None, *, run: str | None = None) -> Axes:
    """Facility power by component of one run; the list beside it gives each component's mean."""
    result = style.pick(results, run)
    power = result.frame_columns("power")
    if not len(power.get("power_W", ())):
        raise InputError(f"{result.run} has no power to draw")
    by_component = {name: np.flatnonzero(power["component"] == name) for name in dict.fromkeys(power["component"])}
    rows = next(iter(by_component.values()))
    edges_s = to_s(np.append(power["start_ps"][rows], power["end_ps"][rows[-1]]).astype(np.float64))
    heights = {name: power["power_W"][mine] for name, mine in by_component.items()}
    order = [name for name in COMPONENTS if name in heights] + [name for name in heights if name not in COMPONENTS]
    time_unit, time_name = numbers.scale(float(edges_s[-1]), "s")
    note = ""
    if len(edges_s) > _MOST_STEPS + 1:
        coarse_s = np.linspace(edges_s[0], edges_s[-1], _MOST_STEPS + 1)
        heights = {name: _means(edges_s, watts, coarse_s) for name, watts in heights.items()}
        edges_s = coarse_s
        step, unit = numbers.scale(float(coarse_s[1]), "s")
        note = f", means over {coarse_s[1] / step:.3g} {unit}"
    total_W = np.sum(list(heights.values()), axis=0)
    watt, watt_name = numbers.scale(float(total_W.max()), "W")

    ax = style.axes(ax, size=(9.0, 4.6))
    x = np.repeat(edges_s / time_unit, 2)[1:-1]
    lengths = np.diff(edges_s)
    entries = []
    base = np.zeros(len(x))
    for name in order:
        text, colour = COMPONENTS.get(name, (name.replace("_", " "), style.MUTED))
        top = base + np.repeat(heights[name] / watt, 2)
        mean = float(heights[name] @ lengths / lengths.sum()) / watt
        if mean > 0:
            area = ax.fill_between(x, base, top, color=colour, linewidth=0)
            entries.append((area, f"{text}  {mean:.3g}"))
        base = top
    mean = float(total_W @ lengths / lengths.sum()) / watt
    ax.legend(
        [area for area, _ in reversed(entries)],
        [text for _, text in reversed(entries)],
        title=f"mean {mean:.3g} {watt_name}, of it",
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=style.FONT["note"],
        title_fontsize=style.FONT["note"],
        labelcolor=style.INK,
        handlelength=1.0,
        handleheight=1.0,
        alignment="left",
    )
    ax.set_xlim(0, float(x[-1]))
    ax.set_ylim(0, float(base.max()) * 1.06)
    ax.grid(axis="y", color=style.FAINT, linewidth=0.6)
    style.label(ax.xaxis, f"time [{time_name}]")
    style.label(ax.yaxis, f"facility power{note} [{watt_name}]")
    style.head(ax, result.run)
    return ax


def _means(edges: NDArray[Any], watts: NDArray[Any], onto: NDArray[Any]) -> NDArray[Any]:
    """Means over other intervals of what is constant between edges; the integral stays."""
    until = np.concatenate([[0.0], np.cumsum(watts * np.diff(edges))])
    out: NDArray[Any] = np.diff(np.interp(onto, edges, until)) / np.diff(onto)
    return out
