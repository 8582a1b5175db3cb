"""Part of a run: from one time, step or layer to another."""

from __future__ import annotations

import re

import numpy as np

from cmsim.errors import InputError, Problem
from cmsim.plots import parts
from cmsim.results import Result
from cmsim.units import to_ps

_TIME = re.compile(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*(s|ms|us|µs|ns)?\s*", re.I)
_PLACE = re.compile(r"\s*(step|layer)[\s:=]*(\d+)\s*", re.I)
_OF_SECOND = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
ALLOWED = "a time (1.5 s, 20 ms, 300 us), `step 2` or `layer 10`, counted from 0"


def window(result: Result, start: str | float | None, end: str | float | None) -> tuple[int, int]:
    """Beginning and end of a part of a run [ps]; a number is in seconds, a step or layer named as the end is in it.

    Raises InputError for what is none of these, is not in the run, or leaves nothing.
    """
    last_ps = int(result.frame_columns("ops")["end_ps"].max())
    start_ps = 0 if start is None else _at(result, start, "--from", last_ps)[0]
    end_ps = last_ps if end is None else min(_at(result, end, "--to", last_ps, after_ps=start_ps)[1], last_ps)
    if not start_ps < end_ps:
        said = f"{result.run} lasts {last_ps / 1e12:.6g} s; nothing lies between {start_ps / 1e12:.6g} s and "
        raise InputError(Problem(f"{said}{end_ps / 1e12:.6g} s", key="--from"))
    return start_ps, end_ps


def _at(result: Result, said: str | float, key: str, last_ps: int, *, after_ps: int = 0) -> tuple[int, int]:
    """Where that begins and ends. [ps]"""
    if found := _PLACE.fullmatch(str(said)):
        word, number = found[1].lower(), int(found[2])
        return (_step if word == "step" else _layer)(result, number, key, last_ps, after_ps)
    time = _TIME.fullmatch(str(said))
    try:
        time_s = float(time[1]) * _OF_SECOND[(time[2] or "s").lower()] if time else -1.0
    except ValueError:
        time_s = -1.0
    if not 0 <= time_s < 9e6:
        raise InputError(Problem(f"got '{said}'. Allowed: {ALLOWED}.", key=key))
    at_ps = int(to_ps(time_s))
    return at_ps, at_ps


def _step(result: Result, number: int, key: str, last_ps: int, _: int) -> tuple[int, int]:
    starts = [*parts.step_starts(result).tolist(), last_ps]
    if number >= len(starts) - 1:
        raise InputError(Problem(f"{result.run} has no step {number}: its last is {len(starts) - 2}", key=key))
    return 0 if number == 0 else starts[number], starts[number + 1]


def _layer(result: Result, number: int, key: str, last_ps: int, after_ps: int) -> tuple[int, int]:
    there = parts.passes(result)
    if there is None:
        raise InputError(Problem(f"no op of {result.run} tells its layer. Allowed: a time, or `step 0`.", key=key))
    first = np.flatnonzero((there.number == number) & (there.start_ps >= after_ps))
    if not len(first):
        last = int(there.number.max())
        raise InputError(Problem(f"{result.run} has no layer {number} there: its last is {last}", key=key))
    after = np.flatnonzero(there.number[first[0] :] != number)
    end_ps = int(there.start_ps[first[0] + after[0]]) if len(after) else last_ps
    return int(there.start_ps[first[0]]), end_ps
