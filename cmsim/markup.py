"""What notebooks show: the one place where HTML is made, and every text in it escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence


def table(
    rows: Sequence[Sequence[str]],
    *,
    head: Sequence[str] = (),
    title: str = "",
    about: str = "",
    notes: Sequence[str] = (),
    align: str = "right",
) -> str:
    """Rows as an HTML table, the first cell of each as its head.

    title, about: in front of it    notes: a list below it    align: of cells

    >>> table([("a<b", "1")], title="x")
    "<b>x</b><table><tr><th style='text-align:left'>a&lt;b</th><td style='text-align:right'>1</td></tr></table>"
    """
    said = (f"<b>{html.escape(title)}</b>" if title else "") + (f": {html.escape(about)}" if about else "")
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = [f"<tr>{heads}</tr>" if head else ""]
    for first, *rest in rows:
        cells = "".join(f"<td style='text-align:{align}'>{html.escape(cell)}</td>" for cell in rest)
        lines.append(f"<tr><th style='text-align:left'>{html.escape(first)}</th>{cells}</tr>")
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"{said}<table>{''.join(lines)}</table>" + (f"<ul>{listed}</ul>" if notes else "")
