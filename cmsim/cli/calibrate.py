"""``cmsim predict``, ``calibrate`` and ``explain``: measured tables in, predictions and fits out, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmsim import numbers
from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.cli.run import Json
from cmsim.errors import InputError, did_you_mean

_explain = typer.Typer(no_args_is_help=True, help="The candidates, their times, and why one won.")
app.add_typer(_explain, name="explain")

#: the kinds of prediction that play runs, what their tables hold, and the column that tells who has one
TRAINING = "training"
#: before a benchmark whose engine is fitted
SERVING = "serving"
RUNS = {
    TRAINING: ("training runs", "predicted_step_time_s"),
    "serving": ("served models", "predicted_output_tokens_per_s"),
}

Collective = Annotated[str | None, typer.Option(help="Of a log that does not say it: all_reduce, all_gather, ...")]
Ranks = Annotated[int | None, typer.Option(min=2, help="Ranks of a communicator, of a log that does not say them.")]


@app.command()
def predict(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="collective, moe_alltoall, deepep, a kernel (gemm, ...), training or serving"
        ),
    ],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, Parquet, or a log of a collective benchmark.")],
    out: Annotated[Path, typer.Option(help="CSV or Parquet file to write: the same rows, and what is predicted.")],
    system: Annotated[
        str | None, typer.Option(help="System or accelerator of every row, instead of the table's column.")
    ] = None,
    collective: Collective = None,
    ranks: Ranks = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="training, serving: processes. Default: as many as is soonest."),
    ] = None,
) -> None:
    """Predict the rows of a table of measured times."""
    if kind in RUNS:
        for option, value in (("--system", system), ("--collective", collective), ("--ranks", ranks)):
            if value is not None:
                raise InputError(f"{option}: a table of {RUNS[kind][0]} says it itself")
        _predict_runs(kind, table, out, jobs)
        return
    from cmsim import calibration

    if kind not in calibration.KINDS:
        raise InputError(f"no predictions of kind '{kind}'. {did_you_mean(kind, (*calibration.KINDS, *RUNS))}")
    frame = calibration.predict(kind, table, out=out, system=system, collective=collective, n_ranks=ranks)
    said = f"{len(frame)} rows; wrote {out}"
    if "note" in frame.columns and (outside := int((frame["note"] != "").sum())):
        said += f"; {outside} lie outside what was measured: the column note says how"
    say.message(said)


def _predict_runs(kind: str, table: Path, out: Path, jobs: int | None) -> None:
    from cmsim import published

    of_kind = published.predict_training if kind == TRAINING else published.predict_serving
    with say.Bar() as bar:
        frame = of_kind(table, out=out, jobs=jobs, progress=bar)
    done = int(frame[RUNS[kind][1]].notna().sum())
    said = f"{len(frame)} rows, {done} of them predicted; wrote {out}; the column note says what was taken"
    say.message(said + (f" and why {len(frame) - done} are empty" if done < len(frame) else ""))


@app.command()
def calibrate(
    table: Annotated[
        Path | None,
        typer.Argument(
            metavar="[serving] TABLE",
            help="Measured collectives, kernels or power of served models: CSV, Parquet, or a log. With `serving` "
            "before it, a benchmark of served models as `cmsim predict serving` takes it: the host of their engine.",
        ),
    ] = None,
    results: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    accelerator: Annotated[str, typer.Option(help="Whose rows these are: a system's or an accelerator's name.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="YAML file to write, default: print it; with --measure the folder of tables.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time kernels on the accelerator at hand instead, and write tables.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="--measure: gemm, copy, ...; of metered runs: families of models; serving: an engine. May be repeated."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="--measure: a fifth of the shapes.")] = False,
    collective: Collective = None,
    ranks: Ranks = None,
) -> None:
    """Fit constants of collectives, kernels, power or engines to measured rows; says the error on rows held out."""
    if str(table) == SERVING and results is not None:
        if measure or collective is not None or ranks is not None:
            raise InputError("serving: takes --accelerator, --only and --out")
        _calibrate_serving(results, accelerator, only or [], out)
        return
    if results is not None:
        raise InputError(f"got two files. Allowed: {SERVING} before the second")
    if measure:
        if table is not None or out is None:
            raise InputError("--measure takes no TABLE, and --out FOLDER")
        from cmsim.calibration.measure import measure as take

        counts = take(out, accelerator=accelerator, kinds=only or (), quick=quick, progress=_measured)
        say.message("\n" + ", ".join(f"{count} rows of {kind}" for kind, count in counts.items()) + f"; wrote {out}")
        return
    if table is None or not accelerator:
        raise InputError(f"{'TABLE' if table is None else '--accelerator'}: is required (or give --measure)")
    from cmsim import calibration, reading, validation

    if validation.holds_runs(table):
        of_power = validation.fit_power(table, accelerator=accelerator, families=only or ())
        if out is not None:
            reading.write_text(out, of_power.text())
        fit: calibration.Fit | calibration.ExpertFit | calibration.KernelsFit | validation.PowerFit = of_power
    else:
        fit = calibration.calibrate(table, accelerator=accelerator, out=out, collective=collective, n_ranks=ranks)
    median, tail = fit.held_out_pct
    say.message(
        f"{fit.rows} rows, {fit.configurations} configurations; held out: median {median:.1f} %, "
        f"90th percentile {tail:.1f} %" + (f"; wrote {out}" if out else "")
    )
    if out is None:
        say.text(fit.text())


def _calibrate_serving(table: Path, accelerator: str, only: list[str], out: Path | None) -> None:
    from cmsim import reading, validation

    with say.Bar() as bar:
        fit = validation.fit_engine(table, accelerator=accelerator, only=only, progress=bar)
    rows = [
        [one.name, *map(numbers.digits, (one.before, one.value, one.low, one.high)), "yes" if one.told else "no"]
        for one in fit.constants
    ]
    title = f"the host of {fit.stack} on {fit.accelerator}, fitted to {fit.fitted} of {fit.rows} rows"
    heads = ["stack.serving", "before", "fitted", "9 of 10 from", "to", "told by the rows"]
    if out is not None:
        reading.write_text(out, fit.text(out.stem))
    say.show(say.table(heads, rows, title=title), say.notes(fit.said(), say.prose(say.console().width)))
    if out is None:
        say.text(fit.text())
    else:
        say.message(f"wrote {out}; name it in a scenario: systems: [{{system: {fit.accelerator}, stack: {out}}}]")


def _measured(kind: str, number: int, _: int) -> None:
    if number % 20 == 1:
        say.message(f"{kind} {number}")


@_explain.command()
def collective(
    system: Annotated[str, typer.Argument(metavar="SYSTEM")],
    name: Annotated[str, typer.Argument(metavar="COLLECTIVE", help="all_reduce, all_gather, ...")],
    size: Annotated[
        str, typer.Argument(metavar="SIZE", help="As nccl-tests prints it, in bytes: 65536, 64K, 1G, 256 MiB.")
    ],
    ranks: Annotated[int, typer.Option(min=1, help="Ranks of the group.")],
    per_domain: Annotated[int, typer.Option(min=0, help="Of them in each domain; 0: as many as fit.")] = 0,
    algorithm: Annotated[str, typer.Option(help="Only this one, by our name or the library's: tree, rhd, AHC.")] = "",
    json: Json = False,
) -> None:
    """One call of a collective library: its candidates, their times, and why one won."""
    from cmsim import calibration, units

    try:
        size_B = units.size(size)
    except ValueError as error:
        raise InputError(f"SIZE: {error}") from None
    found = calibration.explain(system, name, size_B, ranks, per_domain=per_domain, algorithm=algorithm)
    if json:
        say.document({"candidates": [vars(one) for one in found[:-1]], "predicted_us": found[-1].time_us})
        return
    rows = [[one.name, f"{one.time_us:,.1f} us", f"{one.weight:.0%}", one.why] for one in found]
    say.show(say.table(["candidate", "time", "weight", "why"], rows, left=(0, 3), whole=(0,)))


@_explain.command()
def kernel(
    accelerator: Annotated[str, typer.Argument(metavar="ACCELERATOR")],
    kind: Annotated[str, typer.Argument(metavar="KIND", help="gemm, attention_context, mla_generation, ...")],
    columns: Annotated[
        list[str] | None, typer.Argument(metavar="COLUMN=VALUE...", help="A row of its table: m=4096 n=7168.")
    ] = None,
    json: Json = False,
) -> None:
    """One kernel on an accelerator: the parts of its time, what binds, and what measured neighbours add."""
    from cmsim.calibration.explain_kernel import WHY, explain_kernel

    given = columns or []
    pairs = [text.partition("=") for text in given]
    for (name, sign, value), text in zip(pairs, given, strict=True):
        if not (name and sign and value):
            raise InputError(f"COLUMN=VALUE: got '{text}'. Allowed: the name of a column, =, and its value.")
    found = explain_kernel(accelerator, kind, {name: value for name, _, value in pairs})
    if json:
        say.document({**vars(found), "predicted_us": found.predicted_us})
        return
    rows = [[name, numbers.digits(value), WHY.get(name, "")] for name, value in found.parts.items()]
    say.show(say.table(["part", "value", "what it is"], rows, left=(0, 2), whole=(0,)))
    for note in found.notes:
        say.message(note)
    say.message(f"binds: {found.binds}; constants of {found.of}, {found.variant}")
