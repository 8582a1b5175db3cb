"""What a tool recorded, as columns: the one form that importers make, and that info, convert and replay take.

An importer says what its file says, no more: how ops wait for each other on in-order queues, which ranks run copies of
others, and what every op costs on another machine is decided once, for all formats, by ``cmsim.traces.lower``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from cmsim.arrays import Floats, Ints
from cmsim.compute import Shape
from cmsim.workload.ops import COLLECTIVE, COMPUTE, KINDS, RECV, SEND

#: a row that takes no time and no queue: what waits for it waits for what it waits for
PASS = -1


@dataclass(frozen=True)
class Communicator:
    """Who meets in a collective.

    members  ranks, ascending; empty where the file does not list them
    size     how many; 0 where the file does not say: all ranks of the job
    """

    name: str
    members: tuple[int, ...] = ()
    size: int = 0


@dataclass(frozen=True)
class RankTrace:
    """The ops of one rank, one row each.

    name        into ``names``
    kind        into ``cmsim.workload.ops.KINDS`` (COMPUTE: a kernel or copy on the device, HOST: host work, COLLECTIVE,
                SEND, RECV), or PASS
    stream      into ``streams``, in-order queues as recorded; -1 where the file names none
    start_us    from the start of the recording, NaN where not recorded [us]
    duration_us as recorded, NaN where unknown; of communication with the wait for the others in it [us]
    kernel      into ``kernels`` (classes of ``cmsim.compute.KERNELS``), -1 where it is no kernel
    precision   into ``precisions`` (of a matrix engine: bf16, fp8, ...), -1 where unknown
    flops       0 where unknown [FLOP]
    bytes_B     COMPUTE: memory traffic, 0 where unknown; communication: size as nccl-tests counts it (all-gather and
                reduce-scatter the whole array, all-to-all what one rank sends in all) [B]
    collective  into ``collectives`` (names of ``cmsim.collectives``), -1 for other kinds
    group       into ``Trace.communicators``, -1 for other kinds
    peer, tag   of sends and receives: the rank at the other end, -1 elsewhere; what tells messages of a pair apart
    dep_ptr, dep_idx  CSR: rows that must end before a row starts, each once
    in_order    rows stand in the order in which they were issued, so that each queue is its rows from first to last;
                else the order is to be found from the dependencies
    shape       of kernels into ``shapes``, -1 where sizes are not known; empty where they are of no row
    cores       share of the accelerator's cores a kernel may use, (0, 1]; empty where all may use all [1]
    """

    rank: int
    names: tuple[str, ...]
    streams: tuple[str, ...]
    kernels: tuple[str, ...]
    precisions: tuple[str, ...]
    collectives: tuple[str, ...]
    name: Ints
    kind: Ints
    stream: Ints
    start_us: Floats
    duration_us: Floats
    kernel: Ints
    precision: Ints
    flops: Floats
    bytes_B: Floats
    collective: Ints
    group: Ints
    peer: Ints
    tag: Ints
    dep_ptr: Ints
    dep_idx: Ints
    in_order: bool = True
    shapes: tuple[Shape, ...] = ()
    shape: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    cores: Floats = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Trace:
    """A job as recorded.

    format        name in ``IMPORTERS``
    ranks         by rank, ascending; those that have a file
    world_size    ranks of the job, 0 where the file does not say
    recorded_us   length of the recorded step (or of all that was recorded), NaN where there is no clock [us]
    notes         assumptions and omissions, to say beside a result
    facts         numbers about the workload that metrics may need (``tokens_per_run``; ``steps``: recorded steps)
    copies        of each rank of the job the rank of ``ranks`` that it runs a copy of, where the file says so; else
                  empty: those without a file take the given ones in turn
    """

    format: str
    source: str
    ranks: Mapping[int, RankTrace]
    communicators: tuple[Communicator, ...] = ()
    world_size: int = 0
    recorded_us: float = float("nan")
    notes: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    copies: tuple[int, ...] = ()


class Opened(Protocol):
    """A file or folder of one format, parsed."""

    def counts(self) -> dict[str, Any]:
        """What it holds in the words of its format, for ``cmsim trace info``; the key ``format`` names the format."""
        ...

    def trace(self, *, ranks: int | None = None) -> Trace:
        """The ops; ``ranks`` is the size of the job where sizes depend on it and the file does not say.

        InputError: it holds nothing to replay.
        """
        ...


def coded(texts: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    """Different texts in order of first use, and the code of each; "" is -1.

    >>> coded(["b", "", "a", "b"])
    (('b', 'a'), array([ 0, -1,  1,  0]))
    """
    known: dict[str, int] = {"": -1}
    code = np.array([known.setdefault(text, len(known) - 1) for text in texts], np.int64)
    return tuple(text for text in known if text), code


def edges_csr(count: int, row: ArrayLike, dep: ArrayLike) -> tuple[Ints, Ints]:
    """Pairs (row, row it waits for) as CSR, each pair once, sorted."""
    # np.unique without return_index hashes, which takes ten times as long as sorting where nearly all differ
    edges = np.sort(np.asarray(row, np.int64) * max(count, 1) + np.asarray(dep, np.int64))
    edges = edges[np.diff(edges, prepend=-1) > 0]
    ptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(edges // max(count, 1), minlength=count), out=ptr[1:])
    return ptr, edges % max(count, 1)


def rank_trace(
    rank: int,
    *,
    name: Sequence[str],
    kind: ArrayLike,
    stream: Sequence[str],
    start_us: ArrayLike = np.nan,
    duration_us: ArrayLike = np.nan,
    kernel: Sequence[str] | None = None,
    precision: Sequence[str] | None = None,
    flops: ArrayLike = 0.0,
    bytes_B: ArrayLike = 0.0,
    collective: Sequence[str] | None = None,
    group: ArrayLike = -1,
    peer: ArrayLike = -1,
    tag: ArrayLike = 0,
    deps: tuple[ArrayLike, ArrayLike] = ((), ()),
    in_order: bool = True,
    shape: Sequence[Shape | None] | None = None,
    cores: ArrayLike | None = None,
) -> RankTrace:
    """A `RankTrace` from columns as they come: texts one a row, numbers one a row or one for all.

    deps  rows, and for each the row it waits for
    """
    count = len(name)
    texts = {
        "names": coded(name),
        "streams": coded(stream),
        "kernels": coded(kernel or [""] * count),
        "precisions": coded(precision or [""] * count),
        "collectives": coded(collective or [""] * count),
    }

    def whole(values: ArrayLike) -> Ints:
        return np.array(np.broadcast_to(np.asarray(values, np.int64), count))

    def real(values: ArrayLike) -> Floats:
        return np.array(np.broadcast_to(np.asarray(values, np.float64), count))

    dep_ptr, dep_idx = edges_csr(count, *deps)
    shapes: dict[Shape | None, int] = {None: -1}
    codes = [shapes.setdefault(one, len(shapes) - 1) for one in shape or ()]
    made = RankTrace(
        rank=rank,
        names=texts["names"][0],
        streams=texts["streams"][0],
        kernels=texts["kernels"][0],
        precisions=texts["precisions"][0],
        collectives=texts["collectives"][0],
        name=texts["names"][1],
        kind=whole(kind),
        stream=texts["streams"][1],
        start_us=real(start_us),
        duration_us=real(duration_us),
        kernel=texts["kernels"][1],
        precision=texts["precisions"][1],
        flops=real(flops),
        bytes_B=real(bytes_B),
        collective=texts["collectives"][1],
        group=whole(group),
        peer=whole(peer),
        tag=whole(tag),
        dep_ptr=dep_ptr,
        dep_idx=dep_idx,
        in_order=in_order,
        shapes=tuple(one for one in shapes if one is not None),
        shape=np.array(codes if len(shapes) > 1 else [], np.int64),
        cores=np.zeros(0) if cores is None or (real(cores) == 1.0).all() else real(cores),
    )
    assert all(len(column) == count for column in (made.kind, made.stream, made.kernel, made.collective))
    assert ((made.kind >= PASS) & (made.kind < len(KINDS))).all()
    assert (made.kernel[made.kind == COMPUTE] >= 0).all(), "a kernel without a class"
    assert (made.collective[made.kind == COLLECTIVE] >= 0).all() and (made.group[made.kind == COLLECTIVE] >= 0).all()
    assert (made.peer[(made.kind == SEND) | (made.kind == RECV)] >= 0).all()
    return made
