"""What users get for what accelerators give: tokens/s of a user against tokens/s per accelerator and per megawatt, a
colour for each system, with the pace that is promised.

Of a search of services the points are where its pools can be run, whatever the load, and rings the plans that were
served; of runs, the runs themselves. A line joins those that no other of its system beats in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim.arrays import Floats
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.plots.place import Page
from cmsim.plots.series import MARKERS, STROKES, Series, colours, series, system_of
from cmsim.plots.trade_off import beside
from cmsim.results import Result, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: of plans that were served, and of all others, in points
_SIZE, _DOT = 6.5, 3.5
#: metrics of runs: time of a token, throughput of the whole
_TOKEN_S, _TOKENS = ("tpot_s_p50", "tpot_s"), ("output_tokens_per_s", "tokens_per_s")
#: text beside a line: to its right, then to its left
_BESIDE = ((1, 0), (-1, 0))


@dataclass(frozen=True)
class _Cloud:
    """Points of a system: tokens/s of a user, per accelerator and per megawatt; and of plans that were served."""

    name: str
    colour: str
    stroke: Any
    marker: str
    user: Floats
    gives: tuple[Floats, Floats]
    served: tuple[Floats, Floats, Floats]


@style.plain
def draw(results: Results | Sequence[Any], ax: Axes | None = None) -> Axes:
    """Throughput over the pace of users, two panels unless axes are given: per accelerator, and per megawatt.

    results: runs that have both, or what searches of services found (`cmsim.search.ServiceResult`), one a system.
    Raises InputError where there is nothing of both.
    """
    if isinstance(results, Results):
        clouds, paces = _of_runs(results), _promised(results.scenario)
    else:
        clouds, paces = _of_searches(results), [one.slo.tpot_s for one in results if one.slo is not None]
    if not clouds:
        raise InputError("pareto needs runs of tokens with a time of a token, or a search of a service; there is none")
    below: Axes | None = None
    if ax is None:
        ax, below = style.panels((9.2, 7.4), (1.0, 1.0))
    ax = style.axes(ax, size=(8.6, 5.0))
    for panel, which, unit in ((ax, 0, 1.0), (below, 1, 1e6)):
        if panel is None:
            continue
        for one in clouds:
            _cloud(panel, one, which, unit)
        panel.margins(0.05)
        panel.set_xscale("log")
        style.log_ticks(panel.xaxis)
        style.thousands(panel.yaxis)
        panel.set_ylim(bottom=0)
        panel.grid(axis="y", color=style.FAINT, linewidth=0.6)
    style.label(ax.yaxis, "tokens/s per accelerator")
    if below is not None:
        style.label(below.yaxis, "million tokens/s per megawatt")
    style.label((below or ax).xaxis, "tokens/s of a user")
    style.head(ax, "What users get and what accelerators give")
    beside(ax)
    for panel in (ax, below):
        if panel is not None:
            _pace(panel, clouds, sorted(set(paces)))
    return ax


def _of_searches(found: Sequence[Any]) -> list[_Cloud]:
    best = [result for one in found for result in one.results.results]
    looks = colours(best)
    out = []
    for one in found:
        points = one.points
        name = system_of(one.best)
        out.append(
            _Cloud(
                name,
                looks[name],
                STROKES[0],
                MARKERS[0],
                points["user"],
                (points["each"], points["megawatt"]),
                _served(one),
            )
        )
    return out


def _served(found: Any) -> tuple[Floats, Floats, Floats]:
    """Of plans that keep what is promised, at their load."""
    runs = [one for one in found.results.results if found.kept(one)]
    return _columns(runs)


def _of_runs(results: Results) -> list[_Cloud]:
    """Of one set of results, workload and system each; whatever was swept, they are points of one cloud."""
    runs: dict[tuple[str, str, str], list[Series]] = {}
    for line in series(results, _has_both):
        runs.setdefault((line.source, line.workload, line.system), []).append(line)
    several = [len(set(part)) > 1 for part in zip(*runs, strict=True)]
    out = []
    none = np.zeros(0)
    for (source, workload, system), lines in runs.items():
        first = lines[0]
        user, each, megawatt = _columns([one for line in lines for one in line.runs])
        told = [part for part, many in zip((workload, system, source), several[1:] + several[:1], strict=True) if many]
        look = ", ".join(told) or system, first.ink, first.stroke, first.marker
        out.append(_Cloud(*look, user, (each, megawatt), (none, none, none)))
    return out


def _has_both(one: Result) -> bool:
    return bool(_first(one, _TOKEN_S) and _first(one, _TOKENS) and "power_avg_W" in one.metrics)


def _columns(runs: Sequence[Result]) -> tuple[Floats, Floats, Floats]:
    """Tokens/s of a user, per accelerator and per megawatt, of runs."""
    rate = np.array([_first(one, _TOKENS) for one in runs], float)
    token_s = np.array([_first(one, _TOKEN_S) for one in runs], float)
    watts = np.array([one.metrics.get("power_avg_W", np.nan) for one in runs], float)
    count = np.array([one.accelerators for one in runs], float)
    return 1.0 / token_s, rate / count, rate / watts * 1e6


def _first(one: Result, names: Sequence[str]) -> float:
    """The first of some metrics that a run has; 0 where it has none."""
    return next((float(one.metrics[name]) for name in names if isinstance(one.metrics.get(name), int | float)), 0.0)


def _promised(scenario: Mapping[str, Any]) -> list[float]:
    """Times of a token that services of a scenario promise. [s]"""
    known = [scenario.get("workload"), *(scenario.get("workloads") or {}).values()]
    said = [(one or {}).get("slo") for one in known if isinstance(one, Mapping)]
    return [float(one["tpot_s"]) for one in said if isinstance(one, Mapping) and "tpot_s" in one]


def front(user: Floats, gives: Floats) -> Any:
    """Rows that no other beats in both, the quickest first.

    >>> front(np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 1.0])).tolist()
    [2, 1]
    """
    rows = np.lexsort((-gives, -user))
    most = np.maximum.accumulate(np.append(-np.inf, gives[rows]))[:-1]
    return rows[gives[rows] > most]


def _cloud(ax: Axes, one: _Cloud, which: int, unit: float) -> None:
    gives = one.gives[which] / unit
    ax.scatter(one.user, gives, s=_DOT**2, color=one.colour, alpha=0.25, linewidths=0)
    rows = front(one.user, gives)
    ax.plot(
        one.user[rows],
        gives[rows],
        color=one.colour,
        linestyle=one.stroke,
        linewidth=1.8,
        marker=one.marker,
        markersize=_DOT,
        label=one.name,
        zorder=3,
    )
    user, served = one.served[0], one.served[1 + which] / unit
    if len(user):
        ax.plot(
            user,
            served,
            linestyle="none",
            marker="o",
            markersize=_SIZE,
            markerfacecolor="white",
            markeredgecolor=one.colour,
            label="served at the load",
            zorder=4,
        )


def _pace(ax: Axes, clouds: Sequence[_Cloud], paces: Sequence[float]) -> None:
    """A line at every pace that is promised, its words where nothing lies."""
    page = Page(ax)
    for one in clouds:
        which = 0 if ax.get_ylabel().startswith("tokens") else 1
        unit = (1.0, 1e6)[which]
        rows = front(one.user, one.gives[which])
        page.line(one.user[rows], one.gives[which][rows] / unit)
        page.marks(one.user, one.gives[which] / unit, _DOT / 2)
        page.marks(one.served[0], one.served[1 + which] / unit, _SIZE / 2)
    top = ax.get_ylim()[1]
    for token_s in paces:
        ax.axvline(1.0 / token_s, color=style.MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        text = ax.annotate(
            f"{token_s * 1e3:g} ms a token",
            (1.0 / token_s, top * 0.96),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=style.FONT["note"],
            color=style.MUTED,
        )
        style.halo(text)
        page.put(text, radius=1.0, ways=_BESIDE)


__all__: list[str] = ["draw", "front"]
