"""``cmsim search``: the best plan of a training run, or of a service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmsim.cli import say
from cmsim.cli.app import app, loaded
from cmsim.cli.run import Json, ScenarioName
from cmsim.cli.search_service import counted

if TYPE_CHECKING:
    from cmsim.search import SearchResult, ServiceResult

#: rows of the front that are printed, and parts of a step
_MOST = 8


@app.command()
def search(
    scenario: ScenarioName,
    objective: Annotated[
        str | None,
        typer.Option(
            help="step_time, tokens_per_joule or dollars_per_token; of a service tokens_per_s_per_accelerator, "
            "tokens_per_joule, dollars_per_token or accelerators. Default as the scenario says."
        ),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Plans that are simulated, the best as priced. Default 8.")
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            metavar="KEY=[VALUE, ...]",
            help="Values that plans may have of a key, such as 'tp=[4, 8]'; default all possible. May be repeated.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the scenario first. May be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write: plans.parquet, results, report.txt. Ended early, it goes on there."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Processes; default: as many as cores where that is sooner."),
    ] = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables, notes or progress.")] = False,
) -> None:
    """Find the best plan of a training run or a service: all plans are priced, the best are simulated."""
    from cmsim import search as room

    begin_s = time.monotonic()
    over = axes_of(axis or [])
    asked = room.questions(scenario, say.settings(set_ or []))
    loaded()
    documents = []
    for number, one in enumerate(asked.runs):
        folder = out if out is None or len(asked.runs) == 1 else out / f"{number}"
        with say.Bar(quiet=quiet) as bar:
            found = room.search(
                replace(asked, runs=(one,)),
                objective=objective,
                keep=keep,
                over=over,
                out=folder,
                jobs=jobs,
                progress=bar,
            )
        parts = _of(found).report(found, say.console().width)
        if folder is not None:
            _save(found, folder)
        if json:
            documents.append(_of(found).document(found))
        elif not quiet:
            say.show(*parts)
    if json:
        say.document(documents[0] if len(documents) == 1 else documents)
    if not quiet:
        where = f"; wrote {out}" if out is not None else ""
        say.message(
            f"{len(asked.runs)} search{'es' * (len(asked.runs) != 1)} in {time.monotonic() - begin_s:.2g} s{where}"
        )


def _of(found: SearchResult | ServiceResult) -> Any:
    """The page that prints what was found."""
    import sys

    from cmsim.cli import search_service
    from cmsim.search import SearchResult

    return sys.modules[__name__] if isinstance(found, SearchResult) else search_service


def axes_of(given: Sequence[str]) -> dict[str, list[Any]]:
    """``KEY=[VALUE, ...]`` as lists; one value is a list of one."""
    said = say.settings(list(given))
    return {key: value if isinstance(value, list) else [value] for key, value in said.items()}


def document(found: SearchResult) -> dict[str, Any]:
    """What ``--json`` prints."""
    best = found.best
    other = found.runner_up
    return {
        **found.data(),
        "best": {"run": best.run, "plan": found.plan_of(best), "metrics": dict(best.metrics)},
        "runner_up": None if other is None else {"run": other.run, "plan": found.plan_of(other)},
        "gap": found.gap,
        "priced_error": found.priced_error.tolist(),
        "terms": [{"part": name, "best": a, "runner_up": b} for name, a, b in found.terms()],
    }


def report(found: SearchResult, width: int) -> list[Any]:
    """Tables and sentences of a search."""
    return [
        _best(found),
        *_why(found),
        _front(found),
        counted(found.counts, "simulated"),
        say.notes(_notes(found), say.prose(width)),
    ]


def _best(found: SearchResult) -> Any:
    """The simulated plans, the best first, and the scenario's own."""
    from cmsim.numbers import quantity

    keys = list(found.axes)
    keys += [key for key in ("parallel.dp",) if key not in keys]
    metric = found.objective.metric
    columns = ["step_time_s", *([metric] if metric != "step_time_s" else []), "tokens_per_s_per_accelerator"]
    columns += ["mfu", "memory_peak_B"]
    rows = []
    for one in found.results.results:
        own = found.plan_of(one)
        cells = [_cell(own.get(key)) if own else "" for key in keys]
        name = "as given" if one.run == found.given and not own else ""
        rows.append(
            [name, *cells, *(quantity(key, one.metrics[key]) if key in one.metrics else "-" for key in columns)]
        )
    heads = ["", *(say.broken(key.rpartition(".")[2]) for key in keys)]
    heads += [say.broken(key.removesuffix("_s") if key == "step_time_s" else key.removesuffix("_B")) for key in columns]
    return say.table(heads, rows, title=f"{found.question}: best by {found.objective.what}")


def _cell(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _why(found: SearchResult) -> list[Any]:
    """What the winner does better than the runner-up, and than the plan as given."""
    from cmsim.numbers import quantity

    given = next((one for one in found.results.results if one.run == found.given), None)
    second = found.runner_up
    asked = (("runner-up", second), ("as given", None if given in (found.best, second) else given))
    others = [(name, one) for name, one in asked if one is not None]
    if not others:
        return []
    parts = dict.fromkeys(part for _, one in others for part in (*found.best.breakdown, *one.breakdown))
    rows = []
    for part in parts:
        values = [found.best.breakdown.get(part, 0.0), *(one.breakdown.get(part, 0.0) for _, one in others)]
        if any(values):
            rows.append([part.removesuffix("_s"), *(quantity("part_s", value) for value in values)])
    return [say.table(["part of the step", "best", *(name for name, _ in others)], rows, title="why it wins")]


def _front(found: SearchResult) -> Any:
    """Plans that no other beats in both, time and memory left."""
    from cmsim.numbers import quantity

    rows = found.front().tolist()
    some = rows if len(rows) <= _MOST else [rows[round(i * (len(rows) - 1) / (_MOST - 1))] for i in range(_MOST)]
    table, keys = found.table, [key for key in found.axes if key in found.table]
    if "parallel.dp" not in keys:
        keys.append("parallel.dp")
    lines = []
    for row in some:
        seconds = table["simulated_s"][row]
        known = seconds == seconds
        each = found.tokens / found.expected_s[row] / found.accelerators
        lines.append(
            [
                *(
                    _cell(table[key][row].item() if hasattr(table[key][row], "item") else table[key][row])
                    for key in keys
                ),
                f"{each:,.0f}",
                quantity("memory_B", float(table["headroom_B"][row])),
                "simulated" if known else "priced",
            ]
        )
    heads = [*(say.broken(key.rpartition(".")[2]) for key in keys), "tokens/s per\naccelerator", "memory\nleft", "by"]
    more = f"{len(some)} of {len(rows)}" if len(some) < len(rows) else f"{len(rows)}"
    return say.table(heads, lines, title=f"front of throughput and memory left: {more} plans")


def _notes(found: SearchResult) -> list[str]:
    best, out = found.best, []
    step_s = best.metric("step_time_s")
    out.append(
        f"no plan of this space is sooner than {found.bound_s:.4g} s (kernels of its busiest stage alone): the best is "
        f"within {found.gap:.1%} of it; no plan at all, than {found.least_s:.4g} s ({best.bound['name']}), "
        f"{step_s / found.least_s:.3g} times sooner"
    )
    error = found.priced_error
    if len(error):
        right, pairs = found.in_order()
        out.append(
            f"priced against simulated: {abs(error).mean():.1%} off in the mean, {abs(error).max():.1%} at worst, "
            f"{right} of {pairs} pairs in the right order"
        )
    if found.given_why:
        out.append(f"the plan as the scenario has it does not run: {found.given_why}")
    given = next((one for one in found.results.results if one.run == found.given), None)
    if given is not None and given is not best:
        out.append(f"the plan as the scenario has it takes {given.metric('step_time_s') / step_s:.3g} times as long")
    if found.objective.name == "tokens_per_joule":
        out.append("energy is priced by what the scenario's own plan draws, and simulated for the plans above")
    return [*out, *found.notes]


def _save(found: SearchResult | ServiceResult, folder: Path) -> None:
    from cmsim.reading import write_text

    found.save(folder)
    write_text(folder / "report.txt", _text(found))


def _text(found: SearchResult | ServiceResult) -> str:
    """The report as a file has it: as on a screen of no width."""
    import io

    from rich.console import Console

    text = io.StringIO()
    to = Console(width=say.WHOLE, highlight=False, emoji=False, file=text)
    for number, part in enumerate(_of(found).report(found, say.WHOLE)):
        if number:
            to.print()
        if isinstance(part, str):
            to.print(part, markup=False)
        else:
            to.print(part)
    return "\n".join(line.rstrip() for line in text.getvalue().split("\n"))
