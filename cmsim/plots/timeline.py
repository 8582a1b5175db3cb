"""Streams of rank classes over time, coloured by the part of the model that they work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import parts, style
from cmsim.plots.window import window
from cmsim.results import Results
from cmsim.units import to_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: a hue for each part, dark where it runs backward
COLOURS = {
    "attention": "#56b4e9",
    "attention, backward": "#0072b2",
    "experts": "#d9a3c9",
    "experts, backward": "#963a78",
    "feed-forward": "#e9c95f",
    "feed-forward, backward": "#a67c00",
    "other kernels": "#8fd0b5",
    "other kernels, backward": "#00785a",
    "collectives": "#d55e00",
    "send, receive": "#f2a97e",
    "host": "#8c8c8c",
    "wait": "#e6e8ec",
}
#: where a lane has few bars, none is drawn narrower than this share of the width, or it would not be seen; where
#: it has many, widening them would make an almost idle lane look busy
_LEAST, _FEW = 1 / 1200, 100
#: bars wider than this on average have a white edge between them
_WIDE = 1 / 100
#: with more ops than the first a lane shows, in so many columns, the share of each part: bars would hide each other
_MANY, _COLUMNS = 700, 360
#: names stand in bars where a lane has few; share of the width that a letter takes
_NAMED, _LETTER = 60, 1 / 105


@style.plain
def draw(
    results: Results,
    ax: Axes | None = None,
    *,
    run: str | None = None,
    classes: int = 4,
    start: str | float | None = None,
    end: str | float | None = None,
) -> Axes:
    """One lane per stream of up to ``classes`` rank classes, spread evenly over all of them, of one run.

    Communication that waits for others is drawn pale; a lane with too many ops to be told apart shows how much of
    each there is. ``start`` and ``end`` choose a part of the run: seconds, or
    words as ``20 ms``, ``step 2``, ``layer 10`` (counted from 0; the end is in the part). Raises InputError for a run
    without ops, and for a part that is not in it.
    """
    result = style.pick(results, run)
    ops = result.frame_columns("ops")
    if not len(ops.get("end_ps", ())):
        raise InputError(f"{result.run} has no ops to draw")
    span_ps = window(result, start, end)
    names = parts.class_names(result)
    there = list(names)
    shown = np.unique(np.linspace(0, len(there) - 1, min(classes, len(there))).round().astype(int))
    length_s = float(to_s(span_ps[1] - span_ps[0]))
    scale, unit = numbers.scale(length_s, "s")
    inside = (ops["end_ps"] > span_ps[0]) & (ops["start_ps"] < span_ps[1])

    lanes: list[tuple[str, float]] = []
    heads: list[tuple[str, float]] = []
    height, at = 0.8, 0.0
    bars = []
    for i in shown.tolist():
        mine = ops["rank_class"] == there[i]
        heads.append((names[there[i]], at - 0.5))
        for number, stream in enumerate(_streams(ops, mine)):
            rows = np.flatnonzero(mine & inside & (ops["stream"] == stream))
            if number and not len(rows):
                continue
            lanes.append((stream, at))
            bars.append((at, rows, _bars(ops, rows, span_ps)))
            at += 1.0
        at += 0.75
    ax = style.axes(ax, size=(9.0, min(1.7 + 0.3 * at, 9.6)))
    used: set[str] = set()
    for at, rows, lane in bars:
        used.update(lane)
        if len(rows) > _MANY:
            _shares(ax, lane, at + height / 2, height, (length_s, scale))
            continue
        for name, (begin, length) in lane.items():
            seen = np.maximum(length, length_s * _LEAST) if len(length) <= _FEW else length
            ax.broken_barh(
                list(zip((begin / scale).tolist(), (seen / scale).tolist(), strict=True)),
                (at - height / 2, height),
                facecolors=COLOURS.get(name, style.MUTED),
                edgecolors="white" if length.mean() > length_s * _WIDE else "none",
                linewidth=0.3,
                snap=len(length) <= _FEW,
            )
        _name(ax, ops, rows, span_ps, at, scale)
    for text, top in heads:
        ax.annotate(
            text,
            (0, top),
            (0, 1),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=style.FONT["note"],
            fontweight="bold",
            color=style.INK,
        )
    ax.set_yticks([at for _, at in lanes], [name for name, _ in lanes])
    ax.tick_params(axis="y", length=0, labelcolor=style.INK)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(lanes[-1][1] + 0.7, -1.2)
    ax.set_xlim(0, length_s / scale)
    ax.grid(axis="x", color=style.FAINT, linewidth=0.6)
    begins = f" after {numbers.prefixed(float(to_s(span_ps[0])), 's')}" if span_ps[0] else ""
    crowded = "; crowded lanes: share of each part" if any(len(rows) > _MANY for _, rows, _ in bars) else ""
    style.label(ax.xaxis, f"time{begins} [{unit}]{crowded}")
    legend = {name: colour for name, colour in COLOURS.items() if name in used}
    style.legend(ax, legend, columns=min(len(legend), 5))
    more = f"  ({len(shown)} of {len(there)} classes of ranks)" if len(shown) < len(there) else ""
    said = "".join(f", {word} {what}" for word, what in (("from", start), ("to", end)) if what is not None)
    rows_of_legend = -(-len(legend) // 5)
    ax.set_title(
        f"{result.run}{said}{more}",
        loc="left",
        fontsize=style.FONT["title"],
        color=style.INK,
        pad=8 + 14 * rows_of_legend,
    )
    return ax


def _streams(ops: Any, mine: NDArray[np.bool_]) -> list[str]:
    """Streams of a class: those with kernels first, else in the order of their first op."""
    names = dict.fromkeys(ops["stream"][mine].tolist())
    kernels = set(ops["stream"][mine & (ops["kind"] == "compute")].tolist())
    return sorted(names, key=lambda name: name not in kernels)


def _bars(ops: Any, rows: NDArray[np.int64], span_ps: tuple[int, int]) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """(starts after the beginning of the span, lengths) by part in seconds, neighbours joined."""
    start, end = (to_s(np.clip(ops[name][rows], *span_ps) - span_ps[0]) for name in ("start_ps", "end_ps"))
    moved = to_s(np.clip(ops["start_ps"][rows] + ops["wait_ps"][rows], *span_ps) - span_ps[0])
    of = parts.parts(ops, rows)
    out = {"wait": (start[moved > start], (moved - start)[moved > start])}
    for name in dict.fromkeys(of.tolist()):
        here = (of == name) & (end > moved)
        out[name] = (moved[here], (end - moved)[here])
    return {name: bars for name, bars in out.items() if len(bars[0])}


def _shares(
    ax: Axes,
    lane: dict[str, tuple[NDArray[Any], NDArray[Any]]],
    bottom: float,
    height: float,
    span: tuple[float, float],
) -> None:
    """A crowded lane: of every column of time the share of each part, one upon the other."""
    edges = np.linspace(0, span[0], _COLUMNS + 1)
    shares = {name: _busy(*lane[name], edges) for name in (*COLOURS, *lane) if name in lane}
    whole = np.maximum(sum(shares.values()), 1.0)
    x = np.repeat(edges / span[1], 2)[1:-1]
    base = np.full(len(x), bottom)
    for name, share in shares.items():
        top = base - np.repeat(share / whole * height, 2)
        ax.fill_between(x, base, top, color=COLOURS.get(name, style.MUTED), linewidth=0)
        base = top


def _busy(start: NDArray[Any], length: NDArray[Any], edges: NDArray[Any]) -> NDArray[Any]:
    """Share of each column that bars take, those of one time together. [1]"""
    at = np.concatenate([start, start + length])
    order = np.argsort(at, kind="stable")
    running = np.cumsum(np.repeat([1.0, -1.0], len(start))[order])
    until = np.append(0.0, np.cumsum(running[:-1] * np.diff(at[order])))
    share: NDArray[Any] = np.diff(np.interp(edges, at[order], until)) / np.diff(edges)
    return share


def _name(ax: Axes, ops: Any, rows: NDArray[np.int64], span_ps: tuple[int, int], at: float, scale: float) -> None:
    """Names of ops in the bars they fit in, where a lane has few."""
    if len(rows) > _NAMED:
        return
    length_ps = span_ps[1] - span_ps[0]
    for row in rows.tolist():
        begin = max(int(ops["start_ps"][row] + ops["wait_ps"][row]), span_ps[0])
        until = min(int(ops["end_ps"][row]), span_ps[1])
        name = style.short(parts.without_layer(str(ops["op"][row])), 24)
        if until - begin < length_ps * _LETTER * (len(name) + 1):
            continue
        dark = "backward" in parts.part(*(str(ops[column][row]) for column in ("op", "kernel", "kind")))
        ax.text(
            float(to_s((begin + until) / 2 - span_ps[0])) / scale,
            at,
            name,
            ha="center",
            va="center_baseline",
            fontsize=style.FONT["note"] - 1,
            color="white" if dark or ops["kind"][row] == "collective" else style.INK,
            clip_on=True,
        )
