"""Which ranks are told apart? Colour refinement against the definition, spelled out slowly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cmsim.engine.fold import fold, members


def folded(groups, *, node=None, domain=None, leaf=None, start=None, enabled=True):
    """Fold ranks of a (ranks, slots) table of group numbers; one node, domain and leaf unless given."""
    groups = np.asarray(groups, np.int64)
    ranks, slots = groups.shape
    one = np.zeros(ranks, np.int64)
    node, domain, leaf = (one if place is None else np.asarray(place) for place in (node, domain, leaf))
    who = members(groups, node=node, domain=domain, leaf=leaf)
    return fold(
        [one] if start is None else [np.asarray(s) for s in start],
        who, slots=slots, node=node, leaf=leaf, enabled=enabled,
    )  # fmt: skip


def slowly(groups, node, domain, leaf, start):
    """The coarsest equitable partition with tuples and counters: a class number per rank, by first rank."""
    ranks, slots = groups.shape
    member = {}
    for r in range(ranks):
        for s in range(slots):
            if groups[r, s] >= 0:
                member.setdefault(groups[r, s], []).append((r, s))

    def near(r, g):
        return tuple(sum(place[o] == place[r] for o, _ in member[g]) for place in (node, domain, leaf))

    def census(ranks_there, colour):
        return tuple(sorted(Counter(colour[o] for o in ranks_there).items()))

    colour = [tuple(int(column[r]) for column in start) for r in range(ranks)]
    while True:
        seen = {g: tuple(sorted((colour[r], s, near(r, g)) for r, s in who)) for g, who in member.items()}
        new = [
            (
                colour[r],
                tuple(seen[g] if (g := groups[r, s]) >= 0 else () for s in range(slots)),
                census(np.flatnonzero(node == node[r]), colour),
                census(np.flatnonzero(leaf == leaf[r]), colour),
            )
            for r in range(ranks)
        ]
        number = {}
        for value in new:
            number.setdefault(value, len(number))
        numbered = [number[value] for value in new]
        if len(set(numbered)) == len(set(colour)):
            return numbered
        colour = [(n,) for n in numbered]


def small_world(rng):
    """A random job of few ranks: groups of unequal sizes, channels, uneven nodes and leaves."""
    ranks = int(rng.integers(2, 13))
    slots = int(rng.integers(1, 4))
    groups = np.full((ranks, slots), -1, np.int64)
    used = 0
    for slot in range(slots):
        if rng.random() < 0.3 and ranks > 2:
            # a channel: the sender names it in this slot, the receiver in the next new one
            pairs = rng.permutation(ranks)[: 2 * (ranks // 2)].reshape(-1, 2)
            column = np.full((ranks, 1), -1, np.int64)
            for sender, receiver in pairs.tolist():
                groups[sender, slot] = column[receiver, 0] = used
                used += 1
            groups = np.hstack([groups, column])
        elif rng.random() < 0.5:
            size = int(rng.integers(1, ranks + 1))
            groups[:, slot] = np.arange(ranks) // size + used
            used += ranks
        else:
            groups[:, slot] = rng.integers(-1, max(ranks // 2, 1), ranks)
            groups[:, slot] += np.where(groups[:, slot] >= 0, used, 0)
            used += ranks
    node = np.arange(ranks) // int(rng.integers(1, ranks + 1))
    domain = node // 2
    leaf = np.arange(ranks) // int(rng.integers(1, ranks + 1))
    start = [rng.integers(0, 2, ranks) if rng.random() < 0.3 else np.zeros(ranks, np.int64)]
    return groups, node, domain, leaf, start


@pytest.mark.parametrize("seed", range(150))
def test_the_coarsest_equitable_partition(seed):
    groups, node, domain, leaf, start = small_world(np.random.default_rng(seed))
    made = folded(groups, node=node, domain=domain, leaf=leaf, start=start)
    assert made.rank_class.tolist() == slowly(groups, node, domain, leaf, start)


@pytest.mark.parametrize("seed", range(300, 350))
def test_members_of_a_class_see_the_same(seed):
    """The definition itself: equal starts, and group by group, node and leaf equal censuses of classes."""
    groups, node, domain, leaf, start = small_world(np.random.default_rng(seed))
    rank_class = folded(groups, node=node, domain=domain, leaf=leaf, start=start).rank_class
    for first in range(len(rank_class)):
        for other in np.flatnonzero(rank_class == rank_class[first]).tolist():
            assert all(column[first] == column[other] for column in start)
            for place in (node, leaf):
                assert Counter(rank_class[place == place[first]].tolist()) == Counter(
                    rank_class[place == place[other]].tolist()
                )
            for slot in range(groups.shape[1]):
                a, b = groups[first, slot], groups[other, slot]
                assert (a < 0) == (b < 0)
                if a >= 0:
                    census = [
                        Counter((int(rank_class[r]), s) for r, s in zip(*np.nonzero(groups == g), strict=True))
                        for g in (a, b)
                    ]
                    assert census[0] == census[1]


@pytest.mark.parametrize("seed", range(40))
def test_names_of_groups_mean_nothing(seed):
    rng = np.random.default_rng(seed)
    groups, node, domain, leaf, start = small_world(rng)
    names = rng.permutation(int(groups.max()) + 1)
    renamed = np.where(groups >= 0, names[groups], -1)
    one = folded(groups, node=node, domain=domain, leaf=leaf, start=start)
    two = folded(renamed, node=node, domain=domain, leaf=leaf, start=start)
    assert one.rank_class.tolist() == two.rank_class.tolist()
    assert one.group_class.tolist() == two.group_class.tolist()


@pytest.mark.parametrize("seed", range(40))
def test_numbers_of_ranks_mean_nothing_but_order(seed):
    """Renumbered ranks fall into the same classes; only the classes' numbers follow the new order."""
    rng = np.random.default_rng(seed)
    groups, node, domain, leaf, start = small_world(rng)
    order = rng.permutation(len(node))
    one = folded(groups, node=node, domain=domain, leaf=leaf, start=start)
    two = folded(
        groups[order], node=node[order], domain=domain[order], leaf=leaf[order], start=[s[order] for s in start]
    )
    pairs = set(zip(one.rank_class[order].tolist(), two.rank_class.tolist(), strict=True))
    assert len(pairs) == len(one.first) == len(two.first)


def test_classes_are_numbered_by_first_rank():
    made = folded(np.array([[0], [0], [1], [1], [2], [2]]), start=[[1, 1, 0, 0, 1, 1]])
    assert made.rank_class.tolist() == [0, 0, 1, 1, 0, 0]
    assert made.first.tolist() == [0, 2]
    assert made.count.tolist() == [4, 2]


def test_equal_ranks_are_one_class():
    ranks = np.arange(64)
    made = folded(np.stack([ranks // 8, ranks % 8], axis=1), node=ranks // 8, domain=ranks // 32, leaf=ranks // 16)
    assert len(made.first) == 1
    assert made.count.tolist() == [64]


def test_one_odd_rank_splits_its_groups_and_theirs():
    # 8 x 8: rows are groups of one slot, columns of the other. An odd rank at (0, 0) makes itself, its row, its
    # column and all the rest
    ranks = np.arange(64)
    odd = (ranks == 0).astype(int)
    made = folded(np.stack([ranks // 8, ranks % 8 + 8], axis=1), start=[odd])
    assert sorted(made.count.tolist()) == [1, 7, 7, 49]


def test_groups_of_unequal_sizes_differ():
    made = folded(np.array([[0], [0], [0], [1], [1], [2]]))
    assert made.rank_class.tolist() == [0, 0, 0, 1, 1, 2]


def test_a_rank_without_a_group_differs():
    assert folded(np.array([[0], [0], [-1], [-1]])).rank_class.tolist() == [0, 0, 1, 1]


def test_slots_tell_ends_of_a_channel_apart():
    # rank 0 sends on channel 0 (slot 0), rank 1 receives from it (slot 1)
    assert folded(np.array([[0, -1], [-1, 0]])).rank_class.tolist() == [0, 1]


def test_a_ring_of_channels_is_one_class():
    # everybody sends to the next and receives from the previous: nobody can be told apart
    ranks = np.arange(6)
    made = folded(np.stack([ranks, (ranks - 1) % 6], axis=1))
    assert made.count.tolist() == [6]
    assert len(set(made.group_class[0].tolist())) == 1  # both slots name channels of one class


def test_a_chain_of_channels_folds_nobody():
    # a pipeline: the distance to the ends tells every stage apart
    ranks = np.arange(6)
    out, into = np.where(ranks < 5, ranks, -1), np.where(ranks > 0, ranks - 1, -1)
    assert len(folded(np.stack([out, into], axis=1)).first) == 6


def test_places_of_members_count():
    # two groups of two: one inside a node, the other across nodes
    groups = np.array([[0], [0], [1], [1]])
    made = folded(groups, node=[0, 0, 0, 1])
    assert len(made.first) > 1
    # a group across leaves is not one inside a leaf
    assert len(folded(groups, leaf=[0, 0, 0, 1]).first) > 1
    # and a domain alone decides too, though nothing is shared there
    assert folded(groups, domain=[0, 0, 0, 1]).rank_class.tolist() == [0, 0, 1, 1]


def test_a_node_with_an_odd_rank_is_an_odd_node():
    # ranks 2 and 3 share nothing but the node with the odd rank 0's neighbour
    made = folded(np.full((6, 1), -1), node=[0, 0, 1, 1, 2, 2], start=[[1, 0, 0, 0, 0, 0]])
    assert made.rank_class.tolist() == [0, 1, 2, 2, 2, 2]
    assert made.node_class[0] == made.node_class[1] != made.node_class[2]


def test_not_enabled_every_rank_stands_for_itself():
    groups = np.array([[3, -1], [3, -1], [5, 7], [5, 7]])
    made = folded(groups, node=[0, 0, 1, 1], leaf=[0, 0, 0, 0], enabled=False)
    assert made.rank_class.tolist() == [0, 1, 2, 3]
    assert made.group_class.tolist() == groups.tolist()
    assert made.node_class.tolist() == [0, 0, 1, 1]
    assert made.count.tolist() == [1, 1, 1, 1]


def test_a_straggler_in_a_job_of_16384_makes_64_classes():
    """TP 8, PP 16, DP 128: in each stage, its column of the tensor groups or not, its data-parallel row or not."""
    tp, dp, pp = 8, 128, 16
    rank = np.arange(tp * dp * pp)
    stage = rank // (tp * dp)
    up = tp * dp
    channels = [
        np.where(stage < pp - 1, rank, -1),
        np.where(stage > 0, rank - up, -1),
        np.where(stage > 0, rank + len(rank), -1),
        np.where(stage < pp - 1, rank + len(rank) + up, -1),
    ]
    groups = [rank // tp, rank % tp + stage * tp + len(rank)]
    used = int(max(column.max() for column in groups)) + 1
    table = np.stack([*groups, *(np.where(c >= 0, c + used, -1) for c in channels)], axis=1)
    odd = (rank == 17).astype(int)
    made = folded(table, domain=rank // 8, start=[stage, odd])
    assert len(made.first) == 64
    assert made.count.sum() == 16384
