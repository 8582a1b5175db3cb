"""How much of the fabric is in use, one run: resources against time, dark where they carry what they can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim import numbers
from cmsim.arrays import Columns, Floats, recurred
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.results import Results
from cmsim.units import to_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: rows that are drawn at most, those most in use, and columns of time
_MOST_ROWS, _COLUMNS = 24, 400
#: where the scale ends: the first that nothing is above
_MOST_PCT = (10.0, 25.0, 50.0, 100.0)
#: from nothing to all that a link carries: one hue, ever darker, read without colour too
_SHADES = ("#f4f6f9", "#cfe0ee", "#8fbcdc", "#3f8cc4", "#0b4f8a", "#06264a")


@style.plain
def draw(results: Results, ax: Axes | None = None, *, run: str | None = None) -> Axes:
    """Use of each class of resources over time: means over even stretches of one instance, as a share of its capacity.

    run: default the first that moved anything. Of many classes those most in use are drawn. Raises InputError where
    nothing was moved.
    """
    moved = [one for one in results if len(one.columns.get("links", {}).get("end_ps", ()))] if run is None else []
    result = moved[0] if moved else style.pick(results, run)
    links = result.frame_columns("links")
    if not len(links.get("end_ps", ())):
        raise InputError(f"{result.run} moved nothing over links; there is none to draw")
    end_ps = max(int(links["end_ps"].max()), round(result.metric("makespan_s") * 1e12))
    edges_ps = np.linspace(0, end_ps, _COLUMNS + 1)
    unit, name = numbers.scale(float(to_s(end_ps)), "s")
    known = list(dict.fromkeys(links["resource"].tolist()))
    use = {one: _use(links, one, edges_ps) for one in known}
    shown = sorted(known, key=lambda one: -float(use[one].mean()))[:_MOST_ROWS]
    shown = sorted(shown, key=lambda one: (_tiers(known).index(_tier(one)), known.index(one)))
    ax = style.axes(ax, size=(9.0, 1.9 + 0.26 * len(shown)))
    shares = 100 * np.array([use[one] for one in shown])
    most = next((one for one in _MOST_PCT if float(shares.max()) <= one), _MOST_PCT[-1])
    image = ax.imshow(
        shares,
        aspect="auto",
        interpolation="nearest",
        cmap=_shades(),
        vmin=0,
        vmax=most,
        extent=(0, float(to_s(end_ps)) / unit, len(shown) - 0.5, -0.5),
    )
    times = {one: int(links["instances"][np.argmax(links["resource"] == one)]) for one in shown}
    ax.set_yticks(
        range(len(shown)), [f"{one}  ×{times[one]:,}" if times[one] > 1 else one for one in shown], color=style.INK
    )
    ax.tick_params(axis="y", length=0)
    for place in range(1, len(shown)):
        ax.axhline(place - 0.5, color="white", linewidth=1.5)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.015, aspect=max(8.0, 1.2 * len(shown)), shrink=0.95)
    bar.set_label("in use, of what it carries [%]", fontsize=style.FONT["label"], color=style.INK)
    bar.ax.tick_params(labelsize=style.FONT["tick"], colors=style.MUTED, color=style.FAINT)
    bar.outline.set_visible(False)
    step = float(to_s(edges_ps[1]))
    step_unit, step_name = numbers.scale(step, "s")
    style.label(ax.xaxis, f"time [{name}], means over {step / step_unit:.3g} {step_name}")
    more = f"\n{len(shown)} of {len(known):,} classes of links, those most in use" if len(shown) < len(known) else ""
    style.head(ax, f"Links in use: {result.run}{more}")
    return ax


def _use(links: Columns, resource: str, edges_ps: Floats) -> Floats:
    """Mean use of a resource between the edges, shape (columns,). [1]"""
    rows = np.flatnonzero(links["resource"] == resource)
    start, end, share = (links[name][rows] for name in ("start_ps", "end_ps", "utilization"))
    if "times" in links:
        row, start, end = recurred(start, end, links["times"][rows], links["each_ps"][rows])
        share = share[row]
    at = np.concatenate([start, end])
    order = np.argsort(at, kind="stable")
    running = np.cumsum(np.concatenate([share, -share])[order])
    until = np.append(0.0, np.cumsum(running[:-1] * np.diff(at[order])))
    out: Floats = np.diff(np.interp(edges_ps, at[order], until)) / np.diff(edges_ps)
    return np.clip(out, 0.0, None)


def _tier(resource: str) -> str:
    return resource.partition("[")[0].partition(" ")[0]


def _tiers(resources: list[str]) -> list[str]:
    return list(dict.fromkeys(map(_tier, resources)))


def _shades() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("use", _SHADES)
