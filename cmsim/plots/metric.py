"""Any metric over any swept key: one line per set of results, workload and system, and each value of the other keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmsim.errors import InputError, did_you_mean
from cmsim.plots import style
from cmsim.plots.series import Series, series, words
from cmsim.plots.trade_off import drawn, scale
from cmsim.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: keys whose largest value is so many times the least are drawn on a scale of powers
_WIDE = 30.0


@style.plain
def draw(results: Results, ax: Axes | None = None, *, metric: str | None = None, over: str | None = None) -> Axes:
    """A metric of all runs that have it, over a key that was swept.

    metric   default: what decides between plans of the first run's kind
    over     head of the key; default: that with most values

    Raises InputError where no run has the metric, or the key was not swept.
    """
    runs = list(results)
    if not runs:
        raise InputError("there is no result to draw")
    name = metric or next(one for one in (*runs[0].declared.decisive, *runs[0].metrics) if one in runs[0].metrics)
    has = [one for one in runs if isinstance(one.metrics.get(name), int | float)]
    if not has:
        known = dict.fromkeys(key for one in runs for key, value in one.metrics.items() if not isinstance(value, str))
        raise InputError(f"no run has a number '{name}'. {did_you_mean(name, list(known))}")
    lines = series(results, lambda one: one in has, by=name, along=over or "")
    swept = list(dict.fromkeys(head for line in lines for head in (line.along, *line.fixed) if head))
    if not swept or (over is not None and over not in {line.along for line in lines}):
        what = f"'{over}' was not swept" if over else "no key was swept"
        raise InputError(f"{what}. Swept: {', '.join(swept)}" if swept else f"{what} to draw over; there is none")
    key = over or next(line.along for line in lines if line.along)
    lines = [line for line in lines if line.along == key]
    unit, label = scale([one.metric(name) for line in lines for one in line.runs], name)
    places = _places(lines)
    at = [[(places[line.said(one)], one.metric(name) / unit) for one in line.runs] for line in lines]
    ax = style.axes(ax, size=(8.6, 5.0))
    drawn(ax, lines, at, words(key), label)
    values = list(places.values())
    if not _numbers(lines):
        ax.set_xticks(values, list(places))
    elif min(values) > 0 and max(values) / min(values) >= _WIDE:
        ax.set_xscale("log")
        style.log_ticks(ax.xaxis)
    style.head(ax, f"{style.words(name).partition(' [')[0].capitalize()} over {words(key)}")
    return ax


def _numbers(lines: list[Series]) -> bool:
    return all(_number(line.said(one)) is not None for line in lines for one in line.runs)


def _places(lines: list[Series]) -> dict[str, float]:
    """Where each value of the key stands: at itself, or one after the other."""
    said = list(dict.fromkeys(line.said(one) for line in lines for one in line.runs))
    found = [_number(text) for text in said]
    return {
        text: float(number) if number is not None and None not in found else float(place)
        for place, (text, number) in enumerate(zip(said, found, strict=True))
    }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
