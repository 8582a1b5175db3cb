"""``cmsim check``: files validated without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.errors import CmsimError, InfeasibleError, InputError, Problem


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Scenario, system, accelerator or stack files, told apart by what they say; or config.json of a model.",
            autocompletion=complete.scenarios,
        ),
    ],
) -> None:
    """Check files without running them: keys, values, and that every run can be planned and fits its memory."""
    bad = False
    for name in files:
        problems, said = _checked(name)
        for problem in problems:
            say.errors(problem)
        bad = bad or bool(problems)
        if not problems:
            print(f"ok: {say.here(said)}")
    if bad:
        raise typer.Exit(InputError.exit_code)


def _checked(name: str) -> tuple[list[CmsimError], str]:
    """What is wrong with a file, and what it is."""
    from cmsim.cli.show import kind_of
    from cmsim.files import find, read_yaml

    try:
        if name.endswith(".json") or (Path(name).is_dir() and (Path(name) / "config.json").exists()):
            return [], _model(name)
        path = find(name, "scenarios", "scenario")
        document = read_yaml(path)
        kind = kind_of(document)
        if kind == "scenario":
            problems, runs = _scenario(str(path))
            return problems, f"{name} (scenario, {runs} run{'s' if runs != 1 else ''})"
        {"system": _system, "accelerator": _accelerator, "stack": _stack}[kind](path)
        return [], f"{name} ({kind})"
    except (InputError, InfeasibleError) as error:
        return [error], name


def _scenario(path: str) -> tuple[list[CmsimError], int]:
    """Programs of every run are generated, and their memory summed; nothing is played."""
    from cmsim import api, engine
    from cmsim.scenario import load_scenario
    from cmsim.workload import generate

    scenario = load_scenario(path)
    found: dict[str, CmsimError] = {}
    systems: dict[str, object] = {}
    for one in scenario.runs:
        try:
            if one.system_key not in systems:
                systems[one.system_key] = None  # a system that cannot be read is complained of once
                systems[one.system_key] = api.system(one, base=scenario.base)
            system = systems[one.system_key]
            if system is None:
                continue
            programs = generate.programs(one.spec, system, base=scenario.base)  # type: ignore[arg-type]
            engine.check_memory(programs, system)  # type: ignore[arg-type]
            if programs.ranks > system.ranks:  # type: ignore[attr-defined]
                message = f"the workload needs {programs.ranks} ranks; the system has {system.ranks}"  # type: ignore[attr-defined]
                raise InputError(message)
        except (InputError, InfeasibleError) as error:
            found.setdefault(str(error), _placed(error, path, one.key))
    return list(found.values()), len(scenario.runs)


def _placed(error: InputError | InfeasibleError, path: str, run: str) -> CmsimError:
    """The error with the scenario and the run in front where it names no file itself."""
    if not isinstance(error, InputError):
        return InfeasibleError(f"{path}: {run}: {error}")
    return InputError(
        problem
        if problem.file
        else Problem(problem.message, path, None, f"{run}: {problem.key}" if problem.key else run)
        for problem in error.problems
    )


def _system(path: Path) -> None:
    from cmsim.cli.show import unsourced
    from cmsim.hardware import load_system
    from cmsim.topology import comparison

    system = load_system(str(path))
    comparison(system)  # builds the graph, and knows which totals there are
    _say_unsourced(path, unsourced(system.spec.model_dump(exclude_unset=True), system.spec.sources))


def _accelerator(path: Path) -> None:
    from cmsim.cli.show import unsourced
    from cmsim.hardware import load_accelerator

    spec = load_accelerator(str(path))
    _say_unsourced(path, unsourced(spec.model_dump(exclude_unset=True), spec.sources))


def _stack(path: Path) -> None:
    from cmsim import files
    from cmsim.cli.show import unsourced
    from cmsim.hardware import StackSpec

    document = files.read_yaml(path)
    spec = files.validate(StackSpec, document)
    problems: list[Problem] = []
    for name, over in spec.accelerators.items():
        try:
            files.validate(StackSpec, document, data=files.merge(document.data, over))
        except InputError as error:
            problems += [Problem(p.message, p.file, p.line, f"accelerators.{name}: {p.key}") for p in error.problems]
    if problems:
        raise InputError(problems)
    _say_unsourced(path, unsourced(spec.model_dump(exclude_unset=True), spec.sources))


def _model(name: str) -> str:
    from cmsim.cli.numbers import count
    from cmsim.workload.model import load_model

    model = load_model(name)
    return f"{name} (model, {count(float(model.total_parameters))} parameters)"


def _say_unsourced(path: Path, keys: list[str]) -> None:
    if keys:
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        say.message(f"note: {path}: no source for {shown}")
