"""How long requests of a service take: the share of them that took no longer, a line a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cmsim import numbers
from cmsim.arrays import Columns, Floats
from cmsim.errors import InputError, did_you_mean
from cmsim.plots import style
from cmsim.plots.series import lighter, series, words
from cmsim.plots.trade_off import beside
from cmsim.results import Result, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: what is drawn, by its name
WHAT: Mapping[str, str] = {
    "ttft": "time to the first token",
    "tpot": "time per token after the first",
    "e2e": "time to the last token",
}
#: shares that have a line across
_MARKS = (0.5, 0.9, 0.99)


@style.plain
def draw(results: Results, ax: Axes | None = None, *, metric: str | None = None) -> Axes:
    """Distribution of one time over the requests that were served.

    metric: ttft (the default), tpot or e2e. Raises InputError where no run has requests.
    """
    what = metric or "ttft"
    if what not in WHAT:
        raise InputError(f"got '{what}'. {did_you_mean(what, list(WHAT))}")
    served = {one.run: times for one in results if _has(one) and len(times := _times(one, what))}
    if not served:
        raise InputError("latency needs a service whose requests were kept; there is none")
    lines = series(results, lambda one: one.run in served)
    longest = max(float(times.max()) for times in served.values())
    unit, name = numbers.scale(longest, "s")
    ax = style.axes(ax, size=(8.6, 5.0))
    alike = len({line.workload for line in lines}) == 1  # markers are of workloads
    for line in lines:
        for one in line.runs:
            times = np.sort(served[one.run])
            said = ", ".join(filter(None, (line.name, f"{words(line.along)} {line.said(one)}".strip())))
            pale = line.runs.index(one) / max(len(line.runs), 2)
            ax.step(
                times / unit,
                np.arange(1, len(times) + 1) / len(times),
                where="post",
                color=lighter(line.colour, 0.6 * pale),
                linestyle=line.stroke,
                linewidth=1.8,
                marker="" if alike else line.marker,
                markevery=[int(mark * len(times)) for mark in _MARKS],
                markeredgecolor="white",
                label=said,
            )
    for mark in _MARKS:
        ax.axhline(mark, color=style.FAINT, linewidth=0.8, zorder=0)
    ax.set_yticks([0, 0.25, *_MARKS, 1], ["0 %", "25 %", *(f"{mark:.0%}".replace("%", " %") for mark in _MARKS), ""])
    ax.set_ylim(0, 1.005)
    ax.set_xlim(left=0)
    style.label(ax.xaxis, f"{WHAT[what]} [{name}]")
    style.label(ax.yaxis, "requests that took no longer")
    style.head(ax, f"{WHAT[what].capitalize()}")
    beside(ax)
    return ax


def _has(one: Result) -> bool:
    return "requests" in (frame.name for frame in one.declared.frames)


def _times(one: Result, what: str) -> Floats:
    """Of each request that was served [s]; of answers of one token there is no time after the first."""
    frame: Columns = one.frame_columns("requests")
    done = np.asarray(frame["outcome"]) == "done"
    first = np.asarray(frame["waited_s"]) + np.asarray(frame["prefill_s"])
    if what == "ttft":
        return np.asarray(first[done], float)
    if what == "e2e":
        return np.asarray(np.asarray(frame["e2e_s"])[done], float)
    later = np.asarray(frame["generated_tokens"]) - 1
    done &= later > 0
    return np.asarray((np.asarray(frame["moved_s"]) + np.asarray(frame["decode_s"]))[done] / later[done], float)
