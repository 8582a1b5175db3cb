"""Dimensional: on a grid of ranks, one dimension after the other, and all dimensions busy at once.

Steps and blocks of a dimension are those of ``on_grid``.

S is cut into copies that take the dimensions in rotated orders, so that each starts with another one. In a copy a
reduce-scatter along dimensions of n1, n2, ... leaves S, S/n1, S/(n1 n2), ... to do; an all-gather is that backwards; an
all-reduce is both. Copies get the shares f, in twelfths, with which the slowest dimension is done soonest:

    T = sum over k of steps_k (hop_k + alpha)
      + S max over k of (sum over copies of f blocks_k/n_k / sizes before k) / B_k

An all-to-all moves every block along one dimension after the other; along a dimension its busiest link carries n/8 S
(ring, even n), (n^2 - 1)/(8 n) S (odd), floor(n/2) ceil(n/2)/n S (line), S/n (mesh), (n - 1)/n S (switch).

Bytes are priced as if chunks kept all dimensions busy: the slowest binds, and latencies add. On equal dimensions the
rounds do that by themselves; where dimensions differ, rounds played one after the other take longer.

Leaves out: twisted tori, and shares finer than twelfths.
Source: Chan, Heimlich, Purkayastha and van de Geijn 2007, doi:10.1002/cpe.1206 (collectives along dimensions); Jain and
Sabharwal, ICS 2010 (rotated orders on a torus: all links at once).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmsim.collectives.on_grid import GridDim, GridLike, exchanged_s_per_B, gathered, span, steps
from cmsim.collectives.terms import Algorithm, OnGrid, Round, Schedule, Send, nothing, others

SOURCE = "Chan et al. 2007, doi:10.1002/cpe.1206; Jain and Sabharwal, ICS 2010"
NAME = "dimensional"
#: collectives that have this form
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")

#: S is cut into so many pieces, which copies share
_PIECES = 12


# --- all of them --------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def shares(dims: tuple[GridDim, ...]) -> tuple[int, ...]:
    """Pieces of S, of twelve, that reduce-scatter the dimensions in the order that begins with each. [1]

    >>> ring = GridDim("ring", 4, 1.0, 1.0)
    >>> shares((ring, ring)), shares((ring, GridDim("ring", 4, 0.1, 1.0)))
    ((6, 6), (12, 0))
    """
    count = len(dims)
    load = np.array([_copy_load(dims, first) for first in range(count)])  # copies by dimensions
    cuts = itertools.combinations(range(_PIECES + count - 1), count - 1)
    ends = np.array([(-1, *cut, _PIECES + count - 1) for cut in cuts], np.int64)
    pieces = np.diff(ends, axis=1) - 1
    worst = (pieces @ load).max(axis=1)
    # of equally good ones the most even
    good = np.flatnonzero(worst <= worst.min() * (1 + 1e-9))
    best = good[int(np.argmin((pieces[good] ** 2).sum(axis=1)))]
    return tuple(pieces[best].tolist())


def _order(count: int, first: int) -> list[int]:
    """Dimensions in the order of a copy's reduce-scatter."""
    return [(first + i) % count for i in range(count)]


def _copy_load(dims: Sequence[GridDim], first: int) -> list[float]:
    """Seconds on the busiest link of each dimension for a byte that a copy reduce-scatters. [s/B]"""
    out, left = [0.0] * len(dims), 1.0
    for k in _order(len(dims), first):
        out[k] = left * gathered(dims[k]) / dims[k].size / dims[k].link_Bps
        left /= dims[k].size
    return out


def seconds_per_B(collective: str, dims: tuple[GridDim, ...]) -> float:
    """What the slowest dimension needs for a byte of S. [s/B]"""
    if collective == "all_to_all":
        return exchanged_s_per_B(dims)
    load = [_copy_load(dims, first) for first in range(len(dims))]
    return max(
        sum(share * one[k] for share, one in zip(shares(dims), load, strict=True)) / _PIECES * _passes(collective, dim)
        for k, dim in enumerate(dims)
    )


def _passes(collective: str, dim: GridDim) -> float:
    """How often the busiest link carries what a gather puts on it. Along a line a reduction and a gather have different
    busiest links: n blocks pass any link in both together."""
    if collective != "all_reduce":
        return 1.0
    return dim.size / gathered(dim) if dim.kind == "line" else 2.0


def latency_s(collective: str, dims: Sequence[GridDim], *, step_s: float = 0.0) -> float:
    """Of all dependent steps: hops of the wire, and the software of each. [s]"""
    once = sum(steps(dim) * (dim.hop_s + step_s) for dim in dims)
    return once * (2 if collective == "all_reduce" else 1)


def dimensional_s(collective: str, dims: tuple[GridDim, ...], size_B: float, *, step_s: float = 0.0) -> float:
    """Time of a collective along the dimensions of a grid, all busy at once. [s]

    T = sum of steps_k (hop_k + step) + S max over k of load_k/B_k
    dims: of the group    size_B: S, as ``terms`` counts it [B]    step_s: software of a step [s]

    >>> ring = GridDim("ring", 4, 50.0, 1.0)
    >>> dimensional_s("all_reduce", (ring, ring), 800.0)    # 8 steps; 2 (15/16) 800 over four links
    15.5
    """
    return latency_s(collective, dims, step_s=step_s) + size_B * seconds_per_B(collective, dims)


# --- the sends ----------------------------------------------------------------------------------------------------


class _Move(NamedTuple):
    """In a step everybody sends ``shift`` further what came from ``origin`` further, for those ``target`` further than
    that (of an all-to-all); ``half`` 0 means all of it, 1 and 2 its halves."""

    shift: int
    origin: int
    half: int = 0
    target: int = 0


def _gather_moves(dim: GridDim) -> list[list[_Move]]:
    n = dim.size
    if dim.kind in ("mesh", "switch"):
        return [[_Move(shift, 0) for shift in range(1, n)]]
    last = [(1, 2) if dim.kind == "ring" and 2 * t == n else (0, 0) for t in range(1, steps(dim) + 1)]
    return [[_Move(1, -t, up), _Move(-1, t, down)] for t, (up, down) in enumerate(last)]


def _exchange_moves(dim: GridDim) -> list[list[_Move]]:
    n = dim.size
    if dim.kind in ("mesh", "switch"):
        return [[_Move(shift, 0, target=shift) for shift in range(1, n)]]
    out = []
    for t in range(steps(dim)):
        moves = []
        for far in range(t + 1, steps(dim) + 1):
            up, down = (1, 2) if dim.kind == "ring" and 2 * far == n else (0, 0)
            moves += [_Move(1, -t, up, far), _Move(-1, t, down, -far)]
        out.append(moves)
    return out


def _there(dim: GridDim, at: Any, move: _Move) -> Any:
    """Which ranks of a row make a move: all but those past the ends of a line."""
    if dim.kind != "line":
        return np.ones(np.shape(at), bool)
    places = (at + move.shift, at + move.origin, at + move.origin + move.target)
    return np.logical_and.reduce([(0 <= place) & (place < dim.size) for place in places])


def _phases(collective: str, dims: tuple[GridDim, ...]) -> list[list[tuple[int, int, int, list[int]]]]:
    """Phases of all copies side by side: (copy, its pieces, dimension, dimensions done before)."""
    count = len(dims)
    pieces = shares(dims)
    if collective == "all_to_all":
        pieces = tuple(_PIECES // count + (i < _PIECES % count) for i in range(count))
    out: list[list[tuple[int, int, int, list[int]]]] = [[] for _ in range(count)]
    for copy in range(count):
        if pieces[copy]:
            order = _order(count, copy)
            if collective != "all_to_all":
                order = order[::-1]  # a gather begins with what a reduce-scatter ends with
            for i, k in enumerate(order):
                out[i].append((copy, pieces[copy], k, order[:i]))
    return out


def _coordinates(dims: Sequence[GridDim]) -> tuple[list[int], list[NDArray[np.int64]]]:
    sizes = [dim.size for dim in dims]
    strides = [math.prod(sizes[:i]) for i in range(len(sizes))]
    rank = np.arange(math.prod(sizes), dtype=np.int64)
    return strides, [rank // stride % size for stride, size in zip(strides, sizes, strict=True)]


def rounds(collective: str, dims: tuple[GridDim, ...], size_B: float) -> list[Round]:
    """The messages of each round. [rank, rank, B]

    dims: of the group, whose ranks are numbered along the first one first    size_B: S [B]
    """
    if collective == "all_reduce":
        return rounds("reduce_scatter", dims, size_B) + rounds("all_gather", dims, size_B)
    strides, coord = _coordinates(dims)
    ranks = len(coord[0])
    rank = np.arange(ranks, dtype=np.int64)
    out: list[Round] = []
    for phase in _phases(collective, dims):
        length = max((steps(dims[k]) for _, _, k, _ in phase), default=0)
        here: list[list[Round]] = [[] for _ in range(length)]
        for _, pieces, k, done in phase:
            dim, at = dims[k], coord[k]
            whole_B = size_B * pieces / _PIECES
            exchange = collective == "all_to_all"
            blocks = ranks // dim.size if exchange else math.prod(dims[j].size for j in done)
            for step, moves in enumerate(_exchange_moves(dim) if exchange else _gather_moves(dim)):
                for shift in dict.fromkeys(move.shift for move in moves):
                    bytes_B = np.zeros(ranks)
                    for move in moves:
                        if move.shift == shift:
                            bytes_B += _there(dim, at, move) * (0.5 if move.half else 1.0)
                    bytes_B *= blocks * whole_B / ranks
                    to = rank + ((at + shift) % dim.size - at) * strides[k]
                    here[step].append(np.column_stack([rank, to, bytes_B])[bytes_B > 0])
        out += [np.concatenate(one) for one in here]
    if collective == "reduce_scatter":
        out = [one[:, [1, 0, 2]] for one in out[::-1]]
    return out


def schedule(collective: str, dims: tuple[GridDim, ...]) -> Schedule:
    """The sends with their blocks: halves of twelfths of what each rank owns, or has for each other in an all-to-all.

    Block (owner, piece, half) has number ``(owner * 12 + piece) * 2 + half``; in an all-to-all the owner is
    ``origin * p + destination``.
    """
    ranks = math.prod(dim.size for dim in dims)
    if collective == "all_reduce":
        first, then = (schedule(name, dims) for name in ("reduce_scatter", "all_gather"))
        return Schedule(first.parts, first.rounds + then.rounds)
    strides, coord = _coordinates(dims)
    starts = np.cumsum([0, *shares(dims)])
    if collective == "all_to_all":
        starts = np.cumsum([0, *(_PIECES // len(dims) + (i < _PIECES % len(dims)) for i in range(len(dims)))])
    out: list[list[Send]] = []
    for phase in _phases(collective, dims):
        length = max((steps(dims[k]) for _, _, k, _ in phase), default=0)
        here: list[list[Send]] = [[] for _ in range(length)]
        for copy, pieces, k, done in phase:
            dim = dims[k]
            exchange = collective == "all_to_all"
            for step, moves in enumerate(_exchange_moves(dim) if exchange else _gather_moves(dim)):
                for rank, move in itertools.product(range(ranks), moves):
                    at = int(coord[k][rank])
                    if not _there(dim, at, move):
                        continue
                    owners = _owners(dims, strides, coord, rank, k, move, done, exchange=exchange)
                    halves = {0: (0, 1), 1: (0,), 2: (1,)}[move.half]
                    numbers = range(int(starts[copy]), int(starts[copy]) + pieces)
                    blocks = [(o * _PIECES + n) * 2 + h for o in owners for n in numbers for h in halves]
                    to = rank + ((at + move.shift) % dim.size - at) * strides[k]
                    here[step].append(Send(rank, to, tuple(blocks)))
        out += here
    if collective == "reduce_scatter":
        out = [[Send(send.dst, send.src, send.blocks, True) for send in sends] for sends in out[::-1]]
    return Schedule(ranks * _PIECES * 2, out)


def _owners(
    dims: Sequence[GridDim],
    strides: Sequence[int],
    coord: Sequence[NDArray[np.int64]],
    rank: int,
    k: int,
    move: _Move,
    done: Sequence[int],
    *,
    exchange: bool,
) -> list[int]:
    """Whose blocks a rank holds that a move takes: of dimensions that are done anybody's."""
    origin = (int(coord[k][rank]) + move.origin) % dims[k].size
    if not exchange:
        places = [
            range(dim.size) if j in done else [origin if j == k else int(coord[j][rank])] for j, dim in enumerate(dims)
        ]
        return [sum(p * s for p, s in zip(place, strides, strict=True)) for place in itertools.product(*places)]
    target = (origin + move.target) % dims[k].size
    source, sink = [], []
    for j, dim in enumerate(dims):
        mine = [int(coord[j][rank])]
        source.append([origin] if j == k else range(dim.size) if j in done else mine)
        sink.append([target] if j == k else mine if j in done else range(dim.size))
    ends = [
        [sum(p * s for p, s in zip(place, strides, strict=True)) for place in itertools.product(*places)]
        for places in (source, sink)
    ]
    return [one * len(coord[0]) + other for one in ends[0] for other in ends[1]]


def algorithm(collective: str, dims: tuple[GridDim, ...]) -> Algorithm:
    """The same as a line of the table, for one grid; ``sent`` counts bytes through all links of a rank together."""
    once = 2 if collective == "all_reduce" else 1
    return Algorithm(
        name=NAME,
        collective=collective,
        steps=lambda p: once * sum(steps(dim) for dim in dims) + 0 * p,
        sent=lambda p: once * others(p),
        reduced=others if collective in ("all_reduce", "reduce_scatter") else nothing,
        outside=lambda p, block: 0.0 * p * block,
        schedule=lambda _: schedule(collective, dims),
        source=SOURCE,
        applies=lambda p: p == math.prod(dim.size for dim in dims) if dims else np.ones(np.shape(p), dtype=bool),
        arrays=lambda size_B: rounds(collective, dims, size_B),
    )


def _on_grid(collective: str, grid: GridLike, ranks: int, in_node: int) -> OnGrid | None:
    dims = span(grid, ranks, in_node)
    if dims is None:
        return None
    return OnGrid(
        algorithm(collective, dims),
        latency_s=lambda step_s: latency_s(collective, dims, step_s=step_s),
        s_per_B=lambda: seconds_per_B(collective, dims),
    )


#: as lines of the table, before a group says along which dimensions it lies
DIMENSIONAL = tuple(
    replace(algorithm(collective, ()), on_grid=functools.partial(_on_grid, collective)) for collective in COLLECTIVES
)
