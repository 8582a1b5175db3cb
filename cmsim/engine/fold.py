"""Folding: ranks that can never differ are simulated once.

Colour refinement finds the coarsest equitable partition. Ranks start with the colour of what they run and of
their place; a group takes the sorted colours of its members, a node and a leaf those of their ranks; a rank is
recoloured by its own colour and those of its groups, node and leaf; until nothing splits. Two ranks of one
colour see the same groups, the same neighbours and the same sharing of every resource, and max-min rates are
unique, so their times are equal.

Source: Paige and Tarjan, SIAM J. Comput. 16(6), 1987 (partition refinement); Grohe et al., Dimension reduction
via colour refinement, ESA 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Ints
from cmsim.reading.kept import while_equal


@dataclass(frozen=True)
class Members:
    """Who is in which group, one row per (rank, slot) that names a group.

    in_node, in_domain, in_leaf: how many members of the row's group stand in the row's node, domain, leaf.
    """

    rank: Ints
    slot: Ints
    group: Ints
    size: Ints
    in_node: Ints
    in_domain: Ints
    in_leaf: Ints


@dataclass(frozen=True)
class Folding:
    """Classes of equal ranks.

    rank_class    class of each rank, numbered by first rank, shape (ranks,)
    first         the representative: lowest rank of each class, shape (classes,)
    count         ranks in each class, shape (classes,)
    group_class   class of the group each class names in each slot, -1 for none, shape (classes, slots)
    node_class    class of each rank class's node, shape (classes,)
    leaf_class    class of each rank class's leaf, shape (classes,)
    """

    rank_class: Ints
    first: Ints
    count: Ints
    group_class: Ints
    node_class: Ints
    leaf_class: Ints


@while_equal()
def members(groups: Ints, *, node: Ints, domain: Ints, leaf: Ints) -> Members:
    """Flatten (ranks, slots) group numbers and count who is near whom."""
    rank, slot = np.nonzero(groups >= 0)
    group = groups[rank, slot]
    return Members(
        rank=rank,
        slot=slot,
        group=group,
        size=_count(group, np.zeros_like(rank)),
        in_node=_count(group, node[rank]),
        in_domain=_count(group, domain[rank]),
        in_leaf=_count(group, leaf[rank]),
    )


@while_equal()
def fold(start: Sequence[Ints], who: Members, *, slots: int, node: Ints, leaf: Ints, enabled: bool = True) -> Folding:
    """The coarsest equitable partition that refines the columns of ``start``; every rank by itself if not enabled.

    start: columns that already tell ranks apart (program, perturbation, ...), shape (ranks,) each
    """
    ranks = len(node)
    near = _join([who.slot, who.in_node, who.in_domain, who.in_leaf])
    colour = _join(start) if enabled else np.arange(ranks)
    while True:
        before = colour.max() + 1
        by_group = _multiset(who.group, _join([colour[who.rank], near]))
        table = np.full((ranks, slots), -1, np.int64)
        table[who.rank, who.slot] = by_group[who.group]
        node_colour = _multiset(node, colour)
        leaf_colour = _multiset(leaf, colour)
        if not enabled:
            break
        colour = _join([colour, *table.T, node_colour[node], leaf_colour[leaf]])
        if colour.max() + 1 == before:
            break
    # number classes by their first rank, so that the order never depends on sorting of colours
    _, first, inverse = np.unique(colour, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    first = first[order]
    if not enabled:
        # nothing is merged: groups, nodes and leaves stand for themselves
        table[who.rank, who.slot] = who.group
        node_colour, leaf_colour = np.arange(node.max() + 1), np.arange(leaf.max() + 1)
    return Folding(
        rank_class=number[inverse],
        first=first,
        count=np.bincount(number[inverse]),
        group_class=table[first],
        node_class=node_colour[node[first]],
        leaf_class=leaf_colour[leaf[first]],
    )


def _join(columns: Sequence[Ints]) -> Ints:
    """One number per distinct row of the columns."""
    code = np.zeros_like(np.asarray(columns[0]))
    for column in columns:
        _, part = np.unique(column, return_inverse=True)
        _, code = np.unique(code * (part.max(initial=0) + 1) + part, return_inverse=True)
    return code.astype(np.int64)


def _count(group: Ints, place: Ints) -> Ints:
    """For each row, the rows of the same group and place."""
    code = _join([group, place])
    return np.bincount(code)[code] if len(code) else code


def _multiset(container: Ints, colour: Ints) -> Ints:
    """A colour per container (0..max) from the sorted colours of what it holds; containers that hold nothing get 0.

    Containers of one size are compared as rows of a matrix, so nothing is hashed.
    """
    if not len(container):
        return np.zeros(1, np.int64)
    size = np.bincount(container)
    order = np.lexsort((colour, container))
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    out = np.zeros(len(size), np.int64)
    used = 1
    for length in np.unique(size[size > 0]):
        which = np.flatnonzero(size == length)
        rows = colour[order[start[which][:, None] + np.arange(length)]]
        if length == 1:
            _, code = np.unique(rows[:, 0], return_inverse=True)
        else:
            packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * length))).ravel()
            _, code = np.unique(packed, return_inverse=True)
        out[which] = code + used
        used += int(code.max()) + 1
    return out
