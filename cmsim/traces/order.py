"""Order of rows that wait for each other, and the few dependencies that in-order queues do not imply.

Dependencies are CSR: ``idx[ptr[r]:ptr[r + 1]]`` are the rows that must end before row ``r`` starts.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints

#: length given to communication of unknown length when rows are put in order; it decides ties only [us], assumed
UNKNOWN_US = 1.0


def rows_of(ptr: Ints) -> Ints:
    """The row of each dependency."""
    return np.repeat(np.arange(len(ptr) - 1, dtype=np.int64), np.diff(ptr))


def topological(ptr: Ints, idx: Ints) -> Ints | None:
    """Rows, dependencies first: as they stand where that will do. None where rows wait for themselves in a circle."""
    count, row = len(ptr) - 1, rows_of(ptr)
    if (idx < row).all():
        return np.arange(count, dtype=np.int64)
    label = _components(ptr, idx)
    if label is None:
        return None
    order = np.argsort(label, kind="stable")
    if label[idx[0]] > label[row[0]]:
        order, label = order[::-1], -label
    # A depth-first search ends a component after all that it reaches: numbers in order of ending are an order of rows.
    assert (label[idx] < label[row]).all(), "scipy numbers components in another order"
    return order


def _components(ptr: Ints, idx: Ints) -> Ints | None:
    """Number of the strongly connected component of each row; None where one holds several rows, or a row itself."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    count = len(ptr) - 1
    if (idx == rows_of(ptr)).any():
        return None
    graph = csr_array((np.ones(len(idx)), idx, ptr), shape=(count, count))
    found, label = connected_components(graph, directed=True, connection="strong")
    return label.astype(np.int64) if found == count else None


def on_circle(ptr: Ints, idx: Ints) -> int:
    """The lowest row that waits for itself, through others or not; there is one where `topological` finds no order."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    count, row = len(ptr) - 1, rows_of(ptr)
    graph = csr_array((np.ones(len(idx)), idx, ptr), shape=(count, count))
    _, label = connected_components(graph, directed=True, connection="strong")
    on = np.bincount(label)[label] > 1
    on[row[row == idx]] = True
    return int(np.argmax(on))


def ready(ptr: Ints, idx: Ints, length: Floats, order: Ints | None = None) -> Floats:
    """When each row can start if nothing but dependencies holds it up, in the unit of ``length``, shape (rows,).

    order  rows with dependencies first; None: as they stand
    """
    count = len(ptr) - 1
    if order is not None:
        ptr, idx = reordered(ptr, idx, order)
        length = length[order]
    # The one step that cannot be done on columns: an end needs the ends before it.
    end: list[float] = []
    add, get = end.append, end.__getitem__
    deps, at = idx.tolist(), 0
    for upto, own in zip(ptr[1:].tolist(), length.tolist(), strict=True):
        if upto == at:
            add(own)
        elif upto == at + 1:
            add(end[deps[at]] + own)
        else:
            add(max(map(get, deps[at:upto])) + own)
        at = upto
    start = last_of(ptr, np.array(end, np.float64)[idx], 0.0)
    if order is None:
        return start
    out = np.empty(count)
    out[order] = start
    return out


def last_of(ptr: Ints, values: Floats, none: float) -> Floats:
    """Largest value of each row of a CSR, ``none`` where a row has none."""
    out = np.full(len(ptr) - 1, none)
    some = np.flatnonzero(np.diff(ptr))
    if len(some):
        out[some] = np.maximum.reduceat(values, ptr[some])
    return out


def reordered(ptr: Ints, idx: Ints, order: Ints) -> tuple[Ints, Ints]:
    """The same dependencies when row ``order[i]`` becomes row i."""
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    count = np.diff(ptr)[order]
    moved = np.zeros(len(ptr), np.int64)
    np.cumsum(count, out=moved[1:])
    take = np.repeat(ptr[:-1][order] - moved[:-1], count) + np.arange(len(idx))
    return moved, number[idx[take]]


def in_order(ptr: Ints, idx: Ints, length_us: Floats, key: Ints) -> Ints | None:
    """Rows so that dependencies come first; among the free ones the earliest ready, then the lowest row.

    key  communicator or channel of each row, -1 for none

    All ranks must issue the ops of a communicator in one order, though each recorded other durations: there the number
    of steps before an op decides, then its row. None where rows wait for themselves in a circle.
    """
    order = topological(ptr, idx)
    if order is None:
        return None
    count = len(ptr) - 1
    meets = np.flatnonzero(key >= 0)
    if len(meets):
        steps = ready(ptr, idx, np.ones(count), order)
        # steps grow along every dependency, and a chain never goes to fewer: one order for both
        order = np.argsort(steps, kind="stable")
        meets = meets[np.lexsort((steps[meets], key[meets]))]
        same = key[meets][1:] == key[meets][:-1]
        ptr, idx = with_deps(ptr, idx, meets[1:][same], meets[:-1][same])
    return _by_time(ready(ptr, idx, length_us, order), ptr, idx)


def with_deps(ptr: Ints, idx: Ints, row: Ints, dep: Ints) -> tuple[Ints, Ints]:
    """The dependencies and some more: ``row`` waits for ``dep``."""
    more = np.zeros(len(ptr), np.int64)
    np.cumsum(np.bincount(row, minlength=len(ptr) - 1), out=more[1:])
    by_row = np.argsort(row, kind="stable")
    return ptr + more, np.insert(idx, ptr[row[by_row] + 1], dep[by_row])


def _by_time(start: Floats, ptr: Ints, idx: Ints) -> Ints:
    """Rows by time and row. Of those that start at once, the free one of the lowest row is always next."""
    order = np.argsort(start, kind="stable")
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    row, dep = position[rows_of(ptr)], position[idx]
    if (dep < row).all():
        return order
    # Only rows without length can be wrong, and only among those that start at the same time.
    sorted_start = start[order]
    at_once = np.concatenate([[0], np.cumsum(np.diff(sorted_start) != 0)])
    wrong = np.zeros(int(at_once[-1]) + 1, bool)
    wrong[at_once[row[dep > row]]] = True
    touched = np.flatnonzero(wrong[at_once])
    number = np.full(len(order), -1, np.int64)
    number[touched] = np.arange(len(touched))
    inside = (at_once[row] == at_once[dep]) & wrong[at_once[row]]
    placed = _lowest_first(len(touched), number[row[inside]], number[dep[inside]])
    order = order.copy()
    order[touched] = order[touched[placed]]
    return order


def _lowest_first(count: int, row: Ints, dep: Ints) -> list[int]:
    """Numbers below ``count``, dependencies first, of the free ones always the lowest. There is no circle."""
    waiting = np.bincount(row, minlength=count)
    by_dep = np.argsort(dep, kind="stable")
    following = row[by_dep].tolist()
    ptr = np.searchsorted(dep[by_dep], np.arange(count + 1)).tolist()
    heap = np.flatnonzero(waiting == 0).tolist()  # ascending: already a heap
    left = waiting.tolist()
    out: list[int] = []
    while heap:
        here = heapq.heappop(heap)
        out.append(here)
        for other in following[ptr[here] : ptr[here + 1]]:
            left[other] -= 1
            if not left[other]:
                heapq.heappush(heap, other)
    return out


def needed_deps(ptr: Ints, idx: Ints, queue: Ints) -> tuple[Ints, Ints]:
    """(row, row it waits for), sorted, without what queues imply; rows stand in order, dependencies first.

    queue  of each row; -1: the row is not replayed, and what waits for it waits for what it waits for

    A queue is in order: a row on it implies the ones before. So a dependency on the own queue says nothing, of another
    queue only the last counts, and only where no row before on the own queue waited for as much.
    """
    row, dep = rows_of(ptr), idx
    if (queue < 0).any():
        row, dep = _passed_on(row, dep, queue)
    other = queue[row] != queue[dep]
    row, dep = row[other], dep[other]
    if not len(row):
        return row, dep
    place = row * np.int64(len(queue)) + dep
    if (np.diff(place) <= 0).any():
        place.sort()
        row, dep = np.divmod(place, len(queue))
    pair = _pairs(queue[row], queue[dep])
    by_pair = np.argsort(pair, kind="stable")  # rows ascend in each pair of queues, and dependencies in each row
    pair, its_row, its_dep = pair[by_pair], row[by_pair], dep[by_pair]
    new_pair = np.diff(pair) != 0
    last = np.append((np.diff(its_row) != 0) | new_pair, True)
    number = np.concatenate([[0], np.cumsum(new_pair)])
    height = (number * np.int64(len(queue)) + its_dep)[last]
    waited = np.maximum.accumulate(height)
    needed = np.ones(len(height), bool)
    needed[1:] = height[1:] > waited[:-1]
    keep = np.sort(by_pair[last][needed])
    return row[keep], dep[keep]


def _pairs(one: Ints, two: Ints) -> NDArray[np.integer]:
    """A number for each pair, of the smallest type: 16 bits are sorted in linear time."""
    count = int(max(one.max(), two.max())) + 1
    pair = one * count + two
    return pair.astype(np.uint16) if count * count <= 2**16 else pair


def _passed_on(row: Ints, dep: Ints, queue: Ints) -> tuple[Ints, Ints]:
    """Dependencies between replayed rows only: those on others are replaced by what these wait for."""
    gone_row, gone_dep = queue[row] < 0, queue[dep] < 0
    direct = gone_row & ~gone_dep
    # per row that is gone: the last row of each queue that it waits for
    known: dict[int, dict[int, int]] = {}
    for here, there, its in zip(row[direct].tolist(), dep[direct].tolist(), queue[dep[direct]].tolist(), strict=True):
        mine = known.setdefault(here, {})
        if there > mine.get(its, -1):
            mine[its] = there
    chained = gone_row & gone_dep
    for here, there in zip(row[chained].tolist(), dep[chained].tolist(), strict=True):
        mine = known.setdefault(here, {})
        for its, at in known.get(there, {}).items():
            if at > mine.get(its, -1):
                mine[its] = at
    last = {here: list(found.values()) for here, found in known.items()}
    stays = ~gone_row & ~gone_dep
    asks = ~gone_row & gone_dep
    stood_for = [last.get(there, []) for there in dep[asks].tolist()]
    more_row = np.repeat(row[asks], [len(found) for found in stood_for])
    more_dep = np.array([at for found in stood_for for at in found], np.int64)
    return np.concatenate([row[stays], more_row]), np.concatenate([dep[stays], more_dep])
