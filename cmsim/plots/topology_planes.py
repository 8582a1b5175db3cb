"""A domain behind switch chips: nodes side by side, above them the chips of each plane, on top those of a second tier.

Where there are two tiers, a first-tier chip has a lane to every second-tier chip of its plane: a plane's lanes are one
line along its row, in its colour. Of a single tier every accelerator has a link to every chip.
"""

from __future__ import annotations

import numpy as np

from cmsim.arrays import Bools, Floats
from cmsim.plots import style
from cmsim.plots.series import lighter
from cmsim.plots.sheet import DOWN, Sheet, between
from cmsim.topology.sketch import Planes

#: accelerators are drawn by themselves up to so many, else node by node; a sheet is at least so wide
_ALONE, _LEAST = 16, 30.0
#: cells between accelerators and chips; planes that have their number beside them at most
_GAP, _NAMED = 2.4, 12
#: broken lanes that are lines at most
_LINES = 40
_CHIP = "#7d8ea3"


def lay(sheet: Sheet, planes: Planes) -> list[str]:
    """Onto a sheet; what is to be said of it."""
    nodes = int(planes.node.max()) + 1
    count = len(planes.node)
    each = np.bincount(planes.node)
    place = np.arange(count) - np.append(0, np.cumsum(each))[planes.node]
    whole: Bools = planes.port >= 1
    two_tiers = planes.uplink.shape[2] > 0
    if count <= _ALONE and not two_tiers:
        x, y = np.arange(count) + 0.6 * planes.node, np.zeros(count)
    else:
        x, y = planes.node.astype(float), (each.max() - 1 - place).astype(float)
    sheet.width = max(float(x.max()) + 1, _LEAST)
    x = (x - x.mean()) * (1 if two_tiers else min(0.8 * sheet.width / (np.ptp(x) + 1), 3.0)) + (sheet.width - 1) / 2
    for at in zip(x.tolist(), y.tolist(), strict=True):
        sheet.square(at)
    gone = np.asarray((planes.port <= 0).all(axis=1))
    for i in np.flatnonzero(gone).tolist():
        sheet.cross((float(x[i]), float(y[i])))
    top = float(y.max())
    sheet.rows.append((top / 2, f"{nodes} nodes of {each.max()}" if nodes > 1 else f"{count} accelerators"))
    where = (x, y, ~whole & ~gone[:, None])
    return _two(sheet, planes, where, top) if two_tiers else _one(sheet, planes, where, top)


def _one(sheet: Sheet, planes: Planes, where: tuple[Floats, Floats, Bools], top: float) -> list[str]:
    """A single tier of chips above all."""
    x, y, broken = where
    chips = planes.port.shape[1]
    step = min(sheet.width / chips, 3.0)
    at = (np.arange(chips) - (chips - 1) / 2) * step + (sheet.width - 1) / 2
    height = top + max(4.0, 0.16 * sheet.width)
    same = (planes.port == planes.port[:1]).all(axis=0)
    tops = sorted({(float(x[i]), top) for i in range(len(x))})
    for chip in range(chips):
        left = float(planes.port[:, chip].max())
        sheet.square((float(at[chip]), height), 0.9, _CHIP)
        for start in tops:
            sheet.line([start, (float(at[chip]), height)], alpha=min(1.0, 12.0 / np.sqrt(len(tops) * chips)), width=0.6)
        if same[chip] and left < 1:
            sheet.cross((float(at[chip]), height), left)
            continue
        for i in np.flatnonzero(broken[:, chip]).tolist():
            ends = (float(x[i]), float(y[i])), (float(at[chip]), height)
            sheet.cut(ends, float(planes.port[i, chip]), at=between(*ends, (top + height) / 2))
    sheet.rows.append((height, f"{chips} switch chips"))
    sheet.top = height
    return [f"every accelerator has {planes.port_GBps:,.4g} GB/s each way to every switch chip"]


def _two(sheet: Sheet, planes: Planes, where: tuple[Floats, Floats, Bools], top: float) -> list[str]:
    """A row of first-tier chips for each plane, the first plane on top, and second-tier chips in a group a plane."""
    x, y, broken = where
    nodes, count, chips = planes.uplink.shape
    column = np.array([x[planes.node == node][0] for node in range(nodes)])
    row = top + _GAP + np.arange(count)[::-1]
    high = float(row.max()) + 1.4 + 0.45 * count
    right = float(column.max())
    sheet.width = max(sheet.width, right + 1.6 + 0.5 * count)
    upper, side = _groups(sheet.width, count, chips, high)
    for node in range(nodes):
        sheet.line([(column[node], top), (column[node], float(row.max()))], alpha=0.5, width=0.6)
    many = int(_chips(planes)[2].sum()) > _LINES
    marks = (float(row.max()) + high) / 2  # where there are no chips that one may seem to be on
    for plane in range(count):
        colour = style.SERIES[plane % len(style.SERIES)]
        pale = lighter(colour, 0.35)
        turn, over = right + 0.9 + 0.5 * plane, high - 0.9 - 0.45 * (count - 1 - plane) - 0.1
        middle = float(upper[plane, :, 0].mean())
        way = [(float(column.min()), row[plane]), (turn, row[plane]), (turn, over), (middle, over), (middle, high)]
        sheet.line(way, colour, width=1.4)
        if plane % -(-count // _NAMED) == 0:
            sheet.rows.append((float(row[plane]), f"plane {plane}"))
        for node in range(nodes):
            sheet.square((float(column[node]), float(row[plane])), 0.72, pale)
        for chip in range(chips):
            sheet.square(upper[plane, chip].tolist(), 0.72 * side, pale)
        _broken(sheet, planes, plane, (column, float(row[plane])), (upper[plane], side), None if many else marks)
        for i in np.flatnonzero(broken[:, plane]).tolist():
            at = (float(x[i]) + 0.3, top + 0.7 + 1.2 * plane / count)
            if (
                planes.port[planes.node == planes.node[i], plane].max() > 0
                or planes.uplink[planes.node[i], plane].max() > 0
            ):
                sheet.cut([(at[0], float(y[i])), (at[0], float(row[plane]))], float(planes.port[i, plane]), at=at)
    sheet.rows.append((float(upper[0, :, 1].mean()), f"{count} × {chips}\nchips on top"))
    sheet.top = float(upper[..., 1].max())
    return [
        f"an accelerator has {planes.port_GBps:,.4g} GB/s each way into each plane",
        f"a plane has a chip in each node, and each of these a lane of {planes.uplink_GBps:,.4g} GB/s to every chip of "
        "its colour on top",
        *(["red in a chip: share of its lanes that is down"] if many else []),
    ]


def _groups(width: float, count: int, chips: int, high: float) -> tuple[Floats, float]:
    """Middles of second-tier chips, two rows a plane, planes from the left, shape (planes, chips, 2); their step."""
    across = -(-chips // 2)
    step = width / count
    place = np.arange(chips)
    out = np.zeros((count, chips, 2))
    side = min(1.0, (step - 0.8) / across)
    out[:, :, 0] = (np.arange(count)[:, None] + 0.5) * step - 0.5 + (place % across - (across - 1) / 2) * side
    out[:, :, 1] = high + 0.5 + place // across * side
    return out, side


def _chips(planes: Planes) -> tuple[Floats, Floats, Bools]:
    """What is left of chips that lost all their links alike, of the first tier (nodes, planes) and the second (planes,
    chips), 1 for all others; and lanes that are broken by themselves (nodes, planes, chips).
    """
    least, most = np.ones(planes.uplink.shape[:2]), np.zeros(planes.uplink.shape[:2])
    np.minimum.at(least, planes.node, planes.port)
    np.maximum.at(most, planes.node, planes.port)
    first = np.where((least == most) & (planes.uplink <= most[..., None]).all(axis=2), most, 1.0)
    second = np.where((planes.uplink == planes.uplink[:1]).all(axis=0), planes.uplink[0], 1.0)
    return first, second, (planes.uplink < 1) & (first >= 1)[..., None] & (second >= 1)


def _broken(
    sheet: Sheet,
    planes: Planes,
    plane: int,
    first: tuple[Floats, float],
    second: tuple[Floats, float],
    marks: float | None,
) -> None:
    """Chips and lanes of a plane that are down or slow, lanes with their mark at a height; without one how much every
    chip has lost.
    """
    (column, row), (upper, step) = first, second
    lower, higher, every = _chips(planes)
    lower_left, upper_left, loose = lower[:, plane], higher[plane], every[:, plane]
    for chip in np.flatnonzero(upper_left < 1).tolist():
        sheet.cross(upper[chip].tolist(), float(upper_left[chip]))
    for node in np.flatnonzero(lower_left < 1).tolist():
        sheet.cross((float(column[node]), row), float(lower_left[node]))
    if marks is not None:
        for node, chip in np.argwhere(loose).tolist():
            ends = (float(column[node]), row), (float(upper[chip, 0]), float(upper[chip, 1]))
            sheet.cut(ends, float(planes.uplink[node, plane, chip]), at=between(*ends, marks))
        return
    lost = np.where(loose, 1 - planes.uplink[:, plane], 0.0)
    at = [*((float(x), row) for x in column), *((x, y) for x, y in upper.tolist())]
    sides = [0.72] * len(column) + [0.72 * step] * len(upper)
    for point, side, share in zip(at, sides, [*lost.mean(axis=1), *lost.mean(axis=0)], strict=True):
        if share > 0:
            sheet.square(point, side * float(np.sqrt(share)), DOWN, above=True)
