"""GOAL schedules as ops: what the text and the binary form share once they are read.

Calculations are kernels of a known length on the in-order queue of their cpu; a length of 0 is a `PASS`. Sends and
receives name no queue, for nothing but ``requires`` orders them: not the file, not their channel. ``a irequires b`` (a
may start when b has started) becomes a `PASS` that waits for all b waits for, and that a and b wait for.

What a schedule does not hold is not here: LogGOPS' o, g, G, O and S belong to the machine.

Source: Hoefler, Siebert and Lumsdaine, Group Operation Assembly Language, ICPP 2009, doi:10.1109/ICPP.2009.70;
LogGOPSim (Hoefler, Schneider and Lumsdaine, HPDC 2010, doi:10.1145/1851476.1851564).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cmsim.arrays import Ints
from cmsim.errors import InputError, Problem
from cmsim.traces.recorded import PASS, RankTrace, Trace, edges_csr
from cmsim.workload.ops import COMPUTE, RECV, SEND

#: kinds of nodes; PORTALS is all that LogGOPSim2 adds for offloaded protocols
SENDS, RECVS, CALCS, PORTALS = 1, 2, 3, 4
ANY = -1
#: ranks that have no ops are taken as idle up to this number
_MOST_IDLE = 2**20
_NS_PER_US = 1e3
_NAMES = ("send", "recv", "calc")


@dataclass(frozen=True)
class GoalSchedule:
    """Nodes of all ranks, one row each, those of a rank together.

    num_ranks
    rank            ranks that have a block, in the order of the blocks
    first           first row of each block, and the number of rows behind the last
    kind            SENDS, RECVS, CALCS or PORTALS
    size            bytes of a message [B], length of a calculation [ns]
    peer, tag       ANY for wildcards; 0 for calculations
    cpu, nic
    after, before   ``requires``: row, row that must have ended
    after_start, before_start  ``irequires``: row, row that must have started
    """

    num_ranks: int
    rank: Ints
    first: Ints
    kind: Ints
    size: Ints
    peer: Ints
    tag: Ints
    cpu: Ints
    nic: Ints
    after: Ints
    before: Ints
    after_start: Ints
    before_start: Ints

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def rank_of_row(self) -> Ints:
        return np.repeat(self.rank, np.diff(self.first))


#: a problem with a row, with the place in the file
Place = Callable[[int, str], Problem]


def trace(schedule: GoalSchedule, *, format: str, path: Path, ranks: int | None, place: Place) -> Trace:
    """The ops of all ranks.

    place  makes the `Problem` with a row

    Raises InputError for another number of ranks, statements that cannot be replayed, wildcards that more than one
    sender could meet, and messages that are never sent or never received.
    """
    if ranks is not None and ranks != schedule.num_ranks:
        raise InputError(Problem(f"the schedule is for {schedule.num_ranks} ranks, not {ranks}", str(path)))
    odd = np.flatnonzero(schedule.kind == PORTALS)
    if len(odd):
        raise InputError(place(int(odd[0]), "is an operation of Portals, which is not replayed"))
    if not len(schedule):
        raise InputError(Problem("holds no op to replay", str(path)))
    idle = schedule.num_ranks - len(schedule.rank)
    if idle > _MOST_IDLE:
        raise InputError(Problem(f"{idle} of {schedule.num_ranks} ranks have no block: damaged", str(path)))
    notes = []
    if idle:
        notes.append(f"{idle} of {schedule.num_ranks} ranks have no block: they are idle")
    wild = int(((schedule.kind == RECVS) & ((schedule.peer == ANY) | (schedule.tag == ANY))).sum())
    if wild:
        schedule = _without_wildcards(schedule, place)
        notes.append(f"{wild} receives from any source or of any tag: only one message fits each, which is named")
    _check_messages(schedule, place)
    if schedule.nic.any():
        notes.append(f"{int((schedule.nic > 0).sum())} ops name another nic than 0: a rank has one port here")
    kind = np.array([PASS, SEND, RECV, COMPUTE], np.int64)[schedule.kind]
    kind[(schedule.kind == CALCS) & (schedule.size == 0)] = PASS
    self_row, self_dep = _own_messages(schedule)
    if len(self_row):
        kind[self_row] = kind[self_dep] = PASS
        notes.append(f"{len(self_row)} messages of ranks to themselves take no time")
    if len(schedule.after_start):
        notes.append(
            f"{len(schedule.after_start)} waits for the start of another op (irequires): for what that op waits for"
        )
    return Trace(
        format=format,
        source=str(path),
        ranks=_rank_traces(schedule, kind, self_row, self_dep),
        world_size=schedule.num_ranks,
        notes=tuple(notes),
    )


def _rank_traces(schedule: GoalSchedule, kind: Ints, self_row: Ints, self_dep: Ints) -> dict[int, RankTrace]:
    """Rows of each rank, then a PASS for every node whose start others wait for."""
    target = np.unique(schedule.before_start)
    block = np.repeat(np.arange(len(schedule.rank)), np.diff(schedule.first))
    added = np.bincount(block[target], minlength=len(schedule.rank))
    shift = np.zeros(len(schedule.rank) + 1, np.int64)
    np.cumsum(added, out=shift[1:])
    row = np.arange(len(schedule)) + shift[block]
    first = schedule.first + shift
    gate = np.arange(len(target)) + schedule.first[block[target] + 1]
    # who has a gate waits there, and passes it itself
    held = row.copy()
    held[target] = gate
    gates = np.full(len(schedule), -1, np.int64)
    gates[target] = gate
    count = len(schedule) + len(target)
    dep_ptr, dep_idx = edges_csr(
        count,
        np.concatenate([held[schedule.after], held[self_row], held[schedule.after_start], row[target]]),
        np.concatenate([row[schedule.before], row[self_dep], gates[schedule.before_start], gate]),
    )

    def column(values: Ints, fill: int) -> Ints:
        out = np.full(count, fill, np.int64)
        out[row] = values
        return out

    calc, message = kind == COMPUTE, (kind == SEND) | (kind == RECV)
    cpus, cpu = np.unique(schedule.cpu[calc], return_inverse=True)
    stream = np.full(len(schedule), -1, np.int64)
    stream[calc] = cpu
    duration_us = np.full(count, np.nan)
    duration_us[row[calc]] = schedule.size[calc] / _NS_PER_US
    bytes_B = np.zeros(count)
    bytes_B[row[message]] = schedule.size[message]
    columns: dict[str, Any] = {
        "name": column(schedule.kind - 1, len(_NAMES)),
        "kind": column(kind, PASS),
        "stream": column(stream, -1),
        "kernel": column(np.where(calc, 0, -1), -1),
        "peer": column(np.where(message, schedule.peer, -1), -1),
        "tag": column(np.where(message, schedule.tag, 0), 0),
    }
    start_us, unknown, no_flops = np.full(count, np.nan), np.full(count, -1, np.int64), np.zeros(count)
    streams = tuple(f"cpu {number}" for number in cpus.tolist())
    place = np.full(schedule.num_ranks, -1, np.int64)
    place[schedule.rank] = np.arange(len(schedule.rank))
    out: dict[int, RankTrace] = {}
    bounds = first.tolist()
    for rank, number in enumerate(place.tolist()):
        here = slice(bounds[number], bounds[number + 1]) if number >= 0 else slice(0, 0)
        ptr = dep_ptr[here.start : here.stop + 1]
        out[rank] = RankTrace(
            rank=rank,
            names=(*_NAMES, "start"),
            streams=streams,
            kernels=("generic",),
            precisions=(),
            collectives=(),
            start_us=start_us[here],
            duration_us=duration_us[here],
            precision=unknown[here],
            flops=no_flops[here],
            bytes_B=bytes_B[here],
            collective=unknown[here],
            group=unknown[here],
            dep_ptr=ptr - ptr[0],
            dep_idx=dep_idx[ptr[0] : ptr[-1]] - here.start,
            in_order=False,
            **{key: values[here] for key, values in columns.items()},
        )
    return out


def _channels(schedule: GoalSchedule) -> tuple[Ints, Ints, tuple[Ints, ...], tuple[Ints, ...]]:
    """Rows of sends and of receives, and (source, destination, tag) of each."""
    owner = schedule.rank_of_row
    send, recv = np.flatnonzero(schedule.kind == SENDS), np.flatnonzero(schedule.kind == RECVS)
    return (
        send,
        recv,
        (owner[send], schedule.peer[send], schedule.tag[send]),
        (schedule.peer[recv], owner[recv], schedule.tag[recv]),
    )


def _check_messages(schedule: GoalSchedule, place: Place) -> None:
    """Every message that is sent is received, with its size."""
    send, recv, sent, received = _channels(schedule)
    here = np.lexsort((schedule.size[send], *reversed(sent)))
    there = np.lexsort((schedule.size[recv], *reversed(received)))
    least = min(len(here), len(there))
    columns = [*zip(sent, received, strict=True), (schedule.size[send], schedule.size[recv])]
    differ = np.zeros(least, np.bool_)
    for a, b in columns:
        differ |= a[here[:least]] != b[there[:least]]
    at = int(np.argmax(differ)) if differ.any() else least
    if at == len(here) == len(there):
        return
    one = tuple(int(c[0][here[at]]) for c in columns) if at < len(here) else None
    other = tuple(int(c[1][there[at]]) for c in columns) if at < len(there) else None
    if one is not None and other is not None and one[:3] == other[:3]:
        message = f"of {other[3]} bytes meets a send of {one[3]} bytes: sizes must agree"
        raise InputError(place(int(recv[there[at]]), message))
    # sorted alike: the lesser of two that differ is the one without a partner
    if one is not None and (other is None or one < other):
        raise InputError(place(int(send[here[at]]), f"is never received by rank {one[1]}"))
    assert other is not None
    raise InputError(place(int(recv[there[at]]), f"waits for a message that rank {other[0]} never sends"))


def _own_messages(schedule: GoalSchedule) -> tuple[Ints, Ints]:
    """Receives of a rank's own messages, and the sends they match."""
    send, recv, sent, received = _channels(schedule)
    own_send, own_recv = sent[0] == sent[1], received[0] == received[1]
    here = np.lexsort((sent[2][own_send], sent[0][own_send]))
    there = np.lexsort((received[2][own_recv], received[0][own_recv]))
    return recv[own_recv][there], send[own_send][here]


def _without_wildcards(schedule: GoalSchedule, place: Place) -> GoalSchedule:
    """Name the sender and the tag of receives that leave them open, where only one channel can meet them.

    A channel is one source and tag, its messages being received in order. What receives that name both do not take is
    left to the others; what those take that have no choice is not left to the rest.
    """
    owner = schedule.rank_of_row
    is_open = (schedule.kind == RECVS) & ((schedule.peer == ANY) | (schedule.tag == ANY))
    wanted = np.unique(owner[is_open])
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    left: dict[tuple[int, int], Counter[tuple[int, int]]] = defaultdict(Counter)
    for row in np.flatnonzero((schedule.kind == SENDS) & np.isin(schedule.peer, wanted)).tolist():
        key = int(schedule.peer[row]), int(schedule.size[row])
        left[key][int(owner[row]), int(schedule.tag[row])] += 1
    for row in np.flatnonzero((schedule.kind == RECVS) & np.isin(owner, wanted)).tolist():
        key = int(owner[row]), int(schedule.size[row])
        if is_open[row]:
            rows[key].append(row)
        else:
            left[key][int(schedule.peer[row]), int(schedule.tag[row])] -= 1
    peer, tag = schedule.peer.copy(), schedule.tag.copy()
    for key, open_rows in rows.items():
        channels = {channel: number for channel, number in left[key].items() if number > 0}
        for row, (source, number) in _only_choices(open_rows, peer, tag, channels, place):
            peer[row], tag[row] = source, number
    return replace(schedule, peer=peer, tag=tag)


def _only_choices(
    rows: Sequence[int], peer: Ints, tag: Ints, channels: dict[tuple[int, int], int], place: Place
) -> Iterable[tuple[int, tuple[int, int]]]:
    """Rows and the channel of each, the rows all being of one rank and size; ``channels`` are used up."""
    waiting: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in rows:
        waiting[int(peer[row]), int(tag[row])].append(row)
    by_peer: dict[int, list[tuple[int, int]]] = defaultdict(list)
    by_tag: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for channel in channels:
        by_peer[channel[0]].append(channel)
        by_tag[channel[1]].append(channel)

    def fitting(source: int, number: int) -> list[tuple[int, int]]:
        near = list(channels) if source == number == ANY else by_tag[number] if source == ANY else by_peer[source]
        return [channel for channel in near if channels[channel] > 0]

    progress = True
    while waiting and progress:
        progress = False
        for wants in list(waiting):
            found = fitting(*wants)
            if len(found) == 1 and channels[found[0]] >= len(waiting[wants]):
                channels[found[0]] -= len(waiting[wants])
                yield from ((row, found[0]) for row in waiting.pop(wants))
                progress = True
    for (source, number), open_rows in waiting.items():
        found = fitting(source, number)
        what = "from any source" if source == ANY else f"from rank {source}"
        what += " of any tag" if number == ANY else f" of tag {number}"
        if sum(channels[channel] for channel in found) < len(open_rows):
            raise InputError(place(open_rows[0], f"{what} waits for a message that is never sent"))
        several = ", ".join(f"rank {source} (tag {number})" for source, number in sorted(found)[:4])
        message = f"{what} could be met by {several}{', ...' if len(found) > 4 else ''}: replay must know which"
        raise InputError(place(open_rows[0], message))
