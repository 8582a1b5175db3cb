"""Order of a trace's nodes on in-order queues, and the few dependencies the queues do not imply."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from cmsim.workload.ops import Ints
from cmsim.workload.bytes_in import bad
from cmsim.workload.trace.chakra import COMM_SEND, ChakraFile

#: length given to communication of unknown length when ops are put in order; it decides ties only [us], assumed
_UNKNOWN_US = 1.0


def launch_order(file: ChakraFile) -> list[int] | None:
    """Rows as the host came to them: host ops by id, each kernel right after the op that launched it.

    The launching op is the last one of the host that a kernel depends on. None where the file is not a profiler's,
    has no host ops or no kernels, or where a dependency goes against this order.

    Source: the profiler numbers host ops as they start, on all threads together.
    """
    host = file.is_cpu == 1
    if not file.profiled or host.all() or not host.any():
        return None
    tie = np.empty(len(file), np.int64)
    tie[np.argsort(file.id, kind="stable")] = np.arange(len(file))
    row = np.repeat(np.arange(len(file)), np.diff(file.dep_ptr))
    launch = np.full(len(file), -1, np.int64)
    launches = ~host[row] & host[file.dep_idx]
    np.maximum.at(launch, row[launches], tie[file.dep_idx[launches]])
    launch = np.where(launch < 0, tie, launch)
    order = np.lexsort((tie, ~host, launch))
    position = np.empty(len(file), np.int64)
    position[order] = np.arange(len(file))
    return None if (position[file.dep_idx] >= position[row]).any() else [int(r) for r in order]


def launched_before(
    order: Sequence[int], kernel: Sequence[bool], issued: Collection[int], streams: Sequence[str]
) -> dict[int, tuple[int, ...]]:
    """For each row in ``issued``, the last kernel of each stream before it in ``order``."""
    last: dict[str, int] = {}
    out: dict[int, tuple[int, ...]] = {}
    for row in order:
        if kernel[row]:
            last[streams[row]] = row
        elif row in issued:
            out[row] = tuple(last.values())
    return out


def in_order(file: ChakraFile, keys: Mapping[int, Hashable]) -> list[int]:
    """Rows so that dependencies come first; among the free ones the earliest ready, then the lowest id.

    keys  communicator or channel of the rows that communicate

    All ranks must issue the ops of a communicator in one order, though each recorded other durations: there the
    number of steps before an op decides, then its id.
    """
    tie = np.empty(len(file), np.int64)
    tie[np.argsort(file.id, kind="stable")] = np.arange(len(file))
    ties = tie.tolist()
    row = np.repeat(np.arange(len(file)), np.diff(file.dep_ptr))
    steps, depth = _sorted(row, file.dep_idx, [1.0] * len(file), ties)
    if len(steps) < len(file):
        raise bad(file.path, f"node {file.id[_on_cycle(file, steps)]} depends on itself through other nodes")
    last: dict[Hashable, int] = {}
    chain: list[tuple[int, int]] = []
    for here in sorted(keys, key=lambda r: (depth[r], ties[r])):
        if keys[here] in last:
            chain.append((here, last[keys[here]]))
        last[keys[here]] = here
    more = np.array(chain, np.int64).reshape(-1, 2)
    length = np.where((file.duration_us == 0) & (file.type >= COMM_SEND), _UNKNOWN_US, file.duration_us)
    row, dep = np.concatenate([row, more[:, 0]]), np.concatenate([file.dep_idx, more[:, 1]])
    order, _ = _sorted(row, dep, length.tolist(), ties)
    assert len(order) == len(file)  # a chain never goes to fewer steps, so it closes no cycle
    return order


def _sorted(row: Ints, dep: Ints, length: Sequence[float], ties: Sequence[int]) -> tuple[list[int], list[float]]:
    """Rows in order of (ready, tie) and when each is ready if nothing but dependencies holds it up."""
    n = len(length)
    waiting = np.bincount(row, minlength=n).tolist()
    by_dep = np.argsort(dep, kind="stable")
    following = row[by_dep].tolist()
    ptr = np.searchsorted(dep[by_dep], np.arange(n + 1)).tolist()
    ready = [0.0] * n
    heap = [(0.0, ties[i], i) for i in range(n) if not waiting[i]]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        start, _, here = heapq.heappop(heap)
        order.append(here)
        end = start + length[here]
        for nxt in following[ptr[here] : ptr[here + 1]]:
            waiting[nxt] -= 1
            if end > ready[nxt]:
                ready[nxt] = end
            if not waiting[nxt]:
                heapq.heappush(heap, (ready[nxt], ties[nxt], nxt))
    return order, ready


def _on_cycle(file: ChakraFile, done: Sequence[int]) -> int:
    """A row on a cycle: walk back from a row that never got ready until one comes twice."""
    stuck = set(range(len(file))) - set(done)
    here, seen = min(stuck), set()
    while here not in seen:
        seen.add(here)
        here = next(d for d in file.dep_idx[file.dep_ptr[here] : file.dep_ptr[here + 1]].tolist() if d in stuck)
    return here


def needed_deps(
    file: ChakraFile, order: Sequence[int], streams: Sequence[str], more: Mapping[int, Sequence[int]]
) -> list[tuple[int, ...]]:
    """Dependencies as positions in the program, without those that the queues imply.

    more  rows that must end before a row besides those in the file

    A queue is in order: an op on it implies the ones before. So a dependency on the own queue says nothing, of
    another queue only the last counts, and only where no op before on the own queue waited for as much.
    """
    ptr, idx = file.dep_ptr.tolist(), file.dep_idx.tolist()
    position: list[int] = [-1] * len(order)
    latest_of: dict[int, dict[str, int]] = {}  # of rows that are not replayed: what they stand for
    known: dict[str, dict[str, int]] = {}
    after: list[tuple[int, ...]] = [()] * len(order)
    count = 0
    for row in order:
        latest: dict[str, int] = {}
        for dep in (*idx[ptr[row] : ptr[row + 1]], *more.get(row, ())):
            if streams[dep]:
                queue = streams[dep]
                if position[dep] > latest.get(queue, -1):
                    latest[queue] = position[dep]
            else:
                for queue, at in latest_of[dep].items():
                    if at > latest.get(queue, -1):
                        latest[queue] = at
        mine = streams[row]
        if not mine:
            latest_of[row] = latest
            continue
        waited = known.setdefault(mine, {})
        latest = {q: at for q, at in latest.items() if q != mine and at > waited.get(q, -1)}
        waited.update(latest)
        after[row] = tuple(sorted(latest.values()))
        position[row] = count
        count += 1
    return after
