"""How a matrix product falls into tiles, and tiles into waves over the cores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmsim.compute.work import Column


@dataclass(frozen=True)
class Tiling:
    """Shares are of the peak rate: ``wave_share`` lost by a partly filled last wave, ``tile_share`` by padding."""

    tiles: Column
    waves: Column
    wave_share: Column
    tile_share: Column

    @property
    def share(self) -> Column:
        return self.wave_share * self.tile_share


def tiling(m: Column, n: Column, *, tile_m: Column, tile_n: Column, cores: Column, batch: Column = 1) -> Tiling:
    """Tile and wave quantisation of a product with an (m, n) result on ``cores`` matrix cores.

    tiles = ceil(m / tile_m) ceil(n / tile_n) batch;  waves = ceil(tiles / cores);
    wave_share = tiles / (waves cores);  tile_share = m n / (padded m n)

    Broadcasts: give tile sizes an axis of their own to choose the best candidate, as a library does.
    Assumes tiles of equal cost and no split of the inner size.
    Source: NVIDIA, Matrix Multiplication Background User's Guide (tile and wave quantization).

    >>> found = tiling(1793, 1793, tile_m=256, tile_n=128, cores=108)
    >>> int(found.tiles), int(found.waves), round(float(found.share), 4)
    (120, 2, 0.4542)
    """
    rows, columns = np.ceil(np.divide(m, tile_m)), np.ceil(np.divide(n, tile_n))
    tiles = rows * columns * batch
    waves = np.ceil(tiles / cores)
    return Tiling(tiles, waves, tiles / (waves * cores), np.multiply(m, n) / (rows * tile_m * columns * tile_n))
