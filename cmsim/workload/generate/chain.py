"""A pass through layers as a chain of pieces: kernels on the compute stream, then one communication.

Two chains can be interleaved on one compute stream, so that each computes while the other communicates: the way
two micro-batches (or a forward and a backward pass) hide each other's dispatch and combine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cmsim.compute import Shape
from cmsim.workload.ops import ProgramBuilder


class Kernel(NamedTuple):
    """One kernel of one rank."""

    name: str
    kernel: str
    precision: str
    flops: float
    bytes_B: float
    shape: Shape | None = None


class Comm(NamedTuple):
    """One collective of the rank's group in ``slot``; ``size_B`` as nccl-tests counts it."""

    name: str
    collective: str
    size_B: float
    slot: str


@dataclass
class Piece:
    """Kernels in order, then a communication that the next piece of the chain waits for.

    stream, cores  where the kernels run, and the share of the cores they may use
    after          rows the first kernel waits for, beside the chain itself
    """

    kernels: list[Kernel] = field(default_factory=list)
    comm: Comm | None = None
    stream: str = "compute"
    cores: float = 1.0
    after: tuple[int, ...] = ()


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
    for turn in range(max((len(chain) for chain in chains), default=0)):
        for number, chain in enumerate(chains):
            if turn >= len(chain):
                continue
            piece = chain[turn]
            pending = [*wait[number], *piece.after]
            for kernel in piece.kernels:
                last[number] = build.compute(
                    kernel.name,
                    stream=piece.stream,
                    kernel=kernel.kernel,
                    precision=kernel.precision,
                    flops=kernel.flops,
                    bytes_B=kernel.bytes_B,
                    cores=piece.cores,
                    shape=kernel.shape,
                    after=pending,
                )
                pending = []
            if piece.kernels:
                pending = [last[number]]
            if piece.comm is not None:
                comm = piece.comm
                last[number] = build.collective(
                    comm.name,
                    stream="comm" if number == 0 else f"comm.{number}",
                    collective=comm.collective,
                    size_B=comm.size_B,
                    slot=comm.slot,
                    after=pending,
                )
                pending = [last[number]]
            wait[number] = pending
    return last


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The chain with neighbours merged where no communication stands between them (streams alike)."""
    out: list[Piece] = []
    for piece in pieces:
        if out and out[-1].comm is None and (out[-1].stream, out[-1].cores) == (piece.stream, piece.cores):
            before = out.pop()
            piece = Piece(
                before.kernels + piece.kernels, piece.comm, piece.stream, piece.cores, before.after + piece.after
            )
        out.append(piece)
    return out
