"""From one run to another: what of the time between them is compute, memory, links, latency, host, and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmsim import numbers
from cmsim.errors import InputError, did_you_mean
from cmsim.plots import style
from cmsim.plots.series import words
from cmsim.results import Result, Results, pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: a part that is less of the larger run has no step of its own
_LEAST = 0.002


@style.plain
def draw(results: Results, ax: Axes | None = None, *, run: str | None = None) -> Axes:
    """Why one run takes longer than another, part by part of the busiest rank class.

    run: the two labels with a comma between them; default: the first two runs of one workload, on two systems if there
    are. Raises InputError where there are no two.
    """
    first, second = _two(results, run)
    whole_s, steps_s = between(first, second)
    unit, name = numbers.scale(max(whole_s), "s")
    whole = [value / unit for value in whole_s]
    steps = {part: value / unit for part, value in steps_s.items()}
    ax = style.axes(ax, size=(9.0, 4.8))
    names = [_said(first), *steps, _said(second)]
    ax.bar(0, whole[0], color=style.MUTED, width=0.62)
    at = whole[0]
    _tell(ax, 0, whole[0], f"{whole[0]:.3g}")
    for place, (part, value) in enumerate(steps.items(), 1):
        ax.bar(place, value, bottom=at, color=style.LIMITER_COLOURS[part], width=0.62, edgecolor=style.FAINT)
        ax.plot([place - 0.69, place + 0.31], [at, at], color=style.MUTED, linewidth=0.8)
        at += value
        _tell(ax, place, max(at, at - value), f"{value:+.3g}".replace("-", "\N{MINUS SIGN}"))
    last = len(steps) + 1
    ax.plot([last - 0.69, last + 0.31], [at, at], color=style.MUTED, linewidth=0.8)
    ax.bar(last, whole[1], color=style.MUTED, width=0.62)
    _tell(ax, last, whole[1], f"{whole[1]:.3g}")
    ax.set_xticks(range(len(names)), names)
    ax.tick_params(axis="x", length=0, labelcolor=style.INK)
    ax.set_ylim(0, 1.12 * max(whole))
    style.label(ax.yaxis, f"time of the busiest ranks [{name}]")
    style.label(ax.xaxis, "what makes the difference, the largest first")
    told = (first.system, second.system) if first.system != second.system else ("the first", "The second")
    style.head(ax, f"{told[1]} takes {whole[1] / whole[0]:.3g} times as long as {told[0]}")
    return ax


def between(first: Result, second: Result) -> tuple[tuple[float, float], dict[str, float]]:
    """(times of the busiest ranks of two runs, what each part adds from the first to the second). [s]

    Parts have the names of `style.LIMITER_COLOURS`, the largest first; those too small to see are left out.
    """
    whole = sum(first.breakdown.values()), sum(second.breakdown.values())
    parts = {
        part: second.breakdown.get(f"{part}_s", 0.0) - first.breakdown.get(f"{part}_s", 0.0)
        for part in style.LIMITER_COLOURS
    }
    steps = {part: value for part, value in parts.items() if abs(value) >= _LEAST * max(whole)}
    return whole, dict(sorted(steps.items(), key=lambda item: -abs(item[1])))


def _two(results: Results, run: str | None) -> tuple[Result, Result]:
    runs = [one for one in results if one.breakdown and sum(one.breakdown.values()) > 0]
    if run is not None:
        by = {one.run: one for one in runs}
        wanted = [label.strip() for label in _labels(run, by)]
        for label in wanted:
            if label not in by:
                raise InputError(f"no run '{label}'. {did_you_mean(label, list(by))}")
        if len(wanted) != 2:
            raise InputError(f"a waterfall goes from one run to another: got {len(wanted)}. Give two with --run A,B")
        return by[wanted[0]], by[wanted[1]]
    for one in runs:
        others = [other for other in runs if other.workload == one.workload and other is not one]
        elsewhere = [other for other in others if other.system != one.system and other.point == one.point]
        if elsewhere or others:
            return one, (elsewhere or others)[0]
    raise InputError("a waterfall goes from one run of a workload to another; there is none")


def _labels(run: str, known: dict[str, Result]) -> list[str]:
    """Labels hold commas of their own: the first that begins the text is the first."""
    for label in sorted(known, key=len, reverse=True):
        if run.startswith(f"{label},"):
            return [label, run[len(label) + 1 :]]
    return run.split(",")


def _said(one: Result) -> str:
    """Workload, system and each key of the point, a line each."""
    return "\n".join([one.workload, one.system, *(f"{words(key)} {value}" for key, value in pairs(one).items())])


def _tell(ax: Axes, x: float, y: float, text: str) -> None:
    ax.annotate(
        text,
        (x, y),
        (0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=style.FONT["note"],
        color=style.INK,
    )
