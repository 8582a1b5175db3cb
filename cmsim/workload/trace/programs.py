"""A Chakra job as programs: ops in an order that honours their dependencies, equal ranks sharing one program.

What becomes of a node (rules in the order they are tried):

- METADATA: nothing; what depends on it depends on what it depends on.
- COMM_* on the host, or without ``comm_size`` (barriers excepted): the host's half of a collective, or a kernel
  of which only the time is known. Replayed as host or compute work.
- COMM_COLL: a collective over its communicator, sized as nccl-tests sizes it.
- COMM_SEND, COMM_RECV: one side of a channel (source, destination, tag), matched in order.
- MEM_LOAD, MEM_STORE: a kernel without FLOPs on the stream "memory".
- COMP: host work where ``is_cpu_op`` is set, else a kernel; its name says of which class.

FLOPs count as 16-bit work of the matrix engine: no trace names a precision, and every accelerator has that one.

Streams are in-order queues: "host", "compute", "memory", "comm"; "stream N" where the trace recorded one. Two
communicators never share a made-up queue ("comm", "comm 1", ...), and each channel has its own ("send 0", "recv 1",
...): a shared queue would add waits between ranks that the trace does not have, and could lock them up.

A profiler's file says which host op launched a kernel, not which kernels a collective waits for. There the order is
that of the launches, and communication waits for the kernels launched before it, as the framework has its
communication stream wait for an event on the compute stream. Source: PyTorch, ProcessGroupNCCL, syncStreams.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmsim.units import US
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND, Floats, Ints, ProgramBuilder, Programs, assemble
from cmsim.workload.trace import chakra
from cmsim.workload.bytes_in import LIMIT_B, bad
from cmsim.workload.trace.chakra import COMM_TYPES, ChakraFile
from cmsim.workload.trace.job import ChakraJob, read_job
from cmsim.workload.trace.kernels import OTHER, kernel_class
from cmsim.workload.trace.order import in_order, launch_order, launched_before, needed_deps

_DROP = -1
_PRECISION = "bf16"
_BARRIER = COMM_TYPES.index("BARRIER")

#: Chakra's collectives: ours, and whether comm_size is one rank's share of what nccl-tests counts
_COLLECTIVES = {
    "ALL_REDUCE": ("all_reduce", False),
    "REDUCE": ("reduce", False),
    "ALL_GATHER": ("all_gather", True),
    "GATHER": ("all_gather", True),  # as many bytes into the root as an all-gather brings to every rank
    "SCATTER": ("reduce_scatter", False),  # as many bytes out of the root as a reduce-scatter takes from every rank
    "BROADCAST": ("broadcast", False),
    "ALL_TO_ALL": ("all_to_all", False),
    "REDUCE_SCATTER": ("reduce_scatter", False),
    "REDUCE_SCATTER_BLOCK": ("reduce_scatter", False),
    "BARRIER": ("barrier", False),
}
_SUBSTITUTED = {"GATHER": "all_gather", "SCATTER": "reduce_scatter", "REDUCE_SCATTER_BLOCK": "reduce_scatter"}

#: (communicator, ranks), no ranks meaning all of them; or ("", (source, destination), tag) for a channel
Key = tuple[Any, ...]


class _Op(NamedTuple):
    """One op; everything but the name tells programs apart."""

    kind: int
    stream: str
    slot: int
    collective: str
    kernel: str
    bytes_B: float
    flops: float
    recorded_s: float
    after: tuple[int, ...]
    name: str


@dataclass(frozen=True)
class _Lowered:
    """One file's ops in order; ``slots`` holds what each local slot number stands for on this rank."""

    ops: list[_Op]
    slots: list[Key]
    digest: bytes


def read(path: Path | str, *, ranks: int | None = None, limit_B: int = LIMIT_B) -> Programs:
    """Files to programs in one go; see `read_job` and `programs`."""
    return programs(read_job(path, limit_B=limit_B), ranks=ranks)


def programs(job: ChakraJob, *, ranks: int | None = None, host_ops: bool = True) -> Programs:
    """The job's programs.

    ranks     size of the job; ranks without a file run copies of the given ones. None: one rank per file
    host_ops  replay host work too; without it, kernels wait for the kernels before them only

    Raises InputError for missing ranks, cycles, and collectives or channels that can never meet.
    """
    given = tuple(job.files)
    size = _size(job, given, ranks)
    notes = _Notes()
    lowered: dict[int, _Lowered] = {}
    unknown = _unknown_groups(job)
    for rank, file in job.files.items():
        lowered[rank] = _lower(job, rank, file, size, unknown, host_ops, notes)
    template = np.array([r if r in lowered else given[r % len(given)] for r in range(size)], np.int64)
    if size > len(given):
        notes.say(
            f"{len(given)} of {size} ranks have a file ({_some(given)}); "
            f"the other {size - len(given)} run copies of them, rank r that of file r modulo {len(given)}"
        )
    slots = {rank: _keys(lowered[int(t)].slots, rank - int(t), size) for rank, t in enumerate(template)}
    _check(job, slots, [lowered[int(t)] for t in template])

    numbers: dict[bytes, int] = {}
    for rank in given:
        numbers.setdefault(lowered[rank].digest, len(numbers))
    first = {numbers[lowered[rank].digest]: rank for rank in reversed(given)}
    builders = [_builder(lowered[first[i]].ops) for i in range(len(numbers))]
    if not any(len(build) for build in builders):
        raise bad(job.source, "holds no op to replay")
    group_ids: dict[Key, int] = {}
    table = np.full((size, max((len(keys) for keys in slots.values()), default=0)), -1, np.int64)
    for rank, keys in slots.items():
        for slot, key in enumerate(keys):
            table[rank, slot] = group_ids.setdefault(key, len(group_ids))
    return assemble(
        builders,
        program=np.array([numbers[lowered[int(t)].digest] for t in template], np.int64),
        groups={_slot(i): table[:, i] for i in range(table.shape[1])},
        notes=(*job.notes, *notes.lines()),
    )


class _Notes:
    """Assumptions to say, each once; counts add up over the files."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lines: dict[str, None] = {}

    def say(self, line: str) -> None:
        self._lines[line] = None

    def count(self, what: str, number: int) -> None:
        if number:
            self._counts[what] += int(number)

    def lines(self) -> list[str]:
        return [*self._lines, *(f"{number} {what}" for what, number in sorted(self._counts.items()))]


# -- ranks and communicators -------------------------------------------------------------------------------


def _size(job: ChakraJob, given: Sequence[int], ranks: int | None) -> int:
    if ranks is None:
        if given != tuple(range(len(given))):
            missing = sorted(set(range(given[-1] + 1)) - set(given)) if given[-1] < 10**6 else []
            raise bad(
                job.source,
                f"files of ranks {_some(missing)} are missing (there are {_some(given)}); "
                "give ranks= to replay copies of the others in their place",
            )
        return len(given)
    if ranks < 1 or given[-1] >= ranks:
        raise bad(job.source, f"has a file of rank {given[-1]}, more than a job of {ranks} ranks can hold")
    return ranks


def _some(ranks: Iterable[int]) -> str:
    listed = list(ranks)
    return ", ".join(map(str, listed[:8])) + (f", ... ({len(listed)} in all)" if len(listed) > 8 else "")


def _unknown_groups(job: ChakraJob) -> dict[str, tuple[int, ...]]:
    """Ranks that use each communicator that nothing defines."""
    users: dict[str, list[int]] = {}
    for rank, file in job.files.items():
        for name in sorted({pg for pg, t in zip(file.pg_name, file.type, strict=True) if pg and t == chakra.COMM_COLL}):
            if _defined(job, file, name) is None:
                users.setdefault(name, []).append(rank)
    return {name: tuple(ranks) for name, ranks in users.items()}


def _defined(job: ChakraJob, file: ChakraFile, name: str) -> tuple[int, ...] | None:
    """Ranks of a communicator: the side file first, then this rank's own file, then the others. () is all ranks."""
    for table in (job.groups, file.groups, *(other.groups for other in job.files.values())):
        if name in table:
            return table[name]
    return None


def _group(
    job: ChakraJob,
    rank: int,
    file: ChakraFile,
    name: str,
    size: int,
    unknown: Mapping[str, tuple[int, ...]],
    notes: _Notes,
) -> Key:
    if not name:
        return "", ()
    members = _defined(job, file, name)
    if members is None:
        members = unknown[name]
        members = () if len(members) == len(job.files) else members
        notes.say(f"communicator '{name}' is not defined; read as {'all ranks' if not members else 'all its users'}")
    if not members or len(members) == size == members[-1] + 1:
        return name, ()
    if members[-1] >= size:
        raise bad(file.path, f"communicator '{name}' has rank {members[-1]}, the job has {size} ranks; give ranks=")
    if rank not in members:
        raise bad(file.path, f"rank {rank} uses communicator '{name}' and is not in it (ranks {_some(members)})")
    return name, members


def _keys(keys: Sequence[Key], shift: int, size: int) -> list[Key]:
    """What the slots of a copy stand for: everyone's ranks moved by ``shift``, modulo the job's size."""
    if not shift:
        return list(keys)
    out: list[Key] = []
    for name, members, *tag in keys:
        moved = tuple((r + shift) % size for r in members)
        out.append((name, moved, *tag) if tag else (name, tuple(sorted(moved))))
    return out


def _check(job: ChakraJob, slots: dict[int, list[Key]], ops: Sequence[_Lowered]) -> None:
    """Refuse what can never meet: members that issue other collectives than the rest, sends without receives."""
    counted: dict[int, list[tuple[list[str], int, int]]] = {}
    meets: dict[Key, list[tuple[int, list[str]]]] = {}
    balance: dict[Key, list[int]] = {}
    for rank, keys in slots.items():
        low = ops[rank]
        if id(low) not in counted:
            counted[id(low)] = _per_slot(low)
        for key, (names, sends, recvs) in zip(keys, counted[id(low)], strict=True):
            if len(key) == 3:
                both = balance.setdefault(key, [0, 0])
                both[0] += sends
                both[1] += recvs
            else:
                meets.setdefault(key, []).append((rank, names))
    for key, users in meets.items():
        name = f"communicator '{key[0]}'" if key[0] else "the communicator of all ranks"
        absent = set(key[1] or slots) - {rank for rank, _ in users}
        if absent:
            raise bad(job.source, f"{name}: rank {users[0][0]} waits for rank {min(absent)}, which never joins")
        for rank, names in users[1:]:
            if names != users[0][1]:
                here = ", ".join(f"{n} {c}" for c, n in sorted(Counter(names).items()))
                there = ", ".join(f"{n} {c}" for c, n in sorted(Counter(users[0][1]).items()))
                where = "in another order" if here == there else f"({here} against {there})"
                raise bad(job.source, f"{name}: rank {rank} issues other collectives than rank {users[0][0]} {where}")
    for (_, (source, destination), tag), (sends, recvs) in balance.items():
        if sends != recvs:
            raise bad(
                job.source,
                f"channel {source} -> {destination}, tag {tag}: {sends} sends and {recvs} receives; "
                "are the files of all ranks there?",
            )


def _per_slot(low: _Lowered) -> list[tuple[list[str], int, int]]:
    """Collectives, sends and receives of each slot."""
    out: list[tuple[list[str], int, int]] = [([], 0, 0) for _ in low.slots]
    for op in low.ops:
        if op.kind == COLLECTIVE:
            out[op.slot][0].append(op.collective)
        elif op.slot >= 0:
            names, sends, recvs = out[op.slot]
            out[op.slot] = (names, sends + (op.kind == SEND), recvs + (op.kind == RECV))
    return out


# -- one file ----------------------------------------------------------------------------------------------


def _lower(
    job: ChakraJob,
    rank: int,
    file: ChakraFile,
    size: int,
    unknown: Mapping[str, tuple[int, ...]],
    host_ops: bool,
    notes: _Notes,
) -> _Lowered:
    kind = _kinds(file, notes)
    keys: dict[int, Key] = {}
    groups: dict[str, Key] = {}
    for row in np.flatnonzero(kind >= COLLECTIVE).tolist():
        if kind[row] == COLLECTIVE:
            name = file.pg_name[row]
            if name not in groups:
                groups[name] = _group(job, rank, file, name, size, unknown, notes)
            keys[row] = groups[name]
        else:
            keys[row] = _channel(file, row, rank, int(kind[row]), size)
    if not host_ops:
        notes.count("host ops left out", int((kind == HOST).sum()))
        kind = np.where(kind == HOST, _DROP, kind)
    launched = launch_order(file)
    order = in_order(file, keys) if launched is None else launched
    slots: dict[Key, int] = {}
    for row in order:
        if row in keys:
            slots.setdefault(keys[row], len(slots))
    slot = {row: slots[key] for row, key in keys.items()}
    streams = _streams(file, kind.tolist(), slot)
    before = {} if launched is None else launched_before(order, (kind == COMPUTE).tolist(), keys, streams)
    after = needed_deps(file, order, streams, before)
    _say_order(file, kind, before, notes)
    size_B = _sizes(file, kind, keys, size)
    recorded_s = _recorded(file, kind, notes)
    flops = np.where(kind == COMPUTE, file.num_ops, 0.0)
    kernel = _classes(file, kind, flops, recorded_s, notes)
    ops = [
        _Op(
            kind=int(kind[row]),
            stream=streams[row],
            slot=slot.get(row, -1),
            collective=_COLLECTIVES[COMM_TYPES[_comm_type(file, row)]][0] if kind[row] == COLLECTIVE else "",
            kernel=kernel[row],
            bytes_B=float(size_B[row]),
            flops=float(flops[row]),
            recorded_s=float(recorded_s[row]),
            after=after[row],
            name=file.name[row],
        )
        for row in order
        if streams[row]
    ]
    text = repr([op[:-1] for op in ops])
    return _Lowered(ops=ops, slots=list(slots), digest=hashlib.sha256(text.encode()).digest())


def _kinds(file: ChakraFile, notes: _Notes) -> Ints:
    """What each node becomes, and the notes on the ways of its producer."""
    node, host = file.type, file.is_cpu == 1
    collective, p2p = node == chakra.COMM_COLL, (node == chakra.COMM_SEND) | (node == chakra.COMM_RECV)
    sized = ~np.isnan(file.comm_size_B) | (file.comm_type == _BARRIER)
    twin = (collective | p2p) & (host | ~sized)
    kind = np.where(host, HOST, COMPUTE)
    kind = np.where(collective & ~twin, COLLECTIVE, kind)
    kind = np.where((node == chakra.COMM_SEND) & ~twin, SEND, kind)
    kind = np.where((node == chakra.COMM_RECV) & ~twin, RECV, kind)
    kind = np.where(node == chakra.METADATA, _DROP, kind)
    notes.count("communication nodes of the host replayed as host work", int((twin & host).sum()))
    notes.count("communication nodes without comm_size replayed as kernels", int((twin & ~host).sum()))
    untyped = int(((kind == COLLECTIVE) & (file.comm_type < 0)).sum())
    notes.count("collectives without comm_type read as all-reduce (the schema's default)", untyped)
    for name, ours in _SUBSTITUTED.items():
        found = int(((kind == COLLECTIVE) & (file.comm_type == COMM_TYPES.index(name))).sum())
        notes.count(f"{name} collectives replayed as {ours}", found)
    notes.count("collectives over some network dimensions (involved_dim) read as over all", file.partial_dims)
    notes.count("dependencies on nodes that are not in the file dropped", file.missing_deps)
    if file.call_tree:
        notes.count("ctrl_deps not used as order: they are the profiler's call tree", file.ctrl_deps)
    return kind.astype(np.int64)


def _say_order(file: ChakraFile, kind: Ints, before: Mapping[int, Sequence[int]], notes: _Notes) -> None:
    """Note how kernels and communication are ordered where the file says little about it."""
    notes.count(
        "communication ops wait for the kernels launched before them: inferred, the trace names launches only",
        sum(map(bool, before.values())),
    )
    here, there = np.repeat(kind, np.diff(file.dep_ptr)), kind[file.dep_idx]
    mixed = (kind >= COLLECTIVE).any() and (kind == COMPUTE).any() and (file.is_cpu == 1).any()
    if mixed and not ((here == COMPUTE) & (there >= COLLECTIVE)).any():
        also = "" if before or ((here >= COLLECTIVE) & (there == COMPUTE)).any() else ", nor the other way round"
        notes.say(
            f"no dependency has a kernel wait for communication{also}: "
            "a replay overlaps them more than the real run could"
        )


def _classes(file: ChakraFile, kind: Ints, flops: Floats, recorded_s: Floats, notes: _Notes) -> list[str]:
    """Class of each kernel, "" for other ops: by its name where its time was recorded, else left to the roofline."""
    kernel = kind == COMPUTE
    modelled = np.isnan(recorded_s)
    notes.count(
        "kernels without a recorded time priced by the roofline of FLOPs and bytes", int((kernel & modelled).sum())
    )
    notes.count(f"kernels with FLOPs, read as {_PRECISION} on the matrix engine", int((flops > 0).sum()))
    by_name = {name: kernel_class(name) for name in set(file.name)}
    return [
        ("" if not device else OTHER if unknown else by_name[name])
        for name, device, unknown in zip(file.name, kernel.tolist(), modelled.tolist(), strict=True)
    ]


def _comm_type(file: ChakraFile, row: int) -> int:
    return max(int(file.comm_type[row]), 0)


def _sizes(file: ChakraFile, kind: Ints, keys: Mapping[int, Key], size: int) -> Floats:
    """Bytes of each op; collectives as nccl-tests counts them (all-gather: the whole gathered array). [B]"""
    size_B = np.where(kind == COMPUTE, file.tensor_size_B, 0.0)
    for row, key in keys.items():
        given_B = float(np.nan_to_num(file.comm_size_B[row]))
        if kind[row] == COLLECTIVE and _COLLECTIVES[COMM_TYPES[_comm_type(file, row)]][1]:
            given_B *= len(key[1]) or size
        size_B[row] = given_B
    return size_B


def _recorded(file: ChakraFile, kind: Ints, notes: _Notes) -> Floats:
    """Recorded time: a duration of 0 means unknown, NaN where FLOPs or bytes can price the op instead. [s]"""
    recorded_s = file.duration_us * US
    work = (kind == COMPUTE) | (kind == HOST)
    unknown = work & (file.duration_us == 0)
    priced = unknown & (kind == COMPUTE) & ((file.num_ops > 0) | (file.tensor_size_B > 0))
    notes.count(
        "kernels and host ops of unknown length (duration 0, no FLOPs or bytes) take no time", (unknown & ~priced).sum()
    )
    return np.where(work & ~priced, recorded_s, np.nan)


def _channel(file: ChakraFile, row: int, rank: int, kind: int, size: int) -> Key:
    """The channel of a send or receive; the file's rank is the end that the node leaves out."""
    source = rank if kind == SEND and file.comm_src[row] < 0 else int(file.comm_src[row])
    destination = rank if kind == RECV and file.comm_dst[row] < 0 else int(file.comm_dst[row])
    place = f"node {file.id[row]}: a {'send' if kind == SEND else 'receive'} from rank {source} to rank {destination}"
    if (source if kind == SEND else destination) != rank:
        raise bad(file.path, f"{place} in the file of rank {rank}")
    if min(source, destination) < 0 or max(source, destination) >= size:
        raise bad(file.path, f"{place} in a job of {size} ranks; give ranks= if files are missing")
    if source == destination:
        raise bad(file.path, f"{place}: a rank does not send to itself")
    return "", (source, destination), int(file.comm_tag[row])


def _streams(file: ChakraFile, kind: Sequence[int], slot: Mapping[int, int]) -> list[str]:
    """The queue of each op, "" for a node that is not replayed."""
    out: list[str] = []
    for row, what in enumerate(kind):
        if what == _DROP:
            out.append("")
        elif what == HOST:
            out.append("host")
        elif what in (SEND, RECV):
            out.append(f"{'send' if what == SEND else 'recv'} {slot[row]}")
        elif file.stream[row]:
            out.append(f"stream {file.stream[row]}")
        elif what == COLLECTIVE:
            out.append(f"comm {slot[row]}" if slot[row] else "comm")
        else:
            out.append("memory" if file.type[row] in (chakra.MEM_LOAD, chakra.MEM_STORE) else "compute")
    return out


# -- programs ----------------------------------------------------------------------------------------------


def _slot(number: int) -> str:
    return f"group {number}"


def _builder(ops: Sequence[_Op]) -> ProgramBuilder:
    build = ProgramBuilder()
    for op in ops:
        if op.kind == COMPUTE:
            build.compute(
                op.name,
                stream=op.stream,
                kernel=op.kernel,
                precision=_PRECISION if op.flops else "",
                flops=op.flops,
                bytes_B=op.bytes_B,
                recorded_s=op.recorded_s,
                after=op.after,
            )
        elif op.kind == HOST:
            build.host(op.name, stream=op.stream, recorded_s=op.recorded_s, after=op.after)
        elif op.kind == COLLECTIVE:
            build.collective(
                op.name,
                stream=op.stream,
                collective=op.collective,
                size_B=op.bytes_B,
                slot=_slot(op.slot),
                after=op.after,
            )
        else:
            add = build.send if op.kind == SEND else build.recv
            add(op.name, stream=op.stream, size_B=op.bytes_B, slot=_slot(op.slot), after=op.after)
    return build
