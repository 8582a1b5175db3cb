"""Predicted against measured, log-log with bands of 10 and 25 %, and the error of each point below.

Filled points are judged, hollow ones were fitted, grey crosses are shown and not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cmsim.arrays import Floats
from cmsim.errors import InputError
from cmsim.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: half widths of the bands, the widest first, with their colours
BANDS_PCT = {25: "#e8edf3", 10: "#cfdbe8"}
#: shapes that are told apart without colour; as many as colours less one, so that no pair repeats early
_SHAPES = ("o", "s", "^", "D", "v", "P", "X")
#: errors are shown up to the largest, but no further than this; what lies beyond stands at the edge
_LEAST_PCT, _MOST_PCT = 30.0, 100.0


class Group(Protocol):
    """Numbers of one group, of one unit and one role: ``judged``, ``fitted`` or ``left_out``."""

    @property
    def group(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def measured(self) -> Floats: ...
    @property
    def predicted(self) -> Floats: ...


def draw(groups: Iterable[Group], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Points of all groups; without axes of the caller's, their errors stand in a second panel below.

    Raises InputError where there is no point.
    """
    there = [one for one in groups if len(one.measured)]
    if not there:
        raise InputError("there is no point to draw")
    below: Axes | None = None
    if ax is None:
        ax, below = style.panels((6.4, 7.0), (2.4, 1.0))
    looks = _looks(there)
    every = np.concatenate([column for one in there for column in (one.measured, one.predicted)])
    points = len(every) // 2
    low, high = float(every.min()) / 1.5, float(every.max()) * 1.5
    units = list(dict.fromkeys(one.unit or "1" for one in there))
    unit = units[0] if len(units) == 1 else "unit in the legend"
    ax.set_xscale("log")
    ax.set_yscale("log")
    span = np.array([low, high])
    for pct, colour in BANDS_PCT.items():
        ax.fill_between(span, span * (1 - pct / 100), span * (1 + pct / 100), color=colour, linewidth=0, zorder=0)
    ax.plot(span, span, color=style.MUTED, linewidth=0.8, zorder=1)
    for one in there:
        ax.scatter(one.measured, one.predicted, **_marks(one, looks, points))
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    style.label(ax.yaxis, f"predicted [{unit}]")
    style.head(ax, title)
    if below is None:
        style.label(ax.xaxis, f"measured or published [{unit}]")
    else:
        _errors(below, there, looks, points)
        style.label(below.xaxis, f"measured or published [{unit}]")
    _legend(ax if below is None else below, there, looks)
    return ax


def _looks(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    """Colour and shape by name."""
    names = list(dict.fromkeys(one.group for one in groups))
    return {name: (style.SERIES[i % len(style.SERIES)], _SHAPES[i % len(_SHAPES)]) for i, name in enumerate(names)}


def _marks(one: Group, looks: dict[str, tuple[str, str]], points: int) -> dict[str, Any]:
    colour, shape = looks[one.group]
    size = 34.0 if points < 100 else 20.0 if points < 500 else 9.0
    if one.role == "left_out":
        return {"s": size, "c": style.MUTED, "marker": "x", "linewidths": 0.9, "alpha": 0.7, "zorder": 2}
    common = {"s": size, "marker": shape, "linewidths": 0.9, "zorder": 3}
    if one.role == "fitted":
        return {**common, "facecolors": "none", "edgecolors": colour}
    if points >= 500:
        return {**common, "c": colour, "edgecolors": "none", "alpha": 0.5}
    return {**common, "c": colour, "edgecolors": "white", "alpha": 0.85}


def _errors(ax: Axes, groups: Sequence[Group], looks: dict[str, tuple[str, str]], points: int) -> None:
    errors = [100 * (one.predicted / one.measured - 1) for one in groups]
    largest = max(float(np.abs(error).max()) for error in errors)
    edge = min(max(1.1 * largest, _LEAST_PCT), _MOST_PCT)
    for pct, colour in BANDS_PCT.items():
        ax.axhspan(-pct, pct, color=colour, linewidth=0, zorder=0)
    ax.axhline(0, color=style.MUTED, linewidth=0.8, zorder=1)
    beyond = 0
    for one, error in zip(groups, errors, strict=True):
        beyond += int((np.abs(error) > edge).sum())
        ax.scatter(one.measured, np.clip(error, -edge, edge), **_marks(one, looks, points), clip_on=False)
    ax.set_ylim(-edge, edge)
    ticks = [-25, -10, 0, 10, 25] if edge < 60 else [-100, -50, -25, 0, 25, 50, 100]
    ax.set_yticks([tick for tick in ticks if abs(tick) <= edge])
    style.label(ax.yaxis, "error [%]")
    if beyond:
        ax.set_title(
            f"{beyond} of {points} errors are beyond {edge:.0f} % and stand at the edge",
            loc="right",
            fontsize=style.FONT["note"],
            color=style.MUTED,
            pad=4,
        )


def _legend(ax: Axes, groups: Sequence[Group], looks: dict[str, tuple[str, str]]) -> None:
    """Groups by colour and shape, roles where there are several, and the bands."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(text: str, shape: str, *, face: str, edge: str) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=shape, markersize=6, markerfacecolor=face, markeredgecolor=edge, label=text
        )

    # where all are of one kind and unit, the axes have said it
    plain = len(looks) == 1 and groups[0].group == groups[0].unit
    grey_only = {one.group for one in groups} - {one.group for one in groups if one.role != "left_out"}
    handles: list[Line2D | Patch] = [
        mark("judged" if plain else name, shape, face=colour, edge=colour)
        for name, (colour, shape) in looks.items()
        if name not in grey_only
    ]
    roles = {one.role for one in groups}
    if "fitted" in roles:
        handles.append(mark("fitted, not judged", "o", face="none", edge=style.INK))
    if "left_out" in roles:
        grey = dict.fromkeys(one.group for one in groups if one.role == "left_out")
        # units tell themselves by colour, which crosses have not
        said = (
            "shown, not judged" if len({one.unit for one in groups}) == 1 else f"shown, not judged ({', '.join(grey)})"
        )
        handles.append(mark(said, "x", face=style.MUTED, edge=style.MUTED))
    handles += [Patch(facecolor=colour, label=f"within {pct} %") for pct, colour in reversed(BANDS_PCT.items())]
    widest = max(len(str(handle.get_label())) for handle in handles)
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.45, -0.3),
        ncols=max(1, min(4, math.floor(84 / (widest + 6)))),
        frameon=False,
        fontsize=style.FONT["note"],
        labelcolor=style.INK,
        handlelength=1.2,
        columnspacing=1.2,
    )
