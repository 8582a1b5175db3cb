"""Hierarchical: inside the blocks (nodes, domains) first, between them with what is left.

p = n1 n2, n1 ranks in each of n2 blocks. ``inner`` is a rank's own block, ``outer`` the n2 ranks with the same place
in their blocks; all outer groups run at once, each rank on its own NIC.

    all-reduce       inner reduce-scatter of S, outer all-reduce of S/n1, inner all-gather of S
    reduce-scatter   inner of S, then outer of S/n1
    all-gather       outer of S/n1, then inner of S
    all-to-all       inner of S, by place in the destination's block, then outer of S
    broadcast        inner scatter of S, outer broadcast of S/n1, inner all-gather of S
    reduce           inner reduce-scatter of S, outer reduce of S/n1, inner gather of S

The order decides what the slow network carries: (n2 - 1)/n2 S/n1 per rank here, n1 times that in the other order,
which HCCL documents because it keeps blocks contiguous. The all-reduce is as lean as a flat one: 2 (n1 - 1)/n1 + 2
(n2 - 1)/(n1 n2) = 2 (p - 1)/p.

Leaves out: overlap of the phases (``pipeline``), unequal blocks, NICs shared by ranks, and blocks joined through the
same port as their members, where hierarchy saves latency but no bandwidth.
Source: HCCL coll_algo_intro algo_intro.md; Mikami et al., arXiv:1811.05233 (2D-torus all-reduce).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from cmsim.collectives.terms import Column

SOURCE = "HCCL coll_algo_intro algo_intro.md; Mikami et al., arXiv:1811.05233"

Part = Literal["all", "inner", "outer"]


class Stage(NamedTuple):
    """One phase: a collective among part of the group, on S bytes, or S / n1."""

    collective: str
    part: Part
    over_inner: bool = False

    def share(self, inner: Column) -> Column:
        """The phase's S as a share of the whole. inner: n1 [1]"""
        return 1.0 / inner if self.over_inner else 1.0


_STAGES: dict[str, tuple[Stage, ...]] = {
    "reduce_scatter": (Stage("reduce_scatter", "inner"), Stage("reduce_scatter", "outer", over_inner=True)),
    "all_gather": (Stage("all_gather", "outer", over_inner=True), Stage("all_gather", "inner")),
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


def stages(collective: str) -> tuple[Stage, ...]:
    """The phases of a hierarchical collective; none if it has no such form.

    >>> [stage.part for stage in stages("all_reduce")]
    ['inner', 'outer', 'inner']
    """
    return _STAGES.get(collective, ())
