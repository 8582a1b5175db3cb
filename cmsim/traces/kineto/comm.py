"""Which kernels of a Kineto file communicate, how much, and with whom."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmsim.arrays import Ints
from cmsim.traces import c10d
from cmsim.traces.kineto.events import ANNOTATION, KERNEL, OP, Events, communication_kernel, whole_number
from cmsim.traces.kineto.launch import Launches, Mask
from cmsim.traces.pytorch_et import CollectiveCall
from cmsim.traces.recorded import Communicator

#: an element of a list in a label such as [0, 1, 2]
_LISTED = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class Message:
    """What a kernel does: ``operation`` of `c10d.collective`, size as nccl-tests counts it, the other end or -1."""

    operation: str
    size_B: float
    group: int
    peer: int = -1


@dataclass
class ProcessGroups:
    """Communicators of all ranks of a job, each once.

    listed  members by name, where ``distributedInfo`` lists them
    """

    found: dict[Communicator, int] = field(default_factory=dict)

    def number(self, name: str, members: Sequence[int], size: int) -> int:
        one = Communicator(name, tuple(sorted(set(members))), size)
        return self.found.setdefault(one, len(self.found))


def listed_groups(job: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Members of communicators by name from ``distributedInfo.pg_config``, of those that list all of theirs."""
    out: dict[str, tuple[int, ...]] = {}
    config = job.get("pg_config")
    for one in config if isinstance(config, list) else []:
        if isinstance(one, dict):
            members = _members(one.get("ranks"))
            if members and len(members) == whole_number(one.get("pg_size", len(members))):
                out[str(one.get("pg_name", ""))] = members
    return out


def _members(given: Any) -> tuple[int, ...]:
    """Ranks of a list or of its text; empty where it is cut ("[0, 1, ...]") or says nothing."""
    if isinstance(given, str):
        if "..." in given:
            return ()
        return tuple(sorted({int(one) for one in _LISTED.findall(given)}))
    if isinstance(given, list) and all(type(one) is int and 0 <= one < 2**31 for one in given):
        return tuple(sorted(set(given)))
    return ()


def group_of(given: Mapping[str, Any], listed: Mapping[str, tuple[int, ...]]) -> tuple[str, tuple[int, ...], int]:
    """Name, members (empty: not told) and size (0: not told) of the communicator in an event's arguments."""
    name = str(given.get("Process Group Name", ""))
    size = max(whole_number(given.get("Group size")), 0)
    start, stride = whole_number(given.get("Global rank start")), whole_number(given.get("Global rank stride"))
    for members in (
        _members(given.get("Process Group Ranks")),
        listed.get(name, ()),
        tuple(range(start, start + stride * size, stride)) if start >= 0 < stride and 0 < size < 2**20 else (),
    ):
        if members and len(members) == (size or len(members)):
            return name, members, len(members)
    return name, (), size


def communicates(given: Launches) -> Mask:
    """Device rows that are kernels of a communication library."""
    events = given.events
    names = np.array(
        [communication_kernel(name) != "" or "nccl" in name.lower() or "msccl" in name for name in events.names], bool
    )
    return np.asarray(names[events.name[given.event]] & (events.category[given.event] == KERNEL), bool)


class _Ranges:
    """Host events of one kind, to find the one around a launch."""

    def __init__(self, events: Events, rows: Ints) -> None:
        self._by_lane: dict[int, tuple[Ints, Any, Any]] = {}
        for lane in np.unique(events.lane[rows]).tolist():
            mine = rows[events.lane[rows] == lane]
            mine = mine[np.argsort(events.start_us[mine], kind="stable")]
            self._by_lane[lane] = mine, events.start_us[mine], events.start_us[mine] + events.length_us[mine]

    def around(self, lane: int, moment: float) -> int:
        """The row that starts last among those around a moment; -1 for none."""
        rows, start, end = self._by_lane.get(lane, (_NO_ROWS, _NO_ROWS, _NO_ROWS))
        at = int(np.searchsorted(start, moment, "right")) - 1
        # Ranges of one kind nest a few deep at most.
        for back in range(at, max(at - 8, -1), -1):
            if end[back] >= moment:
                return int(rows[back])
        return -1


_NO_ROWS = np.zeros(0, np.int64)


def messages(
    given: Launches,
    which: Mask,
    groups: ProcessGroups,
    host: Sequence[CollectiveCall] | None,
    world: int,
    counts: Counter[str],
) -> dict[int, Message]:
    """Device rows of which operation, size and group are known.

    which   rows that communicate
    host    calls of the same rank's execution trace, in order
    world   ranks of the job, 0 where unknown
    counts  of what was found how, to say in notes
    """
    events = given.events
    rows = np.flatnonzero(which).tolist()
    out: dict[int, Message] = {}
    group_of_stream: dict[int, int] = {}
    calls = _Ranges(events, _named_calls(events))
    listed = listed_groups(events.job)
    for row in rows:
        own = events.arguments.get(int(given.event[row]), {})
        around = calls.around(*_launch(given, row))
        for how, told in (("kernel's arguments", own), ("host call's arguments", events.arguments.get(around, {}))):
            if row not in out and (found := _from_arguments(told, listed, groups)):
                out[row] = found
                counts[f"by the {how}"] += 1
                group_of_stream[int(given.stream[row])] = found.group
    left = [row for row in rows if row not in out]
    for row, event in _ranges(given, rows, left).items():
        stream = int(given.stream[row])
        if stream not in group_of_stream:
            # A communicator has a stream of its own, and streams come into use in one order on all ranks.
            group_of_stream[stream] = groups.number(f"communicator {len(group_of_stream)}", (), 0)
        group = group_of_stream[stream]
        if found := _from_range(events, event, group, list(groups.found)[group], world):
            out[row] = found
            counts["by the host's range"] += 1
    left = [row for row in rows if row not in out]
    if left and host is not None and len(host) == len(rows):
        for row, call in zip(rows, host, strict=True):
            size_B = c10d.size_B(call.operation, call.in_B, call.out_B, call.size or world)
            if row not in out and not math.isnan(size_B):
                members = call.ranks()
                peer = members[call.place] if 0 <= call.place < len(members) else call.place
                number = groups.number(call.name if members else "communicator 0", members, call.size)
                out[row] = Message(call.operation, size_B, number, peer)
                counts["by the execution trace"] += 1
    sizes = [one.size for one in groups.found]
    alone = [row for row, found in out.items() if sizes[found.group] == 1]
    for row in alone:
        del out[row]
    if alone:
        counts["in a group of one: kernels of recorded time"] += len(alone)
    if len(out) + len(alone) < len(rows):
        counts["of unknown size or members: kernels of recorded time"] += len(rows) - len(out) - len(alone)
    return out


def _launch(given: Launches, row: int) -> tuple[int, float]:
    """Lane and moment of a device row's launch."""
    call = int(given.marks.event[given.mark[row]])
    return (int(given.events.lane[call]), float(given.events.start_us[call])) if call >= 0 else (-1, 0.0)


def _named_calls(events: Events) -> Ints:
    rows = [row for row, told in events.arguments.items() if "Collective name" in told and events.category[row] == OP]
    return np.array(rows, np.int64)


def _from_arguments(
    told: Mapping[str, Any], listed: Mapping[str, tuple[int, ...]], groups: ProcessGroups
) -> Message | None:
    operation = c10d.collective(str(told.get("Collective name", "")))
    if not operation:
        return None
    name, members, size = group_of(told, listed)
    width = c10d.element(str(told.get("dtype", "")))[0]
    inward, outward = whole_number(told.get("In msg nelems")), whole_number(told.get("Out msg nelems"))
    in_B, out_B = (float(count * width) if count >= 0 and width else math.nan for count in (inward, outward))
    peer = -1
    if operation in ("send", "recv"):
        peer = whole_number(told.get("Dst Rank" if operation == "send" else "Src Rank"))
        if peer < 0:
            return None
    size_B = c10d.size_B(operation, in_B, out_B, size)
    return None if math.isnan(size_B) else Message(operation, size_B, groups.number(name, members, size), peer)


def _ranges(given: Launches, rows: Sequence[int], left: Sequence[int]) -> dict[int, int]:
    """The range nccl:<operation> of each of the rows that are left: around its launch, else in order."""
    events = given.events
    named = np.array([name.startswith("nccl:") for name in events.names], bool)
    notes = events.rows(ANNOTATION)
    notes = notes[named[events.name[notes]]]
    found = _Ranges(events, notes)
    around = {row: found.around(*_launch(given, row)) for row in rows}
    used = set(around.values())
    spare = [one for one in notes[np.argsort(events.start_us[notes], kind="stable")].tolist() if one not in used]
    lost = [row for row in left if around[row] < 0]
    if len(spare) == len(lost) and all(
        events.start_us[one] <= given.begin_us[row] for one, row in zip(spare, lost, strict=True)
    ):
        around.update(zip(lost, spare, strict=True))
    return {row: around[row] for row in left if around[row] >= 0}


def _from_range(events: Events, event: int, number: int, group: Communicator, world: int) -> Message | None:
    name, told = events.names[events.name[event]], events.arguments.get(event, {})
    operation = c10d.collective(name)
    dims, types = told.get("Input Dims"), told.get("Input type")
    if not operation or not isinstance(dims, list) or not isinstance(types, list):
        return None
    in_B = 0.0
    for shape, kind in zip(dims, types, strict=False):
        width = c10d.element(str(kind))[0]
        if not width or not isinstance(shape, list) or not all(type(one) is int and one >= 0 for one in shape):
            return None
        in_B += math.prod(shape) * width
    peer = c10d.peer(name)
    if 0 <= peer < len(group.members):
        peer = group.members[peer]
    if operation in ("send", "recv") and peer < 0:
        return None
    size_B = c10d.size_B(operation, in_B, math.nan, group.size or world)
    return None if math.isnan(size_B) else Message(operation, size_B, number, peer)
