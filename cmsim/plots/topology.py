"""A system as it is wired: accelerators, switch chips and links of one domain, the network between domains, and what is
down or slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmsim.plots import style, topology_links, topology_outside, topology_planes
from cmsim.plots.sheet import DOWN, PART, SLOW, Sheet
from cmsim.topology.sketch import Planes, Sketch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

#: of a figure of one's own [inch]: the most and the least it is wide, the most it is high
_WIDE, _LEAST, _MOST = 9.0, 7.6, 8.6
#: what stands around the sheet [points]: a row of the legend, a title, a line of words, a letter, an edge
_ROW, _HEAD, _LINE, _LETTER, _EDGE = 14.5, 32.0, 11.0, 4.6, 12.0
#: side of a cell on axes of the caller [inch]
_SCALE = 0.2
#: names of broken parts that are listed; letters in a row of the legend
_LISTED, _LETTERS = 6, 100


@dataclass(frozen=True)
class _Edges:
    """Room around a sheet. [inch]"""

    left: float
    below: float
    above: float


@style.plain
def draw(system: Sketch, ax: Axes | None = None) -> Axes:
    """One domain of a system, the most broken or the first; above it the network between domains, where there are
    several or something of it is broken.
    """
    sheet = Sheet()
    inside = system.inside
    words = topology_planes.lay(sheet, inside) if isinstance(inside, Planes) else topology_links.lay(sheet, inside)
    if system.domains > 1 or topology_outside.is_broken(system.outside):
        words += topology_outside.lay(sheet, system.outside, system.domain)
    below = _wrapped([*filter(None, [_said(system.broken)]), *words])
    handles = _handles(sheet)
    columns = max(1, min(len(handles), _LETTERS // (max(len(str(one.get_label())) for one in handles) + 5)))
    rows = -(-len(handles) // columns)
    edges = _Edges(
        left=(_EDGE + _LETTER * max((len(line) for _, text in sheet.rows for line in text.split("\n")), default=0))
        / 72,
        below=(_EDGE + _LINE * len(below)) / 72,
        above=(_HEAD + _ROW * rows) / 72,
    )
    ax, scale = _axes(sheet, edges) if ax is None else (style.axes(ax), _SCALE)
    sheet.put(ax, 72 * scale)
    ax.set_xlim(-0.5, sheet.width - 0.5)
    ax.set_ylim(-0.8, sheet.top + 0.6)
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([y for y, _ in sheet.rows], [text for _, text in sheet.rows])
    ax.tick_params(axis="y", length=0, labelcolor=style.INK, labelsize=style.FONT["note"])
    style.label(ax.xaxis, "\n".join(below))
    ax.xaxis.label.set_fontsize(style.FONT["note"])
    style.above(ax, handles, columns, handlelength=1.2)
    style.head(ax, _title(system), above=_ROW * rows)
    return ax


def _axes(sheet: Sheet, edges: _Edges) -> tuple[Axes, float]:
    """Those of a figure that the sheet fills but for what stands around it, and the side of a cell [inch]."""
    height = sheet.top + 1.4
    scale = min((_WIDE - edges.left - _EDGE / 72) / sheet.width, (_MOST - edges.below - edges.above) / height)
    box = scale * sheet.width, scale * height
    size = max(edges.left + box[0] + _EDGE / 72, _LEAST), edges.below + box[1] + edges.above
    ax = style.axes(None, size=size)
    figure = ax.get_figure(root=True)
    assert figure is not None
    # a layout that is found by looking cuts off what stands around axes of equal units
    figure.set_layout_engine("none")
    left = max(edges.left, (size[0] - box[0]) / 2)
    ax.set_position((left / size[0], edges.below / size[1], box[0] / size[0], box[1] / size[1]))
    return ax, scale


def _title(system: Sketch) -> str:
    one = f"{system.name}: {system.accelerators:,} × {system.accelerator}"
    return one if system.domains == 1 else f"{one} in {system.domains:,} domains, domain {system.domain} drawn"


def _said(broken: Mapping[str, float]) -> str:
    """What is broken, by name."""
    if not broken:
        return ""
    names = [name if not left else f"{name} at {100 * left:.3g} %" for name, left in broken.items()]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"broken: {', '.join(names[:_LISTED])}{more}"


def _wrapped(words: list[str]) -> list[str]:
    import textwrap

    return textwrap.wrap("; ".join(words), 110)


def _handles(sheet: Sheet) -> list[Line2D]:
    """What colours and marks are."""
    from matplotlib.lines import Line2D

    down, slow = sheet.has_broken()
    handles = [Line2D([], [], color=colour, linewidth=2.0, label=said) for said, colour in sheet.said.items()]
    handles += [
        Line2D([], [], linestyle="", marker=shape, markersize=6, markerfacecolor=face, markeredgecolor=edge, label=said)
        for there, shape, face, edge, said in (
            (True, "s", PART, PART, "accelerator"),
            (down, "x", DOWN, DOWN, "down"),
            (slow, "v", "white", SLOW, "slow"),
        )
        if there
    ]
    return handles
