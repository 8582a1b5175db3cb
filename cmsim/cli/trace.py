"""``cmsim trace``: what a file of ours or of other tools holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.cli.run import Json
from cmsim.errors import InputError

trace = typer.Typer(no_args_is_help=True, help="Models and traces as other tools write them.")
app.add_typer(trace, name="trace")


Ranks = Annotated[
    int | None, typer.Option(min=1, help="Size of the job, where the files do not say or are not all there.")
]
Limit = Annotated[
    float | None,
    typer.Option(min=0, metavar="GB", help="Expanded size above which a file is refused. Default: 4.29 (4 GiB)."),
]


@trace.command()
def info(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="A trace of runs, requests or jobs (file or folder), ONNX, MindIR, config.json, or a built-in name.",
        ),
    ],
    dim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SIZE", help="Size of a dimension that a model leaves open. May be repeated."),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Of a trace, not to be guessed: `cmsim list formats`."),
    ] = None,
    ranks: Ranks = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """What a file holds: of a trace ranks, ops, collectives, times; of a model operators, parameters, FLOPs, bytes."""
    from cmsim.cli import described
    from cmsim.describe import describe

    sizes = _sizes(dim or [])
    found = [describe(name, format=format_, sizes=sizes, ranks=ranks, limit_B=_limit_B(limit)) for name in files]
    if json:
        say.document(found[0] if len(found) == 1 else found)
        return
    for number, one in enumerate(found):
        if number:
            print()
        described.show(one)


@trace.command()
def convert(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A trace: file or folder, or a built-in one.")],
    out: Annotated[Path, typer.Option(help="The file to write, .parquet; complete or absent.")],
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Of the trace, not to be guessed: `cmsim list formats`."),
    ] = None,
    ranks: Ranks = None,
    limit: Limit = None,
) -> None:
    """A trace of any format in cmsim's own columns: one Parquet file, which reads back as the same trace."""
    from cmsim.describe import find_file
    from cmsim.errors import Problem
    from cmsim.traces import open_trace
    from cmsim.traces.columnar import write_trace

    path = find_file(file)
    if path is None:
        raise InputError(Problem("no such file or folder", file))
    read = open_trace(path, format=format_, limit_B=_limit_B(limit)).trace(ranks=ranks)
    write_trace(read, out)
    rows = sum(len(one) for one in read.ranks.values())
    for note in read.notes:
        say.message(f"note: {note}")
    say.message(f"wrote {out}: {len(read.ranks)} {'rank' if len(read.ranks) == 1 else 'ranks'}, {rows:,} ops")


def _limit_B(limit_GB: float | None) -> int:
    from cmsim.reading.bytes_in import LIMIT_B

    return LIMIT_B if limit_GB is None else int(limit_GB * 1e9)


def _sizes(pairs: list[str]) -> dict[str, int]:
    from cmsim.reading import whole

    sizes = {}
    for pair in pairs:
        name, _, size = pair.rpartition("=")
        if not name or not whole(size) or int(size) < 1:
            raise InputError(f"--dim: expected NAME=SIZE with a whole number of at least 1, got '{pair}'")
        sizes[name] = int(size)
    return sizes
