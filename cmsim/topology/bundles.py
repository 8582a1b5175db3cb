"""Parallel links that nothing tells apart are one resource: which belong together, and what a bundle carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints


@dataclass(frozen=True)
class Bundle:
    """Parallel links in groups that nothing tells apart: the group of each (plane, chip) and one member each."""

    group: Ints
    count: int


def even(table: Floats, *, axis: int) -> Any:
    """Where all entries along an axis, and all of the table, are alike."""
    return (table == table.max(initial=0.0)).all(axis=axis)


def groups(whole: Any, *, single: bool) -> Bundle:
    """All that is whole in one group, every other in its own; each in its own if ``single``."""
    if single:
        return Bundle(np.arange(len(whole)), len(whole))
    whole = np.asarray(whole, bool)
    group = np.zeros(len(whole), np.int64)
    first = int(whole.any())
    group[~whole] = first + np.arange(int((~whole).sum()))
    return Bundle(group, first + int((~whole).sum()))


def summed(table: Floats, bundle: Bundle) -> Floats:
    """Capacities of bundles, from those of their members."""
    out = np.zeros((len(table), bundle.count))
    for member, group in enumerate(np.asarray(bundle.group).ravel().tolist()):
        out[:, group] += table[:, member]
    return out
