"""``cmsim report``: results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.errors import InputError, did_you_mean


@app.command()
def report(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULT...", help="Folders of results; a scenario is run first.", autocompletion=complete.results
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Default: the scenario's name.")] = "",
    per: Annotated[
        list[str] | None,
        typer.Option(help="Throughput per accelerator, rack, megawatt or million_dollars. May be repeated."),
    ] = None,
) -> None:
    """Write one self-contained page: the question, the answer, tables, figures, what limits it, sources."""
    from cmsim.cli.compare import load, short
    from cmsim.report import write_report
    from cmsim.results import PER, Results

    for what in per or []:
        if what not in PER:
            raise InputError(f"--per: got '{what}'. {did_you_mean(what, PER)}")
    if out.suffix.lower() not in (".html", ".htm"):  # said before anything is run
        raise InputError(f"{out}: a report is an .html file")
    with say.Bar() as bar:
        parts = [load(source, bar) for source in sources]
    results = parts[0] if len(parts) == 1 else Results.joined(parts, short(sources))
    said = results.scenario.get("report", {}) if len(parts) == 1 else {}
    write_report(results, out, title=title, per=per if per is not None else said.get("per", ()))
    say.line(str(out))
