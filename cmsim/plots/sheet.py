"""A sheet to draw parts and links on, in cells: squares, lines, crosses; all of a look at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: parts and links that are whole, that are down, and that are slow; what is broken has a shape of its own too
PART, DOWN, SLOW = "#b9c6d6", "#c1121f", "#b8860b"
#: more broken links than this have no cross each
_CROSSED = 60
#: points along a bow
_STEPS = 16

Point = tuple[float, float]


@dataclass
class Sheet:
    """What is drawn so far. Lines are lists of points; ``left`` of what is broken is a share, 0 for down."""

    squares: dict[tuple[bool, str], list[tuple[float, float, float]]] = field(default_factory=dict)
    discs: list[tuple[float, float, float]] = field(default_factory=list)
    lines: dict[tuple[str, float, float, bool], list[Any]] = field(default_factory=dict)
    crosses: list[tuple[float, float, float]] = field(default_factory=list)
    broken: list[tuple[Any, Point, float]] = field(default_factory=list)
    #: words beside rows: height, what they say
    rows: list[tuple[float, str]] = field(default_factory=list)
    #: words on the sheet: where, what, how they stand to it
    words: list[tuple[Point, str, str]] = field(default_factory=list)
    #: colour of a line, and what it is
    said: dict[str, str] = field(default_factory=dict)
    width: float = 1.0
    top: float = 0.0

    def square(self, at: Sequence[float], side: float = 0.8, colour: str = PART, *, above: bool = False) -> None:
        """A part, by its middle; ``above`` others."""
        self.squares.setdefault((above, colour), []).append((at[0], at[1], side))

    def line(
        self,
        points: Sequence[Point],
        colour: str = style.MUTED,
        *,
        width: float = 0.7,
        alpha: float = 1.0,
        above: bool = False,
    ) -> None:
        """A link that is whole, under the parts unless it is to be ``above`` them."""
        self.lines.setdefault((colour, width, alpha, above), []).append(points)

    def cut(self, points: Sequence[Point], left: float, *, at: Point | None = None) -> None:
        """A link that is down or slow, with a cross where it is seen: in its middle, unless said."""
        middle = len(points) // 2
        between = (
            points[middle] if len(points) % 2 else tuple(np.mean(points[middle - 1 : middle + 1], axis=0).tolist())
        )
        self.broken.append((points, at or between, left))

    def cross(self, at: Sequence[float], left: float = 0.0) -> None:
        """A part that is down or slow."""
        self.crosses.append((at[0], at[1], left))

    def put(self, ax: Axes, cell_pt: float) -> None:
        """Everything onto axes; a cell is so many points wide."""
        from matplotlib.collections import LineCollection, PolyCollection

        for (colour, width, alpha, above), lines in self.lines.items():
            order = 3.5 if above else 1
            ax.add_collection(LineCollection(lines, colors=colour, linewidths=width, alpha=alpha, zorder=order))
        for (above, colour), squares in self.squares.items():
            middle = np.array(squares)
            corner = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
            boxes = middle[:, None, :2] + corner * middle[:, 2][:, None, None]
            edge = 0.5 if cell_pt > 6 else 0.0
            look: dict[str, Any] = {"edgecolors": "none" if above else "white", "linewidths": edge}
            ax.add_collection(PolyCollection(list(boxes), facecolors=colour, zorder=3.2 if above else 3, **look))
        if self.discs:
            across, up, side = zip(*self.discs, strict=True)
            size = [(one * cell_pt) ** 2 for one in side]
            ax.scatter(across, up, s=size, color="white", edgecolors=style.INK, linewidths=0.9, zorder=3, clip_on=False)
        self._broken(ax, cell_pt)
        for (x, y), text, how in self.words:
            ax.text(x, y, text, ha=how, va="center", fontsize=style.FONT["note"], color=style.MUTED, zorder=5)

    def _broken(self, ax: Axes, cell_pt: float) -> None:
        from matplotlib.collections import LineCollection

        for colour, down in ((DOWN, True), (SLOW, False)):
            mine = [(points, at) for points, at, left in self.broken if (left <= 0) == down]
            many = len(mine) > _CROSSED
            lines = [points for points, _ in mine]
            if lines:
                ax.add_collection(
                    LineCollection(
                        lines, colors=colour, linewidths=0.5 if many else 1.3, alpha=0.6 if many else 1.0, zorder=4
                    )
                )
            at = [place for _, place in mine if not many]
            at += [(x, y) for x, y, left in self.crosses if (left <= 0) == down]
            if at:
                x, y = zip(*at, strict=True)
                ax.scatter(x, y, **cross(down), s=min(max(0.7 * cell_pt, 4.5), 8.0) ** 2, zorder=6, clip_on=False)

    def has_broken(self) -> tuple[bool, bool]:
        """Whether anything is down, and whether anything is slow."""
        left = [one for *_, one in (*self.crosses, *self.broken)]
        return any(one <= 0 for one in left), any(one > 0 for one in left)


def cross(down: bool) -> dict[str, Any]:
    """The look of a mark at what is broken."""
    if down:
        return {"marker": "x", "color": DOWN, "linewidths": 1.8}
    return {"marker": "v", "facecolors": "white", "edgecolors": SLOW, "linewidths": 1.5}


def bow(start: Point, end: Point, bend: float) -> list[Point]:
    """A curve from one point to another that leaves the straight line by a share of its length, to its left."""
    a, b = np.array(start), np.array(end)
    away = np.array([-(b - a)[1], (b - a)[0]]) * bend
    middle, t = (a + b) / 2 + 2 * away, np.linspace(0, 1, _STEPS)[:, None]
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * middle + t**2 * b
    return [(float(x), float(y)) for x, y in curve]


def between(start: Point, end: Point, height: float) -> Point:
    """Where a line is at a height.

    >>> between((0.0, 0.0), (4.0, 8.0), 6.0)
    (3.0, 6.0)
    """
    return start[0] + (height - start[1]) / (end[1] - start[1]) * (end[0] - start[0]), height


def some(count: int, most: int, must: Iterable[int] = ()) -> list[int]:
    """Which of many are shown: the first, the last, and those that must be, as many as there is room for.

    >>> some(4, 6), some(100, 5, [40])
    ([0, 1, 2, 3], [0, 1, 2, 40, 99])
    """
    if count <= most:
        return list(range(count))
    wanted = dict.fromkeys([*sorted(set(must)), count - 1, *range(count)])
    return sorted(list(wanted)[:most])
