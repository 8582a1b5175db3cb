"""Power over time, one run: components stacked, what never changes at the bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.plots.parts import passes
from cmsim.results import Result, Results
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


#: finer than this many intervals, means over at most so many are drawn: spikes narrower than a line are noise
_MOST_STEPS = 240
#: fewer layers than this tell no step of time
_LEAST_STEPS = 8


@style.plain
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
        coarse_s, note = _steps(result, edges_s)
        heights = {name: _means(edges_s, watts, coarse_s) for name, watts in heights.items()}
        edges_s = coarse_s
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
    rated = (result.machine.rated_W or 0.0) / watt
    ax.set_ylim(0, max(float(base.max()), rated) * 1.1)
    if rated:
        ax.axhline(rated, color=style.INK, linewidth=1.2, linestyle=(0, (5, 3)))
        text = ax.annotate(
            f"rated {rated:.3g} {watt_name}: every part at its limit",
            (0, rated),
            (4, -3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="top",
            fontsize=style.FONT["note"],
            color=style.INK,
        )
        style.halo(text)
    ax.grid(axis="y", color=style.FAINT, linewidth=0.6)
    style.label(ax.xaxis, f"time [{time_name}]")
    style.label(ax.yaxis, f"facility power{note} [{watt_name}]")
    style.head(ax, result.run)
    return ax


def _steps(result: Result, edges_s: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Steps of time to draw means over, and what they are: whole layers, for even steps beat against what comes again
    with every layer; even ones where no name tells layers, or there are few. [s]
    """
    there = passes(result)
    if there is None or len(there.start_ps) < _LEAST_STEPS * there.beat:
        even_s = np.linspace(edges_s[0], edges_s[-1], _MOST_STEPS + 1)
        unit, name = numbers.scale(float(even_s[1] - even_s[0]), "s")
        return even_s, f", means over {(even_s[1] - even_s[0]) / unit:.3g} {name}"
    count = len(there.start_ps)
    fits = [size for size in range(1, there.beat + 1) if there.beat % size == 0 and count <= size * _MOST_STEPS]
    # layers of micro-batches that run side by side are one step
    beside = result.facts.named().get("layers") is not None
    size = fits[0] if fits and not beside else there.beat * -(-count // (there.beat * _MOST_STEPS))
    starts_s = to_s(there.start_ps[::size].astype(np.float64))
    inner = starts_s[(starts_s > edges_s[0]) & (starts_s < edges_s[-1])]
    # where the class waits for others there are no layers: such a gap has steps as long as the usual
    ends = np.array([edges_s[0], *inner, edges_s[-1]])
    usual_s = float(np.median(np.diff(ends)))
    fills = [
        np.linspace(a, b, max(round((b - a) / usual_s), 1), endpoint=False)
        for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]
    layers = size // there.beat if beside else size
    return np.unique(np.concatenate([*fills, ends[-1:]])), f", means over {layers} layer{'s' * (layers != 1)}"


def _means(edges: NDArray[Any], watts: NDArray[Any], onto: NDArray[Any]) -> NDArray[Any]:
    """Means over other intervals of what is constant between edges; the integral stays."""
    until = np.concatenate([[0.0], np.cumsum(watts * np.diff(edges))])
    out: NDArray[Any] = np.diff(np.interp(onto, edges, until)) / np.diff(onto)
    return out
