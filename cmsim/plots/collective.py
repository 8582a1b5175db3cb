"""Time and bus bandwidth of collectives against their size, with the bounds of the fabric and measured points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmsim import numbers
from cmsim.errors import InputError
from cmsim.plots import style
from cmsim.plots.series import Series, series
from cmsim.plots.trade_off import beside
from cmsim.results import Result, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 5.5
#: of measured points, by group
_MEASURED = "x+1234"
#: binary prefixes by 1024 to their power
_PREFIXES = ("B", "KiB", "MiB", "GiB", "TiB")


@style.plain
def draw(results: Results, ax: Axes | None = None, *, measured: Sequence[Mapping[str, Any]] = ()) -> Axes:
    """Time over size; without axes of the caller's, bus bandwidth in a second panel below.

    A dashed line is the time that the fabric allows at line rate, the largest of its bounds.

    measured    tables of calls, as of logs: message_bytes [B], latency_us, and where there are collective, n_ranks,
                busbw_GBps (without, none is drawn below)

    Raises InputError where no run is of a collective with a size, and for a table without sizes or times.
    """
    lines = series(results, _is_call, by="time_s", along="message_bytes")
    if not lines:
        raise InputError("collective needs runs of collectives with a size; there is none")
    groups = [group for table in measured for group in _groups(table)]
    below: Axes | None = None
    if ax is None:
        ax, below = style.panels((9.2, 7.4), (1.2, 1.0))
    ax = style.axes(ax)
    times_s = [one.metric("time_s") for line in lines for one in line.runs]
    unit, name = numbers.scale(float(np.sqrt(min(times_s) * max(times_s))), "s")
    for line in lines:
        _line(ax, below, line, unit)
    for number, (said, size_B, time_s, busbw) in enumerate(groups):
        look: dict[str, Any] = {
            "linestyle": "none",
            "marker": _MEASURED[number % len(_MEASURED)],
            "color": style.INK,
            "zorder": 4,
        }
        ax.plot(size_B, time_s / unit, label=f"measured{said}", **look)
        if below is not None and busbw is not None:
            below.plot(size_B, busbw, **look)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    style.log_ticks(ax.yaxis, few=max(times_s) > 300 * min(times_s))
    _sizes(ax if below is None else below)
    style.label(ax.yaxis, f"time of a call [{name}]")
    style.label((ax if below is None else below).xaxis, "size, as nccl-tests counts it")
    if below is not None:
        below.set_ylim(bottom=0)
        style.label(below.yaxis, "bus bandwidth [GB/s]")
    for one in (ax, below):
        if one is not None:
            one.grid(axis="both", which="major", color=style.FAINT, linewidth=0.6)
    beside(ax)
    style.head(ax, "Collectives against their size")
    return ax


def _is_call(result: Result) -> bool:
    return "busbw_GBps" in result.metrics and result.facts.named().get("size_B", 0) > 0


def _line(ax: Axes, below: Axes | None, line: Series, unit: float) -> None:
    """What was simulated, and under it what the fabric allows."""
    size_B = [one.facts.named()["size_B"] for one in line.runs]
    time_s, busbw, bound_s = (
        np.array([of(one) for one in line.runs])
        for of in (lambda one: one.metric("time_s"), lambda one: one.metric("busbw_GBps"), _bound_s)
    )
    look = line.look(_SIZE) | {"zorder": 3}
    thin: dict[str, Any] = {"color": line.colour, "linestyle": (0, (2, 2)), "linewidth": 1.0, "zorder": 2}
    ax.plot(size_B, time_s / unit, label=line.name, **look)
    bounded = bound_s > 0
    if bounded.any():
        sizes = np.array(size_B)[bounded]
        ax.plot(sizes, bound_s[bounded] / unit, label=f"{line.name}: bound", **thin)
    if below is not None:
        below.plot(size_B, busbw, **look)
        if bounded.any():
            below.plot(sizes, (busbw * time_s)[bounded] / bound_s[bounded], **thin)


def _bound_s(result: Result) -> float:
    """The largest of the bounds of a call at line rate; 0 where none is known. [s]"""
    bounds = (value for name, value in result.metrics.items() if name.startswith("bound_") and name.endswith("_s"))
    return max((float(value) for value in bounds), default=0.0)


def _groups(
    table: Mapping[str, Any],
) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]]:
    """What is said of the points of a table that are one collective and number of ranks; sizes [B], times [s], and
    bus bandwidth [GB/s] where the table has it."""
    missing = [name for name in ("message_bytes", "latency_us") if name not in table]
    if missing:
        raise InputError(f"a table of measured calls has no {' and no '.join(missing)}; it has {', '.join(table)}")
    size_B, time_s = (
        np.asarray(table[name], float) * by for name, by in (("message_bytes", 1.0), ("latency_us", 1e-6))
    )
    rows = len(size_B)
    what = [
        [str(value) for value in table[name]] if name in table else [""] * rows for name in ("collective", "n_ranks")
    ]
    said = [
        "".join(f", {word}" for word in (name, f"{ranks} ranks" if ranks else "") if word)
        for name, ranks in zip(*what, strict=True)
    ]
    busbw = np.asarray(table["busbw_GBps"], float) if "busbw_GBps" in table else None
    good = (size_B > 0) & (time_s > 0)
    out = []
    for group in dict.fromkeys(said):
        here = np.flatnonzero(good & (np.array(said) == group))
        here = here[np.argsort(size_B[here], kind="stable")]
        if len(here):
            out.append((group, size_B[here], time_s[here], None if busbw is None else busbw[here]))
    return out


def _sizes(ax: Axes) -> None:
    """Ticks of sizes in binary prefixes."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.xaxis.set_major_locator(LogLocator(base=16))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_said(value)))
    ax.xaxis.set_minor_locator(NullLocator())


def size_said(size_B: float) -> str:
    """A size with a binary prefix.

    >>> size_said(4096), size_said(2.0**28), size_said(1)
    ('4 KiB', '256 MiB', '1 B')
    """
    power = min(int(np.log2(max(size_B, 1)) // 10), len(_PREFIXES) - 1)
    return f"{size_B / 1024**power:g} {_PREFIXES[power]}"
