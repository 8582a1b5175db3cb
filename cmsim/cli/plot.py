"""``cmsim plot``: a figure of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.errors import InputError, Problem, did_you_mean

ENDINGS = (".pdf", ".png", ".svg")


@app.command()
def plot(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help=f"One of {', '.join(complete.PLOTS)}.", autocompletion=complete.plots)
    ],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULT...", help="Folders of results; a scenario is run first.", autocompletion=complete.results
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write, png, svg or pdf by its ending. Default KIND.png.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="timeline, power, roofline: which run; default the first.")] = None,
) -> None:
    """Draw a figure; prints the path of the file."""
    if kind not in complete.PLOTS:
        raise InputError(Problem(f"no such figure. {did_you_mean(kind, complete.PLOTS)}", key=kind))
    out = out or Path(f"{kind}.png")
    if out.suffix.lower() not in ENDINGS:  # said before anything is run
        raise InputError(Problem(f"cannot draw '{out.suffix}' files. Allowed: {', '.join(ENDINGS)}.", str(out)))
    if run is not None and kind not in ("timeline", "power", "roofline"):
        raise InputError(Problem(f"{kind} shows all runs at once; --run is for timeline, power and roofline", "--run"))

    from cmsim import api, plots
    from cmsim.cli import notes
    from cmsim.cli.compare import load

    with say.Bar() as bar:
        parts = [load(source, bar) for source in sources]
    results = parts[0] if len(parts) == 1 else api.compare(*parts)
    for line in notes.skipped(results):
        say.message(line)
    results.require()
    chosen = {} if run is None else {"run": run}
    say.line(str(plots.save(plots.KINDS[kind](results, **chosen), out)))
