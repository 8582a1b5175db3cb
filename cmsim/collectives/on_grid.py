"""The grid that the ranks of a group lie on: its dimensions, and what flat algorithms get of its links.

A dimension of n ranks gathers a block from each in so many steps, over its busiest link so many blocks pass:

    ring     n/2 steps, (n - 1)/2 blocks     every block goes both ways round, half of it each way to the last
    line     n - 1, n - 1                    the same without the link that closes the ring
    mesh     1, 1                            a link for every pair
    switch   1, n - 1                        one port

``routed_s_per_B`` says what flat algorithms get on a grid: a ring of neighbours uses one link, not the whole port;
traffic between all pairs is bound by the links of the slowest dimension; steps with one peer by both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from cmsim.collectives.terms import others

#: algorithms in which every rank talks to one neighbour, and to all others at once; the others have one peer a step
_NEIGHBOURS = frozenset({"ring", "send_recv", "pipeline"})
_ALL_AT_ONCE = frozenset({"direct", "one_shot", "two_shot", "expert", "star", "mesh"})


class GridDim(NamedTuple):
    """One dimension: ring, line, mesh or switch; ``link_Bps`` to one neighbour, one peer or the switch. [B/s], [s]"""

    kind: str
    size: int
    link_Bps: float
    hop_s: float


class GridLike(Protocol):
    """What a fabric says of the grid of one domain, numbered along the first dimension first.

    ranks_per_node  neighbours by number
    pairs_s_per_B, next_s_per_B, farthest_s  for fabrics without dimensions: what traffic between all pairs and to the
        next rank needs for each byte a rank sends [s/B], and the longest path [s]
    """

    @property
    def dims(self) -> Sequence[Any]: ...
    @property
    def ranks_per_node(self) -> int: ...
    @property
    def pairs_s_per_B(self) -> float: ...
    @property
    def next_s_per_B(self) -> float: ...
    @property
    def farthest_s(self) -> float: ...


def span(grid: GridLike, ranks: int, in_node: int) -> tuple[GridDim, ...] | None:
    """The dimensions along which a group of one domain lies, or None where its counts do not tell.

    A group is taken to be a run of whole dimensions, the last of which it may fill in part: neighbours by number lie
    along the first ones, and ranks so many apart that they share no node along later ones.

    ranks: of the group [1]    in_node: of them in one node [1]
    """
    dims = [GridDim(one.kind, one.size, one.link_Bps, one.hop_s) for one in grid.dims]
    for whole, first in itertools.product((True, False), range(len(dims))):
        stride = math.prod(dim.size for dim in dims[:first])
        if in_node != max(min(ranks, grid.ranks_per_node // stride), 1):
            continue
        found = _filled(dims[first:], ranks, whole)
        if found is not None:
            return found
    return None


def _filled(dims: Sequence[GridDim], ranks: int, whole: bool) -> tuple[GridDim, ...] | None:
    """The first dimensions, up to so many ranks; a part of a ring is a line."""
    out, left = [], ranks
    for dim in dims:
        if left == 1:
            break
        if left % dim.size == 0:
            out.append(dim)
            left //= dim.size
        elif left < dim.size and not whole:
            out.append(dim._replace(size=left, kind="line" if dim.kind == "ring" and left > 2 else _short(dim.kind)))
            left = 1
        else:
            return None
    return tuple(out) if left == 1 and out else None


def _short(kind: str) -> str:
    """Two neighbours of a ring or line have one link, as a mesh of two."""
    return "mesh" if kind in ("ring", "line") else kind


def steps(dim: GridDim) -> int:
    """Dependent steps of a gather, a reduce-scatter or an all-to-all along a dimension. [1]

    >>> [steps(GridDim(kind, 8, 1.0, 1.0)) for kind in ("ring", "line", "mesh", "switch")]
    [4, 7, 1, 1]
    """
    return {"ring": dim.size // 2, "line": dim.size - 1}.get(dim.kind, 1)


def gathered(dim: GridDim) -> float:
    """Blocks over the busiest link when everybody's block goes to everybody along a dimension. [1]

    >>> [gathered(GridDim(kind, 8, 1.0, 1.0)) for kind in ("ring", "line", "mesh", "switch")]
    [3.5, 7, 1, 7]
    """
    return {"ring": (dim.size - 1) / 2, "mesh": 1}.get(dim.kind, dim.size - 1)


def exchanged(dim: GridDim) -> float:
    """Share of what a rank sends, its own block included, over the busiest link of an all-to-all along a dimension. [1]

    >>> [exchanged(GridDim(kind, 8, 1.0, 1.0)) for kind in ("ring", "line", "mesh", "switch")]
    [1.0, 2.0, 0.125, 0.875]
    """
    n = dim.size
    if dim.kind == "ring":
        return (n * n - n % 2) / 8 / n
    return {"line": (n // 2) * (n - n // 2) / n, "mesh": 1 / n}.get(dim.kind, (n - 1) / n)


def exchanged_s_per_B(dims: Sequence[GridDim]) -> float:
    """What the slowest dimension needs for each byte of S of an all-to-all. [s/B]"""
    return max(exchanged(dim) / dim.link_Bps for dim in dims)


# --- flat algorithms --------------------------------------------------------------------------------------------------


def routed_s_per_B(algorithm: str, grid: GridLike, ranks: int, in_node: int) -> float:
    """Seconds on the busiest link for each byte that every rank of a group sends by a flat algorithm. [s/B]

    ranks, in_node: members in the domain, and in one node of it [1]
    """
    dims = span(grid, ranks, in_node)
    whole = tuple(GridDim(one.kind, one.size, one.link_Bps, one.hop_s) for one in grid.dims)
    if not whole:
        pairs, near = grid.pairs_s_per_B, grid.next_s_per_B
    else:
        # of a group that lies otherwise every message is taken to go as far as an average pair of the domain
        pairs = exchanged_s_per_B(dims or whole)
        near = 1 / min(dim.link_Bps for dim in dims or whole)
    spread = ranks if dims or not whole else math.prod(dim.size for dim in whole)
    everywhere = pairs / float(others(spread))
    if algorithm in _ALL_AT_ONCE:
        return everywhere
    if algorithm in _NEIGHBOURS and (dims or not whole):
        return near
    return max(everywhere, near)


def routed_s(algorithm: str, grid: GridLike, ranks: int, in_node: int) -> float:
    """Latency of a step of a flat algorithm: one hop between neighbours, the longest path otherwise. [s]"""
    dims = span(grid, ranks, in_node) or tuple(GridDim(d.kind, d.size, d.link_Bps, d.hop_s) for d in grid.dims)
    if not dims:
        return grid.farthest_s
    if algorithm in _NEIGHBOURS:
        return max(dim.hop_s for dim in dims)
    return sum(steps(dim) * dim.hop_s for dim in dims)
