"""``cmsim validate``: predictions beside what was published or measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.cli.run import Json

#: exit code where a prediction is out of tolerance
OUT_OF_TOLERANCE = 1


@app.command()
def validate(
    area: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this area; may be repeated. Default: all.")
    ] = None,
    json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the report as Markdown.")] = None,
) -> None:
    """Compare predictions with published and measured numbers; exit 1 where one is out of tolerance."""
    from cmsim import validation

    report = validation.validate(areas=area or None)
    if out is not None:
        from cmsim.reading import write_text

        write_text(out, report.markdown())
    if json:
        say.document(report.summary())
    elif out is None:
        _print(report.table())
    if out is not None:
        say.message(f"wrote {out}")
    if not report.ok:
        wrong = [str(next(iter(row.values()))) for row in report.table() if row.get("ok") is False]
        say.message(f"out of tolerance{': ' if wrong else ''}{', '.join(wrong)}")
        raise typer.Exit(OUT_OF_TOLERANCE)


def _print(rows: list[dict[str, Any]]) -> None:
    from cmsim.cli.numbers import digits

    heads = list(dict.fromkeys(key for row in rows for key in row))
    words = [i for i, head in enumerate(heads) if not any(isinstance(row.get(head), float) for row in rows)]
    cells = [[_cell(row.get(head, ""), digits) for head in heads] for row in rows]
    say.show(say.table([say.broken(head) for head in heads], cells, left=words, whole=(0,)))


def _cell(value: Any, digits: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return digits(value) if isinstance(value, float) else "" if value is None else str(value)
