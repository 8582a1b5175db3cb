"""What a workload is made of: ops on streams, with dependencies, one program per kind of rank.

A generator or an importer returns `Programs`. Nothing in it knows the machine: compute ops carry FLOPs and
bytes, communication ops carry a collective and a size; `cmsim.engine.plan` prices them on a system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: what an op does: hold its stream, meet a group and move data, or move data to or from one peer
KINDS = ("compute", "host", "collective", "send", "recv")
COMPUTE, HOST, COLLECTIVE, SEND, RECV = range(len(KINDS))

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Programs:
    """The programs of a workload and which rank runs which.

    program_ptr   rows of program i are ``program_ptr[i]:program_ptr[i + 1]``
    program       program of each rank, shape (ranks,)
    slots         names of the group slots, for people
    groups        group of each rank in each slot, -1 for none, shape (ranks, slots). A channel for send and
                  receive is a group of two: the sender names it in one slot, the receiver in another.
    facts         what metrics need (tokens per step, sequence length, ...), by name
    notes         assumptions and substitutions to say beside the result
    footprint_B   memory one rank of each program needs, by what for, shape (programs,) each [B]
    """

    ops: OpTable
    program_ptr: Ints
    program: Ints
    slots: tuple[str, ...]
    groups: Ints
    facts: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    footprint_B: dict[str, Floats] = field(default_factory=dict)

    @property
    def ranks(self) -> int:
        return len(self.program)


class ProgramBuilder:
    """Collects the ops of one program. Generators add ops by hand; importers pass columns.

    >>> build = ProgramBuilder()
    >>> first = build.compute("gemm", stream="compute", kernel="gemm", precision="bf16", flops=1e9, bytes_B=1e6)
    >>> build.collective("sum", stream="comm", collective="all_reduce", size_B=1e6, slot="tp", after=[first])
    1
    >>> len(build)
    2
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._deps: list[Sequence[int]] = []

    def __len__(self) -> int:
        return len(self._rows)

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
        after: Sequence[int] = (),
    ) -> int:
        """Add a kernel; returns its row, to be named in ``after`` of others."""
        return self._add((name, stream, COMPUTE, kernel, precision, flops, bytes_B, cores, recorded_s, "", ""), after)

    def host(self, name: str, *, stream: str, recorded_s: float, after: Sequence[int] = ()) -> int:
        """Add host work of a known length."""
        return self._add((name, stream, HOST, "", "", 0.0, 0.0, 1.0, recorded_s, "", ""), after)

    def collective(
        self, name: str, *, stream: str, collective: str, size_B: float, slot: str, after: Sequence[int] = ()
    ) -> int:
        """Add a collective over the rank's group in ``slot``; ``size_B`` as nccl-tests counts it."""
        row = (name, stream, COLLECTIVE, "", "", 0.0, size_B, 1.0, float("nan"), slot, collective)
        return self._add(row, after)

    def send(self, name: str, *, stream: str, size_B: float, slot: str, after: Sequence[int] = ()) -> int:
        """Add a send on the channel in ``slot``. It does not wait for the receiver."""
        return self._add((name, stream, SEND, "", "", 0.0, size_B, 1.0, float("nan"), slot, ""), after)

    def recv(self, name: str, *, stream: str, size_B: float, slot: str, after: Sequence[int] = ()) -> int:
        """Add a receive: ends when the matching send (n-th on the channel) has arrived."""
        return self._add((name, stream, RECV, "", "", 0.0, size_B, 1.0, float("nan"), slot, ""), after)

    def _add(self, row: tuple[Any, ...], after: Sequence[int]) -> int:
        self._rows.append(row)
        self._deps.append(after)
        return len(self._rows) - 1

    def extend(self, other: ProgramBuilder, times: int = 1) -> int:
        """Append another builder's ops ``times`` times (their dependencies stay inside each copy); first new row."""
        first = len(self._rows)
        for _ in range(times):
            offset = len(self._rows)
            self._rows.extend(other._rows)
            self._deps.extend([[dep + offset for dep in deps] for deps in other._deps])
        return first


def assemble(
    builders: Sequence[ProgramBuilder],
    *,
    program: Ints,
    groups: dict[str, Ints],
    facts: dict[str, float] | None = None,
    notes: Sequence[str] = (),
    footprint_B: dict[str, Sequence[float]] | None = None,
) -> Programs:
    """Programs from builders (one per distinct program), ranks and groups (slot name -> group id per rank)."""
    rows = [row for build in builders for row in build._rows]
    assert rows, "a workload without ops"
    columns = list(zip(*rows, strict=True))
    slots = tuple(groups)
    names, name_id = _encode(columns[0])
    streams, stream = _encode(columns[1])
    kernels, kernel = _encode(columns[3])
    precisions, precision = _encode(columns[4])
    collectives, collective = _encode(columns[10])
    slot_number = {name: i for i, name in enumerate(slots)} | {"": -1}
    deps = [dep for build in builders for dep in build._deps]
    dep_ptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(dep) for dep in deps], out=dep_ptr[1:])
    dep_idx = np.fromiter((i for dep in deps for i in dep), np.int64, int(dep_ptr[-1]))
    ops = OpTable(
        names=names,
        streams=streams,
        kernels=kernels,
        precisions=precisions,
        collectives=collectives,
        name_id=name_id,
        stream=stream,
        kind=np.array(columns[2], np.int64),
        kernel=kernel,
        precision=precision,
        flops=np.array(columns[5], np.float64),
        bytes_B=np.array(columns[6], np.float64),
        cores=np.array(columns[7], np.float64),
        recorded_s=np.array(columns[8], np.float64),
        slot=np.array([slot_number[name] for name in columns[9]], np.int64),
        collective=collective,
        dep_ptr=dep_ptr,
        dep_idx=dep_idx,
    )
    ptr = np.zeros(len(builders) + 1, np.int64)
    np.cumsum([len(build) for build in builders], out=ptr[1:])
    ranks = len(program)
    table = np.stack([np.asarray(groups[s], np.int64) for s in slots], axis=1) if slots else np.zeros((ranks, 0), np.int64)
    return Programs(
        ops=ops,
        program_ptr=ptr,
        program=np.asarray(program, np.int64),
        slots=slots,
        groups=table,
        facts=facts or {},
        notes=tuple(notes),
        footprint_B={key: np.asarray(value, np.float64) for key, value in (footprint_B or {}).items()},
    )


def _encode(values: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    """Names in order of first use, and each value's number; the empty name is -1."""
    numbers: dict[str, int] = {"": -1}
    codes = np.fromiter((numbers.setdefault(value, len(numbers) - 1) for value in values), np.int64, len(values))
    return tuple(name for name in numbers if name), codes


