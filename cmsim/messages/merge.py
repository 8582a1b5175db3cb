"""Messages that can never differ become one class, and so do resources: colour refinement of a round.

Messages start with the colour of their path's pattern and their size, resources with that of their tier and capacity.
A resource takes the count of each colour among the messages that cross it; a message takes the colours of the
resources it crosses; until nothing splits. Max-min rates are unique, so messages of one class have one rate, and the
small problem over classes has the rates of the large one. A link that differs splits what crosses it, and nothing is
assumed equal that is not. Where refinement leaves nearly every message by itself (skewed sizes, hashed paths), they
stay as they are.

Shares are whole numbers, so that sums over members do not depend on the order. Within a round they are proportional to
a message's bytes: the round advances as one, and the rate of a class is that of the round's largest message. A round
of unequal messages so needs one solve, and its bytes are through when the most loaded resource has carried its own.

Source: Paige and Tarjan, SIAM J. Comput. 16(6), 1987 (partition refinement).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.topology import Crossings

#: largest table of (resource, message colour) counts; beyond it messages are left apart
_LARGEST_TABLE = 1 << 22
#: passes after which messages are left apart: in a long chain of neighbours one break reaches the others link by link
_MOST_PASSES = 6
#: messages to a class, below which merging costs more than it saves
_FEWEST = 4
#: sizes that are looked at before all of them are sorted
_SAMPLE = 1 << 14
#: largest range of colour codes that is renumbered by a table instead of by sorting
_LARGEST_CODE = 1 << 21


@dataclass(frozen=True)
class Classes:
    """A round, merged. Crossings are columns of equal length, one entry per (message class, resource class).

    size_B         of the largest message: what the round advances by [B]
    unit           of shares: so much is one whole byte of the resource per byte of progress
    count          messages of each class                    bytes_B    of one message of each class [B]
    latency_s      of each class's path [s]
    resource       resource class of a crossing              message    message class of a crossing
    share          what crosses ONE instance per byte of progress, over all messages of the class, in units
    one            the same of one message alone
    capacity_Bps   of one instance of each resource class    instances  how many there are
    resource_class of each resource of the routes, -1 where nothing crosses
    message_class  of each message; None where each is a class by itself
    """

    size_B: float
    unit: float
    count: Ints
    bytes_B: Floats
    latency_s: Floats
    resource: Ints
    message: Ints
    share: Floats
    one: Floats
    capacity_Bps: Floats
    instances: Ints
    resource_class: Ints
    message_class: NDArray[np.int32] | None = None

    def load_B(self) -> Floats:
        """Bytes that the round puts on one instance of each resource class. [B]"""
        load = np.bincount(self.resource, self.share, minlength=len(self.capacity_Bps))
        return np.asarray(load * (self.size_B / self.unit))


def merge(crossed: Crossings, capacity_Bps: Floats, tier: Ints, size_B: Floats, *, together: bool = True) -> Classes:
    """The classes of the messages of one round.

    crossed  what each message crosses    capacity_Bps, tier  of each resource
    size_B   of each message, or one for all [B]    together  whether to merge at all
    """
    messages = len(crossed.pattern)
    together = together and messages > 0 and not _hopeless(size_B, len(capacity_Bps))
    if not together:
        return _one_by_one(crossed, capacity_Bps, size_B)
    sizes, size_code = (size_B, None) if len(size_B) == 1 else np.unique(size_B, return_inverse=True)
    unit = _unit(messages)
    patterns = len(crossed.latency_s)
    colour: NDArray[np.int32] = crossed.pattern
    if size_code is not None:
        colour, _ = _dense(size_code.astype(np.int64).reshape(-1) * patterns + crossed.pattern, len(sizes) * patterns)
    largest = float(sizes[-1])
    apart = None
    if _met_twice(crossed, len(capacity_Bps)):
        part_of = sizes / largest if largest else np.ones(len(sizes))
        shares = crossed.share if size_code is None else np.concatenate([crossed.share * size for size in part_of])
        row = crossed.pattern if size_code is None else size_code.reshape(-1) * patterns + crossed.pattern
        apart = [np.maximum(np.rint(shares[row, column] * unit), 1.0) for column in range(shares.shape[1])]
    found = _refine(crossed, colour, capacity_Bps, tier, apart)
    if found is None:
        return _one_by_one(crossed, capacity_Bps, size_B)
    colour, kind, rows, first, counts = found
    pattern = crossed.pattern[first]
    bytes_B = sizes[np.zeros(len(first), np.int64) if size_code is None else size_code.reshape(-1)[first]]
    # messages without bytes still take their latency
    part = bytes_B / largest if largest else np.ones(len(bytes_B))
    resource, message, share, one = [], [], [], []
    for column, number in enumerate(crossed.resource):
        here = number[first]
        cross = np.flatnonzero(here >= 0)
        alone = np.maximum(np.rint(crossed.share[pattern[cross], column] * part[cross] * unit), 1.0)
        at = here[cross].astype(np.int64)
        resource.append(at)
        message.append(cross)
        one.append(alone)
        # the counts of one instance: that which the class's first message crosses, as good as any other
        share.append((1.0 if apart is not None else alone) * counts[at, cross])
    number_of = np.concatenate(resource) if resource else np.zeros(0, np.int64)
    if apart is not None:
        # a class that meets a class of links at several places along its path has it once: its load is over all places
        keep = _once(kind[number_of], np.concatenate(message), np.concatenate(one))
        number_of = number_of[keep]
        message, share, one = ([np.concatenate(part)[keep]] for part in (message, share, one))
        if np.any(share[0] % one[0]):
            # shares of one class on one link that are no multiples of each other: nothing to say of a member alone
            return _one_by_one(crossed, capacity_Bps, size_B)
    used, compact = np.unique(kind[number_of], return_inverse=True)
    table = np.full(int(kind.max(initial=0)) + 1, -1, np.int64)
    table[used] = np.arange(len(used))
    resource_class = table[kind]
    instances = np.bincount(resource_class[resource_class >= 0], minlength=len(used))
    capacity = np.zeros(len(used))
    capacity[compact.reshape(-1)] = capacity_Bps[number_of]
    return Classes(
        size_B=largest,
        unit=unit,
        count=rows,
        bytes_B=np.asarray(bytes_B, np.float64),
        latency_s=crossed.latency_s[pattern],
        resource=compact.reshape(-1).astype(np.int64),
        message=np.concatenate(message) if message else np.zeros(0, np.int64),
        share=np.concatenate(share) if share else np.zeros(0),
        one=np.concatenate(one) if one else np.zeros(0),
        capacity_Bps=capacity,
        instances=instances,
        resource_class=resource_class,
        message_class=colour,
    )


def _one_by_one(crossed: Crossings, capacity_Bps: Floats, size_B: Floats) -> Classes:
    """Every message and every resource that is crossed as a class by itself."""
    messages, unit, largest = len(crossed.pattern), _unit(len(crossed.pattern)), float(size_B.max())
    bytes_B = np.broadcast_to(np.asarray(size_B, np.float64), messages)
    part = size_B / largest if largest else np.ones(len(size_B))
    used = np.zeros(len(capacity_Bps) + 1, bool)  # the last is what -1 finds
    for number in crossed.resource:
        used[number] = True
    used = used[:-1]
    resource_class = np.where(used, np.cumsum(used) - 1, -1)
    # one column after the other into its place: of millions of messages a second copy would count
    total = sum(int(np.count_nonzero(number >= 0)) for number in crossed.resource)
    resource, message, share = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total)
    end = 0
    for column, number in enumerate(crossed.resource):
        here = np.flatnonzero(number >= 0)
        begin, end = end, end + len(here)
        resource[begin:end] = resource_class[number[here]]
        message[begin:end] = here
        alone = crossed.share[crossed.pattern[here], column] * (part if len(part) == 1 else part[here])
        share[begin:end] = np.maximum(np.rint(alone * unit), 1.0)
    return Classes(
        size_B=largest,
        unit=unit,
        count=np.ones(messages, np.int64),
        bytes_B=bytes_B,
        latency_s=crossed.latency_s[crossed.pattern],
        resource=resource,
        message=message,
        share=share,
        one=share,
        capacity_Bps=capacity_Bps[used],
        instances=np.ones(int(used.sum()), np.int64),
        resource_class=resource_class,
    )


def _unit(messages: int) -> float:
    """Of shares: sums over all messages stay whole numbers that a float holds."""
    return 2.0 ** min(40, 52 - int(np.ceil(np.log2(max(messages, 2)))))


def _hopeless(size_B: Floats, resources: int) -> bool:
    """Whether there are so many sizes that the first table of counts would be too large, as a part of them shows."""
    return resources * len(np.unique(size_B[:_SAMPLE])) > _LARGEST_TABLE


def _met_twice(crossed: Crossings, resources: int) -> bool:
    """Whether a resource stands in several columns: a link that is the first of one path and the second of another."""
    met = np.zeros(resources, bool)
    for number in crossed.resource:
        here = np.zeros(resources, bool)
        here[number[number >= 0]] = True
        if (met & here).any():
            return True
        met |= here
    return False


def _once(kind: Ints, message: Ints, one: Floats) -> Ints:
    """The first entry of each (resource class, message class), of those with the smallest share of a message."""
    order = np.lexsort((one, message, kind))
    pairs = np.stack([kind[order], message[order]])
    first = np.ones(len(order), bool)
    first[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
    return np.sort(order[first])


def _refine(
    crossed: Crossings,
    colour: NDArray[np.int32],
    capacity_Bps: Floats,
    tier: Ints,
    apart: list[Floats] | None = None,
) -> tuple[NDArray[np.int32], Ints, Ints, Ints, Ints] | None:
    """Colours of messages and of resources, messages and first message of each colour, and how many messages of each
    colour cross each resource (or, given ``apart``, their shares by column, the sum of these); None where the table of
    those would grow too large, the passes too many, or the classes too small."""
    resources = len(capacity_Bps)
    # shares differ between columns, so resources of two columns are never alike, where each stands in one column only
    column_of = np.full(resources + 1, -1, np.int64)
    for column, number in enumerate(crossed.resource if apart is None else ()):
        column_of[number] = column
    start = np.stack([tier, column_of[:-1], np.unique(capacity_Bps, return_inverse=True)[1].reshape(-1)])
    kind = np.unique(start, axis=1, return_inverse=True)[1].reshape(-1)
    colours = int(colour.max(initial=-1)) + 1
    for _ in range(_MOST_PASSES):
        if resources * colours > _LARGEST_TABLE:
            return None
        counts = np.zeros((resources + 1) * colours, np.int64)
        for column, number in enumerate(crossed.resource):
            # one further, so that what is not crossed (-1) falls into a row of its own
            code = (number + np.int32(1)) * np.int32(colours)
            code += colour
            share = None if apart is None else apart[column]
            counts += np.bincount(code, share, minlength=len(counts)).astype(np.int64, copy=False)
        counts = counts.reshape(-1, colours)[1:]
        kind = _rows(np.column_stack([kind, counts]))
        kinds = int(kind.max(initial=0)) + 2
        # the last entry is what -1 finds
        kind_of = np.append(kind + 1, 0).astype(np.int64)
        code, bound = colour.astype(np.int64), colours
        for number in crossed.resource:
            if bound * kinds > _LARGEST_CODE:
                dense, bound = _dense(code, bound)
                code = dense.astype(np.int64)
            code *= kinds
            code += kind_of[number]
            bound *= kinds
        finer, now = _dense(code, bound)
        if now == colours:
            # renumbering kept the order, so the counts are those of these colours
            first = np.zeros(colours, np.int64)
            first[finer[::-1]] = np.arange(len(finer))[::-1]
            return finer, kind, np.bincount(finer, minlength=colours), first, counts
        if _FEWEST * now > len(finer):
            return None
        colour, colours = finer, now
    return None


def _rows(table: Ints) -> Ints:
    """A number for each distinct row. Rows are compared as they lie in memory, many times quicker than by column."""
    row = np.ascontiguousarray(table)
    packed = row.view(np.dtype((np.void, row.dtype.itemsize * row.shape[1]))).reshape(-1)
    return np.asarray(np.unique(packed, return_inverse=True)[1].reshape(-1), np.int64)


def _dense(code: NDArray[np.int64] | NDArray[np.int32], bound: int) -> tuple[NDArray[np.int32], int]:
    """Codes from 0 to ``bound`` renumbered without gaps, in their order, and how many there are."""
    if bound > min(_LARGEST_CODE, 16 * len(code)) and bound > len(code):
        used, dense = np.unique(code, return_inverse=True)
        return dense.reshape(-1).astype(np.int32), len(used)
    table = np.zeros(bound, np.int32)
    table[code] = 1
    used = np.flatnonzero(table)
    table[used] = np.arange(len(used), dtype=np.int32)
    return table[code], len(used)
