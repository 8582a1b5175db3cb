"""A system as it is wired: accelerators, switch chips and links of one domain, the network between domains, and what is
down or slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cmsim.plots import style, topology_links, topology_outside, topology_planes
from cmsim.plots.sheet import DOWN, PART, SLOW, Sheet
from cmsim.topology.sketch import Planes, Sketch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: of a figure of one's own [inch]: the most and the least it is wide, what is beside and above the sheet, the most it
#: is high
_WIDE, _LEAST, _BESIDE, _ABOVE, _MOST = 9.0, 7.6, 1.4, 1.6, 8.6
#: names of broken parts that are listed; letters in a row of the legend
_LISTED, _LETTERS = 6, 100


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
    height = sheet.top + 1.4
    scale = min((_WIDE - _BESIDE) / (sheet.width + 1), (_MOST - _ABOVE) / height)
    ax = style.axes(ax, size=(max(scale * (sheet.width + 1) + _BESIDE, _LEAST), scale * height + _ABOVE))
    sheet.put(ax, 72 * scale)
    ax.set_xlim(-0.7, sheet.width - 0.3)
    ax.set_ylim(-0.8, sheet.top + 0.6)
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([y for y, _ in sheet.rows], [text for _, text in sheet.rows])
    ax.tick_params(axis="y", length=0, labelcolor=style.INK, labelsize=style.FONT["note"])
    style.label(ax.xaxis, "\n".join(_wrapped([*filter(None, [_said(system.broken)]), *words])))
    ax.xaxis.label.set_fontsize(style.FONT["note"])
    rows = _legend(ax, sheet)
    ax.set_title(_title(system), loc="left", fontsize=style.FONT["title"], color=style.INK, pad=8 + 14 * rows)
    return ax


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


def _legend(ax: Axes, sheet: Sheet) -> int:
    """What colours and marks are; in how many rows."""
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
    widest = max(len(str(one.get_label())) for one in handles)
    columns = max(1, min(len(handles), _LETTERS // (widest + 5)))
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=style.FONT["note"],
        labelcolor=style.INK,
        handlelength=1.2,
        columnspacing=1.4,
        borderaxespad=0.2,
        borderpad=0.1,
    )
    return -(-len(handles) // columns)
