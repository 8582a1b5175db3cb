"""What a job makes of failures: stretches of work between them, what of each is kept, and when all is done.

A stretch is work for ``interval``, a stand of ``stall`` for a checkpoint, and so on; it begins at a checkpoint that is
kept, and what is younger than the last one is lost at its end. Failures may come at any time, while a checkpoint is
written or the job is started again, too, as in Daly's formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmsim.reliability.events import Failures, Flags, Floats, Ints
from cmsim.reliability.outages import Speeds, waits_until

#: halvings that find a microsecond in any window
_HALVINGS = 63


@dataclass(frozen=True)
class Saving:
    """interval_us  work between checkpoints    stall_us  the job stands for one    lag_us  from then until it counts
    stored_every    of those in memory one in so many is also stored    in_memory  whether racks take the others along
    start_us        from a noticed failure to the next step, with reading the checkpoint
    """

    interval_us: int
    stall_us: int
    lag_us: int
    start_us: int
    in_memory: bool = False
    stored_every: int = 1

    @property
    def period_us(self) -> int:
        return self.interval_us + self.stall_us

    def worked(self, elapsed: Ints) -> Ints:
        """Work of the first so many microseconds of a stretch. [us]"""
        periods, rest = np.divmod(elapsed, self.period_us)
        return periods * self.interval_us + np.minimum(rest, self.interval_us)

    def kept(self, elapsed: Ints) -> Ints:
        """Checkpoints that count at the end of a stretch."""
        return np.maximum(elapsed - self.lag_us, 0) // self.period_us


@dataclass(frozen=True)
class Outcome:
    """Of every draw, in columns [us]: useful is kept work at the speed it had, slow what it lost by that.

    clock, useful, stood (for checkpoints), lost, down, slow: together the clock is the sum of the last five
    breaks    failures that stopped the job    down_of, lost_of   by cause, a row each, summed over draws
    breaks_of, failures_of   by cause    end   when the work that was asked for was done, -1 where it was not
    """

    clock: Ints
    useful: Floats
    stood: Ints
    lost: Floats
    down: Ints
    slow: Floats
    breaks: Ints
    failures_of: Ints
    breaks_of: Ints
    down_of: Floats
    lost_of: Floats
    end: Ints


@dataclass(frozen=True)
class _Stretches:
    """run, start and end on the axis; cause that ended each (-1: the end of the clock), and whether with what is in
    memory of hosts"""

    run: Ints
    start: Ints
    end: Ints
    cause: Ints
    wide: Flags


def live(
    events: Failures, speeds: Speeds, saving: Saving, *, wide: Flags, ends_us: Ints | None = None, work_us: float = 0.0
) -> Outcome:
    """Every draw of a job.

    wide      by cause: whether what is in memory of hosts is lost    ends_us  of the clock of each draw; default: all
    work_us   of the job, 0 for one without end
    """
    runs, causes = events.runs, len(wide)
    clocks = np.arange(runs) * events.span_us
    clock = np.full(runs, events.window_us) if ends_us is None else ends_us
    events = events.taken(events.start_us < clock[events.run])
    breaking = events.taken(events.breaks)
    there, down = _stretches(breaking, speeds, saving, clocks, clocks + clock, np.append(wide, False))
    lived = _Lived(there, speeds, saving, runs)
    lost, ended = lived.undone + lived.rolled, there.cause >= 0
    return Outcome(
        clock=clock,
        useful=lived.per_run(lived.useful - lived.rolled),
        stood=lived.per_run(lived.stood).astype(np.int64),
        lost=lived.per_run(lost),
        down=_sums(breaking.run, down, runs).astype(np.int64),
        slow=lived.per_run(lived.slow),
        breaks=np.bincount(breaking.run, minlength=runs),
        failures_of=np.bincount(events.cause, minlength=causes),
        breaks_of=np.bincount(breaking.cause, minlength=causes),
        down_of=_sums(breaking.cause, down, causes),
        lost_of=_sums(there.cause[ended], lost[ended], causes),
        end=lived.done(work_us, clocks) if work_us else np.full(runs, -1),
    )


def _stretches(
    breaking: Failures, speeds: Speeds, saving: Saving, clocks: Ints, ends: Ints, wide: Flags
) -> tuple[_Stretches, Ints]:
    """Stretches of work of all draws, the first of each from its beginning, one behind each failure; and how long the
    job is down after each failure. clocks, ends: of each draw on the axis. [us]"""
    run, cause = breaking.run, breaking.cause
    begin = clocks[run] + breaking.start_us
    # hosts may be back only after the job could start
    ready = np.maximum(clocks[run] + breaking.ready_us, waits_until(speeds, begin)) + saving.start_us
    ready = np.maximum.accumulate(np.minimum(ready, ends[run]))
    last = np.diff(run, append=-1) != 0
    until = np.where(last, ends[run], np.append(begin[1:], 0))
    by = np.where(last, -1, np.append(cause[1:], 0))
    ready = np.minimum(ready, until)
    head = np.diff(run, prepend=-1) != 0
    first, first_by = ends.copy(), np.full(len(clocks), -1)
    first[run[head]], first_by[run[head]] = begin[head], cause[head]
    start, end = np.concatenate([clocks, ready]), np.concatenate([first, until])
    all_run, all_by = np.concatenate([np.arange(len(clocks)), run]), np.concatenate([first_by, by])
    order = np.lexsort((end, start, all_run))
    by = all_by[order]
    return _Stretches(all_run[order], start[order], end[order], by, wide[by]), ready - begin


class _Lived:
    """Stretches, and what of each is kept."""

    def __init__(self, there: _Stretches, speeds: Speeds, saving: Saving, runs: int):
        self.there, self.saving, self.runs = there, saving, runs
        slow = (speeds.speed > 0) & (speeds.speed < 1)
        self._from, self._to, self._missing = speeds.start[slow], speeds.end[slow], 1 - speeds.speed[slow]
        length = there.end - there.start
        open_ = there.cause < 0
        # checkpoints that count, and the part of the stretch whose work is kept: all of one that nothing ends
        self.count = saving.kept(length)
        kept = np.where(open_, length, self.count * saving.period_us)
        worked = saving.worked(kept)
        self.slow = self._slow(there.start, kept)
        self.useful = worked - self.slow
        self.stood = kept - worked
        self.undone = length - kept
        self.rolled = self._rolled_back()

    def per_run(self, column: Floats | Ints) -> Floats:
        return _sums(self.there.run, column, self.runs)

    def _slow(self, start: Ints, length: Ints) -> Floats:
        """What slow steps lose in the first part of stretches: work times missing speed. [us]"""
        out = np.zeros(len(start))
        if not len(self._from):
            return out
        low = np.searchsorted(self._to, start, side="right")
        many = np.maximum(np.searchsorted(self._from, start + length, side="left") - low, 0)
        which = np.repeat(np.arange(len(start)), many)
        piece = np.arange(len(which)) - np.repeat(np.cumsum(many) - many, many) + np.repeat(low, many)
        begin = np.maximum(self._from[piece] - start[which], 0)
        stop = np.minimum(self._to[piece] - start[which], length[which])
        lost = (self.saving.worked(stop) - self.saving.worked(np.minimum(begin, stop))) * self._missing[piece]
        return _sums(which, lost, len(start))

    def _rolled_back(self) -> Floats:
        """Kept work that is undone at the end of a stretch: all since the last one in storage. [us]"""
        out = np.zeros(len(self.count))
        saving, there = self.saving, self.there
        if not (saving.in_memory and there.wide.any()):
            return out
        head = np.append(True, there.run[1:] != there.run[:-1])
        # a new count begins with each draw, and after each failure that leaves the stored one alone
        fresh = head | np.append(False, there.wide[:-1])
        counted = _since(self.count.astype(np.float64), fresh).astype(np.int64)
        spare = counted % saving.stored_every
        stores = (counted >= saving.stored_every) & (self.count > spare)
        whole = _since(self.useful, head)
        at_store = self.saving.period_us * (self.count - spare)
        worked = saving.worked(at_store)
        mark = np.where(stores, whole - self.useful + worked - self._slow(there.start, at_store), 0.0)
        # work only grows, so that the last mark of a draw is its largest
        run_base = (there.run * (whole.max() + 1.0)).astype(np.float64)
        stored = np.maximum.accumulate(mark + run_base) - run_base
        wides = np.where(there.wide, whole, 0.0)
        before = np.append(0.0, (np.maximum.accumulate(wides + run_base))[:-1]) - run_base
        before = np.where(head, 0.0, np.maximum(before, 0.0))
        return np.where(there.wide, whole - np.maximum(stored, before), 0.0)

    def done(self, work_us: float, clocks: Ints) -> Ints:
        """When each draw's work is done, on its own clock; -1 where it is not. [us]"""
        there = self.there
        head = np.append(True, there.run[1:] != there.run[:-1])
        net = self.useful - self.rolled
        before = _since(net, head) - net
        length = there.end - there.start
        # what is done last need not be saved
        most = self.saving.worked(length) - self._slow(there.start, length)
        first = np.full(self.runs, len(length))
        reaches = np.flatnonzero(before + most >= work_us)
        np.minimum.at(first, there.run[reaches], reaches)
        done = first < len(length)
        some = first[done]
        start, need = there.start[some], work_us - before[some]
        low, high = np.zeros(len(some), np.int64), length[some]
        for _ in range(_HALVINGS):
            middle = (low + high) // 2
            enough = self.saving.worked(middle) - self._slow(start, middle) >= need
            low, high = np.where(enough, low, np.minimum(middle + 1, high)), np.where(enough, middle, high)
        out = np.full(self.runs, -1)
        out[done] = start + high - clocks[done]
        return out


def _sums(where: Ints, column: Floats | Ints, many: int) -> Floats:
    """Sums of a column by number."""
    return np.bincount(where, column.astype(np.float64), minlength=many).astype(np.float64)


def _since(column: Floats, fresh: Flags) -> Floats:
    """Sums along a column, begun anew where it is fresh."""
    total = np.cumsum(column)
    starts = np.flatnonzero(fresh)
    before = total[starts] - column[starts]
    sums: Floats = total - np.repeat(before, np.diff(np.append(starts, len(column))))
    return sums
