"""``cmsim export``: a workload in the form of other people's tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.cli.run import ScenarioName
from cmsim.errors import InputError, did_you_mean

export = typer.Typer(no_args_is_help=True, help="Workloads in the form of other people's tools.")
app.add_typer(export, name="export")


@export.command()
def chakra(
    scenario: ScenarioName,
    out: Annotated[Path, typer.Option(help="Folder to write, complete or absent: a file a rank, and communicators.")],
    run: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Which run, workload/system/point; needed where the scenario has several."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the scenario first. May be repeated."),
    ] = None,
) -> None:
    """A run's workload as Chakra execution traces (.et), with the times that its system gives kernels."""
    from cmsim import api
    from cmsim.scenario import load_scenario

    loaded = load_scenario(scenario, set=say.settings(set_ or []))
    runs = {one.key: one for one in loaded.runs}
    if run is None and len(runs) > 1:
        raise InputError(f"the scenario has {len(runs)} runs; --run says which: {', '.join(runs)}")
    if run is not None and run not in runs:
        raise InputError(f"--run: no run '{run}'. {did_you_mean(run, runs)}")
    paths = api.export_chakra(runs[run] if run is not None else loaded.runs[0], out, base=loaded.base)
    say.message(f"wrote {out}: {len(paths) - 1} traces and {paths[-1].name}")
