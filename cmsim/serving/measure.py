"""What a run of a service says: times of its requests, throughput, energy, and load over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import FailedError
from cmsim.kinds.serving import PERCENTILES, SloSpec
from cmsim.serving.book import CANCELLED, DONE, LOST, NEVER, OUTCOMES, REFUSED, TIMED_OUT, Book
from cmsim.serving.costs import SLOWED, StepRow
from cmsim.serving.replica import Replica
from cmsim.serving.service import Served
from cmsim.units import PS_PER_S

#: batches of time of which a confidence interval is made, requests that each must have, and Student's t of 19 at 95 %
_BATCHES, _LEAST, _T = 20, 5, 2.093
#: stretches of the frame of load
_STRETCHES = 200
#: steps that are looked at at once; times between tokens are told apart to one part in so many
_AT_ONCE, _FINE = 1 << 20, 2000
#: by how much of what comes a queue may grow, and be said to keep up; and by how many standard errors it must
_KEEPS_UP, _SURE = 0.02, 3.0


@dataclass(frozen=True)
class Times:
    """Of requests that are done, in order of arrival: not a number where there is none (of one token no tpot). [s]"""

    arrival: Floats
    ttft: Floats
    tpot: Floats
    e2e: Floats

    @classmethod
    def of(cls, book: Book, warm_up: float = 0.0) -> Times:
        """warm_up: share of requests, the first ones, that are left out"""
        rows = np.flatnonzero(book.column("outcome") == DONE)
        rows = rows[rows >= int(len(book) * warm_up)]
        arrival, first, end = (book.column(name)[rows] for name in ("arrival", "prefilled", "end"))
        more = book.column("output")[rows] - 1
        tpot = np.full(len(rows), np.nan)
        np.divide(end - first, more * float(PS_PER_S), out=tpot, where=more > 0)
        return cls(arrival / PS_PER_S, (first - arrival) / PS_PER_S, tpot, (end - arrival) / PS_PER_S)

    def within(self, slo: SloSpec) -> NDArray[np.bool_]:
        """Whether each has both times that are promised; an answer of one token has no second."""
        return (self.ttft <= slo.ttft_s) & ((self.tpot <= slo.tpot_s) | np.isnan(self.tpot))


def attainment(book: Book, slo: SloSpec, warm_up: float = 0.0) -> float:
    """Share of requests with what is promised; those that are not done have it not."""
    counted = len(book) - int(len(book) * warm_up)
    return float(Times.of(book, warm_up).within(slo).sum()) / max(counted, 1)


def percentiles(name: str, values: Floats) -> dict[str, float]:
    """Percentiles and mean, with the ends of their 95 % interval over batches of requests in order of arrival."""
    values = values[~np.isnan(values)]
    if not len(values):
        return {}
    heads = [f"{name}_s_p{q}" for q in PERCENTILES] + [f"{name}_mean_s"]
    whole = _of(values)
    out = dict(zip(heads, whole.tolist(), strict=True))
    if len(values) >= _BATCHES * _LEAST:
        each = np.array([_of(part) for part in np.array_split(values, _BATCHES)])
        half = _T * each.std(axis=0, ddof=1) / np.sqrt(_BATCHES)
        for head, middle, wide in zip(heads, whole.tolist(), half.tolist(), strict=True):
            out |= {f"{head}_low": max(middle - wide, 0.0), f"{head}_high": middle + wide}
    return out


def _of(values: Floats) -> Floats:
    return np.append(np.quantile(values, np.array(PERCENTILES) / 100), values.mean())


def itl(replicas: Sequence[Replica]) -> dict[str, float]:
    """Percentiles and mean of the times between two tokens."""
    counts: Floats = np.zeros(0)
    total = weight = 0.0
    for times, many in _gaps(replicas):
        if not len(times):
            continue
        at = (np.log(times) * _FINE).astype(np.int64)
        more = np.bincount(at, weights=many).astype(float)
        if len(more) > len(counts):
            counts, more = more, counts
        counts[: len(more)] += more
        total += float(times @ many)
        weight += float(many.sum())
    if not weight:
        return {}
    below = np.searchsorted(np.cumsum(counts), np.array(PERCENTILES) / 100 * weight)
    told = np.exp((below + 0.5) / _FINE) / PS_PER_S
    return {
        **{f"itl_s_p{q}": float(x) for q, x in zip(PERCENTILES, told, strict=True)},
        "itl_mean_s": total / weight / PS_PER_S,
    }


def _gaps(replicas: Sequence[Replica]) -> Iterator[tuple[Floats, Floats]]:
    """(times [ps], how many tokens came after each), some at a time."""
    for replica in replicas:
        for row, jumps in by_row(replica):
            sums = np.frombuffer(row.sums, np.int64)
            ends = np.cumsum(jumps[:, 2])
            for part in np.split(jumps, np.searchsorted(ends, np.arange(_AT_ONCE, int(ends[-1]), _AT_ONCE))):
                if len(part):
                    steps = part[:, 2]
                    within = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
                    at = np.repeat(part[:, 1], steps) + within
                    yield (sums[at + 1] - sums[at]).astype(float), np.repeat(part[:, 3], steps).astype(float)
        mixed = rows(replica.record.mixed, 3)
        mixed = mixed[mixed[:, 1] > 0]
        if len(mixed):
            yield mixed[:, 0].astype(float), mixed[:, 1].astype(float)
        for apart in (replica.record.gaps, replica.record.joins):
            gaps = np.maximum(rows(apart, 1)[:, 0], 1).astype(float)
            yield gaps, np.ones(len(gaps))


def rows(flat: Sequence[int], width: int) -> Ints:
    """A flat column as rows of so many numbers."""
    return np.frombuffer(flat, np.int64).reshape(-1, width) if len(flat) else np.zeros((0, width), np.int64)  # type: ignore[call-overload]


def by_row(replica: Replica) -> Iterator[tuple[StepRow, Ints]]:
    """Jumps of a replica by the row that their steps are of: sequences that set the pace, and those in the mean."""
    jumps = rows(replica.record.jumps, 6)
    jumps = jumps[np.lexsort((jumps[:, 5], jumps[:, 0]))]
    for part in np.split(jumps, np.flatnonzero(np.diff(jumps[:, [0, 5]], axis=0).any(axis=1)) + 1):
        if len(part):
            yield replica.costs.row(int(part[0, 0]), int(part[0, 5])), part


def typical(replicas: Sequence[Replica]) -> tuple[int, int]:
    """Sequences and cached tokens of the decode steps that most tokens came of; none where nothing was decoded."""
    best, found = 0, (0, 0)
    for replica in replicas:
        for _, jumps in by_row(replica):
            weights = jumps[:, 2] * jumps[:, 3]
            if int(weights.sum()) > best:
                best = int(weights.sum())
                found = int(jumps[0, 0]) % SLOWED, int((weights * (jumps[:, 1] + jumps[:, 2] // 2)).sum()) // best
    return found


def check(served: Served) -> None:
    """Every request ended once, Little's law holds to the picosecond, and no block is held any more.

    Raises FailedError where not.
    """
    book = served.book
    outcome, arrival, end = (book.column(name) for name in ("outcome", "arrival", "end"))
    if (outcome == 0).any():
        raise FailedError(f"{int((outcome == 0).sum())} requests never ended")
    stayed = sum((end - arrival).tolist())
    if stayed != served.area_ps:
        raise FailedError(f"Little's law: requests stayed {stayed} ps, counted were {served.area_ps} ps")
    for replica in (one for pool in served.pools for one in pool):
        for holder in replica.holders:
            if holder.begun or holder.swapped or holder.blocks.used(replica.steps_done):
                raise FailedError(f"holder {holder.number} still has {holder.blocks.used(replica.steps_done)} blocks")


def counts(book: Book) -> dict[str, int]:
    """Requests by what became of them, and tokens of those that are done."""
    outcome = book.column("outcome")
    done = outcome == DONE
    return {
        "done": int(done.sum()),
        "timed_out": int((outcome == TIMED_OUT).sum()),
        "refused": int((outcome == REFUSED).sum()),
        "cancelled": int((outcome == CANCELLED).sum()),
        "lost": int((outcome == LOST).sum()),
        "prompt": int(book.column("prompt")[done].sum()),
        "output": int(book.column("output")[done].sum()),
    }


@dataclass(frozen=True)
class Full:
    """What throughput and energy are told of: all of a run, or the time between the first request that counts and the
    last one that comes.

    start_s, stop_s  of that time [s]    done  requests that end in it    prompt, output  tokens that are made in it
    """

    start_s: float
    stop_s: float
    done: float
    prompt: float
    output: float

    @property
    def took_s(self) -> float:
        return self.stop_s - self.start_s

    @classmethod
    def of(cls, book: Book, end_s: float, warm_up: float = 0.0) -> Full:
        """warm_up: share of requests, the first ones, that do not count; 0: all of the run does"""
        arrival = np.sort(book.column("arrival"))
        start_s, stop_s = (float(arrival[at]) / PS_PER_S for at in (int(len(book) * warm_up), -1))
        if not warm_up or stop_s <= start_s:
            all_ = counts(book)
            return cls(0.0, end_s, all_["done"], all_["prompt"], all_["output"])
        first, end = (book.column(name) / PS_PER_S for name in ("prefilled", "end"))
        done = book.column("outcome") == DONE
        first, end = first[done], end[done]
        made, prompt = (book.column(name)[done] for name in ("output", "prompt"))
        # the tokens of an answer come evenly; one of a single token comes with its prompt
        within = np.minimum(end, stop_s) - np.maximum(first, start_s)
        share = np.divide(np.maximum(within, 0.0), end - first, out=np.zeros(len(end)), where=end > first)
        begun, ended = ((at > start_s) & (at <= stop_s) for at in (first, end))
        output = float(begun.sum() + ((made - 1) * share).sum())
        return cls(start_s, stop_s, float(ended.sum()), float(prompt[begun].sum()), output)


def frame(book: Book) -> dict[str, Ints | Floats]:
    """One row per request; a stage that it did not reach is 0."""
    arrival, end = book.column("arrival"), book.column("end")
    begun, first, moved = (_or(book.column(name), end) for name in ("scheduled", "prefilled", "moved"))
    moved = np.where(book.column("moved") == NEVER, first, moved)
    order = np.argsort(arrival, kind="stable")
    stages = {
        "arrival_s": arrival,
        "waited_s": begun - arrival,
        "prefill_s": first - begun,
        "moved_s": moved - first,
        "decode_s": end - moved,
        "e2e_s": end - arrival,
    }
    out = {
        "request": np.arange(len(book)),
        "outcome": np.array(OUTCOMES, object)[book.column("outcome")],
        "holder": np.maximum(book.column("holder"), 0),
        "prompt_tokens": book.column("prompt"),
        "output_tokens": book.column("output"),
        "priority": book.column("priority"),
        "generated_tokens": book.column("generated"),
        "cached_tokens": book.column("cached"),
        "fetched_tokens": book.column("fetched"),
        "preemptions": book.column("again"),
        "tries": book.column("tries"),
        **{name: one / PS_PER_S for name, one in stages.items()},
    }
    return {name: one[order] for name, one in out.items()}


def _or(times: Ints, end: Ints) -> Ints:
    return np.where(times == NEVER, end, times)


@dataclass(frozen=True)
class Load:
    """Over stretches of a run, of one length each: columns as of the frame ``load``."""

    columns: dict[str, Floats | Ints]

    @property
    def edges_s(self) -> Floats:
        """Where stretches begin, and the last one ends. [s]"""
        return np.append(self.columns["start_s"], self.columns["end_s"][-1])

    @classmethod
    def of(cls, book: Book, end_ps: int, twice: Ints | None = None) -> Load:
        """twice: rows of a time and by how many tokens more their sequences have than caches hold, from then on [ps]"""
        edges = np.linspace(0.0, end_ps / PS_PER_S, _STRETCHES + 1)
        arrival, end = (book.column(name) / PS_PER_S for name in ("arrival", "end"))
        begun, first = (book.column(name) / PS_PER_S for name in ("scheduled", "prefilled"))
        begun = np.where(book.column("scheduled") == NEVER, end, begun)
        first = np.where(book.column("prefilled") == NEVER, end, first)
        prompt, made = (book.column(name).astype(float) for name in ("prompt", "generated"))
        one = np.ones(len(book))
        come, starts, leaves = (ramp(edges, at, one) for at in (arrival, begun, end))
        growing = np.divide(made, end - first, out=np.zeros(len(book)), where=end > first)
        tokens = ramp(edges, begun, prompt) - ramp(edges, end, prompt + made)
        tokens += _bend(edges, first, growing) - _bend(edges, end, growing)
        if twice is not None and len(twice):
            tokens -= ramp(edges, twice[:, 0] / PS_PER_S, twice[:, 1].astype(float))
        wide = np.diff(edges)
        wide[wide == 0] = 1.0
        return cls(
            {
                "start_s": edges[:-1],
                "end_s": edges[1:],
                "arrived": _within(edges, arrival),
                "served": _within(edges, end[book.column("outcome") == DONE]),
                "waiting": np.maximum(np.diff(come - starts) / wide, 0.0),
                "running": np.maximum(np.diff(starts - leaves) / wide, 0.0),
                "cached_tokens": np.maximum(np.diff(tokens) / wide, 0.0),
            }
        )


def _within(edges: Floats, times: Floats) -> Ints:
    """How many times lie in each stretch, the very first instant in the first one."""
    count = np.searchsorted(np.sort(times), edges, side="right")
    count[0] = 0
    return np.diff(count)


def ramp(at: Floats, since: Floats, height: Floats) -> Floats:
    """Sum of ``height`` (t - since) over those that are over, at each t."""
    order = np.argsort(since, kind="stable")
    since, height = since[order], height[order]
    k = np.searchsorted(since, at, side="right")
    sums = [np.concatenate([[0.0], np.cumsum(one)])[k] for one in (height, height * since)]
    out: Floats = at * sums[0] - sums[1]
    return out


def _bend(at: Floats, since: Floats, slope: Floats) -> Floats:
    """Sum of ``slope`` (t - since)^2 / 2 over those that are over, at each t."""
    order = np.argsort(since, kind="stable")
    since, slope = since[order], slope[order]
    k = np.searchsorted(since, at, side="right")
    sums = [np.concatenate([[0.0], np.cumsum(one)])[k] for one in (slope, slope * since, slope * since**2)]
    out: Floats = (at**2 * sums[0] - 2 * at * sums[1] + sums[2]) / 2
    return out


def growth(book: Book) -> tuple[float, bool]:
    """By how much more come than are begun, over the second half of the arrivals, and whether that is more than chance
    and than what keeps up. Who is begun does not count: a service fills up at first. [1/s]"""
    arrival, begun = np.sort(book.column("arrival")), np.sort(_or(book.column("scheduled"), book.column("end")))
    if len(arrival) < 2 * _BATCHES or arrival[-1] <= arrival[len(arrival) // 2]:
        return 0.0, False
    at = np.linspace(arrival[len(arrival) // 2], arrival[-1], _BATCHES)
    waiting = np.searchsorted(arrival, at, side="right") - np.searchsorted(begun, at, side="right")
    x = (at - at.mean()) / PS_PER_S
    slope = float(x @ waiting / (x @ x))
    rest = waiting - waiting.mean() - slope * x
    error = float(np.sqrt(rest @ rest / (_BATCHES - 2) / (x @ x)))
    rate = len(arrival) / ((arrival[-1] - arrival[0]) / PS_PER_S)
    grows = slope > max(_KEEPS_UP * rate, _SURE * error) and waiting[-5:].mean() > _BATCHES
    return max(slope, 0.0), bool(grows)
