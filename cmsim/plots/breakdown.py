"""Where the time of every run went: one stacked bar per run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: narrower parts carry no number
_ROOM = 0.05


def draw(results: Results, ax: Axes | None = None) -> Axes:
    """Shares of the makespan by limiter, in the busiest rank class; the makespan stands at the end of each bar."""
    runs = [result for result in results if result.breakdown]
    if not runs:
        raise InputError("there is no result to draw" + (": no run has a breakdown" if len(results) else ""))
    ax = style.axes(ax, size=(9.0, 1.5 + 0.46 * len(runs)))
    used: dict[str, str] = {}
    for row, result in enumerate(runs):
        whole_s = sum(result.breakdown.values())
        left = 0.0
        for name, colour in style.LIMITER_COLOURS.items():
            share = result.breakdown.get(f"{name}_s", 0.0) / whole_s if whole_s else 0.0
            if share <= 0:
                continue
            used[name] = colour
            ax.barh(row, share, left=left, height=0.68, color=colour, edgecolor="white", linewidth=0.8)
            if share >= _ROOM:
                ax.text(
                    left + share / 2,
                    row,
                    f"{share:.0%}",
                    ha="center",
                    va="center_baseline",
                    fontsize=style.FONT["note"],
                    color=style.INK if name in ("bubble", "latency", "memory") else "white",
                )
            left += share
        scale, unit = numbers.scale(whole_s, "s")
        ax.text(
            1.01,
            row,
            f"{whole_s / scale:.3g} {unit}",
            va="center_baseline",
            fontsize=style.FONT["label"],
            color=style.INK,
        )
    ax.set_yticks(range(len(runs)), [result.run for result in runs])
    ax.tick_params(axis="y", length=0, labelcolor=style.INK)
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(len(runs) - 0.45, -0.55)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    style.label(ax.xaxis, "share of the makespan")
    style.legend(ax, {name: used[name] for name in style.LIMITER_COLOURS if name in used})
    ax.set_title("Where the time goes", loc="left", fontsize=style.FONT["title"], color=style.INK, pad=22)
    return ax
