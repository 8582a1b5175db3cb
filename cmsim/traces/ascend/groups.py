"""Communication ops of the Ascend profilers as collectives, sends and receives, and who is in their communicators.

What an op's ``count`` counts (HCCL's own reporting, and the arguments of its interface): all-reduce, broadcast and
reduce the vector; all-gather, reduce-scatter and scatter what one rank puts in or gets out; all-to-all what goes to one
rank; all-to-all-v what one rank sends in all. Sizes here are nccl-tests' (see ``cmsim.collectives``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cmsim.traces.ascend.documents import LinkTraffic, NamedGroup
from cmsim.traces.ascend.view import comm_op
from cmsim.traces.recorded import Communicator

SEND, RECEIVE = "send", "receive"
#: op words in small letters: our collective, and whether the count is one rank's share of what nccl-tests counts
COLLECTIVES: dict[str, tuple[str, bool]] = {
    "allreduce": ("all_reduce", False),
    "allgather": ("all_gather", True),
    "allgatherv": ("all_gather", True),
    "reducescatter": ("reduce_scatter", True),
    "reducescatterv": ("reduce_scatter", True),
    "broadcast": ("broadcast", False),
    "reduce": ("reduce", False),
    "alltoall": ("all_to_all", True),
    "alltoallv": ("all_to_all", False),
    "alltoallvc": ("all_to_all", False),
    "scatter": ("scatter", True),
    "gather": ("gather", True),
    "barrier": ("barrier", False),
}
#: ops whose shares may differ from rank to rank
UNEQUAL = ("allgatherv", "reducescatterv", "alltoallv", "alltoallvc")
#: what a rank of an all-gather moves over its links: the shares of all but itself, whatever the algorithm
_SENDS_ALL = ("allgather", "broadcast", "alltoall", "alltoallv", "allreduce")
_MARKS = re.compile(r"__(\d{1,20})_(\d{1,9})(?:_(\d{1,9}))?(?:@|$)")
_LOCAL = "LOCAL"


@dataclass(frozen=True)
class CommRow:
    """One whole communication op of a rank.

    word     of the op in small letters ("allreduce"), key: of its communicator
    queue    the in-order queue it stands on
    size_B   count times bytes of an element as recorded, -1 unknown [B]
    moved_B  over links of this rank, -1 unknown [B]
    peers    local ranks of the other end, as far as its own tasks say
    hw       stream of the device it runs on, "" unknown
    """

    name: str
    word: str
    key: str
    queue: str
    start_ns: int
    duration_us: float
    size_B: float = -1.0
    moved_B: float = -1.0
    peers: tuple[int, ...] = ()
    hw: str = ""


def word_of(name: str) -> str:
    """The op's word.

    >>> word_of("hcom_allReduce__586_0_1"), word_of("hcom_BatchSendRecv__1_2"), word_of("Add")
    ('allreduce', 'batchsendrecv', 'add')
    """
    return comm_op(name).lower().removeprefix("hcom_").rstrip("_")


def marks_of(name: str) -> tuple[str, str]:
    """Last digits of the communicator's id, and what tells the op from others of the communicator.

    >>> marks_of("hcom_send__822_0"), marks_of("Add")
    (('822', '0'), ('', ''))
    """
    found = _MARKS.search(name)
    return (found[1], "_".join(part for part in (found[2], found[3]) if part)) if found else ("", "")


@dataclass
class Seen:
    """What the files of all ranks say about one communicator.

    local     local rank of each rank
    ends      of each rank's sends and receives, by name: local ranks they have links with
    links     of all ranks: (local source, local destination, transport)
    meshed    an algorithm was named, and each was a full mesh on its first level (None: none was named)
    spreading an op was seen that moves data between any two ranks
    """

    ranks: set[int] = field(default_factory=set)
    local: dict[int, int] = field(default_factory=dict)
    ends: dict[tuple[int, str], set[int]] = field(default_factory=dict)
    links: set[tuple[int, int, str]] = field(default_factory=set)
    meshed: bool | None = None
    spreading: bool = False

    def add_links(self, rank: int, links: Iterable[LinkTraffic]) -> None:
        own = set()
        for link in links:
            self.links.add((link.src, link.dst, link.transport))
            own.add(link.src)
            if link.kind == "p2p" and link.src != link.dst:
                self.ends.setdefault((rank, link.name), set()).update((link.src, link.dst))
            self.spreading |= link.op.lower().startswith(_SENDS_ALL) or word_of(link.op) in _SENDS_ALL
        if len(own) == 1:
            self.local[rank] = own.pop()

    def size(self) -> int:
        """Ranks by the links, 0 where these do not tell.

        A rank of a full mesh has a link to each other. Two transports mean a hierarchy: then only those of the same
        node, and one of each other node, have links.
        """
        between = {(src, dst, transport) for src, dst, transport in self.links if src != dst}
        ends = {end for src, dst, _ in self.links for end in (src, dst)}
        if not between:
            return 1 if ends == {0} and self.spreading else 0
        if self.meshed is False or len({transport for _, _, transport in between}) > 1:
            return 0
        return len(ends) if ends == set(range(len(ends))) else 0

    def from_zero(self) -> bool:
        """The ranks that are here stand at their own numbers: the communicator starts at rank 0 without gaps."""
        return any(self.local.values()) and all(self.local.get(rank) == rank for rank in self.ranks)

    def at_least(self) -> int:
        return max((max(src, dst) + 1 for src, dst, _ in self.links), default=0)


class Communicators:
    """Communicators of a job by their keys, numbered in order of first use."""

    def __init__(self, seen: Mapping[str, Seen], named: Sequence[NamedGroup], world_size: int) -> None:
        self.list: list[Communicator] = []
        self.index: dict[str, int] = {}
        self.notes: Counter[str] = Counter()
        self.world_size = world_size
        self.seen = seen
        self._named = named
        for key in seen:
            self.index[key] = len(self.list)
            members, size = self._who(key, seen[key])
            self.list.append(Communicator(name=key, members=members, size=len(members) or size))

    def size(self, key: str) -> int:
        """How many ranks, 0 where no file says."""
        return self.list[self.index[key]].size

    def rank_at(self, key: str, local: int) -> int:
        """The rank of a local rank, -1 where no file says."""
        members = self.list[self.index[key]].members
        if members:
            return members[local] if local < len(members) else -1
        return local if self.seen[key].from_zero() else -1

    def _who(self, key: str, seen: Seen) -> tuple[tuple[int, ...], int]:
        size = seen.size()
        for group in self._named:
            if group.id and group.id == key and seen.ranks <= set(group.members):
                self.notes["communicators named by a side file"] += 1
                return group.members, len(group.members)
        fitting = {group.members for group in self._named if group.members and self._fits(group.members, seen, size)}
        if len(fitting) == 1:
            self.notes["communicators found in a side file by their members"] += 1
            return fitting.pop(), 0
        if size and size == self.world_size:
            self.notes["communicators of all ranks of the job, by the size of their links"] += 1
            return tuple(range(size)), size
        if size and seen.from_zero():
            self.notes["communicators of the size of their links, from rank 0 on"] += 1
            return tuple(range(size)), size
        if size and size == len(seen.ranks):
            self.notes["communicators of the ranks that share their id"] += 1
            return tuple(sorted(seen.ranks)), size
        if size:
            self.notes["communicators of the size of their links, members unknown"] += 1
            return (), size
        if self.world_size and self.world_size == len(seen.ranks):
            self.notes["communicators of the ranks that share their id"] += 1
            return tuple(sorted(seen.ranks)), self.world_size
        least = max(seen.at_least(), len(seen.ranks))
        self.notes[f"communicators whose size no file says (at least {least}): all ranks of the job"] += 1
        return (), self.world_size

    @staticmethod
    def _fits(members: tuple[int, ...], seen: Seen, size: int) -> bool:
        if not seen.ranks <= set(members) or len(members) < seen.at_least() or (size and len(members) != size):
            return False
        return all(local < len(members) and members[local] == rank for rank, local in seen.local.items())


def size_B(row: CommRow, members: int) -> float:
    """Size as nccl-tests counts it, -1 where the files do not tell. [B]"""
    if row.word in (SEND, RECEIVE):
        return row.size_B if row.size_B >= 0 else (row.moved_B if row.word == SEND and row.moved_B > 0 else -1.0)
    if row.word == "barrier":
        return 0.0
    _, share = COLLECTIVES[row.word]
    if row.size_B >= 0 and (members or not share):
        return row.size_B * (members if share else 1)
    if row.word == "allgather" and row.moved_B > 0 and members > 1:
        return row.moved_B * members / (members - 1)
    return -1.0
