"""``cmsim compare``: scenarios or folders of results side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.cli.run import Json

if TYPE_CHECKING:
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
    from cmsim.cli import notes, side_by_side

    with say.Bar() as bar:
        parts = [load(source, bar) for source in sources]
    joined = api.compare(*parts)
    if json:
        say.document({**joined.summary(), "ratios_to_first": side_by_side.ratios(joined.results)})
        return
    for line in notes.skipped(joined):
        say.message(line)
    joined.require()
    # a run's label says nothing of the folder it came from
    heads = [
        side_by_side.head(result, source)
        for source, part in zip(_short(sources), parts, strict=True)
        for result in part.results
    ]
    say.show(*side_by_side.side_by_side(joined.results, heads, width=say.console().width))


def load(source: str, bar: say.Bar) -> Results:
    """Results of a folder, or of a scenario that is run first. Frames are read from a folder only."""
    from cmsim import api
    from cmsim.reading import exists
    from cmsim.results import Results

    if exists(Path(source) / "summary.json"):
        return Results.load(source)
    if exists(Path(source), folders=True) and Path(source).is_dir():
        return Results.load(source)  # refused there, with the reason
    return api.run(source, progress=bar)


def _short(sources: Sequence[str]) -> list[str]:
    """What tells sources apart: their last names, the whole of them where those are alike, nothing for one alone."""
    if len(sources) == 1:
        return [""]
    paths = [Path(source) for source in sources]
    short = [path.stem if path.suffix in (".yaml", ".yml") else path.name or str(path) for path in paths]
    return short if len(set(short)) == len(short) else list(sources)
