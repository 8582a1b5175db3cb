"""``cmsim compare``: scenarios or folders of results side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.cli.run import Json
from cmsim.results import Results


@app.command()
def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="A B ...",
            help="Folders that `cmsim run --out` wrote, or scenarios.",
            autocompletion=complete.results,
        ),
    ],
    json: Json = False,
) -> None:
    """Compare runs: one row per metric, one column per run, ratios to the first run of the same kind."""
    from cmsim import api
    from cmsim.cli import tables

    with say.Bar() as bar:
        parts = [load(source, bar) for source in sources]
    joined = api.compare(*parts)
    if json:
        say.document({**joined.summary(), "ratios_to_first": tables.ratios(joined.results)})
        return
    for line in tables.skipped(joined):
        say.message(line)
    joined.require()
    # a run's key says nothing of the folder it came from
    labels = [
        f"{_short(source)}:/{result.run}" if len(sources) > 1 else result.run
        for source, part in zip(sources, parts, strict=True)
        for result in part.results
    ]
    say.show(*tables.side_by_side(joined.results, labels, width=say.console().width))


def load(source: str, bar: say.Bar) -> Results:
    """Results of a folder, or of a scenario that is run first. Frames are read from a folder only."""
    from cmsim import api

    if (Path(source) / "summary.json").exists():
        return Results.load(source)
    if Path(source).is_dir():
        return Results.load(source)  # refused there, with the reason
    return api.run(source, progress=bar)


def _short(source: str) -> str:
    path = Path(source)
    return path.stem if path.suffix in (".yaml", ".yml") else path.name or source
