"""Whether everybody meets: members that issue the same collectives, sends with receives; sizes on which all agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.reading.bytes_in import bad
from cmsim.traces.groups import Groups, Job, group_of, sizes_of
from cmsim.workload.ops import COLLECTIVE, RECV, SEND

#: the way out for recordings that are not whole
_WITHOUT = 'With collectives "recorded" nobody meets.'
#: the collective that moves nothing
_SIZELESS = "barrier"


class Ops(Protocol):
    """A program: columns by name, of codes into its texts."""

    @property
    def columns(self) -> dict[str, NDArray[Any]]: ...

    @property
    def texts(self) -> dict[str, tuple[Any, ...]]: ...


def check(job: Job, groups: Groups, program: Ints, programs: Sequence[Ops], notes: Counter[str]) -> dict[int, Floats]:
    """Refuse what can never meet: members that issue other collectives than the rest, sends without receives.

    Returns the sizes of those programs that keep not all of theirs: collectives of other sizes on other ranks are of
    the largest of each, and what is of no bytes on all of them is of one. [B]
    """
    slots = groups.table.shape[1]
    issued = _issued(programs, slots)
    rank, slot = np.nonzero(groups.table >= 0)
    group, its = groups.table[rank, slot], program[rank]
    sent = np.bincount(group, issued.sends[its, slot], len(groups.kind))
    received = np.bincount(group, issued.recvs[its, slot], len(groups.kind))
    talks = groups.kind[group] >= 0
    rank, slot, group, its = rank[talks], slot[talks], group[talks], its[talks]
    _check_present(job, groups, rank, group)
    _check_sequences(job, groups, rank, group, issued, issued.sequence[its, slot])
    if (sent != received).any():
        which = int(np.argmax(sent != received))
        here, there = divmod(int(groups.place[which]), job.ranks)
        raise bad(
            job.trace.source,
            f"channel {here} -> {there}, tag {groups.tags[-1 - groups.kind[which]]}: {sent[which]:.0f} sends and "
            f"{received[which]:.0f} receives; are the files of all ranks there? {_WITHOUT}",
        )
    sizes_B = _largest(programs, issued.rows, group, its * np.int64(max(slots, 1)) + slot, slots, notes)
    return _not_empty(programs, sizes_B, notes)


@dataclass(frozen=True)
class _Issued:
    """What programs do in their slots, shape (programs, slots).

    sequence  number in ``sequences`` of the collectives, in order
    rows      of the program's collectives, by (program, slot)
    """

    sequence: Ints
    sends: Ints
    recvs: Ints
    sequences: list[list[str]]
    rows: dict[tuple[int, int], Ints]


def _issued(programs: Sequence[Ops], slots: int) -> _Issued:
    sequence, sends, recvs = (np.zeros((len(programs), slots), np.int64) for _ in range(3))
    known: dict[str, int] = {}
    numbers: dict[bytes, int] = {}
    rows: dict[tuple[int, int], Ints] = {}
    for number, one in enumerate(programs):
        kind, slot = one.columns["kind"], one.columns["slot"]
        sends[number] = np.bincount(slot[kind == SEND], minlength=slots)
        recvs[number] = np.bincount(slot[kind == RECV], minlength=slots)
        name = np.array([known.setdefault(text, len(known)) for text in one.texts["collective"]], np.int64)
        joint = np.flatnonzero(kind == COLLECTIVE)
        joint = joint[np.argsort(slot[joint], kind="stable")]
        for part in np.split(joint, np.flatnonzero(np.diff(slot[joint])) + 1) if len(joint) else ():
            at = int(slot[part[0]])
            rows[number, at] = part
            done = name[one.columns["collective"][part]].tobytes()
            sequence[number, at] = numbers.setdefault(done, len(numbers))
    names = list(known)
    sequences = [[names[code] for code in np.frombuffer(done, np.int64)] for done in numbers]
    return _Issued(sequence, sends, recvs, sequences, rows)


def _check_present(job: Job, groups: Groups, rank: Ints, group: Ints) -> None:
    """Every member of a communicator uses it."""
    there = np.bincount(group, minlength=len(groups.kind))
    short = (there != sizes_of(job, groups)) & (groups.kind >= 0)
    if short.any():
        which = int(np.argmax(short))
        name, members = group_of(job, groups, which)
        users = rank[group == which].tolist()
        absent = min(set(members) - set(users))
        raise bad(job.trace.source, f"{name}: rank {users[0]} waits for rank {absent}, which never joins. {_WITHOUT}")


def _check_sequences(job: Job, groups: Groups, rank: Ints, group: Ints, issued: _Issued, sequence: Ints) -> None:
    """All members of a communicator issue the same collectives in the same order."""
    order = np.argsort(group, kind="stable")
    group, rank, sequence = group[order], rank[order], sequence[order]
    first = np.flatnonzero(np.diff(group, prepend=-1))
    first = np.repeat(first, np.diff(np.append(first, len(group))))
    other = sequence != sequence[first]
    if not other.any():
        return
    which = int(np.argmax(other))
    here, there = (
        ", ".join(f"{n} {c}" for c, n in sorted(Counter(issued.sequences[at]).items()))
        for at in sequence[[which, first[which]]].tolist()
    )
    where = "in another order" if here == there else f"({here} against {there})"
    name, _ = group_of(job, groups, int(group[which]))
    message = f"{name}: rank {rank[which]} issues other collectives than rank {rank[first[which]]} {where}. {_WITHOUT}"
    raise bad(job.trace.source, message)


def _largest(
    programs: Sequence[Ops],
    rows: Mapping[tuple[int, int], Ints],
    group: Ints,
    pair: Ints,
    slots: int,
    notes: Counter[str],
) -> dict[int, Floats]:
    """Sizes of programs in which ranks of one group gave other sizes to one collective: the largest for all. [B]

    pair  program * slots + slot of each (rank, slot) in ``group``
    """
    pairs, code = np.unique(pair, return_inverse=True)
    met = np.unique(group * np.int64(max(len(pairs), 1)) + code)
    met_group, met_pair = np.divmod(met, max(len(pairs), 1))
    linked = np.flatnonzero(np.diff(met_group) == 0)
    out: dict[int, Floats] = {}
    if not len(linked):
        return out
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    link = coo_array((np.ones(len(linked)), (met_pair[linked], met_pair[linked + 1])), shape=(len(pairs),) * 2)
    _, label = connected_components(link, directed=False)
    order = np.argsort(label, kind="stable")
    for alike in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        if len(alike) < 2:
            continue
        where = [divmod(int(pairs[i]), slots) for i in alike]
        sizes_B = np.stack([programs[p].columns["bytes_B"][rows[p, s]] for p, s in where])
        most_B = sizes_B.max(axis=0)
        uneven = int((sizes_B.min(axis=0) != most_B).sum())
        if not uneven:
            continue
        notes["collectives differ in size between ranks: all are given the largest"] += uneven
        for p, s in where:
            out.setdefault(p, programs[p].columns["bytes_B"].copy())[rows[p, s]] = most_B
    return out


def _not_empty(programs: Sequence[Ops], sizes_B: dict[int, Floats], notes: Counter[str]) -> dict[int, Floats]:
    """Sizes with one byte for none: who has nothing to send still meets the others, which takes a latency. [B]"""
    for number, one in enumerate(programs):
        size_B = sizes_B.get(number, one.columns["bytes_B"])
        waits = np.array([name == _SIZELESS for name in one.texts["collective"]] + [False])[one.columns["collective"]]
        empty = (one.columns["kind"] >= COLLECTIVE) & (size_B == 0) & ~waits
        if empty.any():
            notes["collectives and messages of 0 bytes take the latency of one byte"] += int(empty.sum())
            sizes_B[number] = np.where(empty, 1.0, size_B)
    return sizes_B
