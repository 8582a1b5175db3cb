"""What notebooks show: the one place where HTML is made, and every text in it escaped by Jinja2."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

#: rows of a table that are shown; a page with more is slow, and nobody reads them
MOST_ROWS = 200
_TABLE = (
    "{% if title %}<b>{{ title }}</b>{% endif %}{% if about %}: {{ about }}{% endif %}<table>"
    "{% if head %}<tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr>{% endif %}"
    "{% for row in rows %}<tr><th style='text-align:left'>{{ row[0] }}</th>"
    "{% for cell in row[1:] %}<td style='text-align:{{ align }}'>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>"
    "{% if notes %}<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}"
)


@functools.lru_cache(maxsize=1)
def _template() -> Template:
    """The library is imported when something is shown; a missing name in the template is an error."""
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined).from_string(_TABLE)


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
    Of more than ``MOST_ROWS`` the first are shown, and how many more there are.

    >>> table([("a<b", "1")], title="x")
    "<b>x</b><table><tr><th style='text-align:left'>a&lt;b</th><td style='text-align:right'>1</td></tr></table>"
    """
    if len(rows) > MOST_ROWS:
        notes = (f"and {len(rows) - MOST_ROWS:,} more", *notes)
    said = {"rows": rows[:MOST_ROWS], "head": head, "title": title, "about": about, "notes": notes, "align": align}
    return _template().render(said)
