"""Below which price does one machine win: cost of a million tokens of two machines against the price of electricity,
the hours they are used, and what the first costs to buy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cmsim.plots import style
from cmsim.plots.series import colours, system_of
from cmsim.results import BreakEven, Results, break_even

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 121
#: the axis of cost ends so many times above what it may be today
_ABOVE = 1.6


@style.plain
def draw(results: Results, ax: Axes | None = None) -> Axes:
    """Three panels; with axes of the caller's the last alone. The answer stands above them in a sentence.

    Of a sweep each machine stands with its cheapest run. Raises InputError unless two systems have a bill.
    """
    found = break_even(results.results)
    panels = [ax] if ax is not None else style.row((11.0, 4.4), 3)
    what = ("price",) if ax is not None else ("electricity", "utilisation", "price")
    looks = colours(results)
    for panel, along in zip(panels, what, strict=True):
        panel = style.axes(panel)
        _panel(panel, found, along, looks)
    top = panels[0]
    if ax is None:
        figure = top.get_figure(root=True)
        assert figure is not None
        figure.suptitle(_wrapped(found.said()), x=0.01, ha="left", fontsize=style.FONT["title"], color=style.INK)
    else:
        style.head(top, _wrapped(found.said()), above=14)
    style.label(top.yaxis, f"USD per million {found.of}s")
    style.legend(top, {(its := system_of(one)): looks[its] for one in (found.first, found.second)})
    return top


def _panel(ax: Axes, found: BreakEven, along: str, looks: dict[str, str]) -> None:
    x = np.linspace(*found.span(along), _POINTS)
    top = 0.0
    for result in (found.first, found.second):
        y = found.cost(result, along, x)
        low, high = (y * end for end in found.band(result, along))
        colour = looks[system_of(result)]
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)
        ax.plot(x, y, color=colour, linewidth=1.8, zorder=3)
        ax.plot(
            [found.now(result, along)], [found.cost_now(result)], "o", color=colour, markeredgecolor="white", zorder=4
        )
        top = max(top, _ABOVE * found.cost_now(result) * found.band(result, along)[1])
    at = found.at(along)
    if at is not None and x[0] <= at <= x[-1]:
        ax.axvline(at, color=style.MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        text = ax.annotate(
            found.shown(along, at), (at, 0.02), (4, 0), xycoords=("data", "axes fraction"), textcoords="offset points"
        )
        text.set_fontsize(style.FONT["note"])
        text.set_color(style.INK)
        style.halo(text)
    ax.set_xlim(float(x[0]), float(x[-1]))
    ax.set_ylim(0, top)
    ax.grid(axis="y", color=style.FAINT, linewidth=0.6)
    ax.locator_params(axis="x", nbins=5)
    style.thousands(ax.xaxis)
    style.label(ax.xaxis, found.label(along))


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 120))
