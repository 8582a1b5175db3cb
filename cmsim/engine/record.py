"""What a run leaves behind: columns of ops and links, and where the time went.

Columns (name -> array of one length), in a fixed order, those of few different values packed; nothing here loops over
ops in Python. Of a timeline with a stretch that comes again, columns have it once and times are the kept ones; sums
count it as often as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim import compute
from cmsim.arrays import Coded, Columns, Floats, Ints, Packed, coded
from cmsim.engine.bound import without_work
from cmsim.engine.intervals import RATE_UNIT, intervals, stretches
from cmsim.engine.plan import Plan, peak_FLOPps
from cmsim.engine.timeline import Timeline
from cmsim.repeats import ONCE, Repeat
from cmsim.units import PS_PER_S, to_ps
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, KINDS, LATE, RECV, SEND

#: what a stretch of time can be put down to, in the order in which ties are settled
LIMITERS = ("compute", "memory", "link", "latency", "host", "bubble", "imbalance")
#: a kernel held back by its fixed cost is held back by latency
_LIMIT_OF_BOUND = {"overhead": "latency"}
#: as many different numbers of a column are looked for
_FEW = 8


def ops_columns(plan: Plan, timeline: Timeline, wanted: Collection[str] | None = None) -> Columns:
    """One row per op of each rank class, by class, then in program order.

    rank_class, multiplicity   the class and how many ranks are in it
    stream, op, kind, kernel, precision, algorithm, group   as text, "" where it does not apply; group: of the workload
                  (tp, dp, ...) or the communicator of a trace
    start_ps, end_ps   a communication op starts when its rank arrives [ps]
    wait_ps       part of it before anything moved: others of the group had not come, or, of a receive, what it
                  took beyond the transfer alone [ps]
    flops         of one rank [FLOP]
    peak_FLOPps   of the engine it ran on, one rank; 0 without one [FLOP/s]
    cores         share of the cores that the op may use [1]
    weights       format of the weights of a grouped product, "" of all others
    bytes_B       compute: memory traffic of one rank; communication: size as nccl-tests counts it [B]
    sent_B, received_B   what one rank put on, and took off, its port and NIC, payload [B]
    limit         what binds the op: compute, memory, latency (fixed costs), host or link
    clock         where one is set and the column is wanted by name, for runs of one folder have the same columns: share
                  of the clock it would have that is left to the op [1]

    wanted: names of columns to make; default: all others
    """
    ops = plan.programs.ops
    row, rank_class = _rows(plan)
    call = _all(plan.call)
    start, end = _all(timeline.start_ps), _all(timeline.end_ps)
    kind = ops.kind[row]
    sent_B = np.array([call.sent_B for call in plan.calls] + [0.0])
    weights = [dict(shape.formats).get("weights", "") for shape in ops.shapes]

    def of_row(number: Ints, names: Sequence[str]) -> Coded:
        return coded(number[row], _text(names))

    makers: dict[str, Callable[[], NDArray[Any] | Coded]] = {
        "rank_class": lambda: coded(rank_class, np.arange(plan.classes)),
        "multiplicity": lambda: coded(rank_class, plan.folding.count.astype(np.int64)),
        "stream": lambda: of_row(ops.stream, ops.streams),
        "op": lambda: of_row(ops.name_id, ops.names),
        "kind": lambda: coded(kind, _text(KINDS)),
        "start_ps": lambda: start,
        "end_ps": lambda: end,
        "wait_ps": lambda: _wait_ps(plan, kind, call, start, end, _all(timeline.wait_ps)),
        "flops": lambda: ops.flops[row],
        "peak_FLOPps": lambda: _few(peak_FLOPps(plan.programs.ops, plan.system)[row]),
        "bytes_B": lambda: ops.bytes_B[row],
        "algorithm": lambda: coded(call, _text([call.algorithm for call in plan.calls])),
        "precision": lambda: of_row(ops.precision, ops.precisions),
        "weights": lambda: of_row(ops.shape, weights),
        "cores": lambda: _few(ops.cores[row]),
        "kernel": lambda: of_row(ops.kernel, ops.kernels),
        "group": lambda: of_row(ops.slot, plan.programs.slots),
        "limit": lambda: coded(_limit(plan, row, call), _text(LIMITERS)),
        "sent_B": lambda: coded(np.where(kind == RECV, -1, call), sent_B),
        "received_B": lambda: coded(np.where(kind == SEND, -1, call), sent_B),
    }
    if plan.clock.size and wanted is not None:
        makers["clock"] = lambda: _few(plan.clock[row])
    return Packed({name: make() for name, make in makers.items() if wanted is None or name in wanted})


def links_columns(plan: Plan, timeline: Timeline) -> Columns:
    """One row per resource class and stretch of constant rate above zero, by resource, then in time; on single links
    (``network: flow``) one for all equal stretches that follow each other at one distance.

    resource      kind, direction and class of the rank, node or leaf it belongs to: ``port.out[3]``
    instances     how many equal ones there are
    start_ps, end_ps   stretches of one resource do not overlap [ps]
    bytes_B       over one instance, protocol overhead included, of all stretches of the row [B]
    utilization   rate on one instance over its capacity while bytes move; above 1 only on a network that does not
                  share [1]
    rank_class    the class it belongs to; of a node or leaf, the first one there
    port_share    use of one rank's port, mean of both directions, that full utilization means; 0 if no port [1]
    times, each_ps   on single links: how many stretches, and how long each is; the first begins at ``start_ps``, the
                  last ends at ``end_ps``, and they are equally far apart [1], [ps]
    """
    by_link = plan.network == "flow"
    found = intervals(timeline.segments) if by_link else stretches(timeline.segments)
    resource, rate = found.resource, found.units * RATE_UNIT
    out: dict[str, NDArray[Any] | Coded] = {
        "resource": coded(resource, _text(plan.resources.name)),
        "instances": coded(resource, np.array([*plan.resources.instances, 0], np.int64)),
        "start_ps": found.start_ps,
        "end_ps": found.end_ps,
        "bytes_B": rate * (found.times * found.each_ps) / PS_PER_S,
        "utilization": rate / np.array([*plan.resources.capacity_Bps, np.inf])[resource],
        "rank_class": coded(resource, np.array([*plan.resources.rank_class, 0], np.int64)),
        "port_share": coded(resource, np.array([*plan.resources.port_share, 0.0])),
    }
    return Packed({**out, "times": found.times, "each_ps": found.each_ps} if by_link else out)


@dataclass(frozen=True)
class Breakdown:
    """Where the makespan of one rank class went.

    rank_class      the class with the most busy time
    parts_s         seconds by limiter (``compute_s``, ...), which add up to the makespan
    limiter         the largest part
    exposed_comm_s  time when communication was in flight and no kernel ran, mean over all ranks [s]
    """

    rank_class: int
    parts_s: dict[str, float]
    limiter: str
    exposed_comm_s: float


def breakdown(plan: Plan, timeline: Timeline) -> Breakdown:
    """Put every instant of the busiest rank class down to one limiter.

    While kernels run, to what binds them (in equal parts where several run). Else, while communication is in
    flight, to link, latency (the fixed part of a call) or imbalance (waiting for others of the group), in that
    order. Else to host work, and what is left is bubble; so is a receive that waits for its sender.
    Busy time is time when a kernel runs or data moves; of equally busy classes the lowest number is taken.
    """
    repeat = timeline.repeat
    exposed = np.zeros(plan.classes)
    busy = np.zeros(plan.classes, np.int64)
    for rank_class in range(plan.classes):
        kernels, waits, moves = _stretches(plan, timeline, rank_class)
        alone = _union_ps(kernels, repeat)
        exposed[rank_class] = _union_ps([*kernels, *waits, *moves], repeat) - alone
        busy[rank_class] = _union_ps([*kernels, *moves], repeat)
    worst = int(np.argmax(busy)) if len(busy) else 0

    _, length_ps, count = _sweep(_lanes(plan, timeline, worst), _HOST + 1, timeline.kept_ps, repeat)
    (parts_s,) = _parts_s(length_ps, count, [(0, len(length_ps))])
    ranks = max(int(plan.folding.count.sum()), 1)
    return Breakdown(worst, parts_s, _limiter(parts_s), float(exposed @ plan.folding.count) / ranks / PS_PER_S)


def breakdowns(plan: Plan, timeline: Timeline, begin_ps: Ints, end_ps: Ints) -> list[Breakdown]:
    """Of several runs that one class of ranks makes one after the other, what `breakdown` says of each."""
    kernels, waits, moves = _stretches(plan, timeline, 0)
    alone = _covered_ps(kernels, begin_ps)
    exposed = (_covered_ps([*kernels, *waits, *moves], begin_ps) - alone).tolist()
    edges, length_ps, count = _sweep(_lanes(plan, timeline, 0), _HOST + 1, timeline.kept_ps, ONCE)
    bounds = zip(np.searchsorted(edges, begin_ps).tolist(), np.searchsorted(edges, end_ps).tolist(), strict=True)
    ranks, each = max(int(plan.folding.count.sum()), 1), float(plan.folding.count[0])
    return [
        Breakdown(0, parts_s, _limiter(parts_s), exposed_ps * each / ranks / PS_PER_S)
        for parts_s, exposed_ps in zip(_parts_s(length_ps, count, list(bounds)), exposed, strict=True)
    ]


#: lanes after those of the kernels, by falling precedence
_LINK, _LATENCY, _IMBALANCE, _HOST = range(len(LIMITERS), len(LIMITERS) + 4)


def _lanes(plan: Plan, timeline: Timeline, rank_class: int) -> list[tuple[Ints, Ints, Ints | int]]:
    """Stretches of a class with the lanes that they are on."""
    ops, rows = plan.programs.ops, plan.rows_of(rank_class)
    start, end, kind = timeline.start_ps[rank_class], timeline.end_ps[rank_class], ops.kind[rows]
    call, latency_ps = plan.call[rank_class], to_ps([call.latency_s for call in plan.calls] + [0.0])
    limit = _limit(plan, np.arange(rows.start, rows.stop), call)
    (waits, moves) = _stretches(plan, timeline, rank_class)[1:]
    lead = [np.minimum(start_ps + latency_ps[call[kind >= COLLECTIVE]], end_ps) for start_ps, end_ps in moves]
    kernel = kind == COMPUTE
    stretches: list[tuple[Ints, Ints, Ints | int]] = [(start[kernel], end[kernel], limit[kernel])]
    stretches += [(at, end_ps, _LINK) for at, (_, end_ps) in zip(lead, moves, strict=True)]
    stretches += [(start_ps, at, _LATENCY) for at, (start_ps, _) in zip(lead, moves, strict=True)]
    stretches += [(start_ps, end_ps, _IMBALANCE) for start_ps, end_ps in waits]
    late = (kind == HOST) & (ops.name_id[rows] == (ops.names.index(LATE) if LATE in ops.names else -1))
    for told, lane in ((late, _IMBALANCE), ((kind == HOST) & ~late, _HOST)):
        stretches.append((start[told], end[told], lane))
    if timeline.host_ps:
        stretches.append((start - timeline.host_ps[rank_class], start, _HOST))
    return stretches


def _parts_s(length_ps: Ints, count: Ints, bounds: Sequence[tuple[int, int]]) -> list[dict[str, float]]:
    """Seconds by limiter, of pieces of time and how many run per lane in each; ``bounds``: the pieces of each run."""
    running = count[:, : len(LIMITERS)].sum(axis=1)
    parts_ps: list[list[float]] = [[] for _ in bounds]
    for lane in range(len(LIMITERS)):
        shared = length_ps * count[:, lane] / np.maximum(running, 1)
        for own, (first, last) in zip(parts_ps, bounds, strict=True):
            own.append(float(np.sum(shared[first:last])))
    left = running == 0
    for lane, name in ((_LINK, "link"), (_LATENCY, "latency"), (_IMBALANCE, "imbalance"), (_HOST, "host")):
        here = left & (count[:, lane] > 0)
        _put_down(parts_ps, name, length_ps, here, bounds)
        left &= ~here
    _put_down(parts_ps, "bubble", length_ps, left, bounds)
    return [{f"{name}_s": own[i] / PS_PER_S for i, name in enumerate(LIMITERS)} for own in parts_ps]


def _put_down(
    parts_ps: list[list[float]],
    name: str,
    length_ps: Ints,
    here: NDArray[np.bool_],
    bounds: Sequence[tuple[int, int]],
) -> None:
    """Put pieces of time down to a limiter, in place."""
    until = np.append(0, np.cumsum(np.where(here, length_ps, 0)))
    for own, (first, last) in zip(parts_ps, bounds, strict=True):
        own[LIMITERS.index(name)] += int(until[last] - until[first])


def _limiter(parts_s: dict[str, float]) -> str:
    """The largest part, the first of equals."""
    return max(LIMITERS, key=lambda name: parts_s[f"{name}_s"])


def _rows(plan: Plan) -> tuple[Ints, Ints]:
    """Row in the op table, and rank class, of every row of the columns."""
    slices = [plan.rows_of(rank_class) for rank_class in range(plan.classes)]
    row = _all([np.arange(rows.start, rows.stop) for rows in slices])
    return row, np.repeat(np.arange(plan.classes), [rows.stop - rows.start for rows in slices])


def _all(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _text(names: Any) -> NDArray[Any]:
    """Names to be looked up by number; the number -1 is no name."""
    return np.array([*names, ""], dtype=object)


def _few(values: Floats) -> Floats | Coded:
    """Values as numbers into a table where they are few, else as they are."""
    number = np.full(len(values), -1, np.int8)
    table: list[float] = []
    while len(table) < _FEW and (number < 0).any():
        table.append(float(values[int(np.argmax(number < 0))]))
        number[values == table[-1]] = len(table) - 1
    return values if (number < 0).any() else (number, np.array(table))


def _limit(plan: Plan, row: Ints, call: Ints) -> Ints:
    """What binds each row, as a position in ``LIMITERS``."""
    names = [LIMITERS.index(_LIMIT_OF_BOUND.get(name, name)) for name in compute.BOUNDS]
    kernel = np.array([*names, LIMITERS.index("latency")])[plan.bound[row]]
    kernel = np.where(without_work(plan)[row], LIMITERS.index("compute"), kernel)
    fixed = np.array([2 * call.latency_s >= call.ideal_s for call in plan.calls] + [False])
    comm = np.where(fixed[call], LIMITERS.index("latency"), LIMITERS.index("link"))
    return np.where(call >= 0, comm, kernel)


def _wait_ps(plan: Plan, kind: Ints, call: Ints, start: Ints, end: Ints, wait: Ints) -> Ints:
    ideal = to_ps([call.ideal_s for call in plan.calls] + [0.0])[call]
    return np.where(kind == RECV, np.maximum(end - start - ideal, 0), wait)


_Stretch = tuple[Ints, Ints]


def _stretches(
    plan: Plan, timeline: Timeline, rank_class: int
) -> tuple[list[_Stretch], list[_Stretch], list[_Stretch]]:
    """(start, end) columns of a class: of kernels, of waiting in collectives, of moving (all communication ops)."""
    kind = plan.programs.ops.kind[plan.rows_of(rank_class)]
    start, end = timeline.start_ps[rank_class], timeline.end_ps[rank_class]
    comm, kernel = kind >= COLLECTIVE, kind == COMPUTE
    begin = start[comm]
    wait = _wait_ps(plan, kind[comm], plan.call[rank_class][comm], begin, end[comm], timeline.wait_ps[rank_class][comm])
    # a receive that waits for its sender is not communication in flight
    group = kind[comm] == COLLECTIVE
    waits = [(begin[group], (begin + wait)[group])]
    return [(start[kernel], end[kernel])], waits, [(begin + wait, end[comm])]


def _union_ps(stretches: list[_Stretch], repeat: Repeat) -> int:
    """Length of time covered by any of the stretches. [ps]"""
    start, end = _union(stretches)
    covered = int(np.maximum(end - start, 0).sum())
    if not repeat.times:
        return covered
    start, end = repeat.within(start, end)
    return covered + repeat.times * int(np.maximum(end - start, 0).sum())


def _covered_ps(stretches: list[_Stretch], begin_ps: Ints) -> Ints:
    """The same of each of several runs that follow each other. [ps]"""
    start, end = _union(stretches)
    until = np.append(0, np.cumsum(np.maximum(end - start, 0)))
    out: Ints = np.diff(until[np.append(np.searchsorted(start, begin_ps), len(start))])
    return out


def _union(stretches: list[_Stretch]) -> tuple[Ints, Ints]:
    """Stretches by their start, without what those before them cover."""
    start = np.concatenate([start for start, _ in stretches])
    end = np.concatenate([end for _, end in stretches])
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    if len(start):
        start = np.maximum(start, np.concatenate([start[:1], np.maximum.accumulate(end)[:-1]]))
    return start, end


def _sweep(
    stretches: list[tuple[Ints, Ints, Ints | int]], lanes: int, until_ps: int, repeat: Repeat
) -> tuple[Ints, Ints, Ints]:
    """Cut 0..until where anything starts or ends [ps]: there, length of each piece, as often as it comes [ps], and how
    many run per lane in it."""
    start = np.concatenate([start for start, _, _ in stretches])
    end = np.concatenate([end for _, end, _ in stretches])
    lane = np.concatenate([np.broadcast_to(lane, start.shape) for start, _, lane in stretches])
    ends = [0, until_ps, *((repeat.from_ps, repeat.until_ps) if repeat.times else ())]
    edges, position = np.unique(np.concatenate([start, end, ends]), return_inverse=True)
    count = np.zeros((len(edges), lanes), np.int64)
    np.add.at(count.reshape(-1), position[: len(start)] * lanes + lane, 1)
    np.add.at(count.reshape(-1), position[len(start) : 2 * len(start)] * lanes + lane, -1)
    begin, finish = repeat.within(edges[:-1], edges[1:])
    return edges, np.diff(edges) + repeat.times * (finish - begin), np.cumsum(count, axis=0)[:-1]


__all__ = ["LIMITERS", "Breakdown", "Columns", "breakdown", "breakdowns", "links_columns", "ops_columns"]
