"""Faults of hosts as recorded, and what they do to a job that runs on some of these hosts.

A file is a list of events, each with ``node_id``, ``event_time`` in days, ``event_type`` (fault_start or fault_end) and
``fault_type`` with ``Level``, ``Class`` and ``Desc``. A host is away while any of its faults lasts.

Source: github.com/stepfun-ai/InfiniteHBD-Trace.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import reading
from cmsim.errors import InputError, Problem
from cmsim.kinds.reliability import FaultTraceSpec
from cmsim.reading.bytes_in import read_bytes
from cmsim.reliability.causes import FOLDER
from cmsim.reliability.events import Failures, to_us

DAY_S = 86400.0
#: an event takes a few hundred bytes
_LIMIT_B = 2**28


@dataclass(frozen=True)
class Away:
    """A host that is away: from and to on the trace's clock [s], why, and which"""

    start_s: float
    end_s: float
    cause: str
    host: str


def read(spec: FaultTraceSpec, base: Path | None = None) -> tuple[list[Away], float]:
    """Stretches in which hosts are away, in order, those of one host joined; and when the trace ends [s].

    Raises InputError with file and place.
    """
    path = reading.locate(spec.path, base=base, built_in=(FOLDER, ""))
    if path is None:
        raise InputError(Problem(f"no such file: {spec.path}", key="trace.path"))
    try:
        text = read_bytes(path, limit_B=_LIMIT_B).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"is not UTF-8 text (byte {error.start})", str(path))) from None
    faults, last_s = _faults(reading.parse_json(text, str(path)), spec, str(path))
    return _joined(faults), last_s


def _faults(listed: Any, spec: FaultTraceSpec, file: str) -> tuple[list[Away], float]:
    """Each start with the end of the same fault of the same host; one without end lasts to the end of the trace."""
    if not isinstance(listed, list) or not listed:
        raise InputError(Problem("a list of events is required", file))
    told = [_event(one, number, file) for number, one in enumerate(listed)]
    last = max(at for at, *_ in told)
    since: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    out = []
    for at, host, starts, kind, what in sorted(told, key=lambda one: (one[0], not one[2])):
        key = (host, kind, what)
        if starts:
            since[key].append(at)
        elif since[key]:
            out.append((key, since[key].pop(0), at))
    out += [(key, at, last) for key, begun in since.items() for at in begun]
    left_out = set(spec.leave_out)
    found = [
        Away(start * DAY_S, end * DAY_S, kind, host)
        for (host, kind, what), start, end in out
        if not left_out & {kind, f"{kind}: {what}"}
    ]
    return found, last * DAY_S


def _event(one: Any, number: int, file: str) -> tuple[float, str, bool, str, str]:
    """Time, host, whether it begins, class and description."""
    key = f"[{number}]"
    if not isinstance(one, dict):
        raise InputError(Problem("an event is a mapping", file, key=key))
    at, of, host = one.get("event_time"), one.get("fault_type"), one.get("node_id")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e5:
        raise InputError(Problem(f"days from 0 are required, got {at!r}", file, key=f"{key}.event_time"))
    if one.get("event_type") not in ("fault_start", "fault_end"):
        message = f"got {one.get('event_type')!r}. Allowed: fault_end, fault_start."
        raise InputError(Problem(message, file, key=f"{key}.event_type"))
    if not isinstance(host, str) or not isinstance(of, dict) or not isinstance(of.get("Class"), str):
        raise InputError(Problem("node_id and fault_type.Class are required, as text", file, key=key))
    return float(at), host, one["event_type"] == "fault_start", of["Class"], str(of.get("Desc", ""))


def _joined(faults: Sequence[Away]) -> list[Away]:
    """Faults of one host that touch are one, by the first one's cause."""
    out: list[Away] = []
    for one in sorted(faults, key=lambda one: (one.host, one.start_s)):
        if out and out[-1].host == one.host and one.start_s <= out[-1].end_s:
            out[-1] = Away(out[-1].start_s, max(out[-1].end_s, one.end_s), out[-1].cause, one.host)
        else:
            out.append(one)
    return sorted(out, key=lambda one: (one.start_s, one.host))


def events(
    away: Sequence[Away], *, fleet: int, hosts: int, spares: int, window_s: float, seed: int
) -> tuple[Failures, tuple[str, ...]]:
    """One draw: faults on the hosts of a job, which takes a spare one in place of each that leaves; names of causes.

    Hosts of the job and its spares are drawn from the fleet; those that the trace does not name never fail. Raises
    InputError where the fleet has not as many, or the trace names more than the fleet has.
    """
    names = sorted({one.host for one in away})
    if fleet < max(len(names), hosts + spares):
        message = f"got {fleet}; the trace names {len(names)}, and the job has {hosts} with {spares} spares"
        raise InputError(Problem(message, key="trace.hosts"))
    mine = np.random.default_rng(seed).permutation(fleet)[: hosts + spares].tolist()
    crew = _Crew(mine[:hosts], mine[hosts:])
    number = {name: i for i, name in enumerate(names)}
    # who is back is back before others leave, but for a fault of no length
    turns = [(one.start_s, one.end_s > one.start_s, True, one) for one in away]
    turns += [(one.end_s, False, False, one) for one in away]
    rows = []
    for at, _, begins, one in sorted(turns, key=lambda turn: turn[:2]):
        host = number[one.host]
        if host not in crew.all or at > window_s:
            continue
        if begins:
            rows.append((at, one.end_s, one.cause, crew.leaves(host)))
        else:
            crew.comes_back(host)
    causes = tuple(sorted({cause for *_, cause, _ in rows}))
    start = to_us([at for at, *_ in rows])
    made = Failures(
        1,
        int(to_us(window_s)),
        run=np.zeros(len(rows), np.int64),
        start_us=start,
        ready_us=start,
        until_us=np.maximum(to_us([end for _, end, *_ in rows]), start),
        cause=np.array([causes.index(cause) for *_, cause, _ in rows], np.int64),
        breaks=np.array([stops for *_, stops in rows], np.bool_),
        hosts=np.ones(len(rows), np.int64),
        slows=np.ones(len(rows)),
    )
    return made, causes


class _Crew:
    """Which hosts a job has, and which stand by."""

    def __init__(self, used: Sequence[int], idle: Sequence[int]):
        self.all = {*used, *idle}
        self._used, self._idle, self._missing = set(used), list(idle), 0

    def leaves(self, host: int) -> bool:
        """Whether the job had it, and stops; it takes the first that stands by."""
        if host not in self._used:
            self._idle.remove(host)
            return False
        self._used.remove(host)
        if self._idle:
            self._used.add(self._idle.pop(0))
        else:
            self._missing += 1
        return True

    def comes_back(self, host: int) -> None:
        """Into the job where it misses one, else to those that stand by."""
        if self._missing:
            self._missing -= 1
            self._used.add(host)
        else:
            self._idle.append(host)
