"""``cmsim plot``: a figure of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.errors import InputError, Problem, did_you_mean

ENDINGS = (".pdf", ".png", ".svg")
#: option, as figures call it -> figures that take it
_TAKES = {
    "run": ("timeline", "power", "power-curve", "roofline", "queue", "waterfall", "tornado", "links", "topology"),
    "start": ("timeline",),
    "end": ("timeline",),
    "measured": ("collective",),
    "metric": ("metric", "latency", "tornado", "scaling"),
    "over": ("metric",),
    "per": ("power-throughput",),
}
_SAID = {"start": "--from", "end": "--to"}


@app.command()
def plot(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help=f"One of {', '.join(complete.PLOTS)}.", autocompletion=complete.plots)
    ],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULT...",
            help="Folders of results; a scenario is run first. topology: a system or a scenario. predicted: areas of "
            "validation.",
            autocompletion=complete.results,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write, png, svg or pdf by its ending. Default KIND.png.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            help="timeline, power, power-curve, roofline, queue, tornado, links: which run; default the first. "
            "waterfall: two, with a comma between. topology: which system of a scenario."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="metric, tornado, scaling: which, as results name it. latency: ttft, tpot or e2e."),
    ] = None,
    over: Annotated[str | None, typer.Option(help="metric: which swept key; default that with most values.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="timeline: a time ('20 ms'), 'step 2' or 'layer 10', counted from 0."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="timeline: the same; the step or layer named is shown.")
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option(help="collective: a log of nccl-tests or the like, or a table, whose points are drawn."),
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(help="power-throughput: accelerator, rack or million_dollars; default of the whole machine."),
    ] = None,
) -> None:
    """Draw a figure; prints the path of the file."""
    if kind not in complete.PLOTS:
        raise InputError(Problem(f"no such figure. {did_you_mean(kind, complete.PLOTS)}", key=kind))
    out = out or Path(f"{kind}.png")
    if out.suffix.lower() not in ENDINGS:  # said before anything is run
        raise InputError(Problem(f"cannot draw '{out.suffix}' files. Allowed: {', '.join(ENDINGS)}.", str(out)))
    chosen = {"run": run, "start": start, "end": end, "measured": measured, "metric": metric, "over": over}
    chosen |= {"per": per}
    chosen = {name: value for name, value in chosen.items() if value}
    for name in chosen:
        its = _TAKES[name]
        if kind not in its:
            key = _SAID.get(name, f"--{name}")
            raise InputError(Problem(f"{kind} has none; it is for {', '.join(its)}", key=key))

    from cmsim import plots

    if kind in ("topology", "predicted"):
        from cmsim.cli import drawn

        ax = plots.topology.draw(drawn.system(sources, run)) if kind == "topology" else drawn.predicted(sources)
        say.line(str(plots.save(ax, out)))
        return
    found = _searches(kind, sources)
    if found:
        say.line(str(plots.save(plots.pareto.draw(found) if kind == "pareto" else plots.search.draw(found[0]), out)))
        return
    from cmsim.cli import notes
    from cmsim.cli.compare import load, short
    from cmsim.results import Results

    with say.Bar() as bar:
        parts = [load(source, bar) for source in sources]
    results = parts[0] if len(parts) == 1 else Results.joined(parts, short(sources))
    for line in notes.skipped(results):
        say.message(line)
    results.require()
    if measured:
        chosen["measured"] = [_measured(file) for file in measured]
    say.line(str(plots.save(plots.KINDS[kind](results, **chosen), out)))


def _searches(kind: str, sources: list[str]) -> list[Any]:
    """What searches left in folders, where a figure is of them; a folder of several searches is as its parts."""
    from cmsim.search import SearchResult, load
    from cmsim.search.folder import MARK

    if kind not in ("search", "pareto"):
        return []
    folders = [folder for source in sources for folder in _parts(Path(source), MARK)]
    if kind == "pareto" and not any((folder / MARK).is_file() for folder in folders):
        return []
    if kind == "search" and len(folders) > 1:
        raise InputError(Problem("takes one folder, which `cmsim search --out` wrote", key=kind))
    found = [load(folder) for folder in folders]
    for one, folder in zip(found, folders, strict=True):
        trains = isinstance(one, SearchResult)
        if trains != (kind == "search"):
            of, other = ("a training run", "search") if trains else ("a service", "pareto")
            raise InputError(Problem(f"is of a search of {of}: `cmsim plot {other}` draws it", str(folder)))
    return found


def _parts(folder: Path, mark: str) -> list[Path]:
    """The numbered folders of a search of several runs, else the folder itself."""
    inner = (
        sorted((one.parent for one in folder.glob(f"*/{mark}")), key=lambda one: one.name) if folder.is_dir() else []
    )
    return [folder] if (folder / mark).is_file() or not inner else inner


def _measured(file: Path) -> Any:
    """Rows of a table or log of measured calls."""
    from cmsim.calibration import tables

    return tables.read(file)
