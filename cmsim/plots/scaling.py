"""Strong and weak scaling: throughput, or the time of a step, against accelerators, with what perfect scaling would be.

A run is strong where all sizes do the same work, weak where the work grows with the accelerators; which of them follows
from the runs: work is throughput times the length of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cmsim.arrays import Floats
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.plots.series import Series, series, swept
from cmsim.plots.trade_off import beside, scale
from cmsim.results import Result, Results, per, rate_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 6.0
#: shares by which work may differ where it is called the same
_SAME = 0.01
_DASHED = (0, (2, 2))
#: efficiencies all above that are drawn from there; room above 100 %
_NEAR_PCT, _OVER_PCT = 50.0, 4.0


@style.plain
def draw(results: Results, ax: Axes | None = None, *, metric: str | None = None) -> Axes:
    """Runs that differ in how many accelerators they have; without axes of the caller's, efficiency in a panel below.

    metric   throughput (the default) or a time, ``makespan_s`` or ``step_time_s``

    Efficiency is throughput per accelerator over that of the smallest run of the line. Dashed: perfect scaling from
    there. Raises InputError where accelerators were not swept, or no run has the metric.
    """
    lines = [line for line in _lines(results) if len({one.accelerators for one in line.runs}) > 1]
    if not lines:
        raise InputError(
            "scaling needs runs that differ in their accelerators; there is none: "
            "`sweep: {systems.0.domains: [1, 2, 4]}` gives them"
        )
    name = metric or rate_name(lines[0].runs[0])
    is_rate = metric is None or name == rate_name(lines[0].runs[0])
    values = [_values(line, name, is_rate) for line in lines]
    unit, label = scale([float(y) for its in values for y in its], name)
    below: Axes | None = None
    if ax is None:
        ax, below = style.panels((8.6, 6.4), (1.9, 1.0))
    ax = style.axes(ax, size=(8.6, 5.0))
    for line, its in zip(lines, values, strict=True):
        _line(ax, below, line, its / unit, is_rate)
    sizes = sorted({one.accelerators for line in lines for one in line.runs})
    for panel in filter(None, (ax, below)):
        panel.set_xscale("log")
        _sizes(panel, sizes)
        panel.grid(axis="y", color=style.FAINT, linewidth=0.6)
    ax.set_yscale("log")
    style.log_ticks(ax.yaxis, few=max(map(max, values)) > 100 * min(map(min, values)))
    style.label(ax.yaxis, label)
    style.label((below or ax).xaxis, "accelerators")
    if below is not None:
        below.axhline(100, color=style.MUTED, linewidth=1.0, linestyle=_DASHED)
        low, high = below.get_ylim()
        below.set_ylim(0 if low < _NEAR_PCT else _NEAR_PCT, max(100.0 + _OVER_PCT, high))
        style.label(below.yaxis, "efficiency [%]")
    kinds = {_kind(line) for line in lines}
    style.head(ax, f"{kinds.pop() if len(kinds) == 1 else 'Strong and weak scaling'}; dashed: perfect")
    beside(ax)
    return ax


def _lines(results: Results) -> list[Series]:
    """Lines along the swept key that tells how many accelerators there are."""
    runs = list(results)
    heads = [head for head in swept(runs) if _follows(runs, head)]
    return [line for line in series(results, lambda _: True, along=heads[0] if heads else "") if line.along in heads]


def _follows(runs: list[Result], head: str) -> bool:
    """Whether more of a key is more accelerators, whatever else is swept, on some system."""
    sizes: dict[tuple[str, str, str], dict[str, set[int]]] = {}
    for one, point in zip(runs, swept(runs)[head], strict=True):
        if point:
            sizes.setdefault((one.source, one.workload, one.system), {}).setdefault(point, set()).add(one.accelerators)
    return any(
        all(len(its) == 1 for its in of.values()) and len(set.union(*of.values())) > 1 for of in sizes.values() if of
    )


def _values(line: Series, name: str, is_rate: bool) -> Floats:
    if is_rate:
        return np.array([_rate(one) for one in line.runs])
    lacking = next((one for one in line.runs if not isinstance(one.metrics.get(name), int | float)), None)
    if lacking is not None or not name.endswith("_s") or name.endswith("_per_s"):
        allowed = f"{rate_name(line.runs[0])}, makespan_s or another time that all runs have"
        raise InputError(f"scaling draws no '{name}'. Allowed: {allowed}.")
    return np.array([one.metric(name) for one in line.runs])


def _rate(one: Result) -> float:
    return per(one, "accelerator") * one.accelerators


def _work(line: Series) -> Floats:
    """Of each run, over that of the first. [1]"""
    work = np.array([_rate(one) * one.metric("makespan_s") for one in line.runs])
    return np.asarray(work / work[0])


def _kind(line: Series) -> str:
    size = np.array([one.accelerators for one in line.runs], float)
    work = _work(line)
    if np.allclose(work, 1.0, rtol=_SAME):
        return "Strong scaling (the same work)"
    if np.allclose(work, size / size[0], rtol=_SAME):
        return "Weak scaling (work grows with accelerators)"
    return "Scaling"


def _line(ax: Axes, below: Axes | None, line: Series, values: Floats, is_rate: bool) -> None:
    size = np.array([one.accelerators for one in line.runs], float)
    rate = np.array([_rate(one) for one in line.runs])
    look = line.look(_SIZE) | {"zorder": 3}
    perfect = values[0] * (size / size[0] if is_rate else _work(line) * size[0] / size)
    ax.plot(size, values, label=line.name, **look)
    ax.plot(size, perfect, color=line.colour, linewidth=1.0, linestyle=_DASHED, zorder=2)
    if below is not None:
        below.plot(size, 100 * (rate / size) / (rate[0] / size[0]), **look)


def _sizes(ax: Axes, sizes: list[int]) -> None:
    """A tick at every size, where there is room."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    kept: list[int] = []
    room = (sizes[-1] / sizes[0]) ** (1 / 9)
    for one in sizes:
        if not kept or one >= kept[-1] * room:
            kept.append(one)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{one:,}" for one in kept]))
    ax.xaxis.set_minor_locator(NullLocator())
