"""``cmsim run``: a scenario in, tables or JSON out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app

ScenarioName = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO",
        help="A file such as scenarios/headline.yaml, or a built-in name (cmsim list scenarios).",
        autocompletion=complete.scenarios,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]


@app.command()
def run(
    scenario: ScenarioName,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write: summary.json, frames, manifest. Complete or absent.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key of the scenario first; dots reach inside, values are YAML. May be repeated.",
        ),
    ] = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables, notes or progress.")] = False,
) -> None:
    """Run every workload of a scenario on every system, at every point of its sweep."""
    from cmsim import api
    from cmsim.scenario import load_scenario

    start_s = time.monotonic()
    loaded = load_scenario(scenario, set=say.settings(set_ or []))
    with say.Bar(quiet=quiet) as bar:
        results = api.run(loaded, out=out, progress=bar)
    if json:
        say.document(results.summary())
    elif not quiet:
        from cmsim.cli import tables

        to = say.console()
        to.print(loaded.name, style="bold", markup=False)
        for table in tables.summary(results, per=loaded.report.per):
            to.print()
            to.print(table)
        to.print()
        say.notes([note for result in results for note in result.warnings] + _assumed(results.manifest), to)
    if not quiet:
        # said apart from the results, which are the same each time
        runs = "1 run" if len(results) == 1 else f"{len(results)} runs"
        say.message(f"{runs} in {time.monotonic() - start_s:.2g} s" + (f"; wrote {out}" if out is not None else ""))


def _assumed(manifest: object) -> list[str]:
    """How many numbers behind the results nobody published."""
    listed = manifest.get("assumed", []) if isinstance(manifest, dict) else []
    by_file: dict[str, int] = {}
    for entry in listed:
        name = str(entry).partition(":")[0]
        by_file[name] = by_file.get(name, 0) + 1
    return [f"assumed numbers: {', '.join(f'{n} in {name}' for name, n in by_file.items())} (cmsim show)"] * bool(
        by_file
    )
