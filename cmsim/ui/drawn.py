"""Answers as parts of a page: a chart, a table, what makes the difference. The words are in ``parts.html``.

Charts are drawn in two sizes, of which a screen shows the one that it has room for; colours follow the page, light or
dark.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmsim.numbers import prefixed, quantity, unit_of
from cmsim.plots import style
from cmsim.ui.told import ToldLine, ToldRow
from cmsim.ui.whatif import Answer, Why

if TYPE_CHECKING:
    from jinja2 import Template

#: width and height of a chart on a wide screen and on a narrow one, and room at its left, right, top and bottom
_SIZES = {"wide": (760, 400), "narrow": (360, 300)}
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 26, 44
#: ticks of an axis, on a wide screen and on a narrow one
_TICKS = {"wide": 7, "narrow": 4}
#: what a table or axis calls a metric, where its name is not how people say it
_WORDS = {
    "tokens_per_s_per_user": "tokens/s of a user",
    "tokens_per_s_per_accelerator": "tokens/s per accelerator",
    "output_tokens_per_s_per_accelerator": "tokens/s per accelerator",
    "tpot_s": "time of a token",
    "tpot_mean_s": "time of a token, mean",
    "ttft_s": "time to the first token",
    "ttft_s_p90": "first token, 90 % sooner",
    "energy_per_token_J": "energy of a token",
    "memory_peak_B": "memory of a rank",
    "utilization": "utilization",
    "slo_attainment": "have what is promised",
}


@dataclass(frozen=True)
class Shown:
    """The parts of a page, as HTML: ``said`` is how it stands, and what is wrong."""

    said: str
    chart: str
    table: str
    why: str


def shown(answer: Answer, colour: Callable[[str], str], *, doing: str, state: str, turn: int) -> Shown:
    """An answer as parts of a page.

    colour  of a system    doing, state  what is being done, as a sentence and as a word    turn  number of the question
    """
    parts = _template().module
    said = {
        "turn": turn,
        "state": state,
        "doing": doing,
        "error": answer.error.splitlines(),
    }
    return Shown(
        str(parts.said(said)),  # type: ignore[attr-defined]
        str(parts.chart(_chart(answer, colour))),  # type: ignore[attr-defined]
        str(parts.table(_table(answer, colour))),  # type: ignore[attr-defined]
        str(parts.why(_why(answer))),  # type: ignore[attr-defined]
    )


@functools.lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    text = (Path(__file__).parent / "parts.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        text
    )


def words(name: str) -> str:
    """What people call a metric.

    >>> words("tpot_s"), words("some_other_J")
    ('time of a token', 'some other')
    """
    return _WORDS.get(name) or re.sub(r"_(s|J|W|B)(?=_p\d|$)", "", name).replace("_", " ")


def _chart(answer: Answer, colour: Callable[[str], str]) -> dict[str, Any]:
    x_name, y_name = answer.axes
    lines = [line for line in answer.lines if len(line.x)]
    now = [row for row in answer.rows if x_name in row.metrics and y_name in row.metrics]
    x = [value for line in lines for value in line.x.tolist()] + [row.metrics[x_name] for row in now]
    y = [value for line in lines for value in line.y.tolist()] + [row.metrics[y_name] for row in now]
    told = "; ".join(
        f"{row.system} {quantity(y_name, row.metrics[y_name])} at {quantity(x_name, row.metrics[x_name])}"
        for row in now
    )
    loads = "loads" if answer.kind == "serving" else "batches per accelerator"
    return {
        "alt": f"{words(y_name)} over {words(x_name)}. Now: {told or 'no system fits'}",
        "x_label": f"{words(x_name)} →",
        "y_label": f"↑ {words(y_name)}",
        "lines": [{"system": line.system, "colour": colour(line.system)} for line in lines],
        "below": f"Dots: {loads} by powers of two, as they were played. Rings: what is asked.",
        "sizes": [_size(name, answer.axes, lines, now, (x, y), colour) for name in _SIZES] if x and max(y) > 0 else [],
    }


def _size(
    name: str,
    axes: tuple[str, str],
    lines: Sequence[ToldLine],
    now: Sequence[ToldRow],
    values: tuple[list[float], list[float]],
    colour: Callable[[str], str],
) -> dict[str, Any]:
    """A chart of one size: x by powers, y from 0 on."""
    width, height = _SIZES[name]
    right, bottom = width - _RIGHT, height - _BOTTOM
    across, up = values
    x_ticks = style.round_steps(min(across), max(across) * (1 + 1e-9), most=_TICKS[name])
    low, high = math.log(min(*x_ticks, *across)), math.log(max(*x_ticks, *across))
    top = _even_ticks(max(up), _TICKS[name])
    to_x = _scale(low, high, _LEFT, right)
    to_y = _scale(0.0, max(top[-1], max(up)), bottom, _TOP)

    def place(x: float, y: float) -> tuple[float, float]:
        return to_x(math.log(x)), to_y(y)

    drawn = []
    for line in lines:
        places = [place(x, y) for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True)]
        dots = [
            {"x": x, "y": y, "text": f"{line.system}, {load}: {_both(axes, at)}"}
            for (x, y), load, at in zip(places, line.loads, zip(line.x, line.y, strict=True), strict=True)
        ]
        points = " ".join(f"{x},{y}" for x, y in places)
        drawn.append({"colour": colour(line.system), "points": points, "dots": dots})
    rings = []
    for row in now:
        at = row.metrics[axes[0]], row.metrics[axes[1]]
        x, y = place(*at)
        rings.append({"colour": colour(row.system), "x": x, "y": y, "text": f"{row.system}, asked: {_both(axes, at)}"})
    return {
        "name": name,
        **{"width": width, "height": height, "left": _LEFT, "right": right, "bottom": bottom},
        "x": [{"at": to_x(math.log(one)), "text": _tick(axes[0], one)} for one in x_ticks],
        "y": [{"at": to_y(one), "text": _tick(axes[1], one)} for one in top],
        "lines": drawn,
        "now": rings,
    }


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    each = (last - first) / (high - low) if high > low else 0.0
    middle = 0.0 if high > low else (last - first) / 2
    return lambda value: round(first + middle + (value - low) * each, 1)


def _even_ticks(most: float, count: int) -> list[float]:
    """Round numbers from 0 to the first that is not below the most.

    >>> _even_ticks(830.0, 7)
    [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
    """
    power = 10.0 ** math.floor(math.log10(most))
    each = next(one for step in (0.1, 0.2, 0.5, 1, 2, 5, 10) if most / (one := step * power) <= count - 1)
    return [float(f"{number * each:.12g}") for number in range(math.ceil(most / each - 1e-9) + 1)]


def _tick(name: str, value: float) -> str:
    return prefixed(value, "s").replace(".00", "").replace(".0 ", " ") if unit_of(name) == "s" else f"{value:,.10g}"


def _both(axes: tuple[str, str], at: Sequence[float]) -> str:
    return ", ".join(f"{words(name)} {quantity(name, float(value))}" for name, value in zip(axes, at, strict=True))


def _table(answer: Answer, colour: Callable[[str], str]) -> dict[str, Any]:
    names = answer.columns
    limits = any(row.limiter for row in answer.rows)
    rows = [
        {
            "system": row.system,
            "colour": colour(row.system),
            "reason": row.reason,
            "cells": [*(_cell(row, name) for name in names), *([row.limiter] if limits else [])] if row.metrics else [],
        }
        for row in answer.rows
    ]
    heads = [*(words(name) for name in names), *(["limited by"] if limits else [])] or [""]
    source = "as it was played" if answer.played else "from steps that were played, straight lines between them"
    return {"rows": rows, "heads": heads, "caption": f"At the load that is asked, {source}"}


def _cell(row: ToldRow, name: str) -> str:
    value = row.metrics.get(name)
    return (
        "" if value is None else quantity("tokens_per_s" if name.startswith("tokens_per_s_per_user") else name, value)
    )


def _why(answer: Answer) -> dict[str, Any]:
    what = "A step of answers at this load" if answer.kind == "serving" else "The step"
    return {
        "verdict": [one.partition(": ")[2] or one for one in answer.verdict],  # of the one workload
        "pairs": [_fall(one) for one in answer.why],
        "below": f"{what}, by what the busiest ranks do: from one time to the other, the largest part first.",
        "notes": answer.notes,
    }


def _fall(why: Why) -> dict[str, Any]:
    """A waterfall as rows of a table: where each bar begins, and how wide it is, in percent of the longest."""
    first, second = why.whole_s
    reached = [first]
    for step in why.steps_s.values():
        reached.append(reached[-1] + step)
    most = max(*reached, second)
    bars: list[dict[str, Any]] = [_bar("whole", why.first, prefixed(first, "s"), "var(--soft)", 0.0, first, most)]
    for (part, step), at in zip(why.steps_s.items(), reached, strict=False):
        text = f"{'+' if step > 0 else '−'}{prefixed(abs(step), 's')}"
        bars.append(_bar("part", part, text, style.LIMITER_COLOURS[part], min(at, at + step), abs(step), most))
    bars.append(_bar("whole", why.second, prefixed(second, "s"), "var(--soft)", 0.0, second, most))
    times = second / first
    slower = f"takes {times:.3g} times as long as" if times >= 1 else f"is {1 / times:.3g} times as quick as"
    return {"title": f"Why {why.second} {slower} {why.first}", "bars": bars}


def _bar(what: str, name: str, text: str, colour: str, left: float, width: float, most: float) -> dict[str, Any]:
    left, width = (round(100 * value / most, 2) for value in (left, width))
    return {"what": what, "name": name, "text": text, "colour": colour, "left": left, "width": width}


__all__ = ["Shown", "shown", "words"]
