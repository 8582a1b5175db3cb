"""Where labels stand: beside what they name, and on no mark, line or other label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

#: directions tried, best first (below, above, right, left, then corners), and gaps to the mark [points]
_WAYS = ((0, -1), (0, 1), (1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1))
_GAPS = (3.0, 9.0, 18.0, 30.0, 46.0, 64.0)
#: farther from its mark than this, a label has a line to it [points]
_FAR = 12.0
#: a line is watched at so many places, and so wide [points]
_STEPS, _STROKE = 160, 1.6


class Page:
    """What is drawn on some axes, as discs in points; labels are put where none is.

    Marks and lines are told before labels are put, in the order of their importance. Limits of the axes must stand.
    """

    def __init__(self, ax: Axes):
        figure = ax.get_figure(root=True)
        assert figure is not None, "axes without a figure"
        figure.draw_without_rendering()
        self._ax, self._figure = ax, figure
        self._points = 72 / figure.dpi
        self._discs = np.zeros((0, 3))
        self._boxes: list[tuple[float, float, float, float]] = []
        self._frame = self._box(ax.get_window_extent())

    def marks(self, x: Iterable[float], y: Iterable[float], radius: float | Sequence[float]) -> None:
        """Marks in data coordinates, of these radii in points."""
        at = self._at(x, y)
        self._discs = np.vstack([self._discs, np.column_stack([at, np.broadcast_to(radius, len(at))])])

    def line(self, x: Iterable[float], y: Iterable[float], *, width: float = 2 * _STROKE) -> None:
        """A line through points in data coordinates, so wide in points."""
        at = self._at(x, y)
        if len(at) < 2:
            return
        far = np.append(0.0, np.cumsum(np.hypot(*np.diff(at, axis=0).T)))
        where = np.linspace(0, far[-1], _STEPS)
        dots = np.column_stack([np.interp(where, far, at[:, i]) for i in (0, 1)])
        self._discs = np.vstack([self._discs, np.column_stack([dots, np.full(_STEPS, width / 2)])])

    def taken(self, texts: Iterable[Any]) -> None:
        """Texts that stand already."""
        self._boxes += [self._box(text.get_window_extent()) for text in texts]

    def put(
        self, text: Annotation, *, radius: float = 0.0, hide: bool = True, ways: Sequence[Any] = _WAYS, steps: int = 1
    ) -> bool:
        """Move a label beside its mark, to the nearest place where nothing is; ``hide`` it where there is none.

        text    an annotation centred on its mark, offsets in points    radius  of that mark [points]
        ways    directions (right, up), best first    steps  places tried along the label in each, above and below
        """
        box = self._box(text.get_window_extent())
        width, height = box[2] - box[0], box[3] - box[1]
        ((x, y),) = self._at([text.xy[0]], [text.xy[1]])
        best: tuple[float, float, float, float] | None = None
        for gap in _GAPS:
            for right, up, slide in _slid(ways, steps):
                reach = (radius + gap) * (1 if 0 in (right, up) else math.sqrt(0.5))
                centre = x + right * (reach + width / 2) + slide * width, y + up * (reach + height / 2)
                there = (centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)
                wrong = self._cost(there)
                if best is None or wrong < best[0]:
                    best = (wrong, *centre, gap)
                if not wrong:
                    break
            if best is not None and not best[0]:
                break
        assert best is not None
        if best[0] and hide:
            text.set_visible(False)
            return False
        text.set_horizontalalignment("center")
        text.set_verticalalignment("center")
        text.xyann = (best[1] - x, best[2] - y)
        self._boxes.append((best[1] - width / 2, best[2] - height / 2, best[1] + width / 2, best[2] + height / 2))
        if best[3] > _FAR:
            self._lead(text, (best[1] - x, best[2] - y), radius, width, height)
        return True

    def _lead(self, text: Annotation, to: tuple[float, float], radius: float, width: float, height: float) -> None:
        """A thin line from a mark to its label, which stands apart."""
        far = math.hypot(*to)
        end = min(1.0, max(0.0, 1 - min(width / 2 / max(abs(to[0]), 1e-9), height / 2 / max(abs(to[1]), 1e-9))))
        self._ax.annotate(
            "",
            text.xy,
            (to[0] * end, to[1] * end),
            textcoords="offset points",
            arrowprops={
                "arrowstyle": "-",
                "color": text.get_color(),
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": min(radius, far),
            },
            zorder=2.5,
        )

    def _cost(self, box: tuple[float, float, float, float]) -> float:
        """How much is under a label there; 0: nothing, and it is inside the axes."""
        x0, y0, x1, y1 = box
        left, bottom, right, top = self._frame
        wrong = 50.0 * (x0 < left + 1 or x1 > right - 1 or y0 < bottom + 1 or y1 > top - 1)
        wrong += 20.0 * sum(x0 < b[2] + 1 and x1 > b[0] - 1 and y0 < b[3] and y1 > b[1] for b in self._boxes)
        if len(self._discs):
            x, y, r = self._discs.T
            near = np.hypot(x - np.clip(x, x0, x1), y - np.clip(y, y0, y1))
            wrong += float(np.count_nonzero(near < r))
        return wrong

    def _at(self, x: Iterable[float], y: Iterable[float]) -> NDArray[np.float64]:
        data = np.column_stack([np.asarray(list(x), float), np.asarray(list(y), float)])
        at: NDArray[np.float64] = np.asarray(self._ax.transData.transform(data)) * self._points
        return at

    def _box(self, box: Bbox) -> tuple[float, float, float, float]:
        scale = self._points
        return box.x0 * scale, box.y0 * scale, box.x1 * scale, box.y1 * scale


def _slid(ways: Sequence[tuple[int, int]], steps: int) -> Iterator[tuple[int, int, float]]:
    """Directions, those above and below also with the label moved along itself, the mark still under or over it."""
    for right, up in ways:
        yield right, up, 0.0
        if not right:
            for step in range(1, steps):
                yield from ((right, up, side * 0.45 * step / (steps - 1)) for side in (-1, 1))
