"""Who meets whom in a job of which some ranks were recorded and the others run copies of them.

A communicator as recorded tells the groups of the copies too, as groups of one kind share out the ranks of a job:
members in equal steps (start, stride, size) are repeated over the whole job, so that each rank's group has the same
stride and size in the block of stride * size ranks that the rank stands in. Tensor-parallel 0, 1, 2, 3 gives 4, 5, 6,
7 and so on; data-parallel 0, 8 gives 1, 9 up to 7, 15, then 16, 24. All recorded ranks become all ranks of the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from cmsim.arrays import Ints
from cmsim.reading.bytes_in import bad, read_bytes
from cmsim.traces.recorded import Communicator, Trace

#: ranks of a job above which a number in a file is taken for damage
MOST_RANKS = 2**20
#: (rank, group) pairs above which a job is refused: 2 GiB of numbers
MOST_ENTRIES = 2**28


@dataclass(frozen=True)
class Ends:
    """What the slots of one recorded rank stand for, one entry per slot.

    group      into ``Trace.communicators``, -1 for a channel
    peer, tag  of a channel: the other end, and what tells channels of two ranks apart
    sends      whether the rank is the channel's source
    """

    group: Ints
    peer: Ints
    tag: Ints
    sends: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.group)

    def of(self, keys: Ints) -> Ends:
        """Only some of them, in another order."""
        return Ends(group=self.group[keys], peer=self.peer[keys], tag=self.tag[keys], sends=self.sends[keys])


class _Form(NamedTuple):
    """Groups of one kind: every ``stride``-th rank of a block that starts at ``base``; ``members`` where uneven."""

    base: int
    stride: int
    size: int
    members: tuple[int, ...] = ()

    @property
    def block(self) -> int:
        return self.stride * self.size


class _Kind(NamedTuple):
    """A communicator in the job. Groups of one ``number`` are the same communicator on other ranks."""

    form: _Form
    number: int


@dataclass(frozen=True)
class Job:
    """Ranks of a job, the recorded rank that each runs a copy of, and what its communicators are.

    template  shape (ranks,)
    kinds     by position in ``Trace.communicators``, of those that are used
    """

    trace: Trace
    template: Ints
    kinds: dict[int, _Kind] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ranks(self) -> int:
        return len(self.template)


@dataclass(frozen=True)
class Groups:
    """Group of each rank in each slot, shape (ranks, slots), and of each group the kind and where it stands.

    kind   of a communicator; negative: a channel, whose tag is ``tags[-1 - kind]``
    place  first rank of a group, source * ranks + destination of a channel
    """

    table: Ints
    kind: Ints
    place: Ints
    tags: Ints


def job_of(trace: Trace, ranks: int | None, placement: str, used: Iterable[int]) -> Job:
    """Size of the job, who copies whom, and the shape of every communicator that is used.

    placement  of groups known by size only: "contiguous" ranks, or "strided" (every ranks/size-th)
    used       positions in ``Trace.communicators``

    Raises InputError for missing ranks and communicators that do not fit the job.
    """
    given = sorted(trace.ranks)
    if not given:
        raise bad(trace.source, "holds no op to replay")
    size = _size(trace, given, ranks)
    if trace.copies and len(trace.copies) != size:
        raise bad(trace.source, f"is of a job of {len(trace.copies)} ranks, in stages, and of no other: got {size}")
    template = np.array(trace.copies or np.array(given)[np.arange(size) % len(given)], np.int64)
    template[given] = given
    job = Job(trace, template)
    if trace.copies:
        job.notes.append(
            f"{len(given)} ranks have rows of their own ({some(given)}), the first of each stage of {size}"
        )
    elif size > len(given):
        job.notes.append(
            f"{len(given)} of {size} ranks have a file ({some(given)}); "
            f"the other {size - len(given)} run copies of them, rank r that of file r modulo {len(given)}"
        )
    numbers: dict[tuple[object, ...], int] = {}
    like: dict[tuple[object, ...], dict[str, int]] = {}
    for which in sorted(used):
        one = trace.communicators[which]
        form = _form(job, one, placement)
        listed = bool(one.members) and form.size < size
        # several communicators may have the same members: they are told apart by their order
        names = like.setdefault(one.members if listed else form, {})
        key = (names.setdefault(one.name, len(names)), listed, *form._replace(base=form.base % form.block))
        job.kinds[which] = _Kind(form, numbers.setdefault(key, len(numbers)))
    return job


def _size(trace: Trace, given: Sequence[int], ranks: int | None) -> int:
    if ranks is None and not trace.world_size:
        if given != list(range(len(given))):
            missing = sorted(set(range(given[-1] + 1)) - set(given)) if given[-1] < MOST_RANKS else []
            raise bad(
                trace.source,
                f"files of ranks {some(missing)} are missing (there are {some(given)}); "
                "give ranks= to replay copies of the others in their place",
            )
        return len(given)
    size = ranks if ranks is not None else trace.world_size
    if size < 1 or given[-1] >= size:
        raise bad(trace.source, f"has a file of rank {given[-1]}, more than a job of {size} ranks can hold")
    if size > MOST_RANKS:
        raise bad(trace.source, f"a job of {size} ranks; at most {MOST_RANKS} are replayed")
    return size


def some(ranks: Iterable[int]) -> str:
    """Ranks for people, the first eight of many.

    >>> some(range(10))
    '0, 1, 2, 3, 4, 5, 6, 7, ... (10 in all)'
    """
    listed = list(ranks)
    return ", ".join(map(str, listed[:8])) + (f", ... ({len(listed)} in all)" if len(listed) > 8 else "")


def _form(job: Job, one: Communicator, placement: str) -> _Form:
    """The groups of a communicator over the whole job."""
    size, world, members = job.ranks, job.trace.world_size, tuple(sorted(one.members))
    everyone = _Form(0, 1, size)
    if not members and one.size in (0, size):
        return everyone
    if world and (len(members) or one.size) == world and members in ((), tuple(range(world))):
        if world != size:
            job.notes.append(f"{_called(one)} had all {world} recorded ranks; here it has all {size} of the job")
        return everyone
    if not members:
        if one.size < 0 or size % one.size:
            raise bad(
                job.trace.source,
                f"{_called(one)} has {one.size} ranks, and a job of {size} ranks cannot be shared out into groups of "
                "that size; give ranks= a multiple of it",
            )
        how = "every rank in turn" if placement == "contiguous" else f"every {size // one.size}th rank"
        job.notes.append(f"{_called(one)} is known by its size ({one.size}) only: its groups take {how}")
        return _Form(0, 1 if placement == "contiguous" else size // one.size, one.size)
    if members[-1] >= size:
        raise bad(job.trace.source, f"{_called(one)} has rank {members[-1]}, the job has {size} ranks; give ranks=")
    if members == tuple(range(size)):
        return everyone
    stride = members[1] - members[0] if len(members) > 1 else 1
    if members == tuple(range(members[0], members[0] + stride * len(members), stride)):
        return _Form(members[0] - members[0] % stride, stride, len(members))
    return _Form(members[0], 1, len(members), members)


def _called(one: Communicator) -> str:
    return f"communicator '{one.name}'" if one.name else "the communicator of all ranks"


def group_table(job: Job, ends: Mapping[int, Ends]) -> Groups:
    """Groups of all ranks from what the slots of the recorded ones stand for.

    Groups are numbered by rank, then slot. Raises InputError for a rank outside its own communicator, for channels that
    leave the job, and for copies of groups that do not repeat.
    """
    size = job.ranks
    slots = max((len(one) for one in ends.values()), default=0)
    if size * slots > MOST_ENTRIES:
        raise bad(job.trace.source, f"{slots} communicators and channels of a rank times {size} ranks are too many")
    tags = np.unique(np.concatenate([np.zeros(0, np.int64), *(one.tag[one.group < 0] for one in ends.values())]))
    kind = np.zeros((size, slots), np.int64)
    place = np.full((size, slots), -1, np.int64)
    by_template = np.argsort(job.template, kind="stable")
    bounds = np.searchsorted(job.template[by_template], [*sorted(ends), size])
    for number, rank in enumerate(sorted(ends)):
        copies, mine = by_template[bounds[number] : bounds[number + 1]], ends[rank]
        channel = np.flatnonzero(mine.group < 0)
        if len(channel):
            _check_peers(job, rank, mine, channel)
            shift = (copies - rank)[:, None]
            here = np.broadcast_to(copies[:, None], (len(copies), len(channel)))
            there = (mine.peer[channel] + shift) % size
            sends = mine.sends[channel]
            kind[np.ix_(copies, channel)] = -1 - np.searchsorted(tags, mine.tag[channel])
            place[np.ix_(copies, channel)] = np.where(sends, here * size + there, there * size + here)
        for slot in np.flatnonzero(mine.group >= 0).tolist():
            which = int(mine.group[slot])
            kind[copies, slot] = job.kinds[which].number
            place[copies, slot] = _starts(job, which, rank, copies)
    return _numbered(kind, place, tags)


def _numbered(kind: Ints, place: Ints, tags: Ints) -> Groups:
    """Groups in the order in which they come, by rank, then slot."""
    used = np.flatnonzero(place.ravel() >= 0)
    flat_kind, flat_place = kind.ravel()[used], place.ravel()[used]
    places, compact = np.unique(flat_place, return_inverse=True)
    _, first, number = np.unique(flat_kind * len(places) + compact, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank_of = np.empty(len(order), np.int64)
    rank_of[order] = np.arange(len(order))
    table = np.full(kind.size, -1, np.int64)
    table[used] = rank_of[number]
    return Groups(table.reshape(kind.shape), flat_kind[first[order]], flat_place[first[order]], tags)


def _check_peers(job: Job, rank: int, mine: Ends, channel: Ints) -> None:
    wrong = (mine.peer[channel] < 0) | (mine.peer[channel] >= job.ranks) | (mine.peer[channel] == rank)
    if not wrong.any():
        return
    slot = int(channel[np.argmax(wrong)])
    peer, sends = int(mine.peer[slot]), bool(mine.sends[slot])
    source, destination = (rank, peer) if sends else (peer, rank)
    what = f"a {'send' if sends else 'receive'} from rank {source} to rank {destination}"
    if peer == rank:
        raise bad(job.trace.source, f"{what}: a rank does not send to itself")
    raise bad(job.trace.source, f"{what} in a job of {job.ranks} ranks; give ranks= if files are missing")


def _starts(job: Job, which: int, rank: int, copies: Ints) -> Ints:
    """First member of the group of each copy of ``rank``."""
    one, form, size = job.trace.communicators[which], job.kinds[which].form, job.ranks
    if one.members and rank not in one.members and form.size != size:
        raise bad(job.trace.source, f"rank {rank} uses {_called(one)} and is not in it (ranks {some(one.members)})")
    if form.members:
        if (copies != rank).any():
            raise bad(
                job.trace.source,
                f"{_called(one)} has ranks {some(form.members)}, which are no equal steps: the groups of the ranks "
                "without a file (copies) are unknown; give the files of all ranks",
            )
        return np.full(len(copies), form.base)
    block = form.block
    if size % block and (copies != rank).any():
        raise bad(
            job.trace.source,
            f"{_called(one)} has {form.size} ranks ({some(one.members)}), which repeat every {block} ranks: "
            f"they cannot be repeated over {size} ranks; give ranks= a multiple of {block}, or the files of all ranks",
        )
    offset = copies - form.base
    start: Ints = (form.base + offset // block * block + offset % form.stride) % size
    return start


def group_of(job: Job, groups: Groups, number: int) -> tuple[str, tuple[int, ...]]:
    """Name and ranks of a group that is no channel."""
    which = next(which for which, one in job.kinds.items() if one.number == groups.kind[number])
    form, start = job.kinds[which].form, int(groups.place[number])
    found = form.members or tuple((start + i * form.stride) % job.ranks for i in range(form.size))
    return _called(job.trace.communicators[which]), tuple(sorted(found))


def sizes_of(job: Job, groups: Groups) -> Ints:
    """Ranks of each group, 2 for channels."""
    size = np.full(len(job.kinds) + 1, 2, np.int64)
    for form, number in job.kinds.values():
        size[number] = form.size
    return size[np.maximum(groups.kind, -1)]


def placed(placement: Sequence[int] | Mapping[int, int], size: int, source: str) -> Ints:
    """Rank of the system that each rank of the job runs on, from a list or mapping. Raises InputError."""
    ranks = range(size)
    places = [placement.get(rank, -1) for rank in ranks] if isinstance(placement, Mapping) else list(placement)
    if len(placement) != size or sorted(places) != list(ranks):
        raise bad(source, f"the placement has {len(placement)} entries; expected each of 0 to {size - 1} once")
    return np.array(places, np.int64)


def read_placement(path: Path | str) -> list[int] | dict[int, int]:
    """Where ranks run, from a JSON file: a list (rank r on its r-th entry) or ``{"rank": place}``.

    Raises InputError.
    """
    path = Path(path)
    try:
        data: Any = orjson.loads(read_bytes(path))
    except orjson.JSONDecodeError as error:
        raise bad(path, f"not valid JSON ({error.msg})", byte=error.pos) from None
    places = list(data.values()) if isinstance(data, dict) else data
    if not isinstance(places, list) or not all(type(place) is int and place >= 0 for place in places):
        raise bad(path, 'not a placement: expected a list of ranks of the system, or {"rank": rank of the system}')
    if not isinstance(data, dict):
        return places
    wrong = next((rank for rank in data if not (rank.isascii() and rank.isdigit() and len(rank) < 10)), None)
    if wrong is not None:
        raise bad(path, f"not a placement: '{wrong:.20}' is no rank")
    return {int(rank): place for rank, place in data.items()}
