"""The whole flow on one page: scenario, systems, runs and what becomes of them, results.

Everything the command line does is a function here; notebooks call the same ones. How a run of a kind comes about
stands in `cmsim.execution`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmsim import engine, results, side_by_side
from cmsim.digest import Digests
from cmsim.errors import FailedError, InfeasibleError, tell
from cmsim.execution import (
    Machines,
    Play,
    candidates,
    check,
    check_asked,
    check_money,
    check_report,
    choice,
    options_of,
    result_of,
    system,
)
from cmsim.execution.together import outcomes_of
from cmsim.hardware import System
from cmsim.reading.look import one_look
from cmsim.results import Result, Results
from cmsim.scenario import Record, Run, Scenario, load_scenario
from cmsim.version import __version__
from cmsim.workload import generate

#: called with the run's key and the share of all runs that is done, 0 to 1
Progress = Callable[[str, float], None]


def run(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    record: Record | None = None,
    jobs: int | None = 1,
    progress: Progress | None = None,
    allow_policies: bool = False,
) -> Results:
    """Run every workload on every system at every sweep point of a scenario.

    A run that does not fit, or has no plan, is an outcome among the others (`Results.missing`).

    Parameters
    ----------
    scenario
        A Scenario, a file, a built-in name, YAML text, or data.
    set
        Dotted keys to change first, as ``--set`` does.
    out
        Folder to write, complete or absent.
    record
        What is kept of a run, instead of what the scenario says: full, summary or none.
    jobs
        Processes to run in, with the same results; None: as many as cores, where that is sooner. A program that
        asks for more than one has its own work below ``if __name__ == "__main__":``.
    progress
        Called with a run's label and the share of all runs that is done, 0 to 1.
    allow_policies
        Whether runs may call a function of yours that the scenario names (``policy: module:function``).

    Returns
    -------
    Results
        What became of each run, in the scenario's order.

    Raises
    ------
    InputError
        For what is wrong with the scenario; nothing is written then.
    """
    scenario = _loaded(scenario, set, record, allow_policies)
    if out is not None:
        results.check_folder(out)
    machines = Machines(scenario.base)
    became = list(outcomes(scenario, machines=machines, jobs=jobs, progress=progress))
    done = Results(became, scenario=dict(scenario.data), manifest=manifest(scenario, machines.loaded()))
    if out is not None:
        done.save(out)
    return done


def outcomes(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    record: Record | None = None,
    machines: Machines | None = None,
    jobs: int | None = 1,
    store: results.Store | str | Path | None = None,
    progress: Progress | None = None,
    allow_policies: bool = False,
) -> Iterator[results.Outcome]:
    """What becomes of each run of a scenario, in order, each played when it is asked for and kept by nobody.

    Parameters
    ----------
    scenario
        A Scenario, a file, a built-in name, YAML text, or data.
    set
        Dotted keys to change first, as ``--set`` does.
    record
        What is kept of a run, instead of what the scenario says: full, summary or none.
    machines
        The systems, for who wants to know them afterwards.
    jobs
        Processes to run in, as for `run`.
    store
        A store of results or its folder, which takes each; runs that it has already are passed over.
    progress
        Called with a run's label and the share of all runs that is done, 0 to 1.
    allow_policies
        Whether runs may call a function of yours, as for `run`.

    Returns
    -------
    Iterator[Outcome]
        A Result, Infeasible or Failed for each run.

    Raises
    ------
    InputError
        At the call, for a scenario or a system that cannot be read, and for a system without a price where one is
        asked for.
    """
    scenario = _loaded(scenario, set, record, allow_policies)
    there = machines or Machines(scenario.base)
    check_asked(scenario, there)
    if store is None:
        return _each(scenario.runs, there, jobs, progress)
    kept = store if isinstance(store, results.Store) else results.Store(store)
    return _stored(dict(zip(digests(scenario, there), scenario.runs, strict=True)), there, jobs, progress, kept)


def digests(scenario: Scenario, machines: Machines | None = None) -> list[str]:
    """Of each run of a scenario, in their order, the digest by which a store of results knows it.

    Parameters
    ----------
    scenario
        Whose runs they are.
    machines
        Its systems, where they were loaded before.

    Returns
    -------
    list of str
        Hexadecimal digests, one for each run.
    """
    there = machines or Machines(scenario.base)
    made = Digests(there.base)
    return [made.of(one, _may_be(one, there)) for one in scenario.runs]


def _may_be(one: Run, machines: Machines) -> list[System]:
    """The systems that a run may be on: several where `best` chooses one."""
    several = any(key.of_system for key in one.open)
    return [machines.uncapped(each) for each in candidates(one, machines)] if several else [machines.uncapped(one)]


def _stored(
    runs: Mapping[str, Run], machines: Machines, jobs: int | None, progress: Progress | None, store: results.Store
) -> Iterator[results.Outcome]:
    """Runs by their digests, as far as the store has them not, into the store."""
    done = store.done()
    new = {digest: one for digest, one in runs.items() if digest not in done}
    with store:
        for digest, one in zip(new, _each(list(new.values()), machines, jobs, progress), strict=True):
            store.add(one, digest)
            yield one


def _each(
    runs: Sequence[Run], machines: Machines, jobs: int | None, progress: Progress | None
) -> Iterator[results.Outcome]:
    def here(packet: Sequence[tuple[int, Run]]) -> Iterator[results.Outcome]:
        numbers = {one.key: number for number, one in packet}

        def alone(one: Run) -> results.Outcome:
            return evaluate(one, machines, progress=_share(progress, one.key, numbers[one.key], len(runs)))

        return outcomes_of([one for _, one in packet], machines, alone)

    away = functools.partial(_evaluated, machines.base)
    for done, one in enumerate(side_by_side.in_packets(here, away, list(enumerate(runs)), jobs), 1):
        if progress is not None:
            progress(one.run, done / len(runs))
        yield one


def _evaluated(base: Path | None, packet: Sequence[tuple[int, Run]]) -> Iterator[results.Outcome]:
    """In a process that was started for it, whose systems are read once."""
    machines = machines_of(base)
    return outcomes_of([one for _, one in packet], machines, functools.partial(evaluate, machines=machines))


@functools.lru_cache(maxsize=1)
def machines_of(base: Path | None) -> Machines:
    """Systems of scenarios of a folder, kept in a process that plays one run of them after the other.

    Parameters
    ----------
    base
        Folder that relative paths start from.

    Returns
    -------
    Machines
        The same for the same folder as the last time.
    """
    return Machines(base)


def _loaded(
    scenario: Scenario | str | Path | Mapping[str, Any],
    set: Mapping[str, Any] | None,
    record: Record | None,
    allow_policies: bool,
) -> Scenario:
    if set or not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario, set=set)
    if allow_policies:
        scenario = scenario.allowing_policies()
    return scenario if record is None else scenario.recorded(record)


def evaluate(
    one: Run, machines: Machines | None = None, *, progress: Callable[[float], None] | None = None
) -> results.Outcome:
    """What becomes of a run: a result, or why there is none.

    Not to fit the memory, and no plan of these sizes, are outcomes.

    Parameters
    ----------
    one
        A run of a scenario.
    machines
        Systems loaded before; default: loaded here.
    progress
        Called with the share of the run that is done, 0 to 1.

    Returns
    -------
    Outcome
        A Result, Infeasible or Failed.

    Raises
    ------
    InputError
        For what is wrong with the input.
    """
    with one_look():
        return _became(one, machines or Machines(), progress)


def _became(one: Run, machines: Machines, progress: Callable[[float], None] | None) -> results.Outcome:
    try:
        tried = choice.best(one, machines, progress)
        found = result_of(tried)
        if one.uncertainty is None:
            return found
        from cmsim.execution.ends import with_ledger

        return with_ledger(found, tried, one, _system_of(tried, one, machines), machines.base)
    except InfeasibleError as refused:
        from cmsim.execution import nearest

        fits = one.open or refused.budget.get("what") != "memory"
        error = refused if fits else nearest.told(refused, one, machines(one), machines.base)
        return results.Infeasible(**_named(one), message=str(error), budget=error.budget)
    except FailedError as error:
        return failed(one, str(error))


def _system_of(tried: Play | Result, one: Run, machines: Machines) -> System:
    return tried.system if isinstance(tried, Play) else machines(one)


def failed(one: Run, message: str) -> results.Failed:
    """A run that gave nothing.

    Parameters
    ----------
    one
        A run of a scenario.
    message
        Why.

    Returns
    -------
    Failed
        An outcome among the others.
    """
    return results.Failed(**_named(one), message=message)


def _named(one: Run) -> dict[str, Any]:
    return {
        "run": one.key,
        "workload": one.workload,
        "system": one.system.label,
        "kind": one.spec.kind,
        "entry": one.identity.entry,
        "point": dict(one.point),
    }


def run_one(
    one: Run, system: System, *, base: Path | None = None, progress: Callable[[float], None] | None = None
) -> Result:
    """One workload that leaves nothing open on one system: programs, plan, play, and what they say.

    Parameters
    ----------
    one
        A run of a scenario.
    system
        Where it runs.
    base
        Folder that relative paths of the scenario start from.
    progress
        Called with the share of the run that is done, 0 to 1.

    Returns
    -------
    Result
        Metrics, bound, breakdown and frames.

    Raises
    ------
    InfeasibleError
        Where it does not fit the memory, or no plan of these sizes is one.
    FailedError
        Where what was played gives nothing to trust.
    """
    done = choice.attempt(one, system, base, progress=progress)
    assert done is not None, "without a limit a run is executed to its end"
    return result_of(done)


def export_chakra(one: Run, folder: str | Path, *, base: Path | None = None) -> list[Path]:
    """A run's workload as Chakra execution traces, a file a rank, kernels as long as its system makes them.

    Warns of what Chakra has no form for, and of how kernels were priced.

    Parameters
    ----------
    one
        A run of a scenario; where it leaves keys open, its best candidate is written.
    folder
        Where to, complete or absent.
    base
        Folder that relative paths of the scenario start from.

    Returns
    -------
    list of Path
        The files, communicators last.

    Raises
    ------
    InputError
        Where the folder cannot be written.

    References
    ----------
    .. [1] S. Sridharan et al., "Chakra: Advancing Performance Benchmarking and Co-design using Standardized
       Execution Traces", arXiv:2305.14516, 2023.
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
    """Several scenarios or result folders as one set of results, side by side.

    Parameters
    ----------
    *sources
        Results, scenarios (which are run), or folders that `Results.save` wrote.

    Returns
    -------
    Results
        All runs, in order; a label that was there before gets a number, ``run#2``.

    Raises
    ------
    InputError
        For a scenario or a folder that cannot be read.
    """
    parts = []
    names = [Path(one).name if isinstance(one, str | Path) else "" for one in sources]
    for source in sources:
        if isinstance(source, Results):
            parts.append(source)
        elif isinstance(source, str | Path) and results.is_folder(source):
            parts.append(Results.load(source))
        else:
            parts.append(run(source))
    return Results.joined(parts, names)


def _share(progress: Progress | None, key: str, number: int, total: int) -> Callable[[float], None] | None:
    if progress is None:
        return None
    progress(key, number / total)
    return lambda share: progress(key, (number + share) / total)


def manifest(scenario: Scenario, systems: Sequence[System]) -> dict[str, Any]:
    """What a figure can be traced back to.

    Parameters
    ----------
    scenario
        Whose runs were made.
    systems
        Those that runs were on.

    Returns
    -------
    dict
        Version of cmsim, seed, scenario text, system files with their digests, sources, and what is assumed.
    """
    files = [file for one in systems for file in (one.spec, one.accelerator, one.stack)]
    # a system may run kinds of workloads on stacks of their own
    texts: dict[str, dict[str, str]] = {}
    for one in systems:
        texts.setdefault(one.name, {}).update(one.texts)
    bare = sorted({file.name for file in files if not file.sources})
    return {
        "cmsim": __version__,
        "seed": scenario.runs[0].seed,
        "scenario_file": Path(scenario.file).name,
        "scenario_text": scenario.text,
        "systems": {one.name: {"digest": one.digest, "files": texts[one.name]} for one in systems},
        "sources": sorted({source for one in systems for _, _, source in one.sources() if isinstance(source, str)}),
        "assumed": sorted({f"{name}: {key}" for one in systems for name, key, _ in one.assumed()}),
        **({"without_sources": bare} if bare else {}),
    }


__all__ = [
    "Machines",
    "Progress",
    "candidates",
    "check",
    "check_asked",
    "check_money",
    "check_report",
    "compare",
    "digests",
    "evaluate",
    "export_chakra",
    "manifest",
    "options_of",
    "outcomes",
    "run",
    "run_one",
    "system",
]
