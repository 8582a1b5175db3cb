"""Ranks that laid messages tell apart: folding where places alone do not say who is alike.

Folding starts from what is known before a message is laid. Where ranks forward (tori, graphs of links) that is nothing
but who runs what: neighbours count by what they are, never by their number, so that turning a ring changes nothing.
The messages then show who differs, and folding is done again with that until it stands:

* ranks whose own links are not of the same classes, which carry other bytes or at another time: the root of a tree, the
  sender to a slow rank, the ends of a line
* groups of one class whose messages are not of the same classes, or do not cross links of the same classes
* groups of one class whose messages by themselves would be merged otherwise than those of all groups together

This is colour refinement over ranks, groups, messages and links; see ``fold`` and ``cmsim.messages.merge``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.engine.codes import joined, multisets, sorting
from cmsim.messages import Classes, merge
from cmsim.topology import Crossings

if TYPE_CHECKING:
    from cmsim.engine.by_link import PlacedRound


@dataclass(frozen=True)
class Sides:
    """What the groups of a class send in one round.

    resource       by column, the link that each message crosses, -1 for none; all messages of a group in a row
    message_class  of each message, over all groups
    merged         whether all groups by themselves have the classes that they have together
    """

    resource: tuple[NDArray[np.int32], ...]
    message_class: Ints
    merged: bool


def sides_of(
    crossed: Crossings, classes: Classes, groups: int, capacity_Bps: Floats, tier: Ints, size_B: Floats
) -> Sides:
    """Of a round that was merged over all its groups; arguments as of ``merge``."""
    number = np.arange(len(crossed.pattern)) if classes.message_class is None else classes.message_class
    alone = _by_themselves(crossed, groups, capacity_Bps, tier, size_B)
    count = np.zeros((groups, len(alone.count)), np.int64)
    if alone.message_class is not None:
        group = np.arange(len(number)) // (len(number) // groups)
        np.add.at(count, (group, alone.message_class), 1)
    merged = len(alone.count) == len(classes.count) and bool((count == count[0]).all()) and count.any()
    return Sides(crossed.resource, number.astype(np.int64), bool(merged))


def _by_themselves(crossed: Crossings, groups: int, capacity_Bps: Floats, tier: Ints, size_B: Floats) -> Classes:
    """The classes of messages where every group has the fabric for itself: each link once for each group."""
    links = len(capacity_Bps)
    group = np.arange(len(crossed.pattern)) // (len(crossed.pattern) // groups)
    wide = [np.where(number >= 0, group * links + number, -1) for number in crossed.resource]
    used = np.unique(np.concatenate(wide))
    used = used[used >= 0]
    columns = tuple(np.where(one >= 0, np.searchsorted(used, one), -1).astype(np.int32) for one in wide)
    own = Crossings(columns, crossed.pattern, crossed.share, crossed.latency_s)
    return merge(own, capacity_Bps[used % links], tier[used % links], size_B)


def told_apart(rounds: Sequence[PlacedRound], link: Ints, owner: Ints, ranks: int) -> Ints:
    """A number for each rank: ranks of one number are alike as far as the laid messages show.

    link, owner: of every link of the fabric its class (-1: nothing crosses it) and its rank (-1: no rank's own)
    """
    own = (link >= 0) & (owner >= 0) & (owner < ranks)
    columns = [_padded(multiset(owner[own], link[own]), ranks)]
    for one in rounds:
        if one.sides is not None:
            group = _of_groups(one.sides, len(one.groups), link)
            members = np.repeat(group, one.groups.shape[1])
            columns.append(_padded(multiset(one.groups.ravel(), members), ranks))
    return joined(columns).astype(np.int64)


def _of_groups(sides: Sides, groups: int, link: Ints) -> Ints:
    """A number for each group: those of one number send messages of the same classes over links of the same classes."""
    if not sides.merged:
        return np.arange(groups)
    per = len(sides.message_class) // groups
    kinds = int(link.max(initial=0)) + 1
    where, what = [], []
    for number in sides.resource:
        here = np.flatnonzero(number >= 0)
        where.append(here // per)
        what.append(sides.message_class[here] * kinds + link[number[here]])
    return multiset(np.concatenate(where), np.concatenate(what))


def multiset(container: Ints, colour: Ints) -> Ints:
    """A number for each container from what it holds, in any order; 0 for one that holds nothing."""
    if not len(container):
        return np.zeros(1, np.int64)
    return multisets(np.bincount(container), colour[sorting(container)])


def _padded(column: Ints, length: int) -> Ints:
    """Ranks that nothing was said of are alike."""
    return np.concatenate([column, np.zeros(max(length - len(column), 0), np.int64)])[:length]
