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
from functools import cached_property

import numpy as np

from cmsim.arrays import Ints, Numbers, Shorts
from cmsim.engine.codes import distinct, joined, multisets, run_lengths, sorting
from cmsim.reading.kept import while_equal


@dataclass(frozen=True)
class Members:
    """Who is in which group, one row per (rank, slot) that names a group: group by group, by rank in each.

    near        which row of ``neighbours`` holds of the row
    neighbours  distinct in order: slot, and how many members of the group stand in the row's node, domain and leaf,
                shape (kinds, 4)
    """

    rank: Shorts
    slot: Shorts
    group: Shorts
    near: Shorts
    neighbours: Ints

    @cached_property
    def sizes(self) -> Ints:
        """Members of each group, by its number."""
        return np.bincount(self.group)

    @property
    def size(self) -> Ints:
        """Members of each row's group."""
        return self.sizes[self.group]

    def kinds(self, number: Ints) -> tuple[Ints, Ints]:
        """The distinct pairs of a number of each row and its row of ``neighbours``."""
        kinds = len(self.neighbours)
        number, near = np.divmod(distinct(number * kinds + self.near), kinds)
        return number, near


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
def members(groups: Numbers, *, node: Numbers, domain: Numbers, leaf: Numbers) -> Members:
    """Flatten (ranks, slots) group numbers and count who is near whom."""
    named = groups >= 0
    group = groups[named].astype(np.int32)
    order = sorting(group)
    group = group[order]
    at = np.flatnonzero(named).astype(np.int32)[order]
    del named, order  # as large as what is made of them
    rank, slot = np.divmod(at, np.int32(groups.shape[1]))
    columns = [slot, *(_together(group, place[rank]) for place in (node, domain, leaf))]
    near = joined(columns)
    one = np.zeros(int(near.max(initial=-1)) + 1, np.int64)
    one[near] = np.arange(len(near))
    neighbours = np.stack([column[one] for column in columns], axis=1).astype(np.int64)
    return Members(rank, slot, group, near, neighbours)


def _together(group: Shorts, place: Numbers) -> Shorts:
    """For each row, the rows of the same group and place; ``group`` in order."""
    if ((place[1:] >= place[:-1]) | (group[1:] != group[:-1])).all():
        return run_lengths(group, place)
    code = joined([group, place])
    return np.bincount(code)[code].astype(np.int32)


@while_equal()
def fold(
    start: Sequence[Numbers], who: Members, *, slots: int, node: Numbers, leaf: Numbers, enabled: bool = True
) -> Folding:
    """The coarsest equitable partition that refines the columns of ``start``; every rank by itself if not enabled.

    start: columns that already tell ranks apart (program, perturbation, ...), shape (ranks,) each
    """
    ranks = len(node)
    nodes, leaves = _Places(node), _Places(leaf)
    colour = joined(start) if enabled else np.arange(ranks, dtype=np.int32)
    while True:
        before = colour.max() + 1
        by_group = multisets(who.sizes, joined([colour[who.rank], who.near])).astype(np.int32)
        table = np.full((slots, ranks), -1, np.int32)
        table[who.slot, who.rank] = by_group[who.group]
        node_colour, leaf_colour = nodes.colours(colour), leaves.colours(colour)
        if not enabled:
            break
        colour = joined([colour, *table, node_colour[node], leaf_colour[leaf]])
        if colour.max() + 1 == before:
            break
    # number classes by their first rank, so that the order never depends on sorting of colours
    first = np.full(int(colour.max()) + 1, ranks, np.int64)
    np.minimum.at(first, colour, np.arange(ranks))
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    first = first[order]
    if not enabled:
        # nothing is merged: groups, nodes and leaves stand for themselves
        table[who.slot, who.rank] = who.group
        node_colour, leaf_colour = np.arange(node.max() + 1), np.arange(leaf.max() + 1)
    rank_class = number[colour]
    return Folding(
        rank_class=rank_class,
        first=first,
        count=np.bincount(rank_class),
        group_class=np.ascontiguousarray(table[:, first].T, np.int64),
        node_class=node_colour[node[first]],
        leaf_class=leaf_colour[leaf[first]],
    )


class _Places:
    """Nodes or leaves, each a container of ranks."""

    def __init__(self, place: Numbers):
        self._size = np.bincount(place)
        # ranks mostly fill places in order
        self._order = None if (place[1:] >= place[:-1]).all() else sorting(place)

    def colours(self, colour: Numbers) -> Ints:
        """A number for each place from the colours of the ranks there; 0 where there is none."""
        return multisets(self._size, colour if self._order is None else colour[self._order])
