"""What every page of this room speaks: a collective, an algorithm for it, and the sends it is made of.

The price of an algorithm in the alpha-beta-gamma (Hockney) model is

    T = steps(p) alpha + sent(p) S / B + reduced(p) S gamma

with alpha the fixed cost of one dependent step [s], B what one rank's port carries in one direction [B/s] and
gamma the cost of adding one byte [s/B]. An ``Algorithm`` holds the three coefficients as functions of the number of
ranks p, the sends themselves, and how much of the traffic leaves a block of neighbouring ranks (a node, a domain, a
leaf). All functions broadcast: a number or an array in, the same out.

What S means (nccl-tests): the whole buffer for all_gather, reduce_scatter, scatter and gather; one rank's buffer for
all_reduce; what one rank sends, its own block included, for all_to_all, dispatch and combine; the vector for
broadcast and reduce; the message for send_recv. A barrier has no bytes.

Leaves out: contention between messages of one round other than at the ranks' own ports, and injection gaps.

Source: Hockney, Parallel Computing 20(3), 389-398, 1994; Chan, Heimlich, Purkayastha and van de Geijn, Concurrency
and Computation 19(13), 1749-1783, 2007, doi:10.1002/cpe.1206; S as in nccl-tests doc/PERFORMANCE.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: a number, or an array that broadcasts against the others
Column: TypeAlias = Any
#: the messages of one round, one a line: source rank, destination rank, bytes. Rank p stands for the switch.
Round: TypeAlias = NDArray[np.float64]

#: every collective of this room; ``Rows.collective`` holds positions in this tuple
COLLECTIVES: tuple[str, ...] = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "broadcast",
    "reduce",
    "send_recv",
    "barrier",
    "dispatch",
    "combine",
    "scatter",
    "gather",
)


class Send(NamedTuple):
    """One message: which blocks go from where to where, and whether they are added or replace what is there.

    A block is one of the ``parts`` pieces of S; in an all-to-all, block ``origin * p + destination``.
    """

    src: int
    dst: int
    blocks: Sequence[int]
    adds: bool = False


class Schedule(NamedTuple):
    """The sends of an algorithm, round after round; a block has S / parts bytes.

    Sends of one round leave at once. A round without sends is a dependent step whose bytes flowed earlier.
    """

    parts: int
    rounds: list[list[Send]]


class OnGrid(NamedTuple):
    """What an algorithm that follows a grid is for one group.

    algorithm  coefficients and sends there    latency_s(step_s)  of all dependent steps, with the software of each [s]
    s_per_B()  what the busiest link needs for a byte of S [s/B]
    """

    algorithm: Algorithm
    latency_s: Callable[[float], float]
    s_per_B: Callable[[], float]


@dataclass(frozen=True)
class Algorithm:
    """One way to run one collective. All functions broadcast over columns; coefficients are per byte of S.

    name, collective: the algorithm and what it computes
    steps(ranks): dependent steps, the coefficient of alpha [1]
    sent(ranks): bytes through the busiest rank's port in one direction, round by round, per byte of S [1]
    reduced(ranks): bytes added by the busiest rank per byte of S, the coefficient of gamma [1]
    outside(ranks, block): bytes per rank that leave (or enter, if more) the busiest block of ``block`` consecutive
        ranks, averaged over that block's ranks, per byte of S; 0 if the block holds the group [1]
    schedule(ranks): the sends themselves
    applies(ranks): whether the algorithm is defined for so many ranks
    in_network: whether it needs switches that add or multicast
    rotates: whether libraries run it as several copies with shifted ranks (channels, rails), so that what leaves a
        block is spread over all its NICs; if not, the busiest rank's NIC carries it alone
    pipelined: whether the sends of a round stream through ranks in the order written, chunk by chunk
    source: where the formula comes from
    on_grid(grid, ranks, in_node): of an algorithm whose form follows from the grid its group lies on, what it is there,
        None where the group fills no dimensions; its coefficients mean nothing before that
    arrays(size_B): its rounds for S bytes, where there is a quicker way than from ``schedule``
    """

    name: str
    collective: str
    steps: Callable[[Column], Column]
    sent: Callable[[Column], Column]
    reduced: Callable[[Column], Column]
    outside: Callable[[Column, Column], Column]
    schedule: Callable[[int], Schedule]
    source: str
    applies: Callable[[Column], Column] = lambda ranks: np.ones(np.shape(ranks), dtype=bool)
    in_network: bool = False
    rotates: bool = True
    pipelined: bool = False
    on_grid: Callable[[Any, int, int], OnGrid | None] | None = None
    arrays: Callable[[float], list[Round]] | None = None

    def rounds(self, ranks: int, size_B: float) -> list[Round]:
        """The messages of each round, which depends on the round before. [rank, rank, B]

        ranks: p [1]    size_B: S [B]
        """
        parts, rounds = self.schedule(ranks)
        return [
            np.array([(s.src, s.dst, len(s.blocks) * size_B / parts) for s in sends], dtype=np.float64).reshape(-1, 3)
            for sends in rounds
        ]


def time_s(
    algorithm: Algorithm,
    ranks: Column,
    *,
    size_B: Column,
    alpha_s: Column,
    bandwidth_Bps: Column,
    gamma_s_per_B: Column = 0.0,
) -> Column:
    """Time of an algorithm among ranks that each own one full-duplex port. [s]

    T = steps(p) alpha + sent(p) S / B + reduced(p) S gamma
    ranks: p [1]    size_B: S [B]    alpha_s: fixed cost of a step [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]    gamma_s_per_B: cost of adding a byte [s/B]

    Source: Hockney 1994, in the form of the HCCL documentation (coll_algo_intro).
    """
    return (
        algorithm.steps(ranks) * alpha_s
        + algorithm.sent(ranks) * size_B / bandwidth_Bps
        + algorithm.reduced(ranks) * size_B * gamma_s_per_B
    )


def ceil_log2(ranks: Column) -> Column:
    """Smallest k with 2**k >= ranks, exact for whole numbers. [1]

    >>> ceil_log2(np.array([1, 2, 3, 4, 5, 384])).tolist()
    [0, 1, 2, 2, 3, 9]
    """
    return np.frexp(np.asarray(ranks) - 1.0)[1]


def floor_log2(ranks: Column) -> Column:
    """Largest k with 2**k <= ranks, exact for whole numbers. [1]

    >>> floor_log2(np.array([1, 2, 3, 4, 5, 384])).tolist()
    [0, 1, 1, 2, 2, 8]
    """
    return np.frexp(np.asarray(ranks, dtype=np.float64))[1] - 1


def power_of_two(ranks: Column) -> Column:
    """Whether ranks is a power of two.

    >>> power_of_two(np.array([1, 2, 3, 64])).tolist()
    [True, True, False, True]
    """
    return np.frexp(np.asarray(ranks, dtype=np.float64))[0] == 0.5


def others(ranks: Column) -> Column:
    """(p - 1) / p: the share of a buffer that belongs to somebody else. [1]

    >>> others(8)
    0.875
    """
    return (ranks - 1) / ranks


def any_peers(ranks: Column) -> Column:
    """1 if there is anybody to talk to, else 0. [1]"""
    return np.minimum(ranks - 1, 1)


def nothing(ranks: Column) -> Column:
    """A coefficient that is always 0. [1]"""
    return 0.0 * ranks


def leaving(ranks: Column, block: Column, share: Column) -> Column:
    """The share if the group is larger than the block, else 0. [1]"""
    return np.where(block < ranks, share, 0.0)


def shifted_outside(ranks: Column, block: Column, blocks_of_step: Callable[[Column, int], Column]) -> Column:
    """Outside traffic of an algorithm whose step k sends to the rank 2**k further on. [1]

    In step k every rank sends blocks_of_step(p, k) / p of S over a circular distance c = min(2**k, p - 2**k), and
    min(c, block) of the ranks of a block thereby cross its edge.
    """
    total = np.zeros(np.broadcast_shapes(np.shape(ranks), np.shape(block)))
    for k in range(int(np.max(ceil_log2(ranks), initial=0))):
        distance = np.minimum(np.minimum(2**k, np.maximum(ranks - 2**k, 0)), block)
        total = total + blocks_of_step(ranks, k) / ranks * distance / block
    return leaving(ranks, block, total)


def joined(*schedules: Schedule) -> Schedule:
    """Schedules one after the other; all cut S the same way."""
    parts = {schedule.parts for schedule in schedules}
    assert len(parts) == 1, parts
    return Schedule(parts.pop(), [sends for schedule in schedules for sends in schedule.rounds])
