"""What a workload is made of: ops on streams, with dependencies, one program per kind of rank.

A generator or an importer returns `Programs`. Nothing in it knows the machine: compute ops carry FLOPs and bytes, and
their sizes where those are known, communication ops carry a collective and a size; `cmsim.engine.plan` prices them on
a system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints, Numbers
from cmsim.compute import Shape
from cmsim.errors import InputError
from cmsim.kinds import Facts
from cmsim.workload.outline import Block, ByHand, Copied, Outline, Words, outline

#: what an op does: hold its stream, meet a group and move data, or move data to or from one peer
KINDS = ("compute", "host", "collective", "send", "recv")
COMPUTE, HOST, COLLECTIVE, SEND, RECV = range(len(KINDS))
#: time of what nobody recorded
_UNKNOWN = float("nan")
#: name of host rows that stand for a wait: the slowest rank of a group comes so late
LATE = "slowest rank"


@dataclass(frozen=True)
class OpTable:
    """Columns, one row per op of each distinct program; programs are slices of it.

    name_id     into ``names``
    stream      into ``streams``; ops of a stream run in row order
    kind        into ``KINDS``
    kernel      into ``kernels`` (kernel classes of ``cmsim.compute``), -1 for communication
    precision   into ``precisions``, -1 where no matrix engine is used
    flops       matrix or vector FLOPs of one rank [FLOP]
    bytes_B     compute: memory read and written by one rank; communication: size as nccl-tests counts it [B]
    cores       share of the accelerator's cores the op may use, (0, 1] [1]
    recorded_s  time a trace recorded for it, NaN where it has none [s]
    slot        which of the rank's groups it meets (column of ``Programs.groups``), -1 for compute
    collective  into ``collectives``, -1 for compute, send and recv
    dep_ptr, dep_idx  CSR: rows of the same program (counted from its first) that must end before it starts
    shape       into ``shapes``, -1 where sizes are not known; empty where they are of no op
    exchange    into ``Programs.traffic``, -1 where all blocks are alike; empty where they are of every op
    """

    names: tuple[str, ...]
    streams: tuple[str, ...]
    kernels: tuple[str, ...]
    precisions: tuple[str, ...]
    collectives: tuple[str, ...]
    name_id: Ints
    stream: Ints
    kind: Ints
    kernel: Ints
    precision: Ints
    flops: Floats
    bytes_B: Floats
    cores: Floats
    recorded_s: Floats
    slot: Ints
    collective: Ints
    dep_ptr: Ints
    dep_idx: Ints
    shapes: tuple[Shape, ...] = ()
    shape: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    exchange: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of_columns(
        cls, columns: Mapping[str, NDArray[Any]], names: Mapping[str, tuple[Any, ...]], dep_ptr: Ints, dep_idx: Ints
    ) -> OpTable:
        """A table from columns ("name" is that of ``name_id``) and from what their codes mean, by the same names."""
        return cls(
            names=names["name"],
            streams=names["stream"],
            kernels=names["kernel"],
            precisions=names["precision"],
            collectives=names["collective"],
            name_id=columns["name"],
            stream=columns["stream"],
            kind=columns["kind"],
            kernel=columns["kernel"],
            precision=columns["precision"],
            flops=columns["flops"],
            bytes_B=columns["bytes_B"],
            cores=columns["cores"],
            recorded_s=columns["recorded_s"],
            slot=columns["slot"],
            collective=columns["collective"],
            dep_ptr=dep_ptr,
            dep_idx=dep_idx,
            shapes=names["shape"],
            shape=columns["shape"],
            exchange=columns.get("exchange", np.zeros(0, np.int64)),
        )


@dataclass(frozen=True)
class Least:
    """The least that any plan of a question computes and moves, over all of its ranks together.

    It follows from the model and the scenario's question, never from a plan: not from how the work is split, in how
    many micro-batches it is done, what is recomputed or filled up.

    ranks       that may share the work [1]
    flops       on the matrix engine, by format, nothing computed twice [FLOP]
    bytes_B     memory read and written: every weight that is used, the cache, states, what comes in and goes out [B]
    exchange_B  what a rank must send as soon as two or more share the work [B]
    """

    ranks: int
    flops: Mapping[str, float]
    bytes_B: float
    exchange_B: float = 0.0


@dataclass(frozen=True)
class Loop:
    """Rows that come again and again in every program, laid out a few times of many.

    first     of each program, the first of these rows, counted from the program's first, shape (programs,)
    rows      how many come again    laid  how many times they stand there, 2 or more, one after the other, alike
    left_out  how many times they come beyond that, the same in all programs

    Rows wait for rows of their own turn and of the turns before, at the same distance in every turn but the first. Rows
    after the last turn wait for those turns counted from the last. See `cmsim.workload.loops`.
    """

    first: Ints
    rows: Ints
    laid: Ints
    left_out: int

    def beside_idle(self) -> Loop:
        """The same with one more program, which has no rows."""
        return Loop(np.append(self.first, 0), np.append(self.rows, 0), np.append(self.laid, 0), self.left_out)


@dataclass(frozen=True)
class Programs:
    """The programs of a workload and which rank runs which.

    program_ptr   rows of program i are ``program_ptr[i]:program_ptr[i + 1]``
    program       program of each rank, shape (ranks,)
    slots         names of the group slots, for people
    groups        group of each rank in each slot, -1 for none, shape (ranks, slots). A channel for send and
                  receive is a group of two: the sender names it in one slot, the receiver in another.
    facts         what the workload says of itself, of the class that its kind has
    notes         assumptions and substitutions to say beside the result
    traffic       who sends how much to whom in a group, as shares of the size, shape (members, members) each; ops name
                  theirs in ``OpTable.exchange``
    footprint_B   memory one rank of each program needs, by what for, shape (programs,) each [B]
    plan          sizes that the scenario left open, resolved, by name: tp, pp, dp, ..., what a rank holds; empty where
                  nothing was planned, of a trace
    least         what any plan of the same question must do; None where the ops are the question, of a trace or a
                  collective
    loop          rows that come more often than they are laid out; None where all are
    source        file they were read from, "" where they were generated
    """

    ops: OpTable
    program_ptr: Ints
    program: Ints
    slots: tuple[str, ...]
    groups: Numbers
    facts: Facts = field(default_factory=Facts)
    notes: tuple[str, ...] = ()
    traffic: tuple[Floats, ...] = ()
    footprint_B: dict[str, Floats] = field(default_factory=dict)
    plan: Mapping[str, float] = field(default_factory=dict)
    least: Least | None = None
    loop: Loop | None = None
    source: str = ""

    @property
    def ranks(self) -> int:
        return len(self.program)

    def on(self, ranks: Sequence[int], total: int) -> Programs:
        """The same on some ranks of ``total``, in that order; the others have nothing to do.

        >>> build = ProgramBuilder()
        >>> build.host("work", stream="main", recorded_s=1e-6)
        0
        >>> job = assemble([build], program=np.zeros(2, np.int64), groups={"all": np.zeros(2, np.int64)})
        >>> job.on([1, 3], 4).program.tolist()
        [1, 0, 1, 0]
        """
        where = np.asarray(ranks, np.int64)
        if (
            where.shape != (self.ranks,)
            or len(np.unique(where)) < len(where)
            or where.min() < 0
            or where.max() >= total
        ):
            raise InputError(f"a workload of {self.ranks} ranks needs as many different ones of {total}; got {ranks}")
        idle = len(self.program_ptr) - 1
        program = np.full(total, idle, np.int64)
        program[where] = self.program
        groups = np.full((total, len(self.slots)), -1, np.int32)
        groups[where] = self.groups
        return replace(
            self,
            program_ptr=np.append(self.program_ptr, self.program_ptr[-1]),
            program=program,
            groups=groups,
            footprint_B={name: np.append(part, 0.0) for name, part in self.footprint_B.items()},
            loop=None if self.loop is None else self.loop.beside_idle(),
        )


class ProgramBuilder:
    """Collects the ops of one program. Generators add ops by hand, and repeat what recurs as a block.

    >>> build = ProgramBuilder()
    >>> first = build.compute("gemm", stream="compute", kernel="gemm", precision="bf16", flops=1e9, bytes_B=1e6)
    >>> build.collective("sum", stream="comm", collective="all_reduce", size_B=1e6, slot="tp", after=[first])
    1
    >>> len(build)
    2
    """

    def __init__(self) -> None:
        self._parts: list[_Rows | _Copy] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def compute(
        self,
        name: str,
        *,
        stream: str,
        kernel: str,
        precision: str = "",
        flops: float = 0.0,
        bytes_B: float = 0.0,
        cores: float = 1.0,
        recorded_s: float = float("nan"),
        shape: Shape | None = None,
        after: Sequence[int] = (),
    ) -> int:
        """Add a kernel; returns its row, to be named in ``after`` of others."""
        words = (name, stream, COMPUTE, kernel, precision, "", "")
        return self._add(words, (flops, bytes_B, cores, recorded_s), after, shape)

    def host(self, name: str, *, stream: str, recorded_s: float, after: Sequence[int] = ()) -> int:
        """Add host work of a known length."""
        return self._add((name, stream, HOST, "", "", "", ""), (0.0, 0.0, 1.0, recorded_s), after)

    def collective(
        self,
        name: str,
        *,
        stream: str,
        collective: str,
        size_B: float,
        slot: str,
        traffic: Floats | None = None,
        after: Sequence[int] = (),
    ) -> int:
        """Add a collective over the rank's group in ``slot``; ``size_B`` as nccl-tests counts it.

        traffic: where blocks differ, who sends what share of the size to whom, shape (members, members); ops with the
            same array have the same traffic
        """
        words = (name, stream, COLLECTIVE, "", "", slot, collective)
        return self._add(words, (0.0, size_B, 1.0, _UNKNOWN), after, traffic=traffic)

    def send(self, name: str, *, stream: str, size_B: float, slot: str, after: Sequence[int] = ()) -> int:
        """Add a send on the channel in ``slot``. It does not wait for the receiver."""
        return self._add((name, stream, SEND, "", "", slot, ""), (0.0, size_B, 1.0, _UNKNOWN), after)

    def recv(self, name: str, *, stream: str, size_B: float, slot: str, after: Sequence[int] = ()) -> int:
        """Add a receive: ends when the matching send (n-th on the channel) has arrived."""
        return self._add((name, stream, RECV, "", "", slot, ""), (0.0, size_B, 1.0, _UNKNOWN), after)

    def append(self, block: ProgramBuilder, after: Sequence[Sequence[int]] = ()) -> int:
        """Add all ops of another builder; returns the row of its first.

        Where the block's ops wait for ``awaited(i)``, they wait for the rows ``after[i]`` of this one. The block is
        taken as it is now and can be appended many times at little cost.
        """
        first = self._length
        self._parts.append(_Copy(block, first, tuple(tuple(rows) for rows in after)))
        self._length += len(block)
        return first

    def _add(
        self,
        words: Words,
        numbers: tuple[float, float, float, float],
        after: Sequence[int],
        shape: Shape | None = None,
        traffic: Floats | None = None,
    ) -> int:
        if not self._parts or not isinstance(self._parts[-1], _Rows):
            self._parts.append(_Rows())
        part = self._parts[-1]
        assert isinstance(part, _Rows)
        part.words.append(words)
        part.numbers += numbers
        part.shapes.append(shape)
        if traffic is not None:
            part.traffic[len(part.words) - 1] = traffic
        owner = self._length
        part.waits.extend((owner, dep) for dep in after)
        self._length += 1
        return owner


def awaited(number: int) -> int:
    """Stands, in a block, for what `ProgramBuilder.append` is told to wait for at ``after[number]``."""
    return -1 - number


@dataclass
class _Rows:
    """Rows added by hand, their numbers one after the other, and (row, row it waits for) pairs; numbers of rows count
    from the program's first, of those with traffic from the first here."""

    words: list[Words] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    shapes: list[Shape | None] = field(default_factory=list)
    traffic: dict[int, Floats] = field(default_factory=dict)
    waits: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class _Copy:
    """A block, where it stands, and the rows it waits for."""

    block: ProgramBuilder
    first: int
    after: tuple[tuple[int, ...], ...]


#: numbers of a row, in their order
_NUMBERS = ("flops", "bytes_B", "cores", "recorded_s")


class _Reader:
    """What builders wrote, each row once: in the order in which codes are given."""

    def __init__(self) -> None:
        self.words: list[Words] = []
        self.numbers: list[float] = []
        self.shape: list[int] = []
        self.shapes: dict[Shape | None, int] = {None: -1}
        self.exchange: dict[int, int] = {}
        self.traffic: list[Floats] = []
        self.blocks: list[Block] = []
        self._known: dict[int, int] = {}

    def block(self, build: ProgramBuilder) -> int:
        """The number of a builder among the blocks; a block is read once."""
        if id(build) in self._known:
            return self._known[id(build)]
        parts: list[ByHand | Copied] = []
        for part in build._parts:
            if isinstance(part, _Rows):
                first = len(self.words)
                self.words += part.words
                self.numbers += part.numbers
                self.shape += [self.shapes.setdefault(one, len(self.shapes) - 1) for one in part.shapes]
                for row, traffic in part.traffic.items():
                    self.exchange[first + row] = self._exchange(traffic)
                parts.append(ByHand(first, len(self.words), tuple(part.waits)))
            else:
                parts.append(Copied(self.block(part.block), part.first, part.after))
        self.blocks.append(tuple(parts))
        self._known[id(build)] = len(self.blocks) - 1
        return self._known[id(build)]

    def _exchange(self, traffic: Floats) -> int:
        """Arrays are told apart by identity: they are large."""
        known = next((number for number, one in enumerate(self.traffic) if one is traffic), len(self.traffic))
        if known == len(self.traffic):
            self.traffic.append(traffic)
        return known


def _table(read: _Reader, laid: Outline) -> OpTable:
    """What was read, as it is laid out."""
    numbers = np.array(read.numbers, np.float64).reshape(-1, len(_NUMBERS)).T[:, laid.written]
    columns: dict[str, NDArray[Any]] = {**laid.columns, **dict(zip(_NUMBERS, numbers, strict=True))}
    columns["shape"] = np.array(read.shape, np.int64)[laid.written]
    if read.traffic:
        exchange = np.full(len(read.words), -1, np.int64)
        exchange[list(read.exchange)] = list(read.exchange.values())
        columns["exchange"] = exchange[laid.written]
    names = {**laid.names, "shape": tuple(one for one in read.shapes if one is not None)}
    return OpTable.of_columns(columns, names, laid.dep_ptr, laid.dep_idx)


def assemble(
    builders: Sequence[ProgramBuilder],
    *,
    program: Ints,
    groups: Mapping[str, Numbers],
    facts: Facts | None = None,
    notes: Sequence[str] = (),
    footprint_B: Mapping[str, Sequence[float]] | None = None,
    plan: Mapping[str, float] | None = None,
    least: Least | None = None,
    loop: Loop | None = None,
) -> Programs:
    """Programs from builders (one per distinct program), ranks and groups (slot name -> group id per rank)."""
    assert builders and all(len(build) for build in builders), "a workload without ops"
    slots = tuple(groups)
    read = _Reader()
    programs = [read.block(build) for build in builders]
    rows = sum(len(build) for build in builders)
    laid = outline(tuple(read.words), tuple(read.blocks), programs, slots, rows=rows)
    ptr = np.zeros(len(builders) + 1, np.int64)
    np.cumsum(laid.lengths, out=ptr[1:])
    ranks = len(program)
    table = np.empty((ranks, len(slots)), np.int32)
    for column, slot in enumerate(slots):
        assert groups[slot].max(initial=-1) <= np.iinfo(np.int32).max, "more groups than their numbers have room for"
        table[:, column] = groups[slot]
    return Programs(
        ops=_table(read, laid),
        program_ptr=ptr,
        program=np.asarray(program, np.int64),
        slots=slots,
        groups=table,
        facts=facts or Facts(),
        traffic=tuple(read.traffic),
        notes=tuple(notes),
        footprint_B={key: np.asarray(value, np.float64) for key, value in (footprint_B or {}).items()},
        plan=dict(plan or {}),
        least=least,
        loop=loop,
    )
