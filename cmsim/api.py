"""The whole flow on one page: scenario, systems, runs and what becomes of them, results.

Everything the command line does is a function here; notebooks call the same ones. How a run of a kind comes about
stands in `cmsim.execution`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmsim import cost, engine, results
from cmsim.errors import FailedError, InfeasibleError, tell
from cmsim.execution import Machines, candidates, check, choice, options_of, result_of, system
from cmsim.hardware import System
from cmsim.results import Result, Results
from cmsim.scenario import Run, Scenario, load_scenario
from cmsim.version import __version__
from cmsim.workload import generate

#: called with the run's key and the share of all runs that is done, 0 to 1
Progress = Callable[[str, float], None]


def run(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Run every workload on every system at every sweep point of a scenario.

    scenario   a Scenario, a file, a built-in name, YAML text, or data
    set        dotted keys to change first, as ``--set`` does
    out        folder to write (complete or absent)

    A run that does not fit, or has no plan, is an outcome among the others (`Results.missing`). Raises InputError for
    what is wrong with the scenario; nothing is written then.
    """
    scenario = _loaded(scenario, set)
    if out is not None:
        results.check_folder(out)
    machines = Machines(scenario.base)
    became = list(outcomes(scenario, machines=machines, progress=progress))
    done = Results(became, scenario=dict(scenario.data), manifest=_manifest(scenario, machines.loaded()))
    if out is not None:
        done.save(out)
    return done


def outcomes(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    machines: Machines | None = None,
    progress: Progress | None = None,
) -> Iterator[results.Outcome]:
    """What becomes of each run of a scenario, in order, each played when it is asked for and kept by nobody.

    machines   the systems, for who wants to know them afterwards    the others as for `run`

    Raises InputError, at the call, for a scenario or a system that cannot be read, and for a system without a
    price where one is asked for.
    """
    scenario = _loaded(scenario, set)
    there = machines or Machines(scenario.base)
    check_report(scenario, [there(one) for one in scenario.runs])
    total = len(scenario.runs)
    return (evaluate(one, there, progress=_share(progress, one.key, i, total)) for i, one in enumerate(scenario.runs))


def _loaded(scenario: Scenario | str | Path | Mapping[str, Any], set: Mapping[str, Any] | None) -> Scenario:
    if not isinstance(scenario, Scenario):
        return load_scenario(scenario, set=set)
    return load_scenario(scenario.data, set=set) if set else scenario


def check_report(scenario: Scenario, systems: Sequence[System]) -> None:
    """Raises InputError where throughput is asked for per something that is not known of every system."""
    if "million_dollars" in scenario.report.per:
        cost.check_priced(systems)


def evaluate(
    one: Run, machines: Machines | None = None, *, progress: Callable[[float], None] | None = None
) -> results.Outcome:
    """What becomes of a run: a result, or why there is none.

    Not to fit the memory, and no plan of these sizes, are outcomes. Raises InputError for what is wrong with the input.
    """
    said: dict[str, Any] = {
        "run": one.key,
        "workload": one.workload,
        "system": one.system.label,
        "kind": one.spec.kind,
        "entry": one.identity.entry,
        "point": dict(one.point),
    }
    try:
        return result_of(choice.best(one, machines or Machines(), progress))
    except InfeasibleError as error:
        return results.Infeasible(**said, message=str(error), budget=error.budget)
    except FailedError as error:
        return results.Failed(**said, message=str(error))


def run_one(
    one: Run, system: System, *, base: Path | None = None, progress: Callable[[float], None] | None = None
) -> Result:
    """One workload that leaves nothing open on one system, executed as its kind is, and what that says.

    Raises InfeasibleError and FailedError where there is no result.
    """
    done = choice.attempt(one, system, base, progress=progress)
    assert done is not None, "without a limit a run is executed to its end"
    return result_of(done)


def export_chakra(one: Run, folder: str | Path, *, base: Path | None = None) -> list[Path]:
    """A run's workload as Chakra execution traces, a file a rank, kernels as long as its system makes them.

    folder   complete or absent    base: where paths of the scenario start
    Returns the files, communicators last. Warns of what Chakra has no form for, and of how kernels were priced.
    """
    from cmsim.traces.chakra.write import left_out, write_chakra

    if one.open:
        one = choice.decided(one, Machines(base))
    there = system(one, base=base)
    programs = generate.programs(one.spec, there, base=base)
    hold_s, notes = engine.hold_s(programs, there, options_of(one, there))
    paths = write_chakra(programs, folder, hold_s=hold_s)
    tell((*left_out(programs), *notes))
    return paths


def compare(*sources: Results | Scenario | str | Path) -> Results:
    """Several scenarios or result folders as one set of results, side by side."""
    parts = []
    for source in sources:
        if isinstance(source, Results):
            parts.append(source)
        elif isinstance(source, str | Path) and (Path(source) / "summary.json").exists():
            parts.append(Results.load(source))
        else:
            parts.append(run(source))
    return Results.joined(parts)


def _share(progress: Progress | None, key: str, number: int, total: int) -> Callable[[float], None] | None:
    if progress is None:
        return None
    progress(key, number / total)
    return lambda share: progress(key, (number + share) / total)


def _manifest(scenario: Scenario, systems: list[System]) -> dict[str, Any]:
    """What a figure can be traced back to."""
    return {
        "cmsim": __version__,
        "seed": scenario.runs[0].seed,
        "scenario_file": Path(scenario.file).name,
        "scenario_text": scenario.text,
        "systems": {one.name: {"digest": one.digest, "files": dict(one.texts)} for one in systems},
        "sources": sorted({source for one in systems for _, _, source in one.sources() if isinstance(source, str)}),
        "assumed": sorted({f"{name}: {key}" for one in systems for name, key, _ in one.assumed()}),
    }


__all__ = [
    "Machines",
    "Progress",
    "candidates",
    "check",
    "check_report",
    "compare",
    "evaluate",
    "export_chakra",
    "options_of",
    "outcomes",
    "run",
    "run_one",
    "system",
]
