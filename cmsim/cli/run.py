"""``cmsim run``: a scenario in, tables or JSON out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app, loaded
from cmsim.errors import InfeasibleError, InputError, did_you_mean

ScenarioName = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO",
        help="A file such as scenarios/headline.yaml, or a built-in name (cmsim list scenarios).",
        autocompletion=complete.scenarios,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]


AllowPolicies = Annotated[
    bool,
    typer.Option(
        "--allow-policies",
        help="Let jobs be scheduled by a function of yours that the scenario names (policy: module:function). It "
        "is a program: it runs as you.",
    ),
]


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
    plan: Annotated[
        bool, typer.Option("--plan", help="Also a table of resolved sizes, and of memory by what it is for.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Processes that runs are spread over; the results are the same. Default: one, or as many as cores "
            "where the runs take so long that this is sooner.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--form",
            help="Print services as another tool does, instead of tables: vllm (as `vllm bench serve` ends).",
            show_default=False,
        ),
    ] = None,
    allow_policies: AllowPolicies = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables, notes or progress.")] = False,
) -> None:
    """Run every workload of a scenario on every system, at every point of its sweep."""
    from cmsim import api
    from cmsim.cli import forms
    from cmsim.scenario import load_scenario

    if form is not None and form not in forms.NAMES:
        raise InputError(f"--form: got '{form}'. {did_you_mean(form, forms.NAMES)}")
    start_s = time.monotonic()
    asked = load_scenario(scenario, set=say.settings(set_ or []))
    loaded()
    try:
        with say.Bar(quiet=quiet) as bar:
            results = api.run(asked, out=out, jobs=jobs, progress=bar, allow_policies=allow_policies)
    except InputError as error:
        if all(problem.file for problem in error.problems):
            raise
        # the first run that cannot be stopped us; say where it stands in the file, and what else there is
        from cmsim.cli.check import problems

        raise (problems(asked) or error) from None
    if json:
        say.document(results.summary())
    elif form is not None:
        say.line(forms.vllm(results.results))
    elif not quiet:
        from cmsim.cli import notes, tables

        width = say.console().width
        said = (
            notes.power_bands(results.results)
            + tables.decided(results.outcomes, per=asked.report.per, width=width)
            + notes.faults(results.results)
            + notes.below(results.results)
            + notes.meaning(results.results, asked.report.per)
            + notes.assumed(results)
        )
        shown = tables.summary(results.outcomes, per=asked.report.per, width=width)
        unmet = notes.missing(results, say.prose(width), asked)
        say.show(
            asked.name,
            *notes.above(results.results, width),
            *shown,
            *tables.intervals(results.outcomes, width=width),
            *tables.megawatts(results.outcomes, asked.report.megawatts, width=width),
            *tables.spread(results.outcomes),
            *tables.moves(results.results),
            *(tables.plans(results.outcomes, width=width) if plan else ()),
            *notes.recorded(results.results),
            *unmet,
            *tables.budgets(results.outcomes),
            say.notes(said, say.prose(width)),
            *notes.verdict(results, say.prose(width)),
        )
    if not quiet:
        # said apart from the results, which are the same each time
        runs = "1 run" if len(results.outcomes) == 1 else f"{len(results.outcomes)} runs"
        say.message(f"{runs} in {time.monotonic() - start_s:.2g} s" + (f"; wrote {out}" if out is not None else ""))
    if results.missing:
        from cmsim.cli.notes import counted

        say.message(f"note: {counted(results)}")  # the last line of standard error says why the exit code is 1
        raise typer.Exit(InfeasibleError.exit_code)
