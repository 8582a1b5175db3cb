"""``cmsim new``: a first scenario from three answers, one from a launch script or config of another tool, or a system
file from a description of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.errors import InputError, Problem, did_you_mean


@app.command()
def new(
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A launch script or config: shell, YAML, TOML, JSON or Python of Megatron-LM, Megatron-Bridge, "
            "MindSpeed-LLM, MindFormers, torchtitan, DeepSpeed or Primus; of vLLM, SGLang, TensorRT-LLM, Dynamo or "
            "MindIE; benchmark commands. It is read, never run. A description of a cluster (infragraph) becomes a "
            "system file. Without it three questions are asked.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print what was read as YAML, and write nothing.")] = False,
    system: Annotated[
        list[str] | None,
        typer.Option(
            help="The system to use, of a first scenario one or several; default: what the file's words mean. Of a "
            "described cluster: whose accelerators, hosts, watts and prices it has.",
            autocompletion=lambda incomplete: complete.builtin("topologies", incomplete),
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of a first scenario: the model, or its file.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Of a first scenario: training, prefill, decode, serving or collective.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write; default: the file's name with .scenario.yaml (.system.yaml), in the working folder."
        ),
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="An argument of the script, in order. May be repeated.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An environment variable that the script finds. May be repeated."),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which job, by name or number from 1, where the file has several."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write a first scenario, or with --from one from a launch script or config (with --explain what it means), or a
    system file from a description of a cluster."""
    if from_ is None:
        _first(system or [], model, kind, out, force=force)
        return
    if model is not None or kind is not None:
        raise InputError(Problem("the file says the model and what is asked; leave --model and --kind out", "--from"))
    if len(system or []) > 1:
        raise InputError(Problem(f"a file becomes a scenario of one system, got {', '.join(system or [])}", "--system"))
    import yaml

    from cmsim.clusters import describes

    if describes(from_):
        if arg or env or case is not None:
            raise InputError(
                Problem("a description of a cluster has no jobs; leave --arg, --env and --case out", "--from")
            )
        _system(from_, system[0] if system else None, out, explain=explain, force=force)
        return
    from cmsim.launch import Reader, explained, scenario_of

    given = dict(_pair(one) for one in env or [])
    plans = Reader(from_, args=tuple(arg or ()), given=given).plans()
    if explain:
        text = yaml.safe_dump(explained(plans), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
        say.text(text.replace("'on': ", "on: "))  # a key of plans, which YAML 1.1 alone takes for a truth value
        problems = [problem for plan in plans for problem in plan.problems]
        if problems:
            raise InputError(problems)
        return
    plan = plans[_chosen([str(plan.details.get("name") or n) for n, plan in enumerate(plans, 1)], case)]
    to = out or Path(f"{from_.stem}.scenario.yaml")
    sizes = to.with_name(f"{to.name.removesuffix('.yaml').removesuffix('.scenario')}.model.json")
    written = scenario_of(plan, system=system[0] if system else None, model_name=f"./{sizes.name}")
    _write({to: written.scenario, **({sizes: written.model} if written.model else {})}, force=force)
    for note in [*plan.warn, *written.notes]:
        say.message(f"note: {note}")
    for name, what in (
        ("unread", "touch performance and are not read as a plan"),
        ("unknown", "are unknown to the tool"),
    ):
        if names := getattr(plan, name):
            say.message(f"note: {', '.join(names)} {what}")
    say.message(f"wrote {to}" + (f" and {sizes}" if written.model else "") + f"; next: cmsim run {to}")


def _system(described: Path, like: str | None, out: Path | None, *, explain: bool, force: bool) -> None:
    """Write a system file, and the table of links beside it."""
    from cmsim.clusters import read_cluster

    if like is None:
        message = "a description of a cluster holds no watts, prices or kernels: name the system that has them"
        raise InputError(Problem(message, "--system"))
    to = out or Path(f"{described.stem}.system.yaml")
    links = to.with_name(f"{to.name.removesuffix('.yaml').removesuffix('.system')}.links.csv")
    made = read_cluster(described, like=like, links_name=links.name)
    for note in made.notes:
        say.message(f"note: {note}")
    if explain:
        say.text(made.system)
        return
    _write({to: made.system, **({links: made.links} if made.links else {})}, force=force)
    say.message(f"wrote {to}" + (f" and {links}" if made.links else "") + f"; next: cmsim show {to}")


def _first(systems: list[str], model: str | None, kind: str | None, out: Path | None, *, force: bool) -> None:
    """Write a scenario from three answers."""
    from cmsim.cli.first import first, foot

    name, text = first(systems, model, kind)
    to = out or Path(f"{name}.scenario.yaml")
    _write({to: text + foot(to)}, force=force)
    say.message(f"wrote {to}; next: cmsim run {to}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(Problem(f"got {text!r}; write NAME=VALUE", "--env"))
    return name, value


def _chosen(names: list[str], case: str | None) -> int:
    if case is None:
        if len(names) > 1:
            raise InputError(
                Problem(f"the file has {len(names)} jobs; --case says which: {', '.join(names[:20])}", "--from")
            )
        return 0
    if case in names:
        return names.index(case)
    if case.isdigit() and 1 <= int(case) <= len(names):
        return int(case) - 1
    raise InputError(Problem(f"no job '{case}'. {did_you_mean(case, names)}", "--case"))


def _write(texts: dict[Path, str], *, force: bool) -> None:
    from cmsim.reading import write_text

    there = [path for path in texts if path.exists()]
    if there and not force:
        raise InputError(
            [Problem("is there already; --force writes over it, --out elsewhere", str(path)) for path in there]
        )
    for path, text in texts.items():
        write_text(path, text)
