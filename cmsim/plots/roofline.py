"""Kernels under the roofline of one rank: FLOPs per byte against FLOP/s, the longer a kernel the larger its point.

Source: Williams, Waterman and Patterson, Commun. ACM 52(4), 65-76, 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.plots.place import Page
from cmsim.results import Result, Results
from cmsim.units import PS_PER_S, TERA

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: kernels that are named: those with this share of the time of all, at most so many
_NAMED, _MOST = 0.04, 8
#: kinds of kernels with a colour of their own: those with this share of the time
_COLOURED = 0.01
#: area of the point of a kernel that takes all the time, and of the smallest [points^2]
_LARGEST, _SMALLEST = 900.0, 14.0


@style.plain
def draw(results: Results, ax: Axes | None = None, *, run: str | None = None) -> Axes:
    """Kernels of the rank class that computes most, equal ones together; ``run``: which, default the first.

    Raises InputError where no kernel of the run has FLOPs and bytes.
    """
    result = style.pick(results, run)
    name, kernel, flops, bytes_B, time_s = _kernels(result)
    memory_Bps = result.machine.memory_Bps
    if not len(name) or not memory_Bps:
        raise InputError(f"{result.run}: no kernel has FLOPs and bytes; there is nothing under a roof")
    intensity, rate = flops / bytes_B, flops / time_s / TERA
    share = time_s / time_s.sum()
    ax = style.axes(ax, size=(8.6, 5.4))
    ax.set_xscale("log")
    ax.set_yscale("log")
    style.log_ticks(ax.xaxis, few=True)
    style.log_ticks(ax.yaxis, few=True)
    peaks = _peaks(result)
    top = max(peaks.values()) / TERA
    low = 10.0 ** math.floor(math.log10(max(intensity.min() / 2, 1e-3)))
    high = 10.0 ** math.ceil(math.log10(max(intensity.max() * 2, top * TERA / memory_Bps * 4)))
    of_kind = {kind: float(share[kernel == kind].sum()) for kind in dict.fromkeys(kernel.tolist())}
    kinds = sorted(of_kind, key=lambda kind: -of_kind[kind])[: len(style.SERIES)]
    colours = {k: colour for k, colour in zip(kinds, style.SERIES, strict=False) if of_kind[k] >= _COLOURED}
    if len(colours) < len(of_kind):
        colours["others"] = style.MUTED
    ax.scatter(
        intensity,
        rate,
        s=np.maximum(share * _LARGEST, _SMALLEST),
        c=[colours.get(kind, style.MUTED) for kind in kernel.tolist()],
        alpha=0.85,
        edgecolors="white",
        linewidths=0.8,
        zorder=3,
    )
    for precision, peak in peaks.items():
        ridge = peak / memory_Bps
        ax.plot([ridge, high], [peak / TERA] * 2, color=style.INK, linewidth=1.3, zorder=2)
        text = ax.annotate(
            f"{precision} {peak / TERA:,.0f}",
            (high, peak / TERA),
            (5, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=style.FONT["note"],
            color=style.INK,
        )
        style.halo(text)
    ridge = top * TERA / memory_Bps
    ax.plot([low, ridge], [low * memory_Bps / TERA, top], color=style.INK, linewidth=1.3, zorder=2)
    ax.annotate(
        f"memory {memory_Bps / 1e12:.3g} TB/s",
        (low * 30, low * 30 * memory_Bps / TERA),
        (-8, 4),
        textcoords="offset points",
        ha="right",
        fontsize=style.FONT["note"],
        color=style.INK,
    )
    ax.set_xlim(low, high)
    ax.set_ylim(max(rate.min() / 4, 1e-4), top * 2.2)
    style.label(ax.xaxis, "arithmetic intensity [FLOP/B]")
    style.label(ax.yaxis, "rate of one rank [TFLOP/s]")
    style.legend(ax, colours, columns=min(len(colours), 6))
    ax.set_title(f"Roofline, {result.run}", loc="left", fontsize=style.FONT["title"], color=style.INK, pad=34)
    page = Page(ax)
    radius = np.sqrt(np.maximum(share * _LARGEST, _SMALLEST)) / 2
    page.marks(intensity, rate, (radius + 1).tolist())
    for peak in peaks.values():
        page.line([peak / memory_Bps, high], [peak / TERA] * 2)
    page.line([low, ridge], [low * memory_Bps / TERA, top])
    page.taken(ax.texts)
    for i in np.argsort(-share, kind="stable")[:_MOST].tolist():
        if share[i] < _NAMED:
            break
        text = ax.annotate(
            f"{style.short(name[i])} {share[i]:.0%}",
            (intensity[i], rate[i]),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=style.FONT["note"],
            color=style.INK,
            zorder=4,
        )
        style.halo(text)
        page.put(text, radius=float(radius[i]) + 1)
    return ax


def _kernels(result: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Name, kind, FLOPs, bytes and time of the kernels of one rank, summed over equal names."""
    ops = result.frame_columns("ops")
    empty = np.zeros(0)
    if not len(ops.get("kind", ())):
        return (empty,) * 5
    span_s = (ops["end_ps"] - ops["start_ps"]) / PS_PER_S
    good = (ops["kind"] == "compute") & (ops["flops"] > 0) & (ops["bytes_B"] > 0) & (span_s > 0)
    if not good.any():
        return (empty,) * 5
    busy = np.bincount(ops["rank_class"][good], span_s[good])
    good &= ops["rank_class"] == int(np.argmax(busy))
    names, first, code = np.unique(ops["op"][good].astype(str), return_index=True, return_inverse=True)
    code = code.reshape(-1)
    sums = [np.bincount(code, column[good]) for column in (ops["flops"], ops["bytes_B"], span_s)]
    return names, ops["kernel"][good].astype(str)[first], *sums


def _peaks(result: Result) -> dict[str, float]:
    """Peaks of the engines that kernels ran on, by precision; vector where there is none. [FLOP/s]"""
    ops = result.columns["ops"]
    used = (ops["kind"] == "compute") & (ops["peak_FLOPps"] > 0) & (ops["flops"] > 0)
    pairs = sorted(
        {(float(p), str(n) or "vector") for p, n in zip(ops["peak_FLOPps"][used], ops["precision"][used], strict=True)}
    )
    return {name: peak for peak, name in pairs}
