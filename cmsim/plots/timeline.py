"""Streams of rank classes over time, coloured by what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.results import Results
from cmsim.units import to_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "compute": "#0072b2",
    "collective": "#d55e00",
    "send": "#009e73",
    "recv": "#7cc7b0",
    "host": "#8c8c8c",
    "wait": "#e6e8ec",
}
#: where a lane has few bars, none is drawn narrower than this share of the width, or it would not be seen; where
#: it has many, widening them would make an almost idle lane look busy
_LEAST, _FEW = 1 / 1200, 100
#: bars wider than this on average have a white edge between them
_WIDE = 1 / 100
#: gaps narrower than this share of the width are not seen, so neighbours of one colour are drawn as one
_HAIR = 1 / 3000


def draw(results: Results, ax: Axes | None = None, *, run: str | None = None, classes: int = 4) -> Axes:
    """One lane per stream of up to ``classes`` rank classes, spread evenly over all of them, of one run.

    Communication that waits for others is drawn pale. Raises InputError for a run without ops.
    """
    result = style.pick(results, run)
    ops = result.frame_columns("ops")
    if not len(ops.get("end_ps", ())):
        raise InputError(f"{result.run} has no ops to draw")
    there, first = np.unique(ops["rank_class"], return_index=True)
    shown = np.unique(np.linspace(0, len(there) - 1, min(classes, len(there))).round().astype(int))
    end_s = float(to_s(int(ops["end_ps"].max())))
    scale, unit = numbers.scale(end_s, "s")

    lanes: list[tuple[str, float]] = []
    height, at = 0.8, 0.0
    bars = []
    for i in shown.tolist():
        mine = ops["rank_class"] == there[i]
        group = f"class {there[i]} × {ops['multiplicity'][first[i]]}"
        for stream in _streams(ops, mine):
            rows = np.flatnonzero(mine & (ops["stream"] == stream))
            lanes.append((f"{group}   {stream}", at))
            group = ""
            bars.append((at, _bars(ops, rows, end_s)))
            at += 1.0
        at += 0.35
    ax = style.axes(ax, size=(9.0, min(1.6 + 0.34 * len(lanes), 9.0)))
    used = []
    for at, lane in bars:
        for kind, (start, length) in lane.items():
            seen = np.maximum(length, end_s * _LEAST) if len(length) <= _FEW else length
            ax.broken_barh(
                list(zip((start / scale).tolist(), (seen / scale).tolist(), strict=True)),
                (at - height / 2, height),
                facecolors=COLOURS[kind],
                edgecolors="white" if length.mean() > end_s * _WIDE else "none",
                linewidth=0.3,
                snap=len(length) <= _FEW,
            )
            used.append(kind)
    ax.set_yticks([at for _, at in lanes], [name for name, _ in lanes])
    ax.tick_params(axis="y", length=0, labelcolor=style.INK)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(lanes[-1][1] + 0.7, -0.7)
    ax.set_xlim(0, end_s / scale)
    ax.grid(axis="x", color=style.FAINT, linewidth=0.6)
    style.label(ax.xaxis, f"time [{unit}]")
    style.legend(ax, {kind: colour for kind, colour in COLOURS.items() if kind in used})
    more = f"  ({len(shown)} of {len(there)} rank classes)" if len(shown) < len(there) else ""
    ax.set_title(f"{result.run}{more}", loc="left", fontsize=style.FONT["title"], color=style.INK, pad=22)
    return ax


def _streams(ops: Any, mine: NDArray[np.bool_]) -> list[str]:
    """Streams of a class: those with kernels first, else in the order of their first op."""
    names = dict.fromkeys(ops["stream"][mine].tolist())
    kernels = set(ops["stream"][mine & (ops["kind"] == "compute")].tolist())
    return sorted(names, key=lambda name: name not in kernels)


def _bars(ops: Any, rows: NDArray[np.int64], end_s: float) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """(starts, lengths) by kind in seconds, neighbours joined."""
    start, end = to_s(ops["start_ps"][rows]), to_s(ops["end_ps"][rows])
    moved = start + to_s(ops["wait_ps"][rows])
    kinds = ops["kind"][rows]
    out = {"wait": _joined(start[moved > start], moved[moved > start], end_s * _HAIR)}
    for kind in dict.fromkeys(kinds.tolist()):
        here = (kinds == kind) & (end > moved)
        out[kind] = _joined(moved[here], end[here], end_s * _HAIR)
    return {kind: bars for kind, bars in out.items() if len(bars[0])}


def _joined(start: NDArray[Any], end: NDArray[Any], hair: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Runs of bars too close together to be told apart, only where there are too many of them to see one by one."""
    if len(start) < 1 / _HAIR / 4:
        return start, end - start
    new = np.flatnonzero(np.append(True, start[1:] - end[:-1] > hair))
    last = np.append(new[1:], len(start)) - 1
    return start[new], end[last] - start[new]
