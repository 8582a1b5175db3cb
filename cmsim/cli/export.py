"""``cmsim export``: workloads, results and systems in the form of other people's tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.cli.run import ScenarioName
from cmsim.errors import InputError, Problem, did_you_mean

if TYPE_CHECKING:
    from cmsim.traces.recorded import Trace

export = typer.Typer(no_args_is_help=True, help="Workloads, results and systems in the form of other people's tools.")
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


@export.command()
def perfetto(
    sources: Annotated[
        list[str], typer.Argument(metavar="RESULT...", help="Folders of results, or scenarios, which are run first.")
    ],
    out: Annotated[Path, typer.Option(help="File to write; https://ui.perfetto.dev opens it.")],
    recorded: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACE", help="A recorded run on the same axis: what `cmsim trace info` reads. May be repeated."
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Only runs whose label holds that or is of that pattern. May be repeated."),
    ] = None,
) -> None:
    """Timelines, power and links of runs as a Perfetto trace, side by side on one axis of time."""
    from cmsim.cli.compare import load
    from cmsim.cli.side_by_side import chosen_runs
    from cmsim.export import write_perfetto
    from cmsim.results import Results

    before = [_recorded(name) for name in recorded or ()]
    with say.Bar() as bar:
        parts = [load(source, bar) for source in sources]
    results = parts[0] if len(parts) == 1 else Results.joined(parts, sources)
    results.require()
    shown = chosen_runs(results.results, run or [])
    write_perfetto(shown, out, recorded=before)
    beside = f" beside {len(before)} recorded" if before else ""
    say.message(f"wrote {out}: {len(shown)} run{'s' * (len(shown) != 1)}{beside}, {out.stat().st_size / 1e6:.3g} MB")


def _recorded(name: str) -> Trace:
    """A trace of any format; its notes are said."""
    from cmsim.describe import find_file
    from cmsim.traces import open_trace

    path = find_file(name)
    if path is None:
        raise InputError(Problem("no such file or folder", name, key="--recorded"))
    read = open_trace(path).trace()
    for note in read.notes:
        say.message(f"note: {note}")
    return read


@export.command()
def infragraph(
    system: Annotated[
        str,
        typer.Argument(
            help="A system, by name or path.",
            autocompletion=lambda incomplete: complete.builtin("topologies", incomplete),
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write, YAML; infragraph and what stands on it read it.")],
    domains: Annotated[int | None, typer.Option(help="Domains, with the network between them; default: one.")] = None,
    accelerators: Annotated[int | None, typer.Option(help="Accelerators in use; default: all.")] = None,
) -> None:
    """A system as a description of a cluster: hosts, switches, and the bandwidth and latency of each link."""
    from cmsim.clusters import write_cluster
    from cmsim.hardware import load_system

    there = load_system(system, domains=domains, accelerators=accelerators)
    write_cluster(there, out)
    say.message(f"wrote {out}: {there.packages} accelerators, {out.stat().st_size / 1e3:.3g} kB")
