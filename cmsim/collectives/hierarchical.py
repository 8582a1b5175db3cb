"""Hierarchical: inside the blocks (nodes, domains) first, between them with what is left.

p = n1 n2, n1 ranks in each of n2 blocks. ``inner`` is a rank's own block, ``outer`` the n2 ranks with the same place
in their blocks; all outer groups run at once, each rank on its own NIC.

    all-reduce       inner reduce-scatter of S, outer all-reduce of S/n1, inner all-gather of S
    reduce-scatter   inner of S, then outer of S/n1        (inner first)
                     outer of S, then inner of S/n2        (outer first)
    all-gather       outer of S/n1, then inner of S        (outer first)
                     inner of S/n2, then outer of S        (inner first)
    all-to-all       inner of S, by place in the destination's block, then outer of S
    broadcast        inner scatter of S, outer broadcast of S/n1, inner all-gather of S
    reduce           inner reduce-scatter of S, outer reduce of S/n1, inner gather of S

The order decides what the slow network carries: (n2 - 1)/n2 S/n1 per rank, or n1 times that. The default is the order
that carries less: inner first for reduce-scatter, outer first for all-gather. HCCL documents the other of each, which
keeps blocks contiguous. The all-reduce is as lean as a flat one: 2 (n1 - 1)/n1 + 2 (n2 - 1)/(n1 n2) = 2 (p - 1)/p.

Leaves out: overlap of the phases (``pipeline``), unequal blocks, NICs shared by ranks, and blocks joined through the
same port as their members, where hierarchy saves latency but no bandwidth.
Source: HCCL coll_algo_intro algo_intro.md; Mikami et al., arXiv:1811.05233 (2D-torus all-reduce).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from cmsim.collectives.ring import ring_all_gather_s, ring_all_reduce_s, ring_reduce_scatter_s
from cmsim.collectives.terms import Column, others

SOURCE = "HCCL coll_algo_intro algo_intro.md; Mikami et al., arXiv:1811.05233"

Order = Literal["inner_first", "outer_first"]
Part = Literal["all", "inner", "outer"]


class Stage(NamedTuple):
    """One phase: a collective among part of the group, on S / (n1**inner * n2**outer) bytes."""

    collective: str
    part: Part
    over_inner: bool = False
    over_outer: bool = False

    def share(self, inner: Column, outer: Column) -> Column:
        """The phase's S as a share of the whole. inner, outer: n1, n2 [1]"""
        return 1.0 / ((inner if self.over_inner else 1) * (outer if self.over_outer else 1))


_SCATTERED: dict[tuple[str, Order], tuple[Stage, ...]] = {
    ("reduce_scatter", "inner_first"): (
        Stage("reduce_scatter", "inner"),
        Stage("reduce_scatter", "outer", over_inner=True),
    ),
    ("reduce_scatter", "outer_first"): (
        Stage("reduce_scatter", "outer"),
        Stage("reduce_scatter", "inner", over_outer=True),
    ),
    ("all_gather", "outer_first"): (Stage("all_gather", "outer", over_inner=True), Stage("all_gather", "inner")),
    ("all_gather", "inner_first"): (Stage("all_gather", "inner", over_outer=True), Stage("all_gather", "outer")),
}
_LEAN_ORDER: dict[str, Order] = {"reduce_scatter": "inner_first", "all_gather": "outer_first"}
_OTHERS: dict[str, tuple[Stage, ...]] = {
    "all_reduce": (
        Stage("reduce_scatter", "inner"),
        Stage("all_reduce", "outer", over_inner=True),
        Stage("all_gather", "inner"),
    ),
    "all_to_all": (Stage("all_to_all", "inner"), Stage("all_to_all", "outer")),
    "broadcast": (
        Stage("scatter", "inner"),
        Stage("broadcast", "outer", over_inner=True),
        Stage("all_gather", "inner"),
    ),
    "reduce": (Stage("reduce_scatter", "inner"), Stage("reduce", "outer", over_inner=True), Stage("gather", "inner")),
}


def stages(collective: str, *, order: Order | None = None) -> tuple[Stage, ...]:
    """The phases of a hierarchical collective; none if it has no such form.

    order: of reduce-scatter and all-gather; by default the one that loads the outer network less

    >>> [stage.part for stage in stages("all_reduce")]
    ['inner', 'outer', 'inner']
    """
    if collective in _LEAN_ORDER:
        return _SCATTERED[collective, order or _LEAN_ORDER[collective]]
    return _OTHERS.get(collective, ())


def outer_bytes_B(
    collective: str, inner: Column, outer: Column, *, size_B: Column, order: Order | None = None
) -> Column:
    """Bytes each rank sends between blocks in a reduce-scatter, all-gather or all-to-all of two levels. [B]

    (n2 - 1)/n2 times the S of the outer phase
    inner, outer: n1, n2 [1]    size_B: S [B]    order: see ``stages``

    >>> outer_bytes_B("reduce_scatter", 2, 4, size_B=800.0)
    300.0
    >>> outer_bytes_B("reduce_scatter", 2, 4, size_B=800.0, order="outer_first")
    600.0
    """
    (share,) = (stage.share(inner, outer) for stage in stages(collective, order=order) if stage.part == "outer")
    return others(outer) * share * size_B


def hierarchical_all_reduce_s(
    levels: Sequence[Column], size_B: Column, *, alpha_s: Sequence[Column], bandwidth_Bps: Sequence[Column]
) -> Column:
    """Time of a ring all-reduce over any number of levels, innermost first. [s]

    T(n1, rest; S) = RS(n1; S) + T(rest; S/n1) + AG(n1; S), rings throughout
    levels: ranks of each level [1]    size_B: S, held by each rank [B]    alpha_s: fixed cost of a send, by level [s]
    bandwidth_Bps: one direction of one rank's port, by level [B/s]

    >>> hierarchical_all_reduce_s([2, 2], 400.0, alpha_s=[1.0, 1.0], bandwidth_Bps=[100.0, 100.0])
    10.0
    """
    n, alpha, bandwidth = levels[0], alpha_s[0], bandwidth_Bps[0]
    if len(levels) == 1:
        return ring_all_reduce_s(n, size_B, alpha_s=alpha, bandwidth_Bps=bandwidth)
    return (
        ring_reduce_scatter_s(n, size_B, alpha_s=alpha, bandwidth_Bps=bandwidth)
        + hierarchical_all_reduce_s(levels[1:], size_B / n, alpha_s=alpha_s[1:], bandwidth_Bps=bandwidth_Bps[1:])
        + ring_all_gather_s(n, size_B, alpha_s=alpha, bandwidth_Bps=bandwidth)
    )


def hierarchical_all_reduce_sent(levels: Sequence[Column]) -> Column:
    """Bytes sent per rank, over all levels, per byte of S. [1]

    sum over levels of 2 (n - 1)/n / (product of the inner levels) = 2 (p - 1)/p
    levels: ranks of each level, innermost first [1]

    >>> hierarchical_all_reduce_sent([2, 2])
    1.5
    """
    n = levels[0]
    return 2 * others(n) + (hierarchical_all_reduce_sent(levels[1:]) / n if len(levels) > 1 else 0.0)
