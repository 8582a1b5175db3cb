"""How many copies of tokens the experts of one rank get, as benchmarks of expert kernels route them.

balanced: every expert the same number. power_law_a: loads of experts are drawn from a power law of exponent a between
1 and 0.8 tokens (between 0.01 and 2 where copies are fewer than experts), scaled to all copies, at most one of each
token; the rank is the one with most copies. What columns give is the mean over draws with fixed random numbers, so that
it is smooth in the number of tokens and repeats.

Source: ai-dynamo/aiconfigurator, collector/helper.py (balanced and power law logits), as recalled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats

#: rows of tiles for which loads are rounded up
TILE_ROWS = (16, 64, 128)
DRAWS = 12
_CELLS = 2_000_000


@dataclass(frozen=True)
class Loads:
    """Of one rank.

    copies: tokens, once for each expert [1]    active: experts with any [1]    most: copies of the busiest expert [1]
    tiles: by rows of a tile, tiles over all experts [1]
    """

    copies: Floats
    active: Floats
    most: Floats
    tiles: dict[int, Floats]

    def take(self, rows: NDArray[np.int64]) -> Loads:
        return Loads(
            self.copies[rows], self.active[rows], self.most[rows], {tm: v[rows] for tm, v in self.tiles.items()}
        )


def expert_loads(tokens: Floats, top_k: Floats, experts: Floats, ranks: Floats, alpha: Floats) -> Loads:
    """Loads of the busiest rank, row by row.

    tokens: of all ranks    ranks: that the experts are spread over    alpha: exponent; 0 is balanced
    """
    key, back = np.unique(np.stack([experts, ranks, alpha, top_k, tokens], axis=1), axis=0, return_inverse=True)
    back = back.reshape(-1)
    count = len(key)
    copies, active, most = np.empty(count), np.empty(count), np.empty(count)
    tiles = {tm: np.empty(count) for tm in TILE_ROWS}
    groups, group = np.unique(key[:, :3], axis=0, return_inverse=True)
    group = group.reshape(-1)
    for number, (of, over, a) in enumerate(groups.tolist()):
        here = np.flatnonzero(group == number)
        # in blocks that fit memory
        size = max(1, _CELLS // (DRAWS * int(of)))
        for start in range(0, len(here), size):
            rows = here[start : start + size]
            loads = _loads(key[rows, 4], key[rows, 3], int(of), int(over), a)
            draws = loads.shape[1]
            copies[rows] = loads.sum(axis=(1, 2)) / draws
            active[rows] = (loads > 0).sum(axis=(1, 2)) / draws
            most[rows] = loads.max(axis=2).mean(axis=1)
            for tm in TILE_ROWS:
                tiles[tm][rows] = np.ceil(loads / tm).sum(axis=(1, 2)) / draws
    return Loads(copies, active, most, tiles).take(back)


def _loads(tokens: Floats, top_k: Floats, experts: int, ranks: int, alpha: float) -> Floats:
    """Copies of each expert of the rank: rows x draws x experts of the rank."""
    own = max(1, experts // ranks)
    total = tokens * top_k
    if alpha == 0.0:
        each = total / experts
        # fewer copies than experts: one each
        some = np.minimum(np.round(np.maximum(each * own, 1.0)), own)
        loads = np.where(each[:, None] >= 1.0, np.round(each)[:, None], np.arange(own)[None, :] < some[:, None])
        return loads[:, None, :].astype(float)
    u = np.random.default_rng(0).random((DRAWS, experts))
    many = total > experts
    low = np.where(many, 1.0, 0.01)[:, None, None]
    high = np.where(many, np.maximum(0.8 * tokens, 2.0), 2.0)[:, None, None]
    if abs(alpha - 1.0) < 1e-6:
        drawn = low * (high / low) ** u
    else:
        power = 1.0 - alpha
        drawn = ((high**power - low**power) * u + low**power) ** (1.0 / power)
    share = drawn / drawn.sum(axis=2, keepdims=True)
    wanted = np.minimum(share * total[:, None, None], tokens[:, None, None])
    loads = _whole(wanted, total)
    used = own * ranks
    by_rank = loads[:, :, :used].reshape(len(tokens), DRAWS, ranks, own)
    busiest = by_rank.sum(axis=3).argmax(axis=2)
    return np.take_along_axis(by_rank, busiest[:, :, None, None], axis=2)[:, :, 0, :]


def _whole(wanted: Floats, total: Floats) -> Floats:
    """Whole numbers near the wanted ones, the largest remainders rounded up until the sum is right."""
    floor = np.floor(wanted)
    left = np.minimum(np.round(total[:, None] - floor.sum(axis=2)), wanted.shape[2])
    rank = np.argsort(np.argsort(floor - wanted, axis=2, kind="stable"), axis=2)
    out: Floats = floor + (rank < left[:, :, None])
    return out
