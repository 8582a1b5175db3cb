"""Where the time of every run went: one stacked bar per run, those of a sweep under one head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.plots.series import system_of, words
from cmsim.results import Result, Results, pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: narrower parts carry no number
_ROOM = 0.05
#: height of a row with few runs, and the least that is read; of all rows where they fit on a page [inch]
_ROW, _LEAST, _PAGE = 0.46, 0.15, 9.6
#: gap between systems and workloads, in rows; lower rows have smaller letters [inch]
_GAP, _SMALL = 0.75, 0.24


@style.plain
def draw(results: Results, ax: Axes | None = None) -> Axes:
    """Shares of the makespan by limiter, in the busiest rank class; the makespan stands at the end of each bar."""
    runs = [result for result in results if result.breakdown]
    if not runs:
        raise InputError("there is no result to draw" + (": no run has a breakdown" if len(results) else ""))
    at, names, heads = _rows(runs)
    height = min(_ROW, max(_LEAST, _PAGE / (at[-1] + 1)))
    ax = style.axes(ax, size=(9.0, 1.5 + height * (at[-1] + 1)))
    size = style.FONT["note"] if height >= _SMALL else 7.0
    used: dict[str, str] = {}
    for row, result in zip(at, runs, strict=True):
        whole_s = sum(result.breakdown.values())
        left = 0.0
        for name, colour in style.LIMITER_COLOURS.items():
            share = result.breakdown.get(f"{name}_s", 0.0) / whole_s if whole_s else 0.0
            if share <= 0:
                continue
            used[name] = colour
            ax.barh(
                row,
                share,
                left=left,
                height=0.68 if height >= _SMALL else 0.84,
                color=colour,
                edgecolor="white",
                linewidth=0.8,
            )
            if share >= _ROOM:
                ax.text(
                    left + share / 2,
                    row,
                    f"{share:.0%}",
                    ha="center",
                    va="center_baseline",
                    fontsize=size,
                    color=style.INK if name in ("bubble", "latency", "memory") else "white",
                )
            left += share
        scale, unit = numbers.scale(whole_s, "s")
        ax.text(
            1.01,
            row,
            f"{whole_s / scale:.3g} {unit}",
            va="center_baseline",
            fontsize=size,
            color=style.INK,
        )
    ax.set_yticks(at, names)
    ax.tick_params(axis="y", length=0, labelcolor=style.INK, labelsize=size)
    for row, head in heads:
        ax.annotate(
            head,
            (0, row),
            (0, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=size,
            fontweight="bold",
            color=style.INK,
        )
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(at[-1] + 0.55, -0.55)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    style.label(ax.xaxis, "share of the makespan")
    style.legend(ax, {name: used[name] for name in style.LIMITER_COLOURS if name in used})
    ax.set_title("Where the time goes", loc="left", fontsize=style.FONT["title"], color=style.INK, pad=22)
    return ax


def _rows(runs: list[Result]) -> tuple[list[float], list[str], list[tuple[float, str]]]:
    """Where bars stand, what stands beside them, and heads of groups.

    Runs of a sweep stand under their workload and system, with their point alone beside them; others with all.
    """
    groups = [(one.source, one.workload, system_of(one)) if one.point else (one.run,) for one in runs]
    sources = {one.source for one in runs}
    at, names, heads = [], [], []
    row = -1.0
    for number, (one, group) in enumerate(zip(runs, groups, strict=True)):
        row += 1.0
        if number and group != groups[number - 1] and (one.point or runs[number - 1].point):
            row += _GAP
        alone = groups.count(group) == 1
        if not alone and (not number or group != groups[number - 1]):
            heads.append((row, "/".join(filter(None, group[1:])) + (f", {group[0]}" if len(sources) > 1 else "")))
            row += 1.0
        at.append(row)
        names.append(one.run if alone else ", ".join(f"{words(k)} {value}" for k, value in pairs(one).items()))
    return at, names, heads
