"""Rows of a rank on in-order queues: which queue, in which order, and what they wait for besides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.reading.bytes_in import bad
from cmsim.traces import order as orders
from cmsim.traces.recorded import PASS, RankTrace, Trace
from cmsim.workload.ops import COLLECTIVE, HOST


@dataclass(frozen=True)
class Queued:
    """The rows of one rank on in-order queues.

    order     row of the trace at each position, None where they stand as they are; all else counts positions
    queue     into ``names``, -1 for what is not replayed
    slot      communicator or channel in order of use, -1 for none; ``keys`` are the keys of the slots
    row, dep  what waits for what besides the queues, sorted
    """

    order: Ints | None
    queue: Ints
    names: tuple[str, ...]
    slot: Ints
    keys: Ints
    row: Ints
    dep: Ints


def queued(trace: Trace, one: RankTrace, kind: Ints, key: Ints) -> Queued:
    """Order and queues of a rank; ``kind`` is PASS for rows left out, ``key`` the communicator or channel of each.

    Raises InputError for rows that wait for themselves, or for rows issued later.
    """
    order = _order(trace, one, key)
    dep_ptr, dep_idx = one.dep_ptr, one.dep_idx
    if order is not None:
        dep_ptr, dep_idx = orders.reordered(dep_ptr, dep_idx, order)
        kind, key = kind[order], key[order]
    slot, keys = first_use(key)
    queue, names = _queues(one, order, slot, kind != PASS)
    row, dep = orders.needed_deps(dep_ptr, dep_idx, queue)
    return Queued(order, queue, names, slot, keys, row, dep)


def _order(trace: Trace, one: RankTrace, key: Ints) -> Ints | None:
    """Rows in order of issue, None where they stand in it."""
    row = orders.rows_of(one.dep_ptr)
    if one.in_order:
        late = one.dep_idx >= row
        if late.any():
            here, there = int(row[np.argmax(late)]), int(one.dep_idx[np.argmax(late)])
            raise bad(trace.source, f"{row_name(one, here)} waits for row {there}, which was issued no earlier")
        return None
    length_us = np.nan_to_num(one.duration_us)
    length_us[(one.kind >= COLLECTIVE) & (length_us == 0)] = orders.UNKNOWN_US
    length_us[one.kind == PASS] = 0.0
    order = orders.in_order(one.dep_ptr, one.dep_idx, length_us, key)
    if order is None:
        here = orders.on_circle(one.dep_ptr, one.dep_idx)
        raise bad(trace.source, f"{row_name(one, here)} waits for itself through others")
    return order


def row_name(one: RankTrace, row: int) -> str:
    """How a row is named in an error."""
    name = one.names[one.name[row]] if one.name[row] >= 0 else ""
    return f"rank {one.rank}, row {row}" + (f" ('{name}')" if name else "")


def first_use(codes: Ints) -> tuple[Ints, Ints]:
    """Codes renumbered in order of first use (-1 stays), and the old code of each new one.

    >>> first_use(np.array([4, -1, 2, 4]))
    (array([ 0, -1,  1,  0]), array([4, 2]))
    """
    used = codes[codes >= 0]
    first = np.full(int(used.max(initial=-1)) + 1, -1, np.int64)
    first[used[::-1]] = np.arange(len(used))[::-1]  # the last one written stays: the first use
    old = np.flatnonzero(first >= 0)
    old = old[np.argsort(first[old])]
    number = np.full(len(first) + 1, -1, np.int64)
    number[old] = np.arange(len(old))
    return number[codes], old


def _queues(
    one: RankTrace, order: Ints | None, slot: Ints, replayed: NDArray[np.bool_]
) -> tuple[Ints, tuple[str, ...]]:
    """Queue of each row in order (-1: not replayed), and the queues' names."""
    stream, kind = (one.stream, one.kind) if order is None else (one.stream[order], one.kind[order])
    streams, slots = len(one.streams), int(slot.max(initial=-1)) + 1
    made_up = 2 * streams + 2
    # by kind from HOST on: where its made-up queues begin, and whether there is one for each slot
    first = np.array([2 * streams + 1, 2 * streams, made_up, made_up + slots, made_up + 2 * slots, 0])
    code = np.where(stream >= 0, stream + streams * (kind == HOST), first[kind] + np.maximum(slot, 0))
    code[~replayed] = -1
    code, used = first_use(code)
    names = [_queue_name(one, int(queue), slots) for queue in used]
    number: dict[str, int] = {}
    same = np.array([number.setdefault(name, len(number)) for name in names] + [-1])
    return (code if len(number) == len(names) else same[code]), tuple(number)


def _queue_name(one: RankTrace, queue: int, slots: int) -> str:
    streams = len(one.streams)
    if queue < 2 * streams:
        name, device = one.streams[queue % streams], queue < streams
        return f"{'stream' if device else 'host'} {name}" if name.isdecimal() else name
    if queue < 2 * streams + 2:
        return ("host", "compute")[queue - 2 * streams]
    what, slot = divmod(queue - 2 * streams - 2, slots)
    return f"comm {slot}" if what == 0 and slot else ("comm", f"send {slot}", f"recv {slot}")[what]
