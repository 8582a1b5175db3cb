"""What a search trades: throughput of every plan over the memory it leaves, and the plans that no other beats in both.

Those that were simulated are where simulation puts them; all others where they were priced, all by one factor nearer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim.plots import style
from cmsim.plots.place import Page
from cmsim.plots.trade_off import beside
from cmsim.units import GB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: of plans that were simulated, in points
_SIZE = 6.5
#: more dots than these only make a file large
_MOST = 20_000
_ABOVE = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))


@style.plain
def draw(found: Any, ax: Axes | None = None) -> Axes:
    """A search's plans; ``found`` is a `cmsim.search.SearchResult`."""
    table = found.table
    known = np.isfinite(table["simulated_s"])
    time_s = found.expected_s
    each = found.tokens / time_s / found.accelerators
    left_GB = table["headroom_B"] / GB
    goes = np.flatnonzero(np.isfinite(time_s))
    front = found.front()
    ax = style.axes(ax, size=(8.6, 5.4))
    dots = goes[:: max(1, len(goes) // _MOST)]
    ax.scatter(left_GB[dots], each[dots], s=7, color=style.MUTED, alpha=0.35, linewidths=0, label="priced")
    ax.plot(left_GB[front], each[front], color=style.SERIES[0], linewidth=1.8, label="front")
    ax.plot(
        left_GB[known],
        each[known],
        linestyle="none",
        marker="o",
        color=style.SERIES[1],
        markersize=_SIZE,
        markeredgecolor="white",
        label="simulated",
    )
    given = next((one for one in found.results.results if one.run == found.given), None)
    if given is not None and not known_as(found, given):
        peak_B = float(given.metrics["memory_peak_B"])
        room_B = float(table["memory_B"][0] + table["headroom_B"][0])
        ax.plot(
            [(room_B - peak_B) / GB],
            [float(given.metrics["tokens_per_s"]) / given.accelerators],
            linestyle="none",
            marker="s",
            color=style.SERIES[3],
            markersize=_SIZE,
            markeredgecolor="white",
            label="as given",
        )
    style.label(ax.xaxis, "memory left on the fullest rank [GB]")
    style.label(ax.yaxis, "tokens/s per accelerator")
    style.thousands(ax.yaxis)
    ax.margins(0.08)
    ax.set_ylim(bottom=0)
    style.head(ax, f"{len(goes):,} plans of {found.question}")
    beside(ax)
    _say(ax, found, left_GB, each)
    return ax


def known_as(found: Any, one: Any) -> bool:
    """Whether a run is among the plans of the table."""
    return bool((found.table["run"] == one.run).any())


def _say(ax: Axes, found: Any, left_GB: Any, each: Any) -> None:
    """The plan of the winner, beside its mark."""
    rows = np.flatnonzero(found.table["run"] == found.best.run)
    if not len(rows):
        return
    row = int(rows[0])
    names = ("tp", "cp", "pp", "dp", "ep")
    sizes = [(name, int(found.table[f"parallel.{name}"][row])) for name in names if f"parallel.{name}" in found.table]
    said = " ".join(f"{name} {size}" for name, size in sizes if size > 1)
    page = Page(ax)
    page.marks([left_GB[row]], [each[row]], _SIZE / 2)
    text = ax.annotate(
        said or "one rank",
        (left_GB[row], each[row]),
        (0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=style.FONT["note"],
        color=style.INK,
    )
    style.halo(text)
    page.put(text, radius=_SIZE / 2, ways=_ABOVE)
