"""A Chakra job as a recorded trace: what becomes of a node, how it is sized, who its communicator is.

Nodes (rules in the order they are tried):

- METADATA: nothing; what depends on it depends on what it depends on.
- COMM_* on the host, or without ``comm_size`` (barriers excepted): the host's half of a collective, or a kernel
  of which only the time is known. Host or compute work.
- COMM_COLL: a collective over its communicator, sized as nccl-tests sizes it.
- COMM_SEND, COMM_RECV: one side of a channel (source, destination, tag), matched in order.
- MEM_LOAD, MEM_STORE: a kernel without FLOPs on the stream "memory".
- COMP: host work where ``is_cpu_op`` is set, else a kernel; its name says of which class.

Rows stand in the order of ids, so that the order of a file's nodes changes nothing. Files that cmsim wrote keep their
order and their queues.

A profiler's file says which host op launched a kernel, not which kernels a collective waits for. There the order is
that of the launches, and communication waits for the kernels launched before it, as the framework has its
communication stream wait for an event on the compute stream. Source: PyTorch, ProcessGroupNCCL, syncStreams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.reading.bytes_in import LIMIT_B, bad, head
from cmsim.traces import order as orders
from cmsim.traces.chakra import file as chakra
from cmsim.traces.chakra.file import COMM_TYPES, ChakraFile
from cmsim.traces.chakra.job import ChakraJob, looks_like_groups, read_groups, read_job
from cmsim.traces.chakra.write import SCHEMA
from cmsim.traces.kernels import OTHER, kernel_class
from cmsim.traces.recorded import PASS, Communicator, RankTrace, Trace, coded
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, KINDS, RECV, SEND

_BARRIER = COMM_TYPES.index("BARRIER")
#: metadata of files that cmsim wrote
_FACT = "cmsim_fact "

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
_SHARES = np.array([_COLLECTIVES[name][1] for name in COMM_TYPES])


@dataclass(frozen=True)
class OpenedChakra:
    """The files of a job, read. See `cmsim.traces.recorded.Opened`."""

    job: ChakraJob

    def counts(self) -> dict[str, Any]:
        """Of one file its counts; of a folder the sums, and where there are several files the counts of each."""
        counts = {file.path.name: file.counts() for file in self.job.files.values()}
        sums = chakra.set_counts(self.job.files.values())
        if len(counts) == 1:
            (one,) = counts.values()
            return {**one, **sums} if Path(self.job.source).is_dir() else one
        kind = next(iter(counts.values()))["format"]
        return {"format": kind, **sums, "groups": {n: list(r) for n, r in self.job.groups.items()}, "files": counts}

    def trace(self, *, ranks: int | None = None) -> Trace:
        """The ops of all files; `to_trace`."""
        return to_trace(self.job, ranks=ranks)


@dataclass(frozen=True)
class OpenedGroups:
    """The side file of a job by itself. See `cmsim.traces.recorded.Opened`."""

    path: Path
    groups: Mapping[str, tuple[int, ...]]

    def counts(self) -> dict[str, Any]:
        """The communicators."""
        return chakra.group_counts(self.groups)

    def trace(self, *, ranks: int | None = None) -> Trace:  # noqa: ARG002 (all that is opened is asked alike)
        """Raises InputError: there are no ops in it."""
        raise bad(self.path, f"{len(self.groups)} communicators and no ops; open the folder of the job")


def open_(path: Path, *, limit_B: int = LIMIT_B) -> OpenedChakra | OpenedGroups:
    """A file, a folder with the files of a job, or the file of its communicators. Raises InputError."""
    if path.is_file() and looks_like_groups(head(path)):
        return OpenedGroups(path, read_groups(path))
    return OpenedChakra(read_job(path, limit_B=limit_B))


def to_trace(job: ChakraJob, *, ranks: int | None = None) -> Trace:
    """The job as recorded; ``ranks``, its size where not every rank has a file, scales all-gathers over all ranks.

    Raises InputError for nodes that wait for each other in a circle and messages of other ranks.
    """
    size = ranks if ranks is not None else len(job.files)
    notes = _Notes()
    known: dict[tuple[str, tuple[int, ...]], int] = {}
    unknown = _unknown_groups(job)
    made = {
        rank: _rank(rank, file, _Groups(job, file, size, unknown, known, notes), notes)
        for rank, file in job.files.items()
    }
    return Trace(
        format="chakra",
        source=job.source,
        ranks=made,
        communicators=tuple(Communicator(name, members) for name, members in known),
        facts=_facts(job),
        notes=(*job.notes, *notes.lines()),
    )


def _facts(job: ChakraJob) -> dict[str, float]:
    """Facts of the workload, where cmsim wrote the files."""
    if not job.files:
        return {}
    metadata = next(iter(job.files.values())).metadata
    return {
        key.removeprefix(_FACT): value
        for key, value in metadata.items()
        if key.startswith(_FACT) and isinstance(value, float)
    }


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


# -- communicators -----------------------------------------------------------------------------------------


def _unknown_groups(job: ChakraJob) -> dict[str, tuple[int, ...]]:
    """Ranks that use each communicator that nothing defines."""
    users: dict[str, list[int]] = {}
    for rank, file in job.files.items():
        rows = np.flatnonzero(file.type == chakra.COMM_COLL).tolist()
        for name in sorted({file.pg_name[row] for row in rows} - {""}):
            if _defined(job, file, name) is None:
                users.setdefault(name, []).append(rank)
    return {name: tuple(ranks) for name, ranks in users.items()}


def _defined(job: ChakraJob, file: ChakraFile, name: str) -> tuple[int, ...] | None:
    """Ranks of a communicator: the side file first, then this rank's own file, then the others. () is all ranks."""
    for table in (job.groups, file.groups, *(other.groups for other in job.files.values())):
        if name in table:
            return table[name]
    return None


@dataclass
class _Groups:
    """Communicators of one file by name: their number in the trace, and their size."""

    job: ChakraJob
    file: ChakraFile
    size: int
    unknown: Mapping[str, tuple[int, ...]]
    known: dict[tuple[str, tuple[int, ...]], int]
    notes: _Notes

    def of(self, name: str) -> tuple[int, int]:
        members = _defined(self.job, self.file, name) if name else ()
        if members is None:
            users = self.unknown[name]
            members = () if len(users) == len(self.job.files) else users
            as_what = "all its users" if members else "all ranks"
            self.notes.say(f"communicator '{name}' is not defined; read as {as_what}")
        if members == tuple(range(self.size)):
            members = ()
        return self.known.setdefault((name, members), len(self.known)), len(members) or self.size


# -- one file ----------------------------------------------------------------------------------------------


def _rank(rank: int, file: ChakraFile, groups: _Groups, notes: _Notes) -> RankTrace:
    kind = _kinds(file, notes)
    count, stream = len(file), _streams(file, kind)
    ours = file.metadata.get("schema") == SCHEMA
    launched = None if ours else launch_order(file)
    at = np.argsort(file.id, kind="stable") if launched is None else launched
    dep_ptr, dep_idx = orders.reordered(file.dep_ptr, file.dep_idx, at)
    if launched is not None:
        dep_ptr, dep_idx = _launched_before(dep_ptr, dep_idx, kind[at], stream[1][at], notes)
    elif orders.topological(dep_ptr, dep_idx) is None:
        here = at[orders.on_circle(dep_ptr, dep_idx)]
        raise bad(file.path, f"node {file.id[here]} depends on itself through other nodes")

    duration_us, known = _durations(file, kind, notes)
    flops = np.where(np.isnan(file.flops), file.num_ops, file.flops)
    group, bytes_B = _sizes(file, kind, groups)
    peer = _peers(rank, file, kind)
    names, name = coded(file.name)
    kernels, kernel = _classes(file, kind, known, names, name)
    collectives, collective = _collectives(file, kind)
    streams, its_stream = stream
    return RankTrace(
        rank=rank,
        names=names,
        streams=streams,
        kernels=kernels,
        precisions=file.precisions,
        collectives=collectives,
        name=name[at],
        kind=kind[at],
        stream=its_stream[at],
        start_us=np.full(count, np.nan),
        duration_us=duration_us[at],
        kernel=kernel[at],
        precision=file.precision[at],
        flops=np.where(kind == COMPUTE, flops, 0.0)[at],
        bytes_B=bytes_B[at],
        collective=collective[at],
        group=group[at],
        peer=peer[at],
        tag=np.where(kind >= SEND, file.comm_tag, 0)[at],
        dep_ptr=dep_ptr,
        dep_idx=dep_idx,
        shapes=file.shapes,
        shape=file.shape[at] if file.shapes else np.zeros(0, np.int64),
        cores=file.cores[at] if (file.cores != 1.0).any() else np.zeros(0),
        in_order=launched is not None or (ours and bool((dep_idx < orders.rows_of(dep_ptr)).all())),
    )


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
    kind = np.where(node == chakra.METADATA, PASS, kind)
    notes.count("communication nodes of the host replayed as host work", int((twin & host).sum()))
    notes.count("communication nodes without comm_size replayed as kernels", int((twin & ~host).sum()))
    chakras = (kind == COLLECTIVE) & (file.collective < 0)
    untyped = int((chakras & (file.comm_type < 0)).sum())
    notes.count("collectives without comm_type read as all-reduce (the schema's default)", untyped)
    for name, ours in _SUBSTITUTED.items():
        found = int((chakras & (file.comm_type == COMM_TYPES.index(name))).sum())
        notes.count(f"{name} collectives replayed as {ours}", found)
    notes.count("collectives over some network dimensions (involved_dim) read as over all", file.partial_dims)
    notes.count("dependencies on nodes that are not in the file dropped", file.missing_deps)
    if file.call_tree:
        notes.count("ctrl_deps not used as order: they are the profiler's call tree", file.ctrl_deps)
    return kind.astype(np.int64)


def _streams(file: ChakraFile, kind: Ints) -> tuple[tuple[str, ...], Ints]:
    """Streams of kernels and collectives; host work, sends and receives have none of their own but with cmsim."""
    streams, stream = coded(file.stream)
    if file.metadata.get("schema") == SCHEMA:
        return streams, stream
    memory = (file.type == chakra.MEM_LOAD) | (file.type == chakra.MEM_STORE)
    stream = np.where((stream < 0) & memory, len(streams), stream)
    on_one = (kind == COMPUTE) | (kind == COLLECTIVE)
    return (*(f"stream {name}" for name in streams), "memory"), np.where(on_one, stream, -1)


def _durations(file: ChakraFile, kind: Ints, notes: _Notes) -> tuple[Floats, NDArray[np.bool_]]:
    """Recorded times, NaN where FLOPs or bytes can price the op instead, and where they are known. [us]

    0 means unknown: without FLOPs and bytes such an op takes no time.
    """
    unknown = (file.duration_us == 0) & (file.duration_ps < 0)
    work = (kind == COMPUTE) | (kind == HOST)
    priced = unknown & (kind == COMPUTE) & ((file.num_ops > 0) | (file.tensor_size_B > 0))
    notes.count(
        "kernels and host ops of unknown length (duration 0, no FLOPs or bytes) take no time",
        int((work & unknown & ~priced).sum()),
    )
    duration_us = np.where(file.duration_ps >= 0, file.duration_ps * 1e-6, file.duration_us)
    return np.where(priced | (unknown & (kind >= COLLECTIVE)), np.nan, duration_us), ~priced


def _classes(
    file: ChakraFile, kind: Ints, known: NDArray[np.bool_], names: Sequence[str], name: Ints
) -> tuple[tuple[str, ...], Ints]:
    """Class of each kernel: as the file says, by its name where its time was recorded, else left to the roofline."""
    kernels = tuple(dict.fromkeys((*file.kernels, *(kernel_class(text) for text in names), OTHER)))
    by_name = np.array([*(kernels.index(kernel_class(text)) for text in names), kernels.index(kernel_class(""))])
    guessed = np.where(known, by_name[name], kernels.index(OTHER))
    return kernels, np.where(kind == COMPUTE, np.where(file.kernel >= 0, file.kernel, guessed), -1)


def _collectives(file: ChakraFile, kind: Ints) -> tuple[tuple[str, ...], Ints]:
    names = tuple(dict.fromkeys((*file.collectives, *(ours for ours, _ in _COLLECTIVES.values()))))
    by_type = np.array([names.index(_COLLECTIVES[one][0]) for one in COMM_TYPES])[np.maximum(file.comm_type, 0)]
    return names, np.where(kind == COLLECTIVE, np.where(file.collective >= 0, file.collective, by_type), -1)


def _sizes(file: ChakraFile, kind: Ints, groups: _Groups) -> tuple[Ints, Floats]:
    """Communicator of each collective, and bytes of each op, collectives as nccl-tests counts them. [B]

    Of an all-gather that is the whole gathered array.
    """
    rows = np.flatnonzero(kind == COLLECTIVE)
    names, name = np.unique([file.pg_name[row] for row in rows.tolist()], return_inverse=True)
    group = np.full(len(file), -1, np.int64)
    size_B = np.where(kind == COMPUTE, file.tensor_size_B, np.where(kind >= COLLECTIVE, file.comm_size_B, 0.0))
    size_B = np.nan_to_num(size_B)
    if len(rows):
        first = {text: i for i, text in reversed(list(enumerate(file.pg_name[row] for row in rows.tolist())))}
        found = {text: groups.of(text) for text in sorted(names.tolist(), key=first.__getitem__)}
        number, members = np.array([found[text] for text in names.tolist()])[name].T
        group[rows] = number
        share = _SHARES[np.maximum(file.comm_type[rows], 0)]
        size_B[rows] *= np.where(share, members, 1)
    exact = ~np.isnan(file.bytes_B) & ((kind == COMPUTE) | (kind >= COLLECTIVE))
    return group, np.where(exact, file.bytes_B, size_B)


def _peers(rank: int, file: ChakraFile, kind: Ints) -> Ints:
    """The other end of sends and receives; the file's rank is the end that the node leaves out."""
    source = np.where((kind == SEND) & (file.comm_src < 0), rank, file.comm_src)
    destination = np.where((kind == RECV) & (file.comm_dst < 0), rank, file.comm_dst)
    own, peer = np.where(kind == SEND, [source, destination], [destination, source])
    message = kind >= SEND
    for wrong, what in (
        (message & (own != rank), f"in the file of rank {rank}"),
        (message & (peer < 0), "that does not say with whom"),
        (message & (peer == own), ": a rank does not send to itself"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            way = f"{KINDS[kind[row]]} from rank {source[row]} to rank {destination[row]}"
            raise bad(file.path, f"node {file.id[row]}: a {way} {what}".replace(" :", ":"))
    return np.where(message, peer, -1)


# -- order -------------------------------------------------------------------------------------------------


def launch_order(file: ChakraFile) -> Ints | None:
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
    row = orders.rows_of(file.dep_ptr)
    launch = np.full(len(file), -1, np.int64)
    launches = ~host[row] & host[file.dep_idx]
    np.maximum.at(launch, row[launches], tie[file.dep_idx[launches]])
    launch = np.where(launch < 0, tie, launch)
    order = np.lexsort((tie, ~host, launch))
    position = np.empty(len(file), np.int64)
    position[order] = np.arange(len(file))
    return None if (position[file.dep_idx] >= position[row]).any() else order


def _launched_before(ptr: Ints, idx: Ints, kind: Ints, stream: Ints, notes: _Notes) -> tuple[Ints, Ints]:
    """Dependencies of rows in launch order, and of communication on the last kernel of each stream before it."""
    talks = np.flatnonzero(kind >= COLLECTIVE)
    rows, deps = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for one in np.unique(stream[kind == COMPUTE]):
        its = np.flatnonzero((kind == COMPUTE) & (stream == one))
        last = np.searchsorted(its, talks) - 1
        rows.append(talks[last >= 0])
        deps.append(its[last[last >= 0]])
    row, dep = np.concatenate(rows), np.concatenate(deps)
    notes.count(
        "communication ops wait for the kernels launched before them: inferred, the trace names launches only",
        len(np.unique(row)),
    )
    given = orders.rows_of(ptr)
    here = kind[given] >= COLLECTIVE
    new = ~np.isin(row * len(kind) + dep, given[here] * len(kind) + idx[here])
    return orders.with_deps(ptr, idx, row[new], dep[new])
