"""A pass through layers as a chain of pieces: kernels on the compute stream, then one communication.

Two chains can be interleaved on one compute stream, so that each computes while the other communicates: the way
two micro-batches (or a forward and a backward pass) hide each other's dispatch and combine.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cmsim.compute import Shape
from cmsim.workload.ops import LATE, ProgramBuilder, awaited

#: a pattern of pieces that recurs has at most so many [1]
_PERIOD = 16


class Kernel(NamedTuple):
    """One kernel of one rank, or with ``host_s`` a time that its stream waits for the host. [s]"""

    name: str
    kernel: str
    precision: str
    flops: float
    bytes_B: float
    shape: Shape | None = None
    host_s: float = 0.0


class Comm(NamedTuple):
    """One collective of the rank's group in ``slot``; ``size_B`` as nccl-tests counts it.

    late_s: the group's slowest rank comes so much later [s]    in_line: on the stream of the kernels before it
    """

    name: str
    collective: str
    size_B: float
    slot: str
    late_s: float = 0.0
    in_line: bool = False


@dataclass
class Piece:
    """Kernels in order, then a communication that the next piece of the chain waits for.

    beside         kernels that run behind the others while the communication does
    stream, cores  where the kernels run, and the share of the cores they may use
    after          rows the first kernel waits for, beside the chain itself
    """

    kernels: list[Kernel] = field(default_factory=list)
    comm: Comm | None = None
    stream: str = "compute"
    cores: float = 1.0
    after: tuple[int, ...] = ()
    beside: list[Kernel] = field(default_factory=list)


def emit(build: ProgramBuilder, chain: Sequence[Piece], *, after: Sequence[int] = ()) -> int:
    """Add one chain; returns its last row."""
    return interleave(build, [chain], after=[after])[0]


def interleave(
    build: ProgramBuilder, chains: Sequence[Sequence[Piece]], *, after: Sequence[Sequence[int]] | None = None
) -> list[int]:
    """Add chains piece by piece in turn; returns the last row of each.

    Each chain waits for its own communication only, so that chains hide each other's. Communication of chain i
    runs on stream ``comm`` (i = 0) or ``comm.i``.
    """
    last: list[int] = [-1] * len(chains)
    wait: list[Sequence[int]] = list(after) if after is not None else [()] * len(chains)
    known: dict[int, int] = {}
    numbers = tuple(tuple(known.setdefault(id(piece), len(known)) for piece in chain) for chain in chains)
    alone = frozenset(known[id(piece)] for chain in chains for piece in chain if piece.after)
    for first, period, times in _repeated(numbers, alone):
        here = [
            [(number, chain[turn]) for number, chain in enumerate(chains) if turn < len(chain)]
            for turn in range(first, first + period)
        ]
        if times == 1:
            _add(build, here, last, wait)
            continue
        # the same rows again and again: built once, copied
        block, ends = ProgramBuilder(), [-1] * len(chains)
        waits: list[Sequence[int]] = [[awaited(number)] for number in range(len(chains))]
        _add(block, here, ends, waits)
        for _ in range(times if len(block) else 0):
            at = build.append(block, wait)
            last = [last[i] if end < 0 else at + end for i, end in enumerate(ends)]
            wait = [[at + row for row in rows] if min(rows) >= 0 else wait[i] for i, rows in enumerate(waits)]
    return last


def _add(
    build: ProgramBuilder, turns: Sequence[Sequence[tuple[int, Piece]]], last: list[int], wait: list[Sequence[int]]
) -> None:
    """Add the pieces of some turns; ``last`` and ``wait`` of their chains follow."""
    for number, piece in (one for turn in turns for one in turn):
        pending = [*wait[number], *piece.after]
        if piece.kernels:
            last[number] = _compute(build, piece, piece.kernels, pending)
            pending = [last[number]]
        before = pending
        if piece.comm is not None:
            comm = piece.comm
            stream = piece.stream if comm.in_line else "comm" if number == 0 else f"comm.{number}"
            if comm.late_s:
                pending = [build.host(LATE, stream=stream, recorded_s=comm.late_s, after=pending)]
            last[number] = build.collective(
                comm.name,
                stream=stream,
                collective=comm.collective,
                size_B=comm.size_B,
                slot=comm.slot,
                after=pending,
            )
            pending = [last[number]]
        if piece.beside:
            pending = [*(pending if piece.comm is not None else ()), _compute(build, piece, piece.beside, before)]
            last[number] = pending[-1]
        wait[number] = pending


def _compute(build: ProgramBuilder, piece: Piece, kernels: Sequence[Kernel], after: Sequence[int]) -> int:
    """Add kernels of a piece, the first of which waits; the last row."""
    row = -1
    for kernel in kernels:
        if kernel.host_s:
            row = build.host(kernel.name, stream=piece.stream, recorded_s=kernel.host_s, after=after)
            after = ()
            continue
        row = build.compute(
            kernel.name,
            stream=piece.stream,
            kernel=kernel.kernel,
            precision=kernel.precision,
            flops=kernel.flops,
            bytes_B=kernel.bytes_B,
            cores=piece.cores,
            shape=kernel.shape,
            after=after,
        )
        after = ()
    return row


@functools.lru_cache(maxsize=64)  # runs of one scenario have other kernels in pieces that come in the same order
def _repeated(chains: tuple[tuple[int, ...], ...], alone: frozenset[int]) -> tuple[tuple[int, int, int], ...]:
    """(first, period, times) of runs of turns that cover all: the very same pieces, so many times over. Each turn takes
    a piece of every chain, as far as it goes.

    chains   numbers of the pieces of each    alone   pieces that come once
    """
    turns = max((len(chain) for chain in chains), default=0)
    keys = [tuple(chain[turn] if turn < len(chain) else -1 for chain in chains) for turn in range(turns)]
    single = [not alone.isdisjoint(key) for key in keys]
    out, at = [], 0
    while at < turns:
        again = next((n for n in range(at + 1, min(at + 1 + _PERIOD, turns)) if keys[n] == keys[at]), at)
        period, times = max(again - at, 1), 1
        if again > at and not any(single[at:again]):
            while keys[at + times * period : at + (times + 1) * period] == keys[at : at + period]:
                times += 1
        out.append((at, period if times > 1 else 1, times))
        at += period * times if times > 1 else 1
    return tuple(out)


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The chain with neighbours merged where no communication stands between them (streams alike).

    The same two pieces merge into the same one, so that what recurs can be seen.
    """
    out: list[Piece] = []
    merged: dict[tuple[int, int], Piece] = {}
    for piece in pieces:
        if out and out[-1].comm is None and (out[-1].stream, out[-1].cores) == (piece.stream, piece.cores):
            before = out.pop()
            key = id(before), id(piece)
            if key not in merged:
                merged[key] = Piece(
                    before.kernels + piece.kernels,
                    piece.comm,
                    piece.stream,
                    piece.cores,
                    before.after + piece.after,
                    piece.beside,
                )
            piece = merged[key]
        out.append(piece)
    return out
