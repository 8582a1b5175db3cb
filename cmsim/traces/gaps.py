"""Time that nothing in a file explains: kept as rows of their own, so that a replay with everything recorded takes as
long as the recording, and a faster machine does not make shorter what nobody knows the cause of.

A row of a profile starts when all that it is known to wait for has ended: what stands before it on its queue, its
launch, events, other rows. What is left from there to its recorded start is a gap: the host did work that was not
recorded, a rank without a file was waited for, the device took its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import WARNING
from cmsim.units import US
from cmsim.workload.ops import HOST

NAME = "gap"
#: of the span of a rank: the longest time that a row may start early; shorter gaps are added up until they are as long.
#: So rows never start earlier than they did by more than this, and a rank gets no more gaps than its inverse, assumed
UNIT = 1e-3
#: how far two readings of one moment may be apart: many files cut times to whole microseconds [us]
CLOCK_US = 1.0
#: by how much a replay with everything recorded may miss the recorded step without a warning
TOLERANCE = 0.02


@dataclass(frozen=True)
class Gaps:
    """Holds before rows.

    before     rows that start late, ascending
    length_us  how late, beside all that they wait for [us]
    span_us    of the rank when everything takes as long as recorded, NaN where nobody asked [us]
    bare_us    the same without the holds [us]
    """

    before: Ints
    length_us: Floats
    span_us: float = float("nan")
    bare_us: float = float("nan")

    @property
    def total_us(self) -> float:
        return float(self.length_us.sum())


NO_GAPS = Gaps(np.zeros(0, np.int64), np.zeros(0))


def believed(start_us: Floats, duration_us: Floats, queue: Ints, row: Ints, dep: Ints) -> tuple[Ints, Ints, int]:
    """Dependencies that the recorded times allow, and how many they do not.

    row, dep  what waits for what beside the queues

    What ran on long after its waiter had started was not waited for: the last row of its queue that had ended takes its
    place, if there is one. A tenth of a row may still drain while the next begins.
    """
    end_us = start_us + np.nan_to_num(duration_us)
    if not len(row):
        return row, dep, 0
    unit = UNIT * float(np.nanmax(end_us) - np.nanmin(start_us))
    allowed = np.maximum(CLOCK_US, np.minimum(np.nan_to_num(duration_us[dep]) / 10, unit))
    wrong = np.flatnonzero(end_us[dep] - start_us[row] > allowed)
    if not len(wrong):
        return row, dep, 0
    instead = dep.copy()
    order = np.argsort(queue, kind="stable")
    first = np.searchsorted(queue[order], np.arange(int(queue.max()) + 2))
    for its in np.unique(queue[dep[wrong]]).tolist():
        rows = order[first[its] : first[its + 1]]
        reach = np.maximum.accumulate(np.where(np.isnan(end_us[rows]), -np.inf, end_us[rows]))
        here = wrong[queue[dep[wrong]] == its]
        before = np.searchsorted(reach, start_us[row[here]] + CLOCK_US, "right") - 1
        instead[here] = np.where(before >= 0, rows[np.maximum(before, 0)], -1)
    keep = instead >= 0
    return row[keep], instead[keep], len(wrong)


def exclusive_us(start_us: Floats, duration_us: Floats, queue: Ints) -> Floats:
    """How long rows took after all before them on their queue had ended, shape (rows,). [us]

    A queue runs one row at a time; devices begin a kernel while the last blocks of the one before still run, and
    branches of a graph stand on one stream. Rows with no recorded start or time keep what they have.
    """
    order = np.argsort(queue, kind="stable")
    end = np.where(np.isnan(start_us), -np.inf, start_us + np.nan_to_num(duration_us))[order]
    # one running maximum for all queues: their numbers, times more than any end, keep them apart
    low, high = np.min(end, initial=0.0, where=np.isfinite(end)), np.max(end, initial=0.0)
    apart = queue[order] * (high - low + 1.0)
    reach = np.maximum.accumulate(np.where(np.isfinite(end), end - low, 0.0) + apart)
    before = np.empty(len(end))
    before[order] = np.concatenate([[-np.inf], (reach - apart)[:-1] + low])
    before[order[np.flatnonzero(np.diff(queue[order], prepend=-2))]] = -np.inf
    late = np.maximum(before - start_us, 0.0)
    return np.where(late > 0, np.maximum(duration_us - late, 0.0), duration_us)


def gaps(start_us: Floats, duration_us: Floats, queue: Ints, dep_ptr: Ints, dep_idx: Ints) -> Gaps:
    """Gaps of a rank's rows, which stand in order: dependencies first, each queue from first to last.

    start_us     as recorded, NaN where not: such a row starts when it can [us]
    duration_us  as the replay has them, NaN for none [us]
    """
    length_us = np.nan_to_num(duration_us)
    known = ~np.isnan(start_us)
    origin = float(start_us[known].min()) if known.any() else 0.0
    last = float((start_us + length_us)[known].max()) if known.any() else origin
    rows = (length_us.tolist(), queue.tolist(), dep_ptr[1:].tolist(), dep_idx.tolist())
    before, late, end = _played(start_us.tolist(), *rows, origin, UNIT * (last - origin))
    bare = _played(start_us.tolist(), *rows, origin, np.inf)[2] if before else end
    return Gaps(np.array(before, np.int64), np.array(late, np.float64), end - origin, bare - origin)


def _played(
    start_us: list[float],
    length_us: list[float],
    queue: list[int],
    upto: list[int],
    deps: list[int],
    origin: float,
    unit: float,
) -> tuple[list[int], list[float], float]:
    """Rows that start more than ``unit`` later than they could, by how much, and when the last row ends. [us]

    The one step that cannot be done on columns: goes by the ends that a replay gives, so that what was recorded out of
    order, or is shorter than a unit, never adds up.
    """
    last, end = [origin] * (max(queue) + 1), [0.0] * len(queue)
    before: list[int] = []
    late: list[float] = []
    at = 0
    for row, its in enumerate(queue):
        ready = last[its]
        while at < upto[row]:
            if end[deps[at]] > ready:
                ready = end[deps[at]]
            at += 1
        if start_us[row] - ready > unit:
            before.append(row)
            late.append(start_us[row] - ready)
            ready = start_us[row]
        end[row] = last[its] = ready + length_us[row]
    return before, late, max(last)


def gap_notes(of_ranks: Sequence[Gaps], recorded_us: float) -> list[str]:
    """What is to be said of time that nothing in the files of the recorded ranks explains, and of time that is in none.

    recorded_us  of the step, NaN where it was not recorded [us]
    """
    said = []
    span_us = max(one.span_us for one in of_ranks)
    if count := sum(len(one.before) for one in of_ranks):
        total_us, bare_us = sum(one.total_us for one in of_ranks), max(one.bare_us for one in of_ranks)
        share = 1 - bare_us / span_us
        of = f" on {len(of_ranks)} ranks" if len(of_ranks) > 1 else ""
        said.append(
            f"{WARNING if share > TOLERANCE else ''}{count} gaps without a cause in the file stay as they were: "
            f"{total_us / 1000:.3f} ms of all queues{of}; without them the step would be {100 * share:.1f} % shorter"
        )
    if not abs(span_us - recorded_us) <= TOLERANCE * recorded_us and recorded_us > 0 and span_us > 0:
        what = "the rest is not in the file" if span_us < recorded_us else "ops run one after the other that did not"
        said.append(
            f"{WARNING}with everything as recorded the ops of the file take {span_us / 1000:.3f} ms, the recorded step "
            f"{recorded_us / 1000:.3f} ms ({100 * (span_us / recorded_us - 1):+.1f} %): {what}"
        )
    return said


def with_gaps(
    found: Gaps, columns: dict[str, NDArray[Any]], name: int, dep_ptr: Ints, dep_idx: Ints
) -> tuple[dict[str, NDArray[Any]], Ints, Ints]:
    """Columns of a program and its dependencies with the gaps in them: each on the queue of the row that starts late,
    and waiting for what that row waits for.

    name  code of the gaps' name
    """
    at, count = found.before, len(dep_ptr) - 1
    its: dict[str, Any] = {
        "kind": HOST,
        "name": name,
        "stream": columns["stream"][at],
        "recorded_s": found.length_us * US,
        "flops": 0.0,
        "bytes_B": 0.0,
        "cores": 1.0,
    }
    made = {key: np.insert(column, at, its.get(key, -1)) for key, column in columns.items()}
    # a row goes down by the gaps before it, its own too; what it waited for stays where it was: the gap's now
    moved = np.arange(count) + np.searchsorted(at, np.arange(count), "right")
    ptr = np.empty(count + len(at) + 1, np.int64)
    ptr[0] = 0
    ptr[1:] = np.insert(dep_ptr[1:], at, dep_ptr[at + 1])
    return made, ptr, moved[dep_idx]
