"""``cmsim compare``: scenarios or folders of results side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.cli.run import Json
from cmsim.errors import InputError

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
    metric: Annotated[
        list[str] | None, typer.Option(help="Only these rows, by name or with * and ?. May be repeated.")
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(help="Only these runs, by label or a part of it, or with * and ?. May be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare runs: one row per metric, one column per run, ratios to the first run of the same kind.

    On a terminal, runs that have no room are only counted; --run chooses, and a file or a pipe gets all.
    """
    from cmsim import api
    from cmsim.cli import notes, side_by_side

    with say.Bar() as bar:
        parts = [load(source, bar) for source in sources]
    joined = api.compare(*parts)
    # a run's label says nothing of the folder it came from
    of = [(source, result) for source, part in zip(short(sources), parts, strict=True) for result in part.results]
    labels = {
        result.run: side_by_side.head(one, source) for result, (source, one) in zip(joined.results, of, strict=True)
    }
    shown = side_by_side.chosen_runs(joined.results, run or ())
    only = side_by_side.chosen_metrics(shown, metric or ())
    if json:
        said = {one.run for one in shown}
        document = joined.summary()
        document["results"] = [one for one in document["results"] if one["run"] in said]
        say.document({**document, "ratios_to_first": side_by_side.ratios(shown, only)})
        return
    for line in notes.skipped(joined):
        say.message(line)
    joined.require()
    tables, left_out = side_by_side.side_by_side(
        shown, [labels[one.run] for one in shown], width=say.console().width, only=only, one_screen=sys.stdout.isatty()
    )
    surely = notes.chances(shown, [labels[one.run] for one in shown])
    say.show(*tables, *([say.notes(surely, say.prose(say.console().width))] if surely else []))
    if left_out:
        say.message(
            f"{left_out} more runs have no room here; choose with --run and --metric, or write to a file or pipe"
        )


def load(source: str, bar: say.Bar) -> Results:
    """Results of a folder, or of a scenario that is run first. Frames are read from a folder only."""
    from cmsim import api
    from cmsim.reading import exists
    from cmsim.results import Results

    path = Path(source)
    if exists(path, folders=True) and path.is_dir():
        return Results.load(source)  # refused there, with the reason
    if not exists(path) and path.suffix not in (".yaml", ".yml") and not _is_built_in(source):
        advice = f"`cmsim run SCENARIO --out {source}` writes one; `cmsim list scenarios` names those that are built in"
        raise InputError(f"no such folder, and no scenario of that name: {source}. {advice}")
    return api.run(source, progress=bar)


def _is_built_in(name: str) -> bool:
    from cmsim.reading import builtin_files

    return name in builtin_files("scenarios")


def short(sources: Sequence[str]) -> list[str]:
    """What tells sources apart: their last names, the whole of them where those are alike, nothing for one alone."""
    if len(sources) == 1:
        return [""]
    paths = [Path(source) for source in sources]
    short = [path.stem if path.suffix in (".yaml", ".yml") else path.name or str(path) for path in paths]
    return short if len(set(short)) == len(short) else list(sources)
