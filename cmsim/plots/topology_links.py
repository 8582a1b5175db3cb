"""A domain whose accelerators are joined link by link: on a circle, on a grid, or as the graph lies best.

On a grid the two inner dimensions are a block, the others blocks beside each other. Links between neighbours of a ring
or a line are drawn in every block; of all other links those of one accelerator, which are like those of all others.
"""

from __future__ import annotations

import math

import numpy as np

from cmsim.arrays import Bools, Floats
from cmsim.plots import style
from cmsim.plots.sheet import Sheet, bow
from cmsim.topology.sketch import Neighbours

#: accelerators of one dimension are on a circle up to so many, and all links of so few are drawn
_CIRCLE, _ALL = 64, 700
#: cells between blocks
_APART = 2.0
_LEAST = 30.0


def lay(sheet: Sheet, joined: Neighbours) -> list[str]:
    """Onto a sheet; what is to be said of it."""
    count = len(joined.coord)
    grid = len(joined.along) > 1 or (len(joined.along) == 1 and count > _CIRCLE)
    if grid:
        at, focus = _grid(joined), _focus(joined)
    else:
        at, focus = (_circle if joined.along else _graph)(joined), -1
    _fit(sheet, at, grid=grid)
    colours = {i: style.SERIES[i % len(style.SERIES)] for i in range(len(joined.along))}
    for i, one in enumerate(joined.along):
        name = "" if one.name == one.kind else f"{one.name}: "
        sheet.said[f"{name}{one.kind} of {one.size}, {one.link_GBps:,.4g} GB/s"] = colours[i]
    if not joined.along:
        sheet.said["link"] = style.MUTED
    side = 0.6 if grid else 0.9
    for point in at[:count].tolist():
        sheet.square(point, side)
    shown = _switches(sheet, joined, at, focus)
    words = _links(sheet, joined, at, focus, colours)
    if 0 < shown < len(joined.switches):
        words.append(f"{shown} of {len(joined.switches):,} switches (rings on top) are drawn")
    _broken(sheet, joined, at, straight=focus < 0)
    if focus >= 0:
        sheet.square(at[focus].tolist(), side, style.INK, above=True)
        words.insert(0, f"coloured: links of one accelerator (black), and rings round; each of the {count:,} has such")
    return words


def _circle(joined: Neighbours) -> Floats:
    count = len(joined.coord) + len(joined.switches)
    turn = 2 * np.pi * np.arange(count) / count
    return np.column_stack([np.sin(turn), np.cos(turn)])


def _graph(joined: Neighbours) -> Floats:
    """Where nodes lie so that links are short, the same every time."""
    import networkx as nx

    count = len(joined.coord) + len(joined.switches)
    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(zip(joined.start.tolist(), joined.end.tolist(), strict=True))
    place = nx.kamada_kawai_layout(graph) if count <= 200 else nx.spring_layout(graph, seed=0)
    return np.array([place[node] for node in range(count)])


def _grid(joined: Neighbours) -> Floats:
    """Accelerators in blocks, block after block; a switch above them all."""
    size = [one.size for one in joined.along]
    inner = size[:2] if len(size) > 1 else [math.isqrt(size[0] - 1) + 1]
    wide, high = inner[0], inner[1] if len(inner) > 1 else -(-size[0] // inner[0])
    if len(size) > 1:
        x, y = joined.coord[:, 0].astype(float), joined.coord[:, 1].astype(float)
    else:
        x, y = (joined.coord[:, 0] % wide).astype(float), (joined.coord[:, 0] // wide).astype(float)
    blocks = math.prod(size[2:])
    number = np.zeros(len(joined.coord), np.int64)
    for column in reversed(range(2, len(size))):
        number = number * size[column] + joined.coord[:, column]
    # as wide as a page; where there is a fourth dimension, a row of blocks is whole rows of the third
    least = size[2] if len(size) > 3 else 1
    fits = [n for n in range(least, blocks + 1, least) if blocks % n == 0]
    across = next((n for n in fits if n * (wide + _APART) >= 0.9 * (blocks // n) * (high + _APART)), blocks)
    line, place = number // across, number % across
    if len(size) == 3:  # one line of blocks to and fro, so that neighbours lie side by side
        place = np.where(line % 2, across - 1 - place, place)
    x += place * (wide + _APART)
    y += (blocks // across - 1 - line) * (high + _APART)
    at = np.column_stack([x, y])
    chips = len(joined.switches)
    if chips:
        top = float(y.max()) + 5.0
        at = np.vstack([at, np.column_stack([np.full(chips, float(x.max()) / 2), np.full(chips, top)])])
    return at


def _focus(joined: Neighbours) -> int:
    """An accelerator from the middle, off the edges of its block."""
    wanted = [one.size // 3 for one in joined.along]
    return int(np.argmin(np.abs(joined.coord - wanted).sum(axis=1)))


def _fit(sheet: Sheet, at: Floats, *, grid: bool) -> None:
    """Scale what has no cells of its own, and leave room."""
    at -= at.min(axis=0)
    if not grid and at.max() > 0:  # a circle or a graph, of no size yet
        at *= (13 if len(at) < 24 else 19) / at.max()
    sheet.width = max(float(at[:, 0].max()) + 1, _LEAST)
    at[:, 0] += (sheet.width - 1 - float(at[:, 0].max())) / 2
    sheet.top = float(at[:, 1].max()) + 0.2


def _links(sheet: Sheet, joined: Neighbours, at: Floats, focus: int, colours: dict[int, str]) -> list[str]:
    """Links that are whole."""
    count = len(joined.coord)
    whole = joined.left >= 1
    if focus < 0:
        for row in np.flatnonzero(whole).tolist():
            colour = colours.get(int(joined.of[row]), style.MUTED)
            ends = [tuple(at[joined.start[row]]), tuple(at[joined.end[row]])]
            sheet.line(ends, colour, width=0.8, alpha=0.8 if len(whole) < _ALL else 0.3)
        return [f"{len(joined.start):,} links, each of two directions"]
    chips = joined.end >= count
    near = (np.abs(at[joined.start] - at[np.minimum(joined.end, len(at) - 1)]).max(axis=1) <= 1.01) & ~chips
    rings = np.isin(joined.of, [i for i, one in enumerate(joined.along) if one.kind in ("ring", "line")])
    for row in np.flatnonzero(whole & near & rings).tolist():
        sheet.line([tuple(at[joined.start[row]]), tuple(at[joined.end[row]])], style.FAINT, width=0.8)
    for row in np.flatnonzero(whole & _its(joined, focus)).tolist():
        start, end = int(joined.start[row]), int(joined.end[row])
        sheet.line(_curve(at, start, end), colours[int(joined.of[row])], width=1.3, above=True)
    return []


def _its(joined: Neighbours, focus: int) -> Bools:
    """Links of an accelerator; along a ring or a line all links of it."""
    count = len(joined.coord)
    own: Bools = (joined.start == focus) | (joined.end == focus)
    inside = joined.end < count
    for number, one in enumerate(joined.along):
        if one.kind in ("ring", "line"):
            others = np.delete(joined.coord, number, axis=1)
            on = (others == others[focus]).all(axis=1)
            own |= (joined.of == number) & inside & on[joined.start]
    return own


def _curve(at: Floats, start: int, end: int) -> list[tuple[float, float]]:
    """A line between neighbours, a bow between those farther apart: others lie between them."""
    a, b = (tuple(at[one].tolist()) for one in (start, end))
    return [a, b] if math.dist(a, b) < 1.5 else bow(a, b, 0.12 if math.dist(a, b) > 12 else 0.22)


def _switches(sheet: Sheet, joined: Neighbours, at: Floats, focus: int) -> int:
    """Rings of switches, those of the accelerator in focus and those that are broken, side by side (``at`` is set); how
    many are drawn.
    """
    count = len(joined.coord)
    if focus < 0:
        sheet.discs += [(*point, 1.0) for point in at[count:].tolist()]
        return len(joined.switches)
    chips = np.unique(joined.end[(joined.start == focus) & (joined.end >= count)])
    broken = np.unique(joined.end[(joined.left < 1) & (joined.end >= count)])
    shown = np.union1d(chips, broken)[:12]
    middle = float(at[count, 0]) if len(joined.switches) else 0.0
    for place, chip in enumerate(shown.tolist()):
        at[chip, 0] = middle + (place - (len(shown) - 1) / 2) * 4
        sheet.discs.append((*at[chip].tolist(), 1.6))
        if chip in chips:
            for row in np.flatnonzero((joined.end == chip) & (joined.left >= 1)).tolist():
                colour = style.SERIES[int(joined.of[row]) % len(style.SERIES)]
                ends = [tuple(at[joined.start[row]]), tuple(at[chip])]
                sheet.line(ends, colour, width=0.5, alpha=0.5)
    return len(shown)


def _broken(sheet: Sheet, joined: Neighbours, at: Floats, *, straight: bool) -> None:
    """Accelerators and switches of which all links are, and links of others."""
    nodes = len(joined.coord) + len(joined.switches)
    ends = np.concatenate([joined.start, joined.end])
    most = np.zeros(nodes)
    np.maximum.at(most, ends, np.tile(joined.left, 2))
    links = np.bincount(ends, minlength=nodes)
    parts = np.flatnonzero((most < 1) & (links > 1))
    for node in parts.tolist():
        sheet.cross(at[node].tolist(), float(most[node]))
    for row in np.flatnonzero(joined.left < 1).tolist():
        start, end = int(joined.start[row]), int(joined.end[row])
        if not np.isin([start, end], parts).any():
            line = [tuple(at[start].tolist()), tuple(at[end].tolist())]
            sheet.cut(line if straight else _curve(at, start, end), float(joined.left[row]))
