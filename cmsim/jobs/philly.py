"""Philly (Microsoft 2017): training jobs, each with its attempts and the GPUs these ran on.

Source: github.com/msr-fiddle/philly-traces, README; Jeon et al., Analysis of Large-Scale Multi-Tenant GPU Clusters, ATC
2019. Read from that description: no file of it was at hand. Times are local, and any may be missing.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError
from cmsim.jobs.jobs import Jobs, jobs_of
from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes
from cmsim.reading.parsers import NO_TIME, Clock, Label, seconds

NAME = "philly"
#: jobs that stand in memory as Python objects
CHUNK = 1024
_OPEN = re.compile(r"\s*\[\s*(\])?\s*")
_BETWEEN = re.compile(r"\s*([,\]])\s*")
_LATE = np.iinfo(np.int64).max


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return start.lstrip()[:1] == b"[" and any(mark in start for mark in (b'"attempts"', b'"submitted_time"'))


@dataclass(frozen=True)
class _Part:
    """Columns of some of the jobs: times of `Clock`, and of its attempts the first start, the last end and the sum."""

    status: Ints
    submitted: Ints
    start: Ints
    end: Ints
    ran_s: Floats
    gpus: Floats
    per_node: Floats
    attempts: int
    untimed: int


@dataclass(frozen=True)
class _Job:
    """An entry of the list: its place in the text, and its texts as they are.

    gpus, per_node  of the last attempt that says where it ran, NaN where none does
    """

    at: int
    status: str
    submitted: str
    started: list[str]
    ended: list[str]
    gpus: float
    per_node: float


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Jobs:
    """Raises InputError naming file and character."""
    label = Label()
    jobs = _jobs(path, read_bytes(path, limit_B=limit_B))
    parts: list[_Part] = []
    while chunk := list(itertools.islice(jobs, CHUNK)):
        parts.append(_part(path, chunk, label))
    if not parts:
        raise bad(path, "has no jobs")
    status = np.concatenate([part.status for part in parts])
    gpus = np.concatenate([part.gpus for part in parts])
    submit_s, start_s, end_s = seconds(
        np.concatenate([part.submitted for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
    )
    attempts, untimed = sum(part.attempts for part in parts), sum(part.untimed for part in parts)
    notes = ["times are local: where clocks were changed, an hour is missing or double"]
    if untimed:
        notes.append(f"{untimed} of {attempts} attempts have no start or no end: not in the durations")
    unplaced = int(np.isnan(gpus).sum())
    if unplaced:
        notes.append(f"no GPUs recorded of {unplaced} of {len(gpus)} jobs")
    return jobs_of(
        NAME,
        path,
        submit_s=submit_s,
        start_s=start_s,
        end_s=end_s,
        duration_s=np.concatenate([part.ran_s for part in parts]),
        gpus=gpus,
        gpus_per_node=np.concatenate([part.per_node for part in parts]),
        status=(label.names, status),
        facts={
            "rows": len(gpus),
            "attempts": attempts,
            "gpus": float(np.nansum(gpus)),
            "statuses": label.counts(status),
        },
        notes=notes,
    )


def _part(path: Path, jobs: list[_Job], label: Label) -> _Part:
    count = len(jobs)
    owner = np.repeat(np.arange(count), [len(job.started) for job in jobs])
    started = _times(path, [text for job in jobs for text in job.started], owner, jobs)
    ended = _times(path, [text for job in jobs for text in job.ended], owner, jobs)
    timed = (started != NO_TIME) & (ended != NO_TIME)
    start, end = np.full(count, _LATE), np.full(count, NO_TIME)
    np.minimum.at(start, owner, np.where(started == NO_TIME, _LATE, started))
    np.maximum.at(end, owner, ended)
    ran = np.bincount(owner[timed], (ended - started)[timed] / 1e9, count)
    return _Part(
        status=label([job.status for job in jobs]),
        submitted=_times(path, [job.submitted for job in jobs], np.arange(count), jobs),
        start=np.where(start == _LATE, NO_TIME, start),
        end=end,
        ran_s=np.where(np.bincount(owner[timed], minlength=count) > 0, ran, np.nan),
        gpus=np.array([job.gpus for job in jobs], np.float64),
        per_node=np.array([job.per_node for job in jobs], np.float64),
        attempts=len(owner),
        untimed=int((~timed).sum()),
    )


def _times(path: Path, texts: list[str], owner: Ints, jobs: list[_Job]) -> Ints:
    clock = Clock(blank=True)
    try:
        return clock(texts)
    except ValueError:
        for text, row in zip(texts, owner, strict=True):
            try:
                clock([text])
            except ValueError:
                raise _wrong(path, jobs[row].at, f"got {text[:40]!r}; allowed: {clock.allowed}") from None
        raise AssertionError("a time was refused, none of them is") from None


def _wrong(path: Path, at: int, message: str) -> InputError:
    return bad(path, f"job at character {at}: {message}")


def _jobs(path: Path, data: bytes) -> Iterator[_Job]:
    """Entries of a JSON list, one at a time: all at once they take ten times the file."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise bad(path, "is no UTF-8", byte=error.start) from None
    del data
    read = json.JSONDecoder().raw_decode
    found = _OPEN.match(text)
    if not found:
        raise bad(path, "allowed: a JSON list of jobs")
    at, closed = found.end(), found[1] == "]"
    while not closed:
        try:
            value, end = read(text, at)
        except json.JSONDecodeError as error:
            raise _wrong(path, at, f"is no JSON, or cut short ({error.msg})") from None
        except (ValueError, RecursionError):
            raise _wrong(path, at, "a number too long, or lists too deep") from None
        try:
            yield _job(at, value)
        except ValueError as error:
            raise _wrong(path, at, str(error)) from None
        found = _BETWEEN.match(text, end)
        if not found:
            raise _wrong(path, at, "allowed: ',' or ']' behind it; the file may be cut short")
        at, closed = found.end(), found[1] == "]"
    if at < len(text):
        raise bad(path, f"character {at}: allowed: nothing behind the list of jobs")


def _job(at: int, found: Any) -> _Job:
    """ValueError where the entry is not as described."""
    if type(found) is not dict:
        raise ValueError(f"got a {type(found).__name__}; allowed: an object")
    attempts = found.get("attempts")
    if type(attempts) is not list or not all(type(attempt) is dict for attempt in attempts):
        raise ValueError(f"'attempts': got {attempts!r:.40}; allowed: a list of objects")
    sizes: list[int] = []
    for attempt in attempts:
        nodes = attempt.get("detail") or []
        if type(nodes) is not list or not all(type(node) is dict and type(node.get("gpus")) is list for node in nodes):
            raise ValueError(f"'detail': got {nodes!r:.40}; allowed: a list of objects with lists of 'gpus'")
        sizes = [len(node["gpus"]) for node in nodes] or sizes
    return _Job(
        at=at,
        status=_text(found, "status"),
        submitted=_text(found, "submitted_time"),
        started=[_text(attempt, "start_time") for attempt in attempts],
        ended=[_text(attempt, "end_time") for attempt in attempts],
        gpus=float(sum(sizes)) if sizes else np.nan,
        per_node=float(max(sizes)) if sizes else np.nan,
    )


def _text(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    if value is not None and type(value) is not str:
        raise ValueError(f"'{key}': got {value!r:.40}; allowed: text or null")
    return value or ""
