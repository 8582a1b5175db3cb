"""``cmsim check``: files validated without running them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.cli.lines import ScenarioLines
from cmsim.errors import CmsimError, InfeasibleError, InputError, Problem

if TYPE_CHECKING:
    from cmsim import api
    from cmsim.hardware import System
    from cmsim.scenario import Run, Scenario


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Scenario, system, accelerator or stack files, told apart by their keys; or a model (config.json, "
            "ONNX, MindIR).",
            autocompletion=complete.scenarios,
        ),
    ],
) -> None:
    """Check files without running them: keys, values, and that every run can be planned and fits its memory."""
    code = 0
    for name in files:
        error, said = _checked(name)
        if error is None:
            say.line(f"ok: {said}")
        else:
            say.errors(error)
            code = max(code, error.exit_code)
    if code:
        raise typer.Exit(code)


def _checked(name: str) -> tuple[CmsimError | None, str]:
    """What is wrong with a file, and what it is."""
    from cmsim.cli.show import kind_of
    from cmsim.reading import exists, find, read_yaml
    from cmsim.scenario import load_scenario

    try:
        if name.endswith((".json", ".onnx", ".mindir")) or (exists(Path(name) / "config.json")):
            return None, _model(name)
        path = find(name, "scenarios", "scenario")
        document = read_yaml(path)
        kind = kind_of(document)
        if kind == "scenario":
            scenario = load_scenario(path)
            wrong = problems(scenario)
            runs = "1 run" if len(scenario.runs) == 1 else f"{len(scenario.runs)} runs"
            return wrong, f"{name} (scenario, {runs})"
        {
            "system": _system,
            "accelerator": _accelerator,
            "stack": _stack,
            "failures": _failures,
            "price": _price,
            "region": _region,
        }[kind](path)
        return None, f"{name} ({kind})"
    except CmsimError as error:
        return error, name


def problems(scenario: Scenario) -> CmsimError | None:
    """What keeps runs of a scenario from being played: systems that cannot be read, workloads that do not fit.

    Programs of every run are generated, and their memory summed; nothing is played. InputError where anything is wrong
    with the input, InfeasibleError where it is only more than the machines can do.
    """
    from cmsim import api, topology

    places = ScenarioLines(scenario)
    found: dict[str, list[Problem]] = {}
    kinds: list[type[CmsimError]] = []
    systems: dict[str, System | None] = {}
    machines = api.Machines(scenario.base)
    for one in scenario.runs:
        where = places.system(one)
        try:
            if one.system_key not in systems:
                systems[one.system_key] = None  # a system that cannot be read is complained of once
                systems[one.system_key] = machines.uncapped(one)
            system = systems[one.system_key]
            if system is None:
                continue
            where = places.workload(one)
            _possible(one, machines)
            if one.faults:
                where = places.faults(one)
                topology.paths(system, faults={fault.part: fault.left for fault in one.faults})
        except CmsimError as error:
            kinds.append(type(error))
            found.setdefault(str(error), places.problems(error, where, one))
    there = [(one, system) for one in scenario.runs if (system := systems.get(one.system_key)) is not None]
    asked: tuple[Callable[[], None], ...] = (
        lambda: api.check_report(scenario, [system for _, system in there]),
        lambda: api.check_money(there, machines.base),
    )
    for check_all in asked:
        try:
            check_all()
        except InputError as error:
            kinds.append(type(error))
            found[str(error)] = [places.report(problem) for problem in error.problems]
    if not found:
        return None
    kind = InfeasibleError if set(kinds) == {InfeasibleError} else InputError
    return kind([problem for group in found.values() for problem in group])


def _possible(one: Run, machines: api.Machines) -> None:
    """Raises what keeps a run from being played; of several candidates one that can be is enough."""
    from cmsim import api

    refused: list[InfeasibleError] = []
    for candidate in api.candidates(one, machines):
        try:
            return _fits(candidate, machines(candidate), machines.base)
        except InfeasibleError as error:
            refused.append(error)
    raise refused[0]


def _fits(one: Run, system: System, base: Path | None) -> None:
    from cmsim import api, kinds

    if isinstance(
        kinds.get(one.spec.kind).execution, kinds.PlayedKind
    ):  # what is executed by itself says it when it runs
        api.check(one, system, base)


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


def _failures(path: Path) -> None:
    from cmsim.cli.show import unsourced
    from cmsim.reliability import causes

    spec = causes.load(str(path))
    _say_unsourced(path, unsourced(spec.model_dump(exclude_unset=True), spec.sources))


def _price(path: Path) -> None:
    from cmsim.cli.show import unsourced
    from cmsim.cost import load_book

    spec = load_book(str(path))
    _say_unsourced(path, unsourced(spec.model_dump(exclude_unset=True), spec.sources))


def _region(path: Path) -> None:
    from cmsim.cli.show import unsourced
    from cmsim.cost import load_region

    spec = load_region(str(path))
    _say_unsourced(path, unsourced(spec.model_dump(exclude_unset=True), spec.sources))


def _stack(path: Path) -> None:
    from cmsim import reading
    from cmsim.cli.show import unsourced
    from cmsim.hardware import StackSpec, stack_data

    document = reading.read_yaml(path)
    data = stack_data(document, path.parent)
    spec = reading.validate(StackSpec, document, data=data)
    wrong: list[Problem] = []
    for name, over in spec.accelerators.items():
        try:
            reading.validate(StackSpec, document, data=reading.merge(data, over))
        except InputError as error:
            wrong += [Problem(p.message, p.file, p.line, f"accelerators.{name}: {p.key}") for p in error.problems]
    if wrong:
        raise InputError(wrong)
    _say_unsourced(path, unsourced(spec.model_dump(exclude_unset=True), spec.sources))


def _model(name: str) -> str:
    from cmsim.graphs.load import parameters_of
    from cmsim.numbers import count

    return f"{name} (model, {count(float(parameters_of(name)))} parameters)"


def _say_unsourced(path: Path, keys: list[str]) -> None:
    if keys:
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        say.message(f"note: {path}: no source for {shown}")
