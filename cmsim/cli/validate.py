"""``cmsim validate``: predictions beside what was published or measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.cli.run import Json
from cmsim.errors import InputError, Problem

if TYPE_CHECKING:
    from cmsim.validation import Report

#: exit code where a prediction is out of tolerance
OUT_OF_TOLERANCE = 1


@app.command()
def validate(
    area: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this area; may be repeated. Default: all.")
    ] = None,
    json: Json = False,
    errors: Annotated[
        Path | None,
        typer.Option(help="Write the errors of all areas as data, which `uncertainty` of scenarios draws from."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the report as Markdown, and its tables and figures into the folder beside it."),
    ] = None,
) -> None:
    """Compare predictions with published and measured numbers; exit 1 where one is out of tolerance."""
    from cmsim import validation

    if errors is not None and area:
        raise InputError(Problem("is of all areas; leave --area out", key="--errors"))
    if out is not None:
        _check_place(out)
    report = validation.validate(areas=area or None)
    if out is not None:
        _write(report, out)
    if errors is not None:
        from cmsim.reading import write_text

        write_text(errors, report.errors())
    if json:
        say.document(report.summary())
    elif out is None and errors is None:
        _print(report.table())
    if out is not None:
        say.message(f"wrote {out} and {out.with_suffix('')}")
    if not report.ok:
        wrong = [str(next(iter(row.values()))) for row in report.table() if row.get("ok") is False]
        say.message(f"out of tolerance{': ' if wrong else ''}{', '.join(wrong)}")
        raise typer.Exit(OUT_OF_TOLERANCE)


def _check_place(page: Path) -> None:
    """Raises InputError where the folder of a page holds what no validation wrote: it is about to be replaced."""
    folder = page.with_suffix("")
    if folder == page:
        raise InputError(Problem("needs a suffix, as in validity.md: without it is the name of its folder", str(page)))
    if not folder.exists():
        return
    others = [one.name for one in sorted(folder.iterdir()) if not _ours(one)] if folder.is_dir() else [folder.name]
    if others:
        raise InputError(Problem(f"'{others[0]}' is of no validation, so all is left alone", str(folder)))


def _ours(path: Path) -> bool:
    """Whether a validation wrote a page, or the page that a figure belongs to."""
    from cmsim.validation.detail import MADE_BY

    text = path.with_suffix(".md")
    if path.suffix not in (".md", ".png") or not text.is_file():
        return False
    with text.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().rstrip() == MADE_BY


def _write(report: Report, page: Path) -> None:
    """The page, and the folder of the same name with tables and figures; all of them or none."""
    from cmsim.plots import predicted, save
    from cmsim.reading import whole_folder, write_text
    from cmsim.validation import reference

    folder = page.with_suffix("")
    with whole_folder(folder) as new:
        for name, text in report.pages(page.name).items():
            write_text(new / name, text)
        for name, pairs in report.pairs.items():
            if pairs:
                save(predicted.draw(pairs, title=reference.read_head(name).title), new / f"{name}.png")
        # last before the folder takes its place: where this fails, nothing was written
        write_text(page, report.markdown(folder.name))


def _print(rows: list[dict[str, Any]]) -> None:
    from cmsim.numbers import digits

    heads = list(dict.fromkeys(key for row in rows for key in row))
    words = [i for i, head in enumerate(heads) if not any(isinstance(row.get(head), float) for row in rows)]
    cells = [[_cell(row.get(head, ""), digits) for head in heads] for row in rows]
    say.show(say.table([say.broken(head) for head in heads], cells, left=words, whole=(0,)))


def _cell(value: Any, digits: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return digits(value) if isinstance(value, float) else "" if value is None else str(value)
