"""The network between domains: NICs into leaves, leaves into spines. Of many the first and those broken are drawn."""

from __future__ import annotations

import numpy as np

from cmsim.arrays import Floats
from cmsim.plots import style
from cmsim.plots.sheet import Sheet, some
from cmsim.topology.sketch import Outside

#: domains and leaves, and spines, that are drawn at most; heights between rows, in shares of the width
_MOST, _MOST_SPINES, _UP = 16, 8, 0.12
#: of NICs on one line
_CROSSES = 6
_DOMAIN, _SWITCH = "#dfe5ec", "#7d8ea3"


def is_broken(outside: Outside) -> bool:
    """Whether anything of it is down or slow."""
    return bool((outside.nic < 1).any() or (outside.spine < 1).any())


def lay(sheet: Sheet, outside: Outside, drawn: int) -> list[str]:
    """Onto a sheet, above what is there; what is to be said of it."""
    leaves, spines = outside.spine.shape
    domains = int(outside.domain.max()) + 1
    hurt = outside.nic < 1
    bad_leaves = np.flatnonzero((outside.spine < 1).all(axis=1) if spines else np.zeros(leaves, bool)).tolist()
    bad_spines = np.flatnonzero((outside.spine < 1).all(axis=0)).tolist() if leaves else []
    shown = some(domains, _MOST, [drawn, *outside.domain[hurt].tolist()])
    serving = np.unique([*bad_leaves, *outside.leaf[hurt], *outside.leaf[np.isin(outside.domain, shown)]]).astype(int)
    nets = [int(serving[i]) for i in some(len(serving), _MOST, np.flatnonzero(np.isin(serving, bad_leaves)).tolist())]
    tops = some(spines, _MOST_SPINES, bad_spines)
    step = max(_UP * sheet.width, 3.0)
    side = min(sheet.width / _MOST * 0.72, 2.6)
    heights = sheet.top + step * np.array([1.0, 2.0, 3.0])
    place = [_row(sheet, row) for row in (shown, nets, tops)]
    _squares(sheet, place[0], heights[0], side, _DOMAIN, shown, drawn)
    for row, count, height, one, many in (
        (place[1], leaves, float(heights[1]), "leaf", "leaves"),
        (place[2], spines, float(heights[2]), "spine", "spines"),
    ):
        for x in row.values():
            sheet.square((x, height), side * 0.6, _SWITCH)
        if count:
            more = f",\n{len(row)} drawn" if len(row) < count else ""
            sheet.rows.append((height, f"{count:,} {one if count == 1 else many}{more}"))
    more = f",\n{len(shown)} drawn" if len(shown) < domains else ""
    sheet.rows.append((float(heights[0]), f"{domains:,} domain{'s' * (domains > 1)}{more}"))
    _nics(sheet, outside, place, (heights[0] + side / 2, heights[1] - 0.3 * side))
    _spines(sheet, outside, place, heights)
    sheet.top = float(heights[2] if spines else heights[1]) + 0.3 * side
    return [f"an accelerator has a NIC of {outside.nic_GBps:,.4g} GB/s each way into a leaf"] + (
        [f"a leaf {outside.spine_GBps:,.4g} GB/s to every spine"] if spines else []
    )


def _row(sheet: Sheet, numbers: list[int]) -> dict[int, float]:
    """Where each stands along a row."""
    step = sheet.width / max(len(numbers), 1)
    return {number: (i + 0.5) * step - 0.5 for i, number in enumerate(numbers)}


def _squares(
    sheet: Sheet, row: dict[int, float], height: float, side: float, colour: str, numbers: list[int], drawn: int
) -> None:
    for number in numbers:
        sheet.square((row[number], height), side, colour)
        sheet.words.append(((row[number], height), str(number), "center"))
    # what is below is that one, seen from near
    if len(numbers) > 1:
        x = row[drawn]
        for edge in (0.0, sheet.width - 1):
            sheet.line([(x, height - side / 2), (edge, sheet.top + 0.5)], style.FAINT, width=0.9)


def _nics(sheet: Sheet, outside: Outside, place: list[dict[int, float]], heights: tuple[float, float]) -> None:
    """A line from a domain to each leaf that its NICs hang on; broken ones beside each other on it."""
    pairs = {(int(d), int(leaf)) for d, leaf in zip(outside.domain, outside.leaf, strict=True)}
    for domain, leaf in sorted(pairs):
        if domain not in place[0] or leaf not in place[1]:
            continue
        ends = [(place[0][domain], float(heights[0])), (place[1][leaf], float(heights[1]))]
        sheet.line(ends, width=0.7, alpha=0.8)
        mine = np.flatnonzero((outside.domain == domain) & (outside.leaf == leaf) & (outside.nic < 1))
        of = np.flatnonzero((outside.domain == domain) & (outside.leaf == leaf))
        crosses = 1 if len(mine) == len(of) else min(len(mine), _CROSSES)
        for i, package in enumerate(mine[:crosses].tolist()):
            x, y = np.array(ends[0]) + (i + 1) / (crosses + 1) * (np.array(ends[1]) - ends[0])
            sheet.cut(ends, float(outside.nic[package]), at=(float(x), float(y)))


def _spines(sheet: Sheet, outside: Outside, place: list[dict[int, float]], heights: Floats) -> None:
    spine = outside.spine
    leaf_left = spine.max(axis=1) if spine.shape[1] else np.ones(len(spine))
    spine_left = spine.max(axis=0) if len(spine) else np.ones(0)
    for leaf, x in place[1].items():
        if leaf_left[leaf] < 1:
            sheet.cross((x, float(heights[1])), float(leaf_left[leaf]))
        for top, over in place[2].items():
            ends = [(x, float(heights[1])), (over, float(heights[2]))]
            sheet.line(ends, width=0.6, alpha=0.6)
            if spine[leaf, top] < 1 and leaf_left[leaf] >= 1 and spine_left[top] >= 1:
                sheet.cut(ends, float(spine[leaf, top]))
    for top, x in place[2].items():
        if spine_left[top] < 1:
            sheet.cross((x, float(heights[2])), float(spine_left[top]))
