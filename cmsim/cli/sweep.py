"""``cmsim sweep``: many points of a scenario into a folder, which goes on where it was ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmsim.cli import say
from cmsim.cli.app import app, loaded
from cmsim.cli.run import AllowPolicies, Json, ScenarioName
from cmsim.errors import InfeasibleError, InputError, did_you_mean

if TYPE_CHECKING:
    from cmsim.results import Results
    from cmsim.sweep import Standing

#: runs that are printed one by one; of more the folder tells, and `cmsim plot`
_MOST = 40


@app.command()
def sweep(
    scenario: ScenarioName,
    out: Annotated[Path, typer.Option(help="Folder to write. A sweep that was ended goes on there with --resume.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the folder: points that it has are not run again.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Processes; default: as many as cores where that is sooner."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Scheduler of a Dask cluster to run on, or `local`: workers started for it."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Do not run all points, but so many, drawn where --objective promises to be best (Optuna)."
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(metavar="METRIC", help="What --trials go by. Default: what `best` takes.")
    ] = None,
    record: Annotated[
        str, typer.Option(help="What is kept of a run: full (with frames), summary, or none (metrics of its length).")
    ] = "summary",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the scenario first. May be repeated."),
    ] = None,
    allow_policies: AllowPolicies = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables, notes or progress.")] = False,
) -> None:
    """Run every point of a scenario's sweep once, over processes or a Dask cluster, into a folder."""
    from cmsim import sweep as room

    records = ("full", "summary", "none")
    if record not in records:
        raise InputError(f"--record: got '{record}'. {did_you_mean(record, records)}")
    if trials is None and objective is not None:
        raise InputError("--objective: goes with --trials; without them all points are run")
    if trials is not None and (jobs or 1, dask) != (1, None):
        raise InputError("--trials: each is drawn after the one before, in one process; leave --jobs and --dask out")
    begin_s = time.monotonic()
    loaded()
    with _Bar(quiet=quiet) as bar:
        common: dict[str, Any] = {"out": out, "set": say.settings(set_ or []), "record": record, "resume": resume}
        common["allow_policies"] = allow_policies
        if trials is None:
            results = room.sweep(scenario, jobs=jobs, dask=dask, progress=bar, **common)
        else:
            results = room.study(scenario, trials=trials, objective=objective, progress=bar, **common)
    if json:
        say.document(_document(results, bar.last, out))
    elif not quiet:
        say.show(*_shown(results))
    if not quiet:
        say.message(_said(bar.last, time.monotonic() - begin_s, out))
    if results.missing:
        raise typer.Exit(InfeasibleError.exit_code)


def _shown(results: Results) -> list[Any]:
    """Runs one by one where these are few; else what became of them, and why some gave nothing."""
    from cmsim.cli import notes, tables

    width = say.console().width
    name = str(results.scenario.get("name") or "")
    if len(results.outcomes) <= _MOST:
        shown = [*tables.summary(results.outcomes, width=width), *notes.missing(results, say.prose(width))]
    else:
        shown = [_extremes(results), *_reasons(results, width)]
    return [part for part in (name, *shown) if part]


def _reasons(results: Results, width: int) -> list[str]:
    """Why some gave nothing: reasons that differ in numbers are one, with the first of its runs."""
    alike: dict[tuple[str, str], list[Any]] = {}
    for one in results.missing:
        alike.setdefault((one.outcome, say.template(one.message)), []).append(one)
    said = [
        f"{len(group):,} {outcome}, the first {group[0].run}: {' '.join(group[0].message.split())}"
        for (outcome, _), group in alike.items()
    ]
    return [say.notes(said, say.prose(width))] if said else []


def _extremes(results: Results) -> Any:
    """Of every workload on every system the least and the most of its headline metrics."""
    from cmsim.numbers import quantity

    groups: dict[tuple[str, str], list[Any]] = {}
    for one in results.results:
        groups.setdefault((one.workload, one.system), []).append(one)
    rows = []
    for (workload, system), runs in groups.items():
        for metric in runs[0].declared.headline:
            values = [one.metrics[metric] for one in runs if isinstance(one.metrics.get(metric), int | float)]
            if values:
                ends = [quantity(metric, end) for end in (min(values), max(values))]
                rows.append([workload, system, f"{len(values):,}", metric, *ends])
    return say.table(["workload", "system", "points", "metric", "least", "most"], rows, left=(0, 1, 3))


def _document(results: Results, standing: Standing, out: Path) -> dict[str, Any]:
    return {
        "folder": str(out),
        "points": standing.total,
        "found": standing.found,
        "results": standing.results,
        "infeasible": standing.infeasible,
        "failed": standing.failed,
        "runs": [one.run for one in results.outcomes],
    }


def _counts(standing: Standing) -> str:
    missing = [f"{count:,} {word}" for word in ("infeasible", "failed") if (count := getattr(standing, word))]
    return ", ".join([f"{standing.results:,} results", *missing])


def _said(standing: Standing, took_s: float, out: Path) -> str:
    before = f", {standing.found:,} of them before" if standing.found else ""
    return f"{standing.total:,} points{before} in {took_s:.2g} s: {_counts(standing)}; wrote {out}"


class _Bar:
    """Done, failed, infeasible, points a second, time left; on a terminal, after a while."""

    def __init__(self, *, quiet: bool):
        self.bar = say.Bar(quiet=quiet)
        self.last: Any = None

    def __call__(self, standing: Standing) -> None:
        self.last = standing
        left_s = standing.left_s
        rate = f", {standing.per_s:,.3g}/s, {_clock(left_s)} left" if left_s is not None else ""
        self.bar(
            f"{standing.done:,} of {standing.total:,}: {_counts(standing)}{rate}",
            standing.done / max(standing.total, 1),
        )

    def __enter__(self) -> _Bar:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)


def _clock(left_s: float) -> str:
    """Time left as people read it.

    >>> _clock(42.4), _clock(150), _clock(9000)
    ('42 s', '2 min 30 s', '2 h 30 min')
    """
    whole = round(left_s)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
